"""Right gradients that a first look disputes: sharp bends, corners; and mistakes beside them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastgc
from fastgc.methods import METHODS
from tests.cases import NetworkCase, Tensors, backward
from tests.strategies import networks

SHARP = [
    ("log", lambda w: float(np.log(w).sum()), [1e-4, 2.0], [1e4, 0.5]),
    ("square root", lambda w: float(np.sqrt(w).sum()), [1e-5, 1.0], [0.5 / math.sqrt(1e-5), 0.5]),
    ("fast wave", lambda w: float(np.sin(1e6 * w).sum()), [0.3], [1e6 * math.cos(3e5)]),
    ("steep", lambda w: float(np.tanh(1e4 * w).sum()), [3e-5], [1e4 / math.cosh(0.3) ** 2]),
]


@pytest.mark.parametrize(("name", "cost", "w", "g"), SHARP, ids=[name for name, *_ in SHARP])
def test_a_sharp_bend_is_no_mistake(name: str, cost: Any, w: Any, g: Any) -> None:
    w, g = np.array(w), np.array(g)
    report = fastgc.check(cost, w, g)
    assert report.verdict == "correct", name
    assert fastgc.check(cost, w, 1.01 * g).verdict == "wrong"


def test_a_cubic_at_zero_is_not_accused() -> None:
    assert fastgc.check(lambda w: float((w**3).sum()), np.zeros(2), np.zeros(2)).verdict != "wrong"


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4, 1e-6])
def test_a_long_step_is_no_mistake(epsilon: float) -> None:
    net, parameters = NetworkCase("tanh", (4, 6, 3, 1), 9, "tanh").build()
    gradients = backward(net, parameters)
    assert fastgc.check(net, parameters, gradients, epsilon=epsilon).ok
    gradients["W2"] = gradients["W2"] * 1.01
    report = fastgc.check(net, parameters, gradients, epsilon=epsilon)
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["W2"]


CORNERS = [
    ("abs", lambda w: float(np.abs(w).sum())),
    ("relu", lambda w: float(np.maximum(w, 0).sum())),
    ("hinge", lambda w: float(np.maximum(0, 1 - (w + 1)).sum())),
    ("max", lambda w: float(np.max(np.append(w, 0.0)))),
]


@pytest.mark.parametrize(("name", "cost"), CORNERS, ids=[name for name, _ in CORNERS])
@pytest.mark.parametrize("distance", [0.0, 1e-12, -3e-9, 1e-8, 5e-8, -9e-8])
def test_a_slope_on_either_side_of_a_corner_is_right(name: str, cost: Any, distance: float) -> None:
    w = np.array([distance, -2.0])
    low, high = {"abs": (-1, 1), "relu": (0, 1), "hinge": (-1, 0), "max": (0, 1)}[name]
    other = {"abs": -1.0, "relu": 0.0, "hinge": -1.0, "max": 0.0}[name]
    true_side = high if distance > 0 else low
    report = fastgc.check(cost, w, np.array([true_side, other]))
    assert report.ok, (name, distance)
    if distance == 0.0:
        for slope in (low, 0.5 * (low + high), high):
            assert fastgc.check(cost, w, np.array([slope, other])).ok
        beyond = fastgc.check(cost, w, np.array([high + 1.0, other]))
        assert beyond.verdict == "unresolved"
        assert str(beyond).startswith(
            "cannot tell: parameters (1 of 2 entries) lies at a corner of the cost, or where it "
            "bends sharply\nmove the parameters a little, and check again\n"
        )
    assert fastgc.check(cost, w, np.array([true_side, other + 0.5])).verdict == "wrong"


def test_a_mistake_is_found_beside_corners() -> None:
    w = np.array([0.0, 0.0, 1.5])
    report = fastgc.check(lambda w: float(np.abs(w).sum()), w, np.array([1.0, -1.0, 1.001]))
    assert report.verdict == "wrong"
    assert report.tensors["parameters"].worst.name == "parameters[2]"
    assert report.tensors["parameters"].counts["disagree"] == 1


def test_evaluations_of_a_second_look_are_counted() -> None:
    calls = 0

    def cost(w: Any) -> float:
        nonlocal calls
        calls += 1
        return float(np.sin(w).sum())

    report = fastgc.check(cost, np.ones(5), np.array([math.cos(1.0)] * 4 + [7.0]))
    assert report.verdict == "wrong"
    assert report.evaluations == calls


def test_a_cost_that_turns_random_is_found_out() -> None:
    calls = 0

    def cost(w: Any) -> float:
        nonlocal calls
        calls += 1
        return float(w.sum()) + (0.01 * calls if calls > 12 else 0.0)

    with pytest.raises(ValueError, match=r"differs by .* between two identical calls"):
        fastgc.check(cost, np.ones(3), np.ones(3))


def test_rows_of_a_stack_that_depend_on_each_other() -> None:
    w = np.array([0.3, -0.2, 0.5])

    def mixes(w: Any) -> Any:
        e = np.exp(w)
        return -np.log(e[:, 0] / e.sum())

    def mixes_a_little(w: Any) -> Any:
        squares = (w**2).sum(axis=1)
        return squares - squares.max()

    for cost in (mixes, mixes_a_little):
        with pytest.raises(ValueError, match="in a stack of 9: its rows depend on each other"):
            fastgc.check(cost, w, w, vectorized=True)


def _zero_biases(parameters: Tensors) -> Tensors:
    return {k: np.zeros_like(v) if k.startswith("b") else v for k, v in parameters.items()}


@pytest.mark.parametrize("method", METHODS)
@given(
    widths=st.lists(st.integers(1, 8), min_size=2, max_size=5),
    m=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    zero_samples=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_networks_full_of_corners_are_not_accused(
    method: str, widths: list[int], m: int, seed: int, zero_samples: bool
) -> None:
    case = NetworkCase("corners", (*widths, 1), m, "relu", scale=2.0, seed=seed)
    net, parameters = case.build()
    X = net.X.copy()
    if zero_samples:
        X[:, ::2] = 0.0
    net = fastgc.Network(X, net.Y)
    parameters = _zero_biases(parameters)
    gradients = backward(net, parameters)
    assert fastgc.check(net, parameters, gradients, method=method).verdict != "wrong"
    gradients["W1"] = gradients["W1"] + 1.0  # a real mistake is not lost in the corners
    assert not fastgc.check(net, parameters, gradients, method=method).ok


@given(case=networks(min_scale=1e-3, max_scale=0.1))
@settings(max_examples=60, deadline=None)
def test_small_weights_near_corners_are_not_accused(case: NetworkCase) -> None:
    net, parameters = case.build()
    assume(any(np.abs(v).max() > 0 for v in parameters.values()))
    assert fastgc.check(net, parameters, backward(net, parameters)).verdict != "wrong"
