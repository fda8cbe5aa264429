"""Durable calls with a real daemon: in instances of its own, and in a developer's process."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from daemon import Folder

import bourse

WORK = """
import asyncio
from bourse import DeadLetter, Discard, Response, RetryAfter, context, function, start, state, submit

def count(key):
    total = state(key).get(0) + 1
    state(key).set(total)
    return total

@function(retry={"attempts": 4, "pause": "10ms", "never": [LookupError]})
def attempts(fails: int, how: str = ""):
    if context.attempt <= fails:
        raise {"again": RetryAfter(0, "once more"), "dead": DeadLetter("no use"), "discard": Discard("too late"),
               "never": KeyError("x")}.get(how) or ConnectionError(f"failure {context.attempt}")
    return [context.attempt, context.redelivered]

@function
def add(key: str):
    return count(f"{key}/total")

@function
def total(key: str):
    return state(f"{key}/total").get(0)

@function
def chain(key: str, fail: bool = False):
    state(f"{key}/started").set(True)
    started = [start("work.add", key) for _ in range(3)]
    if fail:
        raise ValueError("and nothing of it happens")
    return started

inside = [0]

@function
def alone():
    inside[0] += 1
    most = max((start("work.page"), inside[0])[1] for _ in range(50))
    inside[0] -= 1
    return most

@function
async def mixed(key: str):
    async def slow(): return await submit("work.slow", 0.2)
    waiting = asyncio.ensure_future(slow())
    for _ in range(5): await asyncio.sleep(0)  # it waits now
    first = add.start(key)
    both = [await add.astart(key), await asyncio.gather(add.astart(key), submit("work.slow", 0.01))]
    return [first, both, await waiting]

@function
async def slow(seconds: float):
    await asyncio.sleep(seconds)
    return "slow"

@function
def page():
    return Response("gone", 410)
"""


@pytest.fixture(params=["up", "run"])
def daemon(request):
    if "BOURSE_BINARY" not in os.environ:
        pytest.skip("BOURSE_BINARY is not set: no daemon to test with")
    place = Path(tempfile.mkdtemp(prefix="b-"))  # short: an ipc path has at most 107 bytes
    folder = Folder(place)
    folder.write("work.py", WORK)
    getattr(folder, request.param)()
    yield folder
    folder.close()
    shutil.rmtree(place, ignore_errors=True)


def test_durable_calls(daemon):
    with bourse.Client(daemon.served) as client:
        # Tried again until it succeeds, or for as long as is allowed.
        assert client.result(client.start("work.attempts", 0)) == [1, False]
        assert client.result(client.start("work.attempts", 3)) == [4, True]
        with pytest.raises(bourse.FunctionError, match="ConnectionError: failure 4"):
            client.result(client.start("work.attempts", 9))
        assert client.call("work.attempts", 2) == [3, True], "who calls such a function waits for its end as well"
        # By what it raised, or as it says itself.
        with pytest.raises(bourse.FunctionError, match="KeyError"):
            client.result(client.start("work.attempts", 1, how="never"))
        assert client.result(client.start("work.attempts", 1, how="again")) == [2, True]
        for how, why in (("dead", "bourse.DeadLetter: no use"), ("discard", "bourse.Discard: too late")):
            with pytest.raises(bourse.FunctionError, match=why):
                client.result(client.start("work.attempts", 1, how=how))
        # Once for each key.
        id = client.start("work.add", "k", idempotency_key="1")
        assert client.result(id) == 1
        assert client.start("work.add", "k", idempotency_key="1") == id and client.result(id) == 1
        assert client.function("work.add").options(idempotency_key="1").call("k") == 1
        # Other kinds of results, and of ids.
        assert client.result(client.start("work.page")) == bourse.Response("gone", 410, content_type="text/plain; charset=utf-8")
        with pytest.raises(bourse.NotFound):
            client.result("01890000-0000-7000-8000-000000000000")
        with pytest.raises(bourse.NotFound):
            client.start("work.nothing")
        slow = client.start("work.slow", 0.5)
        with pytest.raises(bourse.Timeout, match="it goes on"):
            client.result(slow, timeout="1ms")
        assert client.result(slow) == "slow"


def test_within_an_event_loop(daemon):
    async def body():
        async with bourse.AsyncClient(daemon.served) as client:
            ids = await asyncio.gather(*(client.start("work.attempts", n % 3) for n in range(30)))
            ends = await asyncio.gather(*map(client.result, ids))
            assert [attempt for attempt, _ in ends] == [1 + n % 3 for n in range(30)]
            slow = await client.start("work.slow", 0.3)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.result(slow), 0.01)
            assert await client.result(slow) == "slow"

    asyncio.run(body())


def test_calls_that_functions_start(daemon):
    with bourse.Client(daemon.served) as client:
        started = client.call("work.chain", "a")
        assert len(set(started)) == 3 and sorted(map(client.result, started)) == [1, 2, 3]
        with pytest.raises(bourse.FunctionError, match="nothing of it happens"):
            client.call("work.chain", "b", fail=True)
        assert client.call("work.total", "b") == 0
        first, (second, (third, _)), slow = client.call("work.mixed", "c")
        assert slow == "slow" and sorted(map(client.result, (first, second, third))) == [1, 2, 3]
        # An instance that starts a call keeps its slot: nothing else runs there meanwhile.
        assert client.gather(*[client.submit("work.alone") for _ in range(10)]) == [1] * 10
        started = client.result(client.start("work.chain", "d"))
        assert sorted(map(client.result, started)) == [1, 2, 3]
