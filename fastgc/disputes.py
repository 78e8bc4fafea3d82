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
from fastgc.verdict import (
    AGREE,
    DISAGREE,
    KINK,
    UNRESOLVED,
    entry_scale,
    entry_verdicts,
    root_mean_square,
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
        typical: the root mean square of gradapprox over the entry's tensor.
        codes: indices into `ENTRY_VERDICTS`.
        evaluations: of the cost, in all.
    """

    grad: FloatArray
    gradapprox: FloatArray
    uncertainty: FloatArray
    typical: FloatArray
    codes: NDArray[np.uint8]
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
    gradapprox, uncertainty = first.gradapprox.copy(), first.uncertainty.copy()
    below, above = first.slope_below.copy(), first.slope_above.copy()
    means = [root_mean_square(gradapprox[part]) for _, part in problem.layout.tensors()]
    typical = np.repeat(means, np.diff(problem.layout.offsets))
    judge = partial(entry_verdicts, tolerance=tolerance, exact_zeros=not base.coarse)
    codes = judge(grad, gradapprox, uncertainty, typical)
    evaluations = first.evaluations

    disputed = np.flatnonzero(codes == DISAGREE)
    if disputed.size and problem.rounding is not None:
        # a right backward pass could not have got these any closer
        wider = uncertainty + problem.rounding()
        excused = judge(grad, gradapprox, wider, typical) < DISAGREE
        codes[disputed[excused[disputed]]] = AGREE
        disputed = disputed[~excused[disputed]]
    doubtful, first_step = disputed, epsilon
    if disputed.size:
        evaluations += require_same_cost(problem, base.cost)
    nearing = np.zeros(disputed.size, dtype=np.bool_)
    for _ in range(LOOKS):
        if disputed.size == 0:
            break
        epsilon /= SHORTER
        look = METHODS[method].approximate(problem, disputed, base, epsilon, resources)
        evaluations += look.evaluations
        g = grad[disputed]
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays as it was
            noise = look.uncertainty + uncertainty[disputed]
            moved = np.abs(look.gradapprox - gradapprox[disputed]) > noise
            nearing = np.abs(g - look.gradapprox) < np.abs(g - gradapprox[disputed]) / 32
            gap = np.abs(look.slope_above - look.slope_below)
            corner = (gap > noise) & (gap > np.abs(above - below)[disputed] / 4)
            allowed = tolerance * entry_scale(g, look.gradapprox, typical[disputed])
            slack = allowed + 2 * look.uncertainty
            kink = corner & _between(look.slope_below, g, look.slope_above, slack)
            # as far off as the bend within the longer step, which the noise of the shorter hides
            slack = allowed + uncertainty[disputed]
            hidden = _between(below[disputed], g, above[disputed], slack)
            hidden &= np.abs(g - look.gradapprox) <= allowed + look.uncertainty
        codes[disputed[kink]] = KINK
        codes[disputed[~kink & ~moved & (corner | hidden)]] = UNRESOLVED
        moved &= ~kink
        disputed, look, nearing = disputed[moved], look.of(moved), nearing[moved]
        gradapprox[disputed], uncertainty[disputed] = look.gradapprox, look.uncertainty
        below[disputed], above[disputed] = look.slope_below, look.slope_above
        codes[disputed] = judge(
            grad[disputed], look.gradapprox, look.uncertainty, typical[disputed]
        )
        still = codes[disputed] == DISAGREE
        disputed, nearing = disputed[still], nearing[still]
    # on its way to g as fast as truncation shrinks, and not there yet
    codes[disputed[nearing]] = UNRESOLVED
    doubtful = doubtful[(codes[doubtful] == DISAGREE) | (codes[doubtful] == UNRESOLVED)]
    if doubtful.size and problem.near_corner():
        low, high, noise = slope_intervals(problem, doubtful, base, first_step, SHORTER)
        evaluations += 4 * doubtful.size + 1
        g, middle = grad[doubtful], 0.5 * (low + high)
        slack = tolerance * entry_scale(g, middle, typical[doubtful]) + 2 * noise
        codes[doubtful[(low < high) & _between(low, g, high, slack)]] = KINK
    return Findings(grad, gradapprox, uncertainty, typical, codes, evaluations)


def _between(a: FloatArray, g: FloatArray, b: FloatArray, slack: FloatArray) -> NDArray[np.bool_]:
    """Whether g lies between a and b, in either order, widened by `slack`."""
    return (np.minimum(a, b) - slack <= g) & (g <= np.maximum(a, b) + slack)
