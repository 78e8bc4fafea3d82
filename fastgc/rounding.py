"""The rounding errors of a right backward pass: a bound for the gradients of a Network."""

from collections.abc import Sequence

import numpy as np

from fastgc.layout import FloatArray
from fastgc.network import Layer, Network

UNIT_ROUNDOFF = 2.0**-53

# No activation is steeper than this (silu reaches 1.0998).
STEEPEST = 1.1


def rounding_of_gradients(net: Network, layers: Sequence[Layer], theta: FloatArray) -> FloatArray:
    """How far rounding may move each entry of a right gradient, (P,).

    A − Y cancels where the output is saturated: dZ_L is good to u·(|A| + |Y|), however small it is,
    and every gradient below inherits that. 8u·(Γ_l |A_{l−1}|ᵀ)/m, with Γ_L = |A_L| + |Y| and
    Γ_l = c·|W_{l+1}|ᵀ Γ_{l+1}, where c bounds the slope of the activation. No slope is evaluated.
    """
    with np.errstate(all="ignore"):
        steps = [(layer, A, Z) for layer, A, Z in net.propagate(layers, theta)]
    bound = np.empty(theta.size)
    spread = net.output_size(steps[-1][2])
    for layer, below, _ in reversed(steps):
        bound[layer.W] = (spread @ np.abs(below).T).ravel()
        bound[layer.b] = spread.sum(axis=1)
        spread = STEEPEST * np.abs(theta[layer.W].reshape(layer.n, layer.k)).T @ spread
    return 8 * UNIT_ROUNDOFF / net.m * bound
