"""Corners at the parameters themselves: what slopes an entry may have where the cost has none.

The two one-sided slopes of J do not show them all: at a corner in one sample the slope jumps up, in
another down, and the sum may look smooth. A Network's samples are looked at one by one; any other
cost is looked at from parameters close by.
"""

import math
from typing import NamedTuple

import numpy as np

from fastgc.drawing import generator
from fastgc.inside import Inside
from fastgc.layout import FloatArray
from fastgc.methods import Base
from fastgc.methods.interface import Entries
from fastgc.noise import LEAST_NOISE, uncertainty_of_differences
from fastgc.problem import Problem

MOST_ROWS = 64  # perturbed parameters held at once, and
MOST_NUMBERS = 2**22  # numbers in them

# Directions in which a corner is looked for; a ReLU behind a ReLU is silent in many.
DIRECTIONS = 12

# Points near θ from which a cost that fastgc cannot see into is looked at. A slope that needs five
# units on their right sides shows at one in 32.
POINTS = range(4, 201)
SPENT = 8  # times the evaluations of the check itself, on more than the fewest points
AWAY = 4.0  # steps to the nearest
NEARER = 4.0  # times, for a second look at each

# The longest step from there, over the size of the entry, or over 1: over the length of a long step
# a slope changes by its curvature, and that is no corner.
SHORT = 1e-7


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
    inside: Inside, entries: Entries, base: Base, epsilon: FloatArray, shorter: float
) -> Interval:
    """The slopes of J, a Network's, corners taken sample by sample.

    A sample adds the interval between its one-sided slopes, where these stay apart when the step is
    `shorter` times as long, and between those that it has with all the units at their corners
    inactive, all active, and half-way, which are what a backward pass may take. Any other adds its
    central difference.
    """
    theta, m, divisor = inside.theta, inside.net.m, inside.net.divisor
    forced = inside.forced()
    cornered = np.zeros(m + 1, dtype=np.bool_)  # the last is weight decay
    for at in inside.corners:
        cornered[:m] |= at.any(axis=1)
    here = inside.sample_losses(theta[np.newaxis])[0] / divisor
    low, high, uncertainty = np.empty((3, entries.size))
    each = max(1, min(MOST_ROWS, MOST_NUMBERS // theta.size) // 2)
    for start in range(0, entries.size, each):
        some = entries[start : start + each]
        gaps = []
        for step in (epsilon[some], epsilon[some] / shorter):
            up, down = (theta[some] + step) - theta[some], theta[some] - (theta[some] - step)
            rows = np.repeat(theta[np.newaxis], 2 * some.size, axis=0)
            rows[np.arange(some.size) * 2, some] += step
            rows[np.arange(some.size) * 2 + 1, some] -= step
            losses = inside.sample_losses(rows) / divisor
            above = (losses[0::2] - here) / up[:, np.newaxis]
            below = (here - losses[1::2]) / down[:, np.newaxis]
            gaps.append(np.abs(above - below))
        found = uncertainty_of_differences(base.cost, base.noise, up + down)
        corner = (gaps[1] > gaps[0] / 4) & (gaps[1] > found[:, np.newaxis])
        middle = 0.5 * (above + below)
        least = np.where(corner | cornered, np.minimum(below, above), middle)
        greatest = np.where(corner | cornered, np.maximum(below, above), middle)
        for side in forced:
            losses = inside.sample_losses(rows, side) / divisor
            slope = (losses[0::2] - losses[1::2]) / (up + down)[:, np.newaxis]
            least = np.where(cornered, np.minimum(least, slope), least)
            greatest = np.where(cornered, np.maximum(greatest, slope), greatest)
        part = slice(start, start + some.size)
        low[part], high[part] = least.sum(axis=1), greatest.sum(axis=1)
        uncertainty[part] = found
    return Interval(low, high, uncertainty, (4 + 2 * len(forced)) * entries.size + 1)


def at_corner(problem: Problem, base: Base, epsilon: FloatArray, tries: int) -> tuple[bool, int]:
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


def jumps_close_by(
    problem: Problem, entries: Entries, base: Base, epsilon: FloatArray, checked: int
) -> tuple[FloatArray, tuple[FloatArray, FloatArray], int]:
    """How far the slopes of J jump around θ, (n,), from where to where, and the evaluations spent.

    The slopes of each entry are taken at points around θ, and at points four times as close. At a
    corner they spread as far there; where J only bends, a quarter as far, which counts as none.
    `checked` is how many entries the check itself is about, which limits what is spent.
    """
    rng = generator(2)
    step = np.minimum(epsilon, SHORT * np.maximum(np.abs(problem.theta), 1.0))
    low, high = np.full((2, 2, entries.size), np.inf)
    high = -high
    points = SPENT * checked // (2 * entries.size)
    points = min(max(points, POINTS.start), POINTS.stop - 1)
    for _ in range(points):
        # of very different lengths: now one parameter decides the side of a unit, now another
        away = AWAY * step * 10.0 ** rng.uniform(0, 1, step.size)
        away *= rng.standard_normal(step.size)
        for near, share in enumerate((1.0, 1.0 / NEARER)):
            point = problem.theta + share * away
            for i, k in enumerate(entries):
                value = point[k]
                point[k] = plus = value + step[k]
                J_plus = problem.evaluate_or_nan(point)
                point[k] = minus = value - step[k]
                J_minus = problem.evaluate_or_nan(point)
                slope = (J_plus - J_minus) / (plus - minus) if plus > minus else math.nan
                low[near, i] = np.fmin(low[near, i], slope)
                high[near, i] = np.fmax(high[near, i], slope)
                point[k] = value
    far, near_by = high - low
    noise = 4 * uncertainty_of_differences(base.cost, base.noise, 2.0 * step[entries])
    jumps = np.where((near_by > 0.5 * far) & (near_by > noise), near_by, 0.0)
    return jumps, (low[1], high[1]), 4 * points * entries.size
