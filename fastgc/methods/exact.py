"""`incremental` and `node`: a Network's parameters, or its pre-activations, as exact changes.

`incremental` changes each W_l[i, j] by t, which changes Z_l[i, s] by t·A_{l−1}[j, s] and nothing
else of its layer. `node` changes each Z_l[i, s], and uses that Z_l = W_l A_{l−1} + b_l is linear in
W_l and b_l: what depends on Z_l[i, s] with slope D_l[i, s] depends on W_l[i, j] with slope
Σ_s D_l[i, s] A_{l−1}[j, s], and on b_l[i] with Σ_s D_l[i, s]. The kernels carry both up to the loss
of sample s.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastgc.core.tree import Entries, FloatArray
from fastgc.core.verdict import THRESHOLDS
from fastgc.costs.base import Base, Cost
from fastgc.methods.base import Approximation, Method, best
from fastgc.network.cost import state_of
from fastgc.network.flops import carried_flops, forward_flops, perturbations
from fastgc.network.network import Layer
from fastgc.network.propagate import (
    WORTH_SHARING,
    all_tasks,
    block_width,
    kernel_arguments,
    kernels,
    respond,
    tasks_holding,
    unit_slopes,
    work_space,
)
from fastgc.network.state import ForwardState, KernelArguments
from fastgc.parallel.chunks import Resources
from fastgc.parallel.threads import share

# Rows of W_l in one product. They are the same for any number of threads, since BLAS sums in an
# order that depends on the shapes.
ROWS = 128

# Operations that `incremental` may take before `node` is chosen: about a millisecond with ReLU.
AFFORDABLE = 1e7

SAMPLE = 48  # blocks of the kernel that are timed


def incremental(
    cost: Cost, entries: Entries | None, _base: Base, epsilon: float, resources: Resources
) -> Approximation:
    """gradapprox = Σ_s [r(ε A) − r(−ε A)] / 2εm, with r the change of sample s's loss."""
    state = _state(cost)
    arguments = kernel_arguments(state)
    tasks = None if entries is None else tasks_holding(state, entries)
    sums = respond(state, arguments, epsilon, resources, by_unit=False, tasks=tasks)
    sums /= state.net.divisor
    gradapprox, size, half_gap = sums if entries is None else sums[:, entries]
    add_decay(state, entries, gradapprox, size)
    size *= THRESHOLDS.safety

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


def node(
    cost: Cost, entries: Entries | None, _base: Base, epsilon: float, resources: Resources
) -> Approximation:
    """D_l[i, s] = [r(h) − r(−h)] / 2h; gradapprox is D_l A_{l−1}ᵀ / m for W_l, Σ_s D_l / m for b_l.

    `epsilon` is h, and r the change of sample s's loss when Z_l[i, s] changes.
    """
    state = _state(cost)
    arguments = kernel_arguments(state)
    responses = respond(state, arguments, epsilon, resources, by_unit=True)
    plus, minus, gross = responses
    D = (plus - minus) / (2 * epsilon)
    gradapprox, size = assemble(state, D, np.abs(D) + gross, entries, resources)
    add_decay(state, entries, gradapprox, size)
    size *= THRESHOLDS.safety

    def slopes() -> tuple[FloatArray, FloatArray]:
        return slope_intervals(state, arguments, epsilon, entries, resources, responses)

    return Approximation(gradapprox, size, slopes, _all_units(cost))


def assemble(
    state: ForwardState,
    slopes: FloatArray,
    sizes: FloatArray,
    entries: Entries | None,
    resources: Resources,
) -> tuple[FloatArray, FloatArray]:
    """Σ_s D A / m and Σ_s D |A| / m for each entry, (n,) each, of two different D; m the divisor.

    Args:
        state: the network at its parameters.
        slopes: the first D: D_lᵀ (m, n_l), l = 1 … L, one after the other.
        sizes: the second, which is not negative.
        entries: indices into the flat vector; None for all.
        resources: what may be used.
    """
    m, P = state.net.m, state.theta.size
    divisor = state.net.divisor
    scaled = np.divide(slopes, divisor), np.divide(sizes, divisor)
    found = np.empty(P), np.empty(P)
    blocks = []
    at = 0
    for layer, A, _ in state.tensors():
        part = slice(at, at + m * layer.n)
        at += m * layer.n
        starts = range(0, layer.n, ROWS) if entries is None else _touched(layer, entries)
        if starts:
            for D, to, values in zip(scaled, found, (A, np.abs(A)), strict=True):
                W, b = to[layer.W].reshape(layer.n, layer.k), to[layer.b]
                rows = D[part].reshape(m, layer.n).T
                blocks += [(rows, values, W, b, slice(i, i + ROWS)) for i in starts]

    def work(numbers: Iterator[int]) -> None:
        with np.errstate(all="ignore"):  # which each thread has to itself
            for number in numbers:
                D, A, W, b, rows = blocks[number]
                D = D[rows]
                np.dot(D, A, out=W[rows])
                np.add.reduce(D, axis=1, out=b[rows])

    worth = forward_flops(state.widths, m) > WORTH_SHARING
    share(work, count=len(blocks), workers=resources.threads if worth else 1)
    return found if entries is None else (found[0][entries], found[1][entries])


