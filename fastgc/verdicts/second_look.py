"""What becomes of the entries that the first look leaves open, until a verdict is reached.

An entry is called wrong only where shorter steps say so too, and open only where other steps, other
sides and other scales could not tell.
"""

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import AGREE, DISAGREE, KINK, THRESHOLDS, UNRESOLVED, Zeros
from fastgc.costs.base import require_repeatable
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.verdicts.hidden import by_scale, flat, own_noise, tiny, unused
from fastgc.verdicts.kinks import (
    adds_up,
    around_entries,
    bent,
    has_kink,
    sums_up,
)
from fastgc.verdicts.kinks_together import accept_a_limit, kinks_together
from fastgc.verdicts.record import Check, Findings, Record, within
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


def second_look(check: Check, first: Approximation) -> Findings:
    """The verdict on every entry of a check, after other looks at those that are left open.

    Args:
        check: what is checked.
        first: the approximation of every entry by its method; it stays as it is.
    """
    layout, analytic = check.subset.layout, check.analytic
    uncertainty = first.uncertainty
    if not analytic.in_float64:
        tensors = np.repeat(np.arange(len(layout.names)), layout.lengths)
        uncertainty = analytic.uncertainty(uncertainty, tensors, exact=check.exact)
    means, codes = tensor_means(layout, first.gradapprox), np.zeros(layout.size, dtype=np.uint8)
    summary = summarise(
        layout, analytic, first.gradapprox, uncertainty, means, codes,
        Zeros(reach=np.inf if check.exact else 0.0, exact=not check.base.coarse),
    )  # fmt: skip
    kinked = bent(check, first, means)
    added, evaluations = adds_up(check, first, codes)
    if kinked.size:
        has, spent = has_kink(check.cost, check.base, check.steps_of_all, TRIES)
        evaluations += spent
        kinked = kinked if has else kinked[:0]
    steps = check.subset.of(check.steps_of_all)
    small = check.opaque and tiny(check.subset.of(check.cost.theta), steps).size > 0
    if added and not (codes.any() or kinked.size or small):
        none = np.empty(0, dtype=np.intp)
        return Findings(
            analytic.grad, first.gradapprox, uncertainty, codes, none, none,
            (analytic.grad[:0], analytic.grad[:0]), summary, first.evaluations + evaluations,
        )  # fmt: skip
    record = Record.of(check, first, uncertainty, codes)
    record.evaluations += evaluations
    _open_again(record, added=added)
    at_rounding = _look_until_settled(record, kinked, added=added)
    return _findings(record, steps, at_rounding)


def completed(check: Check, first: Approximation) -> FloatArray:
    """gradapprox of a first look at all, with those that cannot be had a step away, (P,)."""
    n = check.subset.layout.size
    record = Record.of(check, first, first.uncertainty, np.zeros(n, dtype=np.uint8))
    come_closer(record, np.flatnonzero(~np.isfinite(record.gradapprox)))
    return record.gradapprox


def _open_again(record: Record, *, added: bool) -> None:
    """Judges by the slopes around what the first look left open, and what does not add up."""
    if not record.exact:
        opened = record.with_code(UNRESOLVED)
        record.codes[opened] = record.judge(opened)
    if not added:  # those that agree as zero are looked at by themselves
        zeros = np.abs(record.gradapprox) <= record.uncertainty
        zeros &= np.abs(record.analytic.grad) <= record.uncertainty
        record.codes[zeros & (record.codes == AGREE)] = DISAGREE


def _findings(record: Record, steps: FloatArray, at_rounding: Entries) -> Findings:
    """What the record says in the end; `steps` were those of the first look, (n,)."""
    codes = record.codes
    disputed = np.flatnonzero(record.looked)
    longer = np.where(record.steps > LONGER * steps, record.steps, 0.0)
    return Findings(
        record.analytic.grad, record.gradapprox, record.uncertainty, codes, at_rounding, disputed,
        (record.low[disputed], record.high[disputed]),
        summarise(
            record.layout, record.analytic, record.gradapprox, record.uncertainty, record.means,
            codes,
        ),
        record.evaluations, longer if longer.any() else None,
        np.flatnonzero(record.restless & (codes == UNRESOLVED)),
    )  # fmt: skip


def _look_until_settled(record: Record, bent: Entries, *, added: bool) -> Entries:
    """Looks again until nothing more can be told; the entries excused by rounding."""
    excused = _excuse(record)
    if record.opaque:
        by_scale(record)
    seen = np.zeros(record.codes.size, dtype=np.bool_)
    for number in range(ROUNDS + 1):
        missing = ~np.isfinite(record.gradapprox) & np.isfinite(record.analytic.grad) & ~seen
        disputed = np.flatnonzero((record.codes == DISAGREE) & ~seen)
        if not disputed.size and not missing.any():
            break
        if not seen.any():
            record.evaluations += require_repeatable(record.cost, record.base.cost)
        seen[disputed] = seen[missing] = record.looked[disputed] = True
        if missing.any() and not record.exact:
            come_closer(record, np.flatnonzero(missing))
        _dispute(record, disputed)
        if number == ROUNDS or not record.rescale():
            break
        agreed = np.flatnonzero(
            (record.codes == AGREE) | ((record.codes == UNRESOLVED) & ~record.looked)
        )
        agreed = agreed[~np.isin(agreed, excused)]
        record.codes[agreed] = record.judge(agreed)
        seen[agreed[record.codes[agreed] == DISAGREE]] = False  # over the step that sufficed before
    if not record.exact:
        _try_other_steps(record)
        _small_kinks(record)
        if record.opaque and record.tries:
            own_noise(record, record.with_code(DISAGREE))
        _kinks_that_agree(record, bent)
        excused = np.union1d(excused, _excuse(record))  # of what other steps accuse
    if record.directions or not accept_a_limit(record):
        if record.opaque:
            _beyond_kinks(record)
        kinks_together(record, also_agreed=not added)
    if record.directions:
        _wide_kinks(record)
    return excused


