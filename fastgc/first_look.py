"""What a first look may have missed though everything agrees: kinks, and slopes that it aliased."""

import numpy as np
from numpy.typing import NDArray

from fastgc.claim import Claim
from fastgc.drawing import generator
from fastgc.layout import FloatArray
from fastgc.methods import Approximation, Base
from fastgc.methods.interface import Entries, Step
from fastgc.noise import LEAST_NOISE
from fastgc.parts import Part
from fastgc.problem import Problem
from fastgc.verdict import AGREE

GAP = 1e-4  # of the slopes, that those on both sides of an entry are apart at a kink, and more
SHARES = 0.3, 0.7  # of a step, by which entries that agree as zero are moved once more


def bent(
    problem: Problem,
    first: Approximation,
    means: FloatArray,
    part: Part,
    *,
    skip: bool,
) -> Entries:
    """Entries whose one-sided slopes are apart, as at a kink, or where J bends sharply."""
    if skip or problem.inside is not None:
        return np.empty(0, dtype=np.intp)
    low, high = first.slopes()
    layout = part.layout
    with np.errstate(invalid="ignore", over="ignore"):
        gap = high - low
        size = np.fmax(np.abs(low), np.abs(high))
        apart = (gap > GAP * np.fmax(size, np.repeat(means, layout.lengths))) & np.isfinite(gap)
        return np.flatnonzero(apart & (gap > 8 * first.uncertainty))


def hidden_zeros(
    problem: Problem,
    base: Base,
    claim: Claim,
    first: Approximation,
    codes: NDArray[np.uint8],
    part: Part,
    epsilon: Step,
    *,
    skip: bool,
) -> Entries | None:
    """Entries that agree as zero, where J moves with them over another step; None for no such look.

    A cost whose period is the step looks flat. All zeros are moved at once, by shares of the step.
    """
    zeros = np.empty(0, dtype=np.intp)
    if not (skip or problem.inside is not None):
        small = np.abs(first.gradapprox) <= first.uncertainty
        zeros = np.flatnonzero(small & (np.abs(claim.grad) <= first.uncertainty) & (codes == AGREE))
    if zeros.size == 0:
        return None
    rng = generator(12)
    whole = part.whole(zeros)
    by = np.broadcast_to(epsilon, problem.layout.size)[whole] * rng.uniform(*SHARES, zeros.size)
    by *= rng.choice((-1.0, 1.0), zeros.size)
    ends = []
    for sign in (1.0, -1.0):
        point = problem.theta.copy()
        point[whole] += sign * by
        ends.append(problem.evaluate_or_nan(point))
    slack = float(first.uncertainty[zeros] @ np.abs(by)) + 2 * max(
        base.jitter, LEAST_NOISE * abs(base.cost)
    )
    return zeros if abs(ends[0] - ends[1]) / 2 > slack else zeros[:0]
