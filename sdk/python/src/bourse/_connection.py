"""What both clients share: finding the daemon, the socket, the calls under way, and what to do with a message."""

from __future__ import annotations

import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any, Optional, Union

import zmq

from . import _messages as messages
from . import _monitor
from . import _values as values
from ._calls import Acceptance, Future, Publication, Target
from ._durations import Duration, pause_ms
from ._errors import BourseError, Cancelled, Disconnected, NoNode, TooLarge, error_of

CONNECT_SECONDS = 10.0  # how long to wait for the daemon's welcome
FLUSH_MS = 1000
TARGETS_MAX = 1024  # names remembered with their encoded form

_START = "Start one with `bourse up FOLDER`, or name the folder: Client(\"FOLDER\")."

Where = Union[str, "os.PathLike[str]", None]


class Connection:
    """One client's side of the conversation; the clients add how to wait."""

    def __init__(self, where: Where, token: Union[bytes, str, None]) -> None:
        if where is not None and "://" not in str(where) and not daemon_file(where).is_file():
            # A served folder rather than a data folder, as far as one can see.
            missing = Path(where) / ("daemon.json" if Path(where).name == ".bourse" else ".bourse/daemon.json")
            raise NoNode(f"there is no daemon here: {missing} does not exist", hint=_START)
        self.endpoint, self._secret = find(where, token)
        self.payload_max = 0
        self._targets: dict[str, Target[Any]] = {}
        self._under_way: dict[int, Future[Any]] = {}
        self._requests = 0
        self._welcome = False
        self._refused: Optional[BourseError] = None
        self._lost = False
        self._closed = False
        self._zmq = zmq.Context()
        self._socket = self._zmq.socket(zmq.DEALER)
        self._socket.linger = FLUSH_MS
        # pyzmq's own layer above these two looks for options that are never used here.
        self._send, self._recv = super(zmq.Socket, self._socket).send, super(zmq.Socket, self._socket).recv
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.connect(self.endpoint)
        self._hello()

    def send_call(
        self, target: Target[Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool, start: bool = False
    ) -> Future[Any]:
        """Send a call. For `Target`, once it was checked that calls can be sent."""
        payload = values.encode_arguments(args, kwargs)
        if len(payload) > self.payload_max > 0:
            raise TooLarge(f"the arguments are {len(payload):,} bytes, more than the limit of {self.payload_max:,} bytes")
        message = target.message()
        call = message.call
        self._requests = call.request = request = self._requests + 1
        if call.parent:  # a function has used this target
            for part in ("parent", "attempt", "wait", "writes"):
                call.ClearField(part)
        call.mode = messages.MODE_ASYNC if start else messages.MODE_SYNC
        kind = Acceptance if start else Future
        future: Future[Any] = kind(self, call.function, request)  # type: ignore[arg-type]
        self._under_way[request] = future
        self._send(message.SerializeToString(), zmq.SNDMORE)
        self._send(payload)
        return future

    def send_publish(self, message: Any, payload: bytes, wait: bool) -> Future[list[str]]:
        """Publish something. Once it was checked that messages can be sent."""
        if len(payload) > self.payload_max > 0:
            raise TooLarge(f"the message is {len(payload):,} bytes, more than the limit of {self.payload_max:,} bytes")
        publish = message.publish
        self._requests = publish.request = request = self._requests + 1
        future = Publication(self, publish.queue or publish.topic, request)  # type: ignore[arg-type]
        self._under_way[request] = future
        self._send(message.SerializeToString(), zmq.SNDMORE)
        self._send(payload)
        return future

    def send_await(self, call_id: str, timeout: Optional[Duration]) -> Future[Any]:
        """Ask how a durable call ends. Once it was checked that messages can be sent."""
        try:
            call = uuid.UUID(call_id).bytes
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"{call_id!r} is no call's id, which is what start(…) returns") from None
        message = messages.ToNode()
        wanted = getattr(message, "await")
        wanted.call = call
        wanted.timeout_ms = 0 if timeout is None else max(1, pause_ms(timeout))
        self._requests = wanted.request = request = self._requests + 1
        future: Future[Any] = Future(self, call_id, request)  # type: ignore[arg-type]
        self._under_way[request] = future
        self._put(message)
        return future

    def cancel(self, future: Future[Any]) -> None:
        """Nobody wants this reply. For `Future`."""
        self._check()
        message = messages.ToNode()
        message.cancel.request = future.request
        self._put(message)

    def function(self, name: str) -> Target[Any]:
        """The function `module.function`, to call, submit, start or map, and to give options."""
        target = self._targets.get(name)
        if target is None:
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
            target = self._targets[name] = Target(name, caller=self)  # type: ignore[arg-type]
        return target

    def _hello(self) -> None:
        message = messages.ToNode()
        hello = message.hello
        hello.version_min = hello.version_max = messages.PROTOCOL_VERSION
        hello.role = messages.ROLE_CLIENT
        hello.secret = self._secret
        hello.agent = messages.AGENT
        hello.pid = os.getpid()
        self._put(message)

    def _put(self, message: Any) -> None:
        self._send(message.SerializeToString(), zmq.SNDMORE)
        self._send(b"")

    def _drain(self) -> bool:
        """Handle what has arrived. Whether there was anything."""
        recv = self._recv
        found = False
        while True:
            try:
                header = recv(zmq.NOBLOCK)
            except zmq.Again:
                return found
            found = True
            self._handle(header, recv())

    def _handle(self, header: bytes, payload: bytes) -> None:
        incoming = messages.ToWorker.FromString(header)
        kind = incoming.WhichOneof("message")
        if kind == "reply":
            reply = incoming.reply
            future = self._under_way.pop(reply.request, None)
            if future is not None:
                future.resolve(reply, payload)
                self._woken(future)
        elif kind == "ping":
            pong = messages.ToNode()
            pong.pong.nonce = incoming.ping.nonce
            self._put(pong)
        elif kind == "welcome":
            self._welcome = True
            self.payload_max = incoming.welcome.payload_max
        elif kind == "refused":
            self._refused = error_of(incoming.refused.failure)
            self._fail_all(self._refused)

    def _look_at_connection(self) -> None:
        while True:
            try:
                event = _monitor.next_event(self._monitor)
            except zmq.Again:
                return
            if event == zmq.EVENT_DISCONNECTED:
                self._lost = True
                self._welcome = False
                self._fail_all(Disconnected("the connection to the node was lost", hint="Whether the call ran is not known. What was started goes on."))
            elif self._lost:
                self._lost = False
                self._hello()

    def _fail_all(self, error: BourseError) -> None:
        under_way, self._under_way = self._under_way, {}
        for future in under_way.values():
            future.fail(error)
            self._woken(future)

    def _woken(self, future: Future[Any]) -> None:
        """A future is done."""

    def _check(self) -> None:
        if self._closed:
            raise NoNode("this client is closed")
        if self._refused is not None:
            raise self._refused

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._fail_all(Cancelled("the client was closed"))
            message = messages.ToNode()
            message.bye.SetInParent()
            try:
                self._socket.setsockopt(zmq.SNDTIMEO, 0)
                self._put(message)
            except zmq.Again:  # the daemon is gone, and the queue full
                pass
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(FLUSH_MS)
            self._zmq.term()


