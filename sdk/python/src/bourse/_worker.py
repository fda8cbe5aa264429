"""An instance: one process that runs a module's functions, one call at a time.

    node -> worker: invoke, stop
    worker -> node: result, bye

User code runs on the main thread, which owns the socket, so a short call costs no change of thread. It never runs two calls at
once, never sends a second result for an attempt, and never lets a user's exception end it. The rest of the protocol stands
in `_conversation` and `_asking`.

`python -m bourse._worker PATH --root FOLDER --endpoint URL` starts one anew; `_template` forks them faster.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Callable

import zmq

from . import _context, _discover, _log, _tracebacks
from . import _messages as messages
from . import _values as values
from ._asking import Asking
from ._errors import BadArguments, Cancelled, Interrupted, failure_of
from ._tail import Tail

EXIT_FAILED = 1  # the module does not load, or `on_start` failed
EXIT_REFUSED = 2  # the node refused this worker

# A message that is used again is faster, but never gives memory back: so often, and then another.
OUTGOING_USES = 1024

_MORE = zmq.SNDMORE
_SPECIAL = frozenset((bytes, values.Response, Tail))  # results that are not simply CBOR


class _EndsHere:
    """The lock of a forked child: taking it, which leads back to the node, ends the process. Sockets and calls are its
    parent's."""

    def acquire(self, *_args: Any, **_kwargs: Any) -> bool:
        error = sys.exc_info()[1]
        if error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
        sys.stderr.write("bourse: a process that a function forked came back from it, or used the grid: it ends here\n")
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(EXIT_FAILED)

    def release(self) -> None:
        """It was held where the fork happened."""