def _excuse(record: Record) -> Entries:
    """The entries that a right backward pass could not have got closer; they agree."""
    disputed = record.with_code(DISAGREE)
    lost = record.cost.rounding() if disputed.size else None
    if lost is None:
        return disputed[:0]
    units = record.analytic.units[record.layout.tensor_of(disputed)]
    rounding = lost[record.subset.whole(disputed)] * units
    excused = disputed[record.judge(disputed, rounding) < DISAGREE]
    record.codes[excused] = AGREE
    return excused


def _dispute(record: Record, disputed: Entries) -> None:
    """Shorter steps at entries that disagree, and the search for corners among them."""
    shorten(record, disputed)
    if record.exact or record.cost.samples is not None:
        if not record.exact:
            small_jumps(record, disputed)
        _kinks_of_samples(record, disputed)
        return
    small_jumps(record, disputed)
    entries = disputed[record.codes[disputed] == DISAGREE]
    if entries.size == 0:
        return
    if _is_kinked(record):
        doubtful = entries[_may_be_right(record, entries)]
        record.codes[doubtful] = UNRESOLVED
        record.at_kink[doubtful] = True


def _is_kinked(record: Record) -> bool:
    """Whether J has a kink at θ: a corner in some direction, or slopes that do not add up.

    A median of three has the same slope on both sides in every direction, but none that is the sum
    of those of its entries.
    """
    steps = _steps_now(record)
    at_kink, spent = has_kink(record.cost, record.base, steps, record.tries)
    record.evaluations += spent
    if at_kink or record.directions or record.tries == 0:
        return at_kink
    gradapprox = np.where(np.isfinite(record.gradapprox), record.gradapprox, 0.0)
    apart = np.nan_to_num(0.5 * (record.high - record.low), nan=0.0)  # where J bends
    added, spent = sums_up(
        record.cost, record.base, record.subset.whole(np.arange(record.layout.size)),
        record.steps, gradapprox, record.uncertainty + apart,
    )  # fmt: skip
    record.evaluations += spent
    return not added


def _steps_now(record: Record) -> FloatArray:
    """The step of each parameter (P,) that what is known of it is from."""
    steps = np.array(record.steps_of_all)
    steps[record.subset.whole(np.arange(record.layout.size))] = record.steps
    return steps


def _may_be_right(record: Record, entries: Entries) -> NDArray[np.bool_]:
    """Whether g may be what a right backward pass takes at kinks, as the slopes around θ have it.

    Beside a single kink these are two, and g lies between them. Where there are several, a right
    backward pass may take what no point shows, but nothing that lies far outside.
    """
    around = around_entries(
        record.cost, record.subset.whole(entries), record.base, _steps_now(record),
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
    far = np.maximum(low - g, g - high) > THRESHOLDS.far * (high - low) + allowance
    outside = far | (around.single & ~within(low, g, high, allowance))
    record.low[entries], record.high[entries] = low, high
    return (around.jumps > allowed) & ~outside


def _kinks_of_samples(record: Record, disputed: Entries) -> None:
    """Corners in several samples of a Network at once, which the slopes of J alone do not show."""
    samples, codes = record.cost.samples, record.codes
    undecided = (codes[disputed] == DISAGREE) | (codes[disputed] == UNRESOLVED)
    entries = disputed[undecided]
    if entries.size == 0 or samples is None or not samples.near_kink():
        return
    whole = record.subset.whole(entries)
    steps = np.maximum(record.steps_of_all[whole], STEP if record.exact else 0.0)
    found = samples.slopes(whole, steps, record.base, SHORTER)
    record.evaluations += found.evaluations
    allowance = record.allowed(entries, 0.5 * (found.low + found.high)) + 2 * found.uncertainty
    accepted = within(found.low, record.analytic.grad[entries], found.high, allowance)
    accepted &= found.low < found.high
    codes[entries[accepted]] = KINK
    record.at_kink[entries[accepted]] = True
    record.low[entries] = np.fmin(record.low[entries], found.low)
    record.high[entries] = np.fmax(record.high[entries], found.high)


def _try_other_steps(record: Record) -> None:
    """Entries that noise hides: are they unused, do longer steps tell, or is their slope zero?"""

    def left() -> Entries:
        opened = record.with_code(UNRESOLVED)
        return opened[~record.at_kink[opened] & np.isfinite(record.gradapprox[opened])]

    for look in (
        flat,
        unused,
        None if record.balanced else balance,
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


def _small_kinks(record: Record) -> None:
    """Leaves open what longer steps accuse of so little that a kink at θ might be as small.

    Over a longer step the slopes bend by more than such a kink; over a short one noise hides it.
    """
    first = record.subset.of(record.steps_of_all)
    accused = np.flatnonzero((record.codes == DISAGREE) & (record.steps > LONGER * first))
    if accused.size == 0 or record.directions:
        return
    if record.cost.samples is not None:
        _kinks_of_samples(record, accused)
        return
    at_kink, spent = has_kink(record.cost, record.base, record.steps_of_all, record.tries)
    record.evaluations += spent
    if at_kink:
        uncertainty = uncertainty_of_differences(
            record.base.cost, record.base.noise, 2.0 * first[accused]
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
    wide = record.high[entries] - record.low[entries] > THRESHOLDS.resolution * scale
    record.codes[entries[wide]] = UNRESOLVED
