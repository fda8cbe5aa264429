"""A fork server: loads a module once, and gives instances of it in a millisecond or two.

    keeper -> template: fork
    template -> keeper: ready or failed, then forked for each fork

`python -m bourse._template PATH --root FOLDER --endpoint URL`; the descriptor that BOURSE_CONTROL_FD names is the
socket to the keeper. Loading is the module's load check too. The end of the socket ends the template.

What is forked is first a *spare*: a process that has done everything which does not depend on the order, and waits for one.
The template keeps one ready, made when it has nothing else to do, so that an order only has to be passed on.

The template itself never creates a ZeroMQ context and starts no thread: neither survives a fork. It forks twice: the process in
between leaves at once, so that the keeper (a child subreaper) becomes the instance's parent and sees its exit itself.
The instance leads a session of its own before its process id is told to anyone, so the keeper can signal the group from then on.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import socket
import struct
import sys
from typing import Any, Optional

from . import _discover, _worker
from . import _messages as messages

MESSAGE_MAX = 4 * 1024 * 1024
QUIET_SECONDS = 0.05  # without an order, before the next spare is made
_LENGTH = struct.Struct("<I")
_PID = struct.Struct("<q")


class Template:
    """The conversation with the keeper, on a stream socket: a length (4 bytes, little endian) and a message. Orders to a spare
    go the same way."""

    def __init__(self, control: socket.socket, endpoint: str) -> None:
        self.control = control
        self.endpoint = endpoint
        self.spare: Optional[Spare] = None

    def serve(self, path: str, root: str) -> int:
        """Load the module, then fork instances for as long as the keeper wants. The exit code."""
        try:
            loaded = _discover.load(path, root)
        except BaseException as error:
            report = messages.FromTemplate()
            report.failed.CopyFrom(_discover.failure(error))
            self._send(report)
            return 1
        report = messages.FromTemplate()
        report.ready.module.CopyFrom(loaded.description)
        report.ready.files.extend(loaded.files)
        report.ready.not_forkable = _discover.threads()
        self._send(report)
        while True:
            if self.spare is None and self._is_quiet():
                self._keep_spare(loaded)
            request = self._receive()
            if request is None:
                return 0
            if request.HasField("fork"):
                self._send(self._fork(loaded, request))

    def _is_quiet(self) -> bool:
        """Whether nothing is asked for a while: just after a fork, the instance needs the processor more than we do."""
        return not select.select([self.control], [], [], QUIET_SECONDS)[0]

    def _keep_spare(self, loaded: _discover.Loaded) -> None:
        """Make one, if that can be done now. If not, the next order tries again, and says why not."""
        try:
            if not _discover.threads():
                self._make_spare(loaded)
        except OSError:  # too many processes or descriptors, or no memory
            pass

    def _fork(self, loaded: _discover.Loaded, request: Any) -> Any:
        answer = messages.FromTemplate()
        answer.forked.process = request.fork.process
        reason = _discover.threads()
        if reason:  # a fork would copy locks that nobody ever lets go
            answer.forked.error = f"not forkable: {reason}"
            return answer
        spare, self.spare = self.spare, None
        if spare is not None and spare.is_there() and spare.order(request):
            answer.forked.pid = spare.pid
            return answer
        try:
            spare = self._make_spare(loaded)
        except OSError as error:
            answer.forked.error = f"fork: {error}"
            return answer
        self.spare = None
        if spare is not None and spare.order(request):
            answer.forked.pid = spare.pid
        else:
            answer.forked.error = "the forked process ended before it was an instance"
        return answer

    def _make_spare(self, loaded: _discover.Loaded) -> Optional[Spare]:
        """Fork one, and remember it. None if it ended at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        try:
            between = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if between == 0:
            try:
                ours.close()
                if os.fork() == 0:
                    self._be_spare(loaded, theirs)
            finally:
                os._exit(0)
        theirs.close()
        pid = _read(ours, _PID.size)
        os.waitpid(between, 0)
        self.spare = None if pid is None else Spare(int(_PID.unpack(pid)[0]), ours)
        return self.spare

    def _be_spare(self, loaded: _discover.Loaded, orders: socket.socket) -> None:
        """In the new process: prepare, wait for the order, and be the instance. Never returns."""
        try:
            os.setsid()
            orders.sendall(_PID.pack(os.getpid()))
            self.control.close()
            reset_signals()
            worker = _worker.Worker(loaded, self.endpoint, b"")
            worker.prepare()
            encoded = _read_message(orders)
            if encoded is None:  # the template is gone
                os._exit(0)
            orders.close()
            order = messages.ToTemplate.FromString(encoded).fork
            redirect(order.log)
            reseed()
            name_process(order.process)
            worker.secret = order.secret
        except BaseException as error:
            sys.stderr.write(f"bourse: the forked process can't start: {error}\n")
            sys.stderr.flush()
            os._exit(_worker.EXIT_FAILED)
        _worker.run_instance(worker)

    def _send(self, message: Any) -> None:
        self.control.sendall(_framed(message))

    def _receive(self) -> Optional[Any]:
        encoded = _read_message(self.control)
        return None if encoded is None else messages.ToTemplate.FromString(encoded)


