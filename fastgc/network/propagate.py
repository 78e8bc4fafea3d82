"""Around the kernel: loading it, describing a Network to it, sharing its work among threads."""

import os
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastgc.core import jit
from fastgc.core.tree import FloatArray
from fastgc.network.flops import carried_flops, perturbations
from fastgc.network.state import ForwardState, KernelArguments
from fastgc.parallel.chunks import perform
from fastgc.parallel.threads import share

if TYPE_CHECKING:
    from fastgc.core.tree import Entries
    from fastgc.parallel.chunks import Resources

# Operations that are worth a second thread, about a millisecond. Of 3 million (30-64-32-1, m = 64)
# one thread took 0.15 ms, two 0.5 ms: threads of Python are slow to wake.
WORTH_SHARING = 2e7

# Operations of one call into the kernel, which Ctrl-C has to wait for.
MOST_AT_ONCE = 2e9


NOT_KEPT = (
    "in every process anew: no cache directory is writable. Set NUMBA_CACHE_DIR to one that is"
)

# Tables of tasks up to about so many are kept for the next check of the same shapes.
KEPT = 10_000

# A pre-activation so far from the corner that no perturbation carries it across.
FAR = 1e300

_lock = threading.Lock()
_ready = False


def kernels(announce: bool = True) -> ModuleType:
    """The module of compiled functions; compiles it where no earlier process has.

    Args:
        announce: whether to say on stderr that it is compiling.
    """
    global _ready
    from fastgc.network import kernels as module

    with _lock:
        if not _ready:
            kept = jit.is_kept(module.respond)
            if announce and not kept:
                often = "once per installation" if kept is False else NOT_KEPT
                print(f"fastgc: compiling its kernels, {often}", file=sys.stderr, flush=True)
            _warm_up(module)
            _ready = True
    return module


def kernels_are_kept() -> bool:
    """Whether the kernels lie compiled on disk; asked without loading Numba."""
    return jit.is_on_disk(Path(__file__).with_name("kernels.py"), "respond")


def kernels_are_loaded() -> bool:
    """Whether `kernels` takes no time any more."""
    return _ready


