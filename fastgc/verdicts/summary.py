"""What the report says of each tensor, counted in one pass over the entries."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import FloatArray, Layout
from fastgc.core.verdict import (
    AGREE,
    ENTRY_VERDICTS,
    KINK,
    NONFINITE,
    THRESHOLDS,
    Zeros,
    entry_scale,
    relative_difference,
    root_mean_square,
    verdicts_on_errors,
)

# Sums of squares in this range neither overflow nor lose small terms.
SAFE = (1e-240, 1e240)


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Numbers for each of the T tensors, and one for all.

    Attributes:
        worst: the worst entry verdict, an index into `ENTRY_VERDICTS`.
        place: the entry of the flat vector with that verdict and the largest error among them.
        counts: entries by verdict.
        differences: the lab's formula over the tensor.
        resolutions: the largest uncertainty relative to the gradient, where that is not zero.
        vanishing: how many entries agree as zero, as far as the uncertainty lets anyone tell; and
            the largest uncertainty of these.
        difference: the lab's formula over all entries.
    """

    worst: list[int]
    place: list[int]
    counts: list[list[int]]
    differences: list[float]
    resolutions: list[float]
    vanishing: list[tuple[int, float]]
    difference: float


def tensor_means(layout: Layout, vector: FloatArray) -> FloatArray:
    """The root mean square of each tensor of a flat vector, (T,)."""
    squares = np.zeros(len(layout.names))
    with np.errstate(all="ignore"):
        for part, tensors, lengths in layout.pieces():
            squares[tensors] += sums_of_products(vector[part], vector[part], lengths)
        means: FloatArray = np.sqrt(squares / layout.lengths)
    for t, (_, part) in enumerate(layout.tensors()):
        if not SAFE[0] < squares[t] < SAFE[1]:
            means[t] = root_mean_square(vector[part])
    return means


def sums_of_products(a: FloatArray, b: FloatArray, lengths: NDArray[np.intp]) -> FloatArray:
    """Σ a b over each of the parts, so long, that follow each other."""
    if len(lengths) == 1:
        return np.array([a @ b])
    return np.add.reduceat(a * b, np.cumsum(lengths) - lengths)


def summarise(
    layout: Layout,
    analytic: AnalyticGradient,
    gradapprox: FloatArray,
    uncertainty: FloatArray,
    means: FloatArray,
    codes: NDArray[np.uint8],
    zeros: Zeros | None = None,
) -> Summary:
    """Counts the findings on every tensor.

    Args:
        layout: of the flat vectors that follow.
        analytic: the gradients that are checked.
        gradapprox: (P,).
        uncertainty: of gradapprox, (P,).
        means: the root mean square of gradapprox over each tensor, (T,).
        codes: the verdicts, indices into `ENTRY_VERDICTS`, (P,).
        zeros: what tells a zero, where the verdicts are still to be made, into `codes`; None where
            they hold.
    """
    grad, squares = analytic.grad, np.zeros((3, len(layout.names)))
    counts = _Counts(layout, (grad, gradapprox, uncertainty, codes))
    with np.errstate(all="ignore"):  # overflow is looked after below; inf - inf is nonfinite
        for part, tensors, lengths in layout.pieces():
            g, approx, U = grad[part], gradapprox[part], uncertainty[part]
            errors = np.abs(g - approx)
            for row, values in enumerate((errors, g, approx)):
                squares[row, tensors] += sums_of_products(values, values, lengths)
            typical = layout.per_entry(means, tensors, lengths)
            scale = entry_scale(g, approx, typical)
            if zeros is not None:
                allowed = analytic.tolerance(layout, tensors, lengths) * entry_scale(g, approx, 0.0)
                allowed += analytic.floor(layout, tensors, lengths) * typical
                codes[part] = verdicts_on_errors(g, approx, errors, allowed, scale, U, zeros)
            counts.add(part, tensors, lengths, errors, U / scale)
    differences = [
        _difference(sums, grad[part], gradapprox[part])
        for sums, (_, part) in zip(squares.T.tolist(), layout.tensors(), strict=True)
    ]
    return Summary(
        counts.worst, counts.place, counts.verdicts.tolist(), differences,
        counts.resolutions.tolist(), counts.vanishing,
        _difference(squares.sum(axis=1).tolist(), grad, gradapprox),
    )  # fmt: skip


