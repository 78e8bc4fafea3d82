"""What the report says of each tensor, counted in one pass over the entries."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgc.disputes import Findings
from fastgc.layout import FloatArray, Layout
from fastgc.verdict import ENTRY_VERDICTS, NONFINITE, entry_scale, relative_difference

# Sums of squares in this range neither overflow nor lose small terms.
SAFE = (1e-240, 1e240)


@dataclass(frozen=True, eq=False, repr=False)
class Tally:
    """One number for each of the T tensors, (T,), and one for all.

    Attributes:
        worst: the worst entry verdict, an index into `ENTRY_VERDICTS`.
        place: the entry of the flat vector with that verdict and the largest error among them.
        counts: (T, 5), entries by verdict.
        differences: the lab's formula over the tensor.
        resolutions: the largest uncertainty relative to the gradient.
        difference: the lab's formula over all entries.
    """

    worst: NDArray[np.uint8]
    place: NDArray[np.intp]
    counts: NDArray[np.intp]
    differences: list[float]
    resolutions: FloatArray
    difference: float


def tally(layout: Layout, findings: Findings) -> Tally:
    """Counts the findings on every tensor."""
    grad, gradapprox, codes = findings.grad, findings.gradapprox, findings.codes
    T = len(layout.names)
    worst = np.maximum.reduceat(codes, layout.offsets[:-1])
    place = np.array(layout.offsets[:-1])
    largest = np.full(T, -1.0)
    counts = np.zeros((T, len(ENTRY_VERDICTS)), np.intp)
    resolutions = np.zeros(T)
    squares = np.zeros((3, T))
    with np.errstate(all="ignore"):  # overflow is looked after below; inf - inf is nonfinite
        for part, tensors, lengths in layout.pieces():
            g, found, verdicts = grad[part], gradapprox[part], codes[part]
            starts = np.cumsum(lengths) - lengths
            errors = np.abs(g - found)
            for row, vector in zip(squares, (errors, g, found), strict=True):
                for t, start, length in zip(range(T)[tensors], starts, lengths, strict=True):
                    some = vector[start : start + length]
                    row[t] += some @ some
            scale = entry_scale(g, found, layout.per_entry(findings.means, tensors, lengths))
            relative = findings.uncertainty[part] / scale
            if not verdicts.any():
                counts[tensors, 0] += lengths
            else:
                errors[verdicts == NONFINITE] = np.inf
                relative[verdicts == NONFINITE] = 0.0
                numbers = np.repeat(np.arange(tensors.start, tensors.stop), lengths)
                counts += np.bincount(
                    numbers * counts.shape[1] + verdicts, minlength=counts.size
                ).reshape(counts.shape)
                errors[verdicts < worst[numbers]] = -1.0
            # fmax: 0 / 0 is an exact zero
            most = np.fmax.reduceat(relative, starts)
            np.fmax(resolutions[tensors], most, out=resolutions[tensors])
            for t, top in enumerate(np.maximum.reduceat(errors, starts), start=tensors.start):
                if top > largest[t]:
                    largest[t] = top
                    at = starts[t - tensors.start]
                    length = lengths[t - tensors.start]
                    place[t] = part.start + at + np.argmax(errors[at : at + length])
    differences = []
    for sums, (_, part) in zip(squares.T.tolist(), layout.tensors(), strict=True):
        differences.append(_difference(sums, grad[part], gradapprox[part]))
    return Tally(
        worst,
        place,
        counts,
        differences,
        resolutions,
        _difference(squares.sum(axis=1).tolist(), grad, gradapprox),
    )


def _difference(sums: list[float], grad: FloatArray, gradapprox: FloatArray) -> float:
    """‖grad − gradapprox‖ / (‖grad‖ + ‖gradapprox‖); `sums` are the squares of the three norms."""
    error, g, found = sums
    if all(SAFE[0] < square < SAFE[1] for square in (g, found)) and error < SAFE[1]:
        return math.sqrt(error) / (math.sqrt(g) + math.sqrt(found))
    return relative_difference(grad, gradapprox)
