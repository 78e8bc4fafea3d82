"""What a first look may have missed though all agrees: kinks, and slopes that do not add up."""

import numpy as np
from numpy.typing import NDArray

from fastgc.drawing import generator
from fastgc.kinks import off_along
from fastgc.layout import FloatArray
from fastgc.methods import Approximation, Base
from fastgc.methods.interface import Entries, Step
from fastgc.noise import LEAST_NOISE
from fastgc.parts import Part
from fastgc.problem import Problem
from fastgc.refinement import SHORTER
from fastgc.verdict import AGREE

GAP = 1e-4  # of the slopes, that those on both sides of an entry are apart at a kink, and more
SHARES = 0.3, 0.7  # of a step, by which all entries are moved once more


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


def adds_up(
    problem: Problem,
    base: Base,
    first: Approximation,
    codes: NDArray[np.uint8],
    part: Part,
    epsilon: Step,
    *,
    skip: bool,
) -> tuple[bool, int]:
    """Whether J moves along all that agrees as gradapprox says; and the evaluations spent.

    A cost whose period is the step looks flat, entry by entry. So does a median at a tie, which no
    single entry moves.
    """
    agree = np.flatnonzero((codes == AGREE) & np.isfinite(first.gradapprox))
    if skip or problem.inside is not None or agree.size == 0:
        return True, 0
    rng = generator(12)
    whole = part.whole(agree)
    by = np.broadcast_to(epsilon, problem.layout.size)[whole] * rng.uniform(*SHARES, agree.size)
    by *= rng.choice((-1.0, 1.0), agree.size)
    gradapprox = first.gradapprox[agree]
    slack = 2.0 * float(first.uncertainty[agree] @ np.abs(by))
    floor = 2.0 * max(base.jitter, LEAST_NOISE * abs(base.cost))
    apart = [0.0, 0.0]
    for look, share in enumerate((1.0, 1.0 / SHORTER)):
        apart[look] = off_along(problem, whole, share * by, gradapprox)
        if not apart[look] > share * slack + floor:  # nor where it cannot be had
            return True, 2 * (look + 1)
    # what the slope bends by falls with the cube of the step
    return not apart[1] > apart[0] / (4 * SHORTER), 4
