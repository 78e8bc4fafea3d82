"""The hidden activations of a Network: values only, never a derivative.

Each takes the pre-activations Z, any shape, and may overwrite them.
"""

from collections.abc import Callable

import numpy as np

from fastgc.layout import FloatArray

LEAKY_SLOPE = 0.01


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


#: The activations with a corner, at 0.
CORNERED = ("relu", "leaky_relu")

ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": silu,
    "identity": identity,
}
