"""Every method of the registry against closed forms, against 50 digits, and against the loop."""

import copy
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import Base, Cost, as_cost, base_cost
from fastgc.costs.noise import noise_of_cost
from fastgc.methods.base import Approximation
from fastgc.methods.loop import LOOP
from fastgc.methods.registry import METHODS as ALL_METHODS
from fastgc.methods.stacked import block_size
from fastgc.options import Choices
from fastgc.parallel.chunks import Resources
from tests import exact
from tests.cases import ENTRYWISE, FUNCTIONS, NETWORKS, FunctionCase, NetworkCase
from tests.strategies import examples, networks

METHODS = {name: ALL_METHODS[name] for name in ENTRYWISE}
MEMORY = 256 * 2**20

#: The methods that take any cost, and those that look inside a Network.
ANY_COST = [name for name, method in METHODS.items() if not method.exact]
EXACT = [name for name, method in METHODS.items() if method.exact]


def run(name: str, problem: Cost, *, memory: int = MEMORY, threads: int = 1) -> Approximation:
    cost, _ = base_cost(problem)
    noise = noise_of_cost(problem, cost, 2**28)[0].noise
    resources = Resources(memory=memory, threads=threads, advance=lambda _: None)
    method = METHODS[name]
    return method.approximate(problem, None, Base(cost, noise), method.epsilon, resources)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda case: case.name)
def test_closed_forms(method: str, case: FunctionCase) -> None:
    for cost, vectorized in ((case.cost, False), (case.stacked, True)):
        problem = as_cost(cost, case.parameters, vectorized=vectorized)
        if METHODS[method].refusal(problem) is not None:
            assert not vectorized or method in EXACT
            continue
        found = run(method, problem)
        _, wanted = flatten_parameters(case.gradients)
        error = np.abs(found.gradapprox - wanted)
        assert (error <= found.uncertainty + 1e-9 * np.abs(wanted)).all()
        assert (found.uncertainty < 1e-6 * (1 + np.abs(wanted))).all()
        assert found.evaluations == 2 * wanted.size


@pytest.mark.parametrize("method", METHODS)
@given(case=networks(max_depth=3, max_width=5, max_samples=5), data=st.data())
@examples(25)
def test_networks_agree_with_mpmath(method: str, case: NetworkCase, data: st.DataObject) -> None:
    net, parameters = case.build()
    found = run(method, as_cost(net, parameters))
    layout, _ = flatten_parameters(parameters)
    k = data.draw(st.integers(0, layout.size - 1))
    tensor = int(np.searchsorted(layout.offsets, k, side="right")) - 1
    index = layout.index(tensor, k - layout.offsets[tensor])
    wanted = exact.central_difference(
        net, parameters, layout.names[tensor], (index[0], index[1]), METHODS[method].epsilon
    )
    # the step as rounded is off by u·|θ|/ε, which second differences turn into an error of ĝ
    uncertainty = 1e-9 * (1.0 + abs(float(wanted))) if method in ANY_COST else 0.0
    assert abs(found.gradapprox[k] - float(wanted)) <= found.uncertainty[k] + uncertainty


@pytest.mark.parametrize("method", [name for name in METHODS if name != "loop"])
@given(case=networks(max_scale=10.0))
@examples(40)
def test_methods_agree_with_the_loop(method: str, case: NetworkCase) -> None:
    net, parameters = case.build()
    problem = as_cost(net, parameters)
    reference, found = run("loop", problem), run(method, problem)
    bound = reference.uncertainty + found.uncertainty
    assert (np.abs(found.gradapprox - reference.gradapprox) <= bound).all()
    assert found.evaluations == METHODS[method].evaluations(problem, problem.layout, Choices())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_memory_and_threads_change_no_bit(method: str, case: NetworkCase) -> None:
    net, parameters = case.build()
    problem = as_cost(net, parameters)
    reference = run(method, problem)
    little = max(METHODS[method].least_memory(problem), 1)
    for memory in (little, 3 * little, 7 * little + 8, MEMORY):
        for threads in (1, 2, 5):
            found = run(method, problem, memory=memory, threads=threads)
            assert np.array_equal(found.gradapprox, reference.gradapprox)
            assert np.array_equal(found.uncertainty, reference.uncertainty)


