"""What becomes of the entries that the first look leaves open, until a verdict is reached.

An entry is called wrong only where shorter steps say so too, and open only where other steps, other
sides and other scales could not tell.
"""

import numpy as np
from numpy.typing import NDArray

from fastgc.core.gradients import Claim, claim_of
from fastgc.core.subset import Part
from fastgc.core.tree import Entries, FloatArray, Step
from fastgc.core.verdict import AGREE, DISAGREE, KINK, RESOLUTION, UNRESOLVED
from fastgc.costs.base import Problem, require_same_cost
from fastgc.costs.noise import Base, uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.network.state import rounding_of_gradients
from fastgc.verdicts.hidden import by_scale, flat, own_noise, tiny, unused
from fastgc.verdicts.kinks import (
    DIRECTIONS,
    adds_up,
    around_entries,
    at_corner,
    bent,
    by_sample,
    sums_up,
)
from fastgc.verdicts.kinks_together import accept_a_limit, kinks_together
from fastgc.verdicts.record import FAR, Docket, Findings, Look, Looked, within
from fastgc.verdicts.refinement import (
    SHORTER,
    balance,
    come_closer,
    extrapolate,
    shorten,
    small_jumps,
    stays_apart,
    widen_reach,
)
from fastgc.verdicts.summary import tally, tensor_means

ROUNDS = 3  # of judging anew by settled sizes what had agreed by others
TRIES = 2  # directions in which a kink is looked for where nothing disagrees
LONGER = 1.01  # times the first step, from which on a step is called longer
STEP = 1e-7  # of plain differences, where a method's own step is too short for them

__all__ = ["Findings", "Look", "completed", "settle"]


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
    balanced: bool = False,
) -> Findings:
    """The verdict on every entry of a part, after other looks at those that are left open.

    Args:
        problem, base, epsilon: as `first` was made with.
        look: the method that `first` is from; its entries are those of the part.
        claim: the gradients that are checked.
        first: the approximation of every entry; it stays as it is.
        exact: whether the method's differences are free of cancellation.
        part: the entries that are checked; all others here are numbered among these.
        directions: whether the entries are steps along random directions, as `Docket` has it.
        tries: how many directions are searched for a corner of a cost that is not seen into.
        balanced: whether `epsilon` balances truncation and noise already.
    """
    layout = part.layout
    uncertainty = first.uncertainty
    if not claim.in_double:
        every = np.repeat(np.arange(len(layout.names)), layout.lengths)
        uncertainty = claim.doubt(uncertainty, every, exact=exact)
    means, codes = tensor_means(layout, first.gradapprox), np.zeros(layout.size, dtype=np.uint8)
    counted = tally(
        layout, claim, first.gradapprox, uncertainty, means, codes,
        reach=np.inf if exact else 0.0, judge=True,
        exact_zeros=not base.coarse,
    )  # fmt: skip
    evaluations, at_rounding = first.evaluations, np.empty(0, dtype=np.intp)
    kinked = bent(problem, first, means, part, skip=exact or directions)
    added, spent = adds_up(
        problem, base, first, codes, part, epsilon, skip=exact or directions or tries == 0
    )
    evaluations += spent
    if kinked.size:
        cornered, spent = at_corner(problem, base, _steps(problem, epsilon), TRIES)
        evaluations += spent
        kinked = kinked[:0] if not cornered else kinked
    steps = _steps(problem, epsilon)
    own = part.of(steps)
    seen_through = exact or directions or problem.inside is not None
    small = not seen_through and tiny(part.of(problem.theta), own).size > 0
    if added and not (codes.any() or kinked.size or small):
        none = claim.grad[:0]
        return Findings(
            claim.grad, first.gradapprox, uncertainty, codes, at_rounding, at_rounding,
            (none, none), counted, evaluations,
        )  # fmt: skip
    low, high = first.slopes()
    docket = Docket(
        problem, base, look, epsilon, part, claim, exact, directions, first.gradapprox.copy(),
        uncertainty.copy(), np.empty(layout.size),
        own.copy(), codes, low.copy(), high.copy(), means, evaluations,
    )  # fmt: skip
    _reach(docket)
    if not added:  # those that agree as zero are looked at by themselves
        zeros = np.abs(docket.gradapprox) <= docket.uncertainty
        codes[zeros & (np.abs(claim.grad) <= docket.uncertainty) & (codes == AGREE)] = DISAGREE
    at_rounding = _second_look(docket, kinked, tries, balanced=balanced, added=added)
    counted = tally(layout, claim, docket.gradapprox, docket.uncertainty, docket.means, codes)
    disputed = np.flatnonzero(docket.looked)
    longer = np.where(docket.steps > LONGER * own, docket.steps, 0.0)
    restless = np.flatnonzero(docket.restless & (codes == UNRESOLVED))
    return Findings(
        claim.grad, docket.gradapprox, docket.uncertainty, codes, at_rounding, disputed,
        (docket.low[disputed], docket.high[disputed]), counted, docket.evaluations,
        longer if longer.any() else None, restless,
    )  # fmt: skip


