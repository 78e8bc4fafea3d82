"""Bad input by the thousand: ``python -m benchmarks.fuzz [COUNT] [SEED]``.

Draws calls of everything public, as `tests.calls` does, until COUNT of them were bad: refused, or
ended by an exception of the cost. Each is held to the claims of `tests.boundary`; the first that
does not keep one ends the run with status 1.
"""

import faulthandler
import itertools
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from random import SystemRandom

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.boundary import BAD, Call, Violation, observe
from tests.calls import calls

CALLS = 500  # that a process draws from one seed
PROCESSES = 2
PATIENCE = 300  # seconds for those; a call that compiled code does not return from ends so


@dataclass(frozen=True)
class Outcome:
    """What came out of a run.

    Attributes:
        counts: outcome of a call -> how often.
        messages: of the refusals, without their numbers and names.
        seconds: that it took.
        violations: calls that did not keep a claim, and which.
    """

    counts: Mapping[str, int]
    messages: frozenset[str]
    seconds: float
    violations: tuple[str, ...]

    @property
    def bad(self) -> int:
        """How many calls were bad."""
        return sum(self.counts.get(outcome, 0) for outcome in BAD)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"{'outcome':<24}{'calls':>9}{'share':>8}"]
        for outcome, count in sorted(self.counts.items(), key=lambda pair: -pair[1]):
            lines.append(f"{outcome:<24}{count:>9,}{count / total:>8.1%}")
        lines += [
            "",
            f"{self.bad:,} bad of {total:,} calls; {len(self.messages)} distinct messages; "
            f"{self.seconds:.0f} s, {total / self.seconds:,.0f} calls a second; "
            f"{len(self.violations)} violations",
        ]
        return "\n".join(lines)


def run(count: int, start: int | None = None) -> Outcome:
    """Draws calls until `count` were bad, or one did not keep a claim; seeds from `start` on."""
    began = time.perf_counter()
    seeds = itertools.count(SystemRandom().getrandbits(32) if start is None else start)
    counts: Counter[str] = Counter()
    messages: set[str] = set()
    violations: list[str] = []
    # not forked: a child would have the pool of threads and the locks of its parent
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        running: dict[Future[tuple[Counter[str], set[str], list[str]]], int] = {}
        while sum(counts[outcome] for outcome in BAD) < count and not violations:
            while len(running) < PROCESSES:
                number = next(seeds)
                running[pool.submit(_draw, number)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                try:
                    some, found, broken = future.result()
                except BrokenProcessPool:
                    violations.append(f"a process died, perhaps of seed {number}")
                    continue
                counts += some
                messages |= found
                violations += [f"seed {number}: {text}" for text in broken]
    return Outcome(counts, frozenset(messages), time.perf_counter() - began, tuple(violations))


def _draw(number: int) -> tuple[Counter[str], set[str], list[str]]:
    """The outcomes of `CALLS` calls, the messages of those refused, and the first violation."""
    counts: Counter[str] = Counter()
    messages: set[str] = set()
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
            outcome, message = observe(call)
        except Violation as violation:
            violations.append(str(violation))
            return
        counts[outcome] += 1
        if outcome.startswith("refused: "):
            messages.add(_pattern(message))

    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    try:
        hold()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return counts, messages, violations


def _pattern(message: str) -> str:
    """A message without what depends on the input: names, values, shapes."""
    text = re.sub(r"\"[^\"]*\"|'[^']*'", "NAME", message)
    text = re.sub(r"\b(parameters|gradients)((\[[^\]]*\])+)", r"\1[]", text)
    text = re.sub(r"^(\w+) is .*; wanted", r"\1 is VALUE; wanted", text, flags=re.DOTALL)
    text = re.sub(r"(keys are|parameters has): .*", r"\1: NAMES", text, flags=re.DOTALL)
    text = re.sub(r"\b[Wb]\d+\b", "TENSOR", text)
    text = re.sub(r"-?\b\d[\d.]*(e[+-]?\d+)?|\b(nan|inf)\b", "0", text)
    return re.sub(r"\((0,? ?)*\)", "SHAPE", text)


def main() -> None:
    outcome = run(*map(int, sys.argv[1:3] or ["100_000"]))
    print(outcome)
    for text in outcome.violations:
        print(text.encode("ascii", "backslashreplace").decode())
    sys.exit(1 if outcome.violations else 0)


if __name__ == "__main__":
    main()
