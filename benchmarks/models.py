"""What the checkers are given: networks, functions and modules of PyTorch, losses in JAX.

The gradients are right, or wrong in a known way. A framework is imported by the first call that
needs it, so that a missing one costs only its own rows. All is in double precision.
"""

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import fastgc
from benchmarks import frameworks
from benchmarks.frameworks import Change, Cost, changed_in_torch, jax_in_double, unchanged
from tests.cases import NETWORKS, TIMED_NETWORKS, Array, NetworkCase, Tensors

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Model:
    """A function with its gradients.

    Attributes:
        name: for the tables.
        size: parameters; of a function of tensors, entries of its Jacobian.
        forms: how a checker can have it -> makes that anew, so that nothing of it is compiled:

            * ``network`` and ``numpy``: (cost, parameters, gradients), a `fastgc.Network` or not;
            * ``torch``: (function, tensors);
            * ``module``: (module, (loss, inputs, targets));
            * ``jax`` and ``autograd``: (loss, parameters).
    """

    name: str
    size: int
    forms: Mapping[str, Callable[[], tuple[Any, ...]]]


def network(
    net: fastgc.Network, parameters: Tensors, gradients: Tensors, cost: Cost | None = None
) -> Model:
    """A network in every framework, told that these are its gradients.

    `cost` is the same in NumPy's operations, by default fastgc's own forward pass.
    """
    values, planted = in_order(parameters), in_order(gradients)

    def in_torch() -> tuple[Any, ...]:
        import torch

        tensors = [torch.tensor(value, requires_grad=True) for value in values]
        return frameworks.planted_in_torch(frameworks.torch_cost(net), planted), tensors

    def in_jax() -> tuple[Any, ...]:
        jax = jax_in_double()
        slopes = [jax.numpy.asarray(slope) for slope in planted]
        return frameworks.planted_in_jax(frameworks.jax_cost(net), lambda _: slopes), values

    def in_autograd() -> tuple[Any, ...]:
        extend = importlib.import_module("autograd.extend")
        cost = frameworks.network_cost(frameworks.autograd_framework(), net)
        loss = extend.primitive(frameworks.of_list(cost))
        extend.defvjp(loss, lambda *_: lambda g: [g * slope for slope in planted])
        return loss, values

    return Model(
        name="network",
        size=sum(value.size for value in values),
        forms={
            "network": lambda: (net, parameters, gradients),
            "numpy": lambda: (cost or (lambda p: net(p)), parameters, gradients),
            "torch": in_torch,
            "jax": in_jax,
            "autograd": in_autograd,
        },
    )


