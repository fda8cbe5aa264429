"""Lengths of time, as a user writes them: seconds, "5s", "200ms", a timedelta."""

from __future__ import annotations

import datetime
import re
from typing import Optional, Union

Duration = Union[int, float, str, datetime.timedelta]

_UNITS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(duration: Optional[Duration]) -> int:
    """Seconds, "5s", "200ms" or a timedelta, in milliseconds; 0 for `None`."""
    if duration is None:
        return 0
    result = pause_ms(duration)
    if result == 0:
        raise ValueError(f"{duration!r} is not a duration: it must be greater than 0")
    return result


def pause_ms(duration: Duration) -> int:
    """The same where 0 is a duration as well, and `None` is none."""
    if isinstance(duration, datetime.timedelta):
        duration = duration.total_seconds()
    if isinstance(duration, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", duration)
        if not match:
            raise ValueError(f"{duration!r} is not a duration: write 5, '5s' or '200ms'")
        result = float(match[1]) * _UNITS[match[2]]
    else:
        try:
            result = float(duration) * 1000
        except TypeError:
            raise ValueError(f"{duration!r} is not a duration: write 5, '5s' or '200ms'") from None
    if not 0 <= result < 2**53:
        raise ValueError(f"{duration!r} is not a duration: it must not be less than 0, nor without an end")
    return max(1, round(result)) if result else 0
