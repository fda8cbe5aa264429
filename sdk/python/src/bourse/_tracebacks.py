"""Tracebacks as a user wants them: the frames of their own code, without those of this package."""

from __future__ import annotations

import os
import traceback
from typing import Optional

_OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
TEXT_MAX = 16_384  # characters; of a longer one the end is kept, where the cause stands


def of(error: BaseException, also_hide: tuple[str, ...] = ()) -> str:
    """The traceback's text. `also_hide`: files whose frames are left out as well, by the start of their names."""
    try:
        summary = traceback.TracebackException.from_exception(error)
        _strip(summary, (_OURS, *also_hide), set())
        text = "".join(summary.format())
    except Exception:  # a `__str__` or `__repr__` of the user's may raise as well
        text = "".join(traceback.format_tb(error.__traceback__))
    if len(text) > TEXT_MAX:
        text = "…" + text[-TEXT_MAX:]
    return text.encode("utf-8", "replace").decode()


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
