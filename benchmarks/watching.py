"""What `fastgc.watch` costs: the examples' training, with and without it.

``python -m benchmarks.watching`` measures and prints the section of docs/benchmarks.md. Each
training runs alternately watched and unwatched, from the same seed; the least of several times
counts.
"""

import importlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastgc
from benchmarks.tables import time_of

COMMAND = "python -m benchmarks.watching"
EXAMPLES = Path(__file__).parent.parent / "examples"
TRAININGS = (("train_fraud", 10_000), ("train_torch", 5_000))
CALLS = 100_000  # of a watcher with no check due


@dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        name: of the example.
        steps: of the training.
        unwatched: seconds that it takes, the least of several.
        watched: likewise, with its gradients watched.
        share: of the time, by the watcher's own account, in the watched run that took least.
        checks: that were made in it.
    """

    name: str
    steps: int
    unwatched: float
    watched: float
    share: float
    checks: int

    @property
    def overhead(self) -> float:
        """What watching adds, relative; below 0 where that is lost in the noise of the times."""
        return self.watched / self.unwatched - 1


def example(name: str) -> Any:
    """A script of examples/, which imports its neighbours."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def measured(name: str, steps: int, runs: int) -> Row:
    train = example(name).train
    train(min(steps, 200))  # what is loaded once is loaded
    unwatched = watched = math.inf
    share, checks, outcome = 0.0, 0, None
    for _ in range(runs):
        for watching in (False, True):
            began = time.perf_counter()
            *accuracies, watcher = train(steps, watched=watching)
            seconds = time.perf_counter() - began
            if outcome is None:
                outcome = accuracies
            assert accuracies == outcome, "watching changes the training"
            if not watching:
                unwatched = min(unwatched, seconds)
            elif seconds < watched:
                watched, share, checks = seconds, watcher.seconds / seconds, watcher.checks
    return Row(name, steps, unwatched, watched, share, checks)


def rows(runs: int = 5) -> list[Row]:
    return [measured(name, steps, runs) for name, steps in TRAININGS]


def idle() -> float:
    """Seconds of a step with no check due, the least of several."""
    w = np.ones(3)
    watcher = fastgc.watch(lambda w: float(w @ w), every=10 * CALLS, budget=1.0)
    gradient, found = 2 * w, math.inf
    watcher(w, gradient)
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(CALLS):
            watcher(w, gradient)
        found = min(found, (time.perf_counter() - began) / CALLS)
    assert watcher.checks == 1
    return found


def table(found: list[Row]) -> str:
    lines = [
        "| training | steps | unwatched | watched | overhead | the watcher's share | checks |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.name}.py` | {row.steps:,} | {time_of(row.unwatched)} | {time_of(row.watched)} "
        f"| {row.overhead:+.1%} | {row.share:.1%} | {row.checks} |"
        for row in found
    ]
    return "\n".join(lines)


def section() -> list[str]:
    """Of docs/benchmarks.md."""
    return [
        f"## Watching a training (`{COMMAND}`)",
        "",
        "The two trainings of `examples/`, with and without their watcher, in turn, the same seed:",
        "the least time of several runs each. The overhead is the difference of the two. The first",
        "allows 2 % of its time, the second 5 % and half a second on top.",
        "",
        table(rows()),
        "",
        f"A step with no check due: {time_of(idle())}.",
        "",
    ]


if __name__ == "__main__":
    print("\n".join(section()))
