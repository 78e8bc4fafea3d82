"""Costs that are Numba dispatchers of one flat vector: run compiled, on threads, without the GIL."""

import math
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastgc
from fastgc import pipeline
from fastgc.core.tree import flatten_parameters
from fastgc.costs import numba_driver
from fastgc.costs.base import Base, Batch, as_cost, base_cost
from fastgc.costs.noise import noise_of_cost
from fastgc.costs.numba import NumbaCost
from fastgc.costs.numba_driver import code_of, evaluate_rows
from fastgc.methods.registry import METHODS
from fastgc.options import Choices
from fastgc.parallel.chunks import Resources
from tests.shown import naming

THETA = np.linspace(0.1, 2.0, 400)


def total(w: Any) -> float:
    s = 0.0
    for i in range(w.size):
        s += np.exp(w[i]) * (i % 7 - 3)
    return s


RIGHT = np.exp(THETA) * (np.arange(THETA.size) % 7 - 3)
compiled_total: Any = numba.njit(total)


def gradient(cost: Any, **options: Any) -> Any:
    return fastgc.numerical_gradient(cost, THETA, **options)


def test_right_and_wrong_gradients() -> None:
    report = fastgc.check(compiled_total, THETA, RIGHT)
    assert (report.method, report.verdict) == ("stacked", "correct")
    assert report.difference < 1e-8
    wrong = RIGHT.copy()
    wrong[18] *= 1.01
    report = fastgc.check(compiled_total, THETA, wrong)
    assert report.verdict == "wrong"
    assert report.tensors["parameters"].worst.name == "parameters[18]"
    assert fastgc.check(compiled_total, THETA, RIGHT, epsilon="auto").ok


def test_select_method_and_plan() -> None:
    fresh = numba.njit(total)
    assert fastgc.select_method(fresh, THETA) == "stacked"
    assert not fresh.signatures  # nothing is compiled for that
    assert fastgc.select_method(fresh, {"w": THETA}) == "loop"
    assert fastgc.select_method(fresh, [THETA]) == "loop"
    assert fastgc.select_method(fresh, THETA[np.newaxis]) == "loop"
    assert fastgc.select_method(numba.jit(forceobj=True)(total), THETA) == "loop"
    assert fastgc.select_method(total, THETA) == "loop"
    plan = fastgc.plan(compiled_total, THETA)
    assert (list(plan.forecasts), plan.chosen) == (["loop", "stacked", "random"], "stacked")
    assert plan.forecasts["stacked"].perturbations == 2 * THETA.size


def test_it_agrees_with_the_loop() -> None:
    for seed in range(5):
        theta = np.random.default_rng(seed).standard_normal(50)
        problem = as_cost(compiled_total, theta)
        base = Base(problem.value(theta), 1e-14)
        resources = Resources(2**28, 2, lambda _: None)
        loop, stacked = (
            METHODS[method].approximate(problem, None, base, 1e-7, resources)
            for method in ("loop", "stacked")
        )
        bound = loop.uncertainty + stacked.uncertainty
        assert (np.abs(loop.gradapprox - stacked.gradapprox) <= bound).all()


def blocked(cost: Any, rows: int, *, threads: int) -> Any:
    """`gradient` of a cost that is called with no more than so many `rows`."""
    made = type("Blocked", (NumbaCost,), {"batch": Batch(most=rows)})
    return pipeline.numerical_gradient(
        made(cost, *flatten_parameters(THETA), None, {}), Choices(threads=threads)
    )


@pytest.mark.parametrize("fastmath", [False, True])
def test_threads_memory_and_blocks_change_no_bit(fastmath: bool) -> None:
    cost = numba.njit(total, fastmath=fastmath)
    wanted = gradient(cost, threads=1)
    little = 2 * 8 * THETA.size
    for threads in (1, 2, 5):
        for memory in (little, 50 * little, 2**28):
            found = gradient(cost, threads=threads, memory=memory, method="stacked")
            assert np.array_equal(found, wanted)
    for rows in (1, 30, 10**6):
        assert np.array_equal(blocked(cost, rows, threads=2), wanted)


def test_it_runs_on_threads_and_without_the_gil() -> None:
    names = set()

    class Noted(NumbaCost):
        batch = Batch(most=10)

        def run(self, *arguments: Any) -> Any:
            names.add(threading.current_thread().name.split("_")[0])
            return super().run(*arguments)

    cost = Noted(compiled_total, *flatten_parameters(THETA), None, {})
    pipeline.numerical_gradient(cost, Choices(threads=2))
    assert names == {"fastgc"}
    names.clear()
    pipeline.numerical_gradient(cost, Choices(threads=1))
    assert names == {threading.current_thread().name}
    assert evaluate_rows.targetoptions["nogil"]  # type: ignore[attr-defined]  # a dispatcher


