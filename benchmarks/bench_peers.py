"""What else checks gradients, on the same networks; `extra_info["checks"]` says what each checked.

Needs the extra ``bench``; a peer that is not installed is skipped.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import checkers
from benchmarks.bench_methods import CASES, labels_of, network_case
from benchmarks.frameworks import torch_cost
from benchmarks.models import in_order, network
from fastgc import Network
from tests.cases import Tensors, backward, plain_cost

PEERS = {
    checker.name: checker
    for checker in (
        checkers.TORCH, checkers.TORCH_FAST, checkers.JAX, checkers.BY_HAND, checkers.SCIPY,
        checkers.NUMDIFFTOOLS, checkers.AUTOGRAD,
    )
}  # fmt: skip
MOST = 5_000  # parameters, beyond which what looks at all entries would take minutes


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", CASES)
def bench_peer(benchmark: BenchmarkFixture, case: str, peer: str) -> None:
    checker = PEERS[peer]
    pytest.importorskip(checker.package, reason="that checker is not installed")
    net, parameters = network_case(case)
    Y = labels_of(net)
    model = network(net, parameters, backward(net, parameters), lambda p: plain_cost(net.X, Y, p))
    if not checker.takes(model) or (checker.checks == checkers.ALL and model.size > MOST):
        pytest.skip("takes minutes")
    run = checker.ready(model)
    assert checker.checks != checkers.ALL or run() == "correct"
    outcomes = {"correct": 0, "wrong": 0}

    def timed() -> None:
        outcomes[run()] += 1

    benchmark.group = case
    benchmark.extra_info.update(
        case=case, contender=peer, parameters=model.size, share=1.0, checks=checker.checks,
        outcomes=outcomes,
    )  # fmt: skip
    benchmark(timed)


@pytest.mark.parametrize("case", CASES)
def bench_torch_pass(benchmark: BenchmarkFixture, case: str) -> None:
    pytest.importorskip("torch")
    net, parameters = network_case(case)
    run = torch_pass(net, parameters)
    found = [gradient.numpy() for gradient in run()]
    for gradient, right in zip(found, in_order(backward(net, parameters)), strict=True):
        np.testing.assert_allclose(gradient, right, rtol=1e-6, atol=1e-9)
    benchmark.group = case
    benchmark.extra_info.update(
        case=case, contender="one forward + backward pass, torch", share=1.0, checks="nothing",
        parameters=sum(gradient.size for gradient in found),
    )  # fmt: skip
    benchmark(run)


def torch_pass(net: Network, parameters: Tensors) -> Callable[[], Any]:
    torch, cost = importlib.import_module("torch"), torch_cost(net)
    tensors = [torch.tensor(value, requires_grad=True) for value in in_order(parameters)]
    return lambda: torch.autograd.grad(cost(*tensors), tensors)
