"""What `fastgc.watch` costs: the examples' training, with and without it.

``python -m benchmarks.watching`` measures, and writes its part of docs/benchmarks.md. Each training
runs alternately watched and unwatched, from the same seed.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastgc
from benchmarks.tables import fill, table, time_of
from benchmarks.timing import least_time

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAININGS = {"train_fraud": 10_000, "train_torch": 5_000}  # steps
RUNS = 5
CALLS = 100_000  # of a watcher with no check due


def example(name: str) -> Any:
    """A script of examples/, which imports its neighbours."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def row(name: str, steps: int) -> list[str]:
    """The least times without and with the watcher; and its own account of the latter."""
    train = example(name).train
    train(min(steps, 200))  # what is loaded once is loaded

    def run(*, watched: bool) -> tuple[float, list[float], Any]:
        began = time.perf_counter()
        *accuracies, watcher = train(steps, watched=watched)
        return time.perf_counter() - began, accuracies, watcher

    pairs = [(run(watched=False), run(watched=True)) for _ in range(RUNS)]
    for (_, plain, _), (_, watched, _) in pairs:
        assert plain == watched == pairs[0][0][1], "watching changes the training"
    unwatched = min(seconds for (seconds, _, _), _ in pairs)
    seconds, _, watcher = min((pair[1] for pair in pairs), key=lambda timed: timed[0])
    return [
        f"`{name}.py`", f"{steps:,}", time_of(unwatched), time_of(seconds),
        f"{seconds / unwatched - 1:+.1%}", f"{watcher.seconds / seconds:.1%}", f"{watcher.checks}",
    ]  # fmt: skip


def idle() -> float:
    """Seconds of a step with no check due."""
    w = np.ones(3)
    watcher = fastgc.watch(lambda w: float(w @ w), every=10 * CALLS, budget=1.0)
    gradient = 2 * w

    def steps() -> None:
        for _ in range(CALLS):
            watcher(w, gradient)

    found = least_time(steps) / CALLS
    assert watcher.checks == 1
    return found


def write() -> None:
    header = ["training", "steps", "unwatched", "watched", "overhead", "the watcher's share",
              "checks"]  # fmt: skip
    rows = [row(name, steps) for name, steps in TRAININGS.items()]
    step = f"A step with no check due: {time_of(idle())}."
    fill("docs/benchmarks.md", "watching", [*table(header, rows), step])


if __name__ == "__main__":
    write()
