"""What can go wrong with a call, as exceptions.

One class for each error code of the protocol; `code`, `message` and `hint` are what the node said.
`docs/errors/{code}.md` tells causes and remedies. A code that this release does not know arrives as
`BourseError` itself. To and from the wire: `error_of` and `failure_of`.

`RetryAfter`, `DeadLetter` and `Discard` go the other way: a function raises them to decide itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Optional

from . import _messages as messages
from . import _tracebacks
from ._durations import Duration, pause_ms


class BourseError(Exception):
    """A call or another operation of the grid failed.

    `function` names the function that was called, where the failure is that of a call.
    `type` and `traceback` are those of the exception that the function raised, if it raised one.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        hint: str = "",
        type: str = "",
        traceback: str = "",
        retry_after: float = 0.0,
        function: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.message = message
        self.hint = hint
        self.type = type
        self.traceback = traceback
        self.retry_after = retry_after
        self.function = function

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.type else self.message or self.code
        if self.function:
            text = f"{self.function}: {text}"
        if self.traceback:
            text = f"{text}\n\n{self.traceback.rstrip()}"
        return f"{text}\n{self.hint}" if self.hint else text


class FunctionError(BourseError):
    """The function raised an exception: `type`, `message` and `traceback` are the exception's."""

    default_code = "function_error"


class Timeout(BourseError):
    """The call took longer than its timeout."""

    default_code = "timeout"


class Cancelled(BourseError):
    """The call was cancelled."""

    default_code = "cancelled"


class Conflict(BourseError):
    """State changed under the call."""

    default_code = "conflict"


class NoCapacity(BourseError):
    """The call waited for an instance for longer than its `queue_wait`."""

    default_code = "no_capacity"


class QueueFull(BourseError):
    """The module's queue is full."""

    default_code = "queue_full"


class NotFound(BourseError):
    """No function of that name."""

    default_code = "not_found"


class BadRequest(BourseError):
    """The request is malformed."""

    default_code = "bad_request"


class BadArguments(BourseError):
    """The arguments do not fit the function."""

    default_code = "bad_arguments"


class Unauthorized(BourseError):
    """No token, or a wrong one."""

    default_code = "unauthorized"


class InstanceCrashed(BourseError):
    """The instance died while it ran the call."""

    default_code = "instance_crashed"


class ModuleFailed(BourseError):
    """The module does not load, or its instances do not start."""

    default_code = "module_failed"


class TooLarge(BourseError):
    """A body, argument, result or state value is larger than its bound."""

    default_code = "too_large"


class StateRefused(BourseError):
    """A state key or write that is not allowed."""

    default_code = "bad_state"


class StoreUnavailable(BourseError):
    """The store does not take writes or reads."""

    default_code = "store_unavailable"


class DepthExceeded(BourseError):
    """A call that would be nested deeper than `depth_max`."""

    default_code = "depth_exceeded"


class BlockedExceeded(BourseError):
    """More instances would wait for nested calls than `blocked_max`."""

    default_code = "blocked_exceeded"


class ShuttingDown(BourseError):
    """The daemon is stopping."""

    default_code = "shutting_down"


class ProtocolError(BourseError):
    """A message broke the worker protocol: a bug in one of the two ends."""

    default_code = "protocol"


class ProtocolVersion(BourseError):
    """This release and the node have no protocol version in common."""

    default_code = "protocol_version"


class Disconnected(BourseError):
    """The connection to the node was lost before the reply: whether the call ran is not known.

    The code never comes from a node; this end makes it.
    """

    default_code = "disconnected"


class NoNode(BourseError):
    """There is no node here to ask: no function is running, and no `Client` is open."""

    default_code = "no_node"


class Interrupted(KeyboardInterrupt):
    """Raised inside a function whose time is over, wherever it happens to be.

    A `BaseException`, so that `except Exception` does not hold it up. A function that swallows it is
    killed together with its instance.
    """


class Verdict(Exception):
    """What a function wants to become of the durable call that it runs, whatever its option `retry` says.

    To who waits for the call, and in a call that is not durable, it is a failure like any other.
    """

    verdict: ClassVar[int]
    after_ms = 0
    reason = ""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.reason)


