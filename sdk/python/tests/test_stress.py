"""The socket changes hands between two threads: nothing may be lost, repeated or out of order meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import deque

import pytest
from fake_node import SOURCE

from bourse import _messages as messages
from bourse import _values as values

MIXED = """
    import asyncio, time
    import bourse
    def run(n, kind, seconds):
        if kind == "sleep": time.sleep(seconds)
        if kind == "spin":
            end = time.monotonic() + seconds
            while time.monotonic() < end: pass
        if kind == "nested":
            time.sleep(seconds)
            return bourse.call("other.same", n)
        return n
    async def arun(n, kind, seconds):
        await asyncio.sleep(seconds)
        return sum(await asyncio.gather(bourse.submit("other.same", n), bourse.submit("other.same", 0)))
"""


@pytest.mark.parametrize("alarm", ["TimerAlarm", "PipeAlarm"])
def test_hand_overs(node, alarm):
    if alarm == "PipeAlarm":
        source = "import bourse._watchdog as w\nw.Alarm = w.PipeAlarm\n" + "\n".join(
            line[4:] for line in MIXED.splitlines()
        )
    else:
        source = MIXED
    node.welcomed(source)
    chance = random.Random(1)
    expected: deque = deque()
    pings = pongs = 0
    left = 400
    while left or expected or pings > pongs:
        while left and len(expected) < 8:
            left -= 1
            kind = chance.choice(["none", "none", "none", "sleep", "spin", "nested", "async"])
            seconds = chance.choice([0, 0.001, 0.0095, 0.0105, 0.015, 0.03])
            call = node.invoke("arun" if kind == "async" else "run", left, kind, seconds)
            expected.append((call, left))
            if chance.random() < 0.3:
                ping = messages.ToWorker()
                ping.ping.nonce = pings = pings + 1
                node.send(ping)
        kind, message, payload = node.next()
        if kind == "call":
            (n,), _ = values.decode(payload)
            node.reply(message, n)
        elif kind == "pong":
            pongs += 1
            assert message.nonce == pongs
        elif kind == "result":
            call, n = expected.popleft()
            assert message.call == call and values.decode(payload) == n
            assert message.seq == node.last_seq + 1
            node.last_seq = message.seq
        else:
            assert kind == "wait"


def test_importing_is_light():
    """The package neither starts threads nor makes a ZeroMQ context, and leaves the user's protobuf pool alone."""
    code = """
import threading, os, bourse, bourse._template
from google.protobuf import descriptor_pool
assert threading.active_count() == 1
assert not os.path.isdir("/proc/self/task") or len(os.listdir("/proc/self/task")) == 1
try: descriptor_pool.Default().FindMessageTypeByName("bourse.v1.ToNode")
except KeyError: print("clean")
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True)
    assert done.stdout == "clean\n", done.stderr
