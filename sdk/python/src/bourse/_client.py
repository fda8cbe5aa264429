"""Calls from outside: a program's connection to a daemon.

    with Client() as client:
        client.call("treedb.write", "a/b", body="text")

A `Client` finds its daemon by the file `daemon.json` in the daemon's data folder. Inside `with`, functions can also be called
as they are within the grid: `write.call(…)`, `gather(…)`. It belongs to the thread that made it; make one for each thread, or
use `AsyncClient` in an event loop. When the connection is lost, calls under way fail with `Disconnected`, and later ones wait for
the daemon to come back.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import zmq

from . import _calls, _map
from . import _values as values
from ._calls import Future, Target
from ._connection import CONNECT_SECONDS, Connection, Where
from ._durations import Duration
from ._emit import publication
from ._errors import Disconnected, NoNode, Timeout

if TYPE_CHECKING:
    import asyncio

LOOK_MS = 100  # how often to look whether the connection is still there, while nothing comes
RECONNECT_LOOK_MS = 5  # and whether it is there again
LOOK_SECONDS = 0.01  # before a call, at most so often: libzmq takes longer to reconnect
CANCEL_SECONDS = 1.0  # how long to wait for the replies of calls that were just cancelled


class Client(Connection):
    """A connection to a daemon, for one thread.

    `where`: the folder that the daemon serves, or its data folder, or an endpoint ("ipc://…", "tcp://…"); by default
    the environment's `BOURSE_DATA`, else this folder or one above it. `token`: for an endpoint.
    """

    def __init__(
        self, where: Where = None, *, token: Union[bytes, str, None] = None
    ) -> None:
        super().__init__(where, token)
        self._owner = (threading.get_ident(), os.getpid())
        self._socket.rcvtimeo = LOOK_MS
        self._look_at = 0.0
        self._outer: Optional[_calls.Caller] = None
        if not self._receive_until(self._answered, CONNECT_SECONDS):
            self._close()
            raise NoNode(f"no answer from {self.endpoint} within {CONNECT_SECONDS:g} s", hint="Is the daemon running?")
        if self._refused is not None:
            self._close()
            raise self._refused

    def __enter__(self) -> Client:
        self._outer, _calls.client = _calls.client, self
        return self

    def __exit__(self, *_: object) -> None:
        _calls.client = self._outer
        self.close()

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call `module.function`, and wait for its result."""
        return self.function(function).call(*args, **kwargs)

    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `module.function`, and return a `Future` at once."""
        return self.function(function).submit(*args, **kwargs)

    def start(
        self,
        function: str,
        /,
        *args: Any,
        idempotency_key: Optional[str] = None,
        delay: Optional[Duration] = None,
        **kwargs: Any,
    ) -> str:
        """Make a durable call of `module.function`: once this returns its id, it will be run until it ends.

        With a `delay` it is not run before that is over.

        With an `idempotency_key`, a second call within a day is the first one: so it is safe to start a call anew of which
        it is not known whether it was accepted.
        """
        target = self.function(function)
        if idempotency_key is not None or delay is not None:
            target = target.options(idempotency_key=idempotency_key, delay=delay)
        return target.start(*args, **kwargs)

    def publish(
        self,
        to: str,
        message: Any = None,
        *,
        delay: Optional[Duration] = None,
        idempotency_key: Optional[str] = None,
    ) -> list[str]:
        """Publish to "queue:NAME", or to a topic, by its bare name or as "topic:NAME". Returns once it is stored.

        The ids of the calls that it makes: of a queue one, of a topic one for each function that has it. A second message
        with the `idempotency_key` to the same queue, within a day, is the first one.
        """
        published = publication(to, delay, idempotency_key)
        self._make_ready()
        return self.send_publish(published, values.encode(message, "message"), True).result()

    def result(self, call_id: str, timeout: Optional[Duration] = None) -> Any:
        """Wait for the end of a durable call: its result, or what it failed with in the end, as from `call`.

        Once `timeout` is over `Timeout` is raised, and the call goes on.
        """
        self._make_ready()
        return self.send_await(call_id, timeout).result()

    def gather(self, *futures: Future[Any], return_exceptions: bool = False) -> list[Any]:
        """Wait for all; their results in order."""
        return _calls.gather(*futures, return_exceptions=return_exceptions)

    def map(
        self, function: str, /, *iterables: Iterable[Any], in_flight: int = _map.IN_FLIGHT, ordered: bool = True
    ) -> Iterator[Any]:
        """Call `module.function` for each item; results in order unless told otherwise, at most `in_flight` under way."""
        return self.function(function).map(*iterables, in_flight=in_flight, ordered=ordered)

    def close(self) -> None:
        """Leave the daemon. Calls under way fail with `Cancelled`."""
        self._close()

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        self._make_ready()
        return super().send_call(target, args, kwargs, wait, start)

    def _make_ready(self) -> None:
        """See to it that something can be sent, which may take until the daemon is back."""
        self._check()
        if monotonic() > self._look_at:
            self._look_at = monotonic() + LOOK_SECONDS
            self._look_at_connection()
        if not self._welcome:
            if not self._receive_until(self._answered, CONNECT_SECONDS):
                raise Disconnected(f"the daemon did not come back within {CONNECT_SECONDS:g} s", hint="The call was not sent.")
            self._check()  # it may have come back with another token

    def wait(self, futures: Sequence[Future[Any]], any_: bool, timeout: Optional[float]) -> None:
        """Block until all (or any) of these are done. For `Future`."""
        self._check()
        if timeout is None and len(futures) == 1:  # the most frequent case, and the fastest
            future, recv = futures[0], self._recv
            while not future._done:
                try:
                    header = recv()
                except zmq.Again:
                    self._look_at_connection()
                else:
                    self._handle(header, recv())
            return
        if not self._receive_until(_calls.enough(futures, any_), timeout):
            for future in futures:
                future.cancel()
            self._receive_until(_calls.all_done(futures), CANCEL_SECONDS)
            raise Timeout(f"no reply within {timeout:g} s", function=futures[0].function)

    def awaitable(self, future: Future[Any]) -> asyncio.Future[None]:
        raise RuntimeError("this future is of a Client; to await futures, use AsyncClient")

    def _check(self) -> None:
        super()._check()
        thread, process = self._owner
        if thread != threading.get_ident():
            raise RuntimeError("a Client belongs to the thread that made it: make one for each thread")
        if process != os.getpid():
            raise RuntimeError("a Client does not survive a fork: make one in the new process")

    def _answered(self) -> bool:
        return self._welcome or self._refused is not None

    def _receive_until(self, enough: Callable[[], bool], timeout: Optional[float]) -> bool:
        """Handle messages until `enough`; `False` if `timeout` seconds were not enough."""
        deadline = None if timeout is None else monotonic() + timeout
        recv = self._recv
        try:
            while not enough():
                left = LOOK_MS
                if deadline is not None:
                    left = math.ceil((deadline - monotonic()) * 1000)
                    self._socket.rcvtimeo = max(0, min(left, LOOK_MS if self._welcome else RECONNECT_LOOK_MS))
                try:
                    header = recv()
                except zmq.Again:
                    if left <= 0:
                        return False
                    self._look_at_connection()
                    continue
                self._handle(header, recv())
            return True
        finally:
            if deadline is not None:
                self._socket.rcvtimeo = LOOK_MS
