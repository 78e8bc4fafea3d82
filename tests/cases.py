"""The table of cases: networks, bugs and other costs, for tests and benchmarks alike.

Derivatives appear here and nowhere in fastgc: the right gradients come from an ordinary backward
pass, which is itself held against mpmath in test_network.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

import fastgc
from fastgc import lab
from fastgc.methods.registry import METHODS

Array = NDArray[np.float64]
Tensors = dict[str, Array]


#: The methods that look at entries, by name.
ENTRYWISE = [name for name, method in METHODS.items() if not method.along]


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818  named as what it is
    """An exception that takes no notes and no traceback: assigning to it raises."""

    what: str


@dataclass(frozen=True)
class NetworkCase:
    """A network drawn from a seed.

    Attributes:
        name: for test identifiers and benchmark tables.
        widths: n_0 … n_L.
        m: samples.
        scale: standard deviation of W_l is scale / √n_{l−1}.
    """

    name: str
    widths: tuple[int, ...]
    m: int
    activation: str | tuple[str, ...] = "relu"
    loss: str = "logistic"
    weight_decay: float = 0.0
    scale: float = 1.0
    seed: int = 0

    def build(self) -> tuple[fastgc.Network, Tensors]:
        rng = np.random.default_rng(self.seed)
        outputs = self.widths[-1]
        X = rng.standard_normal((self.widths[0], self.m))
        Y: Any
        if self.loss == "logistic":
            Y = (rng.random((outputs, self.m)) < 0.5).astype(float)
        elif self.loss == "softmax":
            Y = rng.integers(outputs, size=self.m)
        else:
            Y = rng.standard_normal((outputs, self.m))
        parameters = {}
        for l, (below, n) in enumerate(zip(self.widths, self.widths[1:], strict=False), start=1):
            parameters[f"W{l}"] = rng.standard_normal((n, below)) * self.scale / np.sqrt(below)
            parameters[f"b{l}"] = rng.standard_normal((n, 1)) * 0.1 * self.scale
        net = fastgc.Network(
            X, Y, activation=self.activation, loss=self.loss, weight_decay=self.weight_decay
        )
        return net, parameters


NETWORKS = (
    NetworkCase("lab-sized", (4, 5, 3, 1), 3),
    NetworkCase("one layer", (3, 1), 5),
    NetworkCase("one sample", (4, 3, 2), 1, activation="tanh"),
    NetworkCase("deep mix", (5, 4, 6, 3, 4, 2), 7, ("silu", "softplus", "leaky_relu", "tanh")),
    NetworkCase("softmax", (4, 6, 3), 9, loss="softmax"),
    NetworkCase("squared", (3, 5, 2), 6, activation="sigmoid", loss="squared"),
    NetworkCase("linear", (3, 4, 2), 6, activation="identity", loss="squared"),
    NetworkCase("robust", (3, 5, 4, 2), 6, activation=("gelu", "gelu_tanh"), loss="huber"),
    NetworkCase("decayed", (4, 5, 2), 6, loss="softmax", activation="silu", weight_decay=0.7),
    NetworkCase("saturated", (3, 4, 1), 5, activation="sigmoid", scale=30.0),
    NetworkCase("flat", (3, 4, 1), 5, activation="softplus", scale=1e-3),
)

#: Networks to time besides the lab's.
TIMED_NETWORKS = (
    NetworkCase("30-64-32-1, m = 64", (30, 64, 32, 1), 64, scale=1.2, seed=1),
    NetworkCase("784-128-64-1, m = 32", (784, 128, 64, 1), 32, scale=1.4, seed=1),
    NetworkCase("784-512-256-1, m = 32", (784, 512, 256, 1), 32, scale=1.4, seed=1),
    NetworkCase("256-512×6-1, m = 32", (256, *[512] * 6, 1), 32, scale=1.4, seed=1),
    NetworkCase("64-256-256-10, m = 128", (64, 256, 256, 10), 128, loss="softmax", scale=1.4),
)


def backward(net: fastgc.Network, parameters: Tensors) -> Tensors:
    """The right gradients of `net`, by backpropagation."""
    depth = len(parameters) // 2
    names = net.activation
    hidden = (names,) * (depth - 1) if isinstance(names, str) else names
    A, below, pre = net.X, [net.X], []
    for l in range(1, depth + 1):
        Z = parameters[f"W{l}"] @ A + parameters[f"b{l}"]
        pre.append(Z)
        if l < depth:
            A = _VALUES[hidden[l - 1]](Z)
            below.append(A)
    dZ = _output_slope(net, pre[-1]) / net.m
    gradients = {}
    for l in range(depth, 0, -1):
        W = parameters[f"W{l}"]
        gradients[f"W{l}"] = dZ @ below[l - 1].T + net.weight_decay / net.m * W
        gradients[f"b{l}"] = dZ.sum(axis=1, keepdims=True)
        if l > 1:
            dZ = (W.T @ dZ) * _SLOPES[hidden[l - 2]](pre[l - 2])
    return gradients


def other_backward(net: fastgc.Network, parameters: Tensors) -> Tensors:
    """The same by other formulas: slopes from activations, samples summed in reverse."""
    depth = len(parameters) // 2
    names = net.activation
    hidden = (names,) * (depth - 1) if isinstance(names, str) else names
    A = net.X[:, ::-1]
    Y = net.Y[..., ::-1]
    below, slopes = [A], []
    for l in range(1, depth + 1):
        Z = np.einsum("ij,js->is", parameters[f"W{l}"], A) + parameters[f"b{l}"]
        if l < depth:
            name, A = hidden[l - 1], _VALUES[hidden[l - 1]](Z)
            from_A = {"tanh": lambda a: 1 - a * a, "sigmoid": lambda a: a * (1 - a)}
            slopes.append(from_A[name](A) if name in from_A else _SLOPES[name](Z))
            below.append(A)
    if net.loss == "logistic":
        dZ = 1 / (1 + np.exp(-np.maximum(Z, -700.0))) - Y
    elif net.loss == "squared":
        dZ = Z - Y
    elif net.loss == "huber":
        dZ = np.where(np.abs(Z - Y) < 1, Z - Y, np.sign(Z - Y))
    else:
        p = np.exp(Z - Z.max(axis=0))
        p = p / p.sum(axis=0)
        dZ = p - (np.arange(len(Z))[:, np.newaxis] == Y if Y.ndim == 1 else Y)
    gradients = {}
    for l in range(depth, 0, -1):
        W = parameters[f"W{l}"]
        gradients[f"W{l}"] = (dZ @ below[l - 1].T + net.weight_decay * W) / net.m
        gradients[f"b{l}"] = dZ.mean(axis=1, keepdims=True)
        if l > 1:
            dZ = np.einsum("ij,is->js", W, dZ) * slopes[l - 2]
    return {name: gradients[name] for name in parameters}


def corner_distance(net: fastgc.Network, parameters: Tensors) -> float:
    """The smallest |z| of a unit with a corner at 0; a step past it is no mistake of anybody's."""
    names = net.activation
    depth = len(parameters) // 2
    hidden = (names,) * (depth - 1) if isinstance(names, str) else names
    A, nearest = net.X, np.inf
    for l, name in enumerate(hidden, start=1):
        Z = parameters[f"W{l}"] @ A + parameters[f"b{l}"]
        if name in ("relu", "leaky_relu"):
            nearest = min(nearest, float(np.abs(Z).min()))
        A = _VALUES[name](Z)
    return nearest


