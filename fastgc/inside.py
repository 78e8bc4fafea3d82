"""What fastgc sees inside a Network at its parameters: every layer's values."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastgc.activations import ACTIVATIONS, CORNERED, STEP, slopes
from fastgc.layout import FloatArray
from fastgc.losses import LOSSES
from fastgc.network import Forced, Layer, Network

UNIT_ROUNDOFF = 2.0**-53

# Products of fewer multiplications than this are made by BLAS on the calling thread: OpenBLAS takes
# others from 2¹⁸ on. To hold it to one thread costs 10 µs, a tenth of a check of the lab's network.
BLAS_ALONE = 2**16


@dataclass(frozen=True, eq=False, repr=False)
class Inside:
    """A Network at θ; its values are computed when first asked for.

    Attributes:
        net: the network.
        layers: W_l and b_l in the flat vector.
        theta: the parameters (P,).
    """

    net: Network
    layers: tuple[Layer, ...]
    theta: FloatArray

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """n_0 … n_L."""
        return (self.layers[0].k, *(layer.n for layer in self.layers))

    @property
    def uses_threads(self) -> bool:
        """Whether a product is so large that BLAS, or fastgc, may use threads for it."""
        m = self.net.m
        return any(layer.n * layer.k * m > BLAS_ALONE for layer in self.layers)

    @cached_property
    def values(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """A_0 … A_{L−1} and Z_1 … Z_L, transposed: (m, n_l) each, C-contiguous."""
        m = self.net.m
        inputs, Zs = [], []
        with np.errstate(all="ignore"):
            for layer, A, Z in self.net.propagate(self.layers, self.theta):
                inputs.append(np.ascontiguousarray(A.T).reshape(m, layer.k))
                Zs.append(np.array(Z.T, order="C"))
        return inputs, Zs

    @cached_property
    def cost(self) -> float:
        """J(θ), to the last bit what `Network.forward` returns."""
        Z_L = np.ascontiguousarray(self.values[1][-1].T)
        with np.errstate(all="ignore"):
            losses = LOSSES[self.net.loss].value(Z_L, self.net.labels)
            return float(self.net.mean(losses, self.layers, self.theta))

    def tensors(self) -> Iterator[tuple[Layer, FloatArray, FloatArray]]:
        """Each layer with its A_{l−1}ᵀ and Z_lᵀ."""
        yield from zip(self.layers, *self.values, strict=True)

    @cached_property
    def slopes(self) -> list[FloatArray]:
        """The slope of each hidden activation at its Z_lᵀ, (m, n_l), by exact differences."""
        _, Zs = self.values
        return [
            slopes(layer.activation, Z) for layer, Z in zip(self.layers[:-1], Zs[:-1], strict=True)
        ]

    @cached_property
    def sensitivities(self) -> list[FloatArray]:
        """D_lᵀ (m, n_l): how the loss of each sample depends on Z_l, by exact differences.

        D_L from the loss, then D_l = slope · W_{l+1}ᵀ D_{l+1}. This is backpropagation with exact
        differences in the place of derivatives. It serves bounds of rounding and the search for a
        mistake that is known to be there; no gradapprox comes from it.
        """
        return self._carried_down(self.slopes)

    def halfway(self) -> list[FloatArray]:
        """`sensitivities` of a backward pass that takes the mean of both slopes at corners."""
        slopes = []
        for layer, slope, at in zip(self.layers, self.slopes, self.corners[:-1], strict=False):
            mean = sum(CORNERED.get(layer.activation, (0.0, 0.0))) / 2
            slopes.append(np.where(at, mean, slope))
        return self._carried_down(slopes)

    @cached_property
    def last(self) -> FloatArray:
        """D_Lᵀ (m, n_L), from the loss alone."""
        loss, Z_L = LOSSES[self.net.loss], self.values[1][-1].T
        labels = self.net.labels
        with np.errstate(all="ignore"):
            rise = loss.change(Z_L, labels, STEP) - loss.change(Z_L, labels, -STEP)
            return np.ascontiguousarray(rise.T) / (2 * STEP)

    def others(self) -> "Iterator[tuple[str, Inside]]":
        """The network with each other activation, one for all hidden layers, by its name.

        Nothing where there is no hidden layer, or where these are not all alike.
        """
        hidden = {layer.activation for layer in self.layers[:-1]}
        if len(hidden) != 1:
            return
        net = self.net
        for name in ACTIVATIONS:
            if name not in hidden:
                other = Network(
                    net.X, net.Y, activation=name, loss=net.loss,
                    weight_decay=net.weight_decay, divisor=net.divisor,
                )  # fmt: skip
                layers = [replace(layer, activation=name) for layer in self.layers[:-1]]
                yield name, Inside(other, (*layers, self.layers[-1]), self.theta)

    def _carried_down(self, slopes: list[FloatArray]) -> list[FloatArray]:
        with np.errstate(all="ignore"):
            found = [self.last]
            for layer, slope in zip(self.layers[:0:-1], slopes[::-1], strict=True):
                W = self.theta[layer.W].reshape(layer.n, layer.k)
                found.append((found[-1] @ W) * slope)
        return found[::-1]

    @cached_property
    def gradient(self) -> FloatArray:
        """What a backward pass with these `sensitivities` would return, (P,)."""
        found = np.empty(self.theta.size)
        rate, m = self.net.weight_decay, self.net.divisor
        with np.errstate(all="ignore"):
            for layer, A, D in zip(self.layers, self.values[0], self.sensitivities, strict=True):
                found[layer.W] = ((D.T @ A).ravel() + rate * self.theta[layer.W]) / m
                found[layer.b] = D.sum(axis=0) / m
        return found

    @cached_property
    def term_sizes(self) -> list[FloatArray]:
        """|W_l| |A_{l−1}| + |b_l|, transposed (m, n_l): what Z_l is summed from."""
        found = []
        for layer, A, _ in self.tensors():
            W = np.abs(self.theta[layer.W].reshape(layer.n, layer.k))
            found.append(np.abs(A) @ W.T + np.abs(self.theta[layer.b]))
        return found

    @cached_property
    def corners(self) -> list[NDArray[np.bool_]]:
        """Which pre-activations lie at a corner of their activation, (m, n_l) for each layer.

        At it, as far as rounding lets anyone tell: a backward pass that sums in another order may
        find them on the other side.
        """
        doubt = np.zeros_like(self.net.X.T)  # of A_{l−1}ᵀ
        found = []
        for (layer, _, Z), sums in zip(self.tensors(), self.term_sizes, strict=True):
            W = np.abs(self.theta[layer.W].reshape(layer.n, layer.k))
            doubt = doubt @ W.T + 4 * (layer.k + 2) * UNIT_ROUNDOFF * sums
            found.append((layer.activation in CORNERED) & (np.abs(Z) <= doubt))
        return found

    def near_corner(self) -> bool:
        """Whether a hidden unit lies close to its corner: |z| ≤ 1e-4 of the layer's largest."""
        return any(
            layer.activation in CORNERED and np.abs(Z).min() <= 1e-4 * np.abs(Z).max()
            for layer, _, Z in self.tensors()
        )

    def forced(self) -> list[Forced]:
        """The units at their corners, with the slopes that backward passes take there.

        Those on the left and on the right, and half-way; none where no unit is at its corner.
        """
        units = [corners.T for corners in self.corners]
        return [Forced(units, share) for share in (0.0, 0.5, 1.0) if any(at.any() for at in units)]

    def sample_losses(self, rows: FloatArray, forced: Forced | None = None) -> FloatArray:
        """The terms whose sum, over the divisor, is J, (K, m + 1), for parameters (K, P).

        A column for each sample, then weight decay.
        """
        with np.errstate(all="ignore"):
            losses = self.net.sample_losses(self.layers, rows, forced)
            decay = self.net.decay(self.layers, rows)
        return np.concatenate((losses, decay[:, np.newaxis]), axis=1)
