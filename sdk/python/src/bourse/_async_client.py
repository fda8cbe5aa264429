"""Calls from outside, within an event loop: the same as `Client`, with futures that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Optional, Union

import zmq

from . import _calls, _map
from . import _values as values
from ._calls import Future, Target
from ._connection import CONNECT_SECONDS, Connection, Where
from ._durations import Duration
from ._emit import publication
from ._errors import NoNode


class AsyncClient(Connection):
    """The same for an event loop: futures are awaited. Made and used inside one running loop.

        async with AsyncClient() as client:
            await client.call("treedb.write", "a/b", body="text")
            await asyncio.gather(*(client.submit("m.f", n) for n in range(100)))
    """

    def __init__(
        self, where: Where = None, *, token: Union[bytes, str, None] = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._welcomed: asyncio.Future[None] = self._loop.create_future()
        super().__init__(where, token)
        self._outer: Optional[_calls.Caller] = None
        self._look_scheduled = False
        self._descriptors = (int(self._socket.getsockopt(zmq.FD)), int(self._monitor.getsockopt(zmq.FD)))
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._look)
        self._look_soon()

    async def __aenter__(self) -> AsyncClient:
        try:
            await asyncio.wait_for(asyncio.shield(self._welcomed), CONNECT_SECONDS)
        except asyncio.TimeoutError:
            await self.close()
            raise NoNode(
                f"no answer from {self.endpoint} within {CONNECT_SECONDS:g} s", hint="Is the daemon running?"
            ) from None
        if self._refused is not None:
            await self.close()
            raise self._refused
        self._outer, _calls.client = _calls.client, self
        return self

    async def __aexit__(self, *_: object) -> None:
        _calls.client = self._outer
        await self.close()

    async def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call `module.function`, and await its result."""
        return await self.submit(function, *args, **kwargs)

    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `module.function`, and return a `Future` to await."""
        return self.function(function).submit(*args, **kwargs)

    async def start(
        self,
        function: str,
        /,
        *args: Any,
        idempotency_key: Optional[str] = None,
        delay: Optional[Duration] = None,
        **kwargs: Any,
    ) -> str:
        """Make a durable call of `module.function`: see `Client.start`."""
        target = self.function(function)
        if idempotency_key is not None or delay is not None:
            target = target.options(idempotency_key=idempotency_key, delay=delay)
        return await target.astart(*args, **kwargs)

    async def publish(
        self,
        to: str,
        message: Any = None,
        *,
        delay: Optional[Duration] = None,
        idempotency_key: Optional[str] = None,
    ) -> list[str]:
        """Publish to "queue:NAME" or to a topic: see `Client.publish`."""
        published = publication(to, delay, idempotency_key)
        self._check()
        future = self.send_publish(published, values.encode(message, "message"), False)
        self._look_soon()
        return await future

    async def result(self, call_id: str, timeout: Optional[Duration] = None) -> Any:
        """Await the end of a durable call: see `Client.result`. Who no longer awaits it changes nothing for the call."""
        self._check()
        future = self.send_await(call_id, timeout)
        self._look_soon()
        try:
            return await future
        finally:
            if self._under_way.pop(future.request, None) is not None:
                self.cancel(future)
                self._look_soon()

    async def gather(self, *futures: Future[Any], return_exceptions: bool = False) -> list[Any]:
        """Await all; their results in order."""
        return list(await asyncio.gather(*futures, return_exceptions=return_exceptions))

    async def map(
        self, function: str, /, *iterables: Iterable[Any], in_flight: int = _map.IN_FLIGHT, ordered: bool = True
    ) -> AsyncIterator[Any]:
        """Call `module.function` for each item; results in order unless told otherwise, at most `in_flight` under way."""
        _map.check(in_flight)
        under_way: list[Future[Any]] = []
        try:
            for args in zip(*iterables):
                under_way.append(self.submit(function, *args))
                if len(under_way) >= in_flight:
                    yield (await self._next(under_way, ordered)).result()
            while under_way:
                yield (await self._next(under_way, ordered)).result()
        finally:
            for future in under_way:
                future.cancel()

    async def _next(self, under_way: list[Future[Any]], ordered: bool) -> Future[Any]:
        """The first of these, or the first that is done. It is under way no more."""
        candidates = under_way[:1] if ordered else under_way
        if not any(future.done() for future in candidates):
            await asyncio.wait([self.awaitable(future) for future in candidates], return_when=asyncio.FIRST_COMPLETED)
        return under_way.pop(next(at for at, future in enumerate(candidates) if future.done()))

    async def close(self) -> None:
        """Leave the daemon. Calls under way fail with `Cancelled`."""
        if not self._closed:
            for descriptor in self._descriptors:
                self._loop.remove_reader(descriptor)
            self._close()

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        if wait:
            instead = "start(…) would block the event loop: await astart(…)" if start else ""
            raise RuntimeError(instead or "call(…) would block the event loop: await acall(…) or the future of submit(…)")
        self._check()
        future = super().send_call(target, args, kwargs, wait, start)
        self._look_soon()
        return future

    def wait(self, futures: Sequence[Future[Any]], any_: bool, timeout: Optional[float]) -> None:
        raise RuntimeError("this would block the event loop: await the future")

    def awaitable(self, future: Future[Any]) -> asyncio.Future[None]:
        if future.waiter is None:
            future.waiter = self._loop.create_future()
        return future.waiter

    def _look_soon(self) -> None:
        """Sending may take the news from the descriptor that the loop waits on: so look once after it."""
        if not self._look_scheduled:
            self._look_scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._look_scheduled = False
        if not self._closed:
            self._look_at_connection()
            self._drain()
            if (self._welcome or self._refused is not None) and not self._welcomed.done():
                self._welcomed.set_result(None)

    def _woken(self, future: Future[Any]) -> None:
        if future.waiter is not None and not future.waiter.done():
            future.waiter.set_result(None)
