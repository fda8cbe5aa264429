"""Exceptions by which a function decides itself what becomes of the durable call that it runs."""

from __future__ import annotations

import datetime
import pickle

import pytest

import bourse
from bourse import _errors
from bourse import _messages as messages

DECIDING = """
    import bourse
    from bourse import call, FunctionError

    class Busy(bourse.RetryAfter):
        def __init__(self, who): super().__init__("1m", f"{who} is busy")
    class Careless(bourse.RetryAfter):
        def __init__(self): pass

    def again(*args): raise bourse.RetryAfter(*args)
    def busy(): raise Busy("ann")
    def careless(): raise Careless
    def dead(): raise bourse.DeadLetter("no such order")
    def bare(): raise bourse.DeadLetter
    def wraps(): raise bourse.DeadLetter(KeyError("a"))
    async def discard(): raise bourse.Discard("out of date")
    def caused():
        try: 1 / 0
        except ZeroDivisionError as error: raise bourse.Discard("out of date") from error
    def nests(): return call("other.f")
    def catches():
        try: call("other.f")
        except FunctionError as error: return [type(error).__name__, error.type, error.message, error.retry_after]
"""

AGAIN, DEAD, DISCARD = 1, 2, 3


def said(failure):
    assert failure.code == "function_error"
    return failure.verdict, failure.retry_after_ms, failure.type, failure.message


def test_a_function_decides(node):
    node.welcomed(DECIDING)
    again = "bourse.RetryAfter"
    assert said(node.run("again", "200ms", "wait")) == (AGAIN, 200, again, "wait")
    assert said(node.run("again", 2.5)) == (AGAIN, 2500, again, "again in 2.5 s")
    assert said(node.run("again", "120", "Retry-After said so")) == (AGAIN, 120_000, again, "Retry-After said so")
    assert said(node.run("again")) == (AGAIN, 5000, again, "again in 5 s")
    assert said(node.run("again", 0)) == (AGAIN, 0, again, "again in 0 s")
    assert said(node.run("busy")) == (AGAIN, 60_000, "mod.Busy", "ann is busy")
    assert said(node.run("careless")) == (AGAIN, 5000, "mod.Careless", "again in 5 s")
    assert said(node.run("dead")) == (DEAD, 0, "bourse.DeadLetter", "no such order")
    assert said(node.run("bare")) == (DEAD, 0, "bourse.DeadLetter", "")
    assert said(node.run("wraps")) == (DEAD, 0, "bourse.DeadLetter", "'a'")
    assert said(node.run("discard")) == (DISCARD, 0, "bourse.Discard", "out of date")
    failure = node.run("caused")
    assert said(failure) == (DISCARD, 0, "bourse.Discard", "out of date")
    assert "ZeroDivisionError" in failure.traceback and "bourse.Discard: out of date" in failure.traceback


def test_one_that_is_none_is_the_functions_error(node):
    node.welcomed(DECIDING)
    for wrong in ("soon", -1, None):
        assert said(node.run("again", wrong))[:3] == (0, 0, "ValueError")


def test_its_caller_gets_an_ordinary_error(node):
    node.welcomed(DECIDING)
    inner = _errors.failure_of(bourse.RetryAfter("5s", "busy"))
    outer = node.invoke("catches")
    node.reply(node.expect("call")[0], failure=inner)
    assert node.outcome(outer) == ["FunctionError", "bourse.RetryAfter", "busy", 5.0]
    outer = node.invoke("nests")
    node.reply(node.expect("call")[0], failure=inner)
    failure = node.outcome(outer)
    # What the inner function decided is not what the outer one does.
    assert (failure.verdict, failure.code, failure.type) == (0, "function_error", "bourse.RetryAfter")
    assert failure.message == "busy"


def test_they_are_the_protocols():
    verdict = messages.Failure.DESCRIPTOR.fields_by_name["verdict"].enum_type.values_by_name
    for name, cls in (("AGAIN", bourse.RetryAfter), ("DEAD_LETTER", bourse.DeadLetter), ("DISCARD", bourse.Discard)):
        assert cls.verdict == verdict[f"VERDICT_{name}"].number


def test_they_survive_a_process_pool():
    for error in (bourse.RetryAfter(datetime.timedelta(minutes=1), "busy"), bourse.DeadLetter("x"), bourse.Discard()):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.after_ms) == (type(error), str(error), error.after_ms)
    with pytest.raises(ValueError, match="not a duration"):
        bourse.RetryAfter("soon")