def _sigmoid(z: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _output_slope(net: fastgc.Network, z: Array) -> Array:
    if net.loss == "logistic":
        return np.asarray(_sigmoid(z) - net.Y)
    if net.loss == "squared":
        return np.asarray(z - net.Y)
    if net.loss == "huber":
        return np.clip(z - net.Y, -1.0, 1.0)
    e = np.exp(z - z.max(axis=0))
    p = np.asarray(e / e.sum(axis=0))
    classes = net.Y.astype(int) if net.Y.ndim == 1 else net.Y.argmax(axis=0)
    p[classes, np.arange(net.m)] -= 1
    return p


def _normal(z: Array) -> Array:
    return np.asarray(0.5 * special.erfc(-z / np.sqrt(2)))


def _cubic(z: Array) -> Array:
    return np.asarray(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))


def _slope_of_gelu_tanh(z: Array) -> Array:
    t, rate = np.tanh(_cubic(z)), np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)
    return np.asarray(0.5 * (1 + t) + 0.5 * z * (1 - t * t) * rate)


_VALUES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "tanh": lambda z: np.asarray(np.tanh(z)),
    "sigmoid": _sigmoid,
    "softplus": lambda z: np.asarray(np.logaddexp(0, z)),
    "silu": lambda z: np.asarray(z * _sigmoid(z)),
    "identity": lambda z: z,
    "gelu": lambda z: np.asarray(z * _normal(z)),
    "gelu_tanh": lambda z: np.asarray(0.5 * z * (1 + np.tanh(_cubic(z)))),
}
_SLOPES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.where(z > 0, 1.0, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, 1.0, 0.01),
    "tanh": lambda z: np.asarray(1 - np.tanh(z) ** 2),
    "sigmoid": lambda z: np.asarray(_sigmoid(z) * _sigmoid(-z)),
    "softplus": _sigmoid,
    "silu": lambda z: np.asarray(_sigmoid(z) * (1 + z * _sigmoid(-z))),
    "identity": lambda z: np.ones_like(z),
    "gelu": lambda z: np.asarray(_normal(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)),
    "gelu_tanh": _slope_of_gelu_tanh,
}