def test_memory_is_a_ceiling_for_stacked() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((100, 8)), rng.integers(2, size=8)
    parameters = {
        "W1": rng.standard_normal((200, 100)) / 10, "b1": np.zeros((200, 1)),
        "W2": rng.standard_normal((1, 200)) / 15, "b2": np.zeros((1, 1)),
    }  # fmt: skip
    problem = as_cost(fastgc.Network(X, Y), parameters)
    calls = 0
    whole, quick = problem.values, copy.copy(problem)

    def counted(rows: Any) -> Any:  # the full check takes minutes; its blocks are all alike
        nonlocal calls
        calls += 1
        return whole(rows) if calls <= 6 else np.zeros(len(rows))

    quick.values = counted  # type: ignore[method-assign]
    for memory in (8 * 2**20, 32 * 2**20):
        for threads in (1, 4):
            calls = 0
            tracemalloc.start()
            try:
                METHODS["stacked"].approximate(
                    quick,
                    np.arange(problem.layout.size),
                    Base(1.0, 1e-16),
                    1e-7,
                    Resources(memory, threads, lambda _: None),
                )
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert calls > 6
            assert 2**20 < peak < memory


def test_blocks_fill_the_memory_allowed_but_not_more() -> None:
    net, parameters = NetworkCase("wide", (30, 64, 32, 1), 64).build()
    problem = as_cost(net, parameters)
    row = 8 * problem.layout.size + problem.row_bytes
    for memory in (2 * row, 10 * row, 100 * row, 1000 * row, MEMORY):
        pairs, workers = block_size(problem, 4097, Resources(memory, 3, lambda _: None))
        assert 1 <= workers <= 3
        assert 2 * pairs * workers * row <= memory


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    net, parameters = NETWORKS[0].build()
    with pytest.raises(
        ValueError,
        match=r"memory=100 .* 47 parameters.* memory=(\d+)",
    ) as caught:
        fastgc.numerical_gradient(net, parameters, method="stacked", memory=100)
    needed = int(str(caught.value).split("memory=")[2].split()[0])
    fastgc.numerical_gradient(net, parameters, method="stacked", memory=needed)


@pytest.mark.parametrize("method", EXACT)
def test_too_little_memory_for_a_block_of_columns_is_refused(method: str) -> None:
    net, parameters = NETWORKS[0].build()
    with pytest.raises(
        ValueError,
        match=r"memory=100 .* 512 columns.* memory=(\d+)",
    ) as caught:
        fastgc.numerical_gradient(net, parameters, method=method, memory=100)
    needed = int(str(caught.value).split("memory=")[2].split()[0])
    fastgc.numerical_gradient(net, parameters, method=method, memory=needed)


def test_the_realised_step_divides() -> None:
    # at 1000 a step of 1e-7 is rounded by up to 5e-7 of itself: twice the tolerance
    theta = np.array([1000.1, 12345.678, -54321.9])
    for method in ANY_COST:
        problem = as_cost(lambda w: w @ [3.0, 5.0, 7.0], theta, vectorized=True)
        found = run(method, problem)
        assert (np.abs(found.gradapprox - [3.0, 5.0, 7.0]) <= found.uncertainty).all()
        exact_difference = as_cost(
            lambda w: w.sum(axis=1), theta - np.floor(theta), vectorized=True
        )
        assert run(method, exact_difference).gradapprox == pytest.approx([1.0, 1.0, 1.0], rel=1e-8)


def test_a_step_lost_to_rounding_is_taken_longer() -> None:
    for method in ANY_COST:
        for factor, verdict in ((1.0, "correct"), (1.01, "wrong")):
            report = fastgc.check(
                lambda p: np.sin(p["w"] * 1e-12).sum(axis=1), {"w": np.array([1e12, 2e12])},
                {"w": factor * 1e-12 * np.cos([1.0, 2.0])}, vectorized=True, method=method,
            )  # fmt: skip
            assert report.verdict == verdict
            assert (report.tensors["w"].epsilon or 0.0) > 1e3


