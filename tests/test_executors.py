"""executor=: the work spread over threads, processes and Dask; the same bits, nothing lost or left."""

import dataclasses
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastgc
from fastgc.costs.base import as_cost
from fastgc.parallel.chunks import Chunking, Resources, _Todo, perform
from fastgc.parallel.executor import Dispatcher, in_threads
from fastgc.parallel.worker import Held
from tests.cases import Frozen, NetworkCase, backward
from tests.strategies import slow

ROOT = Path(__file__).parent.parent
THETA = {"W": np.random.default_rng(0).standard_normal((7, 9)), "b": np.arange(3.0)}
GRADIENTS = {"W": np.cos(THETA["W"]), "b": 2 * THETA["b"]}
WRONG = {"W": 1.01 * GRADIENTS["W"], "b": GRADIENTS["b"]}
P = 66

# Python 3.12 warns of any fork beside threads
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


class Pair(NamedTuple):
    W: Any
    b: Any


def smooth(p: Any) -> float:
    return float(np.sum(np.sin(p["W"])) + p["b"] @ p["b"])


def of_pair(p: Pair) -> float:
    assert type(p) is Pair
    return smooth(p._asdict())


def stacked(p: Any) -> Any:
    return np.sin(p["W"]).sum(axis=(1, 2)) + (p["b"] ** 2).sum(axis=1)


def strict(p: Any) -> float:
    """Shows under which floating-point settings it runs."""
    assert np.geterr()["under"] == "raise"
    return smooth(p)


class Total:
    def __call__(self, p: Any) -> float:
        assert type(p) in (dict, list, tuple, np.ndarray)
        values = [p] if isinstance(p, np.ndarray) else p.values() if isinstance(p, dict) else p
        return float(sum(np.sum(value) for value in values))


def underflows(p: Any) -> float:
    return float((p * 1e-3).sum())


class Killed(BaseException):
    """What ends a check, other than Ctrl-C."""


class Refusal(Exception):  # noqa: N818  named as what it is
    pass


