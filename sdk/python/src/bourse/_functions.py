"""What makes a Python function one of the grid's: `@function`, `@on_start`, `@on_stop`.

A decorated function called directly is plain Python; `.call`, `.submit`, `.map`, `.start` and `.tail` go through the grid.
Options that this version does not support are refused when the module is loaded, never ignored.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar, Union, overload

from . import _options
from ._calls import Target
from ._durations import Duration, milliseconds
from ._retry import Retry, RetryOptions
from ._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
else:
    P = TypeVar("P")

D = TypeVar("D")  # what calling it directly returns: a coroutine for `async def`
R = TypeVar("R")  # its result
F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = tuple(sorted(("http", "name", "queue_wait", "retry", "timeout", *_options.OPTIONS)))

served: dict[str, str] = {}  # Python's name of a module -> its name on the grid, where they differ


class OptionError(TypeError):
    """An option of `@function` that this version does not know, or a value that it can't have."""


class Function(Target[R], Generic[P, D, R]):
    """A decorated function."""

    def __init__(
        self,
        plain: Callable[P, D],
        *,
        http: tuple[str, ...] = (),
        timeout: Optional[Duration] = None,
        queue_wait: Optional[Duration] = None,
        retry: Union[bool, int, RetryOptions, None] = None,
        name: Optional[str] = None,
        **others: Any,
    ) -> None:
        super().__init__("")
        functools.update_wrapper(self, plain)
        self.plain = plain
        self.http = http
        self.name = name or plain.__name__
        # What the node reads, as JSON: the limits of every call (those of one call stand in its message), and the others.
        self.words = {
            option: f'"{milliseconds(limit)}ms"'
            for option, limit in (("timeout", timeout), ("queue_wait", queue_wait))
            if limit is not None
        }
        self.words.update(_options.words(others, plain))
        self.retry = None if retry is None or retry is False else Retry(retry)

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> D: ...
    else:

        def __call__(self, *args, **kwargs):
            return self.plain(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<function {self.target_name}>"

    @property
    def target_name(self) -> str:
        """`module.function`."""
        python_name = self.plain.__module__
        return f"{served.get(python_name) or python_name.partition('.')[0]}.{self.name}"

    def tail(self, *args: Any, **kwargs: Any) -> Any:
        return Tail(self.target_name, args, kwargs, plain=self.plain)

    def message(self) -> Any:
        call = self._message.call
        if not call.function:
            call.function = self.target_name
        return self._message


@overload
def function(plain: Callable[P, Coroutine[Any, Any, R]], /) -> Function[P, Coroutine[Any, Any, R], R]: ...
@overload
def function(plain: Callable[P, R], /) -> Function[P, R, R]: ...
@overload
def function(
    *,
    http: Union[str, Iterable[str], None] = None,
    timeout: Optional[Duration] = None,
    queue_wait: Optional[Duration] = None,
    retry: Union[bool, int, RetryOptions, None] = None,
    exclusive: Optional[str] = None,
    unique: Optional[_options.Unique] = None,
    throttle: Optional[_options.Throttle] = None,
    debounce: Optional[_options.Debounce] = None,
    batch: Optional[_options.Batch] = None,
    cron: Optional[_options.Cron] = None,
    queue: Optional[_options.Names] = None,
    topic: Optional[_options.Names] = None,
    mail: Optional[_options.Names] = None,
    websocket: Optional[_options.WebSocket] = None,
    idempotent: bool = False,
    horizon: Optional[str] = None,
    name: Optional[str] = None,
) -> Callable[[Callable[P, R]], Function[P, R, R]]: ...
def function(plain: Any = None, /, **options: Any) -> Any:
    """Offer a function to the grid.

    `http`: a route or several, "POST /kv/{key}". `timeout`: how long a call may take; `queue_wait`: how long it may
    wait for an instance (seconds, "5s", "200ms"). `name`: its name on the grid.

    `retry`: calls of it are durable: each is stored before it is run, and tried again until it succeeds or is a dead
    letter. A number of attempts in all, `True` (5), or any of

        {"attempts": 5, "pause": "1s", "pause_max": "1m", "only": [ConnectionError, "requests.Timeout"], "never": [ValueError]}

    The pause doubles with each failure. `only`: what is tried again, where the function raises something; `never`: what is
    not. Classes stand for those derived from them, as far as these are there once the module is loaded. A name is one as in
    a traceback, or its last part. Calls from within other functions are tried again with these, unless made by `start`.

    `exclusive`: a key made of arguments, "{account}": of calls with the same key one runs at a time, in the order in which
    they came, on the whole grid.

    `unique`: such a key, or {"key": "{order}", "window": "1h"}: calls are durable, and within the window (a day; "running":
    until it has ended) a second call with the key is the first one, and gets its id or its result.

    How often it is run: `throttle`: "10/s", or {"rate": …, "burst": 5, "key": "{user}"}. `debounce`: "5s", or {"wait": …,
    "max": "1m", "key": …}: of calls that follow each other more quickly only the last one is run. `batch`: 100, or {"max":
    100, "wait": "50ms"}: it is called with a list of what several calls were made with.

    On several nodes: `idempotent`: it does no harm if it runs twice, so a call whose instance or node dies is tried again.
    `horizon`: how far its calls may travel: "process" (nowhere), "machine", "network", "anywhere" (which it is without).

    What else calls the function: `cron`: a line "*/5 * * * *", or {"line": …, "zone": "Europe/Berlin", "missed": …}.
    `queue`, `topic`: what `emit` and `Client.publish` send there, as the only argument. `mail`: addresses. `websocket`:
    a path, "/chat/{room}". `context.trigger` says which it was. docs/options.md has the details of all options.
    """
    _check(options)
    if plain is None:
        return functools.partial(_decorate, options=options)
    return _decorate(plain, options)


def on_start(hook: F) -> F:
    """Run this once when an instance starts, before its first call: the place to connect and to load models."""
    hook.__bourse_hook__ = "on_start"  # type: ignore[attr-defined]
    return hook


def on_stop(hook: F) -> F:
    """Run this when an instance stops in order, after its last call."""
    hook.__bourse_hook__ = "on_stop"  # type: ignore[attr-defined]
    return hook


def _decorate(plain: Any, options: dict[str, Any]) -> Function[Any, Any, Any]:
    if isinstance(plain, (type, classmethod, staticmethod)) or not callable(plain):
        raise OptionError(f"@function is for functions, not for {plain!r}")
    try:
        return Function(plain, **options)
    except ValueError as error:
        raise OptionError(f"@function of {plain.__name__}: {error}") from None


def _check(options: dict[str, Any]) -> None:
    for option in options:
        if option not in OPTIONS:
            near = difflib.get_close_matches(option, OPTIONS, 1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(
                f"@function: the option {option!r} is not supported in this version{guess} (supported: {', '.join(OPTIONS)})"
            )
    http = options.get("http", ())
    routes = (http,) if isinstance(http, str) else tuple(http or ())
    for route in routes:
        if not isinstance(route, str) or len(route.split()) != 2 or not route.split()[1].startswith("/"):
            raise OptionError(f"@function: {route!r} is not a route; write http=\"POST /path/{{name}}\"")
    options["http"] = routes
    name = options.get("name")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise OptionError(f"@function: {name!r} can't be a function's name")