def in_order(tensors: Tensors) -> list[Array]:
    """W1, b1, W2, b2, …."""
    return [tensors[f"{kind}{l}"] for l in range(1, len(tensors) // 2 + 1) for kind in "Wb"]


def middle_entry(factor: float) -> Change:
    """The entry in the middle of the first tensor is off by a factor."""

    def change(gradients: list[Any]) -> list[Any]:
        first, *others = gradients
        wrong = first.flatten().clone()
        wrong[wrong.numel() // 2] *= factor
        return [wrong.reshape(first.shape), *others]

    return change


def torch_functions(change: Change = unchanged) -> list[Model]:
    import torch

    class Swish(torch.autograd.Function):
        """x σ(x), with a backward pass of its own."""

        @staticmethod
        def forward(ctx: Any, x: "Tensor") -> "Tensor":
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, g: "Tensor") -> "Tensor":
            (x,) = ctx.saved_tensors
            s = torch.sigmoid(x)
            slope: Tensor = s + x * s * (1 - s)
            return g * slope

    def draw(*shape: int, seed: int) -> "Tensor":
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def layers(x: Any, W: Any, b: Any, V: Any, c: Any) -> "Tensor":
        found: Tensor = torch.tanh(x @ W + b) @ V + c
        return found

    shapes = [(8, 10), (10, 20), (20,), (20, 5), (5,)]
    weights = tuple(draw(*shape, seed=i) for i, shape in enumerate(shapes))
    images = draw(2, 3, 8, 8, seed=5), draw(4, 3, 3, 3, seed=6), draw(4, seed=7)
    matrix = 4 * torch.eye(10, dtype=torch.float64) + draw(10, 10, seed=8).detach()
    table: list[tuple[str, Cost, tuple[Tensor, ...]]] = [
        ("network, 10-20-5, 8 samples", layers, weights),
        ("its loss, a number", lambda *p: layers(*p).square().mean(), weights),
        ("convolution, 2 × 3 × 8 × 8", torch.nn.functional.conv2d, images),
        ("custom Function, 200 entries", lambda x: Swish.apply(x), (draw(200, seed=9),)),
        ("inverse of a 10 × 10 matrix", torch.linalg.inv, (matrix.requires_grad_(),)),
        ("sine of 5 numbers", torch.sin, (draw(5, seed=10),)),
    ]
    return [
        Model(
            name,
            sum(x.numel() for x in inputs) * function(*inputs).numel(),
            {"torch": partial(lambda f, x: (changed_in_torch(f, change), x), function, inputs)},
        )
        for name, function, inputs in table
    ]


def torch_modules(change: Change = unchanged) -> list[Model]:
    import torch
    from torch import nn

    class Recurrent(nn.Module):
        """Reads off the last state of an LSTM, which cannot be batched by vmap."""

        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.LSTM(6, 10, batch_first=True), nn.Linear(10, 1)

        def forward(self, x: "Tensor") -> "Tensor":
            found: Tensor = self.head(self.cells(x)[0][:, -1])
            return found

    torch.manual_seed(0)
    bce, mse, entropy = nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.CrossEntropyLoss()
    dense = nn.Sequential(
        nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    images = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    attention = nn.Sequential(
        nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), nn.Linear(16, 1)
    )
    digits = entropy, torch.randn(16, 1, 14, 14), torch.randint(0, 10, (16,))
    return [
        _module(name, module.double(), data, change)
        for name, module, data in (
            ("30-64-32-1, ReLU, 64 samples", dense, (bce, torch.randn(64, 30), torch.rand(64, 1))),
            ("two convolutions, 16 images", images, digits),
            ("transformer layer, 8 × 6 tokens", attention,
             (mse, torch.randn(8, 6, 16), torch.randn(8, 6, 1))),
            ("LSTM, 16 × 5 steps", Recurrent(), (mse, torch.randn(16, 5, 6), torch.randn(16, 1))),
        )
    ]  # fmt: skip


def _module(
    name: str, module: "nn.Module", data: tuple[Any, "Tensor", "Tensor"], change: Change
) -> Model:
    """A module, and its loss as a function of its parameters."""
    from torch.func import functional_call

    loss, *tensors = data
    x, y = (value.double() if value.is_floating_point() else value for value in tensors)
    names = [name for name, _ in module.named_parameters()]
    parameters = tuple(module.parameters())

    def as_module() -> tuple[Any, ...]:
        wrong = copy.deepcopy(module)
        if change is not unchanged:
            next(wrong.parameters()).register_hook(lambda gradient: change([gradient])[0])
        return wrong, (loss, x, y)

    def of_parameters(*values: Any) -> Any:
        return loss(functional_call(module, dict(zip(names, values, strict=True)), x), y)

    return Model(
        name,
        sum(value.numel() for value in parameters),
        {
            "module": as_module,
            "torch": lambda: (changed_in_torch(of_parameters, change), parameters),
        },
    )


def last_tensor(by: float) -> Change:
    """The last tensor is off by a part of itself."""
    return lambda gradients: [*gradients[:-1], (1 + by) * gradients[-1]]


def largest_entry(by: float) -> Change:
    """The largest entry of the first tensor is off by a part of itself."""

    def change(gradients: list[Any]) -> list[Any]:
        first, *others = gradients
        return [first * (1 + by * (abs(first) == abs(first).max())), *others]

    return change


def jax_losses(change: Change = unchanged) -> list[Model]:
    table = {
        "4-5-3-1, m = 3": _network_in_jax(*NETWORKS[0].build()),
        "two convolutions, 8 images": _convolutions(),
        "attention, 12 × 16": _attention(),
        TIMED_NETWORKS[0].name: _network_in_jax(*TIMED_NETWORKS[0].build()),
    }
    return [_in_jax(name, *parts, change) for name, parts in table.items()]


def jax_losses_at_kinks() -> list[Model]:
    """Of networks whose biases are zero, and so is one of the samples."""
    models = []
    for widths in ((4, 5, 3, 1), (6, 8, 1), (10, 16, 8, 2), (3, 20, 1), (8, 4, 4, 4, 1)):
        net, parameters = NetworkCase(str(widths), widths, 16).build()
        X = net.X.copy()
        X[:, 0] = 0.0
        parameters = {name: value * (name[0] == "W") for name, value in parameters.items()}
        parts = _network_in_jax(fastgc.Network(X, net.Y), parameters)
        models.append(_in_jax(str(widths), *parts, unchanged))
    return models


def _in_jax(name: str, loss: Cost, arrays: Any, change: Change) -> Model:
    jax = jax_in_double()
    params = jax.tree_util.tree_map(jax.numpy.asarray, arrays)

    def gradients(params: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten(jax.grad(loss)(params))
        return jax.tree_util.tree_unflatten(structure, change(leaves))

    def form() -> tuple[Any, ...]:  # a new function, as JAX keeps what it compiled of one
        wrong = loss if change is unchanged else frameworks.planted_in_jax(loss, gradients)
        return jax.jit(lambda params: wrong(params)), params

    return Model(name, sum(leaf.size for leaf in jax.tree_util.tree_leaves(params)), {"jax": form})


def _network_in_jax(net: fastgc.Network, parameters: Tensors) -> tuple[Cost, Any]:
    cost = frameworks.network_cost(frameworks.jax_framework(), net)
    return frameworks.of_list(cost), in_order(parameters)


def _normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def _convolutions() -> tuple[Cost, Any]:
    jax = jax_in_double()
    images, numbers = jax.numpy.asarray(_normal(0, 8, 8, 8, 2)), ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=numbers)
    first, second = _normal(1, 3, 3, 2, 6) / 4, _normal(2, 3, 3, 6, 6) / 7

    def loss(params: Any) -> Any:
        A = images
        for name in ("first", "second"):
            A = jax.nn.silu(convolve(A, params[name], (1, 1), "SAME"))
        return -jax.nn.log_softmax(A.mean((1, 2)) @ params["out"])[:, 0].mean()

    return loss, {"first": first, "second": second, "out": _normal(3, 6, 5) / 2}


def _attention() -> tuple[Cost, Any]:
    jax = jax_in_double()
    jnp = jax.numpy
    x = jnp.asarray(_normal(0, 12, 16))

    def loss(params: Any) -> Any:
        q, k, v = (x @ params[name] for name in "qkv")
        scores = jnp.where(jnp.tril(jnp.ones((12, 12), bool)), q @ k.T / 4, -1e30)
        return jnp.mean((jnp.tanh(jax.nn.softmax(scores) @ v) @ params["out"]) ** 2)

    return loss, {name: _normal(i, 16, 16) / 4 for i, name in enumerate(("q", "k", "v", "out"))}