class Stubborn(Exception):  # noqa: N818  named as what it is
    """One that cannot be unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}, {why}")


@dataclasses.dataclass
class Raises:
    """Raises at one perturbation."""

    error: Callable[[], BaseException]

    def __call__(self, p: Any) -> float:
        if p["W"][1, 2] > THETA["W"][1, 2] and p["W"][1, 3] == THETA["W"][1, 3]:
            raise self.error()
        return smooth(p)


class Data:
    """Data that say where they were unpickled."""

    def __init__(self, log: Path, more: int = 0) -> None:
        self.log, self.values = log, np.random.default_rng(1).standard_normal((7, 9))
        self.more = np.zeros(more)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")


class Weighted:
    def __init__(self, data: Data) -> None:
        self.data = data

    def __call__(self, p: Any) -> float:
        assert self.data.values.flags.writeable
        return float(np.sum(self.data.values * np.sin(p["W"])) + p["b"] @ p["b"])


class Deadly:
    """Counts its calls in a file; the worker that makes number `last` dies, the first time."""

    def __init__(self, folder: Path, last: int) -> None:
        self.log, self.marker, self.last = folder / "calls", folder / "died", last
        self.home = os.getpid()

    def __call__(self, p: Any) -> float:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        dies = os.getpid() != self.home and not self.marker.exists()
        if dies and len(self.log.read_text().split()) >= self.last:
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return smooth(p)


class Draws:
    """A random cost, of one generator for all."""

    def __init__(self) -> None:
        self.rng = np.random.RandomState(0)

    def __call__(self, p: Any) -> float:
        return smooth(p) + self.rng.standard_normal()

    def reseed(self) -> None:
        self.rng.seed(3)


def plain(report: fastgc.Report) -> dict[str, Any]:
    return {**report.to_dict(), "seconds": 0}


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Executor]]:
    """Executors by name, each made when it is first asked for."""
    found: dict[str, Executor] = {}
    yield found
    for executor in found.values():
        executor.shutdown()


def _dask(workers: int = 2) -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    config = pytest.importorskip("dask.config", reason="needs the extra dask")
    with (
        # how long it waits for a worker that was killed: half a minute otherwise
        config.set({"distributed.comm.timeouts.connect": "3s"}),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


dask = pytest.fixture(_dask, scope="module")


@pytest.fixture
def lone_dask() -> Iterator[Executor]:
    yield from _dask(workers=1)


@pytest.fixture(params=["threads", "fork", slow("spawn"), "dask"])
def executor(request: pytest.FixtureRequest, made: dict[str, Executor]) -> Executor:
    name = request.param
    if name == "dask":
        found: Executor = request.getfixturevalue("dask")
        return found
    if name == "fork" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork")
    if name not in made:
        made[name] = (
            ThreadPoolExecutor(3)
            if name == "threads"
            else ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(name))
        )
    return made[name]


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2) as pool:
        yield pool


def test_a_function_gets_the_same_bits(executor: Executor) -> None:
    for gradients in (GRADIENTS, WRONG):
        alone = fastgc.check(smooth, THETA, gradients)
        spread = fastgc.check(smooth, THETA, gradients, executor=executor)
        assert plain(spread) == plain(alone)
        assert spread.ok == (gradients is GRADIENTS)
    pair, wanted = Pair(**THETA), Pair(**GRADIENTS)
    spread = fastgc.check(of_pair, pair, wanted, epsilon="auto", executor=executor)
    assert plain(spread) == plain(fastgc.check(of_pair, pair, wanted, epsilon="auto"))
    found = fastgc.numerical_gradient(smooth, THETA, executor=executor)
    for name, value in fastgc.numerical_gradient(smooth, THETA).items():
        assert np.array_equal(found[name], value)


@pytest.mark.parametrize("method", ["node", slow("loop"), slow("random"), slow("incremental")])
def test_a_network_gets_the_same_bits(executor: Executor, method: str) -> None:
    widths = (6, 12, 10, 1) if method == "loop" else (6, 300, 10, 1)
    drawn, parameters = NetworkCase("spread", widths, 16).build()
    X = drawn.X.copy()
    X[:, 0] = parameters["b1"][:] = 0.0  # a sample at every corner of the first layer
    net = fastgc.Network(X, drawn.Y)
    right = backward(net, parameters)
    wrong = {name: value * (1.1 if name == "W2" else 1.0) for name, value in right.items()}
    for gradients in (right, wrong):
        alone = fastgc.check(net, parameters, gradients, method=method)
        spread = fastgc.check(net, parameters, gradients, method=method, executor=executor)
        assert plain(spread) == plain(alone)


def test_parts_and_directions_of_a_function_get_the_same_bits(executor: Executor) -> None:
    wrong = {"W": GRADIENTS["W"].copy(), "b": GRADIENTS["b"]}
    wrong["W"][3, 4] += 0.1
    options: tuple[dict[str, Any], ...] = (
        {"method": "random"}, {"method": "random", "per_tensor": False}, {"only": ["b"]},
        {"sample": 5, "seed": 2}, {"method": "random", "epsilon": "auto", "only": "W"},
    )  # fmt: skip
    for chosen in options:
        for gradients in (GRADIENTS, wrong):
            alone = fastgc.check(smooth, THETA, gradients, **chosen)
            spread = fastgc.check(smooth, THETA, gradients, executor=executor, **chosen)
            assert plain(spread) == plain(alone)


def test_the_callers_settings_hold_on_workers(executor: Executor) -> None:
    with np.errstate(under="raise"):
        assert fastgc.check(strict, THETA, GRADIENTS, executor=executor).ok


def test_an_exception_at_a_perturbation_leaves_the_other_side(executor: Executor) -> None:
    for error in (
        partial(Refusal, "no"), partial(Stubborn, "no", "never"), partial(Frozen, "frozen")
    ):  # fmt: skip
        cost = Raises(error)
        report = fastgc.check(cost, THETA, GRADIENTS, executor=executor)
        assert report.ok
        alone = fastgc.check(cost, THETA, GRADIENTS)
        assert plain(report) == plain(alone)
    # the executor is as good as before
    assert fastgc.check(smooth, THETA, GRADIENTS, executor=executor).ok


def test_data_go_to_a_worker_once(executor: Executor, tmp_path: Path) -> None:
    cost = Weighted(Data(tmp_path / "log"))
    wrong = {"W": cost.data.values, "b": GRADIENTS["b"]}
    assert not fastgc.check(cost, THETA, wrong, executor=executor)
    threads = isinstance(executor, ThreadPoolExecutor)
    pids = [] if threads else (tmp_path / "log").read_text().split()
    assert len(pids) == len(set(pids)) <= 2
    assert threads or pids


def test_stacks_are_left_to_the_loop() -> None:
    with ThreadPoolExecutor(2) as pool:
        report = fastgc.check(stacked, THETA, GRADIENTS, vectorized=True, executor=pool)
        assert (report.ok, report.method) == (True, "loop")
        with pytest.raises(ValueError, match='method "stacked"'):
            fastgc.check(
                stacked, THETA, GRADIENTS, vectorized=True, method="stacked", executor=pool
            )


def test_a_random_cost_is_reseeded_on_its_worker(processes: Executor) -> None:
    cost = Draws()
    alone = fastgc.check(cost, THETA, GRADIENTS, reseed=cost.reseed)
    spread = fastgc.check(cost, THETA, GRADIENTS, reseed=cost.reseed, executor=processes)
    assert plain(alone) == plain(spread)
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(ValueError, match="reseed="),
    ):
        fastgc.check(cost, THETA, GRADIENTS, reseed=cost.reseed, executor=pool)


@pytest.mark.parametrize("wrong", [4, "threads", ThreadPoolExecutor, multiprocessing])
def test_what_is_no_executor_is_refused(wrong: Any) -> None:
    for call in (
        partial(fastgc.check, smooth, THETA, GRADIENTS),
        partial(fastgc.numerical_gradient, smooth, THETA),
    ):
        with pytest.raises(TypeError, match=f"executor is a {type(wrong).__name__}"):
            call(executor=wrong)


def test_a_cost_that_cannot_be_sent(processes: Executor, dask: Executor) -> None:
    scale = 2.0
    calls = []

    def local(p: Any) -> float:
        calls.append(1)
        return smooth(p)

    for cost in (local, lambda p: smooth(p), Weighted(threading.Lock())):  # type: ignore[arg-type]  # of all kinds
        with pytest.raises(TypeError, match="the cost cannot be sent"):
            fastgc.check(cost, THETA, GRADIENTS, executor=processes)
    assert not calls
    report = fastgc.check(lambda p: scale * smooth(p) / 2, THETA, GRADIENTS, executor=dask)
    assert report.ok


def test_a_cost_that_workers_cannot_import() -> None:
    script = """
