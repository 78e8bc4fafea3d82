"""`stacked`: many perturbed copies of the parameters in one vectorised forward pass.

Row 2k of the (2P × P) matrix is θ + ε e_k, row 2k + 1 is θ − ε e_k; the matrix is made and
evaluated in blocks of K rows, K even. For a cost that Numba compiled the pass is a loop over the
rows in compiled code, without the GIL.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from fastgc.core.tree import Entries, FloatArray, Step
from fastgc.costs.base import Base, Batch, Cost
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.methods.base import Approximation, Method, best, forward_flops_of_all
from fastgc.parallel.chunks import Advance, Resources, perform
from fastgc.parallel.threads import share

# What a block's rows and activations should fit into. On 30-64-32-1 with m = 64, 4 MiB took
# 0.136 s, 1 MiB 0.164 s, 256 KiB 0.22 s, a row at a time 0.32 s (Zen 5, 1 MiB of L2, 32 of L3).
CACHE_BYTES = 4 * 2**20

# Vectors of P numbers that a check holds besides its blocks: θ, steps, costs, gradapprox, …
RESULT_VECTORS = 24


def approximate(
    cost: Cost, entries: Entries | None, base: Base, epsilon: Step, resources: Resources
) -> Approximation:
    """gradapprox_k = (J(θ + ε e_k) − J(θ − ε e_k)) / 2ε, with the step as it was realised."""
    entries = np.arange(cost.theta.size) if entries is None else entries
    J_plus, J_minus = perturbed_costs(cost, entries, epsilon, resources)
    theta = cost.theta[entries]
    step = np.broadcast_to(epsilon, cost.theta.shape)[entries]
    up, down = (theta + step) - theta, theta - (theta - step)
    if not (up.all() and down.all()):  # some steps are lost to the rounding of θ
        lost = (up == 0) | (down == 0)
        up[lost] = down[lost] = 0.0

    with np.errstate(invalid="ignore", over="ignore"):  # inf − inf, where the cost is not finite
        gradapprox = _ratio(J_plus - J_minus, up + down)
        below, above = _ratio(base.cost - J_minus, down), _ratio(J_plus - base.cost, up)
    uncertainty = uncertainty_of_differences(
        base.cost, base.noise, up + down, (below, above), cost.scale[entries]
    )

    def slopes() -> tuple[FloatArray, FloatArray]:
        # of a cost that cannot be had on one side, the slope on the other
        return np.fmin(below, above), np.fmax(below, above)

    return Approximation(gradapprox, uncertainty, slopes, evaluations=2 * entries.size)


def perturbed_costs(
    cost: Cost, entries: Entries, epsilon: Step, resources: Resources
) -> tuple[FloatArray, FloatArray]:
    """J_plus and J_minus of n entries, each (n,)."""
    theta = cost.theta
    pairs, workers = block_size(cost, entries.size, resources)
    costs = np.empty((entries.size, 2))
    numbers = np.arange(-(-entries.size // pairs))
    steps = np.broadcast_to(epsilon, theta.shape)

    def work(first: int, blocks: Iterator[int], advance: Advance) -> None:
        rows = np.empty((2 * pairs, theta.size))
        rows[:] = theta
        flat = rows.reshape(-1)
        for block in blocks:
            start = (first + block) * pairs
            some = entries[start : start + pairs]
            values = theta[some]
            plus = np.arange(some.size) * (2 * theta.size) + some  # rows 0, 2, 4, …
            minus = plus + theta.size
            flat[plus], flat[minus] = values + steps[some], values - steps[some]
            found = cost.values_or_nan(rows[: 2 * some.size])
            costs[start : start + some.size] = found.reshape(-1, 2)
            flat[plus] = flat[minus] = values
            advance(2 * some.size)

    def places(first: int, end: int) -> slice:
        return slice(first * pairs, end * pairs)

    def fill(_: Cost, blocks: Entries, advance: Advance) -> FloatArray:
        first = int(blocks[0])
        share(lambda drawn: work(first, drawn, advance), count=blocks.size, workers=workers)
        return costs.T[:, places(first, first + blocks.size)]

    perform(
        fill, cost, (numbers,), costs.T, resources,
        perturbations=2 * entries.size, key=(theta, entries, epsilon, pairs), places=places,
    )  # fmt: skip
    return costs[:, 0], costs[:, 1]


def block_size(cost: Cost, entries: int, resources: Resources) -> tuple[int, int]:
    """K/2, the pairs of rows of a block, and how many blocks are worked on at once.

    Raises:
        ValueError: where not one pair of rows fits into the memory allowed.
    """
    P = cost.layout.size
    pair = least_memory(cost)
    if pair > resources.memory:
        raise ValueError(
            f"memory={resources.memory} is too little for two perturbed copies of {P} parameters; "
            f"pass memory={pair} or more"
        )
    room = max(1, (resources.memory - RESULT_VECTORS * 8 * P) // pair)
    batch = cost.batch or Batch()
    fitting = max(batch.least // 2, CACHE_BYTES // pair)
    pairs = min(fitting, max(1, batch.most // 2), room, entries)
    if not cost.traits.thread_safe:
        return pairs, 1
    return pairs, min(resources.threads, room // pairs, -(-entries // pairs))


def least_memory(cost: Cost) -> int:
    """Bytes of one pair of rows and of their evaluation."""
    return 2 * (8 * cost.layout.size + cost.row_bytes)


def _ratio(difference: FloatArray, step: FloatArray) -> FloatArray:
    """difference / step, and 0 where the step is."""
    if step.all():
        return np.divide(difference, step)
    return np.divide(difference, step, out=np.zeros(step.size), where=step > 0)


def _refusal(cost: Cost) -> str | None:
    return cost.unbatched if cost.batch is None else None


def _memory(cost: Cost, resources: Resources) -> int:
    pairs, workers = block_size(cost, cost.layout.size, resources)
    return workers * pairs * least_memory(cost)


def _seconds(cost: Cost, resources: Resources) -> float:
    P = cost.layout.size
    pairs, workers = block_size(cost, P, resources)
    some = np.arange(min(P, pairs * workers))
    run = partial(approximate, cost, some, Base(0.0, 0.0), 1e-7, resources)
    return P / some.size * best(run, 2)


STACKED = Method(
    "stacked",
    approximate,
    _refusal,
    least_memory,
    epsilon=1e-7,
    spreads=False,
    flops=forward_flops_of_all,
    vectors=10,
    memory=_memory,
    seconds=_seconds,
)
