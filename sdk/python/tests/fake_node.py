"""A node and a keeper for tests: a ROUTER that says what a test tells it to, and real worker processes.

Nothing here sleeps: every wait is a poll on a socket, with a deadline.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any, Optional

import zmq

from bourse import _messages as messages
from bourse import _values as values

SOURCE = str(Path(__file__).resolve().parent.parent / "src")
PATIENCE = 15.0  # seconds; only a broken worker takes this long


class Node:
    """One node with one worker, which it may have started anew or through a template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"ipc://{folder}/node.sock"
        self.log = folder / "instance.log"
        self.context = zmq.Context()
        self.router: Any = None
        self.peer = b""
        self.early: list[tuple[str, Any, bytes]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.orphans: list[int] = []
        self.last_seq = 0
        self.pid = 0
        self.bind()

    def bind(self) -> None:
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.router.bind(self.endpoint)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in self.orphans:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        self.router.close(0)
        self.context.term()

    # ------------------------------------------------------------------ processes

    def write(self, name: str, source: str) -> Path:
        path = self.folder / "functions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def start(self, source: str, name: str = "mod.py") -> subprocess.Popen[bytes]:
        """The slow way: a new interpreter."""
        path = self.write(name, source)
        read, write = os.pipe()
        os.write(write, b"the secret")
        os.close(write)
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bourse._worker", str(path), "--root", str(self.folder / "functions")]
                + ["--endpoint", self.endpoint],
                env={**os.environ, "PYTHONPATH": SOURCE, "BOURSE_SECRET_FD": str(read)},
                pass_fds=(read,),
                stdout=log,
                stderr=log,
            )
        os.close(read)
        self.processes.append(process)
        return process

    def template(self, source: str, name: str = "mod.py") -> Template:
        return Template(self, self.write(name, source))

    def welcomed(self, source: str, **welcome: Any) -> subprocess.Popen[bytes]:
        process = self.start(source)
        self.welcome(**welcome)
        return process

    def welcome(self, payload_max: int = 1 << 24, incarnation: int = 7) -> Any:
        hello, _ = self.expect("hello")
        if hello.pid != self.pid:  # another worker, which counts its results anew
            self.pid, self.last_seq = hello.pid, 0
        message = messages.ToWorker()
        message.welcome.version = 1
        message.welcome.payload_max = payload_max
        message.welcome.incarnation = incarnation
        self.send(message)
        return hello

    # ------------------------------------------------------------------ messages

    def send(self, message: Any, payload: bytes = b"") -> None:
        self.router.send_multipart([self.peer, message.SerializeToString(), payload])

    def expect(self, kind: str, patience: float = PATIENCE) -> tuple[Any, bytes]:
        """The next message of this kind; others wait for their turn."""
        for at, (found, message, payload) in enumerate(self.early):
            if found == kind:
                del self.early[at]
                return message, payload
        deadline = time.monotonic() + patience
        while True:
            found, message, payload = self.next(deadline - time.monotonic())
            if found == kind:
                return message, payload
            self.early.append((found, message, payload))

    def next(self, patience: float = PATIENCE) -> tuple[str, Any, bytes]:
        if patience <= 0 or not self.router.poll(int(patience * 1000)):
            log = self.log.read_text() if self.log.exists() else ""
            raise AssertionError(f"nothing came; before: {[kind for kind, *_ in self.early]}; log:\n{log}")
        self.peer, header, payload = self.router.recv_multipart()
        message = messages.ToNode.FromString(header)
        kind = message.WhichOneof("message")
        return kind, getattr(message, kind), payload

    def invoke(
        self,
        function: str,
        *args: Any,
        _raw: Optional[bytes] = None,
        _attempt: int = 1,
        _redelivered: bool = False,
        _more: Any = None,
        **kwargs: Any,
    ) -> bytes:
        """`_more`: an `Invoke` with further fields."""
        message = messages.ToWorker()
        invoke = message.invoke
        invoke.call = uuid.uuid4().bytes
        invoke.attempt = _attempt
        invoke.redelivered = _redelivered
        invoke.function = function
        invoke.timeout_ms = 60_000
        invoke.acked = self.last_seq
        invoke.context["tenant"] = "acme"
        invoke.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        if _more is not None:
            invoke.MergeFrom(_more)
        self.send(message, values.encode_arguments(args, kwargs) if _raw is None else _raw)
        return bytes(invoke.call)

    def outcome(self, call: Optional[bytes] = None) -> Any:
        """The next result that is new: its value, or its `Failure`."""
        result, payload = self.expect("result")
        while result.seq <= self.last_seq:  # sent again
            result, payload = self.expect("result")
        self.last_seq = result.seq
        if call is not None:
            assert result.call == call
        if result.HasField("failure"):
            return result.failure
        return values.decode(payload, result.content_type)

    def run(self, function: str, *args: Any, **kwargs: Any) -> Any:
        return self.outcome(self.invoke(function, *args, **kwargs))

    def reply(self, call: Any, value: Any = None, failure: Any = None) -> None:
        message = messages.ToWorker()
        message.reply.request = call.request
        if failure is not None:
            message.reply.failure.CopyFrom(failure)
        self.send(message, values.encode(value))

    def value(self, read: Any, value: Any = None, version: int = 0) -> None:
        message = messages.ToWorker()
        message.value.request = read.request
        message.value.found = version > 0
        message.value.version = version
        self.send(message, values.encode(value) if version else b"")

    def ping(self) -> float:
        """Seconds until the pong."""
        message = messages.ToWorker()
        message.ping.nonce = time.monotonic_ns()
        message.ping.acked = self.last_seq
        start = time.monotonic()
        self.send(message)
        pong, _ = self.expect("pong")
        assert pong.nonce == message.ping.nonce
        return time.monotonic() - start

    def recall(self, *calls: bytes) -> list[bytes]:
        message = messages.ToWorker()
        message.recall.nonce = 5
        for call in calls:
            message.recall.calls.add(call=call, attempt=1)
        self.send(message)
        recalled, _ = self.expect("recalled")
        assert recalled.nonce == 5
        return [bytes(invocation.call) for invocation in recalled.calls]

    def cancel(self, call: bytes, interrupt: bool = False, reason: str = "") -> None:
        message = messages.ToWorker()
        message.cancel.call, message.cancel.attempt = call, 1
        message.cancel.interrupt, message.cancel.reason = interrupt, reason
        self.send(message)

    def stop(self) -> None:
        message = messages.ToWorker()
        message.stop.SetInParent()
        self.send(message)


class Template:
    """A fork server, and the keeper's end of its control socket."""

    def __init__(self, node: Node, path: Path) -> None:
        self.node = node
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bourse._template", str(path), "--root", str(node.folder / "functions")]
            + ["--endpoint", node.endpoint],
            env={**os.environ, "PYTHONPATH": SOURCE, "BOURSE_CONTROL_FD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        node.processes.append(self.process)

    def receive(self) -> Any:
        (length,) = struct.unpack("<I", self._read(4))
        message = messages.FromTemplate.FromString(self._read(length))
        return getattr(message, message.WhichOneof("message"))

    def fork(self, process: int = 1, secret: bytes = b"forked secret") -> Any:
        message = messages.ToTemplate()
        message.fork.process, message.fork.secret, message.fork.log = process, secret, str(self.node.log)
        encoded = message.SerializeToString()
        self.control.sendall(struct.pack("<I", len(encoded)) + encoded)
        forked = self.receive()
        if forked.pid:
            self.node.orphans.append(forked.pid)
        return forked

    def _read(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.control.recv(size - len(parts))
            assert part, "the template closed its socket"
            parts += part
        return parts
