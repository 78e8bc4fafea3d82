"""A module as a Network, and the report on that in the module's names."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everyone calls it
from numpy.typing import NDArray
from torch import nn

from fastgc.core.tree import entry_name
from fastgc.network.layers import LEAKY_SLOPE
from fastgc.network.network import Network
from fastgc.report.data import Arrays, Diagnosis, TensorReport
from fastgc.report.report import Report
from fastgc.torch.float64 import as_array, name_of

# What the diagnosis says: W2[3, 7], dZ1, the X of the first layer; not the 2 of "W2.weight".
SYMBOL = re.compile(r"(?<![\w.])(?:(d?)([WbZA])(\d+)(?:\[(\d+), (\d+)\])?|(X)(?= in the place))")


@dataclass(frozen=True, eq=False, repr=False)
class ModuleNetwork:
    """A module as a Network.

    Attributes:
        net: its cost is the module's loss.
        layers: the Linear layers, by their names in the module, first to last; "" for the module.
    """

    net: Network
    layers: dict[str, nn.Linear]

    @property
    def names(self) -> list[str]:
        """Of the layers."""
        return list(self.layers)

    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Copies of the Network's: W1, b1, …; a bias that a layer lacks is zero."""
        theta = {}
        for l, layer in enumerate(self.layers.values(), start=1):
            theta[f"W{l}"] = as_array(layer.weight)
            bias = np.zeros(layer.out_features) if layer.bias is None else as_array(layer.bias)
            theta[f"b{l}"] = bias.reshape(-1, 1)
        return theta

    def of(self, tensor: str) -> str:
        """``2.bias`` for ``b2``, where that is the layer 2's."""
        layer = self.names[int(tensor[1:]) - 1]
        part = "weight" if tensor[0] == "W" else "bias"
        return f"{layer}.{part}" if layer else part

    def text(self, text: str) -> str:
        """A sentence about W1, b1, dZ1 as one about the module's tensors."""
        text = text.replace("in every dW and db", "in every gradient")
        return SYMBOL.sub(self._symbol, text).replace("the wrong the", "the wrong")

    def _symbol(self, match: re.Match[str]) -> str:
        d, kind, number, row, column, _ = match.groups()
        if kind is None:
            return "the inputs"
        l = int(number)
        if kind in "Wb" and 1 <= l <= len(self.names):
            name = self.of(f"{kind}{l}")
            if row is not None:
                name = f"{name}[{row}]" if kind == "b" else f"{name}[{row}, {column}]"
        elif kind == "Z" and 1 <= l <= len(self.names):
            name = f"the output of {self._layer(l)}"
        elif kind == "A" and 0 <= l < len(self.names):
            name = f"the input of {self._layer(l + 1)}"
        else:
            return match[0]
        return f"the gradient of {name}" if d else name

    def _layer(self, l: int) -> str:
        name = self.names[l - 1]
        return f"layer {name}" if name else "the module"


class Unknown(Exception):  # noqa: N818  it is no error: the module is evaluated as it is
    """Why a module is no Network."""


#: The name that a hidden activation has in a Network, or None where it has other settings.
ACTIVATIONS: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.ReLU: lambda _: "relu",
    nn.LeakyReLU: lambda layer: "leaky_relu" if layer.negative_slope == LEAKY_SLOPE else None,
    nn.Tanh: lambda _: "tanh",
    nn.Sigmoid: lambda _: "sigmoid",
    nn.Softplus: lambda s: "softplus" if s.beta == 1 and s.threshold >= 20 else None,
    nn.SiLU: lambda _: "silu",
    nn.GELU: lambda layer: {"none": "gelu", "tanh": "gelu_tanh"}.get(layer.approximate),
}

LOSSES: dict[Any, str] = {
    nn.BCEWithLogitsLoss: "logistic",
    F.binary_cross_entropy_with_logits: "logistic",
    nn.BCELoss: "sigmoid logistic",
    F.binary_cross_entropy: "sigmoid logistic",
    nn.CrossEntropyLoss: "softmax",
    F.cross_entropy: "softmax",
    nn.NLLLoss: "log softmax",
    F.nll_loss: "log softmax",
    nn.MSELoss: "squared",
    F.mse_loss: "squared",
    nn.HuberLoss: "huber",
    F.huber_loss: "huber",
    nn.SmoothL1Loss: "huber",
    F.smooth_l1_loss: "huber",
}

