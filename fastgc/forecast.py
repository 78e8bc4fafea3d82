"""What a method would take, found by timing a sample of its work."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastgc.inside import Inside
from fastgc.operations import forward_operations, operations
from fastgc.point import point_of
from fastgc.problem import Problem
from fastgc.response import WORTH_SHARING, all_tasks, block_width, kernels, work_space

if TYPE_CHECKING:
    from fastgc.methods.interface import Resources

SAMPLE = 48  # blocks of the kernel that are timed


def best(work: Callable[[], object], times: int) -> float:
    """Seconds that `work` takes: the least of several."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def kernel_memory(problem: Problem, resources: "Resources") -> int:
    """Bytes of a Network's values, and of the kernel's buffers on every thread."""
    assert problem.inside is not None
    values = 8 * 8 * problem.inside.net.m * sum(problem.inside.widths)
    each = work_space(problem.inside.widths)
    return values + each * max(1, min(resources.threads, resources.memory // each))


def kernel_seconds(problem: Problem, resources: "Resources", *, by_unit: bool) -> float:
    """Seconds of the network's values and of every block of the kernel."""
    inside = problem.inside
    assert inside is not None
    widths, m = inside.widths, inside.net.m
    seconds = best(lambda: point_of(Inside(inside.net, inside.layers, inside.theta)), 3)
    point = point_of(inside)
    tasks = all_tasks(widths, m, by_unit=by_unit)
    some = np.ascontiguousarray(tasks[:: max(1, len(tasks) // SAMPLE)])
    found = np.zeros((3, point.Z.size if by_unit else point.theta.size))
    run = partial(kernels().respond, point, 2.0**-40, block_width(widths), by_unit, some, found)
    run()  # the memory is there, the caches are warm
    method = "node" if by_unit else "incremental"
    threads = resources.threads if operations(method, widths, m) > WORTH_SHARING else 1
    return seconds + best(run, 3) * len(tasks) / len(some) / min(threads, len(tasks))


def product_seconds(problem: Problem, resources: "Resources", rows: int) -> float:
    """Seconds of two products of W's size for each layer, by so many rows at once."""
    inside = problem.inside
    assert inside is not None
    m = inside.net.m
    threads = resources.threads if forward_operations(inside.widths, m) > WORTH_SHARING else 1
    seconds = 0.0
    for layer, A, _ in inside.tensors():
        D = np.ones((min(rows, layer.n), m))
        out = np.empty((len(D), layer.k))
        once = best(partial(np.dot, D, A, out=out), 3)
        seconds += 2 * once * layer.n / len(D) / threads
    return seconds
