"""What the report says of each tensor, counted in one pass over the entries."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import FloatArray, Layout
from fastgc.core.verdict import (
    AGREE,
    ENTRY_VERDICTS,
    KINK,
    NONFINITE,
    RESOLUTION,
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
    *,
    reach: float = 0.0,
    judge: bool = False,
    exact_zeros: bool = True,
) -> Summary:
    """Counts the findings on every tensor.

    Args:
        layout: of the flat vectors that follow.
        analytic: the gradients that are checked.
        gradapprox: (P,).
        uncertainty: of gradapprox, (P,).
        means: the root mean square of gradapprox over each tensor, (T,).
        codes: the verdicts, indices into `ENTRY_VERDICTS`, (P,).
        reach: of all entries, as in `entry_verdicts`.
        judge: makes the verdicts, which `codes` does not hold yet.
        exact_zeros: for that, as in `entry_verdicts`.
    """
    grad = analytic.grad
    T = len(layout.names)
    worst = [0] * T
    place = list(layout.offsets[:-1])
    largest = [-1.0] * T
    counts = np.zeros((T, len(ENTRY_VERDICTS)), np.intp)
    resolutions, vanishing = np.zeros(T), [(0, 0.0)] * T
    squares = np.zeros((3, T))
    with np.errstate(all="ignore"):  # overflow is looked after below; inf - inf is nonfinite
        for part, tensors, lengths in layout.pieces():
            g, found, U = grad[part], gradapprox[part], uncertainty[part]
            errors = np.abs(g - found)
            squares[0, tensors] += sums_of_products(errors, errors, lengths)
            squares[1, tensors] += sums_of_products(g, g, lengths)
            squares[2, tensors] += sums_of_products(found, found, lengths)
            typical = layout.per_entry(means, tensors, lengths)
            scale = entry_scale(g, found, typical)
            relative = U / scale
            if judge:
                allowed = analytic.tolerance(layout, tensors, lengths) * entry_scale(g, found, 0.0)
                allowed += analytic.floor(layout, tensors, lengths) * typical
                codes[part] = verdicts_on_errors(
                    g, found, errors, allowed, scale, U,
                    reach=reach, exact_zeros=exact_zeros,
                )  # fmt: skip
            verdicts = codes[part]
            starts = np.cumsum(lengths) - lengths
            if not relative.max(initial=0.0) <= RESOLUTION:
                _note_zeros(vanishing, tensors, starts, (g, found, U), relative, verdicts)
            if not verdicts.any():
                counts[tensors, 0] += lengths
            else:
                errors[np.isnan(errors) | (verdicts == NONFINITE)] = np.inf
                relative[~np.isfinite(g) | ~np.isfinite(found)] = 0.0
                numbers = np.repeat(np.arange(tensors.start, tensors.stop), lengths)
                counts += np.bincount(
                    numbers * counts.shape[1] + verdicts, minlength=counts.size
                ).reshape(counts.shape)
                here = np.maximum.reduceat(verdicts, starts).tolist()
                for t, code in enumerate(here, start=tensors.start):
                    if code > worst[t]:
                        worst[t], largest[t] = code, -1.0
                errors[verdicts < np.array(worst)[numbers]] = -1.0
            np.fmax(
                resolutions[tensors], np.fmax.reduceat(relative, starts), out=resolutions[tensors]
            )
            tops = np.maximum.reduceat(errors, starts).tolist()
            for t, top, start, length in zip(
                range(T)[tensors], tops, starts.tolist(), lengths.tolist(), strict=True
            ):
                if top > largest[t]:
                    largest[t] = top
                    place[t] = part.start + start + int(errors[start : start + length].argmax())
    differences = [
        _difference(sums, grad[part], gradapprox[part])
        for sums, (_, part) in zip(squares.T.tolist(), layout.tensors(), strict=True)
    ]
    return Summary(
        worst,
        place,
        counts.tolist(),
        differences,
        resolutions.tolist(),
        vanishing,
        _difference(squares.sum(axis=1).tolist(), grad, gradapprox),
    )


def _note_zeros(
    vanishing: list[tuple[int, float]],
    tensors: slice,
    starts: NDArray[np.intp],
    of_entries: tuple[FloatArray, FloatArray, FloatArray],
    relative: FloatArray,
    verdicts: NDArray[np.uint8],
) -> None:
    """Adds to `vanishing` the entries of a piece that agree as zero; they resolve nothing."""
    g, found, uncertainty = of_entries
    small = ~(relative <= RESOLUTION)
    zeros = (verdicts == AGREE) & small
    relative[zeros | ((verdicts == KINK) & small)] = 0.0
    zeros &= (g != 0) | (found != 0)  # what is exactly zero on both sides needs no word
    numbers = np.add.reduceat(zeros, starts, dtype=np.intp).tolist()
    widest = np.maximum.reduceat(np.where(zeros, uncertainty, 0.0), starts).tolist()
    for t, number, most in zip(range(len(vanishing))[tensors], numbers, widest, strict=True):
        before, least = vanishing[t]
        vanishing[t] = before + number, max(least, most)


def _difference(sums: list[float], grad: FloatArray, gradapprox: FloatArray) -> float:
    """‖grad − gradapprox‖ / (‖grad‖ + ‖gradapprox‖); `sums` are the squares of the three norms."""
    error, g, found = sums
    if all(SAFE[0] < square < SAFE[1] for square in (g, found)) and error < SAFE[1]:
        return math.sqrt(error) / (math.sqrt(g) + math.sqrt(found))
    return relative_difference(grad, gradapprox)
