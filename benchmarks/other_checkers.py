"""What other gradient checkers say of gradients, right or planted, of a fully connected network.

Each framework computes the cost in its own operations; the derivative that it is told belongs to
that cost is the planted one, so a checker judges what fastgc is asked to judge. Every checker has
its own defaults, in double precision. A framework is imported by the first call that needs it.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

import fastgc
from tests.cases import Array, Tensors, plain_loop

#: (network, parameters, gradients) -> whether the checker accepts the gradients.
Checker: TypeAlias = Callable[[fastgc.Network, Tensors, Tensors], bool]

#: Makes a cost that also counts its calls, or does anything else beside what it did.
Watch: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

#: A check with all made ready that is no part of it: whether the gradients are accepted.
Run: TypeAlias = Callable[[], bool]


@dataclass(frozen=True)
class Framework:
    """What a network needs of a framework; `@`, indexing and `sum` are the same in all.

    Attributes:
        array: NumPy array -> the framework's.
        activations: by fastgc's names.
        log_sum_exp: over the rows of z (n, m), stably.
    """

    array: Callable[[Any], Any]
    activations: dict[str, Callable[[Any], Any]]
    log_sum_exp: Callable[[Any], Any]


def torch_framework() -> Framework:
    torch = importlib.import_module("torch")
    functional = torch.nn.functional
    return Framework(
        array=torch.tensor,
        activations={
            "relu": torch.relu,
            "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            # the default threshold, 20, is chosen for single precision: it steps by 2e-9 there
            "softplus": lambda z: functional.softplus(z, threshold=40),
            "silu": functional.silu,
            "identity": lambda z: z,
        },
        log_sum_exp=lambda z: torch.logsumexp(z, 0),
    )


def jax_framework() -> Framework:
    jax = importlib.import_module("jax")
    # without it everything is float32, and check_grads takes its tolerances for that, 200 times
    # as wide
    jax.config.update("jax_enable_x64", True)
    return Framework(
        array=jax.numpy.asarray,
        activations={
            "relu": jax.nn.relu,
            "leaky_relu": lambda z: jax.nn.leaky_relu(z, 0.01),
            "tanh": jax.numpy.tanh,
            "sigmoid": jax.nn.sigmoid,
            "softplus": jax.nn.softplus,
            "silu": jax.nn.silu,
            "identity": lambda z: z,
        },
        log_sum_exp=lambda z: jax.nn.logsumexp(z, axis=0),
    )


def autograd_framework() -> Framework:
    anp = importlib.import_module("autograd.numpy")

    def sigmoid(z: Any) -> Any:
        return anp.exp(-anp.logaddexp(0.0, -z))

    def log_sum_exp(z: Any) -> Any:
        top = anp.max(z, axis=0)
        return anp.log(anp.sum(anp.exp(z - top), axis=0)) + top

    return Framework(
        array=anp.array,
        activations={
            "relu": lambda z: anp.maximum(z, 0.0),
            "leaky_relu": lambda z: anp.maximum(z, 0.01 * z),
            "tanh": anp.tanh,
            "sigmoid": sigmoid,
            "softplus": lambda z: anp.logaddexp(0.0, z),
            "silu": lambda z: z * sigmoid(z),
            "identity": lambda z: z,
        },
        log_sum_exp=log_sum_exp,
    )


def network_cost(of: Framework, net: fastgc.Network) -> Callable[..., Any]:
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


def in_order(tensors: Tensors) -> list[Array]:
    """W1, b1, W2, b2, …."""
    return [tensors[f"{kind}{l}"] for l in range(1, len(tensors) // 2 + 1) for kind in "Wb"]


def unwatched(cost: Callable[..., Any]) -> Callable[..., Any]:
    return cost


def accepts(check: Callable[[], object], complaint: type[Exception]) -> bool:
    """Whether `check` returns, instead of raising what it says of a wrong gradient.

    Its warnings, of an overflow far from the answer or of its own age, say nothing of the gradient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check()
        except complaint:
            return False
    return True


def lab_rule(net: fastgc.Network, parameters: Tensors, gradients: Tensors) -> bool:
    grad = np.concatenate([gradients[name].reshape(-1, 1) for name in parameters])
    # 0/0, where all gradients are zero, is a NaN: no answer, so not accepted
    with np.errstate(invalid="ignore", over="ignore"):
        gradapprox = plain_loop(net, parameters, epsilon=1e-7)
        numerator = np.linalg.norm(grad - gradapprox)
        denominator = np.linalg.norm(grad) + np.linalg.norm(gradapprox)
        return bool(numerator / denominator <= 2e-7)


