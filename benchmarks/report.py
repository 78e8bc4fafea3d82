"""Runs the benchmarks and writes them up: ``python -m benchmarks.report``.

Timings go into docs/benchmarks.md, the picture and three numbers into the README, and the ratios
that `benchmarks.regression` holds to into recorded.json; then what spreads over workers into
docs/scale.md, and the study of detection into docs/detection.md.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastgc
from benchmarks import (
    detection_report,
    directions,
    fresh,
    peers,
    plot,
    regression,
    scale_report,
    watching,
)
from benchmarks.bench_methods import CASES, LAB, PASS, PLAIN, network_case
from benchmarks.tables import time_of
from fastgc.methods.registry import METHODS
from fastgc.parallel.threads import available_cores, one_blas_thread

ROOT = Path(__file__).parent.parent
COMMAND = "python -m benchmarks.report"
LARGE = "784-512-256-1, m = 32"
DEEP = "256-512×6-1, m = 32"
Records = Sequence[dict[str, Any]]


def timings(directory: Path) -> Records:
    """Every benchmark's record, from one run of the suite."""
    path = directory / "timings.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "--benchmark-only", "-q", "--benchmark-min-rounds=5",
         "--benchmark-max-time=1.5", f"--benchmark-json={path}"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    records: Records = json.loads(path.read_text())["benchmarks"]
    return [record for record in records if "case" in record["extra_info"]]


def dgemm_rate(threads: int | None) -> float:
    """Floating-point operations a second of BLAS, in a product of 1024 × 1024."""
    A, B = np.random.default_rng(0).standard_normal((2, 1024, 1024))
    A @ B

    def best() -> float:
        times = []
        for _ in range(9):
            began = time.perf_counter()
            A @ B
            times.append(time.perf_counter() - began)
        return 2 * 1024**3 / min(times)

    if threads is None:
        return best()
    with one_blas_thread():
        return best()


class Table:
    """The least time of every contender on every network."""

    def __init__(self, records: Records) -> None:
        self.info = {
            (r["extra_info"]["case"], r["extra_info"]["contender"]): r["extra_info"]
            for r in records
        }
        self.seconds = {
            (r["extra_info"]["case"], r["extra_info"]["contender"]): r["stats"]["min"]
            / r["extra_info"]["share"]
            for r in records
        }
        self.sizes = {case: info["parameters"] for (case, _), info in self.info.items()}

    def speed(self, case: str, contender: str) -> float:
        return float(self.seconds[case, PLAIN] / self.seconds[case, contender])

    def lines(self, case: str, rate: float) -> list[str]:
        """A line for each contender on a network."""
        lines = [
            f"## {case} (P = {self.sizes[case]:,})",
            "",
            "| | time | speed | checks | |",
            "|---|---|---|---|---|",
        ]
        for (of_case, name), seconds in self.seconds.items():
            if of_case != case:
                continue
            info = self.info[case, name]
            notes = []
            if info["share"] < 1:
                count = round(info["share"] * info["parameters"])
                notes.append(f"timed on {count:,} of the entries and scaled")
            method = name.removeprefix("method ")
            if method in ("incremental", "node"):
                floor = info["operations"][method] / rate
                notes.append(f"{seconds / floor:.1f} × the floor")
            outcomes = info.get("outcomes", {"wrong": 0})
            if outcomes["wrong"]:
                notes.append(
                    f"rejects these right gradients, {outcomes['wrong']} runs of "
                    f"{sum(outcomes.values())}"
                )
            checks = info.get("checks", "nothing" if name == PASS else "all entries")
            lines.append(
                f"| {name} | {time_of(seconds)} | {_ratio(self.speed(case, name))} | {checks} | "
                f"{'; '.join(notes)} |"
            )
        return [*lines, ""]


