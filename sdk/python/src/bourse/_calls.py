"""Calls of functions: by name, at once or as futures, one or many.

    call("treedb.write", key, body=text)          waits, and returns the result
    submit("treedb.write", key, body=text)        returns a `Future` at once
    start("treedb.write", key, body=text)         a durable call: returns its id once it is accepted
    return tail("treedb.write", key, body=text)   ends the running call by handing it on
    gather(*futures), as_completed(futures)       many
    Target("treedb.write").options(timeout=5)     a function with options, to call, submit, start or map

A call goes through the worker whose function runs here or through the `Client` that is open, else there is
no node to ask. Both are a `Caller`: they send the message and wait for the reply. An instance that waits gives its slot
back meanwhile, so waiting for everything at once is cheaper than one after the other.

In `async def` functions futures are awaited: `await f.submit(x)`, `await f.acall(x)`, `await asyncio.gather(…)`.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Protocol, TypeVar

from . import _context
from . import _messages as messages
from . import _values as values
from ._durations import Duration, milliseconds
from ._errors import BourseError, NoNode, error_of
from ._map import IN_FLIGHT, mapped
from ._tail import Tail

if TYPE_CHECKING:
    import asyncio  # slow to import, and most modules do without it

R = TypeVar("R")

KEY_BYTES_MAX = 255  # of an idempotency key


class Caller(Protocol):
    """Who sends calls and receives their replies."""

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        """Send a call. With `wait` the caller does nothing else until its reply is there.

        `start`: a durable one. What is returned is an `Acceptance` then.
        """

    def send_publish(self, message: Any, payload: bytes, wait: bool) -> Future[list[str]]:
        """Send a `Publish`. The future has the ids of the calls that it makes."""

    def wait(self, futures: Sequence[Future[Any]], any_: bool, timeout: Optional[float]) -> None:
        """Block until all (or any) are done. On `timeout` the calls are cancelled, and `Timeout` is raised."""

    def cancel(self, future: Future[Any]) -> None:
        """Tell the node that nobody wants the reply."""

    def awaitable(self, future: Future[Any]) -> asyncio.Future[None]:
        """Done when the future is."""


class Future(Generic[R]):
    """The result of a call that is under way. Can be awaited where an event loop runs."""

    __slots__ = ("_caller", "_content_type", "_done", "_error", "_http", "_payload", "function", "request", "waiter")

    def __init__(self, caller: Caller, function: str, request: int) -> None:
        self._caller = caller
        self._done = False
        self._error: Optional[BourseError] = None
        self.function = function
        self.request = request
        self.waiter: Optional[asyncio.Future[None]] = None

    def __repr__(self) -> str:
        return f"<Future of {self.function}, {'done' if self._done else 'under way'}>"

    def __await__(self) -> Generator[Any, None, R]:
        if not self._done:
            yield from self._caller.awaitable(self).__await__()
        return self.result()

    def done(self) -> bool:
        """Whether the reply is there. Does not look for it: only waiting does."""
        return self._done

    def result(self, timeout: Optional[float] = None) -> R:
        """Wait for the result, or raise what the call failed with.

        Once `timeout` seconds are over the call is cancelled and `Timeout` raised: an instance that waits has given
        its slot away, and goes on when the call has ended.
        """
        if not self._done:
            self._caller.wait((self,), False, timeout)
        if self._error is not None:
            raise self._error
        value = values.decode(self._payload, self._content_type)
        if self._http is not None:
            status, headers = self._http
            value = values.Response(value, status, headers, self._content_type or None)
        return value  # type: ignore[no-any-return]

    def exception(self, timeout: Optional[float] = None) -> Optional[BourseError]:
        """Wait, and return what the call failed with; `None` if it succeeded."""
        if not self._done:
            self._caller.wait((self,), False, timeout)
        return self._error

    def cancel(self) -> None:
        """Give the call up: it won't start if it has not yet, and is told if it has."""
        if not self._done:
            self._caller.cancel(self)

    def resolve(self, reply: Any, payload: bytes) -> None:
        """The reply is there. For the `Caller`."""
        if reply.HasField("failure"):
            self._error = error_of(reply.failure, self.function)
        else:
            self._payload: bytes = payload
            self._content_type: str = reply.content_type
            self._http: Optional[tuple[int, dict[str, str]]] = None
            if reply.HasField("http"):
                headers = {header.name: header.value for header in reply.http.headers}
                self._http = (reply.http.status or 200, headers)
        self._done = True

    def fail(self, error: BourseError) -> None:
        """No reply will come. For the `Caller`."""
        self._error = error
        self._done = True


class Acceptance(Future[str]):
    """A durable call that is being accepted. The result is its id."""

    __slots__ = ("_call",)

    def result(self, timeout: Optional[float] = None) -> str:
        super().result(timeout)
        return str(uuid.UUID(bytes=self._call))

    def resolve(self, reply: Any, payload: bytes) -> None:
        self._call: bytes = reply.call
        super().resolve(reply, payload)


