"""`incremental`: each weight and bias, recomputing only what it reaches, as a change.

Changing W_l[i, j] by t changes Z_l[i, s] by t·A_{l−1}[j, s] and nothing else of its layer; the
response carries that up to the loss of sample s.
"""

from functools import partial

import numpy as np

from fastgc.core.tree import Entries, FloatArray
from fastgc.costs.base import Problem
from fastgc.costs.noise import Base
from fastgc.methods.base import Approximation, Method
from fastgc.methods.exact import add_decay, kernel_memory, kernel_seconds, slope_intervals
from fastgc.network.flops import flops
from fastgc.network.propagate import (
    SAFETY,
    kernel_arguments,
    kernels,
    least_memory,
    refusal,
    respond,
    tasks_holding,
)
from fastgc.parallel.chunks import Resources


def approximate(
    problem: Problem, entries: Entries | None, _base: Base, epsilon: float, resources: Resources
) -> Approximation:
    """gradapprox = Σ_s [r(ε A) − r(−ε A)] / 2εm."""
    state = problem.state
    assert state is not None
    arguments = kernel_arguments(state)
    tasks = None if entries is None else tasks_holding(state, entries)
    found = respond(state, arguments, epsilon, resources, by_unit=False, tasks=tasks)
    found /= state.net.divisor
    gradapprox, size, half_gap = found if entries is None else found[:, entries]
    add_decay(state, entries, gradapprox, size)
    size *= SAFETY

    def slopes() -> tuple[FloatArray, FloatArray]:
        low, high = gradapprox - half_gap, gradapprox + half_gap
        if any(at.any() for at in state.kinks):
            by_unit = respond(state, arguments, epsilon, resources, by_unit=True)
            least, greatest = slope_intervals(
                state, arguments, epsilon, entries, resources, by_unit
            )
            low, high = np.minimum(low, least), np.maximum(high, greatest)
        return low, high

    return Approximation(gradapprox, size, slopes, 2 * gradapprox.size)


def evaluations(problem: Problem) -> int:
    """Two for each parameter."""
    return 2 * problem.layout.size


INCREMENTAL = Method(
    approximate, refusal, evaluations, least_memory, epsilon=2.0**-40, exact=True, load=kernels,
    flops=partial(flops, "incremental"), vectors=6, memory=kernel_memory,
    seconds=partial(kernel_seconds, by_unit=False),
)  # fmt: skip
