"""What running functions ask of the grid, and how user code and ours take turns on the main thread.

    worker -> node: call, publish, wait, cancel, read, scan
    node -> worker: reply, value, page

`lock` is held wherever no user code runs. User code enters by `_take_back` and leaves by `_give_way`. An interrupt is a
SIGINT to the main thread; its handler raises `Interrupted` only while user code runs (`armed`), so the worker's own
code is never cut short; what comes meanwhile is raised by `_give_way`.

An instance that has said `wait` is *blocked*: it has no slot, and may not answer its call. Nothing tells it that it has a
slot again but the replies themselves, which the node holds back until then. So who no longer wants to wait gives calls up:
their replies come like any others. An `async def` function gives a call up by cancelling what awaits it (`wait_for`,
`task.cancel()`), and goes on once the slot is back; what it leaves open when it ends is given up with its tasks, and
the result is sent after that. Each wait of an event loop names all open calls: so a reply that was on its way when the
wait was sent is one of those waited for, and the node does not take the slot at all.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

import zmq

from . import _messages as messages
from . import _values as values
from ._calls import Acceptance, Future, Publication, Target, all_done, enough
from ._conversation import HEADER_MAX, Conversation, too_large
from ._errors import BourseError, Interrupted, Timeout, error_of

if TYPE_CHECKING:
    import asyncio

PRESS_SECONDS = 0.1  # how long a cancelled coroutine has before it is interrupted
ROUNDS_MAX = 16  # how often what a coroutine leaves behind is cancelled, if it makes new calls instead of ending


class Answer:
    """What a `Read` or `Scan` waits for."""

    __slots__ = ("done", "error", "function", "message", "payload", "waiter")

    def __init__(self) -> None:
        self.done = False
        self.error: Optional[BourseError] = None
        self.waiter = None

    def resolve(self, message: Any, payload: bytes) -> None:
        if message.HasField("failure"):
            self.error = error_of(message.failure)
        self.message = type(message).FromString(message.SerializeToString())  # the incoming one is reused
        self.payload = payload
        self.done = True

    def fail(self, error: BourseError) -> None:
        self.error = error
        self.done = True


class Asking(Conversation):
    """The running call's side of the conversation. A `Caller`."""

    def __init__(self, endpoint: str, secret: bytes, role: int, description: Any) -> None:
        super().__init__(endpoint, secret, role, description)
        self.armed = 0  # the run that a signal may interrupt now; only the main thread touches it
        self._requests = 0
        self._main = threading.get_ident()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._task: Optional[asyncio.Task[Any]] = None
        self._wait_scheduled = False
        self._pressed = 0.0

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        """Make a nested call, or with `start` a durable one, whose id is answered at once: for that no slot is given back.

        What was written goes along, so that the call finds its home where its caller has it.
        """
        payload = values.encode_arguments(args, kwargs)
        if len(payload) > self.payload_max:
            raise too_large("arguments", len(payload), self.payload_max)
        self._take_back()
        try:
            message = target.message()
            call = message.call
            if call.idempotency_key:
                raise ValueError("a function's own calls take no idempotency key: it is for calls from outside")
            self._requests = call.request = self._requests + 1
            call.parent, call.attempt, call.wait = self.call, self.attempt, wait and not start
            call.mode = messages.MODE_ASYNC if start else messages.MODE_SYNC
            call.ClearField("writes")
            self._take_writes(call)
            future: Future[Any] = (Acceptance if start else Future)(self, call.function, call.request)
            self.waiting[call.request] = future
            self._put_frames(message.SerializeToString(), payload)
            if call.wait:
                self._blocked_on, self._blocked_any = {call.request}, False
            if wait:
                self._receive_answer(future, start)
        finally:
            self._give_way()
        return future

    def send_publish(self, message: Any, payload: bytes, wait: bool) -> Future[list[str]]:
        """Publish something, which is a call, or several, that is started."""
        if len(payload) > self.payload_max:
            raise too_large("message", len(payload), self.payload_max)
        self._take_back()
        try:
            publish = message.publish
            self._requests = publish.request = self._requests + 1
            publish.parent, publish.attempt = self.call, self.attempt
            self._take_writes(publish)
            future = Publication(self, publish.queue or publish.topic, publish.request)
            self.waiting[publish.request] = future
            self._put_frames(message.SerializeToString(), payload)
            if wait:
                self._receive_answer(future, start=True)
        finally:
            self._give_way()
        return future

    def wait(self, futures: Sequence[Future[Any]], any_: bool, timeout: Optional[float]) -> None:
        """Give the slot back, and block until all (or any) of these are done."""
        self._take_back()
        try:
            self.drain()
            left = [future for future in futures if not future._done]
            if not left or (any_ and len(left) < len(futures)):
                return
            self._send_wait([future.request for future in left], any_)
            if self._receive_until(enough(left, any_), timeout):
                return
            for future in left:
                self._cancel(future)
            self._receive_until(all_done(left))
            raise Timeout(f"no reply within {timeout:g} s", function=left[0].function)
        finally:
            self._give_way()

    def cancel(self, future: Future[Any]) -> None:
        """Nobody wants the reply of a nested call."""
        self._take_back()
        try:
            self._cancel(future)
        finally:
            self._give_way()

    def ask(self, message: Any, part: Any) -> tuple[Any, bytes]:
        """Send a `Read` or `Scan`, and wait for its answer."""
        self._take_back()
        try:
            self._requests = part.request = self._requests + 1
            part.call, part.attempt = self.call, self.attempt
            self._take_writes(part)
            answer = Answer()
            self.waiting[part.request] = answer
            self._put(message)
            self._receive_until(lambda: answer.done)
        finally:
            self._give_way()
        if answer.error is not None:
            raise answer.error
        return answer.message, answer.payload

    def awaitable(self, future: Future[Any]) -> asyncio.Future[None]:
        """Done when `future` is. Once nothing else is to be done on the loop, the slot is given back."""
        import asyncio

        loop = asyncio.get_running_loop()
        future.waiter = waiter = loop.create_future()
        waiter.add_done_callback(functools.partial(self._given_up, future))  # before the task's own, so it runs first
        if future._done:  # it came between the caller's look and ours
            future.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        else:
            self._schedule_wait(loop)
        return waiter

    def press(self) -> None:
        """An interrupt that only cancelled a coroutine, which goes on: raise it where the coroutine is."""
        if self.interrupt and self.interrupt == self.run_number and monotonic() - self._pressed > PRESS_SECONDS:
            self._pressed = monotonic()
            signal.pthread_kill(self._main, signal.SIGINT)

    def _take_back(self) -> None:
        """From user code to ours: take the lock, and with it the socket."""
        if threading.get_ident() != self._main:
            raise RuntimeError("the grid can be used from the function's own thread only, not from threads it started")
        self.armed = 0
        self.lock.acquire()
        self.busy = False

    def _give_way(self) -> None:
        """From our code back to user code. Raises the interrupt that came meanwhile."""
        watchdog = self._watchdog
        self.busy = True
        if watchdog.owning:
            watchdog.alarm.ring()  # we may have taken the news from the descriptor it waits on
        elif not watchdog.armed:
            watchdog.arm()
        self.lock.release()
        self.armed = self.run_number
        if self.interrupt == self.run_number:
            self._raise_interrupt()

    def _take_writes(self, part: Any) -> None:
        if self.writes:
            part.writes.extend(self.writes)
            if part.ByteSize() > HEADER_MAX:
                part.ClearField("writes")
                raise too_large("state written", sum(len(write.value) for write in self.writes), HEADER_MAX)
            self.writes.clear()

    def _receive_answer(self, future: Future[Any], start: bool) -> None:
        """Wait for the reply to what was just sent. What is started is answered at once, so the slot is kept."""
        if start and self._is_awaiting():  # then the node may keep all replies back until one of those is there
            self._send_wait([future.request], any_=False)
            self._wait_again()
        self._receive_until(lambda: future._done)

    def _send_wait(self, requests: list[int], any_: bool) -> None:
        message = messages.ToNode()
        message.wait.call, message.wait.attempt, message.wait.any = self.call, self.attempt, any_
        message.wait.requests.extend(requests)
        self._put(message)
        self._blocked_on, self._blocked_any = set(requests), any_

    def _cancel(self, future: Future[Any]) -> None:
        message = messages.ToNode()
        message.cancel.request = future.request
        self._put(message)

    def _receive_until(self, enough: Callable[[], bool], timeout: Optional[float] = None) -> bool:
        """Handle messages until `enough`, or until an interrupt, or until `timeout`: then `False`."""
        deadline = None if timeout is None else monotonic() + timeout
        while not enough() and self.interrupt != self.run_number:
            if deadline is not None:
                left = deadline - monotonic()
                if left <= 0 or not self._socket.poll(max(1, int(left * 1000))):
                    return False
            try:
                header, payload = self._recv(), self._recv()
            except zmq.Again:
                self._look_at_connection()
                continue
            self.handle(messages.ToWorker.FromString(header), header, payload)
        return True

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """On the instance's own event loop, which lives as long as the instance: connections belong to a loop.

        Tasks that outlive their call stay on it, and go on when the loop next runs.
        """
        import asyncio  # `load` did, if anything here is a coroutine function

        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        self._task = task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # interrupted while the loop itself ran: let the coroutine clean up
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            raise
        finally:
            self._task = None
            if self.waiting or self._wait_scheduled:
                self._end_tasks(loop)

    def _end_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine has ended: cancel what it leaves behind, as far as that awaits calls, and let it clean up."""
        import asyncio

        for _ in range(ROUNDS_MAX):
            waiters = [future.waiter for future in self.waiting.values() if future.waiter is not None]
            if not waiters and not self._wait_scheduled:
                return
            for waiter in waiters:
                waiter.cancel()
            loop.run_until_complete(asyncio.sleep(0))

    def _given_up(self, future: Future[Any], waiter: asyncio.Future[None]) -> None:
        """On the loop: if what awaited a call was cancelled, so is the call; what runs next has the slot again."""
        if not waiter.cancelled() or future.waiter is not waiter or self.waiting.get(future.request) is not future:
            return
        future.waiter = None
        self._take_back()
        try:
            if self._blocked_on and future.request not in self._blocked_on:
                self._send_wait(self._open(), any_=True)
            self._cancel(future)
            self._receive_until(lambda: not self._blocked_on)
        finally:
            self._give_way()
        if self._is_awaiting():
            self._wait_again()

    def _come_back(self) -> None:
        """A call has ended that is blocked: give up all that is open, which brings the slot back. Holds the lock."""
        for request in self._open():
            self._cancel(self.waiting[request])
        while self._blocked_on:
            self.interrupt = 0  # it has ended
            self._receive_until(lambda: not self._blocked_on)

    def _open(self) -> list[int]:
        """Calls without a reply."""
        return [request for request, future in self.waiting.items() if isinstance(future, Future)]

    def _schedule_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._wait_scheduled:
            self._wait_scheduled = True
            loop.call_soon(self._wait_for_awaited)

    def _wait_for_awaited(self) -> None:
        self._wait_scheduled = False
        self._take_back()
        try:
            self.drain()
            if self._is_awaiting():
                self._send_wait(self._open(), any_=True)
                if not self._watchdog.owning:
                    self._watchdog.hurry()  # it receives the replies while the loop sleeps
        finally:
            self._give_way()

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        """On the loop: a reply has come. Those still awaited are waited for anew."""
        if not waiter.done():
            waiter.set_result(None)
        if self._is_awaiting():
            self._wait_again()

    def _is_awaiting(self) -> bool:
        return any(future.waiter is not None for future in self.waiting.values())

    def _wait_again(self) -> None:
        if self._loop is not None:
            self._schedule_wait(self._loop)

    def _interrupt(self) -> None:
        """Make the main thread stop what it does. If that is this thread, it is in our code, and looks itself."""
        if threading.get_ident() == self._main:
            return
        task, loop = self._task, self._loop
        self._pressed = monotonic()
        if task is not None and loop is not None:
            loop.call_soon_threadsafe(task.cancel)
        else:
            signal.pthread_kill(self._main, signal.SIGINT)

    def _on_signal(self, _signal: int, _frame: Any) -> None:
        if self.armed and self.armed == self.interrupt:
            self._raise_interrupt()
        if self.reconnects and not self.interrupt:  # somebody at a terminal pressed Ctrl-C
            raise KeyboardInterrupt

    def _raise_interrupt(self) -> None:
        self.armed = 0
        self.interrupted, self.interrupt = self.interrupt, 0
        raise Interrupted(self.interrupt_reason or "the call's time is over")
