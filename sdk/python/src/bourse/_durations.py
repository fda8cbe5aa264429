"""Lengths of time, as a user writes them: seconds, "5s", "200ms", a timedelta."""

from __future__ import annotations

import datetime
import re
from typing import Optional, Union

Duration = Union[int, float, str, datetime.timedelta]

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(duration: Optional[Duration]) -> int:
    """Seconds, "5s", "200ms" or a timedelta, in milliseconds; 0 for `None`."""
    if duration is None:
        return 0
    if isinstance(duration, datetime.timedelta):
        duration = duration.total_seconds()
    if isinstance(duration, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", duration)
        if not match:
            raise ValueError(f"{duration!r} is not a duration: write 5, '5s' or '200ms'")
        result = float(match[1]) * _UNITS[match[2]]
    else:
        result = duration * 1000
    if not 0 < result < 2**53:
        raise ValueError(f"{duration!r} is not a duration: it must be greater than 0")
    return max(1, round(result))
