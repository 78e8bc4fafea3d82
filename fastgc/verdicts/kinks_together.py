"""Kinks together: whether the slopes taken at several kinks at once go with each other.

At a tie each entry may have any slope between the two sides, and a gradient of zero everywhere, or
of twice what is right, passes entry by entry. Along a direction through all of them it does not: g
along the direction lies between the slopes of J along it, made as those of an entry are.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import AGREE, DISAGREE, KINK, THRESHOLDS, UNRESOLVED
from fastgc.verdicts.kinks import slopes_around
from fastgc.verdicts.record import Record
from fastgc.verdicts.refinement import SHORTER

RANDOM_SIGNS = 4  # directions of random signs
POINTS, MANY_POINTS = 16, 192  # around θ, where slopes at θ leave g out
LEAST_STEP = 1e-7  # of moves through a Network, whose own steps are too short for differences
SIGNS = 1.0, -1.0
AWAY = 4.0  # steps, to the side whose slope g is
MOST_SIDES = 256  # entries whose sides are told apart
MOST = 48  # moves of fewer entries, in search of those at fault


class Judge(Protocol):
    """Judges one move of entries at kinks: a code, or KINK where nothing speaks against them."""

    def __call__(self, entries: Entries, signs: FloatArray, *, sure: bool) -> int:
        """With many points around θ where it is to be `sure`."""


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
    if kinks.size == 0:
        return
    judge = _of_slopes(record) if record.cost.samples is None else _of_samples(record)
    tensors = record.layout.tensor_of(kinks)
    groups = [kinks[tensors == t] for t in np.unique(tensors)]
    if len(groups) > 1:
        groups.append(kinks)
    for group in groups:
        group = group[record.codes[group] != DISAGREE]
        if group.size:
            _judge_group(record, group, judge)


def _judge_group(record: Record, group: Entries, judge: Judge) -> None:
    for signs, telling in _signs(record, group):
        code = judge(group, signs, sure=True)
        if code == DISAGREE:
            record.codes[_at_fault(group, signs, judge)] = DISAGREE
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


def _at_fault(group: Entries, signs: FloatArray, judge: Judge) -> Entries:
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
            if judge(group[fewer], signs[fewer], sure=False) == DISAGREE:
                keep = fewer
                break
        else:
            size //= 2
            continue
        size = min(size, max(keep.size // 2, 1)) if keep.size > 1 else 0
    return group[keep]


def _of_slopes(record: Record) -> Judge:
    """By the slopes of J along a move: at θ, and where g lies beyond these, around θ."""
    cost, base = record.cost, record.base
    floor = 2.0 * base.rounding

    def judge(entries: Entries, signs: FloatArray, *, sure: bool) -> int:
        by = signs * record.steps[entries]
        along, allowance = _along(record, entries, by)
        whole = record.subset.whole(entries)
        sides = [sign * (cost.near(whole, sign * by) - base.cost) for sign in SIGNS]
        record.evaluations += 2
        low, high = min(sides), max(sides)
        if not np.isfinite(low) or not np.isfinite(high):
            return UNRESOLVED
        allowance += floor
        if low - allowance <= along <= high + allowance:
            return KINK
        if not sure:
            return _beyond(along, low, high, allowance)
        steps = np.zeros(cost.theta.size)
        steps[:] = float(np.min(np.abs(by)))
        steps[whole] = np.abs(by)
        code = KINK
        for points in (POINTS, MANY_POINTS):
            around = slopes_around(cost, lambda _: (whole, by / SHORTER), 1, steps, points)
            record.evaluations += around.evaluations
            low = min(low, float(around.low[0]) * SHORTER / 2)
            high = max(high, float(around.high[0]) * SHORTER / 2)
            code = _beyond(along, low, high, allowance + SHORTER * floor)
            if code != DISAGREE:
                break
        return code

    return judge


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
    cost = record.cost
    every = record.subset.whole(np.arange(side.size))
    points = [_moved(cost.theta, every, share * side) for share in (1.0, 0.5)]
    noise = 4.0 * SHORTER * record.base.rounding
    for k in kinks.tolist():
        whole, by = record.subset.whole(np.array([k])), record.steps[[k]] / SHORTER
        slopes = []
        for point in points:
            ends = [cost.value_or_nan(_moved(point, whole, sign * by)) for sign in SIGNS]
            slopes.append((ends[0] - ends[1]) / (2.0 * float(by[0])))
        record.evaluations += 2 * len(points)
        slope = 2.0 * slopes[1] - slopes[0]  # less what J bends by on the way
        allowance = float(record.allowed(np.array([k]), record.gradapprox[[k]])[0])
        allowance = max(allowance, 1e-3 * float(record.high[k] - record.low[k]))
        allowance += noise / float(record.steps[k])
        if not abs(slope - record.analytic.grad[k]) <= allowance:
            return False
    return True


def _side_of_g(record: Record) -> FloatArray:
    """How far to move each entry at a kink, (n,), so that J has g for its slope there.

    That is to the side whose slope g is; entries whose g is neither stay where they are.
    """
    cost, base = record.cost, record.base
    moves = np.zeros(record.codes.size)
    kinks = np.flatnonzero(record.at_kink)
    if kinks.size > MOST_SIDES:
        return moves
    for k in kinks.tolist():
        whole, step = record.subset.whole(np.array([k])), float(record.steps[k])
        allowance = float(record.allowed(np.array([k]), record.gradapprox[[k]])[0])
        allowance = max(allowance, 1e-3 * float(record.high[k] - record.low[k])) * step
        allowance += 4.0 * base.rounding
        along = float(record.analytic.grad[k]) * step
        record.evaluations += 2
        for sign in SIGNS:
            J = cost.near(whole, sign * step)
            if abs(sign * (J - base.cost) - along) <= allowance:
                moves[k] += sign * AWAY * step
    return moves


def _moved(theta: FloatArray, entries: Entries, by: FloatArray) -> FloatArray:
    point = theta.copy()
    point[entries] += by
    return point


def _of_samples(record: Record) -> Judge:
    """By the slopes of a Network's samples, each of which may take its own."""
    samples = record.cost.samples
    assert samples is not None

    def judge(
        entries: Entries,
        signs: FloatArray,
        *,
        sure: bool,  # noqa: ARG001  samples are looked at one by one: it always is
    ) -> int:
        by = signs * np.maximum(record.steps[entries], LEAST_STEP)
        along, allowance = _along(record, entries, by)
        found = samples.slopes_along(record.subset.whole(entries), by, record.base, SHORTER)
        record.evaluations += found.evaluations
        allowance += 2 * float(found.uncertainty[0])
        return _beyond(along, float(found.low[0]), float(found.high[0]), allowance)

    return judge


def _beyond(along: float, low: float, high: float, allowance: float) -> int:
    beyond = max(low - along, along - high)
    if not beyond > allowance:
        return KINK
    return DISAGREE if beyond > THRESHOLDS.far * (high - low) + allowance else UNRESOLVED


def _along(record: Record, entries: Entries, by: FloatArray) -> tuple[float, float]:
    """g along a move, and how far it may be off."""
    allowed = record.allowed(entries, record.gradapprox[entries]) + record.uncertainty[entries]
    return float(record.analytic.grad[entries] @ by), float(allowed @ np.abs(by))
