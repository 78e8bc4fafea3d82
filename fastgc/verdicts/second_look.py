"""What becomes of the entries that the first look leaves open, until a verdict is reached.

An entry is called wrong only where shorter steps say so too, and open only where other steps, other
sides and other scales could not tell.
"""

import numpy as np
from numpy.typing import NDArray

from fastgc.core.gradients import AnalyticGradient, analytic_gradient
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Step
from fastgc.core.verdict import AGREE, DISAGREE, KINK, RESOLUTION, UNRESOLVED
from fastgc.costs.base import Problem, require_repeatable
from fastgc.costs.noise import Base, uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.network.state import rounding_of_gradients
from fastgc.verdicts.hidden import by_scale, flat, own_noise, tiny, unused
from fastgc.verdicts.kinks import (
    DIRECTIONS,
    adds_up,
    around_entries,
    bent,
    by_sample,
    has_kink,
    sums_up,
)
from fastgc.verdicts.kinks_together import accept_a_limit, kinks_together
from fastgc.verdicts.record import FAR, Findings, Look, Looked, Record, within
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
from fastgc.verdicts.summary import summarise, tensor_means

ROUNDS = 3  # of judging anew by settled sizes what had agreed by others
TRIES = 2  # directions in which a kink is looked for where nothing disagrees
LONGER = 1.01  # times the first step, from which on a step is called longer
STEP = 1e-7  # of plain differences, where a method's own step is too short for them


def second_look(
    problem: Problem,
    base: Base,
    look: Look,
    epsilon: Step,
    analytic: AnalyticGradient,
    first: Approximation,
    *,
    exact: bool,
    subset: Subset,
    directions: bool = False,
    tries: int = DIRECTIONS,
    balanced: bool = False,
) -> Findings:
    """The verdict on every entry of a part, after other looks at those that are left open.

    Args:
        problem, base, epsilon: as `first` was made with.
        look: the method that `first` is from; its entries are those of the part.
        analytic: the gradients that are checked.
        first: the approximation of every entry; it stays as it is.
        exact: whether the method's differences are free of cancellation.
        part: the entries that are checked; all others here are numbered among these.
        directions: whether the entries are steps along random directions, as `Record` has it.
        tries: how many directions are searched for a corner of a cost that is not seen into.
        balanced: whether `epsilon` balances truncation and noise already.
    """
    layout = subset.layout
    uncertainty = first.uncertainty
    if not analytic.in_float64:
        every = np.repeat(np.arange(len(layout.names)), layout.lengths)
        uncertainty = analytic.uncertainty(uncertainty, every, exact=exact)
    means, codes = tensor_means(layout, first.gradapprox), np.zeros(layout.size, dtype=np.uint8)
    counted = summarise(
        layout, analytic, first.gradapprox, uncertainty, means, codes,
        reach=np.inf if exact else 0.0, judge=True,
        exact_zeros=not base.coarse,
    )  # fmt: skip
    evaluations, at_rounding = first.evaluations, np.empty(0, dtype=np.intp)
    kinked = bent(problem, first, means, subset, skip=exact or directions)
    added, spent = adds_up(
        problem, base, first, codes, subset, epsilon, skip=exact or directions or tries == 0
    )
    evaluations += spent
    if kinked.size:
        at_kink, spent = has_kink(problem, base, _steps(problem, epsilon), TRIES)
        evaluations += spent
        kinked = kinked[:0] if not at_kink else kinked
    steps = _steps(problem, epsilon)
    own = subset.of(steps)
    seen_through = exact or directions or problem.state is not None
    small = not seen_through and tiny(subset.of(problem.theta), own).size > 0
    if added and not (codes.any() or kinked.size or small):
        none = analytic.grad[:0]
        return Findings(
            analytic.grad, first.gradapprox, uncertainty, codes, at_rounding, at_rounding,
            (none, none), counted, evaluations,
        )  # fmt: skip
    low, high = first.slopes()
    record = Record(
        problem, base, look, epsilon, subset, analytic, exact, directions, first.gradapprox.copy(),
        uncertainty.copy(), np.empty(layout.size),
        own.copy(), codes, low.copy(), high.copy(), means, evaluations,
    )  # fmt: skip
    _reach(record)
    if not added:  # those that agree as zero are looked at by themselves
        zeros = np.abs(record.gradapprox) <= record.uncertainty
        codes[zeros & (np.abs(analytic.grad) <= record.uncertainty) & (codes == AGREE)] = DISAGREE
    at_rounding = _second_look(record, kinked, tries, balanced=balanced, added=added)
    counted = summarise(
        layout, analytic, record.gradapprox, record.uncertainty, record.means, codes
    )
    disputed = np.flatnonzero(record.looked)
    longer = np.where(record.steps > LONGER * own, record.steps, 0.0)
    restless = np.flatnonzero(record.restless & (codes == UNRESOLVED))
    return Findings(
        analytic.grad, record.gradapprox, record.uncertainty, codes, at_rounding, disputed,
        (record.low[disputed], record.high[disputed]), counted, record.evaluations,
        longer if longer.any() else None, restless,
    )  # fmt: skip


