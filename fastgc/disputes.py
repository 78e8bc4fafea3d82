"""What becomes of the entries that disagree: looks with other steps before they are called wrong.

A central difference may be off for reasons that are no mistake in the gradient: the cost bends
sharply (truncation), or the step crosses the corner of a ReLU (a kink). Both give themselves away
when the step is shortened: the one moves gradapprox, the other leaves two one-sided slopes apart.
An entry is called wrong only where shorter steps say so too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.claim import Claim
from fastgc.kinks import DIRECTIONS, at_corner, by_sample, jumps_close_by
from fastgc.layout import FloatArray, Layout
from fastgc.methods import Approximation, Base
from fastgc.methods.interface import Entries, Step
from fastgc.parts import Part
from fastgc.problem import Problem, require_same_cost
from fastgc.rounding import rounding_of_gradients
from fastgc.tally import Tally, tally, tensor_means
from fastgc.verdict import (
    AGREE,
    DISAGREE,
    KINK,
    NONFINITE,
    RESOLUTION,
    UNRESOLVED,
    entry_scale,
    entry_verdicts,
)

SHORTER = 8.0  # times, at each look; the rounding noise grows as much
LOOKS = 3
FAR = 8.0  # times as far as the slopes along a direction are apart

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


@dataclass(eq=False, repr=False)
class _Docket:
    """What is known so far: `Findings` in the making, and what judging takes."""

    part: Part
    claim: Claim
    means: FloatArray
    exact: bool
    directions: bool
    exact_zeros: bool
    gradapprox: FloatArray
    uncertainty: FloatArray
    codes: NDArray[np.uint8]
    evaluations: int

    @property
    def layout(self) -> Layout:
        """Of the entries that are checked."""
        return self.part.layout

    def judge(self, entries: Entries, extra: FloatArray | float = 0.0) -> NDArray[np.uint8]:
        """The verdicts on some entries, with some `extra` uncertainty."""
        tensors = self.layout.tensor_of(entries)
        return entry_verdicts(
            self.claim.grad[entries], self.gradapprox[entries], self.uncertainty[entries] + extra,
            self.means[tensors], self.claim.tolerances[tensors], exact_zeros=self.exact_zeros,
        )  # fmt: skip

    def allowed(self, entries: Entries, approx: FloatArray) -> FloatArray:
        """T of some entries, against these values of gradapprox."""
        tolerances = self.claim.tolerances[self.layout.tensor_of(entries)]
        return tolerances * self.scale(entries, approx)

    def scale(self, entries: Entries, approx: FloatArray) -> FloatArray:
        """What the errors of some entries are relative to."""
        means = self.means[self.layout.tensor_of(entries)]
        return entry_scale(self.claim.grad[entries], approx, means)

    def far_outside(
        self, entries: Entries, low: FloatArray, high: FloatArray, slack: FloatArray
    ) -> NDArray[np.bool_]:
        """Whether g lies so far outside these slopes that no choice at a corner explains it."""
        if not self.directions:
            return np.zeros(entries.size, dtype=np.bool_)
        g = self.claim.grad[entries]
        return np.maximum(low - g, g - high) > FAR * (high - low) + slack

    def doubt(self, entries: Entries, uncertainty: FloatArray) -> FloatArray:
        """The uncertainty of a method as one of the claim, which may be of narrow floats."""
        return self.claim.doubt(uncertainty, self.layout.tensor_of(entries), exact=self.exact)


def settle(
    problem: Problem,
    base: Base,
    look: Look,
    epsilon: Step,
    claim: Claim,
    first: Approximation,
    *,
    exact: bool,
    part: Part,
    directions: bool = False,
    tries: int = DIRECTIONS,
) -> Findings:
    """The verdict on every entry of a part, after other looks at those that disagree.

    Args:
        problem, base, epsilon: as `first` was made with.
        look: the method that `first` is from; its entries are those of the part.
        claim: the gradients that are checked.
        first: the approximation of every entry; it stays as it is.
        exact: whether the method's differences are free of cancellation.
        part: the entries that are checked; all others here are numbered among these.
        directions: whether the entries are steps along random directions. Where one of these
            crosses corners, a wrong gradient may lie between the slopes as well as a right one: it
            is accepted only where they are close together, and called wrong only where it lies far
            outside.
        tries: how many directions are searched for a corner of a cost that is not seen into.
    """
    layout, grad = part.layout, claim.grad
    uncertainty = first.uncertainty
    if not claim.in_double:
        every = np.repeat(np.arange(len(layout.names)), layout.lengths)
        uncertainty = claim.doubt(uncertainty, every, exact=exact)
    docket = _Docket(
        part, claim, tensor_means(layout, first.gradapprox), exact, directions, not base.coarse,
        first.gradapprox, uncertainty, np.zeros(layout.size, dtype=np.uint8), first.evaluations,
    )  # fmt: skip
    counted = tally(
        layout, claim, first.gradapprox, uncertainty, docket.means, docket.codes,
        judge=True, exact_zeros=docket.exact_zeros,
    )  # fmt: skip
    at_rounding = disputed = np.empty(0, dtype=np.intp)
    slopes = grad[:0], grad[:0]
    if docket.codes.any():
        docket.gradapprox, docket.uncertainty = first.gradapprox.copy(), uncertainty.copy()
        at_rounding = _excuse(problem, docket)
        # a shorter step may stay where the cost is finite
        doubtful = (docket.codes == DISAGREE) | ((docket.codes == NONFINITE) & np.isfinite(grad))
        disputed = np.flatnonzero(doubtful)
        if disputed.size:
            docket.evaluations += require_same_cost(problem, base.cost)
            low, high = first.slopes()
            slopes = low[disputed], high[disputed]
            _look_again(docket, look, epsilon, disputed, slopes)
            if not exact:
                _small_jumps(docket, look, epsilon, disputed, slopes, first.uncertainty[disputed])
                slopes = _corners(problem, base, docket, epsilon, disputed, slopes, tries)
            if directions:
                _wide_kinks(docket, disputed, slopes)
        counted = tally(
            layout, claim, docket.gradapprox, docket.uncertainty, docket.means, docket.codes
        )
    return Findings(
        grad, docket.gradapprox, docket.uncertainty, docket.codes, at_rounding, disputed, slopes,
        counted, docket.evaluations,
    )  # fmt: skip


def _excuse(problem: Problem, docket: _Docket) -> Entries:
    """The entries that a right backward pass could not have got closer; they agree."""
    codes = docket.codes
    # where differences are exact, only what a right backward pass cancels leaves doubts
    doubts = (codes == DISAGREE) | (codes == UNRESOLVED) if docket.exact else codes == DISAGREE
    disputed = np.flatnonzero(doubts)
    if disputed.size == 0 or problem.inside is None:
        return disputed[:0]
    units = docket.claim.units[docket.layout.tensor_of(disputed)]
    rounding = rounding_of_gradients(problem.inside)[docket.part.whole(disputed)] * units
    excused = disputed[docket.judge(disputed, rounding) < DISAGREE]
    codes[excused] = AGREE
    return excused


def _look_again(
    docket: _Docket,
    look: Look,
    epsilon: Step,
    disputed: Entries,
    slopes: tuple[FloatArray, FloatArray],
) -> None:
    """Shorter steps, until gradapprox moves no more; the verdicts go into the docket."""
    codes, (low, high) = docket.codes, slopes
    bracketed = np.ones(disputed.size, dtype=np.bool_)  # g, by the slopes of every look
    for number in range(1, LOOKS + 1):
        if disputed.size == 0:
            return
        every = disputed.size == docket.layout.size
        again = look(None if every else disputed, epsilon / SHORTER**number)
        docket.evaluations += again.evaluations
        g, old, new = docket.claim.grad[disputed], docket.gradapprox[disputed], again.gradapprox
        new_low, new_high = again.slopes()
        doubt = docket.doubt(disputed, again.uncertainty)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays as it was
            allowed = docket.allowed(disputed, new)
            noise = doubt + docket.uncertainty[disputed]
            moved = (np.abs(new - old) > noise) | ~np.isfinite(old) | ~np.isfinite(new)
            # a one-sided difference is twice as noisy as a central one; and at a corner the slopes
            # close in, where those of a smooth cost whose scale is shorter still spread
            gap, slack = new_high - new_low, allowed + 4 * doubt + (high - low) / 4
            corner = (gap > 4 * doubt) & (gap > (high - low) / 4)
            corner &= (new_low >= low - slack) & (new_high <= high + slack)
            corner &= ~docket.far_outside(disputed, new_low, new_high, allowed + 4 * doubt)
            kink = corner & _within(new_low, g, new_high, allowed + 2 * doubt)
            if docket.directions and number < LOOKS:
                # a shorter step along the same direction may stay on this side of the corner
                wide = corner & (gap > RESOLUTION * docket.scale(disputed, new))
                moved, kink, corner = moved | wide, kink & ~wide, corner & ~wide
            bracketed &= _within(new_low, g, new_high, allowed + doubt)
            # the noise of the shorter step hides whatever made the longer one disagree
            hidden = np.abs(g - new) <= allowed + doubt
            if docket.exact:  # only a slope that is no one-sided one, as a half at 0, goes beyond
                corner &= _within(new_low - gap, g, new_high + gap, allowed)
            unsettled = ~(
                np.abs(new - old) <= np.minimum(np.abs(g - new) / SHORTER, np.abs(new) / 4)
            )
        codes[disputed[kink]] = KINK
        codes[disputed[~kink & ~moved & (corner | hidden)]] = UNRESOLVED
        moved &= ~kink
        disputed, unsettled, bracketed = disputed[moved], unsettled[moved], bracketed[moved]
        low, high = new_low[moved], new_high[moved]
        docket.gradapprox[disputed] = new[moved]
        docket.uncertainty[disputed] = doubt[moved]
        codes[disputed] = docket.judge(disputed)
        still = (codes[disputed] == DISAGREE) | (codes[disputed] == NONFINITE)
        disputed, unsettled, bracketed = disputed[still], unsettled[still], bracketed[still]
        low, high = low[still], high[still]
    # gradapprox still moves by as much as it is off, and supports no verdict; unless, without
    # noise, the slopes on both sides have closed in on g, as where only the curvature jumps
    finite = np.isfinite(docket.gradapprox[disputed])
    codes[disputed[unsettled & finite]] = UNRESOLVED
    if docket.exact:
        codes[disputed[unsettled & finite & bracketed]] = KINK


def _small_jumps(
    docket: _Docket,
    look: Look,
    epsilon: Step,
    disputed: Entries,
    slopes: tuple[FloatArray, FloatArray],
    uncertainty: FloatArray,
) -> None:
    """Finds jumps of the slope at θ itself that the noise of shorter steps hides.

    The gap between the one-sided slopes grows with the step where J only bends; at a corner it
    stays.
    """
    codes = docket.codes
    low, high = slopes
    doubt = docket.doubt(disputed, uncertainty)
    jumps = (codes[disputed] == DISAGREE) & (high - low > 4 * doubt)  # each side is twice as noisy
    entries, low, high, doubt = disputed[jumps], low[jumps], high[jumps], doubt[jumps]
    if entries.size == 0:
        return
    longer = look(entries, epsilon * SHORTER)
    docket.evaluations += longer.evaluations
    far_low, far_high = longer.slopes()
    stays = far_high - far_low < 0.5 * SHORTER * (high - low)
    allowed = docket.allowed(entries, 0.5 * (low + high))
    stays &= ~docket.far_outside(entries, low, high, allowed + 4 * doubt)
    inside = _within(low, docket.claim.grad[entries], high, allowed + 2 * doubt)
    codes[entries[stays]] = UNRESOLVED
    codes[entries[stays & inside]] = KINK


def _corners(
    problem: Problem,
    base: Base,
    docket: _Docket,
    epsilon: Step,
    disputed: Entries,
    slopes: tuple[FloatArray, FloatArray],
    tries: int,
) -> tuple[FloatArray, FloatArray]:
    """Corners in several samples at once, which the slopes of J alone do not show.

    The verdicts go into the docket; returns the slopes of the disputed entries, with those found.
    """
    codes, (low, high) = docket.codes, slopes
    steps = np.broadcast_to(epsilon, problem.layout.size)
    if problem.inside is None:
        entries = disputed[codes[disputed] == DISAGREE]
        if entries.size:
            cornered, spent = at_corner(problem, base, steps, tries)
            docket.evaluations += spent
            if cornered:
                jumps, around, spent = jumps_close_by(
                    problem, docket.part.whole(entries), base, steps, docket.layout.size
                )
                docket.evaluations += spent
                allowed = docket.allowed(entries, docket.gradapprox[entries])
                doubtful = (jumps > allowed) & ~docket.far_outside(entries, *around, allowed)
                codes[entries[doubtful]] = UNRESOLVED
        return low, high
    undecided = (codes[disputed] == DISAGREE) | (codes[disputed] == UNRESOLVED)
    entries = disputed[undecided]
    if entries.size == 0 or not problem.inside.near_corner():
        return low, high
    found = by_sample(problem.inside, docket.part.whole(entries), base, steps, SHORTER)
    docket.evaluations += found.evaluations
    slack = docket.allowed(entries, 0.5 * (found.low + found.high)) + 2 * found.uncertainty
    accepted = _within(found.low, docket.claim.grad[entries], found.high, slack)
    codes[entries[accepted & (found.low < found.high)]] = KINK
    low, high = low.copy(), high.copy()
    low[undecided] = np.fmin(low[undecided], found.low)
    high[undecided] = np.fmax(high[undecided], found.high)
    return low, high


def _wide_kinks(docket: _Docket, disputed: Entries, slopes: tuple[FloatArray, FloatArray]) -> None:
    """Nothing is proven by a gradient that lies between slopes so far apart."""
    kinks = docket.codes[disputed] == KINK
    entries, low, high = disputed[kinks], slopes[0][kinks], slopes[1][kinks]
    scale = docket.scale(entries, docket.gradapprox[entries])
    docket.codes[entries[high - low > RESOLUTION * scale]] = UNRESOLVED


def _within(
    low: FloatArray, g: FloatArray, high: FloatArray, slack: FloatArray
) -> NDArray[np.bool_]:
    """Whether g lies between low and high, widened by `slack`."""
    return (low - slack <= g) & (g <= high + slack)
