"""Measured costs carried to 10⁹ parameters and 1,000 workers, by arithmetic."""

import math
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import fastgc
from benchmarks.scaling import NETWORK, Scaling
from benchmarks.tables import bytes_of, time_of
from fastgc.costs.base import pose
from fastgc.directions.draw import Directions
from fastgc.methods.registry import METHODS
from fastgc.network.flops import flops
from fastgc.network.propagate import block_width
from fastgc.parallel import chunks as blocks
from fastgc.parallel.threads import one_blas_thread
from fastgc.plan import RANDOM_VECTORS
from tests.cases import NetworkCase, backward

WORKERS = 1000
WIDTHS = (12_000, *[12_000] * 7, 1)
SAMPLES = 32
TENSORS = 2 * (len(WIDTHS) - 1)
SIZE = sum((k + 1) * n for k, n in pairwise(WIDTHS))
UNITS = SAMPLES * sum(WIDTHS[1:])  # pre-activations of all samples
DIRECTIONS, SEARCH, FIRST = 8, 200, 11
NETWORK_RATE = 1.25e9  # bytes a second, of a 10 Gbit/s network: assumed, not measured
MEASURED = NetworkCase("2048-2048-2048-1, m = 32", (2048, 2048, 2048, 1), SAMPLES, scale=1.4)
COPIES = 4  # of θ on a worker: as received, unpacked, in the loop, in the cost's own arrays
DAY = 86400.0


@dataclass(frozen=True)
class Unit:
    """Seconds, measured on one thread.

    Attributes:
        evaluation: of one evaluation, for each parameter, with 32 samples.
        verdict: of the verdict, for each parameter.
        draw: of a number of a direction.
        operation: of the kernel of `node`, for each operation if no unit is silent.
    """

    evaluation: float
    verdict: float
    draw: float
    operation: float


def _least(run: Callable[[], object]) -> float:
    return min(timeit.repeat(run, number=1, repeat=5))


def units(found: Scaling) -> Unit:
    net, parameters = MEASURED.build()
    gradients = backward(net, parameters)
    problem = pose(lambda p: net(p), parameters)
    P = problem.layout.size
    with one_blas_thread():
        evaluation = _least(lambda: problem.evaluate(problem.theta))
    options: dict[str, Any] = {"method": "node", "threads": 1, "progress": False}
    assert fastgc.check(net, parameters, gradients, **options)
    whole = _least(lambda: fastgc.check(net, parameters, gradients, **options))
    alone = _least(lambda: fastgc.numerical_gradient(net, parameters, **options))
    theta = np.ones(10**6)
    draw = _least(lambda: Directions(theta, (slice(None),), 1, 0, 1e-7, 0).vector(0))
    work = flops("node", NETWORK.widths, NETWORK.m)
    return Unit(
        evaluation / P, max(whole - alone, 0.0) / P, draw / theta.size, found.node.here / work
    )


@dataclass(frozen=True)
class Row:
    """A method at 10⁹ parameters.

    Attributes:
        method: its name.
        work: seconds on one worker.
        tasks: how many tasks could run at once.
        task: seconds of the shortest.
        serial: seconds in the caller: before, and after.
        results: bytes that come back.
        memory: bytes in the caller.
    """

    method: str
    work: float
    tasks: float
    task: float
    serial: float
    results: float
    memory: float

    def busy(self, caller: float) -> float:
        """Workers that are kept busy, when the caller spends so long on a task."""
        length = max(self.task, blocks.DASK_SECONDS)
        return min(WORKERS, self.tasks, length / caller)

    def seconds(self, caller: float) -> float:
        return self.serial + max(self.work / self.busy(caller), self.task)


