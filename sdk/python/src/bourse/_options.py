"""Options of `@function` that say which calls are one, which wait for each other, and what else wakes a function.

`exclusive`, `unique`, `throttle`, `debounce`, `batch`, `cron`, `queue`, `topic`, `mail`, `websocket`, `idempotent`,
`horizon`. Each is checked where the function is decorated, so that an obvious mistake is an error of the module with a line
of Python to it, and put in the node's words. What else there is to say about a value (does the zone exist, is the line one that ever comes) the node says. docs/options.md has them all.
"""

from __future__ import annotations

import difflib
import inspect
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, TypedDict, Union

from ._durations import Duration, milliseconds

RUNNING = "running"  # the window of a unique key that ends with its call
KEYWORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
HORIZONS = ("process", "machine", "network", "anywhere")
MISSED = ("skip", "once", "all")

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _UniqueKey(TypedDict):
    key: str


class UniqueOptions(_UniqueKey, total=False):
    """The long form of `unique`."""

    window: Duration


class _Rate(TypedDict):
    rate: str


class ThrottleOptions(_Rate, total=False):
    """The long form of `throttle`."""

    burst: int
    key: str


class _Wait(TypedDict):
    wait: Duration


class DebounceOptions(_Wait, total=False):
    """The long form of `debounce`."""

    max: Duration
    key: str


class _Max(TypedDict):
    max: int


class BatchOptions(_Max, total=False):
    """The long form of `batch`."""

    wait: Duration


class _CronLine(TypedDict):
    line: str


class CronOptions(_CronLine, total=False):
    """The long form of `cron`."""

    zone: str
    missed: str


class _WebSocketPath(TypedDict):
    path: str


class WebSocketOptions(_WebSocketPath, total=False):
    """The long form of `websocket`."""

    durable: bool


Unique = Union[str, UniqueOptions]
Throttle = Union[str, ThrottleOptions]
Debounce = Union[Duration, DebounceOptions]
Batch = Union[int, BatchOptions]
Cron = Union[str, CronOptions, Sequence[Union[str, CronOptions]]]
Names = Union[str, Sequence[str]]
WebSocket = Union[str, WebSocketOptions]


def words(options: Mapping[str, Any], plain: Callable[..., Any]) -> dict[str, str]:
    """What the node reads: JSON, by the option's name. `ValueError` says what is wrong."""
    found = {}
    for option, given in options.items():
        if given is not None:
            try:
                found[option] = json.dumps(_READERS[option](given, plain))
            except ValueError as error:
                raise ValueError(f"{option} = {given!r}: {error}") from None
    return found


def _exclusive(given: Any, plain: Callable[..., Any]) -> str:
    if not isinstance(given, str):
        raise ValueError('write a key, "{account}"; or "all", for one call at a time')
    return _key(given, plain)


def _unique(given: Any, plain: Callable[..., Any]) -> Any:
    if isinstance(given, str):
        return _key(given, plain)
    if not isinstance(given, Mapping):
        raise ValueError('write a key, "{order}", or {"key": "{order}", "window": "1h"}')
    told = _checked(given, ("key", "window"), needed="key")
    if not isinstance(told["key"], str):
        raise ValueError(f"'key' = {told['key']!r} is not a text")
    told["key"] = _key(told["key"], plain)
    window = told.get("window")
    if window is not None and window != RUNNING:
        try:
            told["window"] = f"{milliseconds(window)}ms"
        except ValueError as error:
            raise ValueError(f"'window' = {error}, or {RUNNING!r}, until the call has ended") from None
    return told


def _throttle(given: Any, plain: Callable[..., Any]) -> Any:
    if isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise ValueError('write a rate, "10/s", or {"rate": "10/s", "burst": 5, "key": "{user}"}')
    return _keyed(_checked(given, ("rate", "burst", "key"), needed="rate"), plain)


def _debounce(given: Any, plain: Callable[..., Any]) -> Any:
    told = dict(given) if isinstance(given, Mapping) else {"wait": given}
    told = _keyed(_checked(told, ("wait", "max", "key"), needed="wait"), plain)
    return {key: value if key == "key" else f"{milliseconds(value)}ms" for key, value in told.items()}


def _batch(given: Any, _plain: Callable[..., Any]) -> Any:
    told = dict(given) if isinstance(given, Mapping) else {"max": given}
    told = _checked(told, ("max", "wait"), needed="max")
    most = told["max"]
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise ValueError(f"{most!r} is not a number of calls, 1 or more")
    if "wait" in told:
        told["wait"] = f"{milliseconds(told['wait'])}ms"
    return told


