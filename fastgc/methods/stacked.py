"""`stacked`: many perturbed copies of the parameters in one vectorised forward pass.

Row 2k of the (2P × P) matrix is θ + ε e_k, row 2k + 1 is θ − ε e_k; the matrix is made and
evaluated in blocks of K rows, K even.
"""

from collections.abc import Iterator

import numpy as np

from fastgc.layout import FloatArray
from fastgc.methods.interface import Approximation, Base, Method, Resources
from fastgc.noise import uncertainty_of_differences
from fastgc.problem import Problem
from fastgc.threads import share

# What a block's rows and activations should fit into. On 30-64-32-1 with m = 64, 4 MiB took
# 0.136 s, 1 MiB 0.164 s, 256 KiB 0.22 s, a row at a time 0.32 s (Zen 5, 1 MiB of L2, 32 of L3).
CACHE_BYTES = 4 * 2**20

# Vectors of P numbers that a check holds besides its blocks: θ, steps, costs, gradapprox, …
RESULT_VECTORS = 16


def approximate(
    problem: Problem, base: Base, epsilon: float, resources: Resources
) -> Approximation:
    """gradapprox_k = (J(θ + ε e_k) − J(θ − ε e_k)) / 2ε, with the step as it was realised."""
    J_plus, J_minus, steps = perturbed_costs(problem, epsilon, resources)
    gradapprox = np.zeros(steps.size)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: the verdict is "nonfinite"
        np.divide(J_plus - J_minus, steps, out=gradapprox, where=steps > 0)
    return Approximation(
        gradapprox=gradapprox,
        uncertainty=uncertainty_of_differences(base.cost, base.noise, steps),
        evaluations=2 * steps.size,
    )


def perturbed_costs(
    problem: Problem, epsilon: float, resources: Resources
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """J_plus, J_minus, and the steps between their arguments as rounded, each (P,)."""
    theta = problem.theta
    P = theta.size
    evaluate_stack = problem.evaluate_stack
    assert evaluate_stack is not None
    pairs, workers = block_size(problem, resources)
    plus, minus = theta + epsilon, theta - epsilon
    costs = np.empty(2 * P)

    def work(blocks: Iterator[int]) -> None:
        rows = np.empty((2 * pairs, P))
        rows[:] = theta
        for block in blocks:
            first, stop = block * pairs, min((block + 1) * pairs, P)
            # entries k of rows 2(k - first) and 2(k - first) + 1, as two diagonals
            end = first + (stop - first - 1) * (2 * P + 1) + 1
            at_plus = rows.reshape(-1)[first : end : 2 * P + 1]
            at_minus = rows.reshape(-1)[first + P : end + P : 2 * P + 1]
            at_plus[:], at_minus[:] = plus[first:stop], minus[first:stop]
            costs[2 * first : 2 * stop] = evaluate_stack(rows[: 2 * (stop - first)])
            at_plus[:] = at_minus[:] = theta[first:stop]
            resources.advance(2 * (stop - first))

    share(work, count=-(-P // pairs), workers=workers)
    return costs[0::2], costs[1::2], plus - minus


def block_size(problem: Problem, resources: Resources) -> tuple[int, int]:
    """K/2, the pairs of rows of a block, and how many blocks are worked on at once.

    Raises:
        ValueError: where not one pair of rows fits into the memory allowed.
    """
    P = problem.layout.size
    pair = 2 * (8 * P + problem.row_bytes)
    if pair > resources.memory:
        raise ValueError(
            f"memory={resources.memory} is too little for two perturbed copies of {P} parameters; "
            f"pass memory={pair} or more"
        )
    room = max(1, (resources.memory - RESULT_VECTORS * 8 * P) // pair)
    pairs = min(max(1, CACHE_BYTES // pair), room, P)
    workers = min(resources.threads, room // pairs, -(-P // pairs)) if problem.pure else 1
    return pairs, workers


def _refusal(problem: Problem) -> str | None:
    if problem.evaluate_stack is None:
        return (
            "it evaluates many sets of parameters in one call: pass vectorized=True if the cost "
            'takes every array with a leading axis K and returns K costs, or method="loop"'
        )
    return None


STACKED = Method(approximate=approximate, refusal=_refusal, epsilon=1e-7)
