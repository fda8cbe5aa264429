"""The option `retry`: how often, when, and after what a durable call is tried again.

It is checked where the function is decorated, so that a wrong one is an error of the module. It is put in the node's
words once the module is loaded, when all its exceptions are there: the node knows them by name.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict, Union

from ._durations import Duration, pause_ms
from ._errors import exception_name

ATTEMPTS_MAX = 2**32 - 1
PAUSE_MS = 1000  # what the node takes where none is given

_KEYS = ("attempts", "pause", "pause_max", "only", "never")
_ALL = (Exception, BaseException)

Exceptions = Sequence[Union[type[BaseException], str]]


class RetryOptions(TypedDict, total=False):
    """The long form."""

    attempts: int
    pause: Duration
    pause_max: Duration
    only: Exceptions
    never: Exceptions


class Retry:
    """One that was checked. `ValueError` says what is wrong."""

    def __init__(self, given: Union[bool, int, RetryOptions]) -> None:
        self.given = given
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"retry = {given!r}: {error}") from None

    def to_json(self) -> str:
        """What the node reads. Classes that were derived in the meantime are among the names."""
        given: Any = self.given
        if not isinstance(given, Mapping):
            return json.dumps(given)
        told = dict(given)
        for key, value in given.items():
            if key in ("pause", "pause_max"):
                told[key] = f"{pause_ms(value)}ms"
            elif key in ("only", "never"):
                told[key] = list(dict.fromkeys(_names(value)))
                if any(one in _ALL for one in value):  # only all
                    del told[key]
        return json.dumps(told)

    def _check(self) -> None:
        given: Any = self.given
        if isinstance(given, int):
            if given is not True:
                _check_attempts(given)
            return
        if not isinstance(given, Mapping):
            raise ValueError("write a number of attempts, True, or a dictionary")
        for key in given:
            if key not in _KEYS:
                near = difflib.get_close_matches(str(key), _KEYS, 1)
                guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS)}"
                raise ValueError(f"it has no key {key!r}; {guess}")
        if "attempts" in given:
            _check_attempts(given["attempts"], "'attempts' = ")
        pauses = {key: _pause(key, given[key]) for key in ("pause", "pause_max") if key in given}
        if pauses.get("pause", PAUSE_MS) > pauses.get("pause_max", 2**53):
            default = "" if "pause" in pauses else f", {PAUSE_MS / 1000:g} s unless it is given,"
            raise ValueError(f"'pause'{default} is longer than 'pause_max'")
        for key in ("only", "never"):
            _check_exceptions(key, given.get(key, ()))
        if any(one in _ALL for one in given.get("never", ())):
            raise ValueError("'never': then nothing would be tried again: write attempts=1")


def _check_attempts(given: Any, where: str = "") -> None:
    if type(given) is not int or not 1 <= given <= ATTEMPTS_MAX:
        what = f"{where}{given!r}: that" if where else "that"
        raise ValueError(f"{what} is not a number of attempts: 1 or more")


def _pause(key: str, given: Any) -> int:
    try:
        return pause_ms(given)
    except ValueError as error:
        raise ValueError(f"{key!r} = {error}") from None


def _check_exceptions(key: str, given: Any) -> None:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"{key!r} = {given!r} is not a list of exceptions")
    for one in given:
        is_class = isinstance(one, type) and issubclass(one, BaseException)
        is_name = isinstance(one, str) and all(part.isidentifier() for part in one.split("."))
        if not is_class and not is_name:
            raise ValueError(f"{key!r}: {one!r} is no exception: write its class, or its name as text")


def _names(exceptions: Exceptions) -> Iterator[str]:
    for one in exceptions:
        if isinstance(one, str):
            yield one
        else:
            yield exception_name(one)
            yield from sorted(map(exception_name, _derived(one)))


def _derived(cls: type[BaseException]) -> set[type[BaseException]]:
    """All classes that are derived from it, as far as there are any by now."""
    found: set[type[BaseException]] = set()
    new = [cls]
    while new:
        for derived in new.pop().__subclasses__():
            if derived not in found:
                found.add(derived)
                new.append(derived)
    return found