def _keyed(told: dict[str, Any], plain: Callable[..., Any]) -> dict[str, Any]:
    if "key" in told:
        if not isinstance(told["key"], str):
            raise ValueError(f"'key' = {told['key']!r} is not a text")
        told["key"] = _key(told["key"], plain)
    return told


def _cron(given: Any, _plain: Callable[..., Any]) -> Any:
    if isinstance(given, (str, Mapping)):
        return _cron_line(given)
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError('write a line, "*/5 * * * *", or {"line": "0 8 * * *", "zone": "Europe/Berlin"}, or a list of these')
    return [_cron_line(one) for one in given]


def _cron_line(given: Any) -> Any:
    if isinstance(given, str):
        if given.strip().lower() not in KEYWORDS and len(given.split()) not in (5, 6):
            raise ValueError(
                f"{given!r} is not a cron line: it has five fields, minute hour day month weekday, as in \"0 8 * * mon-fri\", "
                f"or a sixth, for seconds, before them; or it is one of {', '.join(KEYWORDS)}"
            )
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r} is neither a line nor a dictionary")
    told = _checked(given, ("line", "zone", "missed"), needed="line")
    for key, value in told.items():
        if not isinstance(value, str):
            raise ValueError(f"{key!r} = {value!r} is not a text")
    if told.get("missed", "once") not in MISSED:
        raise ValueError(f"'missed' = {told['missed']!r}; it is one of {', '.join(MISSED)}")
    _cron_line(told["line"])
    return told


def _names(given: Any, _plain: Callable[..., Any]) -> Any:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError("write a name, or a list of names")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} is not a name")
    return given if isinstance(given, str) else list(names)


def _websocket(given: Any, _plain: Callable[..., Any]) -> Any:
    if isinstance(given, Mapping):
        told = _checked(given, ("path", "durable"), needed="path")
        if not isinstance(told.get("durable", False), bool):
            raise ValueError(f"'durable' = {told['durable']!r} is neither True nor False")
        path = told["path"]
    else:
        told, path = given, given
    if not isinstance(path, str) or not path.startswith("/") or path.split() != [path]:
        raise ValueError('write a path, "/chat/{room}"')
    return told


def _flag(given: Any, _plain: Callable[..., Any]) -> Any:
    if not isinstance(given, bool):
        raise ValueError("write True or False")
    return given


def _horizon(given: Any, _plain: Callable[..., Any]) -> Any:
    if given not in HORIZONS:
        raise ValueError(f"it is one of {', '.join(HORIZONS)}")
    return given


def _checked(given: Mapping[str, Any], keys: Sequence[str], needed: str) -> dict[str, Any]:
    """The dictionary, which has no other keys than these."""
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, 1)
            guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys)}"
            raise ValueError(f"it has no key {key!r}; {guess}")
    if needed not in given:
        raise ValueError(f"it needs a {needed!r}")
    return dict(given)


def _key(template: str, plain: Callable[..., Any]) -> str:
    """A key that is made of arguments: `{account}` stands for one, `{{` for a brace."""
    if not template:
        raise ValueError("it is empty")
    there = _parameters(plain)
    try:
        fields = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(template) if name is not None]
    except ValueError:
        raise ValueError("a brace without its other half; write {{ or }} for a brace itself") from None
    for name, spec, how in fields:
        if not name.isidentifier() or spec or how:
            shown = name + (f"!{how}" if how else "") + (f":{spec}" if spec else "")
            raise ValueError(f"{{{shown}}} is not an argument's name; a key takes arguments as they are")
        if there is not None and name not in there:
            near = difflib.get_close_matches(name, there, 1)
            guess = f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(there)}" if there else "there are none"
            raise ValueError(f"{{{name}}} names no argument of the function; {guess}")
    return template


def _parameters(plain: Callable[..., Any]) -> Optional[list[str]]:
    try:
        parameters = inspect.signature(plain).parameters.values()
    except (ValueError, TypeError):  # the node's description has none either
        return None
    return [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]


_READERS: dict[str, Callable[[Any, Callable[..., Any]], Any]] = {
    "exclusive": _exclusive,
    "unique": _unique,
    "throttle": _throttle,
    "debounce": _debounce,
    "batch": _batch,
    "cron": _cron,
    "queue": _names,
    "topic": _names,
    "mail": _names,
    "websocket": _websocket,
    "idempotent": _flag,
    "horizon": _horizon,
}
OPTIONS = tuple(_READERS)
