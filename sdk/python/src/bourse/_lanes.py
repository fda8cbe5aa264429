"""One connection of a module that runs in a developer's process.

    node -> lane: invoke, and all that a worker is told
    lane -> host: what has come may run now, on top of what waits

See `_host`.
"""

from __future__ import annotations

import asyncio
import bdb
import sys
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

import zmq

from . import _discover, _monitor, _stepping
from . import _loops as loops
from . import _messages as messages
from ._calls import Future, Target
from ._conversation import FLUSH_MS
from ._errors import Disconnected
from ._modules import Served
from ._worker import Worker

if TYPE_CHECKING:
    from ._host import Host

TICK_MS = 500  # how long a lane that waits goes without looking whether it still should
AWAIT_SECONDS = 0.002  # how often the sockets are looked at while an event loop runs


class _NoWatchdog:
    """Nobody needs to be answered while user code runs: the node does not ping what a developer runs."""

    armed = True
    owning = False

    def hurry(self) -> None:
        pass


class Lane(Worker):
    """One connection of a module, which runs one call at a time."""

    def __init__(self, host: Host, served: Served) -> None:
        super().__init__(served.loaded, host.endpoint, host.secret, messages.ROLE_ATTACHED)
        self.host = host
        self.served = served
        self.patient = True
        self.running = False
        self.welcome = False
        self.replaced = False
        self.root = b""  # of the call that runs
        self._only_listen = False
        self._pump_due: Optional[asyncio.TimerHandle] = None

    def use(self, loaded: _discover.Loaded) -> None:
        super().use(loaded)
        self._functions = {name: _stepping.Entry(function, self._ended) for name, function in self._functions.items()}

    # ------------------------------------------------------------------ the connection

    def connect(self, failure: Any = None) -> None:
        assert self.host.log is not None
        self._log = self.host.log
        self._lines = self._log.lines
        self._socket = self.host.zmq.socket(zmq.DEALER)
        self._socket.linger = FLUSH_MS
        socket: Any = self._socket
        self._send, self._recv = socket.send, socket.recv
        self._watchdog = _NoWatchdog()  # type: ignore[assignment]
        self.lock.acquire()
        self.monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.connect(self.endpoint)
        self._hello(failure)

    def bye(self) -> None:
        """Tell the node, which gives what has come and was not run to others, and hangs up."""
        self._flush_log()
        if not self.lost:
            self._tell("bye")

    def await_end(self) -> None:
        """After `bye`, until the node has hung up. Who closes while it still sends may lose what was said last."""
        deadline = monotonic() + FLUSH_MS / 1000
        while not self.lost and self.refused is None and (left := deadline - monotonic()) > 0:
            if self.monitor.poll(max(1, int(left * 1000))):
                self.look()

    def close(self) -> None:
        self._socket.disable_monitor()
        self.monitor.close(0)
        self._socket.close(0 if self.lost else FLUSH_MS)

    @property
    def sockets(self) -> tuple[Any, Any]:
        return self._socket, self.monitor

    def free(self) -> bool:
        """The node may hand it a call, which is run at once."""
        return not (self.running or self.backlog or self.stopping)

    def look(self) -> None:
        """What became of the connection."""
        while True:
            try:
                event = _monitor.next_event(self.monitor)
            except zmq.Again:
                return
            if event == zmq.EVENT_DISCONNECTED:
                self.lost, self.welcome = True, False
                self.stopping = False
                self.backlog.clear()  # the node has told their callers, or run them elsewhere
                self.unacknowledged.clear()
                self._fail_waiting(Disconnected("the connection to the node was lost"))
            elif self.lost:
                self.lost = False
                self._hello()

    def handle(self, incoming: Any, header: bytes, payload: bytes) -> None:
        if incoming.HasField("stop"):
            self.replaced = incoming.stop.replaced
        super().handle(incoming, header, payload)

    def _on_welcome(self, welcome: Any) -> None:
        self.payload_max = welcome.payload_max or sys.maxsize
        self.incarnation = welcome.incarnation
        self.welcome = True

    def _on_cancel(self, cancel: Any) -> None:
        if self.running and cancel.call == self.call and cancel.attempt == self.attempt:
            self.cancelled = True  # and no more: somebody may look at it with a debugger
        else:
            super()._on_cancel(cancel)

    # ------------------------------------------------------------------ waiting

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        self._only_listen = start
        try:
            return super().send_call(target, args, kwargs, wait, start)
        finally:
            self._only_listen = False

    def send_publish(self, message: Any, payload: bytes, wait: bool) -> Future[list[str]]:
        self._only_listen = True
        try:
            return super().send_publish(message, payload, wait)
        finally:
            self._only_listen = False

    def ask(self, message: Any, part: Any) -> tuple[Any, bytes]:
        self._only_listen = True  # reading state gives no slot back, so nothing else runs meanwhile
        try:
            return super().ask(message, part)
        finally:
            self._only_listen = False

    def _receive_until(self, enough: Callable[[], bool], timeout: Optional[float] = None) -> bool:
        host, listen = self.host, self._only_listen
        deadline = None if timeout is None else monotonic() + timeout
        if self._lines:
            self._flush_log()  # whatever runs on top of this call has lines of its own
        if not listen:
            host.make_room()
        while not enough():
            if host.stopping:
                raise KeyboardInterrupt
            left = TICK_MS / 1000 if deadline is None else deadline - monotonic()
            if left <= 0:
                return False
            self._only_listen = False
            host.turn(left, listen)
            self._only_listen = listen
        return True

    def _come_back(self) -> None:
        try:
            super()._come_back()
        except KeyboardInterrupt:  # the daemon takes what is left from who leaves
            self._blocked_on.clear()
            self.host.stopping = True

    def _wait_for_awaited(self) -> None:
        super()._wait_for_awaited()
        self.host.make_room()
        if self._loop is not None and self._pump_due is None:
            self._pump_due = self._loop.call_later(AWAIT_SECONDS, self._pump, self._loop)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop, as long as something is awaited: receive, and run what has come."""
        self._pump_due = None
        if not self._is_awaiting():
            return
        self._pump_due = loop.call_later(AWAIT_SECONDS, self._pump, loop)
        self._take_back()
        try:
            self.host.turn(0.0)
        finally:
            self._give_way()
        if self.host.stopping:
            raise KeyboardInterrupt

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with loops.one() as self._loop:
            try:
                return super()._run_coroutine(coroutine)
            finally:
                self._loop = None
                if self._pump_due is not None:  # the loop's next call may be another lane's
                    self._pump_due.cancel()
                    self._pump_due = None

    def _schedule_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:  # a task that outlived its call awaits in vain
            super()._schedule_wait(loop)

    def _interrupt(self) -> None:
        pass

    def _failure(self, name: str, payload: bytes, error: BaseException) -> Any:
        if isinstance(error, KeyboardInterrupt):
            self.host.stopping = True
        failure = super()._failure(name, payload, error)
        if isinstance(error, bdb.BdbQuit):
            failure.message = str(error) or "the function was ended in the debugger"
        return failure

    def _ended(self) -> None:
        """A function has. Its caller goes on, if that runs beneath it: then stepping goes on as well."""
        stack = self.host.stack
        if len(stack) < 2 or stack[-2].root != self.root:
            _stepping.end()
