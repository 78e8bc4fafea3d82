"""What else checks gradients, on the same networks; `extra_info["checks"]` says what each checked.

Needs the extra ``bench``; a peer that is not installed is skipped.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_methods import CASES, flat, network_case
from fastgc import Network
from tests.cases import Array, Tensors, backward, plain_cost

ALL, ONE = "all entries", "one direction"

# Parameters up to which a peer that takes a pass for each entry is run at all.
MOST = {"torch gradcheck": 5_000, "scipy approx_derivative 3-point": 5_000, "numdifftools": 100}

Peer = Callable[[Network, Tensors], Callable[[], object]]


def unflatten(vector: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    tensors, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        tensors[name] = vector[start : start + size].reshape(shape)
        start += size
    return tensors


def flat_cost(net: Network, parameters: Tensors) -> tuple[Callable[[Array], float], Array]:
    shapes = {name: value.shape for name, value in parameters.items()}
    Y = net.Y if net.Y.ndim == 1 else net.Y[0]
    start = np.concatenate([value.ravel() for value in parameters.values()])
    return lambda vector: plain_cost(net.X, Y, unflatten(vector, shapes)), start


def torch_cost(net: Network, parameters: Tensors) -> tuple[Callable[..., Any], list[Any]]:
    torch = importlib.import_module("torch")
    X, Y = torch.tensor(net.X), torch.tensor(net.Y if net.Y.ndim == 1 else net.Y[0])
    tensors = [torch.tensor(v, requires_grad=True) for v in parameters.values()]
    depth = len(tensors) // 2

    def cost(*values: Any) -> Any:
        A = X
        for l in range(depth):
            Z = values[2 * l] @ A + values[2 * l + 1]
            A = torch.relu(Z)
        if Z.shape[0] > 1:
            return torch.nn.functional.cross_entropy(Z.T, Y.long())
        return torch.nn.functional.binary_cross_entropy_with_logits(Z[0], Y)

    return cost, tensors


def torch_gradcheck(net: Network, parameters: Tensors, *, fast: bool) -> Callable[[], object]:
    torch = importlib.import_module("torch")
    cost, tensors = torch_cost(net, parameters)
    return lambda: torch.autograd.gradcheck(cost, tensors, fast_mode=fast)


def torch_pass(net: Network, parameters: Tensors) -> Callable[[], object]:
    torch = importlib.import_module("torch")
    cost, tensors = torch_cost(net, parameters)
    gradients = flat(backward(net, parameters))

    def run() -> Any:
        return torch.autograd.grad(cost(*tensors), tensors)

    found = np.concatenate([g.numpy().ravel() for g in run()])
    np.testing.assert_allclose(found, gradients, rtol=1e-6, atol=1e-9)
    return run


def jax_cost(net: Network, parameters: Tensors) -> tuple[Any, Any, Any]:
    jax = importlib.import_module("jax")
    jnp = jax.numpy
    jax.config.update("jax_enable_x64", True)
    X, Y = jnp.asarray(net.X), jnp.asarray(net.Y if net.Y.ndim == 1 else net.Y[0])
    depth = len(parameters) // 2

    def cost(p: Any) -> Any:
        A = X
        for l in range(1, depth + 1):
            Z = p[f"W{l}"] @ A + p[f"b{l}"]
            A = jax.nn.relu(Z)
        if Z.shape[0] > 1:
            logs = jax.nn.log_softmax(Z, axis=0)
            return -logs[Y.astype(int), jnp.arange(Y.size)].mean()
        return jnp.mean(Y * jnp.logaddexp(0, -Z[0]) + (1 - Y) * jnp.logaddexp(0, Z[0]))

    return jax, cost, {name: jnp.asarray(value) for name, value in parameters.items()}


def jax_check_grads(net: Network, parameters: Tensors) -> Callable[[], object]:
    _, cost, p = jax_cost(net, parameters)
    check = importlib.import_module("jax.test_util").check_grads
    return lambda: check(cost, (p,), order=1, modes=["rev"])


def jax_central(net: Network, parameters: Tensors) -> Callable[[], object]:
    jax, cost, p = jax_cost(net, parameters)
    start, build = importlib.import_module("jax.flatten_util").ravel_pytree(p)
    numbers = jax.numpy.arange(start.size)

    def every_slope(theta: Any) -> Any:
        def slope(k: Any) -> Any:
            plus, minus = theta.at[k].add(1e-7), theta.at[k].add(-1e-7)
            return (cost(build(plus)) - cost(build(minus))) / 2e-7

        return jax.lax.map(slope, numbers, batch_size=64)

    run = partial(jax.jit(every_slope), start)
    gradients = np.concatenate([backward(net, parameters)[name].ravel() for name in sorted(p)])
    np.testing.assert_allclose(np.asarray(run()), gradients, rtol=1e-4, atol=1e-6)
    return lambda: run().block_until_ready()


def scipy_derivative(net: Network, parameters: Tensors) -> Callable[[], object]:
    derivative = importlib.import_module("scipy.optimize._numdiff").approx_derivative
    cost, start = flat_cost(net, parameters)
    return lambda: derivative(cost, start, method="3-point")


def numdifftools_gradient(net: Network, parameters: Tensors) -> Callable[[], object]:
    gradient = importlib.import_module("numdifftools").Gradient
    cost, start = flat_cost(net, parameters)
    return lambda: gradient(cost)(start)


def autograd_check_grads(net: Network, parameters: Tensors) -> Callable[[], object]:
    anp = importlib.import_module("autograd.numpy")
    check = importlib.import_module("autograd.test_util").check_grads
    Y = net.Y if net.Y.ndim == 1 else net.Y[0]
    depth = len(parameters) // 2

    def cost(p: Any) -> Any:
        A = net.X
        for l in range(1, depth + 1):
            Z = anp.dot(p[f"W{l}"], A) + p[f"b{l}"]
            A = anp.maximum(Z, 0.0)
        if Z.shape[0] > 1:
            right = Z[Y.astype(int), np.arange(Y.size)]
            top = anp.max(Z, axis=0)
            return anp.mean(anp.log(anp.sum(anp.exp(Z - top), axis=0)) + top - right)
        return anp.mean(Y * anp.logaddexp(0, -Z[0]) + (1 - Y) * anp.logaddexp(0, Z[0]))

    return lambda: check(cost, modes=["rev"], order=1)(parameters)


PEERS: dict[str, tuple[str, str, Peer]] = {
    "torch gradcheck": ("torch", ALL, lambda n, p: torch_gradcheck(n, p, fast=False)),
    "torch gradcheck, fast_mode": ("torch", ONE, lambda n, p: torch_gradcheck(n, p, fast=True)),
    "jax check_grads": ("jax", ONE, jax_check_grads),
    "jax jit + vmap central differences": ("jax", ALL, jax_central),
    "scipy approx_derivative 3-point": ("scipy", ALL, scipy_derivative),
    "numdifftools": ("numdifftools", ALL, numdifftools_gradient),
    "HIPS autograd check_grads": ("autograd", ONE, autograd_check_grads),
    "one forward + backward pass, torch": ("torch", "nothing", torch_pass),
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")  # the peers' own
def bench_peer(benchmark: BenchmarkFixture, case: str, peer: str) -> None:
    package, checks, make = PEERS[peer]
    pytest.importorskip(package, reason="that checker is not installed")
    net, parameters = network_case(case)
    size = sum(value.size for value in parameters.values())
    if size > MOST.get(peer, 5_000 if checks == ALL else 10**9):
        pytest.skip("takes minutes")
    run = make(net, parameters)
    outcomes = {"passes": 0, "rejects": 0}

    def timed() -> None:
        try:
            run()
        except (AssertionError, RuntimeError):  # how the peers say that a gradient is wrong
            outcomes["rejects"] += 1
        else:
            outcomes["passes"] += 1

    benchmark.group = case
    benchmark.extra_info.update(
        case=case, contender=peer, parameters=size, share=1.0, checks=checks, outcomes=outcomes
    )
    benchmark(timed)