@dataclass(frozen=True)
class Bug:
    """A way to get one tensor's gradient wrong: right gradient -> wrong gradient."""

    name: str
    plant: Callable[[Array], Array]


def _one_entry(g: Array) -> Array:
    wrong = g.copy()
    wrong.flat[np.argmax(np.abs(g))] *= 1.001
    return wrong


BUGS = (
    Bug("doubled", lambda g: 2 * g),
    Bug("sign flipped", lambda g: -g),
    Bug("a thousandth off", lambda g: 1.001 * g),
    Bug("zero", lambda g: np.zeros_like(g)),
    Bug("one entry a thousandth off", _one_entry),
    Bug("one NaN", lambda g: np.where(np.arange(g.size).reshape(g.shape) == 0, np.nan, g)),
)


@dataclass(frozen=True)
class FunctionCase:
    """A cost that fastgc cannot see into, with its gradient in closed form."""

    name: str
    cost: Callable[[Any], Any]
    parameters: Any
    gradients: Any
    stacked: Callable[[Any], Any] | None = field(default=None)  # the same cost, vectorised


FUNCTIONS = (
    FunctionCase("scalar", lambda t: t**3, 2.0, 12.0, lambda t: t**3),
    FunctionCase(
        "array",
        lambda w: float(np.sum(np.sin(w))),
        np.array([[0.1, 0.2], [0.3, -0.4]]),
        np.cos([[0.1, 0.2], [0.3, -0.4]]),
        lambda w: np.sin(w).sum(axis=(1, 2)),
    ),
    FunctionCase(
        "mapping",
        lambda p: float(p["a"] @ p["a"] + np.exp(p["b"])),
        {"a": np.array([1.0, -2.0]), "b": 0.5},
        {"a": np.array([2.0, -4.0]), "b": np.exp(0.5)},
        lambda p: (p["a"] ** 2).sum(axis=1) + np.exp(p["b"]),
    ),
    FunctionCase(
        "sequence",
        lambda p: float(p[0].sum() * p[1]),
        [np.array([1.0, 2.0]), 3.0],
        [np.array([3.0, 3.0]), 3.0],
        lambda p: p[0].sum(axis=1) * p[1],
    ),
    FunctionCase(
        "integers",
        lambda p: float(np.sum(p["n"] ** 2)),
        {"n": np.array([1, -2, 3])},
        {"n": np.array([2, -4, 6])},
        lambda p: (p["n"] ** 2).sum(axis=1),
    ),
)


