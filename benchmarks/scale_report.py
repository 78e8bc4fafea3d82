"""Writes the tables of docs/scale.md, of what `benchmarks.scaling` measures.

``python -m benchmarks.scale_report`` takes some minutes, and wants two cores that nobody else uses.
"""

import os

from benchmarks import scaling
from benchmarks.scaling import Spread, Task
from benchmarks.tables import bytes_of, fill, table, time_of
from fastgc.parallel import dask, executor


def table_of_work(spreads: list[Spread]) -> list[str]:
    header = ["", "here", "1 worker", "2 workers", "efficiency", "the cores", "to here",
              "just started"]  # fmt: skip
    rows = [
        [s.name, time_of(s.here), time_of(s.one), time_of(s.two), f"{s.efficiency:.0%}",
         f"{s.machine:.0%}", f"{s.of_here:.0%}", time_of(s.first)]
        for s in spreads
    ]  # fmt: skip
    return table(header, rows)


def table_of_tasks(tasks: dict[str, Task]) -> list[str]:
    rows = [
        [name, time_of(task.seconds), time_of(task.caller), _rate(task.sent), _rate(task.returned)]
        for name, task in tasks.items()
    ]
    return table(["executor", "from task to task", "CPU of the caller", "sending", "results"], rows)


def _rate(seconds: float) -> str:
    return f"{bytes_of(1 / seconds)}/s" if seconds else "shared"


def write() -> None:
    """Measures, and fills docs/scale.md."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    spreads = [*map(scaling.loop_over_processes, scaling.LENGTHS), scaling.node_over_dask()]
    work = [f"Load averages before it began: {load}.", "", *table_of_work(spreads)]
    fill("docs/scale.md", "work", work)
    tasks = {name: scaling.task_costs(name) for name in scaling.EXECUTORS}
    busy = executor.SECONDS / tasks["processes"].caller, dask.SECONDS / tasks["Dask"].caller
    sent = [f"{bytes_of(size)} for {name}" for name, size in scaling.bytes_to_worker().items()]
    saved = bytes_of(1e6 * scaling.bytes_saved())
    facts = [
        f"- So one caller keeps about {busy[0]:,.0f} processes busy, or {busy[1]:,.0f} workers of",
        "  Dask, whose scheduler does more on a machine of its own.",
        f"- A worker is sent, once: {'; '.join(sent)}.",
        f"- A checkpoint of `loop` takes {saved} for 10⁶ parameters.",
    ]
    fill("docs/scale.md", "tasks", [*table_of_tasks(tasks), *facts])


if __name__ == "__main__":
    write()
