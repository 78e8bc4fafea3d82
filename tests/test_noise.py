"""The noise estimate: against costs whose noise is known, and for costs that have none."""

import math
from typing import Any

import numpy as np
import pytest

from fastgc.costs.base import Cost, as_cost
from fastgc.costs.noise import AGAIN, POINTS, noise_of_cost, table_noise, uncertainty_of_differences
from tests.cases import NETWORKS, lab_case


def measure(problem: Cost) -> tuple[float, int]:
    noise, spent = noise_of_cost(problem, problem.value(problem.theta), 2**28)
    return noise.noise, spent


@pytest.mark.parametrize("sigma", [1e-12, 1e-6, 1e-2])
def test_noise_on_a_smooth_function_is_found(sigma: float) -> None:
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1e-3, POINTS)
    found = [
        table_noise((np.sin(x) + sigma * rng.standard_normal(POINTS)).tolist()) for _ in range(200)
    ]
    assert np.median(found) == pytest.approx(sigma, rel=0.5)
    assert np.quantile(found, 0.01) > sigma / 10


@pytest.mark.parametrize("degree", range(4))
def test_polynomials_have_no_noise(degree: int) -> None:
    assert table_noise([float(x**degree) for x in range(POINTS)]) == 0.0


@pytest.mark.parametrize("sigma", [1e-12, 1e-9, 1e-6])
def test_noise_of_a_cost(sigma: float) -> None:
    def cost(w: Any) -> float:  # noise that is a function of the parameters, as rounding is
        seed = int(np.frombuffer(w.tobytes(), dtype=np.uint64).sum() % 2**32)
        return float(np.sin(w).sum() + sigma * np.random.default_rng(seed).standard_normal())

    found, evaluations = measure(as_cost(cost, np.linspace(0.1, 1, 10)))
    assert sigma / 5 < found < 5 * sigma
    # more noise than rounding is measured along other lines, and the cost tried for randomness
    assert evaluations <= 10 * POINTS + AGAIN


def test_a_cost_in_single_precision_takes_longer_steps() -> None:
    def cost(w: Any) -> float:
        return float(np.sum(np.sin(w.astype(np.float32))))

    found, evaluations = measure(as_cost(cost, np.linspace(0.1, 1, 10)))
    assert 1e-9 < found < 1e-6
    assert evaluations > POINTS


def test_a_constant_cost_has_no_noise() -> None:
    assert measure(as_cost(lambda w: 3.0, np.ones(4)))[0] == 0.0


def test_a_cost_that_ends_nearby_is_survived() -> None:
    problem = as_cost(lambda w: 1.0 if w[0] == 0.5 else math.nan, np.array([0.5]))
    assert measure(problem)[0] == 0.0


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_noise_of_networks_is_that_of_rounding(case: Any) -> None:
    net, parameters = case.build()
    problem = as_cost(net, parameters)
    assert measure(problem)[0] < 1e-14 * max(1.0, net(parameters))


def test_the_labs_cost_is_noisier_than_the_networks() -> None:
    from fastgc import lab

    X, Y, parameters, _, _ = lab_case()
    found, _ = measure(as_cost(lambda p: lab.forward_propagation_n(X, Y, p)[0], parameters))
    assert 1e-15 < found < 1e-12  # log(1 − A3) where A3 is near 1


def test_a_line_through_theta_is_exact() -> None:
    seen = []

    def cost(w: Any) -> float:
        seen.append(w.copy())
        return float(w.sum())

    theta = np.array([1.0, 1e3, -1e-5, 0.0])
    measure(as_cost(cost, theta))
    steps = np.diff(np.array(seen[-POINTS:]), axis=0)
    assert (np.ptp(steps[:, :2], axis=0) == 0).all()


def test_parameters_near_the_largest_float() -> None:
    problem = as_cost(lambda w: float(np.clip(w, -1, 1).sum()), np.array([0.0, 1.7e308]))
    assert measure(problem)[0] < 1e-15


def test_uncertainty() -> None:
    steps = np.array([2e-7, 4e-7, 0.0])
    by_noise = uncertainty_of_differences(1.0, 1e-12, steps)
    assert by_noise.tolist() == pytest.approx([1e-4, 5e-5, math.inf])
    by_size = uncertainty_of_differences(-4.0, 0.0, steps)
    assert by_size[0] == pytest.approx(4 * 2.0**-53 * 4.0 / 1e-7)


@pytest.mark.parametrize("scale", [1e-250, 1e-3, 1e250])
def test_noise_scales_with_the_values(scale: float) -> None:
    values = [1.0, 1.5, 1.2, 1.9, 1.1, 1.4, 1.8, 1.3, 1.6]
    assert table_noise([scale * v for v in values]) == pytest.approx(scale * table_noise(values))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_single_precision_is_recognised(dtype: Any) -> None:
    def cost(w: Any) -> float:
        return float(np.sum(np.sin(w.astype(dtype)), dtype=dtype))

    problem = as_cost(cost, np.linspace(0.1, 1, 10))
    noise, _ = noise_of_cost(problem, problem.value(problem.theta), 2**28)
    assert noise.coarse == (dtype is not np.float64)


def test_a_constant_is_not_taken_for_single_precision() -> None:
    assert not noise_of_cost(as_cost(lambda w: 0.5, np.ones(3)), 0.5, 2**28)[0].coarse


def test_a_cost_that_ends_further_away_is_survived() -> None:
    def cost(w: Any) -> float:
        if abs(float(w) - 0.5) > 1e-3:
            raise ZeroDivisionError
        return 3.0

    assert measure(as_cost(cost, 0.5))[0] == 0.0
