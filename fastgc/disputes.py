"""What becomes of the entries that disagree: a look at shorter steps before they are called wrong.

A central difference may be off for reasons that are no mistake in the gradient: the cost bends
sharply (truncation), or the step crosses the corner of a ReLU (a kink). Both give themselves away
when the step is shortened: the one moves gradapprox, the other leaves two one-sided slopes apart.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastgc.kinks import slope_intervals
from fastgc.layout import FloatArray
from fastgc.methods import METHODS, Approximation, Base, Resources
from fastgc.problem import Problem, require_same_cost
from fastgc.tally import Tally, tally, tensor_means
from fastgc.verdict import (
    AGREE,
    DISAGREE,
    KINK,
    UNRESOLVED,
    entry_scale,
    entry_verdicts,
    verdicts_on_errors,
)

SHORTER = 8.0  # times, at each look; the rounding noise grows as much
LOOKS = 3


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """Everything found about every entry, (P,) each.

    Attributes:
        grad: the gradient that is checked.
        gradapprox: from the longest step that did not prove to be too long.
        uncertainty: of `gradapprox`.
        tally: what the report says of each tensor.
        evaluations: of the cost, in all.
    """

    grad: FloatArray
    gradapprox: FloatArray
    uncertainty: FloatArray
    tally: Tally
    evaluations: int


def settle(
    problem: Problem,
    base: Base,
    method: str,
    epsilon: float,
    resources: Resources,
    grad: FloatArray,
    first: Approximation,
    tolerance: float,
) -> Findings:
    """The verdict on every entry, after a second look at those that disagree.

    Args:
        problem, base, method, epsilon, resources: as `first` was made with.
        grad: the gradient that is checked, (P,).
        first: the approximation of every entry.
        tolerance: relative.
    """
    layout = problem.layout
    gradapprox, uncertainty = first.gradapprox, first.uncertainty
    means = tensor_means(layout, gradapprox)
    zeros = not base.coarse
    judge = partial(entry_verdicts, tolerance=tolerance, exact_zeros=zeros)
    codes = np.zeros(layout.size, dtype=np.uint8)
    count = partial(tally, layout, grad, gradapprox, uncertainty, means, codes)
    found = count(partial(verdicts_on_errors, tolerance=tolerance, exact_zeros=zeros))
    evaluations = first.evaluations

    exact = METHODS[method].exact
    # where differences are exact, only what a right backward pass cancels leaves doubts
    doubts = (codes == DISAGREE) | (codes == UNRESOLVED) if exact else codes == DISAGREE
    disputed = np.flatnonzero(doubts)
    typical = means[layout.tensor_of(disputed)]
    if disputed.size and problem.rounding is not None:
        # a right backward pass could not have got these any closer
        wider = uncertainty[disputed] + problem.rounding()[disputed]
        excused = judge(grad[disputed], gradapprox[disputed], wider, typical) < DISAGREE
        codes[disputed[excused]] = AGREE
    still = codes[disputed] == DISAGREE
    disputed, typical = disputed[still], typical[still]
    if disputed.size == 0:
        found = count() if doubts.any() else found
        return Findings(grad, gradapprox, uncertainty, found, evaluations)

    evaluations += require_same_cost(problem, base.cost)
    doubtful, doubtful_typical, first_step = disputed, typical, epsilon
    low, high = (slope[disputed] for slope in first.slopes())
    nearing = np.zeros(disputed.size, dtype=np.bool_)
    for _ in range(LOOKS):
        if disputed.size == 0:
            break
        epsilon /= SHORTER
        everything = disputed.size == layout.size
        look = METHODS[method].approximate(
            problem, None if everything else disputed, base, epsilon, resources
        )
        evaluations += look.evaluations
        g = grad[disputed]
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays as it was
            look_low, look_high = look.slopes()
            noise = look.uncertainty + uncertainty[disputed]
            moved = np.abs(look.gradapprox - gradapprox[disputed]) > noise
            nearing = np.abs(g - look.gradapprox) < np.abs(g - gradapprox[disputed]) / 32
            gap = look_high - look_low
            corner = (gap > noise) & (gap > (high - low) / 4)
            allowed = tolerance * entry_scale(g, look.gradapprox, typical)
            kink = corner & _within(look_low, g, look_high, allowed + 2 * look.uncertainty)
            # as far off as the bend within the longer step, which the noise of the shorter hides
            hidden = _within(low, g, high, allowed + uncertainty[disputed])
            hidden &= np.abs(g - look.gradapprox) <= allowed + look.uncertainty
        codes[disputed[kink]] = KINK
        if exact:  # nothing but a slope that is no one-sided one, as a half at 0, goes beyond
            corner &= _within(look_low - gap, g, look_high + gap, allowed)
        codes[disputed[~kink & ~moved & (corner | hidden)]] = UNRESOLVED
        moved &= ~kink
        disputed, typical, nearing = disputed[moved], typical[moved], nearing[moved]
        low, high = look_low[moved], look_high[moved]
        gradapprox[disputed] = look.gradapprox[moved]
        uncertainty[disputed] = look.uncertainty[moved]
        codes[disputed] = judge(
            grad[disputed], gradapprox[disputed], uncertainty[disputed], typical
        )
        still = codes[disputed] == DISAGREE
        disputed, typical, nearing = disputed[still], typical[still], nearing[still]
        low, high = low[still], high[still]
    # on its way to g as fast as truncation shrinks, and not there yet
    codes[disputed[nearing]] = UNRESOLVED
    if exact:
        return Findings(grad, gradapprox, uncertainty, count(), evaluations)

    undecided = (codes[doubtful] == DISAGREE) | (codes[doubtful] == UNRESOLVED)
    doubtful, typical = doubtful[undecided], doubtful_typical[undecided]
    if doubtful.size and problem.near_corner():
        low, high, noise = slope_intervals(problem, doubtful, base, first_step, SHORTER)
        evaluations += 4 * doubtful.size + 1
        g, middle = grad[doubtful], 0.5 * (low + high)
        slack = tolerance * entry_scale(g, middle, typical) + 2 * noise
        codes[doubtful[(low < high) & _within(low, g, high, slack)]] = KINK
    return Findings(grad, gradapprox, uncertainty, count(), evaluations)


def _within(
    low: FloatArray, g: FloatArray, high: FloatArray, slack: FloatArray
) -> NDArray[np.bool_]:
    """Whether g lies between low and high, widened by `slack`."""
    return (low - slack <= g) & (g <= high + slack)
