"""The rounding errors of a right backward pass: a bound for the gradients of a Network."""

import numpy as np

from fastgc.inside import UNIT_ROUNDOFF, Inside
from fastgc.layout import FloatArray
from fastgc.losses import LOSSES

# These, and their slopes, are often computed with an error of a rounding unit of 1 (or z): a
# sigmoid as ½(1 + tanh), a slope of tanh as 1 − a².
CURVED = ("tanh", "sigmoid", "softplus", "silu")


def rounding_of_gradients(inside: Inside) -> FloatArray:
    """How far rounding may move each entry of a right gradient, (P,).

    A − Y cancels where the output is saturated: dZ_L is good to u·(|A| + |Y|), however small it is,
    or to 2u where A is a probability whose own rounding is not known; and it moves with the
    rounding of Z_L, which may be summed from large terms. Every gradient below inherits that,
    through |W|ᵀ and the slopes; a slope near 0 is itself only good to u where the activation is
    curved. 8u·(Γ_l |A_{l−1}|ᵀ)/m, with Γ_L = |A_L| + |Y| + slope·(|W_L||A_{L−1}| + |b_L|) and
    Γ_l = (slope + 8u)·|W_{l+1}|ᵀ Γ_{l+1} + |W_{l+1}|ᵀ |D_{l+1}|, the terms with 8u and D for curved
    activations alone.
    """
    net, layers, theta = inside.net, inside.layers, inside.theta
    inputs, Zs = inside.values
    D = inside.sensitivities
    bound = np.empty(theta.size)
    with np.errstate(all="ignore"):
        last = Zs[-1].T, net.labels, D[-1].T, inside.term_sizes[-1].T
        spread = np.ascontiguousarray(LOSSES[net.loss].rounding(*last).T)
        for l in range(len(layers) - 1, -1, -1):
            layer = layers[l]
            below = spread.T @ np.abs(inputs[l])
            if l > 0 and layers[l - 1].activation in CURVED:
                size = np.maximum(1.0, np.abs(Zs[l - 1]))
                below += np.abs(D[l]).T @ size
            bound[layer.W] = below.ravel()
            bound[layer.b] = spread.sum(axis=0)
            if l > 0:
                W = np.abs(theta[layer.W].reshape(layer.n, layer.k))
                slope = np.where(inside.corners[l - 1], 1.0, inside.slopes[l - 1])
                reach = spread @ W
                spread = np.abs(slope) * reach
                if layers[l - 1].activation in CURVED:
                    spread += size * (8 * UNIT_ROUNDOFF * reach + np.abs(D[l]) @ W)
    return 8 * UNIT_ROUNDOFF / net.divisor * bound
