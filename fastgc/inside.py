"""What fastgc sees inside a Network at its parameters: every layer's values."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastgc.layout import FloatArray
from fastgc.losses import LOSSES
from fastgc.network import Layer, Network

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
