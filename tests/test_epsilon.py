"""epsilon="auto": a step where truncation and noise balance, entry by entry."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from fastgc.costs.base import as_cost, base_cost
from fastgc.costs.noise import balanced_steps, noise_of_cost
from tests.cases import NETWORKS, NetworkCase, backward
from tests.strategies import examples


def chosen(cost: Any, parameters: Any) -> np.ndarray[Any, Any]:
    problem = as_cost(cost, parameters)
    value, _ = base_cost(problem)
    base, _ = noise_of_cost(problem, value, 2**28)
    steps, evaluations = balanced_steps(problem, base)
    assert evaluations <= 16 * 4 * 3 * len(problem.layout.names)
    return steps


def test_the_step_is_near_the_best() -> None:
    w = np.array([0.7])
    step = float(chosen(lambda w: float(np.sin(w).sum()), w)[0])
    # J‴ = −cos; σ about 1e-16 to 1e-17
    assert 1e-6 < step < 3e-5
    errors = []
    for h in step * 2.0 ** np.arange(-8, 9):
        plus, minus = w + h, w - h
        found = (np.sin(plus) - np.sin(minus)) / (plus - minus)
        errors.append(abs(float(found[0]) - np.cos(0.7)))
    assert errors[8] < 1e-9
    assert errors[8] < 30 * min(errors) + 1e-11


def test_steps_follow_the_scale_of_entries() -> None:
    w = np.array([1e6, 2e6, -1e6, 3.0])
    steps = chosen(lambda w: float(np.sin(w / 1e6).sum()), w)
    assert 0.1 < steps[0] / steps[2] < 10
    assert steps[1] == pytest.approx(2 * steps[0], rel=0.5)
    assert 1 < steps[0] < 1e5  # a step of 1e-7 would be lost in the noise
    report = fastgc.check(
        lambda w: float(np.sin(w / 1e6).sum()), w, np.cos(w / 1e6) / 1e6, epsilon="auto"
    )
    assert report.ok
    assert report.epsilon == pytest.approx(steps.max())


def test_a_single_precision_cost_is_told_right_from_wrong() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 5)), rng.standard_normal(20)

    def cost(w: Any) -> float:
        w = w.astype(np.float32)
        return float(np.mean(np.tanh(X.astype(np.float32) @ w - y.astype(np.float32)) ** 2))

    w = rng.standard_normal(5)
    t = np.tanh(X @ w - y)
    right = X.T @ (2 * t * (1 - t * t)) / 20
    for epsilon in (None, "auto"):  # which is taken where the default step cannot tell
        report = fastgc.check(cost, w, right, epsilon=epsilon)
        assert report.verdict == "correct", str(report)
        tensor = report.tensors["parameters"]
        assert 1e-5 < tensor.resolution < 1e-2
        assert (tensor.epsilon or report.epsilon) > 1e-5
        assert fastgc.check(cost, w, 1.1 * right, epsilon=epsilon).verdict == "wrong"


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6), scale=st.sampled_from([0.1, 1, 30]))
@examples(100)
def test_a_single_precision_cost_is_never_accused(seed: int, size: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    A, w = rng.standard_normal((4, size)) * scale, rng.standard_normal(size)

    def cost(w: Any) -> float:
        return float(np.sum(np.logaddexp(0, A.astype(np.float32) @ w.astype(np.float32))))

    right = A.T @ (1 / (1 + np.exp(-(A @ w))))
    for epsilon in (None, "auto", 1e-3):
        report = fastgc.check(cost, w, right, epsilon=epsilon)
        assert report.verdict != "wrong", str(report)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_networks_by_the_loop(case: NetworkCase) -> None:
    net, parameters = case.build()
    gradients = backward(net, parameters)
    report = fastgc.check(net, parameters, gradients, method="loop", epsilon="auto")
    assert report.verdict != "wrong", str(report)
    gradients["W1"] = gradients["W1"] * 1.01
    if np.abs(gradients["W1"]).max() > 1e-6:
        assert not fastgc.check(net, parameters, gradients, method="loop", epsilon="auto").ok


def test_methods_without_noise_keep_their_step() -> None:
    net, parameters = NETWORKS[0].build()
    gradients = backward(net, parameters)
    for method in ("incremental", "node"):
        report = fastgc.check(net, parameters, gradients, method=method, epsilon="auto")
        assert report.epsilon == 2.0**-40


def test_numerical_gradients_gain_digits() -> None:
    w = np.linspace(0.1, 2, 7)

    def error(**options: Any) -> float:
        found = fastgc.numerical_gradient(lambda w: float(np.exp(w).sum()), w, **options)
        return float(np.abs(found / np.exp(w) - 1).max())

    assert error(epsilon="auto") < 1e-9 < error()


def test_stacked_takes_the_same_steps() -> None:
    w = np.linspace(0.1, 2, 7)
    one = fastgc.numerical_gradient(lambda w: float(np.exp(w).sum()), w, epsilon="auto")
    many = fastgc.numerical_gradient(
        lambda w: np.exp(w).sum(axis=1), w, epsilon="auto", vectorized=True
    )
    np.testing.assert_allclose(one, many, rtol=1e-9)


@pytest.mark.parametrize("at", [1e-3, 1.0])
def test_a_cost_that_ends_nearby(at: float) -> None:
    def cost(w: Any) -> float:
        if float(w) <= 0:
            raise ZeroDivisionError
        return float(np.log(w))

    assert fastgc.check(cost, at, 1 / at, epsilon="auto").verdict == "correct"


def test_zero_parameters_and_a_constant_cost() -> None:
    zeros = np.zeros(3)
    assert fastgc.check(lambda w: float(np.sin(w).sum()), zeros, np.ones(3), epsilon="auto").ok
    assert fastgc.check(lambda w: 2.0, zeros, zeros, epsilon="auto").ok
