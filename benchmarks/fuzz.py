"""Bad input by the thousand: ``python -m benchmarks.fuzz [COUNT] [SEED]``.

Draws calls of everything public, as `tests.calls` does, until COUNT of them were bad: refused, or
ended by an exception of the cost. Each is held to the claims of `tests.boundary`; the first that
does not keep one ends the run with status 1.
"""

import faulthandler
import itertools
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import SystemRandom
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.boundary import BAD, Call, Violation, observe
from tests.calls import calls

CALLS = 500  # that a process draws from one seed
PROCESSES = 2
PATIENCE = 300  # seconds for those; a call that compiled code does not return from ends so


class Outcome(NamedTuple):
    """What came out of a run.

    Attributes:
        counts: outcome of a call -> how often.
        seconds: that it took.
        violations: calls that did not keep a claim, and which.
    """

    counts: Counter[str]
    seconds: float
    violations: list[str]

    @property
    def bad(self) -> int:
        """How many calls were bad."""
        return sum(self.counts[outcome] for outcome in BAD)

    def __str__(self) -> str:
        total = self.counts.total()
        lines = [
            f"{outcome:<24}{count:>9,}{count / total:>8.1%}"
            for outcome, count in self.counts.most_common()
        ]
        end = f"{self.bad:,} bad of {total:,} calls; {self.seconds:.0f} s; "
        return "\n".join([*lines, "", f"{end}{len(self.violations)} violations"])


def run(count: int, start: int | None = None) -> Outcome:
    """Draws calls until `count` were bad, or one did not keep a claim; seeds from `start` on."""
    began = time.perf_counter()
    seeds = itertools.count(SystemRandom().getrandbits(32) if start is None else start)
    outcome = Outcome(Counter(), 0.0, [])
    # not forked: a child would have the pool of threads and the locks of its parent
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        while outcome.bad < count and not outcome.violations:
            numbers = list(itertools.islice(seeds, PROCESSES))
            for number, (counts, broken) in zip(numbers, pool.map(_draw, numbers), strict=True):
                outcome.counts.update(counts)
                outcome.violations.extend(f"seed {number}: {text}" for text in broken)
    return outcome._replace(seconds=time.perf_counter() - began)


def _draw(number: int) -> tuple[Counter[str], list[str]]:
    """The outcomes of `CALLS` calls, and the first violation."""
    counts: Counter[str] = Counter()
    violations: list[str] = []

    @seed(number)
    @settings(
        max_examples=CALLS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(calls())
    def hold(call: Call) -> None:
        if violations:
            return
        try:
            counts[observe(call)[0]] += 1
        except Violation as violation:
            violations.append(str(violation))

    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    try:
        hold()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return counts, violations


def main() -> None:
    outcome = run(*map(int, sys.argv[1:3] or ["100_000"]))
    print(outcome)
    for text in outcome.violations:
        print(text.encode("ascii", "backslashreplace").decode())
    sys.exit(1 if outcome.violations else 0)


if __name__ == "__main__":
    main()
