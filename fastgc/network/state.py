"""What fastgc sees inside a Network at its parameters: every layer's values."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import UNIT_ROUNDOFF, FloatArray
from fastgc.network.layers import ACTIVATIONS, STEP
from fastgc.network.network import Forced, Layer, Network

# Products of fewer multiplications than this are made by BLAS on the calling thread: OpenBLAS takes
# others from 2¹⁸ on. To hold it to one thread costs 10 µs, a tenth of a check of the lab's network.
BLAS_ALONE = 2**16


@dataclass(frozen=True, eq=False, repr=False)
class ForwardState:
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
            losses = self.net.losses.value(Z_L, self.net.labels)
            return float(self.net.mean(losses, self.layers, self.theta))

    def tensors(self) -> Iterator[tuple[Layer, FloatArray, FloatArray]]:
        """Each layer with its A_{l−1}ᵀ and Z_lᵀ."""
        yield from zip(self.layers, *self.values, strict=True)

    @cached_property
    def slopes(self) -> list[FloatArray]:
        """The slope of each hidden activation at its Z_lᵀ, (m, n_l), by exact differences."""
        _, Zs = self.values
        return [layer.act.slopes(Z) for layer, Z in zip(self.layers[:-1], Zs[:-1], strict=True)]

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
        for layer, slope, at in zip(self.layers, self.slopes, self.kinks[:-1], strict=False):
            mean = sum(layer.act.kink or (0.0, 0.0)) / 2
            slopes.append(np.where(at, mean, slope))
        return self._carried_down(slopes)

    @cached_property
    def last(self) -> FloatArray:
        """D_Lᵀ (m, n_L), from the loss alone."""
        loss, Z_L = self.net.losses, self.values[1][-1].T
        labels = self.net.labels
        with np.errstate(all="ignore"):
            rise = loss.change(Z_L, labels, STEP) - loss.change(Z_L, labels, -STEP)
            return np.ascontiguousarray(rise.T) / (2 * STEP)

    def others(self) -> "Iterator[tuple[str, ForwardState]]":
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
                yield name, ForwardState(other, (*layers, self.layers[-1]), self.theta)

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
    def kinks(self) -> list[NDArray[np.bool_]]:
        """Which pre-activations lie at a corner of their activation, (m, n_l) for each layer.

        At it, as far as rounding lets anyone tell: a backward pass that sums in another order may
        find them on the other side.
        """
        uncertainty = np.zeros_like(self.net.X.T)  # of A_{l−1}ᵀ
        found = []
        for (layer, _, Z), sums in zip(self.tensors(), self.term_sizes, strict=True):
            W = np.abs(self.theta[layer.W].reshape(layer.n, layer.k))
            uncertainty = uncertainty @ W.T + 4 * (layer.k + 2) * UNIT_ROUNDOFF * sums
            found.append((layer.act.kink is not None) & (np.abs(Z) <= uncertainty))
        return found

    def near_kink(self) -> bool:
        """Whether a hidden unit lies close to its corner: |z| ≤ 1e-4 of the layer's largest."""
        return any(
            layer.act.kink is not None and np.abs(Z).min() <= 1e-4 * np.abs(Z).max()
            for layer, _, Z in self.tensors()
        )

    def forced(self) -> list[Forced]:
        """The units at their corners, with the slopes that backward passes take there.

        Those on the left and on the right, and half-way; none where no unit is at its corner.
        """
        units = [kinks.T for kinks in self.kinks]
        return [Forced(units, share) for share in (0.0, 0.5, 1.0) if any(at.any() for at in units)]

    def sample_losses(self, rows: FloatArray, forced: Forced | None = None) -> FloatArray:
        """The terms whose sum, over the divisor, is J, (K, m + 1), for parameters (K, P).

        A column for each sample, then weight decay.
        """
        with np.errstate(all="ignore"):
            losses = self.net.sample_losses(self.layers, rows, forced)
            decay = self.net.decay(self.layers, rows)
        return np.concatenate((losses, decay[:, np.newaxis]), axis=1)


def rounding_of_gradients(state: ForwardState) -> FloatArray:
    """How far rounding may move each entry of a right gradient, (P,).

    A − Y cancels where the output is saturated: dZ_L is good to u·(|A| + |Y|), however small it is,
    or to 2u where A is a probability whose own rounding is not known; and it moves with the
    rounding of Z_L, which may be summed from large terms. Every gradient below inherits that,
    through |W|ᵀ and the slopes; a slope near 0 is itself only good to u where the activation is
    curved. 8u·(Γ_l |A_{l−1}|ᵀ)/m, with Γ_L = |A_L| + |Y| + slope·(|W_L||A_{L−1}| + |b_L|) and
    Γ_l = (slope + 8u)·|W_{l+1}|ᵀ Γ_{l+1} + |W_{l+1}|ᵀ |D_{l+1}|, the terms with 8u and D for curved
    activations alone.
    """
    net, layers, theta = state.net, state.layers, state.theta
    inputs, Zs = state.values
    D = state.sensitivities
    bound = np.empty(theta.size)
    with np.errstate(all="ignore"):
        last = Zs[-1].T, net.labels, D[-1].T, state.term_sizes[-1].T
        spread = np.ascontiguousarray(net.losses.rounding(*last).T)
        for l in range(len(layers) - 1, -1, -1):
            layer = layers[l]
            below = spread.T @ np.abs(inputs[l])
            if l > 0 and layers[l - 1].act.curved:
                size = np.maximum(1.0, np.abs(Zs[l - 1]))
                below += np.abs(D[l]).T @ size
            bound[layer.W] = below.ravel()
            bound[layer.b] = spread.sum(axis=0)
            if l > 0:
                W = np.abs(theta[layer.W].reshape(layer.n, layer.k))
                slope = np.where(state.kinks[l - 1], 1.0, state.slopes[l - 1])
                reach = spread @ W
                spread = np.abs(slope) * reach
                if layers[l - 1].act.curved:
                    spread += size * (8 * UNIT_ROUNDOFF * reach + np.abs(D[l]) @ W)
    return 8 * UNIT_ROUNDOFF / net.divisor * bound


class KernelArguments(NamedTuple):
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