import multiprocessing, numpy as np, fastgc
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
    exec("def cost(w): return float(w @ w)")
    fastgc.check(cost, np.ones(3), 2 * np.ones(3), executor=pool)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert re.search(
        r"TypeError: the cost cannot be loaded .* AttributeError: .*attribute 'cost'", run.stderr
    ), run.stderr


def test_a_killed_worker_loses_nothing_that_is_done(tmp_path: Path, processes: Executor) -> None:
    cost = Deadly(tmp_path, last=90)
    with pytest.warns(RuntimeWarning, match="lost a worker") as caught:
        report = fastgc.check(cost, THETA, GRADIENTS, executor=processes)
    [lost] = [w for w in caught if "lost a worker" in str(w.message)]  # JAX may warn of a fork
    told = re.search(r"\(BrokenProcessPool: .*\): (\d+) of 132 ", str(lost.message))
    assert told
    here = (tmp_path / "calls").read_text().split().count(str(os.getpid()))
    assert int(told[1]) > 0
    assert here == report.evaluations - int(told[1])
    assert plain(report) == plain(fastgc.check(smooth, THETA, GRADIENTS))


def test_a_broken_executor_is_done_without() -> None:
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(Exception, match="terminated abruptly"):
            pool.submit(os._exit, 1).result()
        with pytest.warns(RuntimeWarning, match="0 of 132 .* never start") as caught:
            report = fastgc.check(smooth, THETA, WRONG, executor=pool)
    assert len(caught) == 1  # later looks know
    assert plain(report) == plain(fastgc.check(smooth, THETA, WRONG))


