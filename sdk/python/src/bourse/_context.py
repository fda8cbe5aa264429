"""Where a function finds out about the call that it runs, and what its instance keeps.

`context` is a view of the running call; `instance` is a place for connections and models, made once per
instance (see `on_start`). An instance runs one call at a time, so neither needs a lock; threads that the
function starts see the same.
"""

from __future__ import annotations

import datetime
import types
import uuid
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple, Optional

from . import _messages as messages
from ._errors import NoNode

running: Optional[Any] = None  # the worker, once this process is one and while a call runs


class Trigger(NamedTuple):
    """What woke a function, unless that was a call."""

    kind: str  # "cron", "queue", "topic", "mail", "websocket"
    name: str  # the cron line, the queue, the topic that was published to, the recipient, the route
    at: Optional[datetime.datetime]  # of cron: the moment that the line means, in UTC
    facts: Mapping[str, str]  # further ones, by name: of a WebSocket, `connection`


class Context:
    """The running call. Outside of one, everything but `active` raises `NoNode`."""

    __slots__ = ("_header", "_invoke")

    def __init__(self) -> None:
        self._header: Optional[bytes] = None
        self._invoke: Any = None

    @property
    def active(self) -> bool:
        """Whether a call runs here. `False` where a function is called directly, as plain Python."""
        return running is not None

    @property
    def call_id(self) -> str:
        """The call's id; the same in each of its attempts."""
        return str(uuid.UUID(bytes=self._read().call))

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1; of a call that was handed on, of this step."""
        invoke = self._read()
        return int(invoke.attempt - invoke.attempts_before)

    @property
    def redelivered(self) -> bool:
        """Whether an earlier attempt may have run, wholly or in part."""
        return bool(self._read().redelivered)

    @property
    def function(self) -> str:
        """The function's name, without its module."""
        return str(self._read().function)

    @property
    def module(self) -> str:
        """The module's name."""
        return str(worker("context").module)

    @property
    def depth(self) -> int:
        """How many calls lie above this one; 0 for a call from outside."""
        return int(self._read().depth)

    @property
    def root_id(self) -> str:
        """The id of the outermost call of the tree."""
        invoke = self._read()
        return str(uuid.UUID(bytes=invoke.root or invoke.call))

    @property
    def parent_id(self) -> Optional[str]:
        """The id of the call that made this one; `None` for a call from outside."""
        parent = self._read().parent
        return str(uuid.UUID(bytes=parent)) if parent else None

    @property
    def traceparent(self) -> str:
        """The W3C trace context; empty if there is none."""
        return str(self._read().traceparent)

    @property
    def values(self) -> Mapping[str, str]:
        """The pass-through context, which travels with the call and with every call that it makes."""
        return types.MappingProxyType(dict(self._read().context))

    @property
    def fence(self) -> int:
        """Of an exclusive call: greater than that of every attempt before it that held the same key; 0 if it holds none.

        Hand it to systems outside that can refuse what comes with a smaller one than they have seen: then an attempt
        that was given up, and still runs somewhere, changes nothing there any more.
        """
        return int(self._read().fence)

    @property
    def step(self) -> int:
        """How many functions have handed the call on to this one, by `tail`."""
        return int(self._read().step)

    @property
    def trigger(self) -> Optional[Trigger]:
        """What woke the function; `None` if that was a call."""
        invoke = self._read()
        if not invoke.HasField("trigger"):
            return None
        woken = invoke.trigger
        at = datetime.datetime.fromtimestamp(woken.at_ms / 1000, datetime.timezone.utc) if woken.at_ms else None
        return Trigger(woken.kind, woken.name, at, types.MappingProxyType(dict(woken.facts)))

    @property
    def remaining(self) -> Optional[float]:
        """Seconds until the call's time is over; `None` if it has no limit."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - monotonic())

    @property
    def deadline(self) -> Optional[float]:
        """When the call's time is over, on the clock of `time.monotonic`; `None` if it has no limit."""
        timeout_ms = self._read().timeout_ms
        return float(running.arrived + timeout_ms / 1000) if timeout_ms and running else None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more. A long function may look at it now and then."""
        return bool(worker("context").cancelled)

    def _read(self) -> Any:
        """The `Invoke` of the running call, parsed when someone first asks: most functions never do."""
        header = worker("context").header
        if header is not self._header:
            message = messages.ToWorker()
            message.ParseFromString(header)
            self._header, self._invoke = header, message.invoke
        return self._invoke


def worker(what: str) -> Any:
    """The worker whose call runs here; `NoNode` if none does."""
    if running is None:
        raise NoNode(
            f"{what} needs a running function, and none runs here",
            hint="A function called directly is plain Python: call it through a node instead.",
        )
    return running


context = Context()
instance = types.SimpleNamespace()