class Publication(Future[list[str]]):
    """Something that is being published. The result has the ids of the calls that it makes."""

    __slots__ = ()

    def result(self, timeout: Optional[float] = None) -> list[str]:
        published: Any = super().result(timeout)
        return list(published["calls"])


#: How far a call may travel, as the protocol numbers it.
HORIZONS = ("process", "machine", "network", "anywhere")
#: What becomes of a call for which there is no instance.
OVERFLOWS = ("reject", "remote")


def chosen(name: str, given: Optional[str], known: tuple[str, ...]) -> int:
    """The number of a word, from 1; 0 for none."""
    if given is None or (name == "overflow" and given == "queue"):
        return 0
    if given not in known:
        raise ValueError(f"{given!r} is no {name}: it is one of {', '.join(known)}")
    return known.index(given) + 1


class Target(Generic[R]):
    """A function by its name, with the options of the calls that are made through it."""

    def __init__(
        self,
        name: str,
        *,
        timeout: Optional[Duration] = None,
        queue_wait: Optional[Duration] = None,
        context: Optional[Mapping[str, str]] = None,
        version: str = "",
        idempotency_key: Optional[str] = None,
        delay: Optional[Duration] = None,
        horizon: Optional[str] = None,
        scale_after: Optional[Duration] = None,
        overflow: Optional[str] = None,
        caller: Optional[Caller] = None,
    ) -> None:
        self._name = name
        self._caller = caller
        self._delayed = delay is not None
        self._message = messages.ToNode()
        call = self._message.call
        call.function = name
        call.timeout_ms = milliseconds(timeout)
        call.queue_wait_ms = milliseconds(queue_wait)
        call.delay_ms = milliseconds(delay)
        call.version = version
        call.horizon = chosen("horizon", horizon, HORIZONS)
        call.scale_after_ms = milliseconds(scale_after)
        call.overflow = chosen("overflow", overflow, OVERFLOWS)
        for key, value in (context or {}).items():
            call.context[key] = value
        if idempotency_key is not None:
            if not isinstance(idempotency_key, str) or not 1 <= len(idempotency_key.encode()) <= KEY_BYTES_MAX:
                raise ValueError(f"{idempotency_key!r} is no idempotency key: it is a text of 1 to {KEY_BYTES_MAX} bytes")
            call.idempotency_key = idempotency_key

    def __repr__(self) -> str:
        return f"<Target {self.target_name}>"

    @property
    def target_name(self) -> str:
        """`module.function`."""
        return self._name

    def call(self, *args: Any, **kwargs: Any) -> R:
        """Call the function, and wait for its result."""
        if self._delayed:
            raise ValueError(_DELAYED)
        future = (self._caller or caller()).send_call(self, args, kwargs, True)
        return future.result()  # type: ignore[no-any-return]

    def submit(self, *args: Any, **kwargs: Any) -> Future[R]:
        """Call the function, and return at once."""
        if self._delayed:
            raise ValueError(_DELAYED)
        return (self._caller or caller()).send_call(self, args, kwargs, False)

    async def acall(self, *args: Any, **kwargs: Any) -> R:
        """Call the function, and await its result."""
        return await self.submit(*args, **kwargs)

    def map(self, *iterables: Iterable[Any], in_flight: int = IN_FLIGHT, ordered: bool = True) -> Iterator[R]:
        """Call the function for each item; its results in order, as an iterator.

        With several iterables it takes an argument from each. At most `in_flight` calls are under way; more
        are made, and more items taken, as results are taken. With `ordered=False` results come as the calls end.
        The first failure is raised, and the calls under way are cancelled, as they are when the iterator is dropped.
        """
        return mapped(self.submit, zip(*iterables), in_flight, ordered)

    def starmap(self, arguments: Iterable[Iterable[Any]], *, in_flight: int = IN_FLIGHT, ordered: bool = True) -> Iterator[R]:
        """The same as `map`, where each item has all the arguments of a call, in order."""
        return mapped(self.submit, arguments, in_flight, ordered)

    def options(
        self,
        *,
        timeout: Optional[Duration] = None,
        queue_wait: Optional[Duration] = None,
        context: Optional[Mapping[str, str]] = None,
        version: str = "",
        idempotency_key: Optional[str] = None,
        delay: Optional[Duration] = None,
        horizon: Optional[str] = None,
        scale_after: Optional[Duration] = None,
        overflow: Optional[str] = None,
    ) -> Target[R]:
        """The same function with other options: seconds or "200ms", and pass-through context.

        `horizon`: how far the call may travel from the node that accepts it: "process", "machine", "network", "anywhere".
        `scale_after`: after how long capacity elsewhere is asked for. `overflow`: what becomes of the call if there is no
        instance: it waits ("queue"), is refused ("reject"), or capacity elsewhere is asked for at once ("remote"). These three
        are not for durable calls.

        `delay`: for `start`: the call is accepted at once, and not run before that is over.

        `idempotency_key`: only from outside. The call is durable, and within a day a second one of the function with an
        equal key is the first one: it returns its id, or its result.
        """
        return Target(
            self.target_name,
            timeout=timeout,
            queue_wait=queue_wait,
            context=context,
            version=version,
            idempotency_key=idempotency_key,
            delay=delay,
            horizon=horizon,
            scale_after=scale_after,
            overflow=overflow,
            caller=self._caller,
        )

    def start(self, *args: Any, **kwargs: Any) -> str:
        """Make a durable call, and return its id once it is accepted: from then on it will be run until it ends.

        Whatever becomes of the caller, the instance or the daemon, it is tried again as its option `retry` says, and
        otherwise as `retry=True` does. A `timeout` limits each attempt.

        In a running function the id is there at once, and the call is accepted together with what the function changes,
        when it returns: if the function fails, the call never was. So its end can't be waited for in there.
        """
        return self._start(args, kwargs, True).result()  # type: ignore[no-any-return]

    async def astart(self, *args: Any, **kwargs: Any) -> str:
        """The same as `start`, for an event loop."""
        return await self._start(args, kwargs, False)  # type: ignore[no-any-return]

    def tail(self, *args: Any, **kwargs: Any) -> Any:
        """Hand the running call on to this function: `return f.tail(…)`, also in `async def`.

        The call goes on as one of this function, with these arguments. It keeps its id, its exclusive key, its
        context, and those who wait for it, who get what the last function returns. What was written so far is
        committed. In plain Python a `Tail` comes back; `f.tail(…).run()` runs all steps.
        """
        call = self._message.call
        if call.timeout_ms or call.queue_wait_ms or call.context or call.idempotency_key or call.delay_ms:
            raise ValueError("of the options only version goes with tail(…): the call that is handed on keeps its own")
        return Tail(self.target_name, args, kwargs, call.version)

    def message(self) -> Any:
        """The `ToNode` with the parts of the call that stay the same. For the `Caller`, which fills in the rest."""
        return self._message

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool) -> Future[Any]:
        if self._message.call.queue_wait_ms:
            raise ValueError("queue_wait is not for start(…): a durable call waits for an instance for as long as it takes")
        return (self._caller or caller()).send_call(self, args, kwargs, wait, True)


