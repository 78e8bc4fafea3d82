"""Whether a Network computes the same cost as a function of the caller's own."""

import math
from dataclasses import replace

import numpy as np

from fastgc.drawing import generator
from fastgc.noise import noise_of_cost
from fastgc.problem import Problem, base_cost

# How far from θ they are compared, in the parameters' size: far enough to wake silent units.
AWAY = (0.0, 0.03, 0.1, 0.3, 1.0, 1.0)
RETREATS = 3  # to a tenth of that, where a cost is not finite

# Costs may differ by so much, at θ and away from it: their formulas round differently, as
# log(1 − a) does where a is nearly 1, or guard a logarithm with 1e-8.
TOLERANCE, TOLERANCE_AWAY = 2e-7, 1e-5


def require_likeness(problem: Problem, own: Problem, memory: int) -> tuple[float, int]:
    """How far the two costs lie apart at most, relative, and the evaluations of the caller's.

    They are compared at θ and at random points around it, up to the parameters' own size away, so
    that another activation, loss or decay shows.

    Args:
        problem: of the Network.
        own: of the caller's cost, at the same parameters.
        memory: bytes that may be allocated at once.

    Raises:
        ValueError: where they differ by more than 2e-7 at θ, 1e-5 away from it, and what rounding
            explains.
    """
    assert problem.inside is not None
    theta, samples = problem.theta, problem.inside.net.m
    cost, spent = base_cost(own)
    rng = generator(4)
    size = np.empty(theta.size)
    for _, part in problem.layout.tensors():
        size[part] = math.sqrt(float(np.mean(np.square(theta[part])))) or 1.0
    largest = 0.0
    for i, away in enumerate(AWAY):
        direction = rng.standard_normal(theta.size) * size
        for _ in range(RETREATS):
            point = theta + away * direction
            mine = problem.evaluate_or_nan(point)
            theirs = cost if away == 0 else own.evaluate_or_nan(point)
            spent += away != 0
            if math.isfinite(mine) and math.isfinite(theirs):
                break
            away /= 10
        else:
            continue
        scale = max(abs(mine), abs(theirs))
        apart, tolerance = abs(mine - theirs), TOLERANCE_AWAY if i else TOLERANCE
        if apart > tolerance * scale:
            noise = noise_of_cost(replace(own, theta=point), theirs, memory)
            spent += noise.evaluations
            if apart > tolerance * scale + 100 * noise.sigma:
                raise ValueError(_difference(mine, theirs, samples, at_theta=i == 0))
        largest = max(largest, apart / scale if scale else 0.0)
    return largest, spent


def _difference(mine: float, theirs: float, m: int, *, at_theta: bool) -> str:
    where = "at the parameters given" if at_theta else "near the parameters given, not at them"
    ratio = theirs / mine if mine else math.nan
    if math.isclose(ratio, m, rel_tol=1e-6) and m > 1:
        advice = f"It is {m} times the Network's: a sum over the samples where that takes the mean?"
    elif at_theta:
        advice = "Has it another loss, label, factor or weight decay?"
    else:
        advice = "Has it another activation, loss or weight decay, or a guard in a logarithm?"
    return (
        f"the Network does not compute the cost passed as against=: {where} it is {mine!r} and "
        f"that cost {theirs!r}; they differ by {abs(mine - theirs):.3g}. {advice} "
        "Mend the Network, or check the cost itself"
    )