def completed(
    problem: Problem, base: Base, look: Look, epsilon: Step, first: Approximation
) -> FloatArray:
    """gradapprox of a first look at all entries, with those that cannot be had a step away, (P,).

    Takes what `second_look` takes.
    """
    n = problem.layout.size
    low, high = first.slopes()
    analytic = analytic_gradient(
        problem.layout, problem.layout.build(problem.layout.views(np.zeros(n))), 0.0
    )
    record = Record(
        problem, base, look, epsilon, Subset(problem.layout), analytic, False, False,
        first.gradapprox.copy(), first.uncertainty.copy(), np.zeros(n),
        _steps(problem, epsilon).copy(), np.zeros(n, dtype=np.uint8), low.copy(), high.copy(),
        tensor_means(problem.layout, first.gradapprox), first.evaluations,
    )  # fmt: skip
    come_closer(record, np.flatnonzero(~np.isfinite(record.gradapprox)))
    return record.gradapprox


def _steps(problem: Problem, epsilon: Step) -> FloatArray:
    return np.broadcast_to(epsilon, problem.layout.size)


def _reach(record: Record) -> None:
    if record.exact:
        record.reach[:] = np.inf
        return
    first = Looked(record.gradapprox, record.uncertainty, record.low, record.high)
    record.reach[:] = first.reach
    opened = record.with_code(UNRESOLVED)
    record.codes[opened] = record.judge(opened)


def _second_look(
    record: Record, bent: Entries, tries: int, *, balanced: bool, added: bool
) -> Entries:
    """Looks again until nothing more can be told; the entries excused by rounding."""
    excused = _excuse(record)
    if not (record.exact or record.directions or record.problem.state is not None):
        by_scale(record)
    seen = np.zeros(record.codes.size, dtype=np.bool_)
    for number in range(ROUNDS + 1):
        missing = ~np.isfinite(record.gradapprox) & np.isfinite(record.analytic.grad) & ~seen
        disputed = np.flatnonzero((record.codes == DISAGREE) & ~seen)
        if not disputed.size and not missing.any():
            break
        if not seen.any():
            record.evaluations += require_repeatable(record.problem, record.base.cost)
        seen[disputed] = seen[missing] = record.looked[disputed] = True
        if missing.any() and not record.exact:
            come_closer(record, np.flatnonzero(missing))
        _dispute(record, disputed, tries)
        if number == ROUNDS or not record.rescale():
            break
        agreed = np.flatnonzero(
            (record.codes == AGREE) | ((record.codes == UNRESOLVED) & ~record.looked)
        )
        agreed = agreed[~np.isin(agreed, excused)]
        record.codes[agreed] = record.judge(agreed)
    if not record.exact:
        _try_other_steps(record, balanced=balanced)
        _small_kinks(record, tries)
        if record.problem.state is None and not record.directions and tries:
            own_noise(record, record.with_code(DISAGREE))
        _kinks_that_agree(record, bent)
        excused = np.union1d(excused, _excuse(record))  # of what other steps accuse
    if record.directions or not accept_a_limit(record):
        if not record.exact and record.problem.state is None:
            _beyond_kinks(record)
        kinks_together(record, also_agreed=not added)
    if record.directions:
        _wide_kinks(record)
    return excused


