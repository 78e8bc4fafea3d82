"""Writes docs/scale.md, of what `benchmarks.scaling` measures.

``python -m benchmarks.scale_report`` takes some minutes, and wants two cores that nobody else uses.
"""

from pathlib import Path

from benchmarks.scaling import LARGE, ROUNDS, TASKS, Scaling, measure
from benchmarks.tables import bytes_of, table, time_of
from fastgc.parallel.chunks import DASK_SECONDS, SECONDS

DOCUMENT = Path(__file__).parent.parent / "docs" / "scale.md"


def write_up(found: Scaling) -> str:
    tasks = found.tasks
    busy = SECONDS / tasks["processes"].caller, DASK_SECONDS / tasks["Dask"].caller
    lines = [
        "# Scale",
        "",
        "Written by `python -m benchmarks.scale_report` (needs the extra `bench`), which",
        "`python -m benchmarks.report` runs too: what spreading a check over the workers of an",
        "executor gives.",
        "",
        "## Two workers",
        "",
        f"Load averages before it began: {', '.join(f'{value:.2f}' for value in found.load)}.",
        "*The cores* is the time of one process that has nothing to do with fastgc over that of",
        "two at once, in the same rounds: less than 100 % where others use these two cores, and",
        "no efficiency can be much better.",
        "",
        *table(
            ["", "here", "1 worker", "2 workers", "efficiency", "the cores", "to here",
             "just started"],
            [
                [s.name, time_of(s.here), time_of(s.one), time_of(s.two), f"{s.efficiency:.0%}",
                 f"{s.machine:.0%}", f"{s.of_here:.0%}", time_of(s.first)]
                for s in found.spreads
            ],
        ),
        f"Medians of {ROUNDS} rounds in turn; `loop` over a `ProcessPoolExecutor`; results bitwise",
        "equal to those in this process, verified before timing. *Efficiency* is the time with one",
        "worker over twice that with two, *to here* that in this process. Workers are",
        "warm but in *just started*, two of them, which includes loading fastgc, the cost and, for",
        "`node`, the kernels.",
        "",
        "## What a task costs",
        "",
        *table(
            ["executor", "from task to task", "CPU of the caller", "sending", "results"],
            [
                [name, time_of(task.seconds), time_of(task.caller), _rate(task.sent),
                 _rate(task.returned)]
                for name, task in tasks.items()
            ],
        ),
        f"{TASKS:,} tasks of one entry each whose cost does nothing, over two workers: what an",
        f"ordinary task of {SECONDS} s, or {DASK_SECONDS:g} s with Dask, has on top. With Dask the",
        "CPU is that of its scheduler too, which a LocalCluster runs in the caller's process.",
        f"*Sending* is of a cost of {bytes_of(LARGE)}: packed, sent to every worker, unpacked.",
        "",
        f"- So one caller keeps about {busy[0]:,.0f} processes busy, or {busy[1]:,.0f} workers of",
        "  Dask, whose scheduler does more on a machine of its own.",
        "- A worker is sent, once: "
        + "; ".join(f"{bytes_of(size)} for {name}" for name, size in found.sent.items())
        + ".",
        f"- A checkpoint of `loop` takes {bytes_of(found.saved * 1e6)} for 10⁶ parameters.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rate(seconds: float) -> str:
    return f"{bytes_of(1 / seconds)}/s" if seconds else "shared"


def write() -> None:
    """Measures, and writes docs/scale.md."""
    DOCUMENT.write_text(write_up(measure()))


def main() -> None:
    write()
    print(DOCUMENT.read_text())


if __name__ == "__main__":
    main()