def test_dask_survives_a_killed_worker(tmp_path: Path, dask: Executor) -> None:
    cost = Deadly(tmp_path, last=90)
    report = fastgc.check(cost, THETA, GRADIENTS, executor=dask)
    assert (tmp_path / "died").exists()
    assert plain(report) == plain(fastgc.check(smooth, THETA, GRADIENTS))


@pytest.mark.slow
def test_dask_goes_on_where_its_only_worker_was_killed(tmp_path: Path, lone_dask: Executor) -> None:
    report = fastgc.check(Deadly(tmp_path, last=90), THETA, GRADIENTS, executor=lone_dask)
    assert (tmp_path / "died").exists()
    assert plain(report) == plain(fastgc.check(smooth, THETA, GRADIENTS))


@pytest.mark.filterwarnings("ignore:the executor has lost a worker:RuntimeWarning")
@pytest.mark.slow
def test_a_task_that_kills_every_dask_worker_is_given_up(lone_dask: Executor) -> None:
    report = fastgc.check(Fatal(os.getpid()), THETA, GRADIENTS, executor=lone_dask)
    assert plain(report) == plain(fastgc.check(smooth, THETA, GRADIENTS))


@dataclasses.dataclass
class Fatal:
    """Ends any worker that gets to one perturbation, as a crash of compiled code does."""

    home: int

    def __call__(self, p: Any) -> float:
        if p["b"][1] < THETA["b"][1] and os.getpid() != self.home:
            os._exit(9)
        return smooth(p)


@pytest.mark.filterwarnings("ignore:the executor has lost a worker:RuntimeWarning")
@pytest.mark.slow
def test_a_quick_task_that_kills_its_dask_worker_hangs_nothing(dask: Executor) -> None:
    report = fastgc.check(Fatal(os.getpid()), THETA, GRADIENTS, executor=dask)
    assert plain(report) == plain(fastgc.check(smooth, THETA, GRADIENTS))


class Elsewhere(Executor):
    """A machine of its own: no file of ours is there, and what it gets has been pickled."""

    def __init__(self) -> None:
        self.payloads: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        payload, *others = pickle.loads(pickle.dumps(args))
        self.payloads.append(payload)
        payload = dataclasses.replace(payload, path="nowhere")
        future: Future[Any] = Future()
        future.set_result(fn(payload, *others, **kwargs))
        return future


def test_a_worker_on_another_machine_gets_the_bytes_once(tmp_path: Path) -> None:
    executor = Elsewhere()
    cost = Weighted(Data(tmp_path / "log"))
    alone = fastgc.check(cost, THETA, WRONG)
    assert plain(fastgc.check(cost, THETA, WRONG, executor=executor)) == plain(alone)
    assert sum(payload.content is not None for payload in executor.payloads) == 1
    assert len((tmp_path / "log").read_text().split()) == 1


def test_dask_workers_on_other_machines_get_the_bytes_once(tmp_path: Path, dask: Executor) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    whole = []

    class Afar(type(dask)):  # type: ignore[misc]  # Dask's class
        def submit(self, fn: Any, payload: Any, *args: Any, **kwargs: Any) -> Any:
            whole.append(payload.content is not None)
            payload = dataclasses.replace(payload, path="nowhere")
            return super().submit(fn, payload, *args, **kwargs)

    cost = Weighted(Data(tmp_path / "log", more=1_500_000))  # of which Dask would warn
    report = fastgc.check(cost, THETA, WRONG, executor=Afar(distributed.default_client()))
    assert plain(report) == plain(fastgc.check(cost, THETA, WRONG))
    pids = (tmp_path / "log").read_text().split()
    assert len(pids) == len(set(pids)) == sum(whole) <= 2


