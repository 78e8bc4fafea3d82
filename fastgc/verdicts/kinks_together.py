"""Kinks together: whether the slopes taken at several kinks at once go with each other.

At a tie each entry may have any slope between the two sides, and a gradient of zero everywhere, or
of twice what is right, passes entry by entry. Along a direction through all of them it does not: g
along the direction lies between the slopes of J along it, made as those of an entry are.
"""

from collections.abc import Iterator

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import AGREE, DISAGREE, KINK, THRESHOLDS, UNRESOLVED
from fastgc.verdicts.kinks import slopes_around
from fastgc.verdicts.record import Record
from fastgc.verdicts.refinement import PLAIN_STEP, SHORTER

RANDOM_SIGNS = 4  # directions of random signs
POINTS, MANY_POINTS = 16, 192  # around θ, where slopes at θ leave g out
SIGNS = 1.0, -1.0
AWAY = 4.0  # steps, to the side whose slope g is
MOST_SIDES = 256  # entries whose sides are told apart
MOST = 48  # moves of fewer entries, in search of those at fault


def kinks_together(record: Record, *, also_agreed: bool = False) -> None:
    """Calls wrong, or leaves open, entries at kinks that do not go together.

    Args:
        record: where the verdicts are, and go.
        also_agreed: whether entries that agree are looked at as well: J does not move along them as
            the sum of their slopes, as at a tie that no single entry breaks.
    """
    if record.directions:
        return
    at_kinks = (record.codes == KINK) | (record.at_kink & (record.codes == UNRESOLVED))
    if also_agreed:
        at_kinks |= record.codes == AGREE
    kinks = np.flatnonzero(at_kinks)
    tensors = record.layout.tensor_of(kinks)
    groups = [kinks[tensors == t] for t in np.unique(tensors)]
    if len(groups) > 1:
        groups.append(kinks)
    for group in groups:
        group = group[record.codes[group] != DISAGREE]
        if group.size:
            _judge_group(record, group)


def _judge_group(record: Record, group: Entries) -> None:
    for signs, telling in _signs(record, group):
        code = _judge(record, group, signs, sure=True)
        if code == DISAGREE:
            record.codes[_at_fault(record, group, signs)] = DISAGREE
            return
        if code == UNRESOLVED and telling:
            record.codes[group[record.codes[group] == KINK]] = UNRESOLVED
            return


def _signs(record: Record, group: Entries) -> Iterator[tuple[FloatArray, bool]]:
    """Directions of ±1, and whether a right gradient goes with the slopes along them.

    Along the signs of g, and of gradapprox, whatever is tied moves together. Where several kinks
    cross at random, a right gradient may lie beyond the slopes of J.
    """
    g, middle = record.analytic.grad[group], record.gradapprox[group]
    middle = np.where(np.sign(middle) == 0, 1.0, np.sign(middle))
    yield np.where(g == 0, middle, np.sign(g)), True
    yield middle, True
    yield np.ones(group.size), True
    rng = generator(9)
    for _ in range(RANDOM_SIGNS if group.size > 1 else 0):
        yield rng.choice((-1.0, 1.0), group.size), False


