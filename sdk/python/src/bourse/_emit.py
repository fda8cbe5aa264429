"""What functions send out: to queues and topics, to addresses on the web, by mail, and over WebSockets.

    emit("queue:orders", order)                       to the one function that has this queue
    emit("kv.changed", {"key": key})                  to all that have a matching topic; "topic:kv.changed" is the same
    emit("https://example.org/hook", order)           POST, as JSON
    emit("mailto:ann@example.org", {"subject": "Paid", "text": "…"})
    emit("connection:…", message), emit("group:room", message)    to one WebSocket, or to all of a group

It all goes out with the commit of the running call: together with what the function changes, once it returns, or
not at all if it fails. Each is a durable call then, tried again until it is done. `now=True` sends during the execution instead, and
raises what goes wrong: what was sent stays sent if the function fails afterwards, and is sent again by the next attempt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from . import _context
from . import _messages as messages
from . import _values as values
from ._calls import KEY_BYTES_MAX, Future, Target
from ._durations import Duration, milliseconds
from ._errors import NoNode

_SCHEME = re.compile(r"([a-z]+):(.*)", re.DOTALL)
_SCHEMES = "queue:, topic:, https://, http://, mailto:, connection: and group:"


def emit(target: str, message: Any = None, *, delay: Optional[Duration] = None, now: bool = False) -> list[str]:
    """Send a message when the function returns. The ids of the calls that this makes; none with `now`.

    `target`: see the module. `delay`: seconds, "5m" or a timedelta, from the commit on. `now`: send it at once, wait for it,
    and raise what goes wrong; not for queues and topics.
    """
    return _ids(_send(target, message, delay, now, wait=True).result(), now)


async def aemit(target: str, message: Any = None, *, delay: Optional[Duration] = None, now: bool = False) -> list[str]:
    """The same as `emit`, for an event loop."""
    return _ids(await _send(target, message, delay, now, wait=False), now)


def publication(to: str, delay: Optional[Duration], idempotency_key: Optional[str] = None) -> Any:
    """The `ToNode` that publishes, without what its caller fills in. `ValueError` if `to` is neither a queue nor a topic."""
    scheme, rest = _split(to)
    if scheme not in ("queue", "topic"):
        raise ValueError(f"{to!r} is neither a queue nor a topic: publish to \"queue:NAME\" or \"topic:NAME\"")
    message = messages.ToNode()
    setattr(message.publish, scheme, rest)
    message.publish.delay_ms = milliseconds(delay)
    if idempotency_key is not None:
        if scheme != "queue" or not isinstance(idempotency_key, str) or not 1 <= len(idempotency_key.encode()) <= KEY_BYTES_MAX:
            raise ValueError(f"{idempotency_key!r}: an idempotency key is a text of 1 to {KEY_BYTES_MAX} bytes, for a queue")
        message.publish.idempotency_key = idempotency_key
    return message


def _send(target: str, message: Any, delay: Optional[Duration], now: bool, wait: bool) -> Future[Any]:
    caller = _context.running
    if caller is None:
        raise NoNode(
            "emit needs a running function, and none runs here",
            hint="From outside, publish: Client.publish(\"queue:orders\", message); or start a call: Client.start(…).",
        )
    if now and delay is not None:
        raise ValueError("delay is not for now=True")
    scheme, rest = _split(target)
    if scheme in ("queue", "topic"):
        if now:
            raise ValueError(f"{target}: what is published goes out with the commit; now=True is for web addresses, mail and WebSockets")
        published: Future[Any] = caller.send_publish(publication(target, delay), values.encode(message, "message"), wait)
        return published
    if scheme in ("http", "https"):
        sender, arguments = "bourse.webhook", {"url": target, "body": message}
    elif scheme == "mailto":
        if not isinstance(message, Mapping):
            raise TypeError(f"a mail is a dictionary such as {{'subject': …, 'text': …}}, not {type(message).__name__}")
        sender, arguments = "bourse.mail", {"to": [one.strip() for one in rest.split(",")], **message}
    else:
        sender, arguments = "bourse.send", {"to": target if scheme == "group" else rest, "message": message}
    sent: Future[Any] = caller.send_call(Target(sender, delay=delay), (), arguments, wait, not now)
    return sent


def _split(target: str) -> tuple[str, str]:
    if not isinstance(target, str):
        raise TypeError(f"a target is a text such as 'queue:orders', not {type(target).__name__}")
    found = _SCHEME.fullmatch(target)
    scheme, rest = (found[1], found[2]) if found else ("topic", target)
    if not rest.strip("/ ") or scheme not in ("queue", "topic", "http", "https", "mailto", "connection", "group"):
        raise ValueError(f"{target!r} is nothing that can be sent to: there are {_SCHEMES}, and a topic's bare name")
    return scheme, rest


def _ids(sent: Any, now: bool) -> list[str]:
    return [] if now else sent if isinstance(sent, list) else [sent]