def find(where: Where, token: Union[bytes, str, None]) -> tuple[str, bytes]:
    """The endpoint and the token of a daemon."""
    if isinstance(where, str) and "://" in where:
        if token is None:
            raise NoNode(f"a token is needed for {where}", hint="It stands in the file `token` in the data folder.")
        return where, token.encode() if isinstance(token, str) else token
    described = daemon_file(where)
    try:
        daemon = json.loads(described.read_text())
        token_file = described.parent / daemon["token_file"]
        secret = token_file.read_bytes().strip() if token is None else token
        return daemon["endpoint"], secret.encode() if isinstance(secret, str) else secret
    except FileNotFoundError as error:
        raise NoNode(f"there is no daemon here: {error.filename} does not exist", hint=_START) from None
    except (ValueError, KeyError, TypeError) as error:
        raise NoNode(f"{described} can't be understood: {error!r}") from None


def answers(endpoint: str) -> bool:
    """Whether somebody listens there; taken for granted where it is no socket file."""
    scheme, _, path = endpoint.partition("://")
    if scheme != "ipc":
        return True
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(path) == 0


def daemon_file(where: Where) -> Path:
    """Where a daemon describes itself."""
    where = where or os.environ.get("BOURSE_DATA")
    if where is not None:
        folder = Path(where)
        inner = folder / ".bourse" / "daemon.json"
        return inner if inner.is_file() else folder / "daemon.json"
    here = Path.cwd()
    for folder in (here, *here.parents):
        found = folder / ".bourse" / "daemon.json"
        if found.is_file():
            return found
    raise NoNode(f"there is no .bourse/daemon.json in {here} or above it", hint=_START)