def forecasts(table: Table) -> list[str]:
    """How far off `fastgc.plan` was."""
    lines = ["| | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for case in CASES:
        plan = fastgc.plan(*network_case(case))
        cells = []
        for name in METHODS:
            predicted = plan.forecasts[name].seconds
            off = predicted / table.seconds[case, f"method {name}"]
            cells.append(f"{time_of(predicted)} ({off:.2g})")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return lines


def write_up(table: Table) -> str:
    alone, together = dgemm_rate(1), dgemm_rate(None)
    numpy_time, fastgc_time, ratio = fresh.import_times()
    first, memory = fresh.first_use(), fresh.memory_of_check()
    parts = [
        "# Benchmarks",
        "",
        f"Written by `{COMMAND}` (needs the extra `bench`), in one run: each time is the least of",
        "at least five rounds, each speed is the time of the lab's loop over it, and every result",
        "is compared with the backward pass before it is timed. Where a whole would take minutes",
        "a random sample of the entries is timed and scaled; the table says so.",
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()},",
        f"{available_cores()} cores.",
        "",
        "![Speed over the lab's loop against the number of parameters](benchmarks.svg)",
        "",
        three_numbers(table),
        "",
        "The lines *method …* time a method alone, its forward pass included;",
        "`numerical_gradient` adds what the caller passed being looked at; `check` also reaches a",
        "verdict on every entry. Times of peers are of warm, compiled functions.",
        "",
        f"BLAS (dgemm, 1024 × 1024): {alone / 1e9:.0f} GFLOP/s on one thread,",
        f"{together / 1e9:.0f} on all. *The floor* is the method's count of operations with no",
        "unit silent (`fastgc.plan` prints it) at the rate of all threads; silent units let a",
        "method go below it.",
        "",
        *(line for case in CASES for line in table.lines(case, together)),
        *directions.section(),
        *(line for section in peers.SECTIONS.values() for line in section()),
        *watching.section(),
        "## First use, in fresh processes",
        "",
        "| | |",
        "|---|---|",
        f"| import numpy | {time_of(numpy_time)} |",
        f"| import fastgc (ratio {ratio:.2f}) | {time_of(fastgc_time)} |",
        *(f"| {name} | {time_of(seconds)} |" for name, seconds in first.items()),
        "",
        "## Memory, in fresh processes",
        "",
        f"A check of {LARGE} peaks above what parameters, gradients and data hold (peak RSS less",
        "RSS after a small warm check) by "
        + " and ".join(f"{size / 2**20:.0f} MiB with `{name}`" for name, size in memory.items())
        + ".",
        "",
        "## Predictions of `fastgc.plan`",
        "",
        "The time it predicted, and that over the time measured above.",
        "",
        *forecasts(table),
        "",
        "## Tracking",
        "",
        "`pytest --benchmark-only --benchmark-autosave` keeps a run under `.benchmarks`,",
        "`pytest-benchmark compare` sets kept runs side by side, and",
        "`pytest --benchmark-only --benchmark-compare --benchmark-compare-fail=min:50%` fails",
        "where the last kept one was that much faster. `python -m benchmarks.regression` compares",
        "two small ratios with `benchmarks/recorded.json`, and fails below a third of them.",
        "",
    ]
    return "\n".join(parts)


def three_numbers(table: Table) -> str:
    """The lines of the README."""
    fast = table.seconds[LARGE, "method node"]
    return "\n".join(
        [
            f"- **{_ratio(table.speed(LARGE, 'method node'))} as fast as the lab's loop** on a "
            f"784-512-256-1 with {table.sizes[LARGE]:,} parameters: {time_of(fast)} instead of "
            f"{time_of(table.seconds[LARGE, PLAIN])}.",
            f"- **{fast / table.seconds[LARGE, PASS]:.1f} forward + backward passes** of NumPy is "
            "what that takes; the whole `check`, with its verdict on every entry, "
            f"{table.seconds[LARGE, 'check'] / table.seconds[LARGE, PASS]:.1f}.",
            f"- **{_ratio(table.speed(LAB, 'check'))} as fast** even on the lab's own 47 "
            "parameters, report and all.",
        ]
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        table = Table(timings(Path(directory)))
    text = write_up(table)
    docs = ROOT / "docs"
    docs.mkdir(exist_ok=True)
    (docs / "benchmarks.md").write_text(text)
    speeds: dict[str, dict[int, float]] = {}
    others: dict[str, dict[int, float]] = {}
    for case, name in table.seconds:
        if name in plot.METHODS:
            speeds.setdefault(name, {})[table.sizes[case]] = table.speed(case, name)
        elif table.info[case, name].get("checks", "nothing") != "nothing":
            label = f"{name} ({table.info[case, name]['checks']})"
            others.setdefault(label, {})[table.sizes[case]] = table.speed(case, name)
    plot.draw(docs / "benchmarks.svg", speeds, others)
    detection_report.into_readme("speeds", three_numbers(table))
    regression.record()
    scale_report.write()
    detection_report.write(**detection_report.SIZES)
    print(text)


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value >= 10 else f"{value:.2g}×"


if __name__ == "__main__":
    main()
