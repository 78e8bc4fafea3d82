"""What `incremental` and `node` share: from pre-activations to parameters, and what that takes."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastgc.core.tree import Entries, FloatArray
from fastgc.costs.base import Problem
from fastgc.methods.base import best
from fastgc.network.flops import flops, forward_flops
from fastgc.network.network import Layer
from fastgc.network.propagate import (
    WORTH_SHARING,
    all_tasks,
    block_width,
    kernel_arguments,
    kernels,
    unit_slopes,
    work_space,
)
from fastgc.network.state import ForwardState, KernelArguments
from fastgc.parallel.chunks import Resources
from fastgc.parallel.threads import share

if TYPE_CHECKING:
    from fastgc.parallel.chunks import Resources

# Rows of W_l in one product. They are the same for any number of threads, since BLAS sums in an
# order that depends on the shapes.
ROWS = 128


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
    """The least and the greatest slope of J by each entry, corners taken sample by sample; (n,).

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


SAMPLE = 48  # blocks of the kernel that are timed


def kernel_memory(problem: Problem, resources: "Resources") -> int:
    """Bytes of a Network's values, and of the kernel's buffers on every thread."""
    assert problem.state is not None
    values = 8 * 8 * problem.state.net.m * sum(problem.state.widths)
    each = work_space(problem.state.widths)
    return values + each * max(1, min(resources.threads, resources.memory // each))


def kernel_seconds(problem: Problem, resources: "Resources", *, by_unit: bool) -> float:
    """Seconds of the network's values and of every block of the kernel."""
    state = problem.state
    assert state is not None
    widths, m = state.widths, state.net.m
    seconds = best(lambda: kernel_arguments(ForwardState(state.net, state.layers, state.theta)), 3)
    arguments = kernel_arguments(state)
    tasks = all_tasks(widths, m, by_unit=by_unit)
    some = np.ascontiguousarray(tasks[:: max(1, len(tasks) // SAMPLE)])
    found = np.zeros((3, arguments.Z.size if by_unit else arguments.theta.size))
    run = partial(kernels().respond, arguments, 2.0**-40, block_width(widths), by_unit, some, found)
    run()  # the memory is there, the caches are warm
    method = "node" if by_unit else "incremental"
    threads = resources.threads if flops(method, widths, m) > WORTH_SHARING else 1
    return seconds + best(run, 3) * len(tasks) / len(some) / min(threads, len(tasks))


def product_seconds(problem: Problem, resources: "Resources", rows: int) -> float:
    """Seconds of two products of W's size for each layer, by so many rows at once."""
    state = problem.state
    assert state is not None
    m = state.net.m
    threads = resources.threads if forward_flops(state.widths, m) > WORTH_SHARING else 1
    seconds = 0.0
    for layer, A, _ in state.tensors():
        D = np.ones((min(rows, layer.n), m))
        out = np.empty((len(D), layer.k))
        once = best(partial(np.dot, D, A, out=out), 3)
        seconds += 2 * once * layer.n / len(D) / threads
    return seconds
