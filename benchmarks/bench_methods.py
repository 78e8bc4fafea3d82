"""Every method, and the calls built on them, against the lab's loop written plainly.

Each result is compared with the backward pass before it is timed. What would take minutes is timed
on a random sample of the entries; `extra_info["share"]` is the part of the whole that was run.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastgc
from fastgc import lab
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import Base, as_cost, base_cost
from fastgc.methods.registry import METHODS
from fastgc.network.cost import NetworkCost
from fastgc.network.state import ForwardState
from fastgc.parallel.chunks import Resources
from fastgc.parallel.threads import available_cores, one_blas_thread
from tests.cases import (
    TIMED_NETWORKS,
    Array,
    Tensors,
    backward,
    plain_cost,
    plain_forward,
    plain_loop,
)

LAB = "lab, 4-5-3-1, m = 3"
CASES = (LAB, *(case.name for case in TIMED_NETWORKS))
PLAIN = "the lab's loop, plainly"
PASS = "one forward + backward pass, NumPy"
ALONG = 'check, method="random"'

# Multiplications and additions that are still run whole; beyond, a sample of the entries.
WHOLE = 1e11
SAMPLE = 24

Contender = tuple[Callable[[], Array], Any]


def network_case(name: str) -> tuple[fastgc.Network, Tensors]:
    if name == LAB:
        X, Y, parameters = lab.gradient_check_n_test_case()
        return fastgc.Network(X, Y), parameters
    (case,) = (case for case in TIMED_NETWORKS if case.name == name)
    return case.build()


def widths_of(net: fastgc.Network, parameters: Tensors) -> tuple[int, ...]:
    depth = len(parameters) // 2
    return (net.X.shape[0], *(parameters[f"W{l}"].shape[0] for l in range(1, depth + 1)))


def contenders(name: str) -> dict[str, Contender]:
    """What is timed on a network: functions that return gradapprox, and of which entries."""
    net, parameters = network_case(name)
    P = sum(value.size for value in parameters.values())
    some = np.sort(np.random.default_rng(0).choice(P, min(P, SAMPLE), replace=False))
    problem = NetworkCost(net, *flatten_parameters(parameters))
    layers = problem.state.layers
    gradients = backward(net, parameters)
    named = {f"d{name}": value for name, value in gradients.items()}
    resources = Resources(256 * 2**20, available_cores(), lambda _: None)

    def sample(method: str) -> Any:
        if method == "node" or (METHODS[method].flops(problem) or 0.0) <= WHOLE:
            return None
        if method == "incremental":  # it works on the weights of a unit together
            rows = [np.arange(w.W.start + i * w.k, w.W.start + (i + 1) * w.k) for w in layers
                    for i in range(0, w.n, max(1, w.n // 4))]  # fmt: skip
            return np.concatenate(rows)
        return some

    def by_loop() -> Array:
        entries = sample("loop")
        forward = plain_forward if name == LAB else plain_cost
        Y = net.Y if net.Y.ndim == 1 else net.Y[0]
        found = plain_loop(lambda p: forward(net.X, Y, p), parameters, entries=entries)
        return found.ravel() if entries is None else found.ravel()[entries]

    cost, _ = base_cost(problem)

    def by_method(method: str) -> Array:
        state = ForwardState(net, layers, problem.theta)
        problem.state = state  # the forward pass is part of the work
        with one_blas_thread() if state.uses_threads else nullcontext():
            found = METHODS[method].approximate(
                problem, sample(method), Base(cost, 0.0), METHODS[method].epsilon, resources
            )
        return found.gradapprox

    def by_gradient_check_n() -> Array:
        assert lab.gradient_check_n(parameters, named, net.X, net.Y) < 2e-7
        return flat(gradients)

    def by_check() -> Array:
        assert fastgc.check(net, parameters, gradients)
        return flat(gradients)

    def along_directions() -> Array:
        report = fastgc.check(net, parameters, gradients, method="random")
        assert report
        assert report.estimate is not None
        assert report.estimate.high < 1e-4
        return flat(gradients)

    def by_pass() -> Array:
        net(parameters)
        return flat(backward(net, parameters))

    found: dict[str, Contender] = {
        PLAIN: (by_loop, sample("loop")),
        **{f"method {method}": (partial(by_method, method), sample(method)) for method in METHODS},
        "numerical_gradient": (lambda: flat(fastgc.numerical_gradient(net, parameters)), None),
        "check": (by_check, None),
        ALONG: (along_directions, None),
        PASS: (by_pass, None),
    }
    if sample("loop") is None and widths_of(net, parameters)[-1] == 1:
        found["lab.gradient_check_n"] = (by_gradient_check_n, None)
    return found


def flat(tensors: Tensors) -> Array:
    prefix = "d" if "dW1" in tensors else ""
    depth = sum(key.startswith(f"{prefix}W") for key in tensors)
    keys = [f"{prefix}{kind}{l}" for l in range(1, depth + 1) for kind in "Wb"]
    return np.concatenate([tensors[key].ravel() for key in keys])


CONTENDERS = tuple(contenders(LAB))


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("case", CASES)
def bench_gradient(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    of_case = contenders(case)
    if contender not in of_case:
        pytest.skip("takes minutes")
    run, entries = of_case[contender]
    net, parameters = network_case(case)
    right = flat(backward(net, parameters))
    wanted = right if entries is None else right[entries]
    np.testing.assert_allclose(run(), wanted, rtol=1e-4, atol=1e-6)
    benchmark.group = case
    benchmark.extra_info.update(
        case=case,
        contender=contender,
        parameters=right.size,
        share=1.0 if entries is None else len(entries) / right.size,
        operations={
            name: method.flops(as_cost(net, parameters)) for name, method in METHODS.items()
        },
    )
    if contender == ALONG:
        benchmark.extra_info["checks"] = "8 directions per tensor"
    benchmark(run)