def completed(
    problem: Problem, base: Base, look: Look, epsilon: Step, first: Approximation
) -> FloatArray:
    """gradapprox of a first look at all entries, with those that cannot be had a step away, (P,).

    Takes what `settle` takes.
    """
    n = problem.layout.size
    low, high = first.slopes()
    claim = claim_of(problem.layout, problem.layout.build(problem.layout.views(np.zeros(n))), 0.0)
    docket = Docket(
        problem, base, look, epsilon, Part(problem.layout), claim, False, False,
        first.gradapprox.copy(), first.uncertainty.copy(), np.zeros(n),
        _steps(problem, epsilon).copy(), np.zeros(n, dtype=np.uint8), low.copy(), high.copy(),
        tensor_means(problem.layout, first.gradapprox), first.evaluations,
    )  # fmt: skip
    come_closer(docket, np.flatnonzero(~np.isfinite(docket.gradapprox)))
    return docket.gradapprox


def _steps(problem: Problem, epsilon: Step) -> FloatArray:
    return np.broadcast_to(epsilon, problem.layout.size)


def _reach(docket: Docket) -> None:
    if docket.exact:
        docket.reach[:] = np.inf
        return
    first = Looked(docket.gradapprox, docket.uncertainty, docket.low, docket.high)
    docket.reach[:] = first.reach
    opened = docket.with_code(UNRESOLVED)
    docket.codes[opened] = docket.judge(opened)


def _second_look(
    docket: Docket, bent: Entries, tries: int, *, balanced: bool, added: bool
) -> Entries:
    """Looks again until nothing more can be told; the entries excused by rounding."""
    excused = _excuse(docket)
    if not (docket.exact or docket.directions or docket.problem.inside is not None):
        by_scale(docket)
    seen = np.zeros(docket.codes.size, dtype=np.bool_)
    for number in range(ROUNDS + 1):
        missing = ~np.isfinite(docket.gradapprox) & np.isfinite(docket.claim.grad) & ~seen
        disputed = np.flatnonzero((docket.codes == DISAGREE) & ~seen)
        if not disputed.size and not missing.any():
            break
        if not seen.any():
            docket.evaluations += require_same_cost(docket.problem, docket.base.cost)
        seen[disputed] = seen[missing] = docket.looked[disputed] = True
        if missing.any() and not docket.exact:
            come_closer(docket, np.flatnonzero(missing))
        _dispute(docket, disputed, tries)
        if number == ROUNDS or not docket.rescale():
            break
        agreed = np.flatnonzero(
            (docket.codes == AGREE) | ((docket.codes == UNRESOLVED) & ~docket.looked)
        )
        agreed = agreed[~np.isin(agreed, excused)]
        docket.codes[agreed] = docket.judge(agreed)
    if not docket.exact:
        _try_other_steps(docket, balanced=balanced)
        _small_kinks(docket, tries)
        if docket.problem.inside is None and not docket.directions and tries:
            own_noise(docket, docket.with_code(DISAGREE))
        _kinks_that_agree(docket, bent)
        excused = np.union1d(excused, _excuse(docket))  # of what other steps accuse
    if docket.directions or not accept_a_limit(docket):
        if not docket.exact and docket.problem.inside is None:
            _beyond_kinks(docket)
        kinks_together(docket, also_agreed=not added)
    if docket.directions:
        _wide_kinks(docket)
    return excused