def test_a_cost_that_overflows_on_one_side_has_a_slope_on_the_other() -> None:
    def cost(p: Any) -> Any:
        return np.where(p["w"] > 1.0, np.inf, p["w"]).sum(axis=1)

    for method in ANY_COST:
        report = fastgc.check(
            cost, {"w": [1.0, 0.5]}, {"w": [1.0, 1.0]}, vectorized=True, method=method
        )
        assert report.verdict == "correct"
        report = fastgc.check(
            cost, {"w": [1.0, 0.5]}, {"w": [1.01, 1.0]}, vectorized=True, method=method
        )
        assert report.verdict == "wrong"
        assert report.worst(1)[0].name == "w[0]"


def test_a_plain_cost_cannot_be_stacked() -> None:
    with pytest.raises(
        ValueError,
        match=r'"stacked" .*vectorized=True.*method="loop"',
    ):
        fastgc.check(lambda t: t**2, 3.0, 6.0, method="stacked")


def test_select_method() -> None:
    net, parameters = NETWORKS[0].build()
    assert fastgc.select_method(net, parameters) == "incremental"
    larger = NetworkCase("larger", (30, 64, 32, 1), 64).build()
    assert fastgc.select_method(*larger) == "node"
    assert fastgc.select_method(lambda p: 0.0, parameters) == "loop"
    assert fastgc.select_method(lambda p: np.zeros(1), parameters, vectorized=True) == "stacked"
    assert fastgc.select_method(lambda p: 1 / 0, 3.0) == "loop"  # nothing is evaluated
    with pytest.raises(ValueError, match="parameters is empty"):
        fastgc.select_method(net, {})


@pytest.mark.parametrize("method", METHODS)
def test_some_entries_alone_are_as_among_all(method: str) -> None:
    net, parameters = NETWORKS[3].build()
    problem = as_cost(net, parameters)
    whole = run(method, problem)
    some = np.array([0, 3, 4, 40, 77])
    base = Base(base_cost(problem)[0], 1e-16)
    resources = Resources(MEMORY, 2, lambda _: None)
    found = METHODS[method].approximate(problem, some, base, METHODS[method].epsilon, resources)
    assert np.array_equal(found.gradapprox, whole.gradapprox[some])
    for slopes, of_all in zip(found.slopes(), whole.slopes(), strict=True):
        assert np.array_equal(slopes, of_all[some])
    assert found.evaluations == (10 if method != "node" else whole.evaluations)


@pytest.mark.parametrize("method", ANY_COST)
def test_one_sided_slopes(method: str) -> None:
    problem = as_cost(
        lambda w: np.abs(w).sum(axis=1) + w[:, 1], np.array([0.0, 2.0]), vectorized=True
    )
    found = run(method, problem)
    low, high = found.slopes()
    np.testing.assert_allclose(low, [-1.0, 2.0], atol=1e-7)
    np.testing.assert_allclose(high, [1.0, 2.0], atol=1e-7)
    np.testing.assert_allclose(found.gradapprox, [0.0, 2.0], atol=1e-7)


def test_a_method_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs, and what it counts, is asked of it wherever it is named."""
    thrice = replace(
        LOOP, name="thrice", unit="looks", evaluations=lambda _, layout, __: 3 * layout.size
    )
    monkeypatch.setitem(ALL_METHODS, "thrice", thrice)
    theta = np.array([1.0, 2.0])
    report = fastgc.check(lambda t: float(t @ t), theta, 2 * theta, method="thrice")
    assert (report.verdict, report.method, report.unit) == ("correct", "thrice", "looks")
    wrong = fastgc.check(lambda t: float(t @ t), theta, np.array([2.0, 5.0]), method="thrice")
    assert [entry.index for entry in wrong.worst(1)] == [(1,)]
    forecast = fastgc.plan(lambda t: float(t @ t), theta).forecasts["thrice"]
    assert forecast.perturbations == 3 * theta.size
    with pytest.raises(ValueError, match=r"known are: .*thrice"):
        fastgc.check(lambda t: float(t @ t), theta, 2 * theta, method="once")
