"""From pre-activations to parameters: Z_l = W_l A_{l−1} + b_l is linear in W_l and b_l.

What depends on Z_l[i, s] with slope D_l[i, s], summed over the samples, depends on W_l[i, j] with
slope Σ_s D_l[i, s] A_{l−1}[j, s], and on b_l[i] with Σ_s D_l[i, s].
"""

from collections.abc import Iterator

import numpy as np

from fastgc.inside import Inside
from fastgc.layout import FloatArray
from fastgc.methods.interface import Entries, Resources
from fastgc.network import Layer
from fastgc.operations import forward_operations
from fastgc.point import Point
from fastgc.response import WORTH_SHARING, unit_slopes
from fastgc.threads import share

# Rows of W_l in one product. They are the same for any number of threads, since BLAS sums in an
# order that depends on the shapes.
ROWS = 128


def assemble(
    inside: Inside,
    slopes: FloatArray,
    sizes: FloatArray,
    entries: Entries | None,
    resources: Resources,
) -> tuple[FloatArray, FloatArray]:
    """Σ_s D A / m and Σ_s D |A| / m for each entry, (n,) each, of two different D; m the divisor.

    Args:
        inside: the network at its parameters.
        slopes: the first D: D_lᵀ (m, n_l), l = 1 … L, one after the other.
        sizes: the second, which is not negative.
        entries: indices into the flat vector; None for all.
        resources: what may be used.
    """
    m, P = inside.net.m, inside.theta.size
    divisor = inside.net.divisor
    scaled = np.divide(slopes, divisor), np.divide(sizes, divisor)
    found = np.empty(P), np.empty(P)
    blocks = []
    at = 0
    for layer, A, _ in inside.tensors():
        part = slice(at, at + m * layer.n)
        at += m * layer.n
        starts = range(0, layer.n, ROWS) if entries is None else _touched(layer, entries)
        if starts:
            for D, to, values in zip(scaled, found, (A, np.abs(A)), strict=True):
                W, b = to[layer.W].reshape(layer.n, layer.k), to[layer.b]
                rows = D[part].reshape(m, layer.n).T
                blocks += [(rows, values, W, b, slice(i, i + ROWS)) for i in starts]

    def work(numbers: Iterator[int]) -> None:
        with np.errstate(all="ignore"):  # which each thread has to itself
            for number in numbers:
                D, A, W, b, rows = blocks[number]
                D = D[rows]
                np.dot(D, A, out=W[rows])
                np.add.reduce(D, axis=1, out=b[rows])

    worth = forward_operations(inside.widths, m) > WORTH_SHARING
    share(work, count=len(blocks), workers=resources.threads if worth else 1)
    return found if entries is None else (found[0][entries], found[1][entries])


def _touched(layer: Layer, entries: Entries) -> list[int]:
    """The first rows of the blocks that hold any of the entries."""
    units, _ = layer.places(entries)
    return [int(row) for row in np.unique(units // ROWS * ROWS)]


def add_decay(
    inside: Inside, entries: Entries | None, slopes: FloatArray, sizes: FloatArray
) -> None:
    """Adds (λ/m) W to `slopes`, and its size to `sizes`, both (n,), of the entries.

    That is the central difference of (λ/2m) Σ W² for any step t: the mean of (λ/m) (W + t/2),
    upwards, and (λ/m) (W − t/2), downwards.
    """
    rate = inside.net.weight_decay / inside.net.divisor
    if rate == 0:
        return
    decay = np.zeros(inside.theta.size)
    for layer in inside.layers:
        decay[layer.W] = rate * inside.theta[layer.W]
    decay = decay if entries is None else decay[entries]
    slopes += decay
    sizes += np.abs(decay)


def slope_intervals(
    inside: Inside,
    point: Point,
    step: float,
    entries: Entries | None,
    resources: Resources,
    found: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest slope of J by each entry, corners taken sample by sample; (n,).

    Args:
        inside, point, step, resources: as `found` was made with.
        entries: indices into the flat vector; None for all.
        found: what the kernel found by pre-activation.
    """
    low, high = unit_slopes(inside, point, step, resources, found)
    # Σ_s of the interval [low, high] · A is that of its middle, give or take half its length
    middle, reach = assemble(inside, 0.5 * (low + high), 0.5 * (high - low), entries, resources)
    add_decay(inside, entries, middle, np.zeros(middle.size))
    return middle - reach, middle + reach
