"""Runs all benchmarks and fills the tables of docs/: ``python -m benchmarks.report``.

Timings go into docs/benchmarks.md, the picture and three numbers into the README, and the ratios
that `benchmarks.regression` holds to into recorded.json; then what spreads over workers into
docs/scale.md, and the study of detection into docs/detection.md.
"""

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from benchmarks.bench_methods import LAB, METHODS, PASS, PLAIN, network_case
from benchmarks.bench_peers import PEERS
from benchmarks.tables import ROOT, fill, table, time_of
from benchmarks.timing import least_time
from fastgc.parallel.threads import available_cores, one_blas_thread

LARGE = "784-512-256-1, m = 32"
Records = Sequence[dict[str, Any]]


def records_in(directory: Path) -> Records:
    """Every benchmark's record, from one run of the suite."""
    path = directory / "timings.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "--benchmark-only", "-q", "--benchmark-min-rounds=5",
         "--benchmark-max-time=1.5", f"--benchmark-json={path}"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    records: Records = json.loads(path.read_text())["benchmarks"]
    return [record for record in records if "case" in record["extra_info"]]


def dgemm_rate(*, one_thread: bool) -> float:
    """Floating-point operations a second of BLAS, in a product of 1024 × 1024."""
    A, B = np.random.default_rng(0).standard_normal((2, 1024, 1024))
    with one_blas_thread() if one_thread else nullcontext():
        return 2 * 1024**3 / least_time(lambda: A @ B, 10)


class Timings:
    """The least time of every contender on every network, and what `fastgc.plan` says of each."""

    def __init__(self, records: Records) -> None:
        keys = [(r["extra_info"]["case"], r["extra_info"]["contender"]) for r in records]
        self.info = {key: r["extra_info"] for key, r in zip(keys, records, strict=True)}
        self.seconds: dict[tuple[str, str], float] = {
            key: r["stats"]["min"] / r["extra_info"]["share"]
            for key, r in zip(keys, records, strict=True)
        }
        self.sizes: dict[str, int] = {case: i["parameters"] for (case, _), i in self.info.items()}
        self.plans = {case: fastgc.plan(*network_case(case)).forecasts for case in self.sizes}

    def speed(self, case: str, contender: str) -> float:
        return self.seconds[case, PLAIN] / self.seconds[case, contender]

    def speeds(self, name: str) -> dict[int, float]:
        """Parameters -> speed."""
        cases = [case for case in self.sizes if (case, name) in self.seconds]
        return {self.sizes[case]: self.speed(case, name) for case in cases}

    def section(self, case: str, rate: float) -> list[str]:
        """A line for each contender on a network."""
        rows = [
            [name, time_of(seconds), _ratio(self.speed(case, name)),
             self.info[case, name]["checks"], "; ".join(self.notes(case, name, rate))]
            for (of_case, name), seconds in self.seconds.items() if of_case == case
        ]  # fmt: skip
        return [
            f"## {case} (P = {self.sizes[case]:,})",
            "",
            *table(["", "time", "speed", "checks", ""], rows),
        ]

    def notes(self, case: str, name: str, rate: float) -> list[str]:
        info, notes = self.info[case, name], []
        if info["share"] < 1:
            count = round(info["share"] * info["parameters"])
            notes.append(f"timed on {count:,} of the entries and scaled")
        method = name.removeprefix("method ")
        operations = self.plans[case][method].operations if method in METHODS[2:] else None
        if operations is not None:
            notes.append(f"{self.seconds[case, name] * rate / operations:.1f} × the floor")
        outcomes: Mapping[str, int] = info.get("outcomes", {"wrong": 0})
        if outcomes["wrong"]:
            notes.append(
                f"rejects these right gradients, {outcomes['wrong']} runs of "
                f"{sum(outcomes.values())}"
            )
        return notes

    def forecasts(self) -> list[str]:
        """How far off `fastgc.plan` was."""

        def cell(case: str, name: str) -> str:
            predicted = self.plans[case][name].seconds
            off = predicted / self.seconds[case, f"method {name}"]
            return f"{time_of(predicted)} ({off:.2g})"

        rows = [[case, *(cell(case, name) for name in METHODS)] for case in self.sizes]
        return table(["", *METHODS], rows)


def networks(timings: Timings) -> list[str]:
    alone, together = dgemm_rate(one_thread=True), dgemm_rate(one_thread=False)
    return [
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()},",
        f"{available_cores()} cores. BLAS (dgemm, 1024 × 1024): {alone / 1e9:.0f} GFLOP/s on one",
        f"thread, {together / 1e9:.0f} on all.",
        "",
        *(line for case in timings.sizes for line in timings.section(case, together)),
    ]


def first_use() -> list[str]:
    numpy_time, fastgc_time, ratio = fresh.import_times()
    rows = [
        ["import numpy", time_of(numpy_time)],
        [f"import fastgc (ratio {ratio:.2f})", time_of(fastgc_time)],
        *([name, time_of(seconds)] for name, seconds in fresh.first_use().items()),
        *([f"memory of a check of {LARGE}, `{name}`", f"{size / 2**20:.0f} MiB"]
          for name, size in fresh.memory_of_check().items()),
    ]  # fmt: skip
    return table(["", ""], rows)


def three_numbers(timings: Timings) -> list[str]:
    """The lines of the README."""
    fast, whole = timings.seconds[LARGE, "method node"], timings.seconds[LARGE, "check"]
    one_pass = timings.seconds[LARGE, PASS]
    return [
        f"- **{_ratio(timings.speed(LARGE, 'method node'))} as fast as the lab's loop** on a "
        f"784-512-256-1 with {timings.sizes[LARGE]:,} parameters: {time_of(fast)} instead of "
        f"{time_of(timings.seconds[LARGE, PLAIN])}.",
        f"- **{fast / one_pass:.1f} forward + backward passes** of NumPy is what that takes; "
        f"the whole `check`, with its verdict on every entry, {whole / one_pass:.1f}.",
        f"- **{_ratio(timings.speed(LAB, 'check'))} as fast** even on the lab's own 47 "
        "parameters, report and all.",
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        timings = Timings(records_in(Path(directory)))
    for page in ("README.md", "docs/benchmarks.md"):
        fill(page, "speeds", three_numbers(timings))
    others = {f"{name} ({peer.checks})": timings.speeds(name) for name, peer in PEERS.items()}
    lines = {name: timings.speeds(name) for name in plot.METHODS}
    plot.draw(ROOT / "docs" / "benchmarks.svg", lines, others)
    fill("docs/benchmarks.md", "networks", networks(timings))
    fill("docs/benchmarks.md", "first use", first_use())
    fill("docs/benchmarks.md", "predictions", timings.forecasts())
    for module in (directions, peers, watching, scale_report):
        module.write()
    regression.record()
    detection_report.write(**detection_report.SIZES)


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value >= 10 else f"{value:.2g}×"


if __name__ == "__main__":
    main()
