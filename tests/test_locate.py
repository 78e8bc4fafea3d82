"""Wrong entries found after random directions: which, with what values, and how widespread."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from tests.cases import Array
from tests.shown import says
from tests.strategies import examples

Million = 10**6


class Counted:
    """A smooth cost of one tensor, and how often it was evaluated."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.theta = np.random.default_rng(seed).standard_normal(n)
        self.right = np.cos(self.theta) / np.sqrt(n)
        self.calls = 0

    def __call__(self, w: Array) -> float:
        self.calls += 1
        return float(np.sin(w).sum() / np.sqrt(w.size))


def wrong_at(cost: Counted, places: Any, seed: int = 1) -> Array:
    g: Array = cost.right.copy()
    places = np.atleast_1d(places)
    g[places] *= np.random.default_rng(seed).uniform(1.2, 2.0, places.size)
    return g


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 123_456, Million - 1])
def test_one_of_a_million_in_fewer_than_200_evaluations(place: int) -> None:
    cost = Counted(Million)
    gradients = wrong_at(cost, place)
    report = fastgc.check(cost, cost.theta, gradients, method="random")
    assert report.evaluations == cost.calls < 200
    tensor = report.tensors["parameters"]
    assert [entry.name for entry in tensor.located] == [f"parameters[{place}]"]
    entry = tensor.located[0]
    assert entry == tensor.worst
    assert entry.index == (place,)
    assert entry.analytic == gradients[place]
    assert entry.numerical == pytest.approx(cost.right[place], abs=2 * entry.uncertainty)
    assert says(tensor.diagnosis, f"one entry … parameters[{place}]")
    assert tensor.diagnosis is not None
    assert tensor.diagnosis.kind == "entries"  # which explain all that the directions show


@pytest.mark.slow
def test_one_of_a_million_beside_five_other_tensors() -> None:
    cost = Counted(Million)
    rest = {name: np.ones((3, 4)) for name in "abcde"}

    def whole(p: Any) -> float:
        return cost(p["W"].ravel()) + float(sum((p[name] ** 2).sum() for name in rest))

    gradients = {name: 2 * value for name, value in rest.items()}
    gradients["W"] = wrong_at(cost, 765_432).reshape(1000, 1000)
    parameters = {"W": cost.theta.reshape(1000, 1000), **rest}
    report = fastgc.check(whole, parameters, gradients, method="random")
    assert report.tensors["W"].worst.name == "W[765, 432]"
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["W"]
    assert cost.calls < 200


@given(st.integers(33, 5000), st.integers(1, 7), st.integers(0, 2**32 - 1))
@examples(30)
def test_a_few_wrong_entries_are_all_found(n: int, count: int, seed: int) -> None:
    cost = Counted(n, seed)
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(n, min(count, n // 30 + 1), replace=False))
    gradients = cost.right + 0.0
    gradients[places] += rng.uniform(0.5, 2.0, places.size) / np.sqrt(n)
    report = fastgc.check(cost, cost.theta, gradients, method="random", seed=seed)
    tensor = report.tensors["parameters"]
    found = {entry.index[0] for entry in tensor.located}
    assert found <= set(places.tolist())
    assert found
    assert tensor.diagnosis is not None
    if tensor.diagnosis.kind == "entries":
        assert found == set(places.tolist())
    else:
        assert tensor.diagnosis.kind == "widespread"


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_of_a_hundred_thousand(count: int) -> None:
    cost = Counted(100_000)
    places = np.random.default_rng(count).choice(100_000, count, replace=False)
    report = fastgc.check(cost, cost.theta, wrong_at(cost, places), method="random")
    tensor = report.tensors["parameters"]
    assert {entry.index[0] for entry in tensor.located} == set(places.tolist())
    assert says(tensor.diagnosis, f"{count} entries … parameters[")
    assert cost.calls < 300


def test_two_errors_that_cancel_in_any_sum_are_told_apart() -> None:
    cost = Counted(1000)
    gradients = cost.right.copy()
    gradients[[17, 800]] += [0.01, -0.01]
    report = fastgc.check(cost, cost.theta, gradients, method="random")
    assert {entry.index[0] for entry in report.tensors["parameters"].located} == {17, 800}


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 0.7, 1.0), (0.5, 0.2, 0.8)])
def test_an_error_in_many_entries_is_called_widespread(
    share: float, low: float, high: float
) -> None:
    cost = Counted(20_000)
    rng = np.random.default_rng(0)
    places = rng.choice(20_000, int(share * 20_000), replace=False)
    report = fastgc.check(cost, cost.theta, wrong_at(cost, places), method="random")
    tensor = report.tensors["parameters"]
    assert tensor.diagnosis is not None
    assert tensor.diagnosis.kind == "widespread"
    assert tensor.diagnosis.value is not None
    assert low <= tensor.diagnosis.value <= high
    assert "of 12 entries" in str(tensor.diagnosis)
    assert cost.calls < 160
    assert {entry.index[0] for entry in tensor.located} <= set(places.tolist())


