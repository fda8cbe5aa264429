"""Options of `@function`: what the node is told of them, and what is refused here already."""

from __future__ import annotations

import datetime
import json

import pytest
from test_discover import described

import bourse


def told(**options):
    """What the node reads."""

    @bourse.function(**options)
    def f(account: str, year: int = 2026, *rest, by: str = "me", **more):
        pass

    return {option: json.loads(words) for option, words in f.words.items()}


@pytest.mark.parametrize(
    "option, given, expected",
    [
        ("timeout", datetime.timedelta(seconds=2), "2000ms"),
        ("queue_wait", 0.5, "500ms"),
        ("exclusive", "{account}", "{account}"),
        ("exclusive", "{account}/{year}-{by}{{}}", "{account}/{year}-{by}{{}}"),
        ("exclusive", "all", "all"),
        ("unique", "{account}", "{account}"),
        ("unique", {"key": "{by}"}, {"key": "{by}"}),
        ("unique", {"key": "x", "window": "running"}, {"key": "x", "window": "running"}),
        ("unique", {"key": "x", "window": "1h"}, {"key": "x", "window": "3600000ms"}),
        ("unique", {"key": "x", "window": datetime.timedelta(days=2)}, {"key": "x", "window": "172800000ms"}),
        ("throttle", "10/s", "10/s"),
        ("throttle", {"rate": "1/m", "burst": 3, "key": "{by}"}, {"rate": "1/m", "burst": 3, "key": "{by}"}),
        ("debounce", "5s", {"wait": "5000ms"}),
        ("debounce", {"wait": 1, "max": "1m", "key": "{by}"}, {"wait": "1000ms", "max": "60000ms", "key": "{by}"}),
        ("batch", 100, {"max": 100}),
        ("batch", {"max": 10, "wait": "50ms"}, {"max": 10, "wait": "50ms"}),
        ("cron", "*/5 * * * *", "*/5 * * * *"),
        ("cron", "@hourly", "@hourly"),
        ("cron", "30 0 8 * * mon-fri", "30 0 8 * * mon-fri"),
        ("cron", {"line": "0 8 * * *", "zone": "Europe/Berlin", "missed": "all"}, None),
        ("cron", ("0 8 * * *", {"line": "@daily"}), ["0 8 * * *", {"line": "@daily"}]),
        ("queue", "orders", "orders"),
        ("queue", ("orders", "returns"), ["orders", "returns"]),
        ("topic", ["kv.*"], ["kv.*"]),
        ("mail", "shop@example.org", "shop@example.org"),
        ("websocket", "/chat/{room}", "/chat/{room}"),
        ("websocket", {"path": "/chat/{room}", "durable": True}, None),
        ("idempotent", True, True),
        ("horizon", "machine", "machine"),
    ],
)
def test_what_the_node_reads(option, given, expected):
    assert told(**{option: given}) == {option: given if expected is None else expected}
    assert told(**{option: None}) == {}


def test_they_stand_in_the_description(tmp_path):
    module = described(
        tmp_path,
        """
        from bourse import function
        @function(exclusive="{a}", unique={"key": "{b}", "window": "running"}, queue="q", timeout=2, retry=3)
        def f(a, b): pass
        """,
    )
    assert {option: json.loads(words) for option, words in module.functions[0].options.items()} == {
        "exclusive": "{a}",
        "unique": {"key": "{b}", "window": "running"},
        "queue": "q",
        "timeout": "2000ms",
        "retry": 3,
    }


@pytest.mark.parametrize(
    "option, given, why",
    [
        ("throttle", 5, "write a rate"),
        ("throttle", {"rate": "1/s", "key": "{b}"}, "names no argument"),
        ("debounce", "soon", "soon"),
        ("debounce", {"max": "1m"}, "needs a 'wait'"),
        ("batch", 0, "1 or more"),
        ("batch", {"max": 5, "wat": 1}, "did you mean 'wait'"),
        ("exclusive", True, 'write a key, "{account}"; or "all"'),
        ("exclusive", "", "it is empty"),
        ("exclusive", "{acount}", r"\{acount\} names no argument of the function; did you mean \{account\}\?"),
        ("exclusive", "{who}", r"\{who\} names no argument of the function; there are account, year, by"),
        ("exclusive", "{rest}", "names no argument"),
        ("exclusive", "{more}", "names no argument"),
        ("exclusive", "{account", "a brace without its other half"),
        ("exclusive", "account}", "a brace without its other half"),
        ("exclusive", "{}", r"\{\} is not an argument's name"),
        ("exclusive", "{account.id}", r"\{account.id\} is not an argument's name"),
        ("exclusive", "{year:04}", r"\{year:04\} is not an argument's name"),
        ("unique", 5, "write a key"),
        ("unique", {}, "it needs a 'key'"),
        ("unique", {"key": 5}, "'key' = 5 is not a text"),
        ("unique", {"key": "{x}"}, "names no argument"),
        ("unique", {"key": "a", "windw": "1h"}, "no key 'windw'; did you mean 'window'"),
        ("unique", {"key": "a", "window": "soon"}, "'window' = 'soon' is not a duration.*or 'running'"),
        ("unique", {"key": "a", "window": 0}, "must be greater than 0"),
        ("cron", "5 minutes", "is not a cron line"),
        ("cron", "@fortnightly", "is not a cron line"),
        ("cron", [], "write a line"),
        ("cron", 5, "write a line"),
        ("cron", [5], "neither a line nor a dictionary"),
        ("cron", {"zone": "UTC"}, "it needs a 'line'"),
        ("cron", {"line": "@daily", "zone": 1}, "'zone' = 1 is not a text"),
        ("cron", {"line": "@daily", "missed": "twice"}, "'missed' = 'twice'; it is one of skip, once, all"),
        ("cron", {"line": "x"}, "is not a cron line"),
        ("cron", {"line": "@daily", "tz": "UTC"}, "no key 'tz'; there are line, zone, missed"),
        ("queue", [], "write a name"),
        ("queue", "", "'' is not a name"),
        ("topic", [1], "1 is not a name"),
        ("mail", {"to": "a@b"}, "write a name"),
        ("websocket", "chat", "write a path"),
        ("idempotent", "yes", "True or False"),
        ("horizon", "planet", "process, machine, network, anywhere"),
        ("websocket", "GET /chat", "write a path"),
        ("websocket", {"durable": True}, "it needs a 'path'"),
        ("websocket", {"path": "/a", "durable": "yes"}, "'durable' = 'yes' is neither True nor False"),
    ],
)
def test_what_is_refused(option, given, why):
    with pytest.raises(bourse.OptionError, match=f"(?s)@function of f: {option} = .*{why}"):
        told(**{option: given})


def test_a_function_without_arguments_has_none_for_a_key():
    with pytest.raises(bourse.OptionError, match="there are none"):
        bourse.function(exclusive="{a}")(lambda: 1)
