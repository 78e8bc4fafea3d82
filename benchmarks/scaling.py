"""How work spreads over two workers, and what a task costs: what `benchmarks.scale_report` writes.

`loop` over processes and `node` over Dask, bitwise the same as in this process before they are
timed; and what two processes give that have nothing to do with fastgc, in the same run. Workers
are warm: the cost and its data are there, the kernels loaded.
"""

import contextlib
import importlib
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fastgc
from benchmarks.timing import least_time, seconds_of
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import as_cost
from fastgc.network.cost import NetworkCost
from fastgc.network.propagate import kernel_arguments
from fastgc.parallel import dask as over_dask
from fastgc.parallel import executor as executors
from tests.cases import Array, NetworkCase

LENGTHS = (1e-3, 15e-3, 50e-3)  # seconds of CPU that one evaluation takes
WHOLE = 5.0  # seconds in one process, about
ROUNDS = 3
NETWORK = NetworkCase("256-256×6-1, m = 2048", (256, *[256] * 6, 1), 2048, scale=1.4, seed=1)
TASKS = 1000
LARGE = 80 * 10**6  # bytes

Pools: TypeAlias = Callable[[int], AbstractContextManager[Executor]]


class Busy:
    """A cost that keeps one core busy, in sines of an array that stays in its cache."""

    def __init__(self, repeats: int, ballast: Array | None = None) -> None:
        self.repeats, self.ballast = repeats, ballast  # which is only sent

    def __call__(self, theta: Any) -> float:
        values = np.linspace(0.0, 1.0, 1024) + float(theta @ theta) / theta.size
        for _ in range(self.repeats):
            np.sin(values, out=values)
        return float(values.sum())


def busy_for(seconds: float) -> Busy:
    """A `Busy` whose evaluation takes about so long here and now."""
    took = least_time(partial(Busy(500), np.ones(100)), 25)
    return Busy(max(1, round(500 * seconds / took)))


def by_loop(cost: Busy, theta: Array, executor: Executor | None = None, **options: Any) -> Array:
    found: Array = fastgc.numerical_gradient(
        cost, theta, method="loop", progress=False, executor=executor, **options
    )
    return found


def evaluate_often(cost: Busy, times: int) -> float:
    """Seconds of so many evaluations; what an independent process does."""
    theta = np.ones(100)
    return seconds_of(lambda: [cost(theta) for _ in range(times)])


def efficiency_without_fastgc(pool: Executor, cost: Busy) -> float:
    """The time of one process over that of two at once: what two cores give here and now."""

    def at_once(count: int) -> float:
        return max(pool.map(evaluate_often, [cost] * count, [60] * count))

    return at_once(1) / at_once(2)


class Spread(NamedTuple):
    """Median seconds of one piece of work."""

    name: str
    here: float  # in this process alone, on one thread
    one: float  # over one worker
    two: float
    first: float  # over two, just started: the kernels loaded, the data sent
    machine: float  # the efficiency of two processes without fastgc, in the same rounds

    @property
    def efficiency(self) -> float:
        return self.one / (2 * self.two)

    @property
    def of_here(self) -> float:
        return self.here / (2 * self.two)


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Executor]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        wait([pool.submit(time.sleep, 0.2) for _ in range(workers)])
        yield pool


@contextlib.contextmanager
def dask(workers: int) -> Iterator[Executor]:
    distributed = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


EXECUTORS: dict[str, Pools] = {
    "threads": ThreadPoolExecutor, "processes": processes, "Dask": dask
}  # fmt: skip


def spread(name: str, run: Callable[[Executor | None], Array], pools: Pools) -> Spread:
    """The same work here, over one worker and over two, in turn, `ROUNDS` times."""
    with pools(1) as one, pools(2) as two, processes(2) as apart:
        busy = busy_for(15e-3)
        began = time.perf_counter()
        wanted = run(two)
        first = time.perf_counter() - began
        for executor in (None, one):
            np.testing.assert_array_equal(run(executor), wanted)
        rounds = [
            (
                *(seconds_of(partial(run, executor)) for executor in (None, one, two)),
                efficiency_without_fastgc(apart, busy),
            )
            for _ in range(ROUNDS)
        ]
    here, with_one, with_two, machine = (median(times) for times in zip(*rounds, strict=True))
    return Spread(name, here, with_one, with_two, first, machine)


