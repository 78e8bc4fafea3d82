"""Corners at the parameters themselves: what slopes an entry may have where the cost has none.

The two one-sided slopes of J do not show them all: at a corner in one sample the slope jumps up, in
another down, and the sum may look smooth. A Network's samples are looked at one by one; any other
cost is looked at from parameters close by.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.core.rng import generator
from fastgc.core.tree import UNIT_ROUNDOFF, Entries, FloatArray
from fastgc.core.verdict import AGREE, THRESHOLDS
from fastgc.costs.base import Base, Cost
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.verdicts.record import Check
from fastgc.verdicts.refinement import SHORTER

SUMS = 4  # directions in which slopes are added up

# Points near θ from which a cost that fastgc cannot see into is looked at. A slope that needs five
# units on their right sides shows at one in 32.
POINTS = range(4, 201)
SPENT = 8  # times the evaluations of the check itself, on more than the fewest points
AFFORDABLE = 1500  # evaluations, that are spent in any case
FEW = 32  # entries that are looked at from so many points as tell one kink from several
ENOUGH = 64  # points, that tell a single kink
ON_A_LINE = 8  # points; so many lines cross so many kinks, one after the other
REACH = 3.0  # times as far along a line as it starts from θ
BETWEEN = 2  # points of a line that may meet a kink
LEVEL = 1e-3  # of the gap, that slopes on one side of a kink differ by
AWAY = 4.0  # steps to the nearest
NEARER = 4.0  # times, for a second look at each
FINER = 16.0  # times as short as a step, differences are taken there

# The longest step from there, over the size of the entry, or over 1: over the length of a long step
# a slope changes by its curvature, and that is no corner.
SHORT = 1e-7


#: Entries of the flat vector, and how far each is moved.
Move: TypeAlias = tuple[Entries, FloatArray]


def has_kink(cost: Cost, base: Base, epsilon: FloatArray, tries: int) -> tuple[bool, int]:
    """Whether J has a corner at θ, along random directions; and the evaluations spent.

    In a random direction the jumps of many corners do not cancel. J_plus − 2J + J_minus falls with
    the step at a corner, with its square elsewhere.
    """
    rng = generator(1)
    floor = 8.0 * max(THRESHOLDS.noise * base.noise, 2.0 * THRESHOLDS.least_noise * abs(base.cost))
    for tried in range(1, tries + 1):
        direction = epsilon * rng.standard_normal(epsilon.size)
        bends = [
            abs(
                cost.value_or_nan(cost.theta + t * direction)
                - 2.0 * base.cost
                + cost.value_or_nan(cost.theta - t * direction)
            )
            for t in (1.0, 0.125)
        ]
        if bends[1] > bends[0] / 16 and bends[1] > floor:  # not where any is NaN
            return True, 4 * tried
    return False, 4 * tries


def sums_up(
    cost: Cost,
    base: Base,
    entries: Entries,
    steps: FloatArray,
    gradapprox: FloatArray,
    uncertainty: FloatArray,
) -> tuple[bool, int]:
    """Whether the slope of J along random directions is the sum of those of its entries.

    Args:
        cost, base: the cost at θ.
        entries: n of its entries.
        steps, gradapprox, uncertainty: of these, (n,).

    Returns:
        Whether it is, in each of a few directions; and the evaluations spent.
    """
    rng = generator(10)
    for tried in range(1, SUMS + 1):
        by = steps * rng.standard_normal(entries.size)
        apart, bends = [], []
        for share in (1.0, 0.125):
            apart.append(off_along(cost, entries, share * by, gradapprox))
            bends.append(float(uncertainty @ np.abs(share * by)))
        # what curvature adds falls with the cube of the step, a kink's share with the step itself
        if apart[1] > max(apart[0] / 32, 2 * bends[1] + 8 * base.rounding):
            return False, 4 * tried
    return True, 4 * SUMS


def off_along(cost: Cost, entries: Entries, by: FloatArray, gradapprox: FloatArray) -> float:
    """How far J, moved by so much each way, is from changing by the sum of what each entry does."""
    change = cost.near(entries, by) - cost.near(entries, -by)
    return abs(0.5 * change - float(gradapprox @ by))


class Around(NamedTuple):
    """What the slopes of n entries are at points around θ.

    Attributes:
        jumps: by how much they jump, (n,); 0 where J only bends.
        low, high: from where to where, (n,).
        single: whether they take two values alone, as beside a single kink, (n,).
        evaluations: of the cost.
    """

    jumps: FloatArray
    low: FloatArray
    high: FloatArray
    single: NDArray[np.bool_]
    evaluations: int


def slopes_around(
    cost: Cost,
    moves: Callable[[int], Move],
    count: int,
    steps: FloatArray,
    points: int,
) -> Around:
    """The slopes of J along n short moves, at points around θ and at points four times as close.

    At a corner they spread as far there; where J only bends, a quarter as far, which counts as
    none.

    Args:
        cost: the cost at θ.
        moves: number -> the entries that it moves, and by how much.
        count: n.
        steps: of each parameter, (P,); points are a few of these away.
        points: how many.
    """
    rng = generator(2)
    lines = -(-points // ON_A_LINE)
    found = np.full((2, lines, ON_A_LINE, count), np.nan)
    for line in range(lines):
        # of very different lengths: now one parameter decides the side of a unit, now another
        start, along = (
            AWAY * steps * 10.0 ** rng.uniform(0, 1, steps.size) * rng.standard_normal(steps.size)
            for _ in range(2)
        )
        for p, t in enumerate(np.linspace(-REACH, REACH, ON_A_LINE)):
            for near, share in enumerate((1.0, 1.0 / NEARER)):
                point = cost.theta + share * (start + t * along)
                for i in range(count):
                    entries, by = moves(i)
                    values = point[entries]
                    point[entries] = values + by
                    J_plus = cost.value_or_nan(point)
                    point[entries] = values - by
                    found[near, line, p, i] = J_plus - cost.value_or_nan(point)
                    point[entries] = values
    return _summary(found)


def _summary(found: FloatArray) -> Around:
    """Of slopes (2, lines, points on a line, n), far and near."""
    with warnings.catch_warnings(action="ignore"):  # of slopes that can nowhere be had
        low, high = np.nanmin(found, axis=(1, 2)), np.nanmax(found, axis=(1, 2))
    far, near = high - low
    jumps = np.where(near > 0.5 * far, near, 0.0)
    with np.errstate(invalid="ignore"):
        share = (found[1] - low[1]) / np.where(near > 0, near, 1.0)
    single = _crosses_once(share) & (jumps > 0)
    return Around(jumps, low[1], high[1], single, 4 * found[0].size)


def _crosses_once(share: FloatArray) -> NDArray[np.bool_]:
    """Whether each line crosses one kink at most, (n,), by the slopes on it as shares of the gap.

    Beside a single kink all slopes are 0 or 1, but for a few that met the kink itself, and change
    but once along a line.
    """
    lines, _, _ = share.shape
    at_low, at_high = np.abs(share) <= LEVEL, np.abs(share - 1.0) <= LEVEL
    between = (~(at_low | at_high)).sum(axis=1)
    sides = np.where(at_high, 1, np.where(at_low, 0, -1))
    changes = np.zeros(between.shape, dtype=np.intp)
    last = sides[:, 0]
    for p in range(1, sides.shape[1]):
        here = sides[:, p]
        changes += (here >= 0) & (last >= 0) & (here != last)
        last = np.where(here >= 0, here, last)
    crossed = (changes == 1).sum(axis=0)
    once: NDArray[np.bool_] = ((changes <= 1) & (between <= BETWEEN)).all(axis=0)
    once &= between.sum(axis=0) <= 0.1 * lines * ON_A_LINE
    once &= (crossed >= max(2, lines // 4)) & (lines >= ENOUGH // ON_A_LINE)
    return once


def around_entries(
    cost: Cost, entries: Entries, base: Base, epsilon: FloatArray, checked: int
) -> Around:
    """`slopes_around` along single entries, (n,).

    `checked` is how many entries the check itself is about, which limits what is spent.
    """
    step = np.minimum(epsilon, SHORT * np.maximum(np.abs(cost.theta), 1.0))
    points = max(SPENT * 2 * checked, AFFORDABLE) // (4 * entries.size)
    if entries.size <= FEW:
        points = max(points, ENOUGH)
    points = min(max(points, POINTS.start), POINTS.stop - 1)
    own = step[entries] / FINER  # so that few of them meet the kink itself
    found = slopes_around(
        cost, lambda i: (entries[i : i + 1], own[i : i + 1]), entries.size, step, points
    )
    noise = uncertainty_of_differences(base.cost, base.noise, 2.0 * own)
    largest = np.fmax(np.abs(found.low), np.abs(found.high)) / (2.0 * own)
    # the points are no exact steps away
    noise += 4 * UNIT_ROUNDOFF * np.abs(cost.theta[entries]) / own * largest
    low, high, jumps = (values / (2.0 * own) for values in (found.low, found.high, found.jumps))
    return found._replace(
        jumps=np.where(jumps > 4 * noise, jumps, 0.0), low=low - noise, high=high + noise
    )


GAP = 1e-4  # of the slopes, that those on both sides of an entry are apart at a kink, and more
SHARES = 0.3, 0.7  # of a step, by which all entries are moved once more


def bent(check: Check, first: Approximation, means: FloatArray) -> Entries:
    """Entries whose one-sided slopes are apart, as at a kink, or where J bends sharply."""
    if not check.opaque:
        return np.empty(0, dtype=np.intp)
    low, high = first.slopes()
    lengths = check.subset.layout.lengths
    with np.errstate(invalid="ignore", over="ignore"):
        gap = high - low
        size = np.fmax(np.abs(low), np.abs(high))
        apart = (gap > GAP * np.fmax(size, np.repeat(means, lengths))) & np.isfinite(gap)
        return np.flatnonzero(apart & (gap > 8 * first.uncertainty))


def adds_up(check: Check, first: Approximation, codes: NDArray[np.uint8]) -> tuple[bool, int]:
    """Whether J moves along all that agrees as gradapprox says; and the evaluations spent.

    A cost whose period is the step looks flat, entry by entry. So does a median at a tie, which no
    single entry moves.
    """
    cost, base = check.cost, check.base
    agree = np.flatnonzero((codes == AGREE) & np.isfinite(first.gradapprox))
    if not check.opaque or check.tries == 0 or agree.size == 0:
        return True, 0
    rng = generator(12)
    whole = check.subset.whole(agree)
    by = check.steps_of_all[whole] * rng.uniform(*SHARES, agree.size)
    by *= rng.choice((-1.0, 1.0), agree.size)
    gradapprox = first.gradapprox[agree]
    allowance = 2.0 * float(first.uncertainty[agree] @ np.abs(by))
    floor = 2.0 * base.stillness
    apart = [0.0, 0.0]
    for look, share in enumerate((1.0, 1.0 / SHORTER)):
        apart[look] = off_along(cost, whole, share * by, gradapprox)
        if not apart[look] > share * allowance + floor:  # nor where it cannot be had
            return True, 2 * (look + 1)
    # what the slope bends by falls with the cube of the step
    return not apart[1] > apart[0] / (4 * SHORTER), 4
