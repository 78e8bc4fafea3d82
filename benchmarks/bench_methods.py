"""Every method, and the calls built on them, against the lab's loop written plainly.

Each result is compared with the backward pass before it is timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastgc
from fastgc import lab
from fastgc.methods import METHODS, Base, Resources
from fastgc.noise import noise_of_cost
from fastgc.problem import base_cost, pose
from fastgc.threads import available_cores, one_blas_thread
from tests.cases import TIMED_NETWORKS, Array, Tensors, plain_forward, plain_loop

LAB = "lab, 4-5-3-1, m = 3"
CASES = (LAB, *(case.name for case in TIMED_NETWORKS))
PLAIN = "the lab's loop, plainly"


def network_case(name: str) -> tuple[Any, Any, Tensors]:
    """X, Y and parameters of a network with ReLU layers and a sigmoid output."""
    if name == LAB:
        return lab.gradient_check_n_test_case()
    (case,) = (case for case in TIMED_NETWORKS if case.name == name)
    net, parameters = case.build()
    return net.X, net.Y, parameters


def contenders(name: str) -> dict[str, Callable[[], Array]]:
    """What is timed on a network: functions that return gradapprox (P,)."""
    X, Y, parameters = network_case(name)
    gradients = lab.backward_propagation_n(X, Y, lab.forward_propagation_n(X, Y, parameters)[1])
    net = fastgc.Network(X, Y)
    problem = pose(net, parameters)
    cost, _ = base_cost(problem)
    base = Base(cost, noise_of_cost(problem, cost, 2**28).sigma)
    everything = np.arange(problem.theta.size)
    resources = Resources(256 * 2**20, available_cores(), lambda _: None)
    right = flat(gradients)

    def by_method(method: str) -> Array:
        with one_blas_thread():
            found = METHODS[method].approximate(
                problem, everything, base, METHODS[method].epsilon, resources
            )
        return found.gradapprox

    def by_gradient_check_n() -> Array:
        assert lab.gradient_check_n(parameters, gradients, X, Y) < 2e-7
        return right

    def by_check() -> Array:
        assert fastgc.check(net, parameters, gradients)
        return right

    return {
        PLAIN: lambda: plain_loop(lambda p: plain_forward(X, Y, p), parameters).ravel(),
        **{f"method {method}": partial(by_method, method) for method in METHODS},
        "numerical_gradient": lambda: flat(fastgc.numerical_gradient(net, parameters)),
        "lab.gradient_check_n": by_gradient_check_n,
        "check": by_check,
    }


def flat(tensors: Tensors) -> Array:
    prefix = "d" if "dW1" in tensors else ""
    depth = sum(key.startswith(f"{prefix}W") for key in tensors)
    keys = [f"{prefix}{kind}{l}" for l in range(1, depth + 1) for kind in "Wb"]
    return np.concatenate([tensors[key].ravel() for key in keys])


CONTENDERS = tuple(contenders(LAB))


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("case", CASES)
def bench_gradient(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    run = contenders(case)[contender]
    X, Y, parameters = network_case(case)
    right = lab.backward_propagation_n(X, Y, lab.forward_propagation_n(X, Y, parameters)[1])
    np.testing.assert_allclose(run(), flat(right), rtol=1e-4, atol=1e-6)
    benchmark.group = case
    benchmark.extra_info.update(case=case, contender=contender, parameters=flat(parameters).size)
    benchmark(run)