def rows(unit: Unit, sent: float, returned: float) -> list[Row]:
    evaluation, verdict = SIZE * unit.evaluation, SIZE * unit.verdict
    sending = 8 * SIZE * (sent + math.ceil(math.log2(WORKERS)) / NETWORK_RATE)
    first = FIRST * evaluation

    def by_kernel(method: str, tasks: float, results: float) -> Row:
        work = flops(method, WIDTHS, SAMPLES) * unit.operation
        # the products of W's size: a forward pass, and for `node` two to put the results together
        serial = (3 if method == "node" else 1) * evaluation + sending + verdict
        memory = (METHODS[method].vectors + 2) * 8 * SIZE
        return Row(method, work, tasks, work / tasks, serial + results * returned, results, memory)

    half = block_width(WIDTHS) // 2
    columns = sum(SAMPLES * math.ceil(n / half) for n in WIDTHS[1:])
    pieces = sum(n * math.ceil((k + 1) / half) for k, n in pairwise(WIDTHS))
    directions = DIRECTIONS * TENSORS
    drawing = DIRECTIONS * SIZE * unit.draw  # once here, for v·grad, and once on the workers
    return [
        Row(
            "loop", 2 * SIZE * evaluation, SIZE, 2 * evaluation,
            first + sending + 32 * SIZE * returned + verdict, 32 * SIZE,
            (METHODS["loop"].vectors + 2) * 8 * SIZE,
        ),
        by_kernel("incremental", pieces, 24 * SIZE),
        by_kernel("node", columns, 24 * UNITS),
        Row(
            "random", 2 * directions * evaluation + drawing, directions,
            2 * evaluation + drawing / directions, first + sending + drawing, 32 * directions,
            (RANDOM_VECTORS + 2) * 8 * SIZE,
        ),
        Row(
            "stacked", 2 * SIZE * evaluation / 64, 1, 0.0, first + verdict, 0.0,
            (METHODS["stacked"].vectors + 2) * 8 * SIZE + 64 * 2 * 2 * 8 * SIZE,
        ),
    ]  # fmt: skip


