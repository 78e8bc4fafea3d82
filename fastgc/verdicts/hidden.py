"""Entries that noise hides: unused ones, flat ones, and those smaller than the step."""

import math

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import THRESHOLDS, UNRESOLVED
from fastgc.costs.noise import POINTS, table_noise
from fastgc.verdicts.record import Looked, Record
from fastgc.verdicts.refinement import NEAR

# Moved by so much of its scale, such an entry leaves the cost as it is, but for its last bits.
MOVES = (1e-2, -0.3, 1.0, -1.0)
SIZES = 0.5, 1.0  # of single entries, of that

# Of its scale, steps over which nothing moves where a cost is flat: bfloat16 has steps of 2⁻⁸.
FLAT = (2.0**-12, 2.0**-8, 2.0**-6)


def unused(record: Record, entries: Entries) -> None:
    """Finds those of the `entries` that the cost does not depend on, whose slope is then zero.

    All that noise hides in a tensor is moved at once; where that moves the cost, one by one.
    """
    base = record.base
    limit = THRESHOLDS.last_bits * abs(base.cost) + base.jitter
    change = np.full(entries.size, np.inf)
    tensors = record.layout.tensor_of(entries)
    for t in np.unique(tensors):
        group = np.flatnonzero(tensors == t)
        change[group] = _change(record, entries[group], limit)
        if group.size > 1 and change[group[0]] > limit:
            change[group] = [_change(record, entries[[i]], limit) for i in group]
    still = change <= limit
    if not still.any():
        return
    zeros, change = entries[still], change[still]
    settled = record.gradapprox[np.isfinite(record.gradapprox) & (record.codes != UNRESOLVED)]
    largest = float(np.abs(settled).max(initial=0.0))
    floor = base.stillness
    uncertainty = 2.0 * np.maximum(change, floor) / (SIZES[0] * record.scale[zeros])
    uncertainty = record.as_analytic(zeros, uncertainty + THRESHOLDS.vanishing * largest)
    g = np.abs(record.analytic.grad[zeros])
    # Beside a J so large that it hides its slopes, nothing moves either: what is known has to be
    # small beside other slopes, and g a rounding error beside them, or too large to be hidden.
    nothing = (g == 0) & (change == 0)
    had = uncertainty <= np.where(nothing, THRESHOLDS.resolution, THRESHOLDS.zero) * largest
    had &= (g <= THRESHOLDS.vanishing * largest) | (g > uncertainty)
    if not base.coarse and not change.any():  # whatever g is
        had |= nothing
    zeros, uncertainty = zeros[had], uncertainty[had]
    _take_zero(record, zeros, uncertainty)
    record.reach[zeros] = np.inf  # J has been seen further away than any slope could hide
    record.rejudge(zeros)


def flat(record: Record, entries: Entries) -> None:
    """Finds entries about which a cost stays the same, further than its parameters are rounded.

    Where these are rounded to fewer digits, a short step may move nothing; a step of many roundings
    does, unless the slope is zero.
    """
    base = record.base
    if not base.coarse or base.grain or entries.size == 0:  # a J of few digits hides slopes
        return
    scale = record.scale[entries]
    same = record.gradapprox[entries] == 0
    for share in FLAT:
        looked = record.look(entries, share * scale)
        same &= (looked.low == 0) & (looked.high == 0)
    uncertainty = (base.jitter + THRESHOLDS.least_noise * abs(base.cost)) / (FLAT[-1] * scale)
    zeros = entries[same]
    _take_zero(record, zeros, record.as_analytic(zeros, uncertainty[same]))
    record.codes[zeros] = record.judge(zeros, exact_zeros=True)


def _take_zero(record: Record, zeros: Entries, uncertainty: FloatArray) -> None:
    """Takes it that these entries have a slope of zero, so certainly, (n,)."""
    nothing = np.zeros(zeros.size)
    record.take(zeros, Looked(nothing, uncertainty, nothing, nothing), record.steps[zeros])


def _change(record: Record, group: Entries, limit: float) -> float:
    """By how much J changes when they are moved; inf where that is more than `limit`."""
    rng, most = generator(7), 0.0  # no two moves of one size, which might cancel
    moves: FloatArray = record.scale[group] * rng.choice((-1.0, 1.0), group.size)
    moves *= rng.uniform(*SIZES, group.size)
    for share in MOVES:
        change = abs(record.near(group, share * moves) - record.base.cost)
        if not change <= limit:
            return math.inf
        most = max(most, change)
    return most


SMALL = 1e-3  # of an entry, a step is short beside it; and of a slope, a difference counts
FEW = 16  # entries whose own noise is measured before that of all


def tiny(theta: FloatArray, steps: FloatArray) -> Entries:
    """Entries that a step is not short beside, (n,)."""
    return np.flatnonzero((theta != 0) & (SMALL * np.abs(theta) < steps))


def by_scale(record: Record) -> None:
    """Entries much smaller than the step, looked at over a share of their own size as well.

    Where the two looks contradict each other, the step leads over all that the entry does.
    """
    entries = tiny(record.theta, record.steps)
    if entries.size == 0:
        return
    steps = NEAR * np.abs(record.theta[entries])
    looked = record.look(entries, steps)
    with np.errstate(invalid="ignore"):
        apart = np.abs(looked.gradapprox - record.gradapprox[entries])
        against = apart > looked.uncertainty + record.uncertainty[entries]
        against &= apart > SMALL * np.abs(looked.gradapprox)
        against &= looked.uncertainty <= THRESHOLDS.resolution * np.abs(looked.gradapprox)
    taken = record.take(entries, looked, steps, against)
    if taken.size:
        record.looked[taken] = True
        record.rescale()
        record.rejudge(np.arange(record.codes.size))


def own_noise(record: Record, accused: Entries) -> None:
    """Leaves open what the noise along an entry's own line may explain.

    Along a line through many entries it may not show, as where one output is saturated and its
    logarithm is a staircase. A few entries are looked at first, and the others if any is in doubt.
    """
    for entries in (accused[:: max(1, accused.size // FEW)], accused):
        doubtful = [k for k in entries.tolist() if _is_noise(record, k)]
        record.codes[doubtful] = UNRESOLVED
        if not doubtful:
            return


def _is_noise(record: Record, k: int) -> bool:
    step = float(record.steps[k])
    error = abs(float(record.analytic.grad[k] - record.gradapprox[k]))
    noises = []
    for side in (1.0, -1.0):
        moves = [side * step * i / (POINTS - 1) for i in range(POINTS)]
        costs = [record.near(np.array([k]), by) for by in moves]
        if all(map(math.isfinite, costs)):
            noises.append(table_noise(costs))
    return bool(noises) and error <= THRESHOLDS.noise * min(noises) / step