def test_blas_is_held_to_one_thread_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def blas_threads() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

    seen = []

    def driver(*arguments: Any) -> None:
        seen.append(blas_threads())
        evaluate_rows(*arguments)

    monkeypatch.setattr(numba_driver, "driver", lambda: driver)
    A = np.arange(12.0).reshape(3, 4)

    @numba.njit
    def cost(w: Any) -> Any:
        return np.dot(A, w).sum()

    assert fastgc.check(cost, THETA[:4].copy(), A.sum(axis=0)).ok
    assert seen
    assert all(set(numbers) == {1} for numbers in seen)
    assert len(seen[-1]) == len(blas_threads())


def test_what_needs_the_same_thread_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def concurrent(cost: Any) -> bool:
        cost(THETA)
        return as_cost(cost, THETA).traits.thread_safe

    monkeypatch.setattr(numba, "threading_layer", lambda: "omp")
    assert concurrent(compiled_total)
    # a look-alike: to compile a real one starts the threads of this process' threading layer
    parallel: Any = SimpleNamespace(
        overloads=compiled_total.overloads, targetoptions={"parallel": True}
    )
    assert not NumbaCost(parallel, *flatten_parameters(THETA)).traits.thread_safe
    monkeypatch.setattr(numba, "threading_layer", lambda: "workqueue")
    assert not concurrent(compiled_total)

    def not_initialised() -> str:
        raise ValueError("Threading layer is not initialized.")

    monkeypatch.setattr(numba, "threading_layer", not_initialised)
    assert concurrent(compiled_total)
    assert not as_cost(total, THETA).traits.thread_safe


NESTED = """
import numba, numpy as np, fastgc
@numba.njit(parallel=True)
def inner(w):
    s = 0.0
    for i in numba.prange(w.size):
        s += w[i] ** 2
    return s
cost = numba.njit(lambda w: inner(w))
theta = np.linspace(0.1, 1.0, 3000)
for f in (inner, cost):
    report = fastgc.check(f, theta, 2 * theta, threads=2)
    assert report.ok and report.method == "stacked", report
"""


@pytest.mark.slow
def test_a_prange_within_does_not_abort() -> None:
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    run = subprocess.run(
        [sys.executable, "-c", NESTED], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_second_check_compiles_nothing() -> None:
    fastgc.check(compiled_total, THETA, RIGHT)
    integer = numba.njit(lambda w: int(w[0] * 2**40))
    fastgc.numerical_gradient(integer, THETA)
    wrapped = code_of(integer)
    versions = len(compiled_total.signatures), len(integer.signatures), len(_signatures())
    other = numba.njit(total)
    for cost in (compiled_total, other, integer):
        fastgc.numerical_gradient(cost, THETA)
    assert code_of(integer) is wrapped
    assert (
        len(compiled_total.signatures), len(integer.signatures), len(_signatures())
    ) == versions == (1, 1, 1)  # fmt: skip


def _signatures() -> Any:
    return evaluate_rows.signatures  # type: ignore[attr-defined]  # a dispatcher


NO_WRAPPER: Any = {"no_cfunc_wrapper": True}


def _sometimes(w: Any) -> Any:
    return None if w[0] > 100.0 else np.exp(w[0]) + w[1]


@pytest.mark.parametrize(
    ("cost", "runs_alone"),
    [
        (numba.njit("float64(float64[:])")(lambda w: np.exp(w[0]) + w[1]), True),
        (numba.njit(lambda w, a=1.0: a * np.exp(w[0]) + w[1]), True),
        (numba.njit(**NO_WRAPPER)(lambda w: np.exp(w[0]) + w[1]), True),
        (numba.njit(_sometimes), False),
        (numba.njit(lambda w: np.array(np.exp(w[0]) + w[1])), False),
    ],
    ids=["any layout", "default", "no C wrapper", "optional", "0-d"],
)
def test_unusual_dispatchers(cost: Any, runs_alone: bool) -> None:
    theta = np.array([0.5, 2.0])
    report = fastgc.check(cost, theta, np.array([math.exp(0.5), 1.0]))
    assert (report.method, report.verdict) == ("stacked", "correct")
    assert (code_of(cost) is not None) == runs_alone


def test_single_precision_and_integers_are_costs() -> None:
    single = numba.njit(lambda w: np.float32(w[0]))
    for cost in (single, numba.njit(lambda w: int(w[0]))):
        found = fastgc.numerical_gradient(cost, np.array([2.0, 1.0]), epsilon=1.0)
        assert found.tolist() == [1.0, 0.0]


def test_an_option_for_python_is_kept() -> None:
    seeds: list[int] = []
    assert fastgc.check(compiled_total, THETA[:30], RIGHT[:30], reseed=lambda: seeds.append(1)).ok
    assert len(seeds) > 60  # before every evaluation
    stacked = numba.njit(lambda w: (w * w).sum(axis=1))
    problem = as_cost(stacked, THETA, vectorized=True)
    assert not isinstance(problem, NumbaCost)
    assert fastgc.check(stacked, THETA, 2 * THETA, vectorized=True).ok


def _writes(w: Any) -> Any:
    w[3] += 1.0
    return w[0]


def _raises(w: Any) -> Any:
    if w[0] > 0:
        raise ValueError("no such loss")
    return w[0]


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (lambda w: 2.0 * w, TypeError, "(400,)"),
        (lambda w: w[0] > 0, TypeError, "the cost … bool"),
        (lambda w: None, TypeError, "the cost … None"),
        (lambda w: (w[0], w), TypeError, "the cost … tuple"),
        (lambda w: w[0] * 1j, TypeError, "the cost … complex"),
        (lambda w: w[0] * np.inf, ValueError, "the cost is inf"),
        (lambda w: np.random.random() + w[0], ValueError, "the cost differs"),
        (_writes, ValueError, "the cost … parameters[3]"),
        (_raises, ValueError, "no such loss"),
        (lambda w: 1.0 / int(0.0 * w[0]), ZeroDivisionError, "division by zero"),
    ],
)  # fmt: skip
def test_costs_that_misbehave(cost: Any, error: type[Exception], message: str) -> None:
    mine = THETA.copy()
    with pytest.raises(error, match=naming(message)):
        fastgc.check(numba.njit(cost), mine, RIGHT)
    assert np.array_equal(mine, THETA)