def call(function: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call `module.function`, and wait for its result."""
    return Target(function).call(*args, **kwargs)


def submit(function: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
    """Call `module.function`, and return at once."""
    return Target(function).submit(*args, **kwargs)


def start(function: str, /, *args: Any, **kwargs: Any) -> str:
    """Make a durable call of `module.function`; its id. See `Target.start`."""
    return Target(function).start(*args, **kwargs)


def tail(function: str, /, *args: Any, **kwargs: Any) -> Any:
    """Hand the running call on to `module.function`: `return tail("module.function", …)`. See `Target.tail`."""
    return Tail(function, args, kwargs)


async def astart(function: str, /, *args: Any, **kwargs: Any) -> str:
    """The same as `start`, for an event loop."""
    return await Target(function).astart(*args, **kwargs)


def gather(*futures: Future[Any], return_exceptions: bool = False) -> list[Any]:
    """Wait for all; their results in order.

    The first failure in that order is raised once all have ended, unless `return_exceptions`.
    """
    _wait(futures, any_=False)
    if return_exceptions:
        return [error if (error := future.exception()) else future.result() for future in futures]
    return [future.result() for future in futures]


def as_completed(futures: Iterable[Future[R]]) -> Iterator[Future[R]]:
    """The futures, each as soon as it is done."""
    left = list(futures)
    while left:
        _wait(left, any_=True)
        ready = [future for future in left if future.done()]
        left = [future for future in left if not future.done()]
        yield from ready


def caller() -> Caller:
    """Who makes calls here; `NoNode` if nobody can."""
    found = _context.running or client
    if found is None:
        raise NoNode(
            "there is no node to send this call to",
            hint="Open one (`with bourse.Client() as client:`), or call the function directly: f(…) is plain Python.",
        )
    return found


def all_done(futures: Sequence[Future[Any]]) -> Callable[[], bool]:
    """Asks whether all are done, again and again, without looking again at those that are."""
    at, end = 0, len(futures)

    def look() -> bool:
        nonlocal at
        while at < end and futures[at]._done:
            at += 1
        return at == end

    return look


def enough(futures: Sequence[Future[Any]], any_: bool) -> Callable[[], bool]:
    """Asks whether one is done, or all."""
    return (lambda: any(future._done for future in futures)) if any_ else all_done(futures)


def _wait(futures: Sequence[Future[Any]], any_: bool) -> None:
    for future in futures:
        if not isinstance(future, Future):
            raise TypeError(f"expected futures, not {type(future).__name__}: use submit(…) to make one")
    left = [future for future in futures if not future.done()]
    if left and not (any_ and len(left) < len(futures)):
        left[0]._caller.wait(left, any_, None)


_DELAYED = "delay is for start(…): who waits for a result waits for it at once"

client: Optional[Caller] = None  # the `Client` that was opened last with `with`