def _excuse(record: Record) -> Entries:
    """The entries that a right backward pass could not have got closer; they agree."""
    state = record.problem.state
    disputed = record.with_code(DISAGREE)
    if disputed.size == 0 or state is None:
        return disputed[:0]
    units = record.analytic.units[record.layout.tensor_of(disputed)]
    rounding = rounding_of_gradients(state)[record.subset.whole(disputed)] * units
    excused = disputed[record.judge(disputed, rounding) < DISAGREE]
    record.codes[excused] = AGREE
    return excused


def _dispute(record: Record, disputed: Entries, tries: int) -> None:
    """Shorter steps at entries that disagree, and the search for corners among them."""
    shorten(record, disputed)
    if record.exact or record.problem.state is not None:
        if not record.exact:
            small_jumps(record, disputed)
        _kinks_of_samples(record, disputed)
        return
    small_jumps(record, disputed)
    entries = disputed[record.codes[disputed] == DISAGREE]
    if entries.size == 0:
        return
    if _is_kinked(record, tries):
        doubtful = entries[_may_be_right(record, entries)]
        record.codes[doubtful] = UNRESOLVED
        record.at_kink[doubtful] = True


def _is_kinked(record: Record, tries: int) -> bool:
    """Whether J has a kink at θ: a corner in some direction, or slopes that do not add up.

    A median of three has the same slope on both sides in every direction, but none that is the sum
    of those of its entries.
    """
    steps = _steps_now(record)
    at_kink, spent = has_kink(record.problem, record.base, steps, tries)
    record.evaluations += spent
    if at_kink or record.directions or tries == 0:
        return at_kink
    gradapprox = np.where(np.isfinite(record.gradapprox), record.gradapprox, 0.0)
    apart = np.nan_to_num(0.5 * (record.high - record.low), nan=0.0)  # where J bends
    added, spent = sums_up(
        record.problem, record.base, record.subset.whole(np.arange(record.layout.size)),
        record.steps, gradapprox, record.uncertainty + apart,
    )  # fmt: skip
    record.evaluations += spent
    return not added


def _steps_now(record: Record) -> FloatArray:
    """The step of each parameter (P,) that what is known of it is from."""
    steps = np.array(_steps(record.problem, record.epsilon))
    steps[record.subset.whole(np.arange(record.layout.size))] = record.steps
    return steps


def _may_be_right(record: Record, entries: Entries) -> NDArray[np.bool_]:
    """Whether g may be what a right backward pass takes at kinks, as the slopes around θ have it.

    Beside a single kink these are two, and g lies between them. Where there are several, a right
    backward pass may take what no point shows, but nothing that lies far outside.
    """
    around = around_entries(
        record.problem, record.subset.whole(entries), record.base, _steps_now(record),
        record.layout.size,
    )  # fmt: skip
    record.evaluations += around.evaluations
    allowed = record.allowed(entries, record.gradapprox[entries])
    if record.directions:
        low, high = around.low, around.high
        return (around.jumps > allowed) & ~record.far_outside(entries, low, high, allowed)
    low = np.fmin(around.low, record.low[entries])
    high = np.fmax(around.high, record.high[entries])
    g, allowance = record.analytic.grad[entries], allowed + record.uncertainty[entries]
    far = np.maximum(low - g, g - high) > FAR * (high - low) + allowance
    outside = far | (around.single & ~within(low, g, high, allowance))
    record.low[entries], record.high[entries] = low, high
    return (around.jumps > allowed) & ~outside


