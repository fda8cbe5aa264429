# Functions that play plans, as `crates/sim/src/stage.rs` describes them: all modules offer the same ones.
#
# A plan is what a run does. What it has begun, each run writes down itself, in one line. All is one file for all nodes, and
# state is in one namespace for all modules, as in the simulator.

import json
import os
import time

from bourse import DeadLetter, Discard, RetryAfter, Target, call, context, function, state, tail

with open("PLANS_FILE") as file:
    PLANS = json.load(file)
with open(os.path.join(os.path.dirname(__file__), "node.txt")) as file:
    NODE = file.read().strip()
QUICK = {"attempts": 3, "pause": "10ms"}


def _note(number):
    line = f"{number} {context.call_id} {context.attempt} {context.fence} {NODE} {time.monotonic_ns()}\n"
    file = os.open("RUNS_FILE", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


def _play(number):
    plan = PLANS[number]
    _note(number)
    made = "done"
    if plan["starts_first"]:
        _start(plan)
    time.sleep(plan["run_ms"] / 1000)
    if plan["scope"] is not None:
        made = _add(plan["scope"], number)
    if plan["peek"] is not None:
        state(f"{plan['peek']}/n", "shared").get(0)
    for child in plan["nested"]:
        call(PLANS[child]["function"], PLANS[child]["key"], plan=child)
    if not plan["starts_first"]:
        _start(plan)
    if context.attempt <= plan["bad"]:
        _end(plan)
    if plan["next"] is not None:
        step = plan["next"]
        return tail(PLANS[step]["function"], PLANS[step]["key"], plan=step)
    return made


def _add(scope, number):
    count = state(f"{scope}/n", "shared")
    place = count.get(0) + 1
    count.set(place)
    entry = f"{number} {context.call_id} {context.attempt} {context.fence}"
    state(f"{scope}/l/{place:06}", "shared").set(entry)
    return str(place)


def _start(plan):
    for child in plan["starts"]:
        of = PLANS[child]
        target = Target(of["function"])
        if of["delay_ms"]:
            target = target.options(delay=of["delay_ms"] / 1000)
        target.start(of["key"], plan=child)


def _end(plan):
    end = plan["end"]
    if end == "fails":
        raise ValueError("boom")
    if end == "crashes":
        os._exit(11)
    if end == "hangs":
        time.sleep(1000)
    if end == "again":
        raise RetryAfter(plan["end_ms"] / 1000)
    raise DeadLetter("as it wants") if end == "dead letters" else Discard("as it wants")


@function(timeout="3s")
def f(key: str, plan: int):
    return _play(plan)


@function(timeout="1s", retry=QUICK)
def q(key: str, plan: int):
    return _play(plan)


@function(timeout="3s", exclusive="{key}")
def x(key: str, plan: int):
    return _play(plan)


@function(timeout="1s", retry=QUICK, exclusive="{key}")
def y(key: str, plan: int):
    return _play(plan)


@function(timeout="3s", unique="{key}")
def u(key: str, plan: int):
    return _play(plan)


@function(timeout="3s", unique={"key": "{key}", "window": "running"})
def v(key: str, plan: int):
    return _play(plan)


@function(timeout="3s", unique={"key": "{key}", "window": "1m"})
def w(key: str, plan: int):
    return _play(plan)


@function(timeout="3s", unique="{key}", exclusive="all")
def e(key: str, plan: int):
    return _play(plan)