def _excuse(docket: Docket) -> Entries:
    """The entries that a right backward pass could not have got closer; they agree."""
    inside = docket.problem.inside
    disputed = docket.with_code(DISAGREE)
    if disputed.size == 0 or inside is None:
        return disputed[:0]
    units = docket.claim.units[docket.layout.tensor_of(disputed)]
    rounding = rounding_of_gradients(inside)[docket.part.whole(disputed)] * units
    excused = disputed[docket.judge(disputed, rounding) < DISAGREE]
    docket.codes[excused] = AGREE
    return excused


def _dispute(docket: Docket, disputed: Entries, tries: int) -> None:
    """Shorter steps at entries that disagree, and the search for corners among them."""
    shorten(docket, disputed)
    if docket.exact or docket.problem.inside is not None:
        if not docket.exact:
            small_jumps(docket, disputed)
        _corners_of_samples(docket, disputed)
        return
    small_jumps(docket, disputed)
    entries = disputed[docket.codes[disputed] == DISAGREE]
    if entries.size == 0:
        return
    if _is_kinked(docket, tries):
        doubtful = entries[_may_be_right(docket, entries)]
        docket.codes[doubtful] = UNRESOLVED
        docket.cornered[doubtful] = True


def _is_kinked(docket: Docket, tries: int) -> bool:
    """Whether J has a kink at θ: a corner in some direction, or slopes that do not add up.

    A median of three has the same slope on both sides in every direction, but none that is the sum
    of those of its entries.
    """
    steps = _steps_now(docket)
    cornered, spent = at_corner(docket.problem, docket.base, steps, tries)
    docket.evaluations += spent
    if cornered or docket.directions or tries == 0:
        return cornered
    gradapprox = np.where(np.isfinite(docket.gradapprox), docket.gradapprox, 0.0)
    apart = np.nan_to_num(0.5 * (docket.high - docket.low), nan=0.0)  # where J bends
    added, spent = sums_up(
        docket.problem, docket.base, docket.part.whole(np.arange(docket.layout.size)),
        docket.steps, gradapprox, docket.uncertainty + apart,
    )  # fmt: skip
    docket.evaluations += spent
    return not added


def _steps_now(docket: Docket) -> FloatArray:
    """The step of each parameter (P,) that what is known of it is from."""
    steps = np.array(_steps(docket.problem, docket.epsilon))
    steps[docket.part.whole(np.arange(docket.layout.size))] = docket.steps
    return steps


def _may_be_right(docket: Docket, entries: Entries) -> NDArray[np.bool_]:
    """Whether g may be what a right backward pass takes at kinks, as the slopes around θ have it.

    Beside a single kink these are two, and g lies between them. Where there are several, a right
    backward pass may take what no point shows, but nothing that lies far outside.
    """
    around = around_entries(
        docket.problem, docket.part.whole(entries), docket.base, _steps_now(docket),
        docket.layout.size,
    )  # fmt: skip
    docket.evaluations += around.evaluations
    allowed = docket.allowed(entries, docket.gradapprox[entries])
    if docket.directions:
        low, high = around.low, around.high
        return (around.jumps > allowed) & ~docket.far_outside(entries, low, high, allowed)
    low = np.fmin(around.low, docket.low[entries])
    high = np.fmax(around.high, docket.high[entries])
    g, slack = docket.claim.grad[entries], allowed + docket.uncertainty[entries]
    far = np.maximum(low - g, g - high) > FAR * (high - low) + slack
    outside = far | (around.single & ~within(low, g, high, slack))
    docket.low[entries], docket.high[entries] = low, high
    return (around.jumps > allowed) & ~outside