def _forget_after_fork() -> None:
    """Another thread of the parent may have held the lock, which nobody would open."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _warm_up(module: ModuleType) -> None:
    one, number, table = np.ones(1), np.ones(2, np.int64), np.ones((1, 1))
    arguments = KernelArguments(
        theta=np.ones(2), Z=one, A=one, widths=number, activations=number,
        weights_at=np.array([0, 0]), biases_at=np.array([0, 1]), units_at=np.array([0, 0]),
        largest=np.ones((2, 2)), loss=0, labels=table, chances=table, sizes=table,
    )  # fmt: skip
    tasks, found = np.array([[1, 0, 0]]), np.empty((3, 1))
    jit.warm_up(module.respond, arguments, 0.5, 2, True, tasks, found)


@lru_cache(maxsize=64)
def block_width(widths: tuple[int, ...]) -> int:
    """Columns of a block: as many as the second-level cache holds, whatever memory= allows.

    On one thread a 784-512-256-1 took 1.5 ms with 512, 1.7 with 256, 2.3 with 64; a 256-512×6-1 of
    8 samples 0.20 s with 512, 0.19 with 256, 0.24 with 1024 or 128.
    """
    widest = max(widths[2:-1], default=1)
    return min(max(131072 // widest // 64 * 64, 64), 512)


@lru_cache(maxsize=64)
def work_space(widths: tuple[int, ...]) -> int:
    """Bytes that one call into the kernel allocates."""
    spare = max(widths[1:]) + 7
    return 8 * (2 * spare * block_width(widths) + 6 * spare + 6 * block_width(widths))


def all_tasks(widths: tuple[int, ...], m: int, *, by_unit: bool) -> NDArray[np.int64]:
    """Every task of the kernel, (n, 3): layer, sample or unit, and first unit or input."""
    small = sum(widths) + m * len(widths) < KEPT
    return (_kept_tasks if small else _tasks)(widths, m, by_unit)


def _tasks(widths: tuple[int, ...], m: int, by_unit: bool) -> NDArray[np.int64]:
    half = block_width(widths) // 2
    layers = []
    for l, (k, n) in enumerate(pairwise(widths), start=1):
        items, length = (m, n) if by_unit else (n, k + 1)
        firsts = np.arange(0, length, half)
        table = np.empty((items, firsts.size, 3), np.int64)
        table[..., 0] = l
        table[..., 1] = np.arange(items)[:, np.newaxis]
        table[..., 2] = firsts
        layers.append(table.reshape(-1, 3))
    return np.concatenate(layers)


_kept_tasks = lru_cache(maxsize=8)(_tasks)


def tasks_holding(state: ForwardState, entries: "Entries") -> NDArray[np.int64]:
    """The tasks by parameter that hold any of the entries."""
    half = block_width(state.widths) // 2
    found = []
    for l, layer in enumerate(state.layers, start=1):
        units, inputs = layer.places(entries)
        layers = np.full(units.size, l)
        found.append(np.unique(np.stack((layers, units, inputs // half * half), axis=1), axis=0))
    return np.concatenate(found)


def respond(
    state: ForwardState,
    arguments: KernelArguments,
    step: float,
    resources: "Resources",
    *,
    by_unit: bool,
    tasks: NDArray[np.int64] | None = None,
) -> FloatArray:
    """What the kernel finds in `tasks`, all by default, on as many threads as they are worth."""
    module = kernels()
    every = all_tasks(state.widths, state.net.m, by_unit=by_unit)
    tasks = every if tasks is None else tasks
    size = arguments.Z.size if by_unit else arguments.theta.size
    found = np.zeros((3, size))
    width = block_width(state.widths)
    least = work_space(state.widths)
    if least > resources.memory:
        raise ValueError(
            f"memory={resources.memory} is too little for a block of {width} columns through this "
            f"network; pass memory={least} or more"
        )
    part = len(tasks) / len(every)
    work = part * carried_flops(state.widths, state.net.m, by_unit=by_unit)
    workers = 1
    if work > WORTH_SHARING:
        workers = min(resources.threads, resources.memory // least, len(tasks))
    looks = round(part * perturbations(state.widths, state.net.m, by_unit=by_unit))
    if resources.chunking is not None:
        perform(
            partial(_of_tasks, step, width, by_unit, resources.chunking.threads(workers)),
            arguments, (tasks,), found, resources, perturbations=looks,
            key=(step, by_unit, arguments.Z),
            places=lambda first, end: _places(arguments, tasks[first:end], width // 2, by_unit),
        )  # fmt: skip
        return found
    pieces = min(len(tasks), max(8 * workers if workers > 1 else 1, int(work / MOST_AT_ONCE)))
    each = round(looks / pieces)

    def run(numbers: Iterator[int]) -> None:
        for piece in numbers:
            first, end = piece * len(tasks) // pieces, (piece + 1) * len(tasks) // pieces
            module.respond(arguments, step, width, by_unit, tasks[first:end], found)
            resources.advance(each)

    share(run, count=pieces, workers=workers)
    return found


def _of_tasks(
    step: float,
    width: int,
    by_unit: bool,
    threads: int,
    arguments: KernelArguments,
    tasks: NDArray[np.int64],
    _advance: object,
) -> FloatArray:
    """What the kernel finds in a block of tasks, (3, n), where `_places` says."""
    module = kernels(announce=False)
    found = np.zeros((3, arguments.Z.size if by_unit else arguments.theta.size))

    def run(numbers: Iterator[int]) -> None:
        for number in numbers:
            module.respond(arguments, step, width, by_unit, tasks[number::threads], found)

    share(run, count=threads, workers=threads)
    return found[:, _places(arguments, tasks, width // 2, by_unit)]


def _places(
    arguments: KernelArguments, tasks: NDArray[np.int64], half: int, by_unit: bool
) -> NDArray[np.int64]:
    """Where in `found` the kernel writes for these tasks, (n,)."""
    l, item, first = tasks.T
    n, k = arguments.widths[l], arguments.widths[l - 1]
    length = n if by_unit else k + 1
    at = first[:, np.newaxis] + np.arange(min(half, length.max()))
    if by_unit:
        places = (len(arguments.labels) * arguments.units_at[l] + item * n)[:, np.newaxis] + at
    else:
        places = (arguments.weights_at[l] + item * k)[:, np.newaxis] + at
        bias = at == k[:, np.newaxis]
        places[bias] = (arguments.biases_at[l] + item)[bias.any(axis=1)]
    found: NDArray[np.int64] = places[at < length[:, np.newaxis]]
    return found


def unit_slopes(
    state: ForwardState,
    arguments: KernelArguments,
    step: float,
    resources: "Resources",
    found: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest slope by each pre-activation, each laid out as point.Z.

    Of the one-sided slopes; where units lie exactly at their corners, also of the slopes with all
    of them inactive, all of them active, and half-way, which are what a backward pass may take.

    Args:
        state, arguments, step, resources: as `found` was made with.
        found: what the kernel found by pre-activation.
    """
    slopes = [found[0] / step, -found[1] / step]
    kinks = np.concatenate([at.ravel() for at in state.kinks])
    if kinks.any():
        for side in (-FAR, FAR):
            moved = arguments._replace(Z=np.where(kinks, side, arguments.Z))
            plus, minus, _ = respond(state, moved, step, resources, by_unit=True)
            slopes += [plus / step, -minus / step]
        slopes.append(np.concatenate([D.ravel() for D in state.halfway()]))
    return np.minimum.reduce(slopes), np.maximum.reduce(slopes)