def _at_fault(record: Record, group: Entries, signs: FloatArray) -> Entries:
    """The fewest entries of a group that are at fault still when the others are left out.

    Halves are left out first, then quarters, down to single entries, as far as the budget goes.
    """
    keep, tried = np.arange(group.size), 0
    size = group.size // 2
    while size and tried < MOST:
        for start in range(0, keep.size, size):
            fewer = np.delete(keep, slice(start, start + size))
            if not fewer.size or tried >= MOST:
                break
            tried += 1
            if _judge(record, group[fewer], signs[fewer], sure=False) == DISAGREE:
                keep = fewer
                break
        else:
            size //= 2
            continue
        size = min(size, max(keep.size // 2, 1)) if keep.size > 1 else 0
    return group[keep]


def _judge(record: Record, entries: Entries, signs: FloatArray, *, sure: bool) -> int:
    """A code for one move of entries at kinks; KINK where nothing speaks against them.

    By the slopes of a Network's samples, each of which may take its own; else by those of J at θ,
    and, where g lies beyond these and it is to be `sure`, at many points around θ.
    """
    base, samples, whole = record.base, record.cost.samples, record.subset.whole(entries)
    steps = record.steps[entries]
    by = signs * (steps if samples is None else np.maximum(steps, PLAIN_STEP))
    allowed = record.allowed(entries, record.gradapprox[entries]) + record.uncertainty[entries]
    along, allowance = float(record.analytic.grad[entries] @ by), float(allowed @ np.abs(by))
    if samples is not None:
        interval = samples.slopes_along(whole, by, base, SHORTER)
        record.evaluations += interval.evaluations
        low, high = float(interval.low[0]), float(interval.high[0])
        return _beyond(along, low, high, allowance + 2 * float(interval.uncertainty[0]))
    sides = [sign * (record.near(entries, sign * by) - base.cost) for sign in SIGNS]
    low, high = min(sides), max(sides)
    if not np.isfinite(low) or not np.isfinite(high):
        return UNRESOLVED
    floor = 2.0 * base.rounding
    code = _beyond(along, low, high, allowance + floor)
    if code == KINK or not sure:
        return code
    around = np.full(record.cost.theta.size, float(np.min(np.abs(by))))
    around[whole] = np.abs(by)
    for points in (POINTS, MANY_POINTS):
        slopes = slopes_around(record, [(whole, by / SHORTER)], around, points)
        low = min(low, float(slopes.low[0]) * SHORTER / 2)
        high = max(high, float(slopes.high[0]) * SHORTER / 2)
        code = _beyond(along, low, high, allowance + floor + SHORTER * floor)
        if code != DISAGREE:
            break
    return code


def _beyond(along: float, low: float, high: float, allowance: float) -> int:
    beyond = max(low - along, along - high)
    if not beyond > allowance:
        return KINK
    return DISAGREE if beyond > THRESHOLDS.far * (high - low) + allowance else UNRESOLVED


def accept_a_limit(record: Record) -> bool:
    """Accepts all entries at kinks where g is the gradient of J at a point close by; whether it is.

    So is that of a backward pass which takes one side of each kink: there J has the slopes that it
    takes, all at once.
    """
    kinks = np.flatnonzero(record.at_kink & (record.codes != DISAGREE))
    accepted = kinks.size > 0 and record.opaque and _is_limit(record, kinks)
    if accepted:
        record.codes[kinks] = KINK
    return accepted


def _is_limit(record: Record, kinks: Entries) -> bool:
    side = _side_of_g(record)
    if not side.any():
        return False
    whole = record.subset.whole(np.arange(side.size))
    points = [_moved(record.cost.theta, whole, share * side) for share in (1.0, 0.5)]
    noise = 4.0 * SHORTER * record.base.rounding
    for k in kinks.tolist():
        by = record.steps[[k]] / SHORTER
        slopes = []
        for point in points:
            ends = [record.value(_moved(point, whole[[k]], sign * by)) for sign in SIGNS]
            slopes.append((ends[0] - ends[1]) / (2.0 * float(by[0])))
        slope = 2.0 * slopes[1] - slopes[0]  # less what J bends by on the way
        allowance = _allowance(record, k) + noise / float(record.steps[k])
        if not abs(slope - record.analytic.grad[k]) <= allowance:
            return False
    return True


def _side_of_g(record: Record) -> FloatArray:
    """How far to move each entry at a kink, (n,), so that J has g for its slope there.

    That is to the side whose slope g is; entries whose g is neither stay where they are.
    """
    moves = np.zeros(record.codes.size)
    kinks = np.flatnonzero(record.at_kink)
    for k in kinks.tolist() if kinks.size <= MOST_SIDES else ():
        step = float(record.steps[k])
        allowance = _allowance(record, k) * step + 4.0 * record.base.rounding
        along = float(record.analytic.grad[k]) * step
        for sign in SIGNS:
            J = record.near(np.array([k]), sign * step)
            if abs(sign * (J - record.base.cost) - along) <= allowance:
                moves[k] += sign * AWAY * step
    return moves


def _allowance(record: Record, k: int) -> float:
    """How far the slope on one side of entry k may be from g."""
    allowed = float(record.allowed(np.array([k]), record.gradapprox[[k]])[0])
    return max(allowed, 1e-3 * float(record.high[k] - record.low[k]))


def _moved(theta: FloatArray, entries: Entries, by: FloatArray) -> FloatArray:
    point = theta.copy()
    point[entries] += by
    return point
