"""How work spreads over two workers, and what a task costs: ``python -m benchmarks.scaling``.

`loop` over processes and `node` over Dask, bitwise the same as in this process before they are
timed; and what two processes give that have nothing to do with fastgc, in the same run. Workers
are warm: the cost and its data are there, the kernels loaded.
"""

import contextlib
import importlib
import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastgc
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import as_cost
from fastgc.network.cost import NetworkCost
from fastgc.network.propagate import kernel_arguments
from fastgc.network.state import ForwardState
from fastgc.parallel import dask as over_dask
from fastgc.parallel import executor as executors
from fastgc.parallel.checkpoint import Checkpoint
from fastgc.parallel.executor import Dispatcher
from tests.cases import NetworkCase, Tensors

COMMAND = "python -m benchmarks.scaling"
LENGTHS = (1e-3, 15e-3, 50e-3)  # seconds of CPU that one evaluation takes
WHOLE = 5.0  # seconds in one process, about
ROUNDS = 3
NETWORK = NetworkCase("256-256×6-1, m = 2048", (256, *[256] * 6, 1), 2048, scale=1.4, seed=1)
TASKS = 1000
LARGE = 80 * 10**6  # bytes
SPAWN = get_context("spawn")


class Busy:
    """A cost that keeps one core busy, in sines of an array that stays in its cache."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats

    def __call__(self, theta: Any) -> float:
        values = np.linspace(0.0, 1.0, 1024) + float(theta @ theta) / theta.size
        for _ in range(self.repeats):
            np.sin(values, out=values)
        return float(values.sum())


def busy_for(seconds: float) -> Busy:
    """A `Busy` whose evaluation takes about so long here and now."""
    theta, repeats = np.ones(100), 50
    while True:
        took = min(_seconds(Busy(repeats), theta) for _ in range(25))
        if took > 2e-3:
            return Busy(max(1, round(repeats * seconds / took)))
        repeats *= 2


def _seconds(run: Callable[..., object], *values: object) -> float:
    began = time.perf_counter()
    run(*values)
    return time.perf_counter() - began


def nothing(subject: Any, *_: Any) -> Any:
    """A task without work; its outcome is as long as `subject` says, if that is a number."""
    return np.zeros(subject if isinstance(subject, int) else 1)


def evaluate_often(cost: Busy, times: int) -> float:
    """Seconds of so many evaluations; what an independent process does."""
    theta = np.ones(100)
    return _seconds(lambda: [cost(theta) for _ in range(times)])


class Machine:
    """Two processes that have nothing to do with fastgc."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self.cost = pool, busy_for(15e-3)

    def efficiency(self) -> float:
        """The time of one alone over that of both at once: what two cores give here and now."""

        def at_once(count: int) -> float:
            return max(self.pool.map(evaluate_often, [self.cost] * count, [60] * count))

        return at_once(1) / at_once(2)


@dataclass(frozen=True)
class Spread:
    """Median seconds of one piece of work.

    Attributes:
        name: what was done.
        evaluation: seconds that one evaluation takes, or 0 where that is not the unit.
        here: in this process alone, on one thread.
        one: over one worker.
        two: over two.
        first: over two, workers just started: the kernels loaded, the data sent.
        machine: the efficiency of two processes without fastgc, in the same rounds.
    """

    name: str
    evaluation: float
    here: float
    one: float
    two: float
    first: float
    machine: float

    @property
    def efficiency(self) -> float:
        return self.one / (2 * self.two)

    @property
    def of_here(self) -> float:
        return self.here / (2 * self.two)


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Executor]:
    with ProcessPoolExecutor(workers, mp_context=SPAWN) as pool:
        wait([pool.submit(time.sleep, 0.2) for _ in range(workers)])
        yield pool


