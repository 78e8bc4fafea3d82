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
from benchmarks.models import in_order
from fastgc import lab
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import Base
from fastgc.methods.registry import METHODS as REGISTRY
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

METHODS = ("loop", "stacked", "incremental", "node")  # those that look at every entry
LAB = "lab, 4-5-3-1, m = 3"
CASES = (LAB, *(case.name for case in TIMED_NETWORKS))
PLAIN = "the lab's loop, plainly"
PASS = "one forward + backward pass, NumPy"
ALONG = 'check, method="random"'

# Multiplications and additions that are still run whole; beyond, a sample of the entries.
WHOLE = 1e11
SAMPLE = 24

#: A function that returns gradapprox, and of which entries; None for all.
Contender = tuple[Callable[[], Array], Any]


def network_case(name: str) -> tuple[fastgc.Network, Tensors]:
    if name == LAB:
        X, Y, parameters = lab.gradient_check_n_test_case()
        return fastgc.Network(X, Y), parameters
    (case,) = (case for case in TIMED_NETWORKS if case.name == name)
    return case.build()


def labels_of(net: fastgc.Network) -> Any:
    """As `plain_cost` takes them."""
    return net.Y if net.Y.ndim == 1 else net.Y[0]


def flat(tensors: Tensors) -> Array:
    return np.concatenate([value.ravel() for value in in_order(tensors)])


def sample(cost: NetworkCost, method: str) -> Any:
    """The entries that are timed; None for all."""
    if (REGISTRY[method].flops(cost) or 0.0) <= WHOLE or method == "node":
        return None
    if method == "incremental":  # it works on the weights of a unit together
        rows = [np.arange(w.W.start + i * w.k, w.W.start + (i + 1) * w.k)
                for w in cost.state.layers for i in range(0, w.n, max(1, w.n // 4))]  # fmt: skip
        return np.concatenate(rows)
    P = cost.theta.size
    return np.sort(np.random.default_rng(0).choice(P, min(P, SAMPLE), replace=False))


def by_method(cost: NetworkCost, method: str) -> Array:
    """A method alone, and the forward pass that it needs."""
    cost.state = ForwardState(cost.state.net, cost.state.layers, cost.theta)
    resources = Resources(256 * 2**20, available_cores(), lambda _: None)
    base, of = Base(cost.start(), 0.0), REGISTRY[method]
    with one_blas_thread() if cost.traits.blas_threads else nullcontext():
        return of.approximate(cost, sample(cost, method), base, of.epsilon, resources).gradapprox


def contenders(name: str) -> dict[str, Contender]:
    """What is timed on a network."""
    net, parameters = network_case(name)
    cost = NetworkCost(net, *flatten_parameters(parameters))
    gradients = backward(net, parameters)
    named = {f"d{name}": value for name, value in gradients.items()}
    forward, Y = plain_forward if name == LAB else plain_cost, labels_of(net)
    some = sample(cost, "loop")

    def by_loop() -> Array:
        found = plain_loop(lambda p: forward(net.X, Y, p), parameters, entries=some).ravel()
        return found if some is None else found[some]

    def by_gradient_check_n() -> Array:
        assert lab.gradient_check_n(parameters, named, net.X, net.Y) < 2e-7
        return flat(gradients)

    def by_check(**options: Any) -> Array:
        report = fastgc.check(net, parameters, gradients, **options)
        assert report
        assert report.estimate is None or report.estimate.high < 1e-4
        return flat(gradients)

    def by_pass() -> Array:
        net(parameters)
        return flat(backward(net, parameters))

    found: dict[str, Contender] = {
        PLAIN: (by_loop, some),
        **{f"method {name}": (partial(by_method, cost, name), sample(cost, name))
           for name in METHODS},
        "numerical_gradient": (lambda: flat(fastgc.numerical_gradient(net, parameters)), None),
        "check": (by_check, None),
        ALONG: (partial(by_check, method="random"), None),
        PASS: (by_pass, None),
    }  # fmt: skip
    if some is None and net.loss == "logistic":
        found["lab.gradient_check_n"] = (by_gradient_check_n, None)
    return found


@pytest.mark.parametrize("contender", contenders(LAB))
@pytest.mark.parametrize("case", CASES)
def bench_gradient(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    of_case = contenders(case)
    if contender not in of_case:
        pytest.skip("takes minutes")
    run, entries = of_case[contender]
    right = flat(backward(*network_case(case)))
    wanted = right if entries is None else right[entries]
    np.testing.assert_allclose(run(), wanted, rtol=1e-4, atol=1e-6)
    benchmark.group = case
    benchmark.extra_info.update(
        case=case, contender=contender, parameters=right.size, share=wanted.size / right.size,
        checks={ALONG: "8 directions per tensor", PASS: "nothing"}.get(contender, "all entries"),
    )  # fmt: skip
    benchmark(run)
