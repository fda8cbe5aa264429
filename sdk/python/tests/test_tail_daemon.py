"""Tails, locks, delays and contexts with a real daemon: in instances of its own, and in a developer's process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from daemon import Folder

import bourse

STEPS = """
from bourse import RetryAfter, context, function, state, tail

@function
def down(n: int, total: int = 0):
    return down.tail(n - 1, total + n) if n else total

@function
async def adown(n: int):
    return tail("steps.adown", n - 1) if n else "down"

@function
def ping(n: int):
    return pong.tail(n - 1) if n else context.step

@function
def pong(n: int):
    return ping.tail(n)

@function
def flaky(n: int, seen: list):
    count = state("flaky/steps")
    count.set(count.get(0) + 1)
    if context.attempt == 1:
        raise RetryAfter(0, "the first attempt of each step")
    seen.append(context.attempt)
    return flaky.tail(n - 1, seen) if n else [count.get(), seen]

@function
def nowhere():
    return tail("steps.nothing")

@function
def seen():
    return {"step": context.step, "tenant": context.values.get("tenant"), "root": context.root_id, "id": context.call_id}

@function
def tree(how: str):
    if how == "tail":
        return seen.tail()
    if how == "tail twice":
        return tree.tail("tail")
    if how == "tail, then call":
        return tree.tail("call")
    if how == "tail, then start":
        return tree.tail("start")
    return getattr(seen, how)()

@function(exclusive="{key}")
def enter(key: str, steps: int):
    inside, fences = state(f"{key}/inside"), state(f"{key}/fences")
    inside.set(inside.get(0) + 1)
    fences.set([*fences.get([]), context.fence])
    return stay.tail(key, steps)

@function
def stay(key: str, steps: int):
    if steps:
        return stay.tail(key, steps - 1)
    inside = state(f"{key}/inside")
    inside.set(inside.get() - 1)
    return inside.get()

@function
def fences(key: str):
    return state(f"{key}/fences").get()

@function(unique={"key": "{key}", "window": "running"})
def once(key: str, steps: int):
    return stay_once.tail(steps)

@function
def stay_once(steps: int):
    return stay_once.tail(steps - 1) if steps else context.call_id
"""


@pytest.fixture(params=["up", "run"])
def client(request):
    if "BOURSE_BINARY" not in os.environ:
        pytest.skip("BOURSE_BINARY is not set: no daemon to test with")
    place = Path(tempfile.mkdtemp(prefix="b-"))  # short: an ipc path has at most 107 bytes
    folder = Folder(place)
    folder.write("steps.py", STEPS)
    getattr(folder, request.param)()
    with bourse.Client(folder.served) as client:
        yield client
    folder.close()
    shutil.rmtree(place, ignore_errors=True)


def test_calls_are_handed_on(client):
    for run in (client.call, lambda *args: client.result(client.start(*args))):
        assert run("steps.down", 30) == sum(range(31))
        assert run("steps.adown", 5) == "down"
        assert run("steps.ping", 5) == 10, "context.step counts"
        with pytest.raises(bourse.NotFound):
            run("steps.nowhere")


def test_each_step_has_its_attempts_and_takes_effect_once(client):
    flaky = client.function("steps.flaky")
    assert client.result(flaky.start(3, [])) == [4, [2, 2, 2, 2]]


def test_the_context_goes_along(client):
    tree = client.function("steps.tree").options(context={"tenant": "acme"})
    for how in ("call", "tail", "tail twice", "tail, then call"):
        for seen in (tree.call(how), client.result(tree.start(how))):
            assert seen["tenant"] == "acme"
    tailed = tree.start("tail twice")
    seen = client.result(tailed)
    assert seen == {"step": 2, "tenant": "acme", "root": tailed, "id": tailed}
    for how in ("start", "tail, then start"):
        for started in (tree.call(how), client.result(tree.start(how))):
            assert client.result(started)["tenant"] == "acme"


def test_a_key_is_kept_until_the_last_step(client):
    calls = [client.start("steps.enter", "a", 5) for _ in range(6)]
    calls += [client.start("steps.enter", "b", 5)]
    assert [client.result(call) for call in calls] == [0] * 7
    assert client.gather(*[client.submit("steps.enter", "a", 3) for _ in range(3)]) == [0] * 3
    fences = client.call("steps.fences", "a")
    assert len(fences) == 9 and fences == sorted(set(fences)) and fences[0] > 0


def test_a_unique_call_runs_until_its_last_step(client):
    first = client.start("steps.once", "a", 20)
    assert client.start("steps.once", "a", 20) == first
    assert client.result(first) == first
    second = client.start("steps.once", "a", 0)
    assert second != first and client.result(second) == second


def test_a_delayed_call_runs_later(client):
    before = time.monotonic()
    assert client.result(client.start("steps.down", 1, delay="300ms")) == 1
    assert time.monotonic() - before >= 0.3
