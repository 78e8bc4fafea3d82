"""`node`: each pre-activation of each sample, put together by the linearity of Z in W and b.

D_l[i, s] = [r(h) − r(−h)] / 2h, with r the change of sample s's loss when Z_l[i, s] changes; then
gradapprox is D_l A_{l−1}ᵀ / m for W_l and Σ_s D_l / m for b_l.
"""

from functools import partial

import numpy as np

from fastgc.core.tree import Entries, FloatArray
from fastgc.costs.base import Problem
from fastgc.costs.noise import Base
from fastgc.methods.base import Approximation, Method
from fastgc.methods.exact import (
    ROWS,
    add_decay,
    assemble,
    kernel_memory,
    kernel_seconds,
    product_seconds,
    slope_intervals,
)
from fastgc.network.flops import flops, perturbations
from fastgc.network.propagate import (
    SAFETY,
    kernel_arguments,
    kernels,
    least_memory,
    refusal,
    respond,
)
from fastgc.parallel.chunks import Resources


def approximate(
    problem: Problem, entries: Entries | None, _base: Base, epsilon: float, resources: Resources
) -> Approximation:
    """gradapprox from the responses to each pre-activation; `epsilon` is h."""
    state = problem.state
    assert state is not None
    arguments = kernel_arguments(state)
    found = respond(state, arguments, epsilon, resources, by_unit=True)
    plus, minus, gross = found
    D = (plus - minus) / (2 * epsilon)
    gradapprox, size = assemble(state, D, np.abs(D) + gross, entries, resources)
    add_decay(state, entries, gradapprox, size)
    size *= SAFETY

    def slopes() -> tuple[FloatArray, FloatArray]:
        return slope_intervals(state, arguments, epsilon, entries, resources, found)

    return Approximation(gradapprox, size, slopes, evaluations(problem))


def evaluations(problem: Problem) -> int:
    """Two for each pre-activation of each sample, of that sample's loss alone."""
    assert problem.state is not None
    return perturbations("node", problem.state.widths, problem.state.net.m)


def _seconds(problem: Problem, resources: Resources) -> float:
    kernel = kernel_seconds(problem, resources, by_unit=True)
    return kernel + product_seconds(problem, resources, ROWS)


NODE = Method(
    approximate, refusal, evaluations, least_memory, epsilon=2.0**-40, exact=True, load=kernels,
    flops=partial(flops, "node"), vectors=5, memory=kernel_memory, seconds=_seconds,
)  # fmt: skip
