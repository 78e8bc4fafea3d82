"""What becomes of the entries that disagree: a look at shorter steps before they are called wrong.

A central difference may be off for reasons that are no mistake in the gradient: the cost bends
sharply (truncation), or the step crosses the corner of a ReLU (a kink). Both give themselves away
when the step is shortened: the one moves gradapprox, the other leaves two one-sided slopes apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.claim import Claim
from fastgc.kinks import Interval, at_corner, by_sample, close_by
from fastgc.layout import FloatArray, Layout
from fastgc.methods import Approximation, Base
from fastgc.methods.interface import Entries, Step
from fastgc.problem import Problem, require_same_cost
from fastgc.rounding import rounding_of_gradients
from fastgc.tally import Tally, tally, tensor_means
from fastgc.verdict import (
    AGREE,
    DISAGREE,
    KINK,
    NONFINITE,
    UNRESOLVED,
    entry_scale,
    entry_verdicts,
)

SHORTER = 8.0  # times, at each look; the rounding noise grows as much
LOOKS = 3

#: A method at work on a problem: (entries, step) -> Approximation.
Look: TypeAlias = Callable[[Entries | None, Step], Approximation]


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """Everything found about every entry, (P,) each.

    Attributes:
        grad: the gradient that is checked.
        gradapprox: from the longest step that did not prove to be too long.
        uncertainty: of `gradapprox`.
        codes: the verdicts, indices into `ENTRY_VERDICTS`.
        at_rounding: the entries that agree only as far as the rounding of a right backward pass
            lets anyone tell, indices (n,).
        disputed: the entries that were looked at again, indices (n,), in order.
        slopes: their least and greatest one-sided slope, (n,) each.
        tally: what the report says of each tensor.
        evaluations: of the cost, in all.
    """

    grad: FloatArray
    gradapprox: FloatArray
    uncertainty: FloatArray
    codes: NDArray[np.uint8]
    at_rounding: Entries
    disputed: Entries
    slopes: tuple[FloatArray, FloatArray]
    tally: Tally
    evaluations: int


def settle(
    problem: Problem,
    base: Base,
    look: Look,
    epsilon: Step,
    claim: Claim,
    first: Approximation,
    *,
    exact: bool,
) -> Findings:
    """The verdict on every entry, after a second look at those that disagree.

    Args:
        problem, base, epsilon: as `first` was made with.
        look: the method that `first` is from.
        claim: the gradients that are checked.
        first: the approximation of every entry; it stays as it is.
        exact: whether the method's differences are free of cancellation.
    """
    layout, grad = problem.layout, claim.grad
    gradapprox, uncertainty = first.gradapprox, first.uncertainty
    if exact and not claim.in_double:  # its uncertainty is what a right backward pass may lose
        uncertainty = uncertainty * np.repeat(claim.units, layout.lengths)
    means = tensor_means(layout, gradapprox)
    zeros = not base.coarse
    codes = np.zeros(layout.size, dtype=np.uint8)
    counted = tally(
        layout, claim, gradapprox, uncertainty, means, codes, judge=True, exact_zeros=zeros
    )
    nowhere = np.empty(0, dtype=np.intp)
    found = partial(Findings, grad)
    if not codes.any():
        return found(
            gradapprox, uncertainty, codes, nowhere, nowhere, (grad[:0], grad[:0]), counted,
            first.evaluations,
        )  # fmt: skip

    def done(evaluations: int, of: Entries, low: FloatArray, high: FloatArray) -> Findings:
        counted = tally(layout, claim, gradapprox, uncertainty, means, codes)
        return found(
            gradapprox, uncertainty, codes, at_rounding, of, (low, high), counted, evaluations
        )

    gradapprox, uncertainty = gradapprox.copy(), uncertainty.copy()
    # where differences are exact, only what a right backward pass cancels leaves doubts
    doubts = (codes == DISAGREE) | (codes == UNRESOLVED) if exact else codes == DISAGREE
    disputed = np.flatnonzero(doubts)
    tensors = layout.tensor_of(disputed)
    at_rounding = nowhere
    if disputed.size and problem.inside is not None:
        # a right backward pass could not have got these any closer
        rounding = rounding_of_gradients(problem.inside)[disputed] * claim.units[tensors]
        excused = (
            entry_verdicts(
                grad[disputed], gradapprox[disputed], uncertainty[disputed] + rounding,
                means[tensors], claim.tolerances[tensors], exact_zeros=zeros,
            )
            < DISAGREE
        )  # fmt: skip
        at_rounding = disputed[excused]
        codes[at_rounding] = AGREE
    # a shorter step may stay where the cost is finite
    disputed = np.flatnonzero((codes == DISAGREE) | ((codes == NONFINITE) & np.isfinite(grad)))
    if disputed.size == 0:
        return done(first.evaluations, disputed, grad[:0], grad[:0])

    evaluations = first.evaluations + require_same_cost(problem, base.cost)
    doubtful = disputed
    low, high = (slope[disputed] for slope in first.slopes())
    doubtful_low, doubtful_high = low, high
    nearing = np.zeros(disputed.size, dtype=np.bool_)
    shorter = epsilon
    for _ in range(LOOKS):
        if disputed.size == 0:
            break
        shorter = shorter / SHORTER
        again = look(None if disputed.size == layout.size else disputed, shorter)
        evaluations += again.evaluations
        g, old, new = grad[disputed], gradapprox[disputed], again.gradapprox
        tensors = layout.tensor_of(disputed)
        tolerance, typical = claim.tolerances[tensors], means[tensors]
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays as it was
            look_low, look_high = again.slopes()
            doubt = again.uncertainty * claim.units[tensors] if exact else again.uncertainty
            noise = doubt + uncertainty[disputed]
            moved = (np.abs(new - old) > noise) | ~np.isfinite(old) | ~np.isfinite(new)
            nearing = np.abs(g - new) < np.abs(g - old) / 32
            gap = look_high - look_low
            # a one-sided difference is twice as noisy as a central one
            corner = (gap > 4 * doubt) & (gap > (high - low) / 4)
            allowed = tolerance * entry_scale(g, new, typical)
            kink = corner & _within(look_low, g, look_high, allowed + 2 * doubt)
            # as far off as the bend within the longer step, which the noise of the shorter hides
            hidden = _within(low, g, high, allowed + uncertainty[disputed])
            hidden &= np.abs(g - new) <= allowed + doubt
            if exact:  # nothing but a slope that is no one-sided one, as a half at 0, goes beyond
                corner &= _within(look_low - gap, g, look_high + gap, allowed)
        codes[disputed[kink]] = KINK
        codes[disputed[~kink & ~moved & (corner | hidden)]] = UNRESOLVED
        moved &= ~kink
        disputed, nearing = disputed[moved], nearing[moved]
        low, high = look_low[moved], look_high[moved]
        gradapprox[disputed] = new[moved]
        uncertainty[disputed] = doubt[moved]
        codes[disputed] = entry_verdicts(
            grad[disputed], gradapprox[disputed], uncertainty[disputed], typical[moved],
            tolerance[moved], exact_zeros=zeros,
        )  # fmt: skip
        still = (codes[disputed] == DISAGREE) | (codes[disputed] == NONFINITE)
        disputed, nearing, low, high = disputed[still], nearing[still], low[still], high[still]
    # on its way to g as fast as truncation shrinks, and not there yet
    codes[disputed[nearing]] = UNRESOLVED
    if exact:
        return done(evaluations, doubtful, doubtful_low, doubtful_high)

    steps = np.broadcast_to(epsilon, layout.size)
    evaluations += _jumps(look, epsilon, claim, codes, doubtful, first, means, layout)
    undecided = (codes[doubtful] == DISAGREE) | (codes[doubtful] == UNRESOLVED)
    open_, interval = doubtful[undecided], None
    if open_.size and problem.inside is not None and problem.inside.near_corner():
        interval = by_sample(problem.inside, open_, base, steps, SHORTER)
    elif open_.size and problem.inside is None:
        cornered, spent = at_corner(problem, base, steps)
        evaluations += spent
        if cornered:
            interval = close_by(problem, open_, base, steps)
    if interval is not None:
        evaluations += interval.evaluations
        _reconsider(problem, claim, codes, open_, interval, means)
        doubtful_low[undecided] = np.fmin(doubtful_low[undecided], interval.low)
        doubtful_high[undecided] = np.fmax(doubtful_high[undecided], interval.high)
    return done(evaluations, doubtful, doubtful_low, doubtful_high)


def _jumps(
    look: Look,
    epsilon: Step,
    claim: Claim,
    codes: NDArray[np.uint8],
    doubtful: Entries,
    first: Approximation,
    means: FloatArray,
    layout: Layout,
) -> int:
    """Finds small jumps of the slope at θ itself, which the noise of shorter steps hides.

    The gap between the one-sided slopes grows with the step where J only bends; at a corner it
    stays. Returns the evaluations spent; the verdicts go into `codes`.
    """
    low, high = (slope[doubtful] for slope in first.slopes())
    doubt = first.uncertainty[doubtful]
    jumps = (codes[doubtful] == DISAGREE) & (high - low > 4 * doubt)  # each side is twice as noisy
    entries, low, high, doubt = doubtful[jumps], low[jumps], high[jumps], doubt[jumps]
    if entries.size == 0:
        return 0
    longer = look(entries, epsilon * SHORTER)
    far_low, far_high = longer.slopes()
    stays = far_high - far_low < 0.5 * SHORTER * (high - low)
    tensors, g = layout.tensor_of(entries), claim.grad[entries]
    scale = entry_scale(g, 0.5 * (low + high), means[tensors])
    inside = _within(low, g, high, claim.tolerances[tensors] * scale + 2 * doubt)
    codes[entries[stays]] = UNRESOLVED
    codes[entries[stays & inside]] = KINK
    return longer.evaluations


def _reconsider(
    problem: Problem,
    claim: Claim,
    codes: NDArray[np.uint8],
    entries: Entries,
    interval: Interval,
    means: FloatArray,
) -> None:
    """The verdicts on entries at corners, from what slopes they may have; into `codes`."""
    tensors = problem.layout.tensor_of(entries)
    g, (low, high) = claim.grad[entries], interval[:2]
    with np.errstate(invalid="ignore", over="ignore"):
        scale = entry_scale(g, 0.5 * (low + high), means[tensors])
        slack = claim.tolerances[tensors] * scale + 2 * interval.uncertainty
        accepted = (low < high) & _within(low, g, high, slack)
        # some points do not show all the slopes of a cost that cannot be seen into
        spread = high - low > 3e-5 * scale + 4 * interval.uncertainty
    if problem.inside is None:
        codes[entries[spread & (codes[entries] == DISAGREE)]] = UNRESOLVED
        accepted &= spread
    codes[entries[accepted]] = KINK


def _within(
    low: FloatArray, g: FloatArray, high: FloatArray, slack: FloatArray
) -> NDArray[np.bool_]:
    """Whether g lies between low and high, widened by `slack`."""
    return (low - slack <= g) & (g <= high + slack)
