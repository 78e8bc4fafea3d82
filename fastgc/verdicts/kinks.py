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
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Step
from fastgc.core.verdict import AGREE
from fastgc.costs.base import Problem
from fastgc.costs.noise import LEAST_NOISE, Base, uncertainty_of_differences
from fastgc.methods.base import Approximation
from fastgc.network.state import UNIT_ROUNDOFF, ForwardState
from fastgc.verdicts.refinement import SHORTER

MOST_ROWS = 64  # perturbed parameters held at once, and
MOST_NUMBERS = 2**22  # numbers in them

# Directions in which a corner is looked for; a ReLU behind a ReLU is silent in many.
DIRECTIONS = 12
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


#: Rows θ + d, θ − d, …, (2n, P), and how long each d is, upwards and downwards, (n,) each.
Pairs: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


class Interval(NamedTuple):
    """What is known of the slopes of n entries.

    Attributes:
        low: the least slope, (n,).
        high: the greatest.
        uncertainty: of both.
        evaluations: of the cost, spent on this.
    """

    low: FloatArray
    high: FloatArray
    uncertainty: FloatArray
    evaluations: int


def by_sample(
    state: ForwardState, entries: Entries, base: Base, epsilon: FloatArray, shorter: float
) -> Interval:
    """The slopes of J, a Network's, corners taken sample by sample.

    A sample adds the interval between its one-sided slopes, where these stay apart when the step is
    `shorter` times as long, and between those that it has with all the units at their corners
    inactive, all active, and half-way, which are what a backward pass may take. Any other adds its
    central difference.
    """
    theta = state.theta
    low, high, uncertainty = np.empty((3, entries.size))
    each = max(1, min(MOST_ROWS, MOST_NUMBERS // theta.size) // 2)
    for start in range(0, entries.size, each):
        some = entries[start : start + each]
        own = epsilon[some]

        def moved(share: float, some: Entries = some, own: FloatArray = own) -> Pairs:
            step = share * own
            rows = np.repeat(theta[np.newaxis], 2 * some.size, axis=0)
            rows[np.arange(some.size) * 2, some] += step
            rows[np.arange(some.size) * 2 + 1, some] -= step
            return rows, (theta[some] + step) - theta[some], theta[some] - (theta[some] - step)

        part = slice(start, start + some.size)
        low[part], high[part], uncertainty[part] = _by_sample(state, base, moved, shorter)
    spent = (4 + 2 * len(state.forced())) * entries.size + 1
    return Interval(low, high, uncertainty, spent)


def by_sample_along(state: ForwardState, move: Move, base: Base, shorter: float) -> Interval:
    """`by_sample` of one move of many entries at once, whose slope is the change that it makes."""

    def moved(share: float) -> Pairs:
        entries, by = move
        rows = np.repeat(state.theta[np.newaxis], 2, axis=0)
        rows[0, entries] += share * by
        rows[1, entries] -= share * by
        return rows, np.array([share]), np.array([share])

    return Interval(*_by_sample(state, base, moved, shorter), 5 + 2 * len(state.forced()))


def _by_sample(
    state: ForwardState, base: Base, moved: Callable[[float], Pairs], shorter: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The least and the greatest slopes, and their uncertainty, (n,) each."""
    m, divisor, forced = state.net.m, state.net.divisor, state.forced()
    at_kink = np.zeros(m + 1, dtype=np.bool_)  # the last is weight decay
    for at in state.kinks:
        at_kink[:m] |= at.any(axis=1)
    here = state.sample_losses(state.theta[np.newaxis])[0] / divisor
    gaps = []
    for share in (1.0, 1.0 / shorter):
        rows, up, down = moved(share)
        losses = state.sample_losses(rows) / divisor
        above = (losses[0::2] - here) / up[:, np.newaxis]
        below = (here - losses[1::2]) / down[:, np.newaxis]
        gaps.append(np.abs(above - below))
    uncertainty = uncertainty_of_differences(base.cost, base.noise, up + down)
    kink = (gaps[1] > gaps[0] / 4) & (gaps[1] > uncertainty[:, np.newaxis])
    middle = 0.5 * (above + below)
    least = np.where(kink | at_kink, np.minimum(below, above), middle)
    greatest = np.where(kink | at_kink, np.maximum(below, above), middle)
    for side in forced:
        losses = state.sample_losses(rows, side) / divisor
        slope = (losses[0::2] - losses[1::2]) / (up + down)[:, np.newaxis]
        least = np.where(at_kink, np.minimum(least, slope), least)
        greatest = np.where(at_kink, np.maximum(greatest, slope), greatest)
    return least.sum(axis=1), greatest.sum(axis=1), uncertainty


def has_kink(problem: Problem, base: Base, epsilon: FloatArray, tries: int) -> tuple[bool, int]:
    """Whether J has a corner at θ, along random directions; and the evaluations spent.

    In a random direction the jumps of many corners do not cancel. J_plus − 2J + J_minus falls with
    the step at a corner, with its square elsewhere.
    """
    rng = generator(1)
    floor = 8.0 * max(10.0 * base.noise, 2.0 * LEAST_NOISE * abs(base.cost))
    for tried in range(1, tries + 1):
        direction = epsilon * rng.standard_normal(epsilon.size)
        bends = [
            abs(
                problem.evaluate_or_nan(problem.theta + t * direction)
                - 2.0 * base.cost
                + problem.evaluate_or_nan(problem.theta - t * direction)
            )
            for t in (1.0, 0.125)
        ]
        if bends[1] > bends[0] / 16 and bends[1] > floor:  # not where any is NaN
            return True, 4 * tried
    return False, 4 * tries


def sums_up(
    problem: Problem,
    base: Base,
    entries: Entries,
    steps: FloatArray,
    gradapprox: FloatArray,
    uncertainty: FloatArray,
) -> tuple[bool, int]:
    """Whether the slope of J along random directions is the sum of those of its entries.

    Args:
        problem, base: the cost at θ.
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
            apart.append(off_along(problem, entries, share * by, gradapprox))
            bends.append(float(uncertainty @ np.abs(share * by)))
        # what curvature adds falls with the cube of the step, a kink's share with the step itself
        if apart[1] > max(apart[0] / 32, 2 * bends[1] + 8 * base.rounding):
            return False, 4 * tried
    return True, 4 * SUMS


def off_along(problem: Problem, entries: Entries, by: FloatArray, gradapprox: FloatArray) -> float:
    """How far J, moved by so much each way, is from changing by the sum of what each entry does."""
    change = problem.cost_near(entries, by) - problem.cost_near(entries, -by)
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
    problem: Problem,
    moves: Callable[[int], Move],
    count: int,
    steps: FloatArray,
    points: int,
) -> Around:
    """The slopes of J along n short moves, at points around θ and at points four times as close.

    At a corner they spread as far there; where J only bends, a quarter as far, which counts as
    none.

    Args:
        problem: the cost at θ.
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
                point = problem.theta + share * (start + t * along)
                for i in range(count):
                    entries, by = moves(i)
                    values = point[entries]
                    point[entries] = values + by
                    J_plus = problem.evaluate_or_nan(point)
                    point[entries] = values - by
                    found[near, line, p, i] = J_plus - problem.evaluate_or_nan(point)
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
    problem: Problem, entries: Entries, base: Base, epsilon: FloatArray, checked: int
) -> Around:
    """`slopes_around` along single entries, (n,).

    `checked` is how many entries the check itself is about, which limits what is spent.
    """
    step = np.minimum(epsilon, SHORT * np.maximum(np.abs(problem.theta), 1.0))
    points = max(SPENT * 2 * checked, AFFORDABLE) // (4 * entries.size)
    if entries.size <= FEW:
        points = max(points, ENOUGH)
    points = min(max(points, POINTS.start), POINTS.stop - 1)
    own = step[entries] / FINER  # so that few of them meet the kink itself
    found = slopes_around(
        problem, lambda i: (entries[i : i + 1], own[i : i + 1]), entries.size, step, points
    )
    noise = uncertainty_of_differences(base.cost, base.noise, 2.0 * own)
    largest = np.fmax(np.abs(found.low), np.abs(found.high)) / (2.0 * own)
    # the points are no exact steps away
    noise += 4 * UNIT_ROUNDOFF * np.abs(problem.theta[entries]) / own * largest
    low, high, jumps = (values / (2.0 * own) for values in (found.low, found.high, found.jumps))
    return found._replace(
        jumps=np.where(jumps > 4 * noise, jumps, 0.0), low=low - noise, high=high + noise
    )


GAP = 1e-4  # of the slopes, that those on both sides of an entry are apart at a kink, and more
SHARES = 0.3, 0.7  # of a step, by which all entries are moved once more


def bent(
    problem: Problem,
    first: Approximation,
    means: FloatArray,
    subset: Subset,
    *,
    skip: bool,
) -> Entries:
    """Entries whose one-sided slopes are apart, as at a kink, or where J bends sharply."""
    if skip or problem.state is not None:
        return np.empty(0, dtype=np.intp)
    low, high = first.slopes()
    layout = subset.layout
    with np.errstate(invalid="ignore", over="ignore"):
        gap = high - low
        size = np.fmax(np.abs(low), np.abs(high))
        apart = (gap > GAP * np.fmax(size, np.repeat(means, layout.lengths))) & np.isfinite(gap)
        return np.flatnonzero(apart & (gap > 8 * first.uncertainty))


def adds_up(
    problem: Problem,
    base: Base,
    first: Approximation,
    codes: NDArray[np.uint8],
    subset: Subset,
    epsilon: Step,
    *,
    skip: bool,
) -> tuple[bool, int]:
    """Whether J moves along all that agrees as gradapprox says; and the evaluations spent.

    A cost whose period is the step looks flat, entry by entry. So does a median at a tie, which no
    single entry moves.
    """
    agree = np.flatnonzero((codes == AGREE) & np.isfinite(first.gradapprox))
    if skip or problem.state is not None or agree.size == 0:
        return True, 0
    rng = generator(12)
    whole = subset.whole(agree)
    by = np.broadcast_to(epsilon, problem.layout.size)[whole] * rng.uniform(*SHARES, agree.size)
    by *= rng.choice((-1.0, 1.0), agree.size)
    gradapprox = first.gradapprox[agree]
    allowance = 2.0 * float(first.uncertainty[agree] @ np.abs(by))
    floor = 2.0 * max(base.jitter, LEAST_NOISE * abs(base.cost))
    apart = [0.0, 0.0]
    for look, share in enumerate((1.0, 1.0 / SHORTER)):
        apart[look] = off_along(problem, whole, share * by, gradapprox)
        if not apart[look] > share * allowance + floor:  # nor where it cannot be had
            return True, 2 * (look + 1)
    # what the slope bends by falls with the cube of the step
    return not apart[1] > apart[0] / (4 * SHORTER), 4