def _corners_of_samples(docket: Docket, disputed: Entries) -> None:
    """Corners in several samples of a Network at once, which the slopes of J alone do not show."""
    inside, codes = docket.problem.inside, docket.codes
    undecided = (codes[disputed] == DISAGREE) | (codes[disputed] == UNRESOLVED)
    entries = disputed[undecided]
    if entries.size == 0 or inside is None or not inside.near_corner():
        return
    steps = np.maximum(_steps(docket.problem, docket.epsilon), STEP if docket.exact else 0.0)
    found = by_sample(inside, docket.part.whole(entries), docket.base, steps, SHORTER)
    docket.evaluations += found.evaluations
    slack = docket.allowed(entries, 0.5 * (found.low + found.high)) + 2 * found.uncertainty
    accepted = within(found.low, docket.claim.grad[entries], found.high, slack)
    accepted &= found.low < found.high
    codes[entries[accepted]] = KINK
    docket.cornered[entries[accepted]] = True
    docket.low[entries] = np.fmin(docket.low[entries], found.low)
    docket.high[entries] = np.fmax(docket.high[entries], found.high)


def _try_other_steps(docket: Docket, *, balanced: bool) -> None:
    """Entries that noise hides: are they unused, do longer steps tell, or is their slope zero?"""

    def left() -> Entries:
        opened = docket.with_code(UNRESOLVED)
        return opened[~docket.cornered[opened] & np.isfinite(docket.gradapprox[opened])]

    for look in (
        flat,
        unused,
        None if balanced else balance,
        widen_reach,
        extrapolate,
        widen_reach,
    ):
        opened = left()
        if opened.size == 0:
            return
        if look is not None and not (docket.directions and look is not balance):
            docket.looked[opened] = True
            look(docket, opened)
            if docket.rescale():
                opened = opened[docket.codes[opened] == UNRESOLVED]
                docket.codes[opened] = docket.judge(opened)


def _small_kinks(docket: Docket, tries: int) -> None:
    """Leaves open what longer steps accuse of so little that a kink at θ might be as small.

    Over a longer step the slopes bend by more than such a kink; over a short one noise hides it.
    """
    nominal = _steps(docket.problem, docket.epsilon)
    own = docket.part.of(nominal)
    accused = np.flatnonzero((docket.codes == DISAGREE) & (docket.steps > LONGER * own))
    if accused.size == 0 or docket.directions:
        return
    if docket.problem.inside is not None:
        _corners_of_samples(docket, accused)
        return
    cornered, spent = at_corner(docket.problem, docket.base, nominal, tries)
    docket.evaluations += spent
    if cornered:
        doubt = uncertainty_of_differences(docket.base.cost, docket.base.noise, 2.0 * own[accused])
        error = np.abs(docket.claim.grad[accused] - docket.gradapprox[accused])
        # what the noise of a step an eighth as long has hidden, with some to spare
        docket.codes[accused[error <= 1.5 * SHORTER * doubt]] = UNRESOLVED


def _kinks_that_agree(docket: Docket, bent: Entries) -> None:
    """Entries that agree with the mean of two slopes, which a gradient at a kink may happen to."""
    entries = bent[docket.codes[bent] == AGREE]
    if entries.size == 0:
        return
    steps = docket.steps[entries] / SHORTER
    again = docket.look(entries, steps)
    gap, before = again.high - again.low, docket.high[entries] - docket.low[entries]
    # slopes that grow as the step shrinks are no two slopes of a kink
    kink = (gap > 4 * again.uncertainty) & (gap > before / 4) & (gap < 1.5 * before)
    kink &= stays_apart(docket, entries, again, steps, kink)
    docket.codes[entries[kink]] = KINK
    docket.cornered[entries[kink]] = docket.looked[entries[kink]] = True


def _beyond_kinks(docket: Docket) -> None:
    """Entries at kinks whose gradient lies beyond the slopes on both sides: open, or wrong."""
    opened = docket.with_code(UNRESOLVED)
    entries = opened[docket.cornered[opened]]
    if entries.size and not docket.directions:
        docket.codes[entries[~_may_be_right(docket, entries)]] = DISAGREE


def _wide_kinks(docket: Docket) -> None:
    """Nothing is proven by a gradient that lies between slopes so far apart."""
    entries = docket.with_code(KINK)
    scale = docket.size(entries, docket.gradapprox[entries])
    wide = docket.high[entries] - docket.low[entries] > RESOLUTION * scale
    docket.codes[entries[wide]] = UNRESOLVED
