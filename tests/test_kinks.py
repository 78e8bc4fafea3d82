"""Right gradients that a first look disputes: sharp bends, corners; and mistakes beside them."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import fastgc
from tests.cases import ENTRYWISE, NetworkCase, Tensors, backward
from tests.strategies import examples, networks

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
        for slope in (high + 0.1, high + 1.0, low - 0.1, high + 50.0):
            beyond = fastgc.check(cost, w, np.array([slope, other]))
            assert beyond.verdict == "wrong", slope
            assert beyond.worst(1)[0].name == "parameters[0]"
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

    with pytest.raises(ValueError, match="the cost differs by"):
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
        with pytest.raises(ValueError, match="in a stack of 9"):
            fastgc.check(cost, w, w, vectorized=True)


def _zero_biases(parameters: Tensors) -> Tensors:
    return {k: np.zeros_like(v) if k.startswith("b") else v for k, v in parameters.items()}


@pytest.mark.parametrize("method", ENTRYWISE)
@given(
    widths=st.lists(st.integers(1, 8), min_size=2, max_size=5),
    m=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    zero_samples=st.booleans(),
)
@examples(100)
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
@examples(60)
def test_small_weights_near_corners_are_not_accused(case: NetworkCase) -> None:
    net, parameters = case.build()
    assume(any(np.abs(v).max() > 0 for v in parameters.values()))
    assert fastgc.check(net, parameters, backward(net, parameters)).verdict != "wrong"


@pytest.mark.parametrize("method", ENTRYWISE)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    m=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    active=st.booleans(),
)
@examples(100)
def test_several_corners_in_one_sample(
    method: str, widths: list[int], m: int, seed: int, active: bool
) -> None:
    # small integers throughout: many pre-activations are exactly 0, several in one sample
    rng = np.random.default_rng(seed)
    widths = [*widths, 1]
    parameters: Tensors = {}
    for l, (k, n) in enumerate(pairwise(widths), start=1):
        parameters[f"W{l}"] = rng.integers(-2, 3, (n, k)).astype(float)
        parameters[f"b{l}"] = rng.integers(-1, 2, (n, 1)).astype(float)
    net = fastgc.Network(rng.integers(-2, 3, (widths[0], m)), rng.integers(2, size=m))
    gradients = _with_slope_at_zero(net, parameters, 1.0 if active else 0.0)
    report = fastgc.check(net, parameters, gradients, method=method)
    assert report.verdict != "wrong", str(report)
    gradients["W1"] = gradients["W1"] + 50.0
    assert not fastgc.check(net, parameters, gradients, method=method).ok


def _with_slope_at_zero(net: fastgc.Network, parameters: Tensors, slope: float) -> Tensors:
    """A right backward pass that takes this for the slope of a ReLU at 0."""
    depth = len(parameters) // 2
    A, Z = [net.X], []
    for l in range(1, depth + 1):
        Z.append(parameters[f"W{l}"] @ A[-1] + parameters[f"b{l}"])
        A.append(np.maximum(Z[-1], 0.0))
    dZ = 1 / (1 + np.exp(-Z[-1])) - net.Y
    found = {}
    for l in range(depth, 0, -1):
        found[f"W{l}"] = dZ @ A[l - 1].T / net.m
        found[f"b{l}"] = dZ.mean(axis=1, keepdims=True)
        if l > 1:
            z = Z[l - 2]
            dZ = (parameters[f"W{l}"].T @ dZ) * np.where(z == 0, slope, z > 0)
    return found


@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    m=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
@example(widths=[4, 3, 4], m=4, seed=840)  # many kinks, of which few points around show all
@examples(150)
def test_corners_of_a_cost_that_cannot_be_seen_into(widths: list[int], m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [*widths, 1]
    parameters: Tensors = {}
    for l, (k, n) in enumerate(pairwise(widths), start=1):
        parameters[f"W{l}"] = rng.integers(-2, 3, (n, k)).astype(float)
        parameters[f"b{l}"] = np.zeros((n, 1))
    net = fastgc.Network(rng.integers(-1, 2, (widths[0], m)), rng.integers(2, size=m))
    gradients = _with_slope_at_zero(net, parameters, 0.0)
    # of a saturated output a backward pass has few digits, and this cost does not say so
    assume(np.abs(gradients[f"b{len(widths) - 1}"]).max() > 1e-7)
    report = fastgc.check(lambda p: net(p), parameters, gradients)
    assert report.verdict != "wrong", str(report)


def test_corners_that_cancel_are_no_smooth_place() -> None:
    # at 0 the one term's slope jumps up, the other's down: J is smooth along the axis
    def cost(w: Any) -> float:
        return float(np.maximum(w[0] + w[1], 0) - np.maximum(w[0] - w[1], 0) + 0.1 * w[0])

    zero = np.zeros(2)
    for slope in (0.1, 1.1, -0.9):  # both inactive, the first active, the second active
        report = fastgc.check(cost, zero, np.array([slope, 0.0]))
        assert report.verdict != "wrong", slope
    assert fastgc.check(cost, np.array([0.5, 0.1]), np.array([0.7, 2.0])).verdict == "wrong"


def test_a_cost_that_is_finite_a_shorter_step_away() -> None:
    def cost(w: Any) -> float:
        return float(np.log(w)) if w > 0 else math.nan

    at = 6e-8  # a step of 1e-7 leads below 0
    assert fastgc.check(cost, at, 1 / at).verdict != "wrong"
    report = fastgc.check(cost, at, 2 / at)
    assert not report.ok


def test_entries_at_rounding_level_are_counted() -> None:
    case = NetworkCase("saturated", (3, 2, 4), 1, "silu", loss="softmax", seed=1113)
    net, parameters = case.build()
    parameters["b2"][int(net.Y[0])] += 200.0
    report = fastgc.check(net, parameters, backward(net, parameters))
    assert report.ok
    assert 0 < report.tensors["W2"].at_rounding <= report.tensors["W2"].size
    zeros = report.tensors["W2"].zeros
    assert 0 < zeros <= report.tensors["W2"].at_rounding
    assert f"{zeros} zero to within {report.tensors['W2'].zero_within:.0e}" in str(report)


# what an adversary found: right gradients accused, wrong ones accepted


@pytest.mark.parametrize("epsilon", [None, 1e-5, 1e-4, 1e-3, 1e-2, "auto"])
def test_a_corner_elsewhere_excuses_nothing(epsilon: Any) -> None:
    def cost(p: Any) -> float:
        return float(max(p["a"], 0.0) + math.exp(p["b"]))

    parameters = {"a": 0.0, "b": 0.0}
    assert fastgc.check(cost, parameters, {"a": 0.0, "b": 1.0}, epsilon=epsilon).ok
    for slope in (1.1, 1.01, 2.5):
        report = fastgc.check(cost, parameters, {"a": 0.0, "b": slope}, epsilon=epsilon)
        assert report.tensors["b"].verdict == "wrong", (slope, str(report))


@pytest.mark.parametrize("slope", [4e8, 5.1e8, 1e8, 1e7])
def test_a_scale_shorter_than_the_step_is_no_kink(slope: float) -> None:
    def cost(p: Any) -> float:
        return float(np.log(np.abs(p)).sum())

    at = np.array([2e-9])
    assert not fastgc.check(cost, at, np.array([slope])).ok
    assert fastgc.check(cost, at, np.array([5e8])).verdict != "wrong"


@pytest.mark.parametrize("epsilon", [None, "auto", 10.0])
def test_single_precision_of_large_parameters(epsilon: Any) -> None:
    def cost(p: Any) -> float:
        return float(np.float32((np.float32(p / 1e6) ** 2).sum()))

    theta = np.array([-2555665.0])
    right = 2 * theta / 1e12
    assert fastgc.check(cost, theta, right, epsilon=epsilon).verdict != "wrong"
    assert not fastgc.check(cost, theta, 1.29 * right, epsilon=epsilon).ok


@pytest.mark.parametrize("method", ENTRYWISE)
def test_a_jump_of_the_curvature_is_no_mistake(method: str) -> None:
    net = fastgc.Network([[1.0, 2.0]], [0.0, 0.0], loss="squared")
    parameters = {"W1": [[0.0]], "b1": [[0.0]], "W2": [[1.0]], "b2": [[0.0]]}
    zeros: dict[str, Any] = {name: [[0.0]] for name in parameters}
    report = fastgc.check(net, parameters, zeros, method=method)
    assert report.verdict == "correct", str(report)
    assert not fastgc.check(net, parameters, {**zeros, "W1": [[1e-6]]}, method=method).ok


@pytest.mark.parametrize(
    "cost", [lambda p: float((np.maximum(p, 0) ** 2).sum()), lambda p: float((p * abs(p)).sum())]
)
def test_a_jump_of_the_curvature_of_any_cost(cost: Any) -> None:
    assert fastgc.check(cost, np.zeros(2), np.zeros(2)).verdict != "wrong"
    assert not fastgc.check(cost, np.zeros(2), np.full(2, 0.1)).ok


@pytest.mark.parametrize("seed", [145, 278, 395])
def test_truncation_that_noise_hides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = tuple(int(n) for n in rng.integers(1, 8, 4))
    case = NetworkCase("drawn", widths, 5, "tanh", scale=float(10 ** rng.uniform(-1, 1)), seed=seed)
    net, parameters = case.build()
    for epsilon in (1e-1, 1e-2, 1e-3):
        report = fastgc.check(
            net, parameters, backward(net, parameters), method="stacked", epsilon=epsilon
        )
        assert report.verdict != "wrong", str(report)


@pytest.mark.parametrize("scale", [1e-9, 1e-8])
def test_tiny_scales_are_not_accused(scale: float) -> None:
    def cost(p: Any) -> float:
        return float(np.clip(p / scale, -1, 1).sum())

    at = np.array([0.2 * scale])
    assert fastgc.check(cost, at, np.array([1 / scale])).verdict != "wrong"


def test_gradients_below_a_narrow_dtype() -> None:
    x = np.array([1e-7, 3e-8, 2e-8, 1e-9, 0.0])
    report = fastgc.check(lambda p: float(p @ x), np.zeros(5), x.astype(np.float16))
    assert report.verdict != "wrong"


@pytest.mark.parametrize("size", [1e2, 1e3, 1e4, 1e5])
def test_single_precision_of_large_logits(size: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        X, classes = rng.standard_normal((4, 6)) * size, rng.integers(3, size=6)
        W = rng.standard_normal((3, 4)).astype(np.float32)
        apart = W[0] - W[1]
        X[:, 0] -= apart @ X[:, 0] * apart / (apart @ apart)  # a tie, nearly
        X = X.astype(np.float32)
        z = W @ X
        p = np.exp(z - z.max(axis=0))
        p /= p.sum(axis=0)
        p[classes, np.arange(6)] -= 1
        gradients = {"W1": p @ X.T / np.float32(6), "b1": p.mean(axis=1, keepdims=True)}
        net = fastgc.Network(X, classes, loss="softmax")
        report = fastgc.check(net, {"W1": W, "b1": np.zeros((3, 1))}, gradients)
        assert report.verdict != "wrong", str(report)


@pytest.mark.parametrize("method", ["incremental", "node"])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-4, 1e-6])
def test_a_corner_where_the_cost_bends_as_well(method: str, epsilon: float) -> None:
    X, Y = np.array([[0.0, 1.0, -2.0]]), np.array([[0.5, 1.0, 2.0]])
    net = fastgc.Network(X, Y, loss="squared")
    parameters = {
        "W1": np.array([[0.7], [-0.4]]), "b1": np.zeros((2, 1)),
        "W2": np.array([[1.1, -0.8]]), "b2": np.array([[0.3]]),
    }  # fmt: skip
    for slope in (0.0, 1.0):
        gradients = _with_slope_at_zero_squared(net, parameters, slope)
        report = fastgc.check(net, parameters, gradients, method=method, epsilon=epsilon)
        assert report.verdict == "correct", str(report)


def _with_slope_at_zero_squared(net: fastgc.Network, p: Tensors, slope: float) -> Tensors:
    Z = p["W1"] @ net.X + p["b1"]
    A = np.maximum(Z, 0)
    dZ2 = p["W2"] @ A + p["b2"] - net.Y
    dZ1 = (p["W2"].T @ dZ2) * np.where(Z == 0, slope, Z > 0)
    return {
        "W1": dZ1 @ net.X.T / net.m, "b1": dZ1.mean(axis=1, keepdims=True),
        "W2": dZ2 @ A.T / net.m, "b2": dZ2.mean(axis=1, keepdims=True),
    }  # fmt: skip
