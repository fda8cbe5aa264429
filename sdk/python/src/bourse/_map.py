"""`map`: one function for many items, with a bound on how many calls are under way.

Items are taken as there is room for them, so they may come from a generator that never ends. Who takes no more results
has the calls that are under way cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from ._calls import Future

R = TypeVar("R")

IN_FLIGHT = 64  # how many calls are under way unless told otherwise


def check(in_flight: int) -> None:
    """`ValueError` if it is no number of calls."""
    if in_flight < 1:
        raise ValueError("in_flight must be at least 1")


def mapped(
    submit: Callable[..., Future[R]], arguments: Iterable[Iterable[Any]], in_flight: int, ordered: bool
) -> Iterator[R]:
    """The results, in the order of the items or as they come."""
    check(in_flight)
    return _results(submit, arguments, in_flight, ordered)


def _results(
    submit: Callable[..., Future[R]], arguments: Iterable[Iterable[Any]], in_flight: int, ordered: bool
) -> Iterator[R]:
    under_way: list[Future[R]] = []
    try:
        for args in arguments:
            under_way.append(submit(*args))
            if len(under_way) >= in_flight:
                yield _take(under_way, ordered).result()
        while under_way:
            yield _take(under_way, ordered).result()
    finally:
        for future in under_way:
            future.cancel()


def _take(under_way: list[Future[R]], ordered: bool) -> Future[R]:
    """The first of these, or the first that is done, once it is. It is under way no more."""
    if ordered:
        return under_way.pop(0)
    if not any(future.done() for future in under_way):
        under_way[0]._caller.wait(under_way, True, None)
    return under_way.pop(next(at for at, future in enumerate(under_way) if future.done()))
