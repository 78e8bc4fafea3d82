"""A Network at its parameters, as the kernels want it: arrays and numbers."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.activations import STEEPEST
from fastgc.inside import Inside
from fastgc.layout import FloatArray
from fastgc.losses import softmax_of


class Point(NamedTuple):
    """A network at θ. Layers are numbered from 0, the input, to L.

    Attributes:
        theta: the parameters (P,).
        Z: Z_lᵀ (m, n_l), 1 ≤ l ≤ L, each where `units_at` says.
        A: A_lᵀ (m, n_l), 0 ≤ l < L, likewise.
        widths: n_l, (L + 1,).
        activations: codes of the layers 1 … L − 1, (L + 1,); that of L is the identity's.
        weights_at: where W_l (n_l, n_{l−1}) starts in theta, (L + 1,).
        biases_at: where b_l (n_l,) does.
        units_at: layer l's part of Z and A starts at m times this, (L + 1,).
        largest: the most that Z_l can move for each unit of ΔA_{l−1} of one unit and for each of
            ΔZ_{l−1} of all: the largest |w|, and the largest row sum of |w| times the steepest
            slope of layer l − 1, (L + 1, 2).
        loss: its code.
        labels: Yᵀ (m, n_L), or class indices (m, 1).
        chances: the softmax of Z_L, (m, n_L); not read for other losses.
        sizes: |A_L| + |Y|, (m, n_L): what a backward pass subtracts from each other.
    """

    theta: FloatArray
    Z: FloatArray
    A: FloatArray
    widths: Any
    activations: Any
    weights_at: Any
    biases_at: Any
    units_at: Any
    largest: FloatArray
    loss: int
    labels: FloatArray
    chances: FloatArray
    sizes: FloatArray


def point_of(inside: Inside) -> Point:
    """The network at θ, described to the kernels."""
    from fastgc import kernels  # not before they are needed: Numba takes 0.3 s

    net, layers, m, L = inside.net, inside.layers, inside.net.m, len(inside.layers)
    inputs, Zs = inside.values
    Z_L = Zs[-1]
    tables = _tables(
        inside.widths,
        tuple([getattr(kernels, layer.activation.upper()) for layer in layers]),
        tuple([layer.W.start for layer in layers]),
        tuple([layer.b.start for layer in layers]),
    )
    largest = np.zeros((L + 1, 2))
    hidden = [layer.activation for layer in layers[:-1]]
    for t, layer in enumerate(layers[:-1], start=1):
        # only the bounds of what wakes a ReLU are read: W_2 is reached by single units alone
        if t > 1 and "relu" in hidden:
            W = inside.theta[layer.W]
            largest[t, 0] = max(W.max(), -W.min())
            if t > 2:
                sums = np.abs(W).reshape(layer.n, layer.k).sum(axis=1)
                largest[t, 1] = STEEPEST[hidden[t - 2]] * sums.max()
    return Point(
        theta=inside.theta,
        Z=np.concatenate([Z.ravel() for Z in Zs]),
        A=np.concatenate([A.ravel() for A in (*inputs[1:], inputs[0])]),
        **tables,
        largest=largest,
        loss=getattr(kernels, net.loss.upper()),
        labels=np.array(net.labels.reshape(-1, m).T, order="C"),
        chances=np.array(softmax_of(Z_L.T).T, order="C") if net.loss == "softmax" else Z_L,
        sizes=np.array(net.output_size(Z_L.T).T, order="C"),
    )


@lru_cache(maxsize=8)
def _tables(
    widths: tuple[int, ...],
    activations: tuple[int, ...],
    weights_at: tuple[int, ...],
    biases_at: tuple[int, ...],
) -> dict[str, NDArray[np.int64]]:
    """What depends on the shapes alone, for a training script that checks again and again."""
    units_at = np.zeros(len(widths), np.int64)
    np.cumsum(widths[1:-1], out=units_at[2:])
    units_at[0] = units_at[-1]  # X takes the place in A that Z_L has in Z
    return {
        "widths": np.array(widths),
        "activations": np.array([0, *activations]),
        "weights_at": np.array([0, *weights_at]),
        "biases_at": np.array([0, *biases_at]),
        "units_at": units_at,
    }
