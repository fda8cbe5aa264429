"""Functions on a Bourse grid: write them, call them, run them.

    from bourse import function, gather, state

    @function(http="POST /kv/{key}")
    def write(key, body):
        state(key).set(body)
        return {"key": key, "stored": len(body)}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Future, Target, as_completed, astart, call, gather, start, submit, tail
from ._context import Trigger, context, instance
from ._emit import aemit, emit
from ._errors import (
    BadArguments,
    BadRequest,
    BlockedExceeded,
    BourseError,
    Cancelled,
    Conflict,
    DeadLetter,
    DepthExceeded,
    Discard,
    Disconnected,
    FunctionError,
    InstanceCrashed,
    Interrupted,
    ModuleFailed,
    NoCapacity,
    NoNode,
    NotFound,
    ProtocolError,
    ProtocolVersion,
    QueueFull,
    RetryAfter,
    ShuttingDown,
    StateRefused,
    StoreUnavailable,
    Timeout,
    TooLarge,
    Unauthorized,
)
from ._functions import Function, OptionError, function, on_start, on_stop
from ._log import log
from ._state import Page, Record, Row, State, state
from ._tail import Tail
from ._values import Response

if TYPE_CHECKING:
    from ._async_client import AsyncClient
    from ._client import Client

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "BadArguments",
    "BadRequest",
    "BlockedExceeded",
    "BourseError",
    "Cancelled",
    "Client",
    "Conflict",
    "DeadLetter",
    "DepthExceeded",
    "Discard",
    "Disconnected",
    "Function",
    "FunctionError",
    "Future",
    "InstanceCrashed",
    "Interrupted",
    "ModuleFailed",
    "NoCapacity",
    "NoNode",
    "NotFound",
    "OptionError",
    "Page",
    "ProtocolError",
    "ProtocolVersion",
    "QueueFull",
    "Record",
    "Response",
    "RetryAfter",
    "Row",
    "ShuttingDown",
    "State",
    "StateRefused",
    "StoreUnavailable",
    "Tail",
    "Target",
    "Timeout",
    "TooLarge",
    "Trigger",
    "Unauthorized",
    "aemit",
    "as_completed",
    "astart",
    "call",
    "context",
    "emit",
    "function",
    "gather",
    "instance",
    "log",
    "on_start",
    "on_stop",
    "start",
    "state",
    "submit",
    "tail",
]


def __getattr__(name: str) -> Any:
    """The clients come when they are asked for: functions do without them, and start sooner."""
    if name == "Client":
        from ._client import Client

        return Client
    if name == "AsyncClient":
        from ._async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
