"""Corners at the parameters themselves: what slopes an entry may have where the cost has none.

The two one-sided slopes of J do not show them all: at a corner in one sample the slope jumps up, in
another down, and the sum may look smooth. A Network's samples are looked at one by one; any other
cost is looked at from parameters close by.
"""

import math
from typing import NamedTuple

import numpy as np

from fastgc.inside import Inside
from fastgc.layout import FloatArray
from fastgc.methods import Base
from fastgc.methods.interface import Entries
from fastgc.noise import uncertainty_of_differences
from fastgc.problem import Problem

MOST_ROWS = 64  # perturbed parameters held at once, and
MOST_NUMBERS = 2**22  # numbers in them

# Points near θ from which a cost that fastgc cannot see into is looked at, so many steps away: a
# slope that needs five units on their right sides shows at one point in 32. In 2,782 networks drawn
# from small integers a right gradient that takes 0 for the slope of a ReLU at 0 was never accused,
# one that takes 1 was in 8, with 96 points.
POINTS = range(4, 401)
DIRECTIONS = 12  # in which a corner is looked for; a ReLU behind a ReLU is silent in many
SPENT = 16  # times the evaluations of the check itself, on more than the fewest points
AWAY = 8.0


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
    theta, m = inside.theta, inside.net.m
    forced = inside.forced()
    cornered = np.zeros(m + 1, dtype=np.bool_)  # the last is weight decay
    for at in inside.corners:
        cornered[:m] |= at.any(axis=1)
    here = inside.sample_losses(theta[np.newaxis])[0] / m
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
            losses = inside.sample_losses(rows) / m
            above = (losses[0::2] - here) / up[:, np.newaxis]
            below = (here - losses[1::2]) / down[:, np.newaxis]
            gaps.append(np.abs(above - below))
        found = uncertainty_of_differences(base.cost, base.noise, up + down)
        corner = (gaps[1] > gaps[0] / 4) & (gaps[1] > found[:, np.newaxis])
        middle = 0.5 * (above + below)
        least = np.where(corner | cornered, np.minimum(below, above), middle)
        greatest = np.where(corner | cornered, np.maximum(below, above), middle)
        for side in forced:
            losses = inside.sample_losses(rows, side) / m
            slope = (losses[0::2] - losses[1::2]) / (up + down)[:, np.newaxis]
            least = np.where(cornered, np.minimum(least, slope), least)
            greatest = np.where(cornered, np.maximum(greatest, slope), greatest)
        part = slice(start, start + some.size)
        low[part], high[part] = least.sum(axis=1), greatest.sum(axis=1)
        uncertainty[part] = found
    return Interval(low, high, uncertainty, (4 + 2 * len(forced)) * entries.size + 1)


def at_corner(problem: Problem, base: Base, epsilon: FloatArray) -> tuple[bool, int]:
    """Whether J has a corner at θ, along random directions; and the evaluations spent.

    In a random direction the jumps of many corners do not cancel. J_plus − 2J + J_minus falls with
    the step at a corner, with its square elsewhere.
    """
    rng = np.random.default_rng(1)
    floor = 8.0 * max(10.0 * base.noise, uncertainty_of_differences(base.cost, 0.0, np.ones(1))[0])
    for tried in range(1, DIRECTIONS + 1):
        direction = epsilon * rng.standard_normal(epsilon.size)
        bends = [
            abs(
                _cost_at(problem, problem.theta + t * direction)
                - 2.0 * base.cost
                + _cost_at(problem, problem.theta - t * direction)
            )
            for t in (1.0, 0.125)
        ]
        if bends[1] > bends[0] / 16 and bends[1] > floor:  # not where any is NaN
            return True, 4 * tried
    return False, 4 * DIRECTIONS


def close_by(problem: Problem, entries: Entries, base: Base, epsilon: FloatArray) -> Interval:
    """The slopes of J at points around θ, some steps away: at a corner it has others there."""
    rng = np.random.default_rng(2)
    low, high = np.full(entries.size, np.inf), np.full(entries.size, -np.inf)
    points = SPENT * problem.theta.size // entries.size
    points = min(max(points, POINTS.start), POINTS.stop - 1)
    for _ in range(points):
        # of very different lengths: now one parameter decides the side of a unit, now another
        lengths = AWAY * epsilon * 10.0 ** rng.uniform(0, 1.5, epsilon.size)
        point = problem.theta + lengths * rng.standard_normal(epsilon.size)
        for i, k in enumerate(entries):
            value = point[k]
            point[k] = plus = value + epsilon[k]
            J_plus = _cost_at(problem, point)
            point[k] = minus = value - epsilon[k]
            slope = (J_plus - _cost_at(problem, point)) / max(plus - minus, np.finfo(float).tiny)
            low[i], high[i] = np.fmin(low[i], slope), np.fmax(high[i], slope)
            point[k] = value
    uncertainty = uncertainty_of_differences(base.cost, base.noise, 2.0 * epsilon[entries])
    return Interval(low, high, uncertainty, 2 * points * entries.size)


def _cost_at(problem: Problem, vector: FloatArray) -> float:
    """J, or NaN where the cost cannot be had: it may end here, off the axes that are checked."""
    try:
        return problem.evaluate(vector)
    except Exception:
        return math.nan