def kernel_arguments(state: ForwardState) -> KernelArguments:
    """The network at θ, described to the kernels."""
    net, layers, m, L = state.net, state.layers, state.net.m, len(state.layers)
    inputs, Zs = state.values
    Z_L, chances = Zs[-1], net.losses.chances
    tables = _tables(
        state.widths,
        tuple([layer.act.code for layer in layers]),
        tuple([layer.W.start for layer in layers]),
        tuple([layer.b.start for layer in layers]),
    )
    largest = np.zeros((L + 1, 2))
    hidden = [layer.act for layer in layers[:-1]]
    silent = any(act.kink is not None and act.kink[0] == 0 for act in hidden)
    for t, layer in enumerate(layers[:-1], start=1):
        # only the bounds of what wakes a ReLU are read: W_2 is reached by single units alone
        if t > 1 and silent:
            W = state.theta[layer.W]
            largest[t, 0] = max(W.max(), -W.min())
            if t > 2:
                sums = np.abs(W).reshape(layer.n, layer.k).sum(axis=1)
                largest[t, 1] = hidden[t - 2].steepest * sums.max()
    return KernelArguments(
        theta=state.theta,
        Z=np.concatenate([Z.ravel() for Z in Zs]),
        A=np.concatenate([A.ravel() for A in (*inputs[1:], inputs[0])]),
        **tables,
        largest=largest,
        loss=net.losses.code,
        labels=np.array(net.labels.reshape(-1, m).T, order="C"),
        chances=Z_L if chances is None else np.array(chances(Z_L.T).T, order="C"),
        sizes=np.array(net.output_size(Z_L.T).T, order="C"),
    )


@lru_cache(maxsize=8)
def _tables(
    widths: tuple[int, ...],
    activations: tuple[int, ...],
    weights_at: tuple[int, ...],
    biases_at: tuple[int, ...],
) -> dict[str, NDArray[np.int64]]:
    """What depends on the shapes alone, for a training script that checks again and again."""
    units_at = np.zeros(len(widths), np.int64)
    np.cumsum(widths[1:-1], out=units_at[2:])
    units_at[0] = units_at[-1]  # X takes the place in A that Z_L has in Z
    return {
        "widths": np.array(widths),
        "activations": np.array([0, *activations]),
        "weights_at": np.array([0, *weights_at]),
        "biases_at": np.array([0, *biases_at]),
        "units_at": units_at,
    }
