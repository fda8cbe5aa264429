"""Estimates pi by throwing darts, on as many machines as there are. See README.md."""

import random
import time

from bourse import function, gather


@function
def darts(count: int, seed: int, pause: float = 0.0) -> int:
    """Throws darts at a square; how many hit the circle in it. `pause`: seconds to wait first, as for another service."""
    time.sleep(pause)
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(count))


@function
def estimate(parts: int = 16, count: int = 10_000, pause: float = 0.0) -> dict:
    """Pi, from `parts` calls that throw `count` darts each. They run wherever there is a free slot."""
    began = time.monotonic()
    hits = gather(*(darts.submit(count, seed, pause) for seed in range(parts)))
    took = time.monotonic() - began
    return {"pi": 4 * sum(hits) / (parts * count), "seconds": round(took, 3), "at_once": round(parts * pause / took, 2)}
