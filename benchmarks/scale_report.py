"""Writes docs/scale.md: ``python -m benchmarks.scale_report``.

What `benchmarks.scaling` measures.
"""

from pathlib import Path

from benchmarks import scaling
from benchmarks.scaling import COMMAND, LARGE, NETWORK, ROUNDS, TASKS, Scaling
from benchmarks.tables import bytes_of, time_of
from fastgc.parallel.executor import SECONDS

DOCUMENT = Path(__file__).parent.parent / "docs" / "scale.md"


def tables(found: Scaling) -> list[str]:
    """What docs/scale.md says of what was measured."""
    size = sum(value.size for value in found.parameters.values())
    rows = [
        *((f"`loop`, {time_of(s.evaluation)} an evaluation, {s.name}", s) for s in found.loops),
        (f"`node` over Dask, {NETWORK.name} (P = {size:,})", found.node),
    ]
    seconds, per_entry = found.saving
    return [
        f"`{COMMAND}` measures this section alone. Load averages before it began:",
        f"{', '.join(f'{value:.2f}' for value in found.load)}. *The cores* is the time of one",
        "process that has nothing to do with fastgc over that of two at once, in the same rounds:",
        "less than 100 % where others use these two cores, and no efficiency can be much better.",
        "",
        "| | here | 1 worker | 2 workers | efficiency | the cores | to here | just started |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {time_of(s.here)} | {time_of(s.one)} | {time_of(s.two)} | "
            f"{s.efficiency:.0%} | {s.machine:.0%} | {s.of_here:.0%} | "
            f"{time_of(s.first)} |"
            for name, s in rows
        ),
        "",
        f"Medians of {ROUNDS} rounds in turn; `loop` over a `ProcessPoolExecutor`; results bitwise",
        "equal to those in this process, verified before timing. *Efficiency* is the time with one",
        "worker over twice that with two, *to here* that in this process. Workers are",
        "warm but in *just started*, two of them, which includes loading fastgc, the cost and, for",
        "`node`, the kernels.",
        "",
        "| executor | from task to task | CPU of the caller | sending | results |",
        "|---|---|---|---|---|",
        *(
            f"| {task.executor} | {time_of(task.seconds)} | {time_of(task.caller)} | "
            f"{_rate(task.sent)} | {_rate(task.returned)} |"
            for task in found.tasks.values()
        ),
        "",
        f"{TASKS:,} tasks of one entry each whose cost does nothing, over two workers: what an",
        f"ordinary task of {SECONDS} s has on top. With Dask the CPU is that of its",
        "scheduler too, which a LocalCluster runs in the caller's process. A subject is what all",
        f"tasks have in common ({bytes_of(LARGE)} here): packed, sent to every worker,",
        "unpacked.",
        "",
        "- A worker is sent, once: "
        + "; ".join(f"{bytes_of(size)} for {name}" for name, size in found.sent.items())
        + ".",
        f"- A checkpoint of `loop` takes {time_of(seconds * 1e6)} and {bytes_of(per_entry * 1e6)} "
        "for 10⁶ parameters, in all: a saving appends what is finished since the last.",
        "- One look for finished chunks takes "
        + " and ".join(f"{time_of(s)} with {count:,} pending" for count, s in found.waits.items())
        + ".",
        "",
    ]


def _rate(seconds: float) -> str:
    return f"{bytes_of(1 / seconds)}/s" if seconds else "shared"


def write_up(found: Scaling) -> str:
    lines = [
        "# Scale",
        "",
        "Written by `python -m benchmarks.scale_report` (needs the extra `bench`), which",
        "`python -m benchmarks.report` runs too. What spreading a check over the workers of an",
        "executor gives, and what it would take to go to 10⁹ parameters.",
        "",
        "## Measured: two workers",
        "",
        *tables(found),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write() -> None:
    """Measures, and writes docs/scale.md."""
    DOCUMENT.write_text(write_up(scaling.measure()))


def main() -> None:
    write()
    print(DOCUMENT.read_text())


if __name__ == "__main__":
    main()