def test_how_many_are_wrong_is_estimated_where_they_are_too_many_to_list() -> None:
    estimates = []
    for seed in range(8):
        cost = Counted(20_000, seed)
        places = np.random.default_rng(seed).choice(20_000, 60, replace=False)
        report = fastgc.check(cost, cost.theta, wrong_at(cost, places), method="random", seed=seed)
        said = report.tensors["parameters"].diagnosis
        assert said is not None
        assert said.kind == "widespread"
        assert said.value is not None
        estimates.append(20_000 * said.value)
        assert cost.calls < 400
    assert 30 < np.median(estimates) < 120


def test_a_small_tensor_is_looked_at_whole() -> None:
    cost = Counted(20)
    report = fastgc.check(cost, cost.theta, wrong_at(cost, [3, 7, 19]), method="random")
    tensor = report.tensors["parameters"]
    assert {entry.index[0] for entry in tensor.located} == {3, 7, 19}


@pytest.mark.parametrize("directions", [1, 2, 3])
def test_few_directions_are_made_enough(directions: int) -> None:
    cost = Counted(5000)
    report = fastgc.check(
        cost, cost.theta, wrong_at(cost, 1234), method="random", directions=directions
    )
    assert [e.index for e in report.tensors["parameters"].located] == [(1234,)]
    assert report.evaluations == cost.calls


def test_an_error_that_only_directions_show_names_no_entry() -> None:
    # each entry is off by less than the tolerance of its tensor allows, all together by more
    n = 400
    theta = np.ones(n)
    gradients = 2 * theta * (1 + 6e-7 * np.random.default_rng(0).standard_normal(n))
    report = fastgc.check(lambda w: w @ w, theta, gradients, method="random", tolerance=1e-8)
    assert report.verdict in ("wrong", "unresolved")
    for entry in report.tensors["parameters"].located:
        assert entry.analytic != entry.numerical


def test_wrong_entries_of_one_row_are_said_to_be() -> None:
    theta = np.random.default_rng(0).standard_normal((60, 50))
    for place in ((7, slice(None)), (slice(None), 7)):
        gradients = 2 * theta
        gradients[place] *= 1.5
        report = fastgc.check(
            lambda w: float((w * w).sum()), theta, gradients, method="random", seed=3
        )
        said = str(report.tensors["parameters"].diagnosis)
        line = "row" if place[0] == 7 else "column"
        assert f"{line} 7" in said or "of 12 entries" in said


def test_transposed_and_exchanged_gradients_are_named_without_more_evaluations() -> None:
    rng = np.random.default_rng(0)
    parameters = {name: rng.standard_normal((40, 40)) for name in ("V", "W")}
    calls = 0

    def cost(p: Any) -> float:
        nonlocal calls
        calls += 1
        return float(np.sin(p["V"]).sum() + (p["W"] ** 2).sum())

    right = {"V": np.cos(parameters["V"]), "W": 2 * parameters["W"]}
    report = fastgc.check(cost, parameters, {**right, "V": right["V"].T}, method="random")
    said = report.tensors["V"].diagnosis
    assert said is not None
    assert said.kind == "transposed"
    report = fastgc.check(cost, parameters, {"V": right["W"], "W": right["V"]}, method="random")
    texts = {name: str(tensor.diagnosis) for name, tensor in report.tensors.items()}
    assert texts["V"].endswith(" for W")
    assert texts["W"].endswith(" for V")
    assert report.tensors["V"].located
