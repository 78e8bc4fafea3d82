"""`loop`: one parameter at a time, a whole forward pass each; the reference.

It is the course's loop. It shares nothing with the other methods but the cost itself, so that a
mistake in one of them cannot hide here.
"""

from functools import partial

import numpy as np

from fastgc.core.tree import Entries, FloatArray, Step
from fastgc.costs.base import Base, Cost
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.methods.base import Approximation, Method, best, forward_flops_of_all
from fastgc.parallel.chunks import Advance, Resources, perform


def approximate(
    cost: Cost, entries: Entries | None, base: Base, epsilon: Step, resources: Resources
) -> Approximation:
    """gradapprox_k = (J(θ + ε e_k) − J(θ − ε e_k)) / 2ε, with the step as it was realised."""
    entries = np.arange(cost.theta.size) if entries is None else entries
    each = np.broadcast_to(epsilon, cost.theta.shape)[entries]
    found = np.empty((4, entries.size))
    perform(
        partial(differences, base.cost), cost, (entries, each), found, resources,
        perturbations=2 * entries.size, key=(cost.theta,),
    )  # fmt: skip
    gradapprox, below, above, steps = found
    return Approximation(
        gradapprox=gradapprox,
        uncertainty=uncertainty_of_differences(
            base.cost, base.noise, steps, (below, above), cost.scale[entries]
        ),
        # of a cost that cannot be had on one side, the slope on the other
        slopes=lambda: (np.fmin(below, above), np.fmax(below, above)),
        evaluations=2 * entries.size,
    )


def differences(
    J: float, cost: Cost, entries: Entries, each: FloatArray, advance: Advance
) -> FloatArray:
    """The loop itself: of each entry gradapprox, both one-sided slopes and the step, (4, n)."""
    theta = cost.theta.copy()
    gradapprox, below, above, steps = found = np.zeros((4, entries.size))
    for i, k in enumerate(entries):
        value, step = theta[k], each[i]
        theta[k] = plus = value + step
        J_plus = cost.value_or_nan(theta)
        theta[k] = minus = value - step
        J_minus = cost.value_or_nan(theta)
        theta[k] = value
        # θ ± ε is rounded: at θ = 1000 by 1e-13, a millionth of the step. What was really taken
        # divides; a step lost altogether leaves 0, and an unbounded uncertainty.
        if minus < value < plus:
            steps[i] = plus - minus
            gradapprox[i] = (J_plus - J_minus) / (plus - minus)
            below[i] = (J - J_minus) / (value - minus)
            above[i] = (J_plus - J) / (plus - value)
        advance(2)
    return found


def _seconds(cost: Cost, _: Resources) -> float:
    return 2 * cost.layout.size * best(lambda: cost.value(cost.theta), 5)


LOOP = Method(
    "loop",
    approximate,
    refusal=lambda _: None,
    least_memory=lambda _: 0,
    epsilon=1e-7,
    flops=forward_flops_of_all,
    vectors=8,
    memory=lambda cost, _: cost.row_bytes,
    seconds=_seconds,
)
