"""Whether fastgc has become slow: ``python -m benchmarks.regression``.

The ratio of two small cases to the lab's loop, in one run, against the recorded one. Machines and
their moods differ, so it fails only below a third of it, twice in a row.
"""

import json
import sys
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.bench_methods import LAB, PLAIN, contenders
from benchmarks.timing import seconds_of

RECORD = Path(__file__).with_name("recorded.json")
CASES = {LAB: "method incremental", "30-64-32-1, m = 64": "method node"}
ROUNDS, TIMES = 7, 20


def ratio(case: str) -> float:
    """The median time of the loop over the contender's, interleaved."""
    of_case = contenders(case)
    loop, fast = of_case[PLAIN][0], of_case[CASES[case]][0]
    np.testing.assert_allclose(fast(), loop(), rtol=1e-4, atol=1e-6)
    pairs = [
        (seconds_of(loop), seconds_of(lambda: [fast() for _ in range(TIMES)]) / TIMES)
        for _ in range(ROUNDS)
    ]
    return median(slow for slow, _ in pairs) / median(quick for _, quick in pairs)


def record() -> None:
    """Writes today's ratios."""
    ratios = {case: round(ratio(case), 1) for case in CASES}
    RECORD.write_text(json.dumps(ratios, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    slow = False
    for case, recorded in json.loads(RECORD.read_text()).items():
        least = recorded / 3
        found = ratio(case)
        if found < least:
            found = ratio(case)
        print(f"{case}: {CASES[case]} {found:.0f}×; recorded {recorded:.0f}×, least {least:.0f}×")
        slow |= found < least
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