class RetryAfter(Verdict):
    """Raise it to have the call tried again, but not before this is over: seconds, "5s", "200ms", a timedelta, or 0.

    It counts as an attempt: after the last one that `retry` allows the call is a dead letter.
    """

    __module__ = "bourse"
    verdict = messages.VERDICT_AGAIN
    after_ms = 5000

    def __init__(self, after: Duration = "5s", reason: str = "") -> None:
        super().__init__(reason)
        self.args = (after, reason)
        self.after_ms = pause_ms(after)

    def __str__(self) -> str:
        return str(self.reason) or f"again in {self.after_ms / 1000:g} s"


class DeadLetter(Verdict):
    """Raise it where trying again is of no use: the call is a dead letter at once, to be looked at and replayed."""

    __module__ = "bourse"
    verdict = messages.VERDICT_DEAD_LETTER


class Discard(Verdict):
    """Raise it where nobody needs the call any more: it ends as cancelled, and is no dead letter."""

    __module__ = "bourse"
    verdict = messages.VERDICT_DISCARD


# What a caller's caller is told as it is: it says when to come back, or what the whole tree of calls ran into.
PASSED_ON = frozenset((
    "blocked_exceeded", "conflict", "depth_exceeded", "instance_crashed", "internal", "module_failed", "no_capacity",
    "queue_full", "shutting_down", "starting", "store_unavailable", "timeout",
))  # fmt: skip

_TEXTLESS = {
    "KeyboardInterrupt": "interrupted, by Ctrl-C or a signal",
    "MemoryError": "out of memory",
}  # what Python raises without a text

_by_code = {cls.default_code: cls for cls in BourseError.__subclasses__()}


def error_of(failure: Any, function: Optional[str] = None) -> BourseError:
    """The exception for a `Failure` of the wire."""
    cls = _by_code.get(failure.code, BourseError)
    return cls(
        failure.message,
        code=failure.code,
        hint=failure.hint,
        type=failure.type,
        traceback=failure.traceback,
        retry_after=failure.retry_after_ms / 1000,
        function=function,
    )


def failure_of(error: BaseException, traceback: str = "") -> Any:
    """The `Failure` for an exception that a function let go. `traceback`: without that of the call it made, if it did.

    An error of the function's own operations (a state conflict, a result too large) keeps its code. So does one of a
    call that the function made, if its caller can do the same about it: come back later, or call less at once. Others
    (no such function, arguments that do not fit) would tell the caller something that is not true of its own call:
    that is a `function_error`. Of one, what the innermost function raised stays the type and the message, however many
    functions let it go. A `Verdict` is an error of the function's own, with what it says.
    """
    failure = messages.Failure(code="function_error", traceback=traceback)
    if isinstance(error, BourseError):
        failure.hint = error.hint
        failure.retry_after_ms = int(error.retry_after * 1000)
        failure.type = error.type
        failure.message = error.message
        if error.function is None:
            failure.code = error.code
            return failure
        if error.code in PASSED_ON:
            failure.code = error.code
        if error.code != "function_error" and not error.type:  # it comes from the node: nobody has said yet of which call
            failure.type = exception_name(type(error))
            failure.message = f"{error.function}: {error.message or error.code}"
        if error.traceback:
            failure.traceback = _tracebacks.joined(traceback, f"In {error.function}:\n{error.traceback}")
        return failure
    if isinstance(error, Verdict):
        failure.verdict = error.verdict
        failure.retry_after_ms = error.after_ms
    failure.type = exception_name(type(error))
    try:
        failure.message = str(error).encode("utf-8", "replace").decode()
    except Exception:  # a `__str__` of the user's may raise as well
        failure.message = "(its text can't be shown: __str__ raised)"
    if not failure.message and not isinstance(error, Verdict):
        failure.message = _TEXTLESS.get(failure.type) or f"{failure.type} was raised without a text"
    return failure


def exception_name(cls: type[BaseException]) -> str:
    """What an exception's type is called on the wire. The grid's own errors go by their bare name."""
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__
    if issubclass(cls, BourseError) and cls.__module__ == __name__:
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}"