def _touched(layer: Layer, entries: Entries) -> list[int]:
    """The first rows of the blocks that hold any of the entries."""
    units, _ = layer.places(entries)
    return [int(row) for row in np.unique(units // ROWS * ROWS)]


def add_decay(
    state: ForwardState, entries: Entries | None, slopes: FloatArray, sizes: FloatArray
) -> None:
    """Adds (λ/m) W to `slopes`, and its size to `sizes`, both (n,), of the entries.

    That is the central difference of (λ/2m) Σ W² for any step t: the mean of (λ/m) (W + t/2),
    upwards, and (λ/m) (W − t/2), downwards.
    """
    rate = state.net.weight_decay / state.net.divisor
    if rate == 0:
        return
    decay = np.zeros(state.theta.size)
    for layer in state.layers:
        decay[layer.W] = rate * state.theta[layer.W]
    decay = decay if entries is None else decay[entries]
    slopes += decay
    sizes += np.abs(decay)


def slope_intervals(
    state: ForwardState,
    arguments: KernelArguments,
    step: float,
    entries: Entries | None,
    resources: Resources,
    found: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest slope of J by each entry, kinks taken sample by sample; (n,).

    Args:
        state, arguments, step, resources: as `found` was made with.
        entries: indices into the flat vector; None for all.
        found: what the kernel found by pre-activation.
    """
    low, high = unit_slopes(state, arguments, step, resources, found)
    # Σ_s of the interval [low, high] · A is that of its middle, give or take half its length
    middle, reach = assemble(state, 0.5 * (low + high), 0.5 * (high - low), entries, resources)
    add_decay(state, entries, middle, np.zeros(middle.size))
    return middle - reach, middle + reach


def _state(cost: Cost) -> ForwardState:
    state = state_of(cost)
    assert state is not None  # or the method has refused
    return state


def _refusal(cost: Cost) -> str | None:
    """Why the methods of this file cannot work on a cost; None where they can."""
    if state_of(cost) is None:
        return (
            "it looks inside a fastgc.Network, and this cost is a function. Pass a Network, or "
            'method="loop"'
        )
    return None


def _all_units(cost: Cost, *_: object) -> int:
    """Two for each pre-activation of each sample, whatever the entries; of its loss alone."""
    state = _state(cost)
    return perturbations(state.widths, state.net.m, by_unit=True)


def _least_memory(cost: Cost) -> int:
    """Bytes that one block of columns takes."""
    return work_space(_state(cost).widths)


def _flops(cost: Cost, *, by_unit: bool) -> float:
    state = _state(cost)
    return carried_flops(state.widths, state.net.m, by_unit=by_unit)


def _memory(cost: Cost, resources: Resources) -> int:
    """Bytes of a Network's values, and of the kernel's buffers on every thread."""
    state = _state(cost)
    values, each = 8 * 8 * state.net.m * sum(state.widths), work_space(state.widths)
    return values + each * max(1, min(resources.threads, resources.memory // each))


def _seconds(cost: Cost, resources: Resources, *, by_unit: bool) -> float:
    """Seconds of the network's values, of every block of the kernel, and of what comes after."""
    state = _state(cost)
    widths, m = state.widths, state.net.m
    seconds = best(lambda: kernel_arguments(ForwardState(state.net, state.layers, state.theta)), 3)
    arguments = kernel_arguments(state)
    tasks = all_tasks(widths, m, by_unit=by_unit)
    sample = np.ascontiguousarray(tasks[:: max(1, len(tasks) // SAMPLE)])
    out = np.zeros((3, arguments.Z.size if by_unit else arguments.theta.size))
    run = partial(kernels().respond, arguments, 2.0**-40, block_width(widths), by_unit, sample, out)
    run()  # the memory is there, the caches are warm
    shared = carried_flops(widths, m, by_unit=by_unit) > WORTH_SHARING
    threads = min(resources.threads if shared else 1, len(tasks))
    seconds += best(run, 3) * len(tasks) / len(sample) / threads
    return seconds + (_product_seconds(state, resources) if by_unit else 0.0)


def _product_seconds(state: ForwardState, resources: Resources) -> float:
    """Seconds of two products of W's size for each layer, by `ROWS` rows at once."""
    m = state.net.m
    threads = resources.threads if forward_flops(state.widths, m) > WORTH_SHARING else 1
    seconds = 0.0
    for layer, A, _ in state.tensors():
        D = np.ones((min(ROWS, layer.n), m))
        out = np.empty((len(D), layer.k))
        seconds += 2 * best(partial(np.dot, D, A, out=out), 3) * layer.n / len(D) / threads
    return seconds


def _method(
    name: str, approximate: Callable[..., Approximation], *, by_unit: bool, **others: Any
) -> Method:
    return Method(
        name, approximate, _refusal, _least_memory, epsilon=2.0**-40, exact=True, load=kernels,
        flops=partial(_flops, by_unit=by_unit), memory=_memory,
        seconds=partial(_seconds, by_unit=by_unit), **others,
    )  # fmt: skip


INCREMENTAL = _method("incremental", incremental, by_unit=False, vectors=6, most_flops=AFFORDABLE)
NODE = _method(
    "node", node, by_unit=True, vectors=5, evaluations=_all_units, unit="losses of a sample"
)
