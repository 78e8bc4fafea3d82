"""A Network's cost at 50 digits, written entry by entry: what every fast computation is held to."""

from collections.abc import Callable, Mapping
from typing import Any

from mpmath import mp, mpf

import fastgc
from tests.cases import Tensors

Rows = list[list[Any]]

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda z: max(z, mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else mpf(0.01) * z,
    "tanh": lambda z: mp.tanh(z),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log(1 + mp.exp(z)),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "identity": lambda z: z,
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": lambda z: z * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mpf(0.044715) * z**3))) / 2,
}


def cost(net: fastgc.Network, parameters: Mapping[str, Rows], digits: int = 50) -> Any:
    """J at `parameters` (of mpf, see `rows`)."""
    with mp.workdps(digits):
        depth = len(parameters) // 2
        names = net.activation
        hidden = (names,) * (depth - 1) if isinstance(names, str) else names
        m = net.m
        A: Rows = [[mpf(float(x)) for x in row] for row in net.X]
        for l in range(1, depth + 1):
            W, b = parameters[f"W{l}"], parameters[f"b{l}"]
            Z = [
                [mp.fsum(w * A[j][s] for j, w in enumerate(row)) + b[i][0] for s in range(m)]
                for i, row in enumerate(W)
            ]
            activate = _ACTIVATIONS[hidden[l - 1]] if l < depth else _ACTIVATIONS["identity"]
            A = [[activate(z) for z in row] for row in Z]
        total = mp.fsum(_loss(net, [row[s] for row in A], s) for s in range(m)) / m
        decay = mp.fsum(
            w * w for l in range(1, depth + 1) for row in parameters[f"W{l}"] for w in row
        )
        return total + mpf(net.weight_decay) / (2 * m) * decay


def _loss(net: fastgc.Network, z: list[Any], s: int) -> Any:
    if net.loss == "softmax":
        right = int(net.Y[s]) if net.Y.ndim == 1 else int(net.Y[:, s].argmax())
        return mp.log(mp.fsum(mp.exp(v) for v in z)) - z[right]
    labels: Any = [net.Y[s]] if net.Y.ndim == 1 else net.Y[:, s]
    y = [mpf(float(label)) for label in labels]
    if net.loss == "squared":
        return mp.fsum((a - b) ** 2 for a, b in zip(z, y, strict=True)) / 2
    if net.loss == "huber":
        sizes = [abs(a - b) for a, b in zip(z, y, strict=True)]
        return mp.fsum(r * r / 2 if r <= 1 else r - mpf(0.5) for r in sizes)
    # y log(1 + e^−z) + (1 − y) log(1 + e^z)
    return mp.fsum(
        b * mp.log(1 + mp.exp(-a)) + (1 - b) * mp.log(1 + mp.exp(a))
        for a, b in zip(z, y, strict=True)
    )


def rows(parameters: Tensors) -> dict[str, Rows]:
    """The parameters as mpf, exactly."""
    return {
        name: [[mpf(float(v)) for v in row] for row in value] for name, value in parameters.items()
    }


def central_difference(
    net: fastgc.Network, parameters: Tensors, name: str, index: tuple[int, int], epsilon: float
) -> Any:
    """(J(θ + ε e_k) − J(θ − ε e_k)) / 2ε without rounding."""
    with mp.workdps(50):
        i, j = index
        plus, minus = rows(parameters), rows(parameters)
        plus[name][i][j] += mpf(epsilon)
        minus[name][i][j] -= mpf(epsilon)
        return (cost(net, plus) - cost(net, minus)) / (2 * mpf(epsilon))
