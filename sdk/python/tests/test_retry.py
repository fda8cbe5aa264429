"""The option `retry`: what the node is told of it, and what is refused."""

from __future__ import annotations

import datetime
import json

import pytest
from test_discover import described

import bourse


def told(retry):
    """What the node reads."""

    @bourse.function(retry=retry)
    def f():
        pass

    return json.loads(f.retry.to_json()) if f.retry else None


class Base(Exception):
    pass


class Derived(Base):
    pass


@pytest.mark.parametrize(
    "given, expected",
    [
        (5, 5),
        (True, True),
        (False, None),
        (None, None),
        ({}, {}),
        ({"attempts": 2, "pause": "1s", "pause_max": "1m"}, {"attempts": 2, "pause": "1000ms", "pause_max": "60000ms"}),
        ({"pause": 0.25, "pause_max": datetime.timedelta(hours=1)}, {"pause": "250ms", "pause_max": "3600000ms"}),
        ({"pause": 0, "pause_max": "90"}, {"pause": "0ms", "pause_max": "90000ms"}),  # as the node reads it, without a unit
        ({"pause": "5m"}, {"pause": "300000ms"}),  # longer than the longest pause would be: that follows
        ({"only": ["requests.Timeout", "Timeout"]}, {"only": ["requests.Timeout", "Timeout"]}),
        ({"never": (KeyError, bourse.NotFound, "E")}, {"never": ["KeyError", "NotFound", "E"]}),
        ({"only": [Exception]}, {}),  # which is to say: no matter which
        ({"only": [Base], "never": []}, {"only": ["test_retry.Base", "test_retry.Derived"], "never": []}),
        ({"only": [Derived, Base, "x"]}, {"only": ["test_retry.Derived", "test_retry.Base", "x"]}),
    ],
)
def test_what_the_node_reads(given, expected):
    assert told(given) == expected


def test_a_class_stands_for_those_derived_from_it():
    names = told({"only": [ConnectionError]})["only"]
    assert names[0] == "ConnectionError" and {"ConnectionResetError", "BrokenPipeError"} <= set(names)
    names = told({"never": [ValueError]})["never"]
    assert {"json.decoder.JSONDecodeError", "UnicodeError", "UnicodeDecodeError"} <= set(names)


def test_it_stands_in_the_description(tmp_path):
    module = described(
        tmp_path,
        """
        from bourse import function
        class Broken(Exception): pass
        @function(retry={"attempts": 3, "only": [Broken, "requests.Timeout"]}, timeout=2)
        def f(): pass
        @function(retry=True)
        def g(): pass
        @function
        def h(): pass
        class Shattered(Broken): pass
        """,
    )
    f, g, h = (dict(function.options) for function in module.functions)
    # A class that is defined after the function counts as well.
    assert json.loads(f.pop("retry")) == {"attempts": 3, "only": ["mod.Broken", "mod.Shattered", "requests.Timeout"]}
    assert (f, g, h) == ({"timeout": '"2000ms"'}, {"retry": "true"}, {})


@pytest.mark.parametrize(
    "given, why",
    [
        (0, "retry = 0: that is not a number of attempts: 1 or more"),
        (-1, "1 or more"),
        (2**32, "1 or more"),
        (2.5, "write a number of attempts, True, or a dictionary"),
        ("5", "write a number of attempts, True, or a dictionary"),
        ([5], "write a number of attempts, True, or a dictionary"),
        ({"attempts": True}, "'attempts' = True: that is not a number of attempts"),
        ({"attempts": "5"}, "not a number of attempts"),
        ({"atempts": 5}, "no key 'atempts'; did you mean 'attempts'"),
        ({5: 5}, "no key 5; there are attempts, pause, pause_max, only, never"),
        ({"pause": "soon"}, "'pause' = 'soon' is not a duration"),
        ({"pause": -1}, "'pause' = -1 is not a duration"),
        ({"pause": [1]}, "is not a duration"),
        ({"pause_max": None}, "'pause_max' = None is not a duration"),
        ({"pause": 9, "pause_max": 1}, "'pause' is longer than 'pause_max'"),
        ({"pause_max": "200ms"}, "'pause', 1 s unless it is given, is longer than 'pause_max'"),
        ({"only": ConnectionError}, "'only' = .* is not a list of exceptions"),
        ({"only": "ValueError"}, "is not a list of exceptions"),
        ({"never": [int]}, "'never': <class 'int'> is no exception"),
        ({"never": [ValueError()]}, r"'never': ValueError\(\) is no exception"),
        ({"never": ["a b"]}, "'never': 'a b' is no exception"),
        ({"never": [""]}, "'never': '' is no exception"),
        ({"never": [Exception]}, "'never': .*: write attempts=1"),
    ],
)
def test_what_is_refused(given, why):
    with pytest.raises(bourse.OptionError, match=f"@function of f: .*{why}"):
        told(given)


def test_a_module_with_a_wrong_one_does_not_load(node):
    process = node.start("import bourse\n@bourse.function(retry='often')\ndef f(): pass\n")
    hello, _ = node.expect("hello")
    assert hello.failed.code == "module_failed" and "@function of f: retry = 'often'" in hello.failed.message
    assert process.wait(10) == 1
