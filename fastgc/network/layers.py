"""The activations and the losses of a Network, one object each; never a derivative.

An activation takes the pre-activations Z, any shape. A loss takes z (…, n_L, m) and the labels
that `labels` made, and returns the loss of each sample, (…, m). Every loss is a sum of terms that
are not negative, so that it keeps its relative accuracy where the output saturates.

A new one is an object here, and its change, compiled, in `exact_changes`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastgc.core.tree import FloatArray

LEAKY_SLOPE = 0.01

# Step of slopes: exact differences lose nothing to a short one.
STEP = 2.0**-40

# The tanh form of GELU is z σ(w), w = GELU_RATE (z + GELU_CUBE z³), as ½(1 + tanh(½w)) is σ(w).
GELU_RATE, GELU_CUBE = 2.0 * math.sqrt(2.0 / math.pi), 0.044715

#: Gauss and Legendre's points and weights on [0, 1], for Φ(z + δ) − Φ(z): over a step along which
#: the density changes by a factor of e or less, ten are good to a rounding unit.
NODES, WEIGHTS = (0.5 * values for values in np.polynomial.legendre.leggauss(10))
NODES += 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """A hidden activation φ.

    Attributes:
        code: what the kernels call it.
        value: z -> φ(z); it may overwrite z.
        change: (z, δ) -> φ(z + δ) − φ(z), exact, for |δ| ≤ 1. `exact_changes` has it compiled and
            for any δ; this one serves where nothing should wait for a compiler.
        steepest: the most that |φ(z + δ) − φ(z)| / |δ| can be: a ReLU that nothing below can wake
            is left out by it.
        kink: its slopes left and right of 0, where they differ; else None.
        curved: whether it, and its slope, are often computed with an error of a rounding unit of 1
            (or z): a sigmoid as ½(1 + tanh), a slope of tanh as 1 − a².
    """

    code: int
    value: Callable[[FloatArray], FloatArray]
    change: Callable[[FloatArray, float], FloatArray]
    steepest: float = 1.0
    kink: tuple[float, float] | None = None
    curved: bool = False

    def slopes(self, z: FloatArray) -> FloatArray:
        """The slope to the left of z, by an exact difference over 2⁻⁴⁰.

        To the left, so that it is 0 where a ReLU is at its kink, as in nearly every backward pass.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self.change(z, -STEP) / -STEP)


def sigmoid(z: FloatArray) -> FloatArray:
    """1 / (1 + e^−z)."""
    # exp of a negative number only: it cannot overflow
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


def _softplus(z: FloatArray) -> FloatArray:
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _normal(z: FloatArray) -> FloatArray:
    """Φ(z), relatively accurate in its left tail: 50 ns each; to load SciPy's takes 0.2 s."""
    halves = map(math.erfc, np.ravel(-math.sqrt(0.5) * z).tolist())
    return 0.5 * np.fromiter(halves, np.float64, np.size(z)).reshape(np.shape(z))


def _gelu_tanh(z: FloatArray) -> FloatArray:
    return z * sigmoid(GELU_RATE * z * (1.0 + GELU_CUBE * z * z))


def _change_rectifier(slope: float, z: FloatArray, d: float) -> FloatArray:
    """The change of a ReLU whose slope left of 0 is `slope`."""
    above = np.where(d < -z, slope * (z + d) - z, d)
    return np.where(z > 0, above, np.where(z + d < 0, slope * d, z + d - slope * z))


def _change_sigmoid(z: FloatArray, d: FloatArray | float) -> FloatArray:
    sign = np.sign(d)  # as a rise, which divides by no less than 1
    growth = sigmoid(sign * z) * np.expm1(np.abs(d))
    return np.asarray(sign * sigmoid(-sign * z) * growth / (1.0 + growth))


def _change_normal(z: FloatArray, d: float) -> FloatArray:
    """Φ(z + δ) − Φ(z): an integral, or where the density changes much a difference of tails."""
    density = sum(
        weight * np.exp(-0.5 * np.square(z + node * d))
        for node, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True)
    )
    side = np.where(z + d > -z, -1.0, 1.0)
    tails = side * (_normal(side * (z + d)) - _normal(side * z))
    steep = abs(d) * (np.abs(z) + 0.5 * abs(d)) > 1
    return np.where(steep, tails, d * density / math.sqrt(math.tau))


def _change_gelu_tanh(z: FloatArray, d: float) -> FloatArray:
    near = np.clip(z, -50.0, 50.0)  # beyond, σ(w) is 0 or 1
    w = GELU_RATE * near * (1.0 + GELU_CUBE * near * near)
    middle = near + 0.5 * d
    rise = _change_sigmoid(w, GELU_RATE * d * (1.0 + GELU_CUBE * (3.0 * middle**2 + 0.25 * d * d)))
    return d * (sigmoid(w) + rise) + z * rise


