"""Looks with other steps at entries that the first look leaves open.

A central difference may be off for reasons that are no mistake in the gradient: the cost bends
sharply (truncation), the step crosses the kink of a ReLU, the cost ends close by, or its
rounding noise hides all. Each gives itself away when the step is changed.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import AGREE, DISAGREE, KINK, THRESHOLDS, UNRESOLVED
from fastgc.costs.noise import balanced_steps, uncertainty_of_differences
from fastgc.verdicts.record import Looked, Record, far_outside, within

SHORTER = 8.0  # times, at each look; the rounding noise grows as much
CLOSER = 64.0  # times as short a step, at each look for a kink that lies close by and not at θ
LOOKS = 3
MOST_LOOKS = 6  # where gradapprox still moves

PLAIN_STEP = 1e-7  # of differences of a Network, where a method's own step is too short for them

NEAR = 2.0**-9  # of |θ_k|, the first step where the cost ends close by, its square the second, …
NEARER = 5  # of such steps
SIDES = 3  # looks at the side that exists

LONGEST = 0.125  # of the scale of an entry, where steps are tried down from
LEVELS = range(8, 17)  # of steps, as many as lead down to
LEAST = 64.0  # times the first step
SHRINK = 4.0  # times, from one to the next
SURE = 4.0  # times the change by the last extrapolation
PROOF = 8.0  # times as far off as it is uncertain, before an entry is called wrong by it


def shorten(record: Record, disputed: Entries) -> None:
    """Shorter steps, until gradapprox moves no more; the verdicts go into the record."""
    codes, bracketed = record.codes, np.ones(record.codes.size, dtype=np.bool_)
    least, most = record.low.copy(), record.high.copy()  # slopes of all looks, and g among them
    for number in range(1, MOST_LOOKS + 1):
        if disputed.size == 0:
            return
        steps = record.steps[disputed] / SHORTER
        low, high, old = (v[disputed] for v in (record.low, record.high, record.gradapprox))
        again = record.look(disputed, steps)
        g, new, uncertainty = record.analytic.grad[disputed], again.gradapprox, again.uncertainty
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays as it was
            allowed = record.allowed(disputed, new)
            noise = uncertainty + record.uncertainty[disputed]
            moved = (np.abs(new - old) > noise) | ~np.isfinite(old) | ~np.isfinite(new)
            kink, at_kink = _find_kinks(record, disputed, again, allowed)
            passing = np.zeros(disputed.size, dtype=np.bool_)
            if record.directions and number < LOOKS:
                # a shorter step along the same direction may stay on this side of the kink
                passing = again.gap > THRESHOLDS.resolution * record.size(disputed, new)
                passing &= at_kink
            elif not (record.exact or record.directions):
                passing = ~stays_apart(record, disputed, again, steps, kink)
            kink, at_kink, moved = kink & ~passing, at_kink & ~passing, moved | passing
            bracketed[disputed] &= within(again.low, g, again.high, allowed + uncertainty)
            # the noise of the shorter step hides whatever made the longer one disagree; so does a
            # step within which J, of few digits in this entry, stays as it is
            stairs = (again.low == 0) & (again.high == 0) & (low != 0) & (high != 0)
            hidden, moved = (np.abs(g - new) <= allowed + uncertainty) | stairs, moved & ~stairs
            if record.exact:  # only a slope that is no one-sided one, as a half at 0, goes beyond
                at_kink &= within(again.low - again.gap, g, again.high + again.gap, allowed)
            unsettled = ~(
                np.abs(new - old) <= np.minimum(np.abs(g - new) / SHORTER, np.abs(new) / 4)
            )
        codes[disputed[kink]] = KINK
        hidden &= ~kink & ~moved
        codes[disputed[hidden | (at_kink & ~kink & ~moved)]] = UNRESOLVED
        record.needed[disputed[hidden]] = 0.5 * np.abs(g - old)[hidden]
        record.take(disputed, again, steps, hidden & ~stairs)
        record.at_kink[disputed[at_kink | kink]] = True
        moved &= ~kink
        record.rejudge(record.take(disputed, again, steps, moved))
        still = moved & (codes[disputed] == DISAGREE)
        least[disputed] = np.fmin(least[disputed], again.low)
        most[disputed] = np.fmax(most[disputed], again.high)
        if number >= LOOKS:
            still &= unsettled & (uncertainty < np.abs(g - new) / SHORTER) & (not record.exact)
            rest = moved & unsettled & (~still | (number == MOST_LOOKS))
            ends = least[disputed[rest]], most[disputed[rest]]
            moves = np.abs(new - old)[rest]
            _unsettled(record, disputed[rest], bracketed[disputed[rest]], ends, moves)
        disputed = disputed[still]


def stays_apart(
    record: Record, entries: Entries, looked: Looked, steps: FloatArray, kinks: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether the slopes on both sides of each kink are the same a shorter step away, (n,).

    A cost of a period near the step has slopes apart as well, but others over every step; beside a
    kink close by they meet once the step is shorter. True for what is no kink.
    """
    stay = np.ones(entries.size, dtype=np.bool_)
    at = np.flatnonzero(kinks)
    low, high, step = looked.low[at], looked.high[at], steps[at]
    while at.size:
        step = step / CLOSER
        again = record.look(entries[at], step)
        allowance = (high - low) / 4 + 4 * again.uncertainty
        same = (np.abs(again.low - low) <= allowance) & (np.abs(again.high - high) <= allowance)
        size = THRESHOLDS.resolution * record.size(entries[at], again.gradapprox)
        stay[at[~same & (again.uncertainty <= size)]] = False  # or nothing is gained by it
        clear = same & (CLOSER * again.uncertainty < (high - low) / 8)  # until noise hides them
        at, low, high, step = at[clear], low[clear], high[clear], step[clear]
    return stay


