"""Tails: how a function hands its call on, and what happens to those that are not returned."""

from __future__ import annotations

import warnings

import pytest

import bourse
from bourse import _messages as messages
from bourse import _values as values

WALKING = """
    import asyncio
    from bourse import Response, Target, context, function, state, tail

    @function
    def walk(n: int, total: int = 0):
        if n == 0: return total
        return walk.tail(n - 1, total=total + n)
    @function
    async def awalk(n): return walk.tail(n, total=-1)
    @function
    def by_name(n): return tail("other.walk", n, deep=True)
    @function
    def of_a_version(): return Target("other.walk").options(version="^1.2").tail()
    @function
    def writing(n):
        state("a/x").set(n)
        return walk.tail(n)
    @function
    def dropped():
        walk.tail(1)
        return "not handed on"
    @function
    def inside(how):
        t = walk.tail(1)
        return [t] if how == "list" else {"next": t} if how == "dict" else Response(t)
    @function
    def passed(): return walk.call(walk.tail(1))
    @function
    def bad(): return walk.tail(object())
    @function
    def large(): return walk.tail("x" * 2000)
    @function
    def limited(): return walk.options(timeout=1).tail(1)
    @function
    def step(): return [context.step, dict(context.values), context.attempt]
"""


def tailed(node, call):
    """What the call was handed on to, and the arguments."""
    result, payload = node.expect("result")
    node.last_seq = result.seq
    assert result.call == call and result.HasField("tail"), result
    return result, values.decode(payload)


def test_a_call_is_handed_on(node):
    node.welcomed(WALKING)
    result, arguments = tailed(node, node.invoke("walk", 3))
    assert (result.tail.function, result.tail.version, arguments) == ("mod.walk", "", [[2], {"total": 3}])
    assert not result.HasField("failure") and not result.content_type
    assert node.run("walk", 0, 6) == 6, "who does not hand on answers"
    result, arguments = tailed(node, node.invoke("awalk", 3))
    assert (result.tail.function, arguments) == ("mod.walk", [[3], {"total": -1}])
    result, arguments = tailed(node, node.invoke("by_name", 3))
    assert (result.tail.function, arguments) == ("other.walk", [[3], {"deep": True}])
    result, _ = tailed(node, node.invoke("of_a_version"))
    assert (result.tail.function, result.tail.version) == ("other.walk", "^1.2")
    assert node.run("walk", 0) == 0, "the message is a new one"


def test_what_was_written_goes_along(node):
    node.welcomed(WALKING)
    result, _ = tailed(node, node.invoke("writing", 3))
    assert [write.key.name for write in result.writes] == ["a/x"]


def test_it_is_sent_again_after_a_reconnect_as_any_result(node):
    node.welcomed(WALKING)
    result, _ = tailed(node, node.invoke("walk", 3))
    node.last_seq = 0
    welcome = messages.ToWorker()
    welcome.welcome.incarnation = 7
    node.send(welcome)  # as after a reconnect: it has acknowledged nothing
    again, payload = node.expect("result")
    assert again == result and values.decode(payload) == [[2], {"total": 3}]


def test_one_that_is_not_returned_is_noticed(node):
    node.welcomed(WALKING)
    outer = node.invoke("dropped")
    assert node.outcome(outer) == "not handed on"
    line, _ = node.expect("log")
    assert line.level == 3 and line.call == outer
    assert "mod.walk.tail(…) was not returned" in line.message and "return walk.tail(…)" in line.message
    assert "mod.py:" in line.fields["at"]


def test_one_inside_something_else_is_refused(node):
    node.welcomed(WALKING)
    for how, where in (("list", r"result[0]"), ("dict", "result['next']"), ("response", "result")):
        failure = node.run("inside", how)
        assert failure.type == "TypeError" and f"{where} is a tail, which hands on only" in failure.message
        assert "return f.tail(…)" in failure.message
    failure = node.run("passed")
    assert "argument 1 is a tail" in failure.message


def test_arguments_that_cannot_be_handed_on(node):
    node.welcomed(WALKING, payload_max=1000)
    assert "argument 1 is of type object, which can't be sent" in node.run("bad").message
    failure = node.run("large")
    assert failure.code == "too_large" and "arguments for mod.walk" in failure.message
    assert "only version goes with tail" in node.run("limited").message
    assert node.run("walk", 0) == 0


def test_the_step(node):
    node.welcomed(WALKING)
    assert node.run("step") == [0, {"tenant": "acme"}, 1]
    more = messages.ToWorker().invoke
    more.step, more.attempts_before = 7, 9
    assert node.outcome(node.invoke("step", _attempt=11, _more=more)) == [7, {"tenant": "acme"}, 2]


# ---------------------------------------------------------------- plain Python


@bourse.function
def count(to: int, seen: tuple = ()):
    return list(seen) if len(seen) == to else count.tail(to, (*seen, len(seen)))


@bourse.function
async def odd(n: int):
    return even.tail(n - 1) if n else False


@bourse.function
def even(n: int):
    return odd.tail(n - 1) if n else True


def test_all_steps_run_in_plain_python():
    assert count.tail(3).run() == [0, 1, 2]
    assert count(0) == []
    assert count(1).run() == [0]
    assert odd.tail(7).run() is True and even.tail(7).run() is False
    with pytest.raises(TypeError, match="known by its name only"):
        bourse.tail("m.f", 1).run()


def test_one_that_is_dropped_in_plain_python_warns():
    with pytest.warns(RuntimeWarning, match=r"test_tail\.count\.tail\(…\) was not returned") as warned:
        count.tail(1)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count.tail(1).run()