def _change_silu(z: FloatArray, d: float) -> FloatArray:
    return d * sigmoid(z + d) + z * _change_sigmoid(z, d)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        0, lambda z: np.maximum(z, 0.0, out=z), partial(_change_rectifier, 0.0), kink=(0.0, 1.0)
    ),
    "leaky_relu": Activation(
        1, lambda z: np.maximum(z, LEAKY_SLOPE * z, out=z),
        partial(_change_rectifier, LEAKY_SLOPE), kink=(LEAKY_SLOPE, 1.0),
    ),
    "tanh": Activation(
        2, lambda z: np.tanh(z, out=z), lambda z, d: 2.0 * _change_sigmoid(2.0 * z, 2.0 * d),
        curved=True,
    ),
    "sigmoid": Activation(3, sigmoid, _change_sigmoid, steepest=0.25, curved=True),
    "softplus": Activation(
        4, _softplus, lambda z, d: np.log1p(sigmoid(z) * math.expm1(d)), curved=True
    ),
    "silu": Activation(5, lambda z: z * sigmoid(z), _change_silu, steepest=1.1, curved=True),
    "identity": Activation(6, lambda z: z, lambda z, d: np.full_like(z, d)),
    # Φ(z) + z φ(z) is greatest at √2: 1.1289; of the tanh form it is 1.1290, at 1.41
    "gelu": Activation(
        7, lambda z: z * _normal(z), lambda z, d: d * _normal(z + d) + z * _change_normal(z, d),
        steepest=1.13, curved=True,
    ),
    "gelu_tanh": Activation(8, _gelu_tanh, _change_gelu_tanh, steepest=1.13, curved=True),
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Loss:
    """A loss: its value, and what its labels have to be.

    Attributes:
        code: what the kernels call it.
        value: (z, labels) -> losses.
        labels: makes the labels from Y (n, m) or (m,), raising ValueError for what it cannot use.
        change: (z, labels, δ) -> exact differences (n, m): by how much each sample's loss changes
            when one of its outputs changes by δ, |δ| ≤ 1.
        without_labels: (z, labels, dZ) -> (n, m): dZ_L of a backward pass that forgets the labels.
        output_size: (z, labels) -> (n, m): |A_L| + |Y|, the terms of that difference.
        rounding: (z, labels, dZ, moved) -> (n, m): how far rounding may move dZ_L, in rounding
            units, where z is itself good to `moved` of them.
        chances: z (n, m) -> the probabilities of classes, (n, m), of a loss whose labels are class
            indices; None of any other.
        probable: whether the output is a probability, whose own slope the loss cancels.
    """

    code: int
    value: Callable[[FloatArray, FloatArray], FloatArray]
    labels: Callable[[FloatArray], FloatArray]
    change: Callable[[FloatArray, FloatArray, float], FloatArray]
    without_labels: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    output_size: Callable[[FloatArray, FloatArray], FloatArray]
    rounding: Callable[[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]
    chances: Callable[[FloatArray], FloatArray] | None = None
    probable: bool = False


def _logistic(z: FloatArray, y: FloatArray) -> FloatArray:
    """−[y log σ(z) + (1 − y) log(1 − σ(z))].

    As log(1 + e^−|z|) + |z| · (1 − y if z > 0 else y).
    """
    size = np.abs(z)
    value = np.log1p(np.exp(-size))
    value += size * np.abs((z > 0) - y)
    return _over_outputs(value)


def _softmax(z: FloatArray, classes: FloatArray) -> FloatArray:
    """log Σ_k exp z_k − z_y, as (max z − z_y) + log1p of the sum over all k but one largest."""
    largest = np.argmax(z, axis=-2, keepdims=True)
    top = np.take_along_axis(z, largest, axis=-2)
    ratios = np.exp(z - top)
    np.put_along_axis(ratios, largest, 0.0, axis=-2)
    index = classes.astype(np.intp)
    gap = top[..., 0, :] - z[..., index, np.arange(index.size)]
    value: FloatArray = gap + np.log1p(ratios.sum(axis=-2))
    return value


def _softmax_of(z: FloatArray) -> FloatArray:
    """exp z_k / Σ exp z, over the rows of z (n, m)."""
    powers = np.exp(z - z.max(axis=0))
    chances: FloatArray = powers / powers.sum(axis=0)
    return chances


def _squared(z: FloatArray, y: FloatArray) -> FloatArray:
    """½ (z − y)²."""
    residual = z - y
    return _over_outputs(0.5 * residual * residual)


def _huber(z: FloatArray, y: FloatArray) -> FloatArray:
    """½ r² up to |r| = 1, |r| − ½ beyond, with r = z − y."""
    residual = np.abs(z - y)
    inner = np.minimum(residual, 1.0)
    return _over_outputs(inner * (residual - 0.5 * inner))


def _over_outputs(values: FloatArray) -> FloatArray:
    total: FloatArray = values[..., 0, :] if values.shape[-2] == 1 else values.sum(axis=-2)
    return total


def _probabilities(Y: FloatArray) -> FloatArray:
    Y = np.atleast_2d(Y)
    outside = Y[(Y < 0) | (Y > 1)]
    if outside.size:
        raise ValueError(
            f"Y holds {outside[0]:g}; the logistic loss wants labels in [0, 1]. "
            'Use loss="softmax" for class indices, loss="squared" for other numbers'
        )
    return Y


def _classes(Y: FloatArray) -> FloatArray:
    """Class indices (m,) as they are; one-hot columns (n_L, m) as class indices."""
    if Y.ndim == 1:
        wrong = Y[(np.floor(Y) != Y) | (Y < 0)]
        if wrong.size:
            raise ValueError(
                f"Y holds {wrong[0]:g}; the softmax loss wants class indices 0, 1, 2, … (m,) "
                "or one-hot columns (n_L, m)"
            )
        return Y
    if not (((Y == 0) | (Y == 1)).all() and (Y.sum(axis=0) == 1).all()):
        hint = " Class indices are passed as Y.ravel()" if Y.shape[0] == 1 else ""
        raise ValueError(
            "Y is not one-hot: the softmax loss wants a single 1 in each column and 0 elsewhere, "
            f"or class indices (m,).{hint}"
        )
    classes: FloatArray = Y.argmax(axis=0).astype(np.float64)
    return classes


def _change_logistic(z: FloatArray, y: FloatArray, d: float) -> FloatArray:
    down, up = sigmoid(-z) * math.expm1(-d), sigmoid(z) * math.expm1(d)
    return np.asarray(y * np.log1p(down) + (1.0 - y) * np.log1p(up))


def _change_softmax(z: FloatArray, classes: FloatArray, d: float) -> FloatArray:
    chances = _softmax_of(z)
    right = classes.astype(np.intp), np.arange(classes.size)
    change = np.log1p(chances * math.expm1(d))
    chances[right] = 0.0
    change[right] = np.log1p(chances.sum(axis=0) * math.expm1(-d))
    return change


def _change_squared(z: FloatArray, y: FloatArray, d: float) -> FloatArray:
    return np.asarray(d * ((z - y) + 0.5 * d))


def _change_huber(z: FloatArray, y: FloatArray, d: float) -> FloatArray:
    size = np.abs(z - y)
    d_size = np.where(z < y, -d, d)
    moved = size + d_size  # below −1 it is not, for |δ| ≤ 1
    inside, lacked = np.maximum(1.0 - moved, 0.0), np.maximum(1.0 - size, 0.0)
    beyond = d_size + 0.5 * (inside * inside - lacked * lacked)
    return np.where((size <= 1) & (moved <= 1), d_size * (size + 0.5 * d_size), beyond)


def _one_hot(classes: FloatArray, n: int) -> FloatArray:
    columns = np.zeros((n, classes.size))
    columns[classes.astype(np.intp), np.arange(classes.size)] = 1.0
    return columns


def _size_logistic(z: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(0.5 * np.tanh(0.5 * z) + (0.5 + y))  # half the steps of a sigmoid


def _size_softmax(z: FloatArray, classes: FloatArray) -> FloatArray:
    size: FloatArray = _softmax_of(z) + _one_hot(classes, len(z))
    return size


def _size_squared(z: FloatArray, y: FloatArray) -> FloatArray:
    return np.abs(z) + np.abs(y)


# A − Y is good to u·(|A| + |Y|), or to 2u where A is a probability whose own rounding is unknown.


def _rounding_logistic(
    z: FloatArray, _y: FloatArray, _dZ: FloatArray, moved: FloatArray
) -> FloatArray:
    return 2.0 + ACTIVATIONS["sigmoid"].slopes(z) * moved


def _rounding_softmax(
    _z: FloatArray, _classes: FloatArray, dZ: FloatArray, moved: FloatArray
) -> FloatArray:
    # p_k (dz_k − Σ p dz) is at most 2 |dZ_k| max |dz|
    return np.asarray(2.0 + 2.0 * np.abs(dZ) * moved.max(axis=0))


def _rounding_squared(
    z: FloatArray, y: FloatArray, _dZ: FloatArray, moved: FloatArray
) -> FloatArray:
    return _size_squared(z, y) + moved


LOSSES: dict[str, Loss] = {
    "logistic": Loss(
        0, _logistic, _probabilities, _change_logistic, without_labels=lambda _, y, dZ: dZ + y,
        output_size=_size_logistic, rounding=_rounding_logistic, probable=True,
    ),
    "softmax": Loss(
        1, _softmax, _classes, _change_softmax,
        without_labels=lambda _, classes, dZ: dZ + _one_hot(classes, len(dZ)),
        output_size=_size_softmax, rounding=_rounding_softmax, chances=_softmax_of, probable=True,
    ),
    "squared": Loss(
        2, _squared, np.atleast_2d, _change_squared, without_labels=lambda z, *_: z,
        output_size=_size_squared, rounding=_rounding_squared,
    ),
    "huber": Loss(
        3, _huber, np.atleast_2d, _change_huber, without_labels=lambda z, *_: np.clip(z, -1, 1),
        output_size=_size_squared, rounding=_rounding_squared,
    ),
}  # fmt: skip