class _Counts:
    """What `Summary` has, added up over the pieces of grad, gradapprox, uncertainty and codes."""

    def __init__(self, layout: Layout, vectors: tuple[Any, ...]) -> None:
        T = len(layout.names)
        self._vectors = vectors
        self.worst, self.place = [0] * T, list(layout.offsets[:-1])
        self.verdicts = np.zeros((T, len(ENTRY_VERDICTS)), np.intp)
        self.resolutions, self.vanishing = np.zeros(T), [(0, 0.0)] * T
        self._largest = [-1.0] * T  # error among the entries of the worst verdict

    def add(
        self,
        part: slice,
        tensors: slice,
        lengths: NDArray[np.intp],
        errors: FloatArray,
        relative: FloatArray,
    ) -> None:
        """Counts a piece, as `Layout.pieces` has it; writes to its errors and uncertainties."""
        g, approx, uncertainty, codes = (vector[part] for vector in self._vectors)
        starts = np.cumsum(lengths) - lengths
        numbers = range(tensors.start, tensors.stop)
        if not relative.max(initial=0.0) <= THRESHOLDS.resolution:
            small = ~(relative <= THRESHOLDS.resolution)
            zeros = (codes == AGREE) & small  # they resolve nothing
            relative[zeros | ((codes == KINK) & small)] = 0.0
            zeros &= (g != 0) | (approx != 0)  # exact zeros on both sides need no word
            widest = np.maximum.reduceat(np.where(zeros, uncertainty, 0.0), starts).tolist()
            counts = np.add.reduceat(zeros, starts, dtype=np.intp).tolist()
            for t, count, most in zip(numbers, counts, widest, strict=True):
                before, least = self.vanishing[t]
                self.vanishing[t] = before + count, max(least, most)
        if codes.any():
            errors[np.isnan(errors) | (codes == NONFINITE)] = np.inf
            relative[~np.isfinite(g) | ~np.isfinite(approx)] = 0.0
            tensor = np.repeat(numbers, lengths)
            T, kinds = self.verdicts.shape
            counts = np.bincount(tensor * kinds + codes, minlength=T * kinds)
            self.verdicts += counts.reshape(T, kinds)
            for t, code in zip(numbers, np.maximum.reduceat(codes, starts).tolist(), strict=True):
                if code > self.worst[t]:
                    self.worst[t], self._largest[t] = code, -1.0
            errors[codes < np.array(self.worst)[tensor]] = -1.0  # which counts no more
        else:
            self.verdicts[tensors, 0] += lengths
        resolutions = self.resolutions[tensors]
        np.fmax(resolutions, np.fmax.reduceat(relative, starts), out=resolutions)
        tops = np.maximum.reduceat(errors, starts).tolist()
        for t, top, start, length in zip(
            numbers, tops, starts.tolist(), lengths.tolist(), strict=True
        ):
            if top > self._largest[t]:
                self._largest[t] = top
                k = int(errors[start : start + length].argmax())
                self.place[t] = part.start + start + k


def _difference(sums: list[float], grad: FloatArray, gradapprox: FloatArray) -> float:
    """‖grad − gradapprox‖ / (‖grad‖ + ‖gradapprox‖); `sums` are the squares of the three norms."""
    error, *sizes = sums
    if all(SAFE[0] < square < SAFE[1] for square in sizes) and error < SAFE[1]:
        return math.sqrt(error) / sum(map(math.sqrt, sizes))
    return relative_difference(grad, gradapprox)