def loop_over_processes(length: float) -> Spread:
    cost = busy_for(length)
    theta = np.ones(max(8, round(WHOLE / (2 * length))))
    evaluation = least_time(partial(cost, theta), 9)
    name = f"`loop`, {1e3 * evaluation:.3g} ms an evaluation, {theta.size:,} parameters"
    return spread(name, partial(by_loop, cost, theta), processes)


def node_over_dask() -> Spread:
    net, parameters = NETWORK.build()

    def run(executor: Executor | None) -> Array:
        found = fastgc.numerical_gradient(
            net, parameters, method="node", threads=1, progress=False, executor=executor
        )
        return np.concatenate([value.ravel() for value in found.values()])

    size = sum(value.size for value in parameters.values())
    return spread(f"`node` over Dask, {NETWORK.name} (P = {size:,})", run, dask)


class Task(NamedTuple):
    """What a task costs beside its work, over two workers, in seconds."""

    seconds: float  # from one task to the next, when none has any work
    caller: float  # of CPU in the caller's process; of Dask's LocalCluster, its scheduler's too
    sent: float  # a byte, of a cost that every worker is sent once: packed, sent, unpacked
    returned: float  # a byte of what comes back


@contextlib.contextmanager
def chunks_of_one() -> Iterator[None]:
    """Each entry a task of its own, however short."""
    before = executors.SECONDS, over_dask.SECONDS
    executors.SECONDS = over_dask.SECONDS = 0.0
    try:
        yield
    finally:
        executors.SECONDS, over_dask.SECONDS = before


def task_costs(name: str) -> Task:
    theta, quick = np.zeros(TASKS), Busy(0)
    with EXECUTORS[name](2) as executor, chunks_of_one():
        here = least_time(partial(by_loop, quick, theta), 3)
        by_loop(quick, theta, executor)
        times, caller = [], []
        for _ in range(ROUNDS):
            before = time.process_time()
            times.append(seconds_of(partial(by_loop, quick, theta, executor)))
            caller.append(time.process_time() - before)
        sent, returned = (0.0, 0.0) if name == "threads" else seconds_a_byte(executor)
    seconds = max(median(times) - here / 2, 0.0)  # the evaluations, on two workers
    spent = median(caller) - (here if name == "threads" else 0.0)
    return Task(seconds / TASKS, max(spent, 0.0) / TASKS, sent, returned)


def seconds_a_byte(executor: Executor) -> tuple[float, float]:
    """Of a cost that a worker is sent, and of a result."""

    def sending(ballast: Array) -> float:
        return seconds_of(partial(by_loop, Busy(0, ballast), np.zeros(2), executor))

    heavy = median(sending(np.full(LARGE // 8, float(number))) for number in range(ROUNDS))
    light = median(sending(np.full(1, float(number))) for number in range(ROUNDS))
    returned = least_time(lambda: executor.submit(np.zeros, LARGE // 8).result(), 1 + ROUNDS)
    return max(heavy - light, 0.0) / LARGE, returned / LARGE


def bytes_saved() -> float:
    """What a checkpoint of `loop` takes on disk, a parameter."""
    theta = np.ones(10 * TASKS)  # enough, that the names in the file do not show
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ckpt"
        by_loop(Busy(0), theta, checkpoint=path)
        return path.stat().st_size / theta.size


def bytes_to_worker() -> dict[str, int]:
    """What a worker is sent once."""
    theta = np.ones(round(WHOLE / (2 * LENGTHS[0])))
    net, parameters = NETWORK.build()
    state = NetworkCost(net, *flatten_parameters(parameters)).state
    sent = {
        f"`loop`, {theta.size:,} parameters": as_cost(Busy(1), theta),
        f"`node`, {NETWORK.name}": kernel_arguments(state),
    }
    return {name: len(pickle.dumps(value, protocol=5)) for name, value in sent.items()}
