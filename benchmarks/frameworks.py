"""A network in the operations of PyTorch, JAX and HIPS autograd, and gradients planted in theirs.

A framework is imported by the first call that needs it. All is in double precision.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fastgc
from tests.cases import Array

Cost: TypeAlias = Callable[..., Any]

#: The gradients of a model, in the order of its tensors -> others, that are wrong.
Change: TypeAlias = Callable[[list[Any]], list[Any]]


class Framework(NamedTuple):
    """What a network needs of a framework; `@`, indexing and `sum` are the same in all."""

    array: Callable[[Any], Any]
    activations: dict[str, Callable[[Any], Any]]  # by fastgc's names
    log_sum_exp: Callable[[Any], Any]  # over the rows of z (n, m), stably


def network_cost(of: Framework, net: fastgc.Network) -> Cost:
    """The cost of `net` in the operations `of` a framework, of W1, b1, W2, b2, …."""
    X, m = of.array(net.X), net.m
    samples = of.array(np.arange(m))
    labels = of.array(net.labels.astype(np.intp) if net.loss == "softmax" else net.labels)
    softplus = of.activations["softplus"]

    def loss(z: Any) -> Any:
        if net.loss == "logistic":
            return labels * softplus(-z) + (1 - labels) * softplus(z)
        if net.loss == "softmax":
            return of.log_sum_exp(z - z[labels, samples])
        return 0.5 * (z - labels) ** 2

    def cost(*values: Any) -> Any:
        weights, biases = values[::2], values[1::2]
        hidden = len(weights) - 1
        names = (net.activation,) * hidden if isinstance(net.activation, str) else net.activation
        A = X
        for W, b, name in zip(weights, biases, (*names, "identity"), strict=True):
            A = of.activations[name](W @ A + b)
        total = loss(A).sum()
        if net.weight_decay:
            total = total + 0.5 * net.weight_decay * sum((W * W).sum() for W in weights)
        return total / m

    return cost


def of_list(cost: Cost) -> Cost:
    return lambda values: cost(*values)


def torch_cost(net: fastgc.Network) -> Cost:
    import torch
    from torch.nn import functional

    activations: dict[str, Callable[[Any], Any]] = {
        "relu": torch.relu,
        "leaky_relu": functional.leaky_relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        # the default threshold, 20, is chosen for single precision: it steps by 2e-9 there
        "softplus": partial(functional.softplus, threshold=40),
        "silu": functional.silu,
        "identity": lambda z: z,
    }
    return network_cost(Framework(torch.tensor, activations, partial(torch.logsumexp, dim=0)), net)


def jax_in_double() -> Any:
    jax = importlib.import_module("jax")
    # without it everything is float32, and check_grads takes its tolerances for that, 200 times
    # as wide
    jax.config.update("jax_enable_x64", True)
    return jax


def jax_framework() -> Framework:
    jax = jax_in_double()
    names = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus", "silu", "identity")
    activations = {name: getattr(jax.nn, name) for name in names}
    return Framework(jax.numpy.asarray, activations, partial(jax.nn.logsumexp, axis=0))


@lru_cache(maxsize=1)  # a study plants many bugs in one network: compile it for the first
def jax_cost(net: fastgc.Network) -> Cost:
    """`net`'s cost as one compiled function; op by op, each is compiled anew for each new shape."""
    compiled: Cost = jax_in_double().jit(of_list(network_cost(jax_framework(), net)))
    return compiled


def autograd_framework() -> Framework:
    anp = importlib.import_module("autograd.numpy")

    def sigmoid(z: Any) -> Any:
        return anp.exp(-anp.logaddexp(0.0, -z))

    def log_sum_exp(z: Any) -> Any:
        top = anp.max(z, axis=0)
        return anp.log(anp.sum(anp.exp(z - top), axis=0)) + top

    activations: dict[str, Callable[[Any], Any]] = {
        "relu": lambda z: anp.maximum(z, 0.0),
        "leaky_relu": lambda z: anp.maximum(z, 0.01 * z),
        "tanh": anp.tanh,
        "sigmoid": sigmoid,
        "softplus": lambda z: anp.logaddexp(0.0, z),
        "silu": lambda z: z * sigmoid(z),
        "identity": lambda z: z,
    }
    return Framework(anp.array, activations, log_sum_exp)


def planted_in_torch(cost: Cost, slopes: Sequence[Array]) -> Cost:
    """`cost`, whose backward pass returns these slopes."""
    import torch

    tensors = [torch.tensor(slope) for slope in slopes]

    class Planted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *values: Any) -> Any:  # noqa: ARG004  torch passes it
            return cost(*values)

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:  # noqa: ARG004  likewise
            return tuple(grad_output * slope for slope in tensors)

    function: Cost = Planted.apply
    return function


def planted_in_jax(loss: Cost, gradients: Callable[[Any], Any]) -> Cost:
    """`loss`, whose backward pass returns what `gradients` makes of the parameters."""
    jax = importlib.import_module("jax")

    def backward(slopes: Any, cotangent: Any) -> Any:
        return (jax.tree_util.tree_map(lambda slope: cotangent * slope, slopes),)

    planted: Any = jax.custom_vjp(loss)
    planted.defvjp(lambda params: (loss(params), gradients(params)), backward)
    function: Cost = planted
    return function


def unchanged(gradients: list[Any]) -> list[Any]:
    return gradients


def changed_in_torch(function: Cost, change: Change) -> Cost:
    """A function whose inputs get other gradients."""
    import torch

    if change is unchanged:
        return function

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:  # noqa: ARG004  torch passes it
            return tuple(x.view_as(x) for x in inputs)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004  likewise
            return tuple(change(list(gradients)))

    return lambda *inputs: function(*Off.apply(*inputs))
