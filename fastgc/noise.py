"""The rounding noise of a cost, measured.

The difference table of Moré & Wild, *Estimating Computational Noise*, SIAM J. Sci. Comput. 33
(2011): along a line, the k-th differences of a smooth function die out as k grows, those of its
rounding errors do not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fastgc.drawing import generator
from fastgc.inside import UNIT_ROUNDOFF
from fastgc.layout import FloatArray
from fastgc.problem import Problem, random_cost, require_same_cost

POINTS = 9

# Steps tried in turn, along a direction of length 1, until fewer than half of the first differences
# are zero. The first is shorter than ε, so that the line meets a kink less often than the check
# does (the differences of a kink would be taken for noise), but not so short that the rounding
# errors repeat: at 2⁻³⁶ a network with weights of 0.01 showed none at all. The last is as far as a
# cost that rounds to single precision needs.
STEPS = tuple(2.0**e for e in range(-30, -5, 6))

# Noise above so many rounding units of J is measured again before it is believed.
SUSPICIOUS = 1e4
HUGE = 1e300  # parameters that no line should lead away from
AGAIN = 4  # calls of a noisy cost at θ, which have to give the same number

# The standard deviation of an error of rounding to a grain of 1.
GRAINY = 12**-0.5

# Rounding errors of J that are always allowed for: a J rounded once moves a central difference by
# u·|J|/ε, and a sum of a few terms by some more, when the table shows nothing.
LEAST_NOISE = 4 * UNIT_ROUNDOFF


@dataclass(frozen=True, eq=False, repr=False)
class Noise:
    """The rounding noise of a cost.

    Attributes:
        sigma: σ_J, the standard deviation of the rounding errors of J near θ.
        coarse: whether J has so few digits, as in single precision or beside a large constant, that
            a short step may not move it: then a difference of zero says nothing of its slope.
        evaluations: of the cost, spent on this.
        flat: whether no step moved J at all.
        single: whether all of its values were numbers of single precision.
        seen: its values, in order of size.
    """

    sigma: float
    coarse: bool
    evaluations: int
    flat: bool = False
    single: bool = False
    seen: tuple[float, ...] = ()


def noise_of_cost(problem: Problem, cost: float, memory: int) -> Noise:
    """The rounding noise of J near θ.

    Args:
        problem: whose cost it is.
        cost: J(θ), evaluated by itself.
        memory: bytes that it may allocate at once.

    Raises:
        ValueError: for a vectorized cost whose rows depend on each other, or a random one.
    """
    direction = generator(0).standard_normal(problem.theta.size)
    direction /= math.sqrt(direction @ direction)
    noise = _noise_along(problem, direction, cost, memory)
    largest = float(np.abs(problem.theta).max())
    if noise.flat and not problem.pure and 1.0 < largest < HUGE:
        # a cost that rounds its parameters, as to single precision, moves with these alone
        direction *= largest
        longer = _noise_along(problem, direction, cost, memory)
        noise = replace(
            longer, coarse=longer.coarse or not longer.flat, flat=False, single=False,
            evaluations=noise.evaluations + longer.evaluations,
        )  # fmt: skip
    if noise.sigma <= SUSPICIOUS * UNIT_ROUNDOFF * abs(cost):
        return noise
    # randomness that two calls happened not to show; a low precision; or a kink on the way: that
    # would hardly lie on the other side as well
    calls = 0 if problem.pure else sum(require_same_cost(problem, cost) for _ in range(AGAIN))
    other = _noise_along(problem, -direction, cost, memory)
    evaluations = noise.evaluations + other.evaluations + calls
    if other.flat and noise.single:  # it did not move that way, and shows nothing
        return replace(noise, evaluations=evaluations)
    sigma, coarse = min(noise.sigma, other.sigma), noise.coarse and other.coarse
    return replace(noise, sigma=sigma, coarse=coarse, evaluations=evaluations)


def _noise_along(problem: Problem, direction: FloatArray, cost: float, memory: int) -> Noise:
    theta = problem.theta
    evaluations = 0
    sigma = 0.0
    seen = {cost}
    for step in STEPS:
        # Multiples of a rounding unit of θ: then θ + iδ is exact, and the table shows the rounding
        # of the cost alone, not that of its arguments.
        delta = 4.0 * ((theta + 0.25 * step * direction) - theta)
        evaluations += POINTS
        try:
            costs = _along(problem, delta, memory)
        except Exception:
            if step == STEPS[0]:
                raise
            break  # further away than any perturbation of the check: the cost may end here
        if not all(map(math.isfinite, costs)):
            break
        seen.update(costs)
        sigma = table_noise(costs)
        if abs(costs[0] - cost) > 100 * max(sigma, UNIT_ROUNDOFF * abs(cost)):
            if problem.evaluate_stack is None or problem.compiled is not None:
                raise random_cost(problem, cost, costs[0])
            raise ValueError(
                f"the vectorized cost is {cost!r} for the parameters alone and {costs[0]!r} for "
                f"the same parameters in a stack of {POINTS}: its rows depend on each other. "
                "Sum and normalise within each row, over the axes after the first"
            )
        if sum(a == b for a, b in pairwise(costs)) <= POINTS // 2:
            break
    spacing = math.ldexp(1.0, math.frexp(cost)[1] - 24)  # of single precision, at J
    grain = min((b - a for a, b in pairwise(sorted(seen))), default=0.0)
    single = all(map(_is_single, seen)) and (len(seen) > 2 or 0 < grain <= 4 * spacing)
    stuck = len(seen) > 1 and evaluations > POINTS  # it took longer steps to move it
    coarse = (single or stuck) and not problem.pure
    if coarse:  # by chance a few of its values may lie on a line: it is rounded all the same
        sigma = max(sigma, GRAINY * (max(grain, spacing) if single else grain))
    values = tuple(sorted(seen))
    return Noise(sigma, coarse, evaluations, flat=len(seen) == 1, single=single, seen=values)


def _is_single(value: float) -> bool:
    """Whether `value` is a number of single precision, as one in 2²⁹ of double precision is."""
    return math.frexp(value)[0] * 2**24 % 1 == 0


def _along(problem: Problem, delta: FloatArray, memory: int) -> list[float]:
    """J(θ + iδ) for i = 0 … 8; in one stack where that is small and quick."""
    theta = problem.theta
    stack = POINTS * (8 * theta.size + problem.row_bytes)
    small = stack <= memory // 8 and problem.rows_at_once >= POINTS
    if problem.evaluate_stack is not None and small:
        rows = theta + np.arange(POINTS)[:, np.newaxis] * delta
        return [float(cost) for cost in problem.evaluate_stack(rows)]
    return [problem.evaluate(theta + i * delta) for i in range(POINTS)]


def table_noise(values: Sequence[float]) -> float:
    """The noise that the difference table of equally spaced `values` shows.

    The first order whose estimate agrees within a factor of 4 with the two after it, and whose
    differences have both signs; where there is none, the smallest of the estimates that rest on at
    least three differences, which smoothness has inflated least.

    >>> table_noise([0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0])     # a parabola has no noise
    0.0
    """
    largest = max(map(abs, values))
    if largest == 0:
        return 0.0
    unit = 2.0 ** (math.frexp(largest)[1] - 1)  # squares of 1e200 would overflow
    estimates: list[float] = []
    both_signs: list[bool] = []
    gamma = 1.0
    row = [value / unit for value in values]
    for k in range(1, len(values)):
        row = [b - a for a, b in pairwise(row)]
        gamma *= k / (2 * (2 * k - 1))
        estimates.append(math.sqrt(gamma * sum(d * d for d in row) / len(row)))
        both_signs.append(min(row) < 0 < max(row))
    for k in range(len(estimates) - 2):
        three = estimates[k : k + 3]
        if both_signs[k] and max(three) <= 4 * min(three):
            return unit * estimates[k]
    return unit * min(estimates[:-2])


def uncertainty_of_differences(cost: float, noise: float, steps: FloatArray) -> FloatArray:
    """How far rounding may move (J_plus − J_minus) / step: 10 σ_J / ε, at least 4u·|J| / ε, (P,).

    Args:
        cost: J(θ).
        noise: σ_J.
        steps: 2ε as realised, (P,); where it is 0 the uncertainty is inf.
    """
    uncertainty = np.full(steps.shape, np.inf)
    error = 2.0 * max(10.0 * noise, LEAST_NOISE * abs(cost))
    np.divide(error, steps, out=uncertainty, where=steps > 0)
    return uncertainty
