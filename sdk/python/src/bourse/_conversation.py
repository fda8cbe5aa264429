"""What a worker and its node say to each other, whatever runs meanwhile.

    node -> worker: welcome, refused, ping, recall, cancel, stop; and invoke, reply, value, page for others
    worker -> node: hello, result, pong, recalled, log

Everything here is done by who holds the worker's lock: the main thread, or the watchdog while user code runs for long.
Results are kept until the node acknowledges them, and are sent again after a reconnect.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Optional

import zmq

from . import _context, _log
from . import _messages as messages
from . import _values as values
from ._errors import BourseError, Disconnected, TooLarge, error_of, failure_of
from ._tail import Tail
from ._watchdog import Watchdog

if TYPE_CHECKING:
    import asyncio

EXIT_ORPHANED = 3  # the node is gone

UNACKNOWLEDGED_MAX = 1024  # results kept for a node that acknowledges none
RECONNECT_LOOK_MS = 500  # how often a worker that reconnects looks whether it has
FLUSH_MS = 2000  # how long leaving waits for what is not sent yet
HEADER_MAX = 32 * 1024 * 1024  # bytes, of a message that carries state

_MORE = zmq.SNDMORE


class Conversation:
    """The socket, what came over it, and what is not acknowledged yet."""

    def __init__(self, endpoint: str, secret: bytes, role: int, description: Any) -> None:
        self.endpoint = endpoint
        self.secret = secret
        self.role = role
        self.description = description
        self.reconnects = role == messages.ROLE_ATTACHED
        self.patient = False  # its calls may take all the time they want
        self.lock = threading.Lock()
        # The running call. `header` is its message, which `context` parses if it is asked.
        self.busy = False  # user code runs; changed with the lock held
        self.run_number = 0  # of the runs so far, which is the name of the present one
        self.interrupt = 0  # the run whose time is over
        self.interrupted = 0  # the run that was told so
        self.interrupt_reason = ""
        self.cancelled = False
        self.call = b""
        self.attempt = 0
        self.header = b""
        self.arrived = 0.0
        self.writes: list[Any] = []
        # The conversation.
        self.backlog: deque[tuple[bytes, int, bytes, bytes]] = deque()
        self.waiting: dict[int, Any] = {}  # request -> Future or Answer
        self._blocked_on: set[int] = set()  # the calls waited for without a slot; empty once it is back
        self._blocked_any = False  # the first reply brings it back, not the last
        self.results = 0  # sequence number of the last one
        self.unacknowledged: deque[tuple[int, bytes, bytes]] = deque()
        self.payload_max = sys.maxsize
        self.incarnation = 0
        self.stopping = False
        self.refused: Optional[BourseError] = None
        self.lost = False
        self.reconnected = False
        self._prepared = False

    def prepare(self) -> None:
        """Make the socket and all that goes with it, which takes longer than connecting it."""
        self._prepared = True
        self._log = _log.install()
        self._lines = self._log.lines
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = FLUSH_MS
        if self.reconnects:
            self._socket.rcvtimeo = RECONNECT_LOOK_MS
        # pyzmq's own layer above these two looks for options that are never used here.
        self._send, self._recv = super(zmq.Socket, self._socket).send, super(zmq.Socket, self._socket).recv
        self._watchdog = Watchdog(self, self._socket)

    def connect(self, failure: Any = None) -> None:
        """Start the watchdog, connect, and say hello. Takes the lock."""
        if not self._prepared:
            self.prepare()
        self.lock.acquire()
        self._watchdog.start()
        self._socket.connect(self.endpoint)
        self._hello(failure)

    def leave(self) -> None:
        """Send what is not sent yet, and close. Keeps the lock."""
        self.stopping = True  # from now on the node may hang up
        self._watchdog.stop()
        sys.stdout.flush()
        sys.stderr.flush()
        self._socket.close(FLUSH_MS)
        if not self._watchdog.is_alive():
            self._context.term()

    def drain(self) -> None:
        """Handle what has arrived, and send the log."""
        while True:
            try:
                header = self._recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            payload = self._recv()
            self.handle(messages.ToWorker.FromString(header), header, payload)
        if self.reconnected:
            self._look_at_connection()
        if self._lines:
            self._flush_log()

    def handle(self, incoming: Any, header: bytes, payload: bytes) -> None:
        """One message; an `Invoke` goes to the backlog."""
        kind = incoming.WhichOneof("message")
        message: Any = getattr(incoming, kind) if kind else None
        if kind == "invoke":
            self.backlog.append((message.call, message.attempt, header, payload))
        elif kind in ("reply", "value", "page"):
            if message.request in self._blocked_on:
                if self._blocked_any:
                    self._blocked_on.clear()
                else:
                    self._blocked_on.discard(message.request)
            waiting = self.waiting.pop(message.request, None)
            if waiting is not None:
                waiting.resolve(message, payload)
                self._tell_loop(waiting)
        elif kind == "ping":
            self._acknowledge(message.acked)
            self._flush_log()
            pong = messages.ToNode()
            pong.pong.nonce = message.nonce
            self._put(pong)
        elif kind == "recall":
            self._on_recall(message)
        elif kind == "cancel":
            self._on_cancel(message)
        elif kind == "stop":
            self.stopping = True
        elif kind == "welcome":
            self._on_welcome(message)
        elif kind == "refused":
            self.refused = error_of(message.failure)
            self._fail_waiting(self.refused)

    def press(self) -> None:
        """Insist on an interrupt that has not worked yet."""
        raise NotImplementedError

    def on_disconnected(self) -> None:
        """The connection is lost. The watchdog's thread, without the lock."""
        self.lost = True
        if not self.reconnects and not self.stopping:
            sys.stderr.write("bourse: the node is gone\n")
            sys.stderr.flush()
            os._exit(EXIT_ORPHANED)

    def on_connected(self) -> None:
        """The connection is there, perhaps again. The watchdog's thread, without the lock."""
        if self.lost:
            self.lost = False
            self.reconnected = True

    def _interrupt(self) -> None:
        """Make the running function stop."""
        raise NotImplementedError

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        """On the event loop: a reply has come."""
        raise NotImplementedError

    def _hello(self, failure: Any = None) -> None:
        message = messages.ToNode()
        hello = message.hello
        hello.version_min = hello.version_max = messages.PROTOCOL_VERSION
        hello.role = self.role
        hello.secret = self.secret
        hello.agent = messages.AGENT
        hello.pid = os.getpid()
        if self.role == messages.ROLE_ATTACHED:
            hello.module.CopyFrom(self.description)
            hello.patient = self.patient
        if failure is not None:
            hello.failed.CopyFrom(failure)
        self._put(message)

    def _send_result(
        self,
        call: bytes,
        attempt: int,
        body: bytes,
        failure: Any,
        content_type: str = "",
        http: Optional[values.Response] = None,
        tail: Optional[Tail] = None,
    ) -> None:
        """A result with more than a CBOR value to it. Who holds the lock."""
        message = messages.ToNode()
        result = message.result
        result.call, result.attempt = call, attempt
        if failure is None and len(body) > self.payload_max:
            what = "result" if tail is None else f"arguments for {tail.function}"
            failure = failure_of(too_large(what, len(body), self.payload_max))
            body = b""
        if failure is None:
            result.content_type = content_type
            result.writes.extend(self.writes)
            if tail is not None:
                result.tail.function, result.tail.version = tail.function, tail.version
            if http is not None:
                result.http.status = http.status
                for name, value in http.headers.items():
                    result.http.headers.add(name=name, value=str(value))
            if self.writes and message.ByteSize() > HEADER_MAX:
                failure = failure_of(too_large("state written", message.ByteSize(), HEADER_MAX))
                body = b""
                for part in ("content_type", "writes", "http", "tail"):
                    result.ClearField(part)
        if failure is not None:
            result.failure.CopyFrom(failure)
        self.writes.clear()
        self.results += 1
        result.seq = self.results
        header = message.SerializeToString()
        self._put_frames(header, body)
        if len(self.unacknowledged) >= UNACKNOWLEDGED_MAX:
            self.unacknowledged.popleft()
        self.unacknowledged.append((self.results, header, body))

    def _acknowledge(self, sequence: int) -> None:
        kept = self.unacknowledged
        while kept and kept[0][0] <= sequence:
            kept.popleft()
        if len(kept) >= UNACKNOWLEDGED_MAX:
            kept.popleft()

    def _look_at_connection(self) -> None:
        if self.reconnected:
            self.reconnected = False
            self._fail_waiting(Disconnected("the connection to the node was lost"))
            self._hello()

    def _fail_waiting(self, error: BourseError) -> None:
        waiting, self.waiting = self.waiting, {}
        self._blocked_on.clear()
        for one in waiting.values():
            one.fail(error)
            self._tell_loop(one)

    def _on_welcome(self, welcome: Any) -> None:
        self.payload_max = welcome.payload_max or sys.maxsize
        if self.incarnation not in (0, welcome.incarnation):
            self.backlog.clear()  # another daemon now, which has routed them anew
        self.incarnation = welcome.incarnation
        for _, header, body in self.unacknowledged:
            self._put_frames(header, body)

    def _on_recall(self, recall: Any) -> None:
        asked = {(invocation.call, invocation.attempt) for invocation in recall.calls}
        answer = messages.ToNode()
        answer.recalled.nonce = recall.nonce
        for item in list(self.backlog):
            if item[:2] in asked:
                self.backlog.remove(item)
                answer.recalled.calls.add(call=item[0], attempt=item[1])
        self._put(answer)

    def _on_cancel(self, cancel: Any) -> None:
        if _context.running is not None and cancel.call == self.call and cancel.attempt == self.attempt:
            self.cancelled = True
            if cancel.interrupt and self.interrupted != self.run_number:
                self.interrupt_reason = cancel.reason
                self.interrupt = self.run_number
                self._interrupt()
            return
        for item in list(self.backlog):
            if item[0] == cancel.call and item[1] == cancel.attempt:
                self.backlog.remove(item)
                code = "timeout" if cancel.interrupt else "cancelled"
                failure = messages.Failure(code=code, message=cancel.reason or "cancelled before it started")
                self._refuse(item, failure)

    def _refuse(self, item: tuple[bytes, int, bytes, bytes], failure: Any) -> None:
        """Answer a call that waits in the backlog without running it, whatever runs meanwhile."""
        writes, self.writes = self.writes, []
        self._send_result(item[0], item[1], b"", failure)
        self.writes = writes

    def _tell_loop(self, waiting: Any) -> None:
        waiter = waiting.waiter
        if waiter is not None:
            waiting.waiter = None
            waiter.get_loop().call_soon_threadsafe(self._wake, waiter)

    def _flush_log(self) -> None:
        for header in self._log.take():
            self._put_frames(header, b"")

    def _tell(self, kind: str) -> None:
        message = messages.ToNode()
        getattr(message, kind).SetInParent()
        self._put(message)

    def _put(self, message: Any) -> None:
        self._put_frames(message.SerializeToString(), b"")

    def _put_frames(self, header: bytes, payload: bytes) -> None:
        self._send(header, _MORE)
        self._send(payload)


def too_large(what: str, size: int, limit: int) -> TooLarge:
    return TooLarge(f"the {what} is {size:,} bytes, more than the limit of {limit:,} bytes")
