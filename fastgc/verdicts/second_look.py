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
from fastgc.verdicts.kinks import adds_up, around_entries, bent, has_kink, sums_up
from fastgc.verdicts.kinks_together import accept_a_limit, kinks_together
from fastgc.verdicts.record import Check, Findings, Record, far_outside, within
from fastgc.verdicts.refinement import (
    PLAIN_STEP,
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


def second_look(check: Check, first: Approximation) -> Findings:
    """The verdict on every entry of a check, after other looks at those that are left open.

    Args:
        check: what is checked; the evaluations go into its count.
        first: the approximation of every entry by its method; it stays as it is.
    """
    layout, analytic, uncertainty = check.subset.layout, check.analytic, first.uncertainty
    check.evaluations += first.evaluations
    if not analytic.in_float64:
        tensors = np.repeat(np.arange(len(layout.names)), layout.lengths)
        uncertainty = analytic.uncertainty(uncertainty, tensors, exact=check.exact)
    means, codes = tensor_means(layout, first.gradapprox), np.zeros(layout.size, dtype=np.uint8)
    summary = summarise(
        layout, analytic, first.gradapprox, uncertainty, means, codes,
        Zeros(reach=np.inf if check.exact else 0.0, exact=not check.base.coarse),
    )  # fmt: skip
    kinked = bent(check, first, means)
    added = adds_up(check, first, codes)
    if kinked.size and not has_kink(check, check.steps_of_all, TRIES):
        kinked = kinked[:0]
    steps = check.subset.of(check.steps_of_all)
    small = check.opaque and tiny(check.subset.of(check.cost.theta), steps).size > 0
    if added and not (codes.any() or kinked.size or small):
        none = np.empty(0, dtype=np.intp)
        return Findings(
            analytic.grad, first.gradapprox, uncertainty, codes, none, none,
            (analytic.grad[:0], analytic.grad[:0]), summary,
        )  # fmt: skip
    record = Record.of(check, first, uncertainty, codes)
    _open_again(record, added=added)
    at_rounding = _look_until_settled(record, kinked, added=added)
    check.evaluations = record.evaluations
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
        record.rejudge(record.with_code(UNRESOLVED))
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
        longer if longer.any() else None,
        np.flatnonzero(record.restless & (codes == UNRESOLVED)),
    )  # fmt: skip


def _look_until_settled(record: Record, bent: Entries, *, added: bool) -> Entries:
    """Looks again until nothing more can be told; the entries excused by rounding."""
    excused = _excuse(record)
    if record.opaque:
        by_scale(record)
    earlier = np.zeros(record.codes.size, dtype=np.bool_)  # entries of earlier rounds
    for number in range(ROUNDS + 1):
        missing = ~np.isfinite(record.gradapprox) & np.isfinite(record.analytic.grad) & ~earlier
        disputed = np.flatnonzero((record.codes == DISAGREE) & ~earlier)
        if not disputed.size and not missing.any():
            break
        if not earlier.any():
            record.evaluations += require_repeatable(record.cost, record.base.cost)
        earlier[disputed] = earlier[missing] = record.looked[disputed] = True
        if missing.any() and not record.exact:
            come_closer(record, np.flatnonzero(missing))
        _dispute(record, disputed)
        if number == ROUNDS or not record.rescale():
            break
        agreed = np.flatnonzero(
            (record.codes == AGREE) | ((record.codes == UNRESOLVED) & ~record.looked)
        )
        agreed = agreed[~np.isin(agreed, excused)]
        record.rejudge(agreed)
        # over the step that sufficed before
        earlier[agreed[record.codes[agreed] == DISAGREE]] = False
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
    """Shorter steps at entries that disagree, and the search for kinks among them."""
    shorten(record, disputed)
    if not record.exact:
        small_jumps(record, disputed)
    if record.exact or record.cost.samples is not None:
        _kinks_of_samples(record, disputed)
        return
    entries = disputed[record.codes[disputed] == DISAGREE]
    if entries.size and _is_kinked(record):
        doubtful = entries[_may_be_right(record, entries)]
        record.codes[doubtful] = UNRESOLVED
        record.at_kink[doubtful] = True


def _is_kinked(record: Record) -> bool:
    """Whether J has a kink at θ: one in some direction, or slopes that do not add up.

    A median of three has the same slope on both sides in every direction, but none that is the sum
    of those of its entries.
    """
    at_kink = has_kink(record, record.steps_now, record.tries)
    if at_kink or record.directions or record.tries == 0:
        return at_kink
    return not sums_up(record)


def _may_be_right(record: Record, entries: Entries) -> NDArray[np.bool_]:
    """Whether g may be what a right backward pass takes at kinks, as the slopes around θ have it.

    Beside a single kink these are two, and g lies between them. Where there are several, a right
    backward pass may take what no point shows, but nothing that lies far outside.
    """
    around, g = around_entries(record, entries), record.analytic.grad[entries]
    allowed = record.allowed(entries, record.gradapprox[entries])
    jumps = around.jumps > allowed
    if record.directions:
        return jumps & ~far_outside(around.low, g, around.high, allowed)
    low = record.low[entries] = np.fmin(around.low, record.low[entries])
    high = record.high[entries] = np.fmax(around.high, record.high[entries])
    allowance = allowed + record.uncertainty[entries]
    outside = far_outside(low, g, high, allowance)
    return jumps & ~(outside | (around.single & ~within(low, g, high, allowance)))


def _kinks_of_samples(record: Record, disputed: Entries) -> None:
    """Kinks in several samples of a Network at once, which the slopes of J alone do not show."""
    samples, codes = record.cost.samples, record.codes
    undecided = (codes[disputed] == DISAGREE) | (codes[disputed] == UNRESOLVED)
    entries = disputed[undecided]
    if entries.size == 0 or samples is None or not samples.near_kink():
        return
    whole = record.subset.whole(entries)
    steps = np.maximum(record.steps_of_all[whole], PLAIN_STEP if record.exact else 0.0)
    low, high, uncertainty, spent = samples.slopes(whole, steps, record.base, SHORTER)
    record.evaluations += spent
    allowance = record.allowed(entries, 0.5 * (low + high)) + 2 * uncertainty
    accepted = entries[within(low, record.analytic.grad[entries], high, allowance) & (low < high)]
    codes[accepted] = KINK
    record.at_kink[accepted] = True
    record.low[entries] = np.fmin(record.low[entries], low)
    record.high[entries] = np.fmax(record.high[entries], high)


def _try_other_steps(record: Record) -> None:
    """Entries that noise hides: are they unused, do longer steps tell, or is their slope zero?"""
    for look in (flat, unused, balance, widen_reach, extrapolate, widen_reach):
        opened = record.with_code(UNRESOLVED)
        opened = opened[~record.at_kink[opened] & np.isfinite(record.gradapprox[opened])]
        if opened.size == 0:
            return
        useless = record.balanced if look is balance else record.directions
        if useless:
            continue
        record.looked[opened] = True
        look(record, opened)
        if record.rescale():
            record.rejudge(opened[record.codes[opened] == UNRESOLVED])


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
    if has_kink(record, record.steps_of_all, record.tries):
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
    gap, before = again.gap, record.high[entries] - record.low[entries]
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