# Options that a known loss may be given, with the values that change nothing.
PLAIN = {
    "weight": None, "pos_weight": None, "label_smoothing": 0.0, "ignore_index": -100,
    "delta": 1.0, "beta": 1.0,
}  # fmt: skip


def recognise(module: nn.Module, loss_fn: Any, inputs: Any, targets: Any) -> ModuleNetwork:
    """The Network that computes loss_fn(module(inputs), targets).

    Raises:
        Unknown: where there is none, or none that is sure.
    """
    kind, reduction = _loss(loss_fn)
    if type(inputs) is tuple and len(inputs) == 1:
        inputs = inputs[0]
    if not (isinstance(inputs, torch.Tensor) and isinstance(targets, torch.Tensor)):
        raise Unknown("its inputs and targets are not one tensor each")
    if not (inputs.is_floating_point() and inputs.ndim >= 2 and len(inputs) > 0):
        raise Unknown(f"its inputs are {_what(inputs)}; wanted real numbers, a row for each sample")
    steps = list(_steps(module, ""))
    while steps and isinstance(steps[0][1], nn.Flatten):
        inputs, steps = steps[0][1](inputs), steps[1:]
    layers, activations = _chain(steps, kind)
    if inputs.ndim != 2:
        raise Unknown(f"its inputs are {_what(inputs)}; wanted a row for each sample")
    m, outputs = len(inputs), list(layers.values())[-1].out_features
    loss = kind.split()[-1]
    divisor = float(m) if reduction == "mean" else 1.0
    if loss == "softmax":
        if targets.ndim == 1 and targets.dtype != torch.int64:
            raise Unknown(f"its targets are {_what(targets)}; wanted class indices")
        if targets.ndim == 2 and (kind != "softmax" or not targets.is_floating_point()):
            raise Unknown(f"its targets are {_what(targets)}; wanted class indices (m,)")
    else:
        if targets.shape != (m, outputs):
            raise Unknown(f"its targets have shape {tuple(targets.shape)}, not {(m, outputs)}")
        if reduction == "mean":
            divisor *= outputs
        if loss == "squared":  # its half, in a Network
            divisor /= 2
    try:
        net = Network(
            as_array(inputs).T,
            as_array(targets).T,
            activation=activations,
            loss=loss,
            divisor=divisor,
        )
    except (TypeError, ValueError) as error:
        raise Unknown(str(error)) from None
    return ModuleNetwork(net, layers)


def _loss(loss_fn: Any) -> tuple[str, str]:
    """The kind of a loss and its reduction."""
    options: dict[str, Any] = {}
    if isinstance(loss_fn, nn.Module):
        _require_plain(loss_fn, "the loss")
        kind = LOSSES.get(type(loss_fn))
        names = (*PLAIN, "reduction")
        options = {name: getattr(loss_fn, name) for name in names if hasattr(loss_fn, name)}
    else:
        if type(loss_fn) is functools.partial and not loss_fn.args:
            options, loss_fn = dict(loss_fn.keywords), loss_fn.func
        known = isinstance(loss_fn, type(F.mse_loss) | type(F.binary_cross_entropy_with_logits))
        kind = LOSSES.get(loss_fn) if known else None
    if kind is None:
        raise Unknown("its loss is none that fastgc knows")
    reduction = options.pop("reduction", "mean")
    for name, value in options.items():
        if name not in PLAIN or isinstance(value, torch.Tensor) or value != PLAIN[name]:
            raise Unknown(f"its loss has {name}={value!r}")
    if reduction not in ("mean", "sum"):
        raise Unknown(f"its loss has reduction={reduction!r}")
    return kind, reduction