def test_randomness_that_two_calls_do_not_show_is_told() -> None:
    problem = as_cost(compiled_total, THETA)
    cost, _ = base_cost(problem)
    values = problem.values
    problem.values = lambda rows: values(rows) + 1.0  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="random"):
        noise_of_cost(problem, cost, 2**28)


def test_a_cost_that_writes_elsewhere_spoils_no_block() -> None:
    first = THETA[0]

    def cost(w: Any) -> Any:
        value = w[5] * w[6]
        if w[0] != first:
            w[:] = 7.0
        return value

    right = np.zeros(THETA.size)
    right[5], right[6] = THETA[6], THETA[5]
    found = blocked(numba.njit(cost), 10, threads=1)  # rows of a block serve for the next
    np.testing.assert_allclose(found, right, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_at_a_perturbation_leaves_the_other_side(threads: int) -> None:
    edge = THETA[123] + 0.9e-7

    @numba.njit
    def cost(w: Any) -> Any:
        if w[123] > edge:
            raise ValueError("beyond", w[123])
        return 2.0 * w[0] + 3.0 * w[123]

    found = gradient(cost, threads=threads)
    np.testing.assert_allclose(found[[0, 123]], [2.0, 3.0], rtol=1e-6)
    right = np.zeros(THETA.size)
    right[[0, 123]] = 2.0, 3.0
    assert fastgc.check(cost, THETA, right, threads=threads).ok
    right[123] = 3.01
    assert fastgc.check(cost, THETA, right, threads=threads).worst(1)[0].name == "parameters[123]"


SLOW = """
import numba, numpy as np, fastgc
@numba.njit
def cost(w):
    s = 0.0
    for k in range(10000):
        for i in range(w.size):
            s += np.sin(w[i] * k)
    return s
theta = np.linspace(0.1, 1.0, 2000)
cost(theta)
import sys, threading
from fastgc.costs.numba import NumbaCost
whole = NumbaCost.run
def costs(*arguments):
    assert threading.current_thread() is not threading.main_thread()
    sys.stdout.write("running\\n")  # in one piece, whichever thread writes
    sys.stdout.flush()
    return whole(*arguments)
NumbaCost.run = costs
fastgc.numerical_gradient(cost, theta, threads=2)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_ctrl_c_stops_a_slow_cost_on_threads() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(
            timeout=30
        )  # a block of 4 MiB would take a minute, this one a second
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode != 0