class Worker(Asking):
    """See the module."""

    def __init__(
        self, loaded: _discover.Loaded, endpoint: str, secret: bytes, role: int = messages.ROLE_WORKER
    ) -> None:
        super().__init__(endpoint, secret, role, loaded.description)
        self.use(loaded)
        self._outgoing = messages.ToNode()

    def use(self, loaded: _discover.Loaded) -> None:
        """Run these functions from the next call on."""
        self.loaded = loaded
        self.module = loaded.name
        self._functions = {
            name: self._coroutine_runner(plain) if inspect.iscoroutinefunction(plain) else plain
            for name, plain in loaded.functions.items()
        }

    def _end_forked(self) -> None:
        """In a child that the user's code forked: it may finish what it is at, and ends where the instance goes on."""
        self.lock = _EndsHere()  # type: ignore[assignment]

    def run(self, failure: Any = None) -> int:
        """Serve until the node says stop. The exit code. With a `failure`, only report it."""
        signal.signal(signal.SIGINT, self._on_signal)
        os.register_at_fork(after_in_child=self._end_forked)
        failure = failure or self._start_hooks()
        self.connect(failure)
        if failure is not None:
            self.leave()
            return EXIT_FAILED
        self._serve()
        if self.refused is not None:
            sys.stderr.write(f"bourse: the node refused this worker: {self.refused}\n")
            self.leave()
            return EXIT_REFUSED
        self._stop_hooks()
        self._flush_log()
        self._tell("bye")
        self.leave()
        return 0

    def _serve(self) -> None:
        """The loop that every call goes through. What it does not do costs nothing: it is measured in `bench/`."""
        # A message for each: one that is used again keeps all memory that it ever needed.
        parse = messages.ToWorker.FromString
        backlog = self.backlog
        run = self._run
        while True:
            if backlog:
                _, _, header, payload = backlog.popleft()
                run(parse(header).invoke, header, payload)
                continue
            if self.stopping or self.refused is not None:
                return
            try:
                header = self._recv()
                payload = self._recv()
            except zmq.Again:
                self._look_at_connection()
                continue
            incoming = parse(header)
            if incoming.HasField("invoke"):
                run(incoming.invoke, header, payload)
            else:
                self.handle(incoming, header, payload)

    def _run(self, invoke: Any, header: bytes, payload: bytes) -> None:
        """One call, from its message to its result."""
        self.call = call = invoke.call
        self.attempt = attempt = invoke.attempt
        name = invoke.function
        if self.unacknowledged:
            self._acknowledge(invoke.acked)
        self.header = header
        self.cancelled = False
        failure = None
        content_type = ""
        http = None
        tail = None
        watchdog = self._watchdog
        self.run_number = run = self.run_number + 1
        self.arrived = monotonic()
        _context.running = self
        self.busy = True
        if not watchdog.armed:
            watchdog.arm()
        self.lock.release()
        # From here to `acquire` the watchdog may hold the socket, and a signal may raise anywhere between `armed = run`
        # and `armed = 0`; the handler clears it before it raises, so nothing is raised in the handlers of exceptions.
        try:
            try:
                self.armed = run
                function = self._functions[name]
                if payload:
                    args, kwargs = values._loads(payload)
                    value = function(*args, **kwargs)
                else:
                    value = function()
                if type(value) in _SPECIAL:
                    if type(value) is bytes:
                        body, content_type = value, values.BYTES
                    elif type(value) is Tail:
                        body, tail = value.encode(), value
                    else:
                        body, content_type = values.encode_response(value)
                        http = value
                else:
                    body = values.encode(value)
            finally:
                self.armed = 0
        except BaseException as error:
            failure = self._failure(name, payload, error)
        self.lock.acquire()
        self.busy = False
        if self._blocked_on:
            self._come_back()
        _context.running = None
        if watchdog.owning:
            watchdog.alarm.ring()
        if self._lines:
            self._flush_log()
        plain = http is None and tail is None and not content_type
        if failure is None and plain and not self.writes and len(body) <= self.payload_max:
            self.results = sequence = self.results + 1
            if not sequence % OUTGOING_USES:
                self._outgoing = messages.ToNode()
            result = self._outgoing.result
            result.call = call
            result.attempt = attempt
            result.seq = sequence
            header = self._outgoing.SerializeToString()
            self._send(header, _MORE)
            self._send(body)
            self.unacknowledged.append((sequence, header, body))
        else:
            self._send_result(call, attempt, b"" if failure is not None else body, failure, content_type, http, tail)
        if self.waiting:
            self._fail_waiting(Cancelled("the call that made this one has ended"))

    def _failure(self, name: str, payload: bytes, error: BaseException) -> Any:
        """Why a run failed. It may hold the user's code up no more, so it takes nothing for granted."""
        frames = _tracebacks.of(error)
        if isinstance(error, Interrupted) or self.run_number in (self.interrupt, self.interrupted):
            failure = messages.Failure(code="timeout", traceback=frames)
            failure.message = f"the function was interrupted: {self.interrupt_reason or 'its time was over'}"
            return failure
        function = self.loaded.functions.get(name)
        if function is None:
            failure = messages.Failure(code="not_found", message=f"{self.module} has no function {name!r}")
            failure.hint = f"It has: {', '.join(sorted(self.loaded.functions))}."
            return failure
        problem = _misfit(function, payload, error)
        if problem:
            return failure_of(BadArguments(f"{self.module}.{name}: {problem}"))
        failure = failure_of(error, frames)
        failure.hint = failure.hint or _discover.hint(error)
        if isinstance(error, SystemExit):
            failure.message = f"the function called sys.exit({error.code!r})"
            failure.hint = "A function ends by returning. Its instance goes on."
        return failure

    def _coroutine_runner(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        def runner(*args: Any, **kwargs: Any) -> Any:
            return self._run_coroutine(function(*args, **kwargs))

        return runner

    def _start_hooks(self) -> Any:
        try:
            for hook in self.loaded.on_start:
                self._run_hook(hook)
        except BaseException as error:
            frames = _tracebacks.of(error)
            sys.stderr.write(f"bourse: on_start failed\n{frames}")
            failure = failure_of(error, frames)
            failure.code = "module_failed"
            failure.hint = failure.hint or _discover.hint(error)
            failure.message = f"on_start failed: {failure.type}: {failure.message}"
            return failure
        return None

    def _stop_hooks(self) -> None:
        self.run_number += 1
        self.arrived = monotonic()
        for hook in self.loaded.on_stop:
            self._give_way()  # so that pings are answered meanwhile
            try:
                self._run_hook(hook)
            except BaseException as error:
                _log.log.error("on_stop failed", traceback=_tracebacks.of(error))
            self._take_back()

    def _run_hook(self, hook: Callable[[], Any]) -> None:
        if inspect.iscoroutinefunction(hook):
            self._run_coroutine(hook())
        else:
            hook()


def run_instance(worker: Worker, failure: Any = None) -> None:
    """Be an instance, then end the process. Exit handlers do not run: they belong to who loaded the module."""
    code = EXIT_FAILED
    try:
        code = worker.run(failure)
    except BaseException as error:
        traceback.print_exception(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def take_secret() -> bytes:
    """What the descriptor that BOURSE_SECRET_FD names holds. It is read once, and then gone."""
    with os.fdopen(int(os.environ.pop("BOURSE_SECRET_FD")), "rb") as secret:
        return secret.read()


def _misfit(function: Callable[..., Any], payload: bytes, error: BaseException) -> str:
    """Why the arguments do not fit the function, if that is why it failed; else empty."""
    frame = error.__traceback__
    while frame is not None:
        if not _tracebacks.is_ours(frame.tb_frame.f_code.co_filename):
            return ""
        frame = frame.tb_next
    try:
        args, kwargs = values.decode(payload) if payload else ((), {})
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            return "the arguments are not [[positional…], {named…}]"
    except Exception as problem:
        return f"the arguments are not CBOR of [[positional…], {{named…}}]: {problem}"
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as problem:
        return str(problem)
    except ValueError:  # it has no signature to look at
        pass
    return ""



def main() -> None:
    parser = argparse.ArgumentParser(prog="bourse._worker", description="Run one instance of a module.")
    parser.add_argument("path")
    parser.add_argument("--root", required=True)
    parser.add_argument("--endpoint", required=True)
    options = parser.parse_args()
    secret = take_secret()
    failure = None
    try:
        loaded = _discover.load(options.path, options.root)
    except BaseException as error:
        failure = _discover.failure(error)
        sys.stderr.write(failure.traceback)
        loaded = _discover.Loaded(os.path.basename(options.path), {}, None, [], [], [])
    run_instance(Worker(loaded, options.endpoint, secret), failure)


if __name__ == "__main__":
    main()