def _steps(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """What nested Sequentials do, in order; what does nothing is left out."""
    _require_plain(module, f"its layer {name}" if name else "it")
    if type(module) is nn.Sequential:
        for key, child in module.named_children():
            yield from _steps(child, f"{name}.{key}" if name else key)
        if len(module) != len(list(module.named_children())):
            raise Unknown("a layer is used more than once")
    elif type(module) is nn.Dropout:
        if module.training and module.p > 0:
            raise Unknown("dropout is active")
    elif type(module) is not nn.Identity:
        yield name, module


def _chain(
    steps: list[tuple[str, nn.Module]], kind: str
) -> tuple[dict[str, nn.Linear], tuple[str, ...]]:
    """The Linear layers, and the activations between them."""
    if kind in ("sigmoid logistic", "log softmax"):
        last = steps[-1][1] if steps else None
        if kind == "sigmoid logistic" and type(last) is not nn.Sigmoid:
            raise Unknown("its loss wants probabilities, and its last layer is no Sigmoid")
        if kind == "log softmax" and not (type(last) is nn.LogSoftmax and last.dim in (1, -1)):
            raise Unknown("its loss wants log-probabilities, and its last layer is no LogSoftmax")
        steps = steps[:-1]
    layers: dict[str, nn.Linear] = {}
    activations: list[str] = []
    for name, step in steps:
        if type(step) is nn.Linear:
            if len(activations) < len(layers):
                activations.append("identity")
            layers[name] = step
        elif type(step) is nn.Flatten and step.start_dim == 1 and len(layers) > 0:
            continue  # of rows
        elif activation := ACTIVATIONS.get(type(step), lambda _: None)(step):
            if len(activations) != len(layers) - 1:
                raise Unknown(f"layer {name} follows no Linear layer")
            activations.append(activation)
        else:
            what = f"layer {name}" if name else "it"
            raise Unknown(f"{what} is a {type(step).__name__}")
    if not layers:
        raise Unknown("it has no Linear layer")
    if len(activations) != len(layers) - 1:
        raise Unknown("it ends in an activation")
    used = [id(t) for layer in layers.values() for t in layer.parameters()]
    if len(set(used)) < len(used):
        raise Unknown("its layers share parameters")
    return layers, tuple(activations)


def _require_plain(module: nn.Module, what: str) -> None:
    """Raises Unknown for a module with hooks, or a forward of its own."""
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    if any(getattr(module, f"_{kind}_hooks") for kind in kinds):
        raise Unknown(f"{what} has hooks")
    if "forward" in vars(module):
        raise Unknown(f"{what} has a forward of its own")


def _what(tensor: torch.Tensor) -> str:
    return f"{name_of(tensor.dtype)} of shape {tuple(tensor.shape)}"


def renamed(report: Report, network: ModuleNetwork, order: Sequence[str]) -> Report:
    """The report on a Network with the module's names, in this order; a bias has shape (n,)."""
    tensors = [_tensor(tensor, network) for tensor in report.tensors.values()]
    by_name = {tensor.name: tensor for tensor in tensors}
    return replace(
        report,
        tensors={name: by_name[name] for name in order if name in by_name},
        origin=None if report.origin is None else network.text(report.origin),
    )


def _tensor(tensor: TensorReport, network: ModuleNetwork) -> TensorReport:
    name = network.of(tensor.name)
    shape = tensor.shape[: 1 if tensor.name[0] == "b" else 2]
    index = tensor.worst.index[: len(shape)]
    return replace(
        tensor,
        name=name,
        shape=shape,
        worst=replace(tensor.worst, name=entry_name(name, index), index=index),
        diagnosis=None if tensor.diagnosis is None else _diagnosis(tensor.diagnosis, network),
        arrays=None if tensor.arrays is None else _arrays(tensor.arrays, shape),
    )


def _diagnosis(diagnosis: Diagnosis, network: ModuleNetwork) -> Diagnosis:
    if diagnosis.kind != "decay" or diagnosis.value is None:
        return replace(diagnosis, text=network.text(diagnosis.text))
    rate = diagnosis.value / network.net.divisor  # as an optimizer's weight_decay counts it
    sign, than = ("+", "more") if rate > 0 else ("−", "less")
    text = f"the numerical gradient {sign} {abs(rate):.4g} × the parameters: {than} weight decay"
    return Diagnosis(diagnosis.kind, f"{text} than the loss has", rate)


def _arrays(arrays: Arrays, shape: tuple[int, ...]) -> Arrays:
    entries = arrays.analytic.shape if arrays.places is not None else shape
    fields = ("analytic", "numerical", "uncertainty", "verdicts")
    reshaped: Any = {field: getattr(arrays, field).reshape(entries) for field in fields}
    return replace(arrays, shape=shape, **reshaped)
