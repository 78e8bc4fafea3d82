"""The rounding errors of a right backward pass: a bound for the gradients of a Network."""

from collections.abc import Sequence

import numpy as np

from fastgc.layout import FloatArray
from fastgc.network import Layer, Network

UNIT_ROUNDOFF = 2.0**-53

# Bounds of the slopes: silu reaches 1.0998.
STEEPEST = {"sigmoid": 0.25, "silu": 1.1}


# These are often computed with an error of a rounding unit of 1 (or z): a sigmoid as ½(1 + tanh).
CURVED = ("tanh", "sigmoid", "softplus", "silu")


def rounding_of_gradients(net: Network, layers: Sequence[Layer], theta: FloatArray) -> FloatArray:
    """How far rounding may move each entry of a right gradient, (P,).

    A − Y cancels where the output is saturated: dZ_L is good to u·(|A| + |Y|), however small it is,
    or to 2u where A is a probability whose own rounding is not known; and every gradient below
    inherits that. 8u·(Γ_l |A_{l−1}|ᵀ)/m, with Γ_L = |A_L| + |Y| and Γ_l = c·|W_{l+1}|ᵀ Γ_{l+1},
    where c bounds the slope of the activation. No slope is evaluated.
    """
    inputs = [np.abs(net.X)]
    with np.errstate(all="ignore"):
        for layer, _, Z in net.propagate(layers, theta):
            last = Z
            size = np.maximum(1.0, np.abs(Z)) if layer.activation in CURVED else 0.0
            inputs.append(size + np.abs(layer.activate(Z.copy())))
        spread = net.output_size(last) if net.loss == "squared" else np.full(last.shape, 2.0)
        bound = np.empty(theta.size)
        steepest = [STEEPEST.get(layer.activation, 1.0) for layer in layers[:-1]]
        for layer, below, c in zip(
            reversed(layers), reversed(inputs[:-1]), reversed([1.0, *steepest]), strict=True
        ):
            bound[layer.W] = (spread @ below.T).ravel()
            bound[layer.b] = spread.sum(axis=1)
            spread = c * np.abs(theta[layer.W].reshape(layer.n, layer.k)).T @ spread
    return 8 * UNIT_ROUNDOFF / net.m * bound
