"""Whether fastgc has become slow: ``python -m benchmarks.regression``.

The ratio of two small cases to the lab's loop, in one run, against the recorded one. Machines and
their moods differ, so it fails only below a third of it, twice in a row.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.bench_methods import LAB, PLAIN, contenders

RECORD = Path(__file__).with_name("recorded.json")
SMALL = "30-64-32-1, m = 64"
CASES = ((LAB, "method incremental"), (SMALL, "method node"))
ROUNDS = 7


def ratio(case: str, contender: str) -> float:
    """The median time of the loop over the contender's, interleaved."""
    of_case = contenders(case)
    loop, fast = of_case[PLAIN][0], of_case[contender][0]
    np.testing.assert_allclose(fast(), loop(), rtol=1e-4, atol=1e-6)
    pairs = [(_seconds(loop, 1), _seconds(fast, 20)) for _ in range(ROUNDS)]
    return median(slow for slow, _ in pairs) / median(quick for _, quick in pairs)


def _seconds(run: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - began) / times


def record() -> None:
    """Writes today's ratios."""
    ratios = {case: round(ratio(case, contender), 1) for case, contender in CASES}
    RECORD.write_text(json.dumps(ratios, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    recorded = json.loads(RECORD.read_text())
    slow = False
    for case, contender in CASES:
        least = recorded[case] / 3
        found = ratio(case, contender)
        if found < least:
            found = ratio(case, contender)
        print(
            f"{case}: {contender} {found:.0f}×; recorded {recorded[case]:.0f}×, least {least:.0f}×"
        )
        slow |= found < least
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
