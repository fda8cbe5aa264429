"""Event loops for coroutines that are run on top of each other, on one thread.

A loop that runs can't be entered again, so what is nested gets another one. What is not nested always gets the same:
connections belong to a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_idle: list[asyncio.AbstractEventLoop] = []


@contextmanager
def one() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that does not run."""
    loop = _idle.pop() if _idle else asyncio.new_event_loop()
    try:
        yield loop
    finally:
        _idle.append(loop)


@contextmanager
def none() -> Iterator[None]:
    """As if no loop ran on this thread."""
    loop = asyncio._get_running_loop()
    if loop is None:
        yield
        return
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