def torch_cost(net: fastgc.Network, planted: Sequence[Array]) -> Callable[..., Any]:
    torch = importlib.import_module("torch")
    cost = network_cost(torch_framework(), net)
    slopes = [torch.tensor(value) for value in planted]

    def forward(ctx: Any, *values: Any) -> Any:  # noqa: ARG001  # torch passes it
        return cost(*values)

    def backward(ctx: Any, grad_output: Any) -> Any:  # noqa: ARG001  # likewise
        return tuple(grad_output * slope for slope in slopes)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type("Planted", (torch.autograd.Function,), methods)
    planted_cost: Callable[..., Any] = function.apply
    return planted_cost


def torch_gradcheck(
    net: fastgc.Network,
    parameters: Tensors,
    gradients: Tensors,
    *,
    fast: bool,
    watch: Watch = unwatched,
) -> Run:
    """Entry by entry; or, `fast`, one direction for each tensor, the same in every run."""
    torch = importlib.import_module("torch")
    # `torch.autograd.gradcheck` is the function; the module of that name has its exception
    complaint = importlib.import_module("torch.autograd.gradcheck").GradcheckError
    cost = watch(torch_cost(net, in_order(gradients)))
    values = [torch.tensor(value, requires_grad=True) for value in in_order(parameters)]
    return lambda: accepts(
        lambda: torch.autograd.gradcheck(cost, values, fast_mode=fast), complaint
    )


@lru_cache(maxsize=1)  # a study plants many bugs in one network: compile it for the first
def jax_compiled(net: fastgc.Network) -> Callable[..., Any]:
    """`net`'s cost as one compiled function; op by op, each is compiled anew for each new shape."""
    cost: Callable[..., Any] = importlib.import_module("jax").jit(
        network_cost(jax_framework(), net)
    )
    return cost


def jax_cost(net: fastgc.Network, planted: Sequence[Array]) -> Callable[..., Any]:
    jax = importlib.import_module("jax")
    cost = jax_compiled(net)
    slopes = [jax.numpy.asarray(value) for value in planted]
    function = jax.custom_vjp(cost)
    function.defvjp(
        lambda *values: (cost(*values), None),
        lambda _, cotangent: tuple(cotangent * slope for slope in slopes),
    )
    planted_cost: Callable[..., Any] = function
    return planted_cost


def jax_check_grads(
    net: fastgc.Network, parameters: Tensors, gradients: Tensors, watch: Watch = unwatched
) -> Run:
    """One direction through all parameters, from a RandomState(0) of JAX's own in every run."""
    check_grads = importlib.import_module("jax.test_util").check_grads
    cost = watch(jax_cost(net, in_order(gradients)))
    values = in_order(parameters)
    return lambda: accepts(
        lambda: check_grads(cost, values, order=1, modes=["rev"]), AssertionError
    )


def autograd_cost(net: fastgc.Network, planted: Sequence[Array]) -> Callable[..., Any]:
    extend = importlib.import_module("autograd.extend")
    cost = network_cost(autograd_framework(), net)
    planted_cost: Callable[..., Any] = extend.primitive(lambda values: cost(*values))
    extend.defvjp(planted_cost, lambda *_: lambda g: [g * slope for slope in planted])
    return planted_cost


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """The global generator of NumPy started at `seed`, and afterwards where it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def autograd_check_grads(
    net: fastgc.Network,
    parameters: Tensors,
    gradients: Tensors,
    watch: Watch = unwatched,
    seed: int = 0,
) -> Run:
    """One direction through all parameters, from NumPy's global generator."""
    check_grads = importlib.import_module("autograd.test_util").check_grads
    cost = watch(autograd_cost(net, in_order(gradients)))
    check = check_grads(cost, modes=["rev"], order=1)
    values = in_order(parameters)

    def run() -> bool:
        with numpy_seed(seed):  # so that a run can be repeated
            return accepts(lambda: check(values), AssertionError)

    return run


CHECKERS: dict[str, tuple[str, Checker]] = {
    "the lab's rule": ("numpy", lab_rule),
    "torch gradcheck": ("torch", lambda n, p, g: torch_gradcheck(n, p, g, fast=False)()),
    "torch gradcheck, fast_mode": ("torch", lambda n, p, g: torch_gradcheck(n, p, g, fast=True)()),
    "jax check_grads": ("jax", lambda n, p, g: jax_check_grads(n, p, g)()),
    "HIPS autograd check_grads": ("autograd", lambda n, p, g: autograd_check_grads(n, p, g)()),
}
