"""The activations and the losses of a Network: values and exact differences, never a derivative."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastgc.core.tree import FloatArray

LEAKY_SLOPE = 0.01

# Step of `slopes`: exact differences lose nothing to a short one.
STEP = 2.0**-40


def relu(z: FloatArray) -> FloatArray:
    """max(0, z)."""
    return np.maximum(z, 0.0, out=z)


def leaky_relu(z: FloatArray) -> FloatArray:
    """z where z > 0, else 0.01 z."""
    return np.maximum(z, LEAKY_SLOPE * z, out=z)


def tanh(z: FloatArray) -> FloatArray:
    """tanh z."""
    return np.tanh(z, out=z)


def sigmoid(z: FloatArray) -> FloatArray:
    """1 / (1 + e^−z)."""
    # exp of a negative number only: it cannot overflow
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


def softplus(z: FloatArray) -> FloatArray:
    """log(1 + e^z)."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def silu(z: FloatArray) -> FloatArray:
    """z σ(z)."""
    return z * sigmoid(z)


def identity(z: FloatArray) -> FloatArray:
    """z."""
    return z


def change_sigmoid(z: FloatArray, d: float) -> FloatArray:
    """σ(z + δ) − σ(z), for |δ| ≤ 1."""
    decay = np.exp(-np.abs(z))
    small, large = decay / (1.0 + decay), 1.0 / (1.0 + decay)
    p, q = np.where(z >= 0, large, small), np.where(z >= 0, small, large)
    growth = p * math.expm1(d)
    return np.asarray(q * growth / (1.0 + growth))


def change_rectifier(slope: float, z: FloatArray, d: float) -> FloatArray:
    """The change of a ReLU whose slope left of 0 is `slope`."""
    above = np.where(d < -z, slope * (z + d) - z, d)
    return np.where(z > 0, above, np.where(z + d < 0, slope * d, z + d - slope * z))


#: The exact differences φ(z + δ) − φ(z), for |δ| ≤ 1: the kernels have them compiled and for any δ;
#: these serve where nothing should wait for a compiler.
CHANGES: dict[str, Callable[[FloatArray, float], FloatArray]] = {
    "relu": lambda z, d: change_rectifier(0.0, z, d),
    "leaky_relu": lambda z, d: change_rectifier(LEAKY_SLOPE, z, d),
    "tanh": lambda z, d: 2.0 * change_sigmoid(2.0 * z, 2.0 * d),
    "sigmoid": change_sigmoid,
    "softplus": lambda z, d: np.log1p(sigmoid(z) * math.expm1(d)),
    "silu": lambda z, d: d * sigmoid(z + d) + z * change_sigmoid(z, d),
    "identity": lambda z, d: np.full_like(z, d),
}


def slopes(name: str, z: FloatArray) -> FloatArray:
    """The slope of an activation to the left of z, by an exact difference over 2⁻⁴⁰.

    To the left, so that it is 0 where a ReLU is at its corner, as in nearly every backward pass.
    """
    with np.errstate(all="ignore"):
        return np.asarray(CHANGES[name](z, -STEP) / -STEP)


#: The most that |φ(z + δ) − φ(z)| / |δ| can be: a ReLU that nothing below can wake is left out by
#: it. An activation without a line here is refused.
STEEPEST = {
    "relu": 1.0,
    "leaky_relu": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "softplus": 1.0,
    "silu": 1.1,
    "identity": 1.0,
}

#: The activations with a corner, at 0: their slopes to its left and to its right.
KINKED = {"relu": (0.0, 1.0), "leaky_relu": (LEAKY_SLOPE, 1.0)}

ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": silu,
    "identity": identity,
}