def _kinks_of_samples(record: Record, disputed: Entries) -> None:
    """Corners in several samples of a Network at once, which the slopes of J alone do not show."""
    state, codes = record.problem.state, record.codes
    undecided = (codes[disputed] == DISAGREE) | (codes[disputed] == UNRESOLVED)
    entries = disputed[undecided]
    if entries.size == 0 or state is None or not state.near_kink():
        return
    steps = np.maximum(_steps(record.problem, record.epsilon), STEP if record.exact else 0.0)
    found = by_sample(state, record.subset.whole(entries), record.base, steps, SHORTER)
    record.evaluations += found.evaluations
    allowance = record.allowed(entries, 0.5 * (found.low + found.high)) + 2 * found.uncertainty
    accepted = within(found.low, record.analytic.grad[entries], found.high, allowance)
    accepted &= found.low < found.high
    codes[entries[accepted]] = KINK
    record.at_kink[entries[accepted]] = True
    record.low[entries] = np.fmin(record.low[entries], found.low)
    record.high[entries] = np.fmax(record.high[entries], found.high)


def _try_other_steps(record: Record, *, balanced: bool) -> None:
    """Entries that noise hides: are they unused, do longer steps tell, or is their slope zero?"""

    def left() -> Entries:
        opened = record.with_code(UNRESOLVED)
        return opened[~record.at_kink[opened] & np.isfinite(record.gradapprox[opened])]

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
        if look is not None and not (record.directions and look is not balance):
            record.looked[opened] = True
            look(record, opened)
            if record.rescale():
                opened = opened[record.codes[opened] == UNRESOLVED]
                record.codes[opened] = record.judge(opened)


def _small_kinks(record: Record, tries: int) -> None:
    """Leaves open what longer steps accuse of so little that a kink at θ might be as small.

    Over a longer step the slopes bend by more than such a kink; over a short one noise hides it.
    """
    nominal = _steps(record.problem, record.epsilon)
    own = record.subset.of(nominal)
    accused = np.flatnonzero((record.codes == DISAGREE) & (record.steps > LONGER * own))
    if accused.size == 0 or record.directions:
        return
    if record.problem.state is not None:
        _kinks_of_samples(record, accused)
        return
    at_kink, spent = has_kink(record.problem, record.base, nominal, tries)
    record.evaluations += spent
    if at_kink:
        uncertainty = uncertainty_of_differences(
            record.base.cost, record.base.noise, 2.0 * own[accused]
        )
        error = np.abs(record.analytic.grad[accused] - record.gradapprox[accused])
        # what the noise of a step an eighth as long has hidden, with some to spare
        record.codes[accused[error <= 1.5 * SHORTER * uncertainty]] = UNRESOLVED


def _kinks_that_agree(record: Record, bent: Entries) -> None:
    """Entries that agree with the mean of two slopes, which a gradient at a kink may happen to."""
    entries = bent[record.codes[bent] == AGREE]
    if entries.size == 0:
        return
    steps = record.steps[entries] / SHORTER
    again = record.look(entries, steps)
    gap, before = again.high - again.low, record.high[entries] - record.low[entries]
    # slopes that grow as the step shrinks are no two slopes of a kink
    kink = (gap > 4 * again.uncertainty) & (gap > before / 4) & (gap < 1.5 * before)
    kink &= stays_apart(record, entries, again, steps, kink)
    record.codes[entries[kink]] = KINK
    record.at_kink[entries[kink]] = record.looked[entries[kink]] = True


def _beyond_kinks(record: Record) -> None:
    """Entries at kinks whose gradient lies beyond the slopes on both sides: open, or wrong."""
    opened = record.with_code(UNRESOLVED)
    entries = opened[record.at_kink[opened]]
    if entries.size and not record.directions:
        record.codes[entries[~_may_be_right(record, entries)]] = DISAGREE


def _wide_kinks(record: Record) -> None:
    """Nothing is proven by a gradient that lies between slopes so far apart."""
    entries = record.with_code(KINK)
    scale = record.size(entries, record.gradapprox[entries])
    wide = record.high[entries] - record.low[entries] > RESOLUTION * scale
    record.codes[entries[wide]] = UNRESOLVED
