"""`breakpoint()` in functions that run on top of this package: who steps stays in their own code.

A step into `f.call(…)` goes to the first line of `f`, if that runs here; one off the end of a function goes back to the
function that called it, or, from the outermost, on to the next breakpoint.
"""

from __future__ import annotations

import inspect
import os
import pdb
import sys
import types
from typing import Any, Callable, Optional

from . import _tracebacks

_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Entry:
    """A function, as we call it. `ended`: told afterwards."""

    def __init__(self, function: Callable[..., Any], ended: Callable[[], None]) -> None:
        self._function = function
        self._ended = ended

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._function(*args, **kwargs)
        finally:
            self._ended()


class Debugger(pdb.Pdb):
    """pdb, which passes over our frames, and over those that we call."""

    last: Optional[Debugger] = None

    def __init__(self, entered: types.FrameType) -> None:
        super().__init__(nosigint=True)  # Ctrl-C is the host's
        self._entered = entered

    def stop_here(self, frame: types.FrameType) -> bool:
        return self._is_users(frame) and super().stop_here(frame)

    def _is_users(self, frame: types.FrameType) -> bool:
        """Whether it is user code, or called by it."""
        if _tracebacks.is_ours(frame.f_code.co_filename):
            return False
        above: Optional[types.FrameType] = frame
        while above is not None:
            code = above.f_code
            if code is Entry.__call__.__code__ or above is self._entered:
                return True
            if _tracebacks.is_ours(code.co_filename):
                return False
            if code.co_flags & _COROUTINE:  # an event loop that we run has called it
                return True
            above = above.f_back
        return True


def install() -> None:
    """Make `breakpoint()` this, unless somebody has chosen another debugger."""
    if sys.breakpointhook is sys.__breakpointhook__ and "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _break


def end() -> None:
    """Who stepped off the end of a function does not want to go on in what we do next."""
    debugger = Debugger.last
    if debugger is not None and debugger.stopframe is None:
        debugger.set_continue()


def _break(*_args: Any, **_kwargs: Any) -> None:
    caller = sys._getframe(1)
    Debugger.last = Debugger(caller)
    Debugger.last.set_trace(caller)