class Losing(ThreadPoolExecutor):
    """Loses a task in three, in a way of its own."""

    submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        if self.submitted % 3:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_exception(OSError("the line is dead.\nTraceback …"))
        return future


def test_what_other_workers_finish_is_kept() -> None:
    with Losing(2) as executor:
        with pytest.warns(
            RuntimeWarning, match=r"\(OSError: the line is dead\): \d+ of 132 "
        ) as all_:
            report = fastgc.check(smooth, THETA, WRONG, executor=executor)
        assert len(all_) == 1
    assert plain(report) == plain(fastgc.check(smooth, THETA, WRONG))


class Forgetful(ThreadPoolExecutor):
    """Some of its futures do not end, once the first have."""

    submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        return Future() if self.submitted % 7 == 0 else super().submit(fn, *args, **kwargs)


def doubled(_: None, items: Any, _advance: Any) -> Any:
    time.sleep(0.001)
    return np.stack([2.0 * items, -items])


def test_a_future_that_never_ends_is_not_waited_for() -> None:
    with Forgetful(2) as executor:
        dispatcher, found = Dispatcher(executor, patience=0.2), np.zeros((2, 200))
        resources = Resources(0, 1, lambda _: None, chunking=Chunking(dispatcher))
        with pytest.warns(RuntimeWarning, match=r"\(no result for \d+ s\): \d+ of 200 "):
            perform(doubled, None, (np.arange(200.0),), found, resources, perturbations=200)
    assert np.array_equal(found, np.stack([2 * np.arange(200.0), -np.arange(200.0)]))


def refuses(subject: int, items: Any, _advance: Any) -> Any:
    if 7 in items:
        raise Stubborn("no", "never") if os.getpid() == subject else MemoryError
    return items[np.newaxis]


def test_what_the_work_raises_is_raised_here(processes: Executor) -> None:
    resources = Resources(0, 1, lambda _: None, chunking=Chunking(Dispatcher(processes)))
    perform_on = partial(
        perform, refuses, items=(np.arange(9.0),), resources=resources, perturbations=9
    )
    found = np.zeros((1, 9))
    with pytest.warns(RuntimeWarning, match="MemoryError"), pytest.raises(Stubborn, match="never"):
        perform_on(subject=os.getpid(), out=found)


@pytest.mark.parametrize(
    "parameters", [THETA, [*THETA.values()], (1.0, THETA["W"]), THETA["W"], 3.0]
)
def test_a_problem_is_posed_again_from_its_pickle(parameters: Any) -> None:
    problem = as_cost(Total(), parameters)
    again = pickle.loads(pickle.dumps(problem))
    assert again.value(again.theta) == problem.value(problem.theta)
    assert again.layout.names == problem.layout.names


def test_the_callers_handler_of_floating_point_errors_is_called() -> None:
    seen: list[str] = []
    theta = np.array([1e-320])
    with ThreadPoolExecutor(1) as pool, np.errstate(under="call", call=lambda *_: seen.append("")):
        fastgc.numerical_gradient(underflows, theta, epsilon=1e-321, executor=pool)
    assert seen


