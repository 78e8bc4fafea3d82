"""How the benchmarks time what they have verified."""

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Of one run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def least_time(work: Callable[[], object], rounds: int = 5, seconds: float = 0.0) -> float:
    """Of so many runs, or of as many as fill so many seconds: how long the quickest takes."""
    times: list[float] = []
    while len(times) < rounds or sum(times) < seconds:
        times.append(seconds_of(work))
    return min(times)
