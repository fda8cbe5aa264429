"""Handing a call on: `return f.tail(…)` ends the function, and the call goes on as one of another function.

It keeps its id, its exclusive key, its context and those who wait for it, who get what the last function returns. So a
walk over a chain of any length is one call, and takes constant space.

A `Tail` hands on only where it is what the function returns. One that is dropped says so in the log; one inside
something else can't be sent.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, Callable, Optional

from . import _context
from . import _values as values
from ._log import log


class Tail:
    """What a function returns to hand its call on. Made by `tail`."""

    __slots__ = ("_place", "_plain", "_taken", "args", "function", "kwargs", "version")

    def __init__(
        self,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        version: str = "",
        plain: Optional[Callable[..., Any]] = None,
    ) -> None:
        self.function = function
        self.version = version
        self.args = args
        self.kwargs = kwargs
        self._plain = plain
        self._taken = False
        frame = sys._getframe(2)  # where `tail` was called
        self._place = (frame.f_code.co_filename, frame.f_lineno)

    def __repr__(self) -> str:
        return f"<Tail to {self.function}>"

    def __del__(self) -> None:
        if self._taken:
            return
        what = f"{self.function}.tail(…) was not returned, so nothing was handed on: write `return {self.function.rpartition('.')[2]}.tail(…)`"
        file, line = self._place
        if _context.running is not None:
            log.warning(what, at=f"{file}:{line}")
        else:
            warnings.warn_explicit(what, RuntimeWarning, file, line)

    def encode(self) -> bytes:
        """It was returned: the arguments, for the wire."""
        self._taken = True
        return values.encode_arguments(self.args, self.kwargs)

    def run(self) -> Any:
        """Run all steps here, one after the other, as plain Python, and return what the last one does. For tests:

            assert walk.tail(first=1, last=3).run() == {"sum": 6}
        """
        step: Any = self
        while isinstance(step, Tail):
            step = step._run_once()
        return step

    def _run_once(self) -> Any:
        self._taken = True
        if self._plain is None:
            raise TypeError(f"{self.function} is known by its name only: import it, and write f.tail(…)")
        result = self._plain(*self.args, **self.kwargs)
        if hasattr(result, "__await__"):
            import asyncio

            async def awaited() -> Any:
                return await result

            return asyncio.run(awaited())
        return result


values.REFUSED[Tail] = "is a tail, which hands on only if it is itself what the function returns: `return f.tail(…)`"