def _find_kinks(
    record: Record, disputed: Entries, again: Looked, allowed: FloatArray
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which entries lie at a kink between whose slopes g lies, and which at any kink."""
    low, high = record.low[disputed], record.high[disputed]
    gap, uncertainty, g = again.gap, again.uncertainty, record.analytic.grad[disputed]
    # a one-sided difference is twice as noisy as a central one; and at a kink the slopes
    # close in, where those of a smooth cost whose scale is shorter still spread
    allowance = allowed + 4 * uncertainty + (high - low) / 4
    at_kink = (gap > 4 * uncertainty) & (gap > (high - low) / 4)
    at_kink &= (again.low >= low - allowance) & (again.high <= high + allowance)
    if record.directions:
        at_kink &= ~far_outside(again.low, g, again.high, allowed + 4 * uncertainty)
    return at_kink & within(again.low, g, again.high, allowed + 2 * uncertainty), at_kink


def _unsettled(
    record: Record,
    entries: Entries,
    bracketed: NDArray[np.bool_],
    slopes: tuple[FloatArray, FloatArray],
    moves: FloatArray,
) -> None:
    """Entries whose gradapprox still moves by as much as it is off: it supports no verdict.

    Unless every slope met has the other sign than g; or, without noise, the slopes on both sides
    have closed in on g, as where only the curvature jumps.
    """
    judged = (record.codes[entries] == DISAGREE) & np.isfinite(record.gradapprox[entries])
    entries, bracketed, least, most, moves = (
        values[judged] for values in (entries, bracketed, *slopes, moves)
    )
    g, uncertainty = record.analytic.grad[entries], record.uncertainty[entries]
    allowance = record.allowed(entries, record.gradapprox[entries]) + uncertainty
    opposite = ((least > 2 * uncertainty) & (g < -allowance)) | (
        (most < -2 * uncertainty) & (g > allowance)
    )
    record.codes[entries[~opposite]] = UNRESOLVED
    record.restless[entries[~opposite]] = True
    record.uncertainty[entries] = np.fmax(uncertainty, moves)
    if record.exact:
        record.codes[entries[bracketed]] = KINK


def small_jumps(record: Record, disputed: Entries) -> None:
    """Finds jumps of the slope at θ itself that the noise of shorter steps hides.

    The gap between the one-sided slopes grows with the step where J only bends; at a kink it stays.
    """
    entries = disputed[record.codes[disputed] == DISAGREE]
    gap = record.high[entries] - record.low[entries]
    entries = entries[gap > 4 * record.uncertainty[entries]]  # twice as noisy
    if entries.size == 0:
        return
    low, high, uncertainty = record.low[entries], record.high[entries], record.uncertainty[entries]
    longer = record.look(entries, record.steps[entries] * SHORTER)
    stays = longer.gap < 0.5 * SHORTER * (high - low)
    g, allowed = record.analytic.grad[entries], record.allowed(entries, 0.5 * (low + high))
    if record.directions:
        stays &= ~far_outside(low, g, high, allowed + 4 * uncertainty)
    inside = within(low, g, high, allowed + 2 * uncertainty)
    record.codes[entries[stays]] = UNRESOLVED
    record.at_kink[entries[stays]] = True
    record.codes[entries[stays & inside]] = KINK


def come_closer(record: Record, missing: Entries) -> None:
    """Entries whose cost cannot be had a step away: shorter steps, then the side that exists.

    What a shorter step shows is judged; where none shows anything, the entry stays unresolved.
    """
    theta, first = np.abs(record.theta), record.steps.copy()
    steps, left = first.copy(), missing
    for number in range(1, NEARER + 1):
        if left.size == 0:
            break
        shorter = np.minimum(steps[left], NEAR**number * theta[left])
        steps[left] = np.where(theta[left] > 0, shorter, first[left] / SHORTER**number)
        had = _take_what_exists(record, left, steps[left])
        longer = had
        for _ in range(round(-math.log2(NEAR)) // 3):  # whose noise is less
            longer = _take_what_exists(record, longer, SHORTER * record.steps[longer])
        record.limits[had] = record.steps[had]
        left = np.setdiff1d(left, had)
    record.rejudge(missing)
    record.looked[missing] = True
    left = missing[record.codes[missing] == UNRESOLVED]
    one_sided = _one_sided(record, left, first[left])
    both = np.setdiff1d(missing, one_sided)
    shorten(record, both[record.codes[both] == DISAGREE])


def _take_what_exists(record: Record, entries: Entries, steps: FloatArray) -> Entries:
    """Looks at entries with these steps, (n,); those whose cost can be had, and takes it."""
    if entries.size == 0:
        return entries
    looked = record.look(entries, steps)
    return record.take(entries, looked, steps, np.isfinite(looked.gradapprox))


def _one_sided(record: Record, entries: Entries, steps: FloatArray) -> Entries:
    """The slope on the side that exists, extrapolated from shrinking steps; which have one.

    Its uncertainty is by how much it still moved, and twice the noise of a central difference.
    """
    if entries.size == 0:
        return entries
    base, scale = record.base, record.scale[entries]
    slopes = []
    for number in range(SIDES):
        looked = record.look(entries, steps / SHORTER**number)
        both = np.isfinite(looked.gradapprox)
        slopes.append(np.where(both, np.nan, looked.low))
    with np.errstate(invalid="ignore", over="ignore"):
        changes = [np.abs(after - before) for before, after in pairwise(slopes)]
        uncertainties = [
            change + 2 * uncertainty_of_differences(
                base.cost, base.noise, 2 * steps / SHORTER**number, (slope, slope), scale
            )
            for number, (change, slope) in enumerate(zip(changes, slopes[1:], strict=True), start=1)
        ]  # fmt: skip
        shorter = uncertainties[1] < uncertainties[0]
        last, before = np.where(shorter, slopes[2], slopes[1]), np.where(shorter, *slopes[1::-1])
        uncertainty = np.where(shorter, uncertainties[1], uncertainties[0])
        closes = changes[1] <= changes[0] / 2 + (uncertainties[1] - changes[1])  # but for noise
        limit = np.where(closes, last + (last - before) / (SHORTER - 1), np.nan)
        # what shorter steps on both sides have shown may be more certain
        certain = np.isfinite(record.gradapprox[entries])
        certain &= record.uncertainty[entries] <= uncertainty
    looked = Looked(limit, record.as_analytic(entries, uncertainty), last, last)
    at = steps / SHORTER ** np.where(shorter, 2, 1)
    had = record.take(entries, looked, at, np.isfinite(limit) & ~certain)
    record.rejudge(had)
    return had


def balance(record: Record, entries: Entries) -> None:
    """The step of ``epsilon="auto"`` for entries that noise hides, and shorter ones after it."""
    whole = record.subset.whole(entries)
    steps, spent = balanced_steps(record.cost, record.base, whole)
    record.evaluations += spent
    before = _known(record, entries)
    chosen = np.minimum(steps[whole], record.limits[entries])
    looked, shorter = record.look(entries, chosen), record.look(entries, chosen / SHORTER)
    with np.errstate(invalid="ignore"):  # a step that leads over all that the cost does
        same = np.abs(looked.gradapprox - shorter.gradapprox) <= (
            looked.uncertainty + shorter.uncertainty + np.abs(shorter.gradapprox) / 4
        )
        # and beside which the slopes on both sides do not close in
        same &= shorter.gap <= np.fmax(0.5 * looked.gap, 8 * shorter.uncertainty)
    taken = record.take(entries, looked, chosen, same)
    record.rejudge(taken)
    record.looked[taken] = True
    disputed = taken[record.codes[taken] == DISAGREE]
    shorten(record, disputed)
    small_jumps(record, disputed)
    _put_back(record, entries, before)


def extrapolate(record: Record, entries: Entries) -> None:
    """Central differences with steps from an eighth of the scale down, extrapolated to none.

    There are two tables, one for errors in even powers of the step, as where the cost is smooth,
    and one for all powers, as where its curvature jumps. The most certain value of both is taken.
    An entry stays as it was where the slopes on both sides do not close in as the step shrinks, as
    at a kink.

    Source: Ridders, *Accurate computation of F'(x) and F'(x) F''(x)*, Adv. Eng. Software 1982.
    """
    n = entries.size
    # an entry that happens to be small may bear as long steps as the others
    scale = np.fmax(record.scale[entries], min(1.0, float(np.median(record.cost.scale))))
    best = Looked(np.full(n, np.nan), np.full(n, np.inf), np.zeros(n), np.zeros(n))
    at = np.zeros(n)
    rows: list[list[FloatArray]] = [[], []]
    gap = np.full(n, np.nan)
    ratio = LONGEST * scale / (LEAST * record.steps_of_all[record.subset.whole(entries)])
    levels = math.ceil(math.log(max(float(ratio.max()), 1.0), SHRINK))
    for level in range(min(max(levels, LEVELS.start), LEVELS.stop - 1)):
        steps = np.minimum(LONGEST * scale, record.limits[entries]) / SHRINK**level
        looked = record.look(entries, steps)
        with np.errstate(all="ignore"):
            # all of it is noise, or the slopes close in
            closes = looked.gap <= np.fmax(0.5 * gap, 8 * looked.uncertainty)
            for order, row in enumerate(rows, start=1):
                for value, change in _refined(row, looked.gradapprox, SHRINK**order):
                    total = SURE * change + 1.25 * looked.uncertainty
                    better = closes & (total < best.uncertainty)
                    for to, new in zip(best, (value, total, looked.low, looked.high), strict=True):
                        to[better] = new[better]
                    at[better] = steps[better]
        gap = looked.gap
    before = _known(record, entries)
    surer = np.isfinite(best.gradapprox) & (best.uncertainty < record.uncertainty[entries])
    taken = record.take(entries, best, at, surer)
    record.rejudge(taken)
    # an estimate of its own error is no proof of another's
    accused = taken[record.codes[taken] == DISAGREE]
    record.uncertainty[accused] *= PROOF
    record.rejudge(accused)
    _put_back(record, entries, before)


def _refined(
    row: list[FloatArray], value: FloatArray, ratio: float
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """A new row of an extrapolation table, each with by how much it differs from its neighbours.

    Its errors are a series in a power of the step that shrinks by `ratio`; `row` is replaced.
    """
    new = [value]
    for j, before in enumerate(row, start=1):
        new.append(new[-1] + (new[-1] - before) / (ratio**j - 1))
        yield new[-1], np.fmax(np.abs(new[-1] - new[-2]), np.abs(new[-1] - before))
    row[:] = new


def _known(record: Record, entries: Entries) -> dict[str, FloatArray]:
    """What is known of entries before other steps are tried, for `_put_back`."""
    names = "gradapprox", "uncertainty", "reach", "steps", "low", "high"
    return {name: getattr(record, name)[entries] for name in names}


def _put_back(record: Record, entries: Entries, before: dict[str, FloatArray]) -> None:
    """Undoes what contradicts it, which a cost does that is not smooth over the longer step."""
    new, uncertainty = record.gradapprox[entries], record.uncertainty[entries]
    with np.errstate(invalid="ignore"):
        against = np.abs(new - before["gradapprox"]) > before["uncertainty"] + uncertainty
    lost = ~np.isfinite(new) | (against & ~record.at_kink[entries])
    lost |= (record.codes[entries] == UNRESOLVED) & ~(uncertainty < before["uncertainty"])
    for name, values in before.items():
        getattr(record, name)[entries[lost]] = values[lost]
    record.codes[entries[lost]] = UNRESOLVED


def widen_reach(record: Record, entries: Entries) -> None:
    """The slopes that the cost has further away, for entries that may be known to vanish.

    Where J bends they grow with the step; what grows faster, as a wall or a jump, does not count.
    """
    scale, steps = record.scale[entries], record.steps[entries]
    far = np.maximum(np.minimum(LONGEST * scale, record.limits[entries]), steps)
    looked = record.look(entries, far)
    with np.errstate(all="ignore"):
        # the noise of the slopes close by is no curvature
        bend = np.abs(record.high[entries] - record.low[entries]) - 4 * record.uncertainty[entries]
        most = np.maximum(bend, 0.0) * far / steps
    grown = np.minimum(looked.reach, most)
    record.reach[entries] = np.fmax(record.reach[entries], np.nan_to_num(grown, posinf=0.0))
    record.codes[entries[record.judge(entries) == AGREE]] = AGREE  # nothing speaks against any
