"""The hidden activations of a Network: values and exact differences, never a derivative.

Each activation takes the pre-activations Z, any shape, and may overwrite them.
"""

import math
from collections.abc import Callable

import numpy as np

from fastgc.layout import FloatArray

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
CORNERED = {"relu": (0.0, 1.0), "leaky_relu": (LEAKY_SLOPE, 1.0)}

ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": silu,
    "identity": identity,
}