class Spare:
    """A process that waits for an order to be an instance."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self.pid = pid
        self._orders = orders

    def is_there(self) -> bool:
        """Whether it has not been killed meanwhile."""
        try:
            return bool(self._orders.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def order(self, request: Any) -> bool:
        """Make it this instance. Whether it was still there."""
        try:
            self._orders.sendall(_framed(request))
        except OSError:
            return False
        self._orders.close()
        return True


def _framed(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return _LENGTH.pack(len(encoded)) + encoded


def _read_message(stream: socket.socket) -> Optional[bytes]:
    """What comes next; None at the end."""
    head = _read(stream, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MESSAGE_MAX:
        raise ValueError(f"a message of {length} bytes on a template's socket")
    return _read(stream, length)


def _read(stream: socket.socket, size: int) -> Optional[bytes]:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = stream.recv(size - len(parts))
        except ConnectionResetError:  # the other end was killed
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


def redirect(log: str) -> None:
    """Make the standard streams the process's own: output appended to `log`, line by line, input empty."""
    null = os.open(os.devnull, os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log else null
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for fd in {null, output} - {0, 1, 2}:
        os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def name_process(number: int) -> None:
    """Set BOURSE_PROCESS to this instance's number, also where `/proc` shows it.

    The keeper finds by it what an instance leaves behind, and a fork has its parent's environment there: it is
    written over in place. (It can't be where `/proc/self/mem` can't be written; the instance does without, then.)
    """
    name = "BOURSE_PROCESS"
    before = f"{name}={os.environ.get(name, '')}".encode()
    os.environ[name] = str(number)
    after = f"{name}={number:0{len(before) - len(name) - 1}d}".encode()
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[47]), int(fields[48])  # env_start and env_end of proc_pid_stat(5)
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            found = os.pread(memory, end - start, start).find(before + b"\0")
            if found >= 0 and len(after) == len(before):
                os.pwrite(memory, after, start + found)
        finally:
            os.close(memory)
    except (OSError, ValueError, IndexError):
        pass


def reset_signals() -> None:
    """Forget the handlers that the module installed while it was loaded: they are the template's."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reseed() -> None:
    """Make instances differ in what they draw."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bourse._template", description="Load a module, and fork instances of it.")
    parser.add_argument("path")
    parser.add_argument("--root", required=True)
    parser.add_argument("--endpoint", required=True)
    options = parser.parse_args()
    control = socket.socket(fileno=int(os.environ.pop("BOURSE_CONTROL_FD")))
    os.set_inheritable(control.fileno(), False)  # not for programs that the module starts
    sys.exit(Template(control, options.endpoint).serve(options.path, options.root))


if __name__ == "__main__":
    main()