def lab_case() -> tuple[Array, NDArray[np.int64], Tensors, Tensors, Tensors]:
    """X, Y, parameters, right gradients, planted bugs of the lab's test case."""
    X, Y, parameters = lab.gradient_check_n_test_case()
    _, cache = lab.forward_propagation_n(X, Y, parameters)
    return (
        X,
        Y,
        parameters,
        lab.backward_propagation_n(X, Y, cache),
        lab.faulty_backward_propagation_n(X, Y, cache),
    )


def plain_forward(X: Array, Y: Any, parameters: Tensors) -> float:
    """The course's forward propagation of three layers, written plainly."""
    m = X.shape[1]
    W1, b1 = parameters["W1"], parameters["b1"]
    W2, b2 = parameters["W2"], parameters["b2"]
    W3, b3 = parameters["W3"], parameters["b3"]
    A1 = np.maximum(0, np.dot(W1, X) + b1)
    A2 = np.maximum(0, np.dot(W2, A1) + b2)
    A3 = 1 / (1 + np.exp(-(np.dot(W3, A2) + b3)))
    log_probs = np.multiply(-np.log(A3), Y) + np.multiply(-np.log(1 - A3), 1 - Y)
    return float(1.0 / m * np.sum(log_probs))


def plain_cost(X: Array, Y: Any, parameters: Tensors) -> float:
    """The same for any number of layers; a softmax where Y holds class indices."""
    m, depth = X.shape[1], len(parameters) // 2
    A = X
    for l in range(1, depth):
        A = np.maximum(0, np.dot(parameters[f"W{l}"], A) + parameters[f"b{l}"])
    Z = np.dot(parameters[f"W{depth}"], A) + parameters[f"b{depth}"]
    if Z.shape[0] > 1:
        T = np.exp(Z - Z.max(axis=0))
        return float(-np.sum(np.log(T[Y.astype(int), range(m)] / T.sum(axis=0))) / m)
    A = 1 / (1 + np.exp(-Z))
    log_probs = np.multiply(-np.log(A), Y) + np.multiply(-np.log(1 - A), 1 - Y)
    return float(1.0 / m * np.sum(log_probs))


def plain_loop(
    forward: Callable[[Tensors], float],
    parameters: Tensors,
    epsilon: float = 1e-7,
    entries: Iterable[int] | None = None,
) -> Array:
    """The course's loop, written plainly and sharing nothing with fastgc: gradapprox, (P, 1).

    Of some `entries` alone, where the whole would take hours.
    """
    shapes = {name: value.shape for name, value in parameters.items()}
    theta = np.concatenate([value.reshape(-1, 1) for value in parameters.values()])

    def dictionary(values: Array) -> Tensors:
        tensors, start = {}, 0
        for name, (rows, columns) in shapes.items():
            tensors[name] = values[start : start + rows * columns].reshape((rows, columns))
            start += rows * columns
        return tensors

    count = theta.shape[0]
    J_plus, J_minus, gradapprox = np.zeros((count, 1)), np.zeros((count, 1)), np.zeros((count, 1))
    for i in range(count) if entries is None else entries:
        thetaplus = np.copy(theta)
        thetaplus[i] = thetaplus[i] + epsilon
        J_plus[i] = forward(dictionary(thetaplus))
        thetaminus = np.copy(theta)
        thetaminus[i] = thetaminus[i] - epsilon
        J_minus[i] = forward(dictionary(thetaminus))
        gradapprox[i] = (J_plus[i] - J_minus[i]) / (2 * epsilon)
    return gradapprox