def section(found: Scaling) -> list[str]:
    """The measured costs on paper, and what breaks first."""
    unit, task = units(found), found.tasks["Dask"]
    table = {row.method: row for row in rows(unit, task.sent, task.returned)}
    evaluation = SIZE * unit.evaluation
    saving, per_entry = found.saving
    queue = blocks.AHEAD * max(table["loop"].task, blocks.DASK_SECONDS)
    search = SEARCH * evaluation
    day = math.sqrt(DAY * WORKERS / (2 * unit.evaluation))
    needed = WORKERS * task.caller
    here = found.tasks["processes"].caller
    return [
        f"## On paper: {SIZE:,} parameters, {WORKERS:,} workers",
        "",
        f"A 12,000-12,000×7-1 with m = {SAMPLES}: {TENSORS} tensors, {SIZE:.3g} parameters",
        f"({bytes_of(8 * SIZE)} for each vector of them). Measured on one thread, in the same run:",
        "",
        f"- e = {unit.evaluation * 1e9:.2g} ns for each parameter of one evaluation, its copies",
        f"  included ({MEASURED.name}), so E = e·P = {time_of(evaluation)};",
        f"- {unit.operation * 1e9:.2g} ns for an operation of the kernel, counted as if no unit",
        f"  were silent ({NETWORK.name}; half of its units are);",
        f"- {unit.draw * 1e9:.2g} ns for a number of a direction;",
        f"  {unit.verdict * 1e9:.2g} ns for the verdict on an entry.",
        "",
        "Of Dask, the only one of these executors that reaches other machines: c =",
        f"{time_of(task.caller)} of the caller and its scheduler for a task,",
        f"s = {task.sent * 1e9:.2g} ns to send a byte, r = {task.returned * 1e9:.2g} ns to get one",
        "back. Assumed: 10 Gbit/s between machines, workers as fast as this core, no memory limit.",
        "",
        "| | work on one worker | tasks at once | a task | workers busy | in the caller | time | "
        "results | memory of the caller |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(row, task.caller) for row in table.values()),
        "",
        "- Work: `loop` 2P·E; `incremental` and `node` their count of operations",
        f"  (`fastgc plan`); `random` 2·{DIRECTIONS}·T evaluations and drawing {DIRECTIONS}·P",
        f"  numbers, T = {TENSORS}; `stacked` as `loop`, a compiled cost on 64 cores of one",
        "  machine, as no executor shares it.",
        f"- Workers busy: min({WORKERS:,}, tasks at once, task / c), where a task lasts",
        f"  {blocks.DASK_SECONDS} s, or one item if that is longer.",
        f"- In the caller: {FIRST} evaluations first (`incremental` and `node` one forward pass),",
        f"  8P·(s + log₂ {WORKERS:,} / 1.25 GB/s) for sending θ down a tree, the results' bytes",
        "  times r, P verdicts; for `random` v·grad, for which it draws every direction itself;",
        "  for `node` two products of the size of W.",
        "- Time: in the caller, and the work over the busy workers.",
        "- Memory: `Method.vectors` and the two vectors that the user holds; `stacked`",
        "  also 64 pairs of rows, with a copy of each that the cost may keep.",
        "",
        f"A wrong tensor costs `random` up to {SEARCH} evaluations more, one after the other in",
        f"the caller: {time_of(search)}.",
        "",
        "## What would break first",
        "",
        "In about this order, as workers and parameters grow:",
        "",
        f"1. **The rate of tasks.** Tasks of {blocks.DASK_SECONDS} s ask for",
        f"   {WORKERS / blocks.DASK_SECONDS:,.0f} a second; one Dask client and scheduler manage",
        f"   {1 / task.caller:,.0f} in one process, enough for",
        f"   {blocks.DASK_SECONDS / task.caller:,.0f} workers, and more with the scheduler on a",
        "   machine of its own",
        f"   (a process pool of one machine: {1 / here:,.0f}, for {blocks.SECONDS / here:,.0f}).",
        f"   {WORKERS:,} workers want tasks of c·{WORKERS:,} = {time_of(needed)}: one would set",
        "   `DASK_SECONDS` in `fastgc/parallel/chunks.py` in proportion to the workers. An item that lasts",
        "   longer, as one of `loop` does at this size, does so by itself.",
        f"2. **The arithmetic of `loop`.** 2P evaluations grow as P²: {WORKERS:,} workers that are",
        f"   all busy do √(day·{WORKERS:,} / 2e) = {day:.2g} parameters in a day. Beyond: `random`",
        "   for any cost, `node` for a `Network`, `only=` and `sample=` for parts.",
        f"3. **Memory of a worker.** A Dask worker holds θ {COPIES} times (as received; unpacked;",
        "   the loop's own; the arrays that the cost gets, which it may keep):",
        f"   {bytes_of(COPIES * 8 * SIZE)}, and workers on one machine share none of it, as those",
        "   of a `ProcessPoolExecutor` do, which map one file. And `loop` copies θ for every task,",
        "   `incremental` asks for 3P zeros, of which it touches few. One would keep θ in shared",
        "   memory, a worker a machine, and perturb in place.",
        "4. **Memory of the caller**, in the table; a `checkpoint=` adds the results once more",
        f"   ({bytes_of(32 * SIZE)} for `loop`), and the report keeps gradient, gradapprox,",
        f"   uncertainty and verdicts ({bytes_of(25 * SIZE)}) while it lives. `random` holds",
        "   θ, the gradient, a direction, the moved θ and the cost's arrays, and no results of",
        "   size P. The verdict already goes in parts of 8,192 entries: over arrays kept on disk",
        "   (`np.memmap`) it would need no memory.",
        f"5. **What only the caller does**: for `random` {time_of(table['random'].serial)} of",
        f"   {time_of(table['random'].seconds(task.caller))}, while no more than",
        f"   {DIRECTIONS}·T = {DIRECTIONS * TENSORS} workers have anything to do. One would take",
        "   v·grad on the workers, which draw v in any case, and spread the nine evaluations of",
        "   the noise and those of the search.",
        f"6. **Sending θ**: {time_of(8 * SIZE * task.sent)} to pack (no copy, but a hash of every",
        f"   byte), hand on and unpack, then a tree of {math.ceil(math.log2(WORKERS))} steps of",
        f"   {time_of(8 * SIZE / NETWORK_RATE)}. Once in a check; workers would better read a file",
        "   system that they share.",
        f"7. **The checkpoint** is written whole: {bytes_of(per_entry * SIZE)} in",
        f"   {time_of(saving * SIZE)}, at most a twentieth of the time, but the caller hears",
        f"   nobody meanwhile, and workers have {blocks.AHEAD} tasks each:",
        f"   {blocks.AHEAD * blocks.DASK_SECONDS:.1f} s of work where tasks are short,",
        f"   {time_of(queue)} in this `loop`. One would append blocks, from a thread.",
        "8. **`stacked`** needs two rows of P numbers for each parameter in flight, so `memory=`",
        "   refuses it long before (256 MiB hold a pair of 8·10⁶), and `auto` takes `loop`.",
        "",
        "What does not break: `node` brings back 3 numbers for each pre-activation, "
        f"{bytes_of(24 * UNITS)},",
        "not for each parameter; a direction brings back 4; one look at 4,000 pending blocks takes",
        f"{time_of(found.waits[4000])} and finds all that are done.",
        "",
    ]


def _line(row: Row, caller: float) -> str:
    busy = "–" if row.task == 0 else f"{row.busy(caller):,.0f}"
    whole = row.serial + row.work if row.task == 0 else row.seconds(caller)
    return (
        f"| `{row.method}` | "
        f"{time_of(row.work)} | {row.tasks:.2g} | {time_of(row.task) if row.task else '–'} | "
        f"{busy} | {time_of(row.serial)} | {time_of(whole)} | {bytes_of(row.results)} | "
        f"{bytes_of(row.memory)} |"
    )
