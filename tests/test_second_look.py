"""What a second look tells: kinks close by, ties, staircases, tiny entries, and steps too long."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from tests.strategies import examples


@pytest.mark.parametrize("distance", [1e-8, 1e-9, 1e-10, -1e-9])
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_kink_close_by_is_none_at_the_parameters(at: float, distance: float) -> None:
    theta = np.array([at + distance, 0.3])

    def cost(p: Any) -> float:
        return float(np.maximum(p[0] - at, 0.0) + math.exp(p[1]))

    slope = float(distance > 0)
    assert fastgc.check(cost, theta, np.array([slope, math.exp(0.3)])).ok
    wrong = fastgc.check(cost, theta, np.array([0.5, math.exp(0.3)]))
    assert wrong.verdict == "wrong"
    assert wrong.worst(1)[0].name == "parameters[0]"


@given(seed=st.integers(0, 10**6), n=st.integers(3, 6))
@examples(25)
def test_a_tie_that_no_single_entry_breaks(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-2, 2, 2 * n + 1))
    x[n - 1 : n + 2] = x[n]  # three in the middle

    def cost(p: Any) -> float:
        return float(np.median(p))

    assert not fastgc.check(cost, x, np.zeros(x.size)).ok
    one = np.zeros(x.size)
    one[n] = 1.0
    assert fastgc.check(cost, x, one).verdict != "wrong"


@pytest.mark.parametrize("active", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("case", ["zero weights", "zero sample"])
def test_a_backward_pass_may_take_either_side(case: str, active: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
        p = {
            "W1": rng.standard_normal((3, 4)),
            "b1": np.zeros(4),
            "W2": rng.standard_normal((4, 2)),
        }
        if case == "zero weights":
            p["W1"][:] = 0.0
        else:
            X[0] = 0.0

        def cost(p: Any, X: Any = X, y: Any = y) -> float:
            return float(((np.maximum(X @ p["W1"] + p["b1"], 0) @ p["W2"] - y) ** 2).mean())

        Z = X @ p["W1"] + p["b1"]
        A = np.maximum(Z, 0)
        E = 2 * (A @ p["W2"] - y) / y.size
        D = (E @ p["W2"].T) * np.where(Z == 0, active, Z > 0)
        gradients = {"W1": X.T @ D, "b1": D.sum(axis=0), "W2": A.T @ E}
        assert fastgc.check(cost, p, gradients).verdict != "wrong"
        if case == "zero weights":
            assert fastgc.check(cost, p, gradients).ok
        assert not fastgc.check(cost, p, {**gradients, "W2": gradients["W2"] + 0.1}).ok


@pytest.mark.parametrize("size", [1e-12, 1e-10, 1e-8, 1e-6])
def test_entries_much_smaller_than_the_step(size: float) -> None:
    x = size * np.array([1.1, 1.7])
    right = np.cos(x / size) / size
    assert fastgc.check(lambda p: float(np.sin(p / size).sum()), x, right).verdict != "wrong"
    for factor in (0.0, 2.0, -1.0, 1.01):
        report = fastgc.check(lambda p: float(np.sin(p / size).sum()), x, right * [factor, 1])
        assert not report.ok, factor


def test_an_offset_beside_which_the_scale_is_small() -> None:
    t = 1.7e9 + np.linspace(0, 100, 20)

    def cost(p: Any) -> float:
        return float((1 / (1 + np.exp(-(t - p[0]) / p[1]))).sum())

    x = np.array([1.7e9 + 60.0, 4.0])
    m = 1 / (1 + np.exp(-(t - x[0]) / x[1]))
    right = np.array([-(m * (1 - m)).sum(), -(m * (1 - m) * (t - x[0]) / x[1]).sum()]) / x[1]
    assert fastgc.check(cost, x, right).verdict != "wrong"
    assert not fastgc.check(cost, x, right * [0, 1]).ok
    assert fastgc.check(cost, x, right * [-1, 1]).verdict == "wrong"


@pytest.mark.parametrize("z", [12.0, 16.0, 20.0])
def test_a_staircase_of_a_saturated_output_accuses_nobody(z: float) -> None:
    # 1 − σ(z) has few digits left, so that its logarithm is a staircase
    def cost(p: Any) -> float:
        return float(-np.log(1 - 1 / (1 + np.exp(-p))).sum())

    x = np.array([z, 0.3])
    right = 1 / (1 + np.exp(-x))
    assert fastgc.check(cost, x, right).verdict != "wrong"
    assert fastgc.check(cost, x, right * [1, 1.1]).verdict == "wrong"


@given(seed=st.integers(0, 10**6), size=st.integers(0, 8))
@examples(30)
def test_noise_that_one_line_does_not_show(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    a, x, c = rng.standard_normal((4, 3)), rng.standard_normal(3), 10.0**size

    def cost(p: Any) -> float:  # c, and what is subtracted from it
        return float(np.tanh(a @ p).sum() + c - c * np.cos(p[0] * 1e-3))

    right = a.T @ (1 - np.tanh(a @ x) ** 2)
    right[0] += c * 1e-3 * np.sin(x[0] * 1e-3)
    assert fastgc.check(cost, x, right).verdict != "wrong"
    assert not fastgc.check(cost, x, right + np.array([0.0, 0.5, 0.0])).ok


@pytest.mark.parametrize("cost", [
    lambda x: float((np.floor(x) + x).sum()), lambda x: float(np.sign(x - 1).sum() + x.sum()),
    lambda x: float((x >= 1).sum() + x.sum()),
])  # fmt: skip
def test_a_jump_at_the_parameters_accuses_nobody(cost: Any) -> None:
    assert fastgc.check(cost, np.ones(3), np.ones(3)).verdict != "wrong"


def test_few_entries_are_accused_at_many_ties() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(-1, 1, 40), 2)

    def cost(p: Any) -> float:
        return float(p.reshape(-1, 2).max(axis=1).sum())

    right = np.tile([1.0, 0.0], 40)
    assert fastgc.check(cost, x, right).ok
    wrong = right.copy()
    wrong[13] = 1.0  # to both in full
    report = fastgc.check(cost, x, wrong)
    assert report.verdict == "wrong"
    codes = report.tensors["parameters"].arrays
    assert codes is not None
    accused = np.flatnonzero(codes.verdicts >= 3)
    assert 13 in accused or 12 in accused
    assert accused.size <= 8


def test_the_other_cost_sees_the_parameters_last_too() -> None:
    seen: list[Any] = []
    net = fastgc.Network([[1.0, 2.0]], [0.0, 1.0])
    theta = {"W1": np.array([[0.4]]), "b1": np.array([[0.1]])}

    def mine(p: Any) -> float:
        seen.append(p["W1"].copy())
        return float(net(p))

    fastgc.check(net, theta, fastgc.numerical_gradient(net, theta), against=mine)
    assert seen[-1] == theta["W1"]
    with pytest.raises(ValueError, match="against"):
        fastgc.check(net, theta, theta, against=lambda p: 2 * mine(p))
    assert seen[-1] == theta["W1"]
