"""Runs the benchmarks and writes their tables: ``python -m benchmarks.report``.

The whole goes into docs/benchmarks.md, the lines of the methods into the README.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench_methods import CASES, CONTENDERS, PLAIN

ROOT = Path(__file__).parent.parent
README_LINES = (f"| {PLAIN}", "| method", "| check")
COMMAND = "python -m benchmarks.report"


def timings(directory: Path) -> list[dict[str, Any]]:
    """Every benchmark's record, from one run of the suite."""
    path = directory / "timings.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "--benchmark-only", "-q", "--benchmark-min-rounds=9",
         "--benchmark-max-time=4",
         f"--benchmark-json={path}"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    records: list[dict[str, Any]] = json.loads(path.read_text())["benchmarks"]
    return records


def speed_table(records: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each contender: its least time on each network, and the loop's time over it."""
    best = {
        (r["extra_info"]["case"], r["extra_info"]["contender"]): r["stats"]["min"] for r in records
    }
    sizes = {r["extra_info"]["case"]: r["extra_info"]["parameters"] for r in records}
    lines = [
        "| | " + " | ".join(f"{case} (P = {sizes[case]:,})" for case in CASES) + " |",
        "|---|" + "---|" * len(CASES),
    ]
    for contender in CONTENDERS:
        cells = [
            f"{_time(best[case, contender])}, {best[case, PLAIN] / best[case, contender]:.1f}×"
            for case in CASES
        ]
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return lines


def import_times(rounds: int = 15) -> tuple[float, float, float]:
    """Seconds to import numpy and fastgc in fresh processes, and the median ratio of the pairs."""
    program = (
        "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    )

    with tempfile.TemporaryDirectory() as bytecode:
        # bytecode is kept, as it is for an installed package
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def once(module: str) -> float:
            command = [sys.executable, "-c", program.format(module)]
            run = subprocess.run(
                command, cwd=ROOT, env=environment, check=True, capture_output=True
            )
            return float(run.stdout)

        once("fastgc")
        pairs = [(once("numpy"), once("fastgc")) for _ in range(rounds)]
    return (
        median(n for n, _ in pairs),
        median(f for _, f in pairs),
        median(f / n for n, f in pairs),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        records = timings(Path(directory))
    table = speed_table(records)
    numpy_time, fastgc_time, ratio = import_times()
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `{COMMAND}`: each time is the least of at least nine rounds, each ratio",
            "is to the lab's loop in the same run, and every result is compared with the backward",
            f"pass before it is timed. Python {platform.python_version()}, NumPy {np.__version__},",
            f"{platform.machine()}.",
            "",
            *table,
            "",
            "The lines *method …* time a method alone; `numerical_gradient` adds what the caller",
            "passed being looked at and an evaluation of the cost; `lab.gradient_check_n` is the",
            "drop-in for the lab's function; `check` also measures the rounding noise of the cost",
            "and reaches a verdict on every entry.",
            "",
            f"Import in a fresh process, median of 15: numpy {_time(numpy_time)}, fastgc",
            f"{_time(fastgc_time)}, ratio {ratio:.2f}.",
            "",
            "`pytest --benchmark-only --benchmark-autosave` keeps a run, and",
            "`pytest-benchmark compare` sets kept runs side by side.",
            "",
        ]
    )
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    readme = ROOT / "README.md"
    shown = [*table[:2], *(line for line in table[2:] if line.startswith(README_LINES))]
    readme.write_text(
        re.sub(
            r"(<!-- speeds, .*? -->\n).*?(<!-- end of speeds -->)",
            lambda found: found[1] + "\n".join(shown) + "\n" + found[2],
            readme.read_text(),
            flags=re.DOTALL,
        )
    )
    print(text)


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


if __name__ == "__main__":
    main()
