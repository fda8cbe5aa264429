"""Tracebacks as a user wants them: the frames of their own code, without those of this package."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

_OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
TEXT_MAX = 16_384  # characters; of a longer one the end is kept, where the cause stands
OUTER_MAX = 4096  # of those, what a function has that let go an error of a call that it made


def of(error: BaseException, also_hide: tuple[str, ...] = ()) -> str:
    """The traceback's text. `also_hide`: files whose frames are left out as well, by the start of their names.

    If it is the failure of a call, without that one's own traceback, which is part of its text otherwise.
    """
    try:
        with _alone(error):
            summary = traceback.TracebackException.from_exception(error)
        _strip(summary, (_OURS, *also_hide), set())
        text = "".join(summary.format())
    except Exception:  # a `__str__` or `__repr__` of the user's may raise as well
        text = "".join(traceback.format_tb(error.__traceback__))
    return _end_of(text, TEXT_MAX).encode("utf-8", "replace").decode()


def joined(outer: str, inner: str) -> str:
    """The traceback of a function, and that of the function it called, as one."""
    return _end_of(f"{_end_of(outer.rstrip(), OUTER_MAX)}\n\n{inner}", TEXT_MAX)


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]


@contextmanager
def _alone(error: BaseException) -> Iterator[None]:
    if not hasattr(error, "default_code"):  # no `BourseError`
        yield
        return
    nested: Any = error
    kept = nested.traceback, nested.hint
    nested.traceback = nested.hint = ""
    try:
        yield
    finally:
        nested.traceback, nested.hint = kept


def is_ours(filename: str) -> bool:
    """Whether a frame with this file's name is this package's."""
    return filename.startswith(_OURS)


def _strip(summary: Optional[traceback.TracebackException], hidden: tuple[str, ...], seen: set[int]) -> None:
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    summary.stack[:] = [frame for frame in summary.stack if not frame.filename.startswith(hidden)]
    _strip(summary.__cause__, hidden, seen)
    _strip(summary.__context__, hidden, seen)
    for member in getattr(summary, "exceptions", None) or ():
        _strip(member, hidden, seen)
