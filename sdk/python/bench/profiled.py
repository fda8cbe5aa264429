"""Run a worker under cProfile; `echo.py --profile` starts it. The profile goes to stderr when the worker ends."""

from __future__ import annotations

import cProfile
import os
import pstats
import sys

from bourse import _worker

profile = cProfile.Profile()
end = os._exit


def report(code: int) -> None:
    profile.disable()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(20)
    sys.stderr.flush()
    end(code)


os._exit = report  # type: ignore[assignment]
profile.enable()
_worker.main()
