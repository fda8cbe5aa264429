"""Keyed state: records that belong to the module, live in the grid's store and outlive every instance.

    balance = state(f"accounts/{name}")
    balance.set(balance.get(0) + amount)

Writes take effect when the function returns, together with its result, or not at all; the function itself sees
them at once. Reads carry versions, and the commit expects them: if a record that was read has changed meanwhile, the
function is run again. So a function with state must bear being run again. Values are anything CBOR can say.

A key is "scope/rest". All of a scope lives together, and changes in one commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from . import _context
from . import _messages as messages
from . import _values as values
from ._errors import Conflict

LIMIT_MAX = 1000  # rows in a page


class Record(NamedTuple):
    """A record as it was read."""

    value: Any
    version: int  # grows with every change; 0 where there is no record


class Row(NamedTuple):
    """A record in a list."""

    key: str
    value: Any
    version: int


@dataclass
class Page:
    """Some rows of a list, in byte order of their keys. Iterating goes on over all later pages."""

    rows: list[Row]
    more: bool
    _state: State = field(repr=False)
    _prefix: str = field(repr=False)
    _limit: int = field(repr=False)
    _keys_only: bool = field(repr=False, default=False)

    def next(self) -> Optional[Page]:
        """The page after this one; `None` if this is the last."""
        if not self.more or not self.rows:
            return None
        return self._state.list(self._prefix, self.rows[-1].key, self._limit, self._keys_only)

    def __iter__(self) -> Iterator[Row]:
        page: Optional[Page] = self
        while page is not None:
            yield from page.rows
            page = page.next()


class State:
    """One record, by its key; or a scope, whose records can be listed."""

    __slots__ = ("key", "module")

    def __init__(self, key: str, module: Optional[str] = None) -> None:
        if not isinstance(key, str) or not key:
            raise TypeError(f"a state key is a text such as 'scope/rest', not {key!r}")
        self.key = key
        self.module = module or ""

    def __repr__(self) -> str:
        return f"state({self.key!r})"

    def get(self, default: Any = None) -> Any:
        """The value; `default` where there is no record."""
        found, _, payload = self._read()
        return values.decode(payload) if found else default

    def read(self, default: Any = None) -> Record:
        """The value and its version."""
        found, version, payload = self._read()
        return Record(values.decode(payload) if found else default, version)

    def set(self, value: Any) -> None:
        """Write, when the function returns."""
        encoded = values.encode(value, f"value of {self.key!r}")
        self._write().value = encoded

    def update(self, value: Any, expected: int) -> None:
        """Write if the record's version is `expected` (0: if there is none), else raise `Conflict`.

        For a version that the function was given from outside. Within one function `get` and `set` are safe as they are.
        """
        _, version, _ = self._read()
        if version != expected:
            raise Conflict(f"{self.key!r} has version {version}, not {expected}", hint="Read it again, and decide anew.")
        self.set(value)

    def delete(self) -> None:
        """Delete the record, when the function returns. No error if there is none."""
        self._write().delete = True

    def list(self, prefix: str = "", after: str = "", limit: int = 100, keys_only: bool = False) -> Page:
        """The records below this key: `state("orders").list("2026-")` finds "orders/2026-07" and its like.

        `after`: a row's key to go on after. `limit`: rows in a page, at most 1,000. `keys_only`: leave the values out,
        they read as `None`.
        """
        if not 1 <= limit <= LIMIT_MAX:
            raise ValueError(f"limit must be from 1 to {LIMIT_MAX}")
        message = messages.ToNode()
        scan = message.scan
        scan.prefix.name = f"{self.key.rstrip('/')}/{prefix}"
        scan.prefix.module = self.module
        scan.after = after
        scan.limit = limit
        scan.keys_only = keys_only
        page, _ = _context.worker("state").ask(message, scan)
        rows = [Row(row.key, None if keys_only else values.decode(row.value), row.version) for row in page.rows]
        return Page(rows, page.more, self, prefix, limit, keys_only)

    def _read(self) -> tuple[bool, int, bytes]:
        message = messages.ToNode()
        read = message.read
        read.key.name = self.key
        read.key.module = self.module
        value, payload = _context.worker("state").ask(message, read)
        return value.found, value.version, payload

    def _write(self) -> Any:
        write = messages.Write()
        write.key.name = self.key
        write.key.module = self.module
        _context.worker("state").writes.append(write)
        return write


def state(key: str, module: Optional[str] = None) -> State:
    """The record with this key, of the function's own module or of another."""
    return State(key, module)
