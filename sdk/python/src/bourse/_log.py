"""Lines for the node's log: `log.info("stored", key=key)`, and whatever goes through `logging`.

In a worker both become `Log` messages that name the call; they wait in a bounded buffer until the worker next
uses its socket, which is at the end of the call or, in a long one, some milliseconds later. Past the bound lines are
dropped and counted. Elsewhere `log` writes to the logger `bourse`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Optional

from . import _context
from . import _messages as messages

LINES_MAX = 1000
TEXT_MAX = 8192  # characters of a message or of a field
FIELDS_MAX = 32

DEBUG, INFO, WARNING, ERROR = 1, 2, 3, 4

_names = {DEBUG: logging.DEBUG, INFO: logging.INFO, WARNING: logging.WARNING, ERROR: logging.ERROR}


class Buffer:
    """Lines that wait for the socket. Appended to from any thread, taken by whoever holds the socket."""

    def __init__(self) -> None:
        self.lines: deque[Any] = deque()
        self.dropped = 0

    def append(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if len(self.lines) >= LINES_MAX:
            self.dropped += 1
            return
        line = messages.ToNode()
        line.log.level = level
        line.log.message = _text(message)
        worker = _context.running
        if worker is not None:
            line.log.call = worker.call
        for name, value in list(fields.items())[:FIELDS_MAX]:
            line.log.fields[_text(name)] = _text(value)
        self.lines.append(line)

    def take(self) -> list[bytes]:
        """The headers of all lines that wait."""
        taken = []
        while self.lines:
            taken.append(self.lines.popleft().SerializeToString())
        if self.dropped:
            line = messages.ToNode()
            line.log.level = WARNING
            line.log.message = f"{self.dropped} log lines were dropped: more than {LINES_MAX} at once"
            self.dropped = 0
            taken.append(line.SerializeToString())
        return taken


class Handler(logging.Handler):
    """Sends the records of `logging` to the node. A worker installs it on the root logger."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(logging.INFO)
        self.buffer = buffer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = ERROR if record.levelno >= logging.ERROR else (
                WARNING if record.levelno >= logging.WARNING else INFO
            )
            self.buffer.append(level, self.format(record), {"logger": record.name})
        except Exception:
            self.handleError(record)


class Log:
    """Structured lines: a message that stays the same, and fields that vary."""

    __slots__ = ()

    def debug(self, message: str, **fields: Any) -> None:
        _write(DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        _write(INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        _write(WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        _write(ERROR, message, fields)


def install() -> Buffer:
    """Make this process's log lines go to the node."""
    global buffer
    buffer = Buffer()
    root = logging.getLogger()
    root.addHandler(Handler(buffer))
    if root.level == logging.WARNING:  # nobody chose: Python's default
        root.setLevel(logging.INFO)
    return buffer


def _write(level: int, message: str, fields: dict[str, Any]) -> None:
    if buffer is not None:
        buffer.append(level, message, fields)
        return
    text = " ".join([message, *(f"{name}={value!r}" for name, value in fields.items())])
    logging.getLogger("bourse").log(_names[level], "%s", text)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + "…"
    return text.encode("utf-8", "replace").decode()


buffer: Optional[Buffer] = None
log = Log()
