"""Kinks at the parameters themselves: what slopes an entry may have where the cost has none.

The two one-sided slopes of J do not show them all: at a kink in one sample the slope jumps up, in
another down, and the sum may look smooth. A Network's samples are looked at one by one; any other
cost is looked at from parameters close by.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.rng import generator
from fastgc.core.tree import UNIT_ROUNDOFF, Entries, FloatArray
from fastgc.core.verdict import AGREE, THRESHOLDS
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.verdicts.record import Check, Record
from fastgc.verdicts.refinement import SHORTER

SUMS = 4  # directions in which slopes are added up
SHARES = 0.3, 0.7  # of a step, by which all entries are moved once more
GAP = 1e-4  # of the slopes, that those on both sides of an entry are apart at a kink, and more

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
# a slope changes by its curvature, and that is no kink.
SHORT = 1e-7


def has_kink(check: Check, steps: FloatArray, tries: int) -> bool:
    """Whether J has a kink at θ, along so many random directions; `steps` are (P,).

    In a random direction the jumps of many kinks do not cancel. J_plus − 2J + J_minus falls with
    the step at a kink, with its square elsewhere.
    """
    rng, base, theta = generator(1), check.base, check.cost.theta
    floor = 8.0 * max(THRESHOLDS.noise * base.noise, 2.0 * THRESHOLDS.least_noise * abs(base.cost))
    for _ in range(tries):
        by = steps * rng.standard_normal(steps.size)
        far, near = (
            abs(check.value(theta + t * by) - 2.0 * base.cost + check.value(theta - t * by))
            for t in (1.0, 1.0 / SHORTER)
        )
        if near > far / (2 * SHORTER) and near > floor:  # not where any is NaN
            return True
    return False


def sums_up(record: Record) -> bool:
    """Whether the slope of J along random directions is the sum of those of its entries."""
    rng, entries = generator(10), np.arange(record.layout.size)
    gradapprox = np.where(np.isfinite(record.gradapprox), record.gradapprox, 0.0)
    bend = np.nan_to_num(0.5 * (record.high - record.low), nan=0.0)
    uncertainty = record.uncertainty + bend
    for _ in range(SUMS):
        by = record.steps * rng.standard_normal(entries.size)
        shorter = by / SHORTER
        far, near = (_off_along(record, entries, move, gradapprox) for move in (by, shorter))
        # what curvature adds falls with the cube of the step, a kink's share with the step itself
        allowance = 2 * float(uncertainty @ np.abs(shorter)) + 8 * record.base.rounding
        if near > max(far / (4 * SHORTER), allowance):
            return False
    return True


def adds_up(check: Check, first: Approximation, codes: NDArray[np.uint8]) -> bool:
    """Whether J moves along all that agrees as gradapprox says.

    A cost whose period is the step looks flat, entry by entry. So does a median at a tie, which no
    single entry moves.
    """
    agree = np.flatnonzero((codes == AGREE) & np.isfinite(first.gradapprox))
    if not check.opaque or check.tries == 0 or agree.size == 0:
        return True
    rng = generator(12)
    by = check.steps_of_all[check.subset.whole(agree)] * rng.uniform(*SHARES, agree.size)
    by *= rng.choice((-1.0, 1.0), agree.size)
    allowance = 2.0 * float(first.uncertainty[agree] @ np.abs(by))
    apart = []
    for share in (1.0, 1.0 / SHORTER):
        apart.append(_off_along(check, agree, share * by, first.gradapprox[agree]))
        if not apart[-1] > share * allowance + 2.0 * check.base.stillness:
            return True  # nor where it cannot be had
    # what the slope bends by falls with the cube of the step
    return not apart[1] > apart[0] / (4 * SHORTER)


def _off_along(check: Check, entries: Entries, by: FloatArray, gradapprox: FloatArray) -> float:
    """How far J, moved by so much each way, is from changing by the sum of what each entry does."""
    change = check.near(entries, by) - check.near(entries, -by)
    return abs(0.5 * change - float(gradapprox @ by))


def bent(check: Check, first: Approximation, means: FloatArray) -> Entries:
    """Entries whose one-sided slopes are apart, as at a kink, or where J bends sharply."""
    if not check.opaque:
        return np.empty(0, dtype=np.intp)
    low, high = first.slopes()
    with np.errstate(invalid="ignore", over="ignore"):
        gap, size = high - low, np.fmax(np.abs(low), np.abs(high))
        size = np.fmax(size, np.repeat(means, check.subset.layout.lengths))
        apart = (gap > GAP * size) & np.isfinite(gap) & (gap > 8 * first.uncertainty)
    return np.flatnonzero(apart)


class Around(NamedTuple):
    """The slopes of n entries, or moves, at points around θ, (n,) each.

    Attributes:
        low, high: from where to where.
        jumps: by how much they jump; 0 where J only bends.
        single: whether they take two values alone, as beside a single kink.
    """

    low: FloatArray
    high: FloatArray
    jumps: FloatArray
    single: NDArray[np.bool_]


def slopes_around(
    check: Check, moves: Sequence[tuple[Entries, FloatArray]], steps: FloatArray, points: int
) -> Around:
    """The slopes of J along n short moves, at points around θ and at points four times as close.

    At a kink they spread as far there; where J only bends, a quarter as far, which counts as none.

    Args:
        check: of the cost at θ.
        moves: the parameters that each moves, and by how much; slopes are the changes of J.
        steps: of each parameter, (P,); points are a few of these away.
        points: how many.
    """
    rng = generator(2)
    slopes = np.full((2, -(-points // ON_A_LINE), ON_A_LINE, len(moves)), np.nan)
    for line in range(slopes.shape[1]):
        # of very different lengths: now one parameter decides the side of a unit, now another
        start, along = (
            AWAY * steps * 10.0 ** rng.uniform(0, 1, steps.size) * rng.standard_normal(steps.size)
            for _ in range(2)
        )
        for p, t in enumerate(np.linspace(-REACH, REACH, ON_A_LINE)):
            for near, share in enumerate((1.0, 1.0 / NEARER)):
                point = check.cost.theta + share * (start + t * along)
                for i, (entries, by) in enumerate(moves):
                    values = point[entries]
                    point[entries] = values + by
                    J_plus = check.value(point)
                    point[entries] = values - by
                    slopes[near, line, p, i] = J_plus - check.value(point)
                    point[entries] = values
    with warnings.catch_warnings(action="ignore"):  # of slopes that can nowhere be had
        low, high = np.nanmin(slopes, axis=(1, 2)), np.nanmax(slopes, axis=(1, 2))
    far, near = high - low
    jumps = np.where(near > 0.5 * far, near, 0.0)
    with np.errstate(invalid="ignore"):
        shares = (slopes[1] - low[1]) / np.where(near > 0, near, 1.0)
    return Around(low[1], high[1], jumps, _crosses_once(shares) & (jumps > 0))


def _crosses_once(shares: FloatArray) -> NDArray[np.bool_]:
    """Whether each line crosses one kink at most, (n,), by the slopes on it as shares of the gap.

    Beside a single kink all slopes are 0 or 1, but for a few that met the kink itself, and change
    but once along a line.
    """
    lines = len(shares)
    at_low, at_high = np.abs(shares) <= LEVEL, np.abs(shares - 1.0) <= LEVEL
    between = (~(at_low | at_high)).sum(axis=1)
    sides = np.where(at_high, 1, np.where(at_low, 0, -1))
    changes = np.zeros(between.shape, dtype=np.intp)
    last = sides[:, 0]
    for p in range(1, sides.shape[1]):
        side = sides[:, p]
        changes += (side >= 0) & (last >= 0) & (side != last)
        last = np.where(side >= 0, side, last)
    crossed = (changes == 1).sum(axis=0)
    once: NDArray[np.bool_] = ((changes <= 1) & (between <= BETWEEN)).all(axis=0)
    once &= between.sum(axis=0) <= 0.1 * lines * ON_A_LINE
    once &= (crossed >= max(2, lines // 4)) & (lines >= ENOUGH // ON_A_LINE)
    return once


def around_entries(record: Record, entries: Entries) -> Around:
    """`slopes_around` along single entries, (n,)."""
    cost, whole = record.cost, record.subset.whole(entries)
    steps = np.minimum(record.steps_now, SHORT * np.maximum(np.abs(cost.theta), 1.0))
    points = max(SPENT * 2 * record.layout.size, AFFORDABLE) // (4 * entries.size)
    if entries.size <= FEW:
        points = max(points, ENOUGH)
    points = min(max(points, POINTS.start), POINTS.stop - 1)
    by = steps[whole] / FINER  # so that few of them meet the kink itself
    around = slopes_around(record, [*zip(whole[:, None], by[:, None], strict=True)], steps, points)
    low, high, jumps = (changes / (2.0 * by) for changes in around[:3])
    noise = uncertainty_of_differences(record.base.cost, record.base.noise, 2.0 * by)
    largest = np.fmax(np.abs(low), np.abs(high))
    # the points are no exact steps away
    noise += 4 * UNIT_ROUNDOFF * np.abs(cost.theta[whole]) / by * largest
    return Around(low - noise, high + noise, np.where(jumps > 4 * noise, jumps, 0.0), around.single)