@dataclass(frozen=True, eq=False, repr=False)
class Loss:
    """A loss: its value, and what its labels have to be.

    Attributes:
        value: (z, labels) -> losses.
        labels: makes the labels from Y (n, m) or (m,), raising ValueError for what it cannot use.
        change: (z, labels, δ) -> exact differences (n, m): by how much each sample's loss changes
            when one of its outputs changes by δ, |δ| ≤ 1.
        targets: (labels, n) -> (n, m): what a backward pass subtracts from the outputs.
        output_size: (z, labels) -> (n, m): |A_L| + |Y|, the terms of that difference.
        rounding: (z, labels, dZ, moved) -> (n, m): how far rounding may move dZ_L, in rounding
            units, where z is itself good to `moved` of them.
    """

    value: Callable[[FloatArray, FloatArray], FloatArray]
    labels: Callable[[FloatArray], FloatArray]
    change: Callable[[FloatArray, FloatArray, float], FloatArray]
    targets: Callable[[FloatArray, int], FloatArray]
    output_size: Callable[[FloatArray, FloatArray], FloatArray]
    rounding: Callable[[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]


def logistic(z: FloatArray, y: FloatArray) -> FloatArray:
    """−[y log σ(z) + (1 − y) log(1 − σ(z))].

    As log(1 + e^−|z|) + |z| · (1 − y if z > 0 else y).
    """
    size = np.abs(z)
    value = np.log1p(np.exp(-size))
    value += size * np.abs((z > 0) - y)
    return _over_outputs(value)


def softmax(z: FloatArray, classes: FloatArray) -> FloatArray:
    """log Σ_k exp z_k − z_y, as (max z − z_y) + log1p of the sum over all k but one largest."""
    largest = np.argmax(z, axis=-2, keepdims=True)
    top = np.take_along_axis(z, largest, axis=-2)
    ratios = np.exp(z - top)
    np.put_along_axis(ratios, largest, 0.0, axis=-2)
    index = classes.astype(np.intp)
    gap = top[..., 0, :] - z[..., index, np.arange(index.size)]
    value: FloatArray = gap + np.log1p(ratios.sum(axis=-2))
    return value


def softmax_of(z: FloatArray) -> FloatArray:
    """exp z_k / Σ exp z, over the rows of z (n, m)."""
    powers = np.exp(z - z.max(axis=0))
    chances: FloatArray = powers / powers.sum(axis=0)
    return chances


def squared(z: FloatArray, y: FloatArray) -> FloatArray:
    """½ (z − y)²."""
    residual = z - y
    return _over_outputs(0.5 * residual * residual)


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
    chances = softmax_of(z)
    right = classes.astype(np.intp), np.arange(classes.size)
    change = np.log1p(chances * math.expm1(d))
    chances[right] = 0.0
    change[right] = np.log1p(chances.sum(axis=0) * math.expm1(-d))
    return change


def _change_squared(z: FloatArray, y: FloatArray, d: float) -> FloatArray:
    return np.asarray(d * ((z - y) + 0.5 * d))


def _one_hot(classes: FloatArray, n: int) -> FloatArray:
    columns = np.zeros((n, classes.size))
    columns[classes.astype(np.intp), np.arange(classes.size)] = 1.0
    return columns


def _size_logistic(z: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(0.5 * np.tanh(0.5 * z) + (0.5 + y))  # half the steps of a sigmoid


def _size_softmax(z: FloatArray, classes: FloatArray) -> FloatArray:
    size: FloatArray = softmax_of(z) + _one_hot(classes, len(z))
    return size


def _size_squared(z: FloatArray, y: FloatArray) -> FloatArray:
    return np.abs(z) + np.abs(y)


# A − Y is good to u·(|A| + |Y|), or to 2u where A is a probability whose own rounding is unknown.


def _rounding_logistic(
    z: FloatArray, _y: FloatArray, _dZ: FloatArray, moved: FloatArray
) -> FloatArray:
    return 2.0 + slopes("sigmoid", z) * moved


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
        logistic, _probabilities, _change_logistic,
        targets=lambda y, _: y, output_size=_size_logistic, rounding=_rounding_logistic,
    ),
    "softmax": Loss(
        softmax, _classes, _change_softmax,
        targets=_one_hot, output_size=_size_softmax, rounding=_rounding_softmax,
    ),
    "squared": Loss(
        squared, np.atleast_2d, _change_squared,
        targets=lambda y, _: y, output_size=_size_squared, rounding=_rounding_squared,
    ),
}  # fmt: skip
