"""`async def` functions that end, or go on, while calls that they have made are open."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from daemon import Folder
from fake_node import Node

from bourse import _messages as messages

ENDS = """
import asyncio
from bourse import function, state, submit

@function
async def slow():
    await asyncio.sleep(SECONDS)

@function
def bad(): raise LookupError("no such thing")

@function
def good(n: int = 1): return n

@function
async def one_fails(): return await asyncio.gather(slow.acall(), bad.acall())

@function
async def one_future_fails(): return await asyncio.gather(slow.submit(), bad.submit())

@function
async def times_out(): return await asyncio.wait_for(slow.acall(), 0.05)

@function
async def goes_on():
    try: await asyncio.wait_for(slow.acall(), 0.05)
    except asyncio.TimeoutError: return ["caught", await good.acall(7)]

@function
async def leaves_behind():
    task = asyncio.create_task(slow.acall())
    await asyncio.sleep(0.05)
    return "left"

@function
async def leaves_at_once():
    leaves_at_once.task = asyncio.create_task(slow.acall())
    return "left"

@function
async def first_of_two():
    done, pending = await asyncio.wait(
        [asyncio.ensure_future(slow.acall()), asyncio.ensure_future(good.acall())], return_when=asyncio.FIRST_COMPLETED)
    return "first" if done else "none"

@function
async def raises():
    asyncio.ensure_future(slow.acall())
    await asyncio.sleep(0.05)
    raise ValueError("its own")

@function
async def insists():
    async def calls():
        while True:
            try: await slow.acall()
            except asyncio.CancelledError: pass
    asyncio.ensure_future(calls())
    await asyncio.sleep(0.05)
    return "insisted"

@function
async def cleans_up():
    cleaned = []
    async def calls():
        try: await slow.acall()
        finally: cleaned.append(True)
    task = asyncio.ensure_future(calls())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    state("cleaned").set(cleaned)
    return cleaned

@function
async def two_and_a_timer():
    other = asyncio.ensure_future(good.acall(3))
    try: await asyncio.wait_for(slow.submit(), 0.05)
    except asyncio.TimeoutError: return await other
"""

RESULTS = {
    "times_out": "TimeoutError",
    "one_fails": "LookupError",
    "one_future_fails": "LookupError",
    "raises": "ValueError",
    "goes_on": ["caught", 7],
    "leaves_behind": "left",
    "leaves_at_once": "left",
    "first_of_two": "first",
    "insists": "insisted",
    "cleans_up": [True],
    "two_and_a_timer": 3,
}


def outcome(node: Node, outer: bytes):
    """Plays the node until the result: it holds replies back while the call waits, and takes no result then."""
    open_calls: dict = {}
    answered: dict = {}  # request -> its reply, which is held back
    waited: set = set()
    while True:
        kind, message, _ = node.next()
        if kind == "call":
            open_calls[message.request] = message
            failure = messages.Failure(code="function_error", type="LookupError", message="no such thing")
            if message.function.endswith("bad"):
                answered[message.request] = {"failure": failure}
            elif message.function.endswith("good"):
                answered[message.request] = {"value": {"goes_on": 7, "two_and_a_timer": 3}.get(node.asked, 1)}
        elif kind == "wait":
            assert message.any
            waited = set(message.requests) if all(request in open_calls for request in message.requests) else set()
        elif kind == "cancel" and message.request in open_calls:
            answered.setdefault(message.request, {"failure": messages.Failure(code="cancelled")})
        elif kind == "result":
            assert message.call == outer and not waited, "it answered a call while that waited for others"
            node.early.insert(0, (kind, message, _))
            return node.outcome(outer)
        if not waited or waited & answered.keys():
            waited = set()
            for request, reply in answered.items():
                node.reply(open_calls.pop(request), **reply)
            answered.clear()


@pytest.mark.parametrize("function", RESULTS)
def test_a_result_comes_after_the_slot_is_back(node, function):
    node.welcomed(ENDS)
    node.asked = function
    for _ in range(3):
        result = outcome(node, node.invoke(function))
        name = getattr(result, "type", "")
        assert (name.rpartition(".")[2] or result) == RESULTS[function]
    assert node.run("good", 5) == 5, "the same instance goes on"


@pytest.fixture(params=["up", "run"])
def daemon(request):
    if "BOURSE_BINARY" not in os.environ:
        pytest.skip("BOURSE_BINARY is not set: no daemon to test with")
    place = Path(tempfile.mkdtemp(prefix="b-"))  # short: an ipc path has at most 107 bytes
    folder = Folder(place)
    # In a developer's process one function runs on top of the other: there it has to end for the caller to go on.
    folder.write("mod.py", ENDS.replace("SECONDS", "2" if request.param == "up" else "0.2"))
    getattr(folder, request.param)()
    yield folder
    folder.close()
    shutil.rmtree(place, ignore_errors=True)


def test_with_a_daemon(daemon):
    for function, expected in RESULTS.items():
        result = daemon.call(f"mod.{function}")
        if isinstance(result, dict) and "error" in result:
            result = result["error"]["type"].rpartition(".")[2]
        assert result == expected, function