class Watched(ProcessPoolExecutor):
    """Sees the folders of what it is sent, and who else may read them."""

    def __init__(self) -> None:
        super().__init__(2)
        self.modes: dict[Path, int] = {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        folder = Path(args[0].path).parent
        self.modes[folder] = folder.stat().st_mode & 0o077
        return super().submit(fn, *args, **kwargs)


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Watched() as executor:
        assert fastgc.check(smooth, THETA, GRADIENTS, executor=executor).ok
        with pytest.raises(Killed):
            fastgc.check(Raises(Killed), THETA, GRADIENTS, executor=executor)
        with pytest.raises(ValueError, match="sample"):
            fastgc.check(smooth, THETA, GRADIENTS, sample=0, executor=executor)
    assert list(executor.modes.values()) == [0, 0]
    assert not list(tmp_path.iterdir())


def test_chunks_are_as_long_as_they_should_be() -> None:
    done = np.zeros(1000, dtype=np.bool_)
    done[100:900] = True
    todo = _Todo(done, 0.2, workers=5)
    sizes = []
    for chunk in todo:
        assert not done[slice(*chunk)].any()
        done[slice(*chunk)] = True
        sizes.append(chunk[1] - chunk[0])
        todo.took(chunk, 1e-3 * sizes[-1])
    assert done.all()
    # growing, no more than a share of all, then shares of what is left
    assert sizes == [1, 8, 20, 18, 16, 14, 13, 10, 10, 9, 9, 8, 7, 6, 6, *[5] * 9]
    todo.took((0, 10), 1.0)
    assert todo._size == 2
    todo.give_back((3, 5))
    assert next(todo) == (3, 4)
    alone = _Todo(np.zeros(1000, dtype=np.bool_), 0.2, workers=0)
    alone.took((0, 100), 0.02)
    assert next(alone) == (0, 800)


def unhurried(_: None, items: Any, _advance: Any) -> Any:
    time.sleep(0.05)
    return items[np.newaxis]


def test_workers_are_counted_by_what_they_bring() -> None:
    with ThreadPoolExecutor(5) as executor:
        dispatcher = Dispatcher(executor)
        resources = Resources(0, 1, lambda _: None, chunking=Chunking(dispatcher))
        perform(unhurried, None, (np.arange(40.0),), np.zeros((1, 40)), resources, perturbations=40)
    assert dispatcher.workers == 5
    assert isinstance(dispatcher.payload(THETA), Held)
    assert not in_threads(Elsewhere())


SCRIPT = """
import multiprocessing, os, signal, sys, time, numpy as np, fastgc
from concurrent.futures import {pool}
signal.signal(signal.SIGINT, signal.default_int_handler)
def cost(w):
    if w[50] != 1.0:
        print("begun", flush=True)
        time.sleep({last})
    time.sleep({pause})
    return float(w.sum())
with {pool}(2) as pool:
    try:
        report = fastgc.check(cost, np.ones(100), np.ones(100), executor=pool)
        print("done", report.verdict)
    except KeyboardInterrupt:
        print("left", flush=True)
        for child in multiprocessing.active_children():
            child.kill()
        raise
"""


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_ctrl_c_does_not_wait_for_workers(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(pool="ProcessPoolExecutor", pause=0.01, last=600)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begun\n":  # a worker is at an evaluation of ten minutes
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert "left\n" in output
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not list(tmp_path.glob("fastgc-*"))
    deadline = time.monotonic() + 30
    while _lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(process.pid)


@pytest.mark.slow
def test_the_bar_counts_what_workers_do() -> None:
    pytest.importorskip("pty", reason="needs a POSIX terminal")
    from tests.test_progress import in_terminal

    status, output = in_terminal(SCRIPT.format(pool="ProcessPoolExecutor", pause=0.02, last=0))
    assert status == 0
    assert re.search(r"\d+/200", output)
    assert re.search(r"evaluations, \d+/s, left", output)
    assert output.rstrip().endswith("done correct")


@pytest.mark.usefixtures("dask")
def test_the_readmes_lines_for_dask() -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    block = re.search(r"```py\n(from dask.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    names: dict[str, Any] = {
        "fastgc": fastgc,
        "address": distributed.default_client().scheduler.address,
        "cost": smooth,
        "theta": THETA,
        "gradients": GRADIENTS,
    }
    exec(block[1], names)
    assert names["report"].ok
    assert len(block[1].strip().splitlines()) <= 5


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_is_shut_down(kind: type[Executor]) -> None:
    pool = kind()
    pool.shutdown()
    with pytest.raises(ValueError, match="executor= takes no work"):
        fastgc.check(smooth, THETA, GRADIENTS, executor=pool)