@contextlib.contextmanager
def threads(workers: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(workers) as pool:
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


def spread(
    name: str,
    evaluation: float,
    run: Callable[[Executor | None], Any],
    pools: Callable[[int], contextlib.AbstractContextManager[Executor]],
) -> Spread:
    """The same work here, over one worker and over two, in turn, `ROUNDS` times."""
    found: dict[str, list[float]] = {"here": [], "one": [], "two": []}
    machine = []
    with pools(1) as one, pools(2) as two, processes(2) as apart:
        others = Machine(apart)
        began = time.perf_counter()
        wanted = run(two)
        first = time.perf_counter() - began
        for executor in (None, one):
            np.testing.assert_array_equal(run(executor), wanted)
        for _ in range(ROUNDS):
            machine.append(others.efficiency())
            for key, executor in (("here", None), ("one", one), ("two", two)):
                found[key].append(_seconds(run, executor))
    medians = {key: median(values) for key, values in found.items()}
    return Spread(name, evaluation, **medians, first=first, machine=median(machine))


def loop_over_processes(length: float) -> Spread:
    cost = busy_for(length)
    theta = np.ones(max(8, round(WHOLE / (2 * length))))
    evaluation = min(_seconds(cost, theta) for _ in range(9))

    def run(executor: Executor | None) -> Any:
        return fastgc.numerical_gradient(
            cost, theta, method="loop", progress=False, executor=executor
        )

    return spread(f"{theta.size:,} parameters", evaluation, run, processes)


def node_over_dask() -> Spread:
    net, parameters = NETWORK.build()

    def run(executor: Executor | None) -> Any:
        found = fastgc.numerical_gradient(
            net, parameters, method="node", threads=1, progress=False, executor=executor
        )
        return np.concatenate([value.ravel() for value in found.values()])

    return spread(NETWORK.name, 0.0, run, dask)


@dataclass(frozen=True)
class Task:
    """What a task costs beside its work, over two workers.

    Attributes:
        executor: its kind.
        seconds: from one task to the next, when none has any work.
        caller: of CPU in the caller's process; with Dask's LocalCluster, its scheduler's too.
        sent: seconds a byte, of a subject that every worker is sent once: packed, sent, unpacked.
        returned: seconds a byte of what comes back.
    """

    executor: str
    seconds: float
    caller: float
    sent: float
    returned: float


@contextlib.contextmanager
def chunks_of_one() -> Iterator[None]:
    """Each item a task of its own, however short."""
    before = executors.SECONDS, over_dask.SECONDS
    executors.SECONDS = over_dask.SECONDS = 0.0
    try:
        yield
    finally:
        executors.SECONDS, over_dask.SECONDS = before


def task_costs(name: str, pools: Callable[[int], Any]) -> Task:
    theta, quick = np.zeros(TASKS), Busy(0)

    def run(executor: Executor | None) -> object:
        return fastgc.numerical_gradient(
            quick, theta, method="loop", progress=False, executor=executor
        )

    with pools(2) as executor, chunks_of_one():
        here = min(_seconds(run, None) for _ in range(3))
        run(executor)
        times, caller = [], []
        for _ in range(ROUNDS):
            before = time.process_time()
            times.append(_seconds(run, executor))
            caller.append(time.process_time() - before)
        sent = returned = 0.0
        if name != "threads":
            sent, returned = _rates(executor)
    seconds = max(median(times) - here / 2, 0.0)  # the evaluations, on two workers
    spent = median(caller) - (here if name == "threads" else 0.0)
    return Task(name, seconds / TASKS, max(spent, 0.0) / TASKS, sent, returned)


def _rates(executor: Executor) -> tuple[float, float]:
    """Seconds a byte, of sending a subject and of returning what was found."""

    def once(dispatcher: Dispatcher, subject: object) -> float:
        return _seconds(lambda: dispatcher.submit(subject, nothing, ()).result())

    with contextlib.closing(Dispatcher(executor)) as dispatcher:
        sending = [once(dispatcher, np.full(LARGE // 8, float(number))) for number in range(ROUNDS)]
        once(dispatcher, LARGE // 8)
        returning = [once(dispatcher, LARGE // 8) for _ in range(ROUNDS)]
    return median(sending) / LARGE, median(returning) / LARGE


def pending_wait(count: int) -> float:
    """Seconds that one look takes for what is done, of so many chunks that are not."""
    pending: dict[Future[Any], int] = {Future(): i for i in range(count)}
    return min(_seconds(lambda: wait(pending, timeout=0.0)) for _ in range(5))


def checkpoint_costs(entries: int = 10**6) -> tuple[float, float]:
    """Seconds and bytes of keeping the results of each entry of `loop`, once."""
    results = np.random.default_rng(0).standard_normal((4, entries))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ckpt"
        with contextlib.closing(Checkpoint(path, interval=math.inf)) as checkpoint:
            checkpoint.identify({})
            checkpoint.begin(("benchmark",))

            def keep(number: int) -> None:
                checkpoint.add(number * entries, (number + 1) * entries, results)
                checkpoint.save()

            times = [_seconds(keep, number) for number in range(5)]
        return median(times) / entries, path.stat().st_size / (5 * entries)


def bytes_to_worker() -> dict[str, int]:
    """What a worker is sent once."""
    net, parameters = NETWORK.build()
    problem = NetworkCost(net, *flatten_parameters(parameters))
    state = ForwardState(net, problem.state.layers, problem.theta)
    sizes = {
        f"`loop`, {theta.size:,} parameters": len(pickle.dumps(as_cost(Busy(1), theta), protocol=5))
        for theta in (np.ones(round(WHOLE / (2 * length))) for length in LENGTHS)
    }
    sizes[f"`node`, {NETWORK.name}"] = len(pickle.dumps(kernel_arguments(state), protocol=5))
    return sizes


@dataclass(frozen=True)
class Scaling:
    """Everything measured here.

    Attributes:
        load: the machine's load averages before it began.
        loops, node: the work spread over workers.
        tasks: by kind of executor.
        waits: seconds of one look at so many pending chunks.
        saving: seconds and bytes of a checkpoint for each entry.
        sent: bytes that a worker is sent.
        parameters: of the network, and its name -> array.
        seconds: in all.
    """

    load: tuple[float, float, float]
    loops: tuple[Spread, ...]
    node: Spread
    tasks: dict[str, Task]
    waits: dict[int, float]
    saving: tuple[float, float]
    sent: dict[str, int]
    parameters: Tensors
    seconds: float


def measure() -> Scaling:
    began = time.perf_counter()
    load = os.getloadavg()
    loops = tuple(loop_over_processes(length) for length in LENGTHS)
    node = node_over_dask()
    kinds = {"threads": threads, "processes": processes, "Dask": dask}
    return Scaling(
        load, loops, node,
        tasks={name: task_costs(name, pools) for name, pools in kinds.items()},
        waits={count: pending_wait(count) for count in (8, 4000)},
        saving=checkpoint_costs(),
        sent=bytes_to_worker(),
        parameters=NETWORK.build()[1],
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def main() -> None:
    from benchmarks import scale_report, scaling  # by name, as other processes import it

    found = scaling.measure()
    print("\n".join(scale_report.tables(found)))
    print(f"{found.seconds:.0f} s")


if __name__ == "__main__":
    main()
