"""The methods by name, and which of them `method="auto"` takes."""

from collections.abc import Callable
from typing import Any

from fastgc.core.tree import Container
from fastgc.costs.base import Problem, pose
from fastgc.methods.base import Method
from fastgc.methods.incremental import INCREMENTAL
from fastgc.methods.loop import LOOP
from fastgc.methods.node import NODE
from fastgc.methods.stacked import STACKED
from fastgc.network.flops import flops

METHODS: dict[str, Method] = {
    "loop": LOOP,
    "stacked": STACKED,
    "incremental": INCREMENTAL,
    "node": NODE,
}

# Operations that `incremental` may take before `node` is chosen: about a millisecond with ReLU.
AFFORDABLE = 1e7

#: The method that looks along random directions; the others look at entries.
RANDOM = "random"


def select_method(
    cost: Callable[..., Any], parameters: Container, *, vectorized: bool = False
) -> str:
    """The method that ``method="auto"`` takes; a pure function, nothing is evaluated.

    For a `Network` it goes by the shapes alone: ``incremental``, which perturbs every parameter by
    itself and assumes nothing, where that takes no more than 10⁷ floating-point operations (about
    a millisecond with ReLU); else ``node``, which also uses that a layer is linear in its own W
    and b, and takes a fraction of the time. `plan` shows the count. A cost with
    ``vectorized=True`` takes many sets of parameters in one call: ``stacked``; so is a Numba
    dispatcher (``@numba.njit``) of one flat vector called, many times in one call of compiled code.
    Any other takes one at a time: ``loop``.

    Args:
        cost: a `Network`, or any function parameters -> float.
        parameters: as for `check`.
        vectorized: the cost takes every array with a leading axis K and returns K costs.

    Raises:
        TypeError, ValueError: for parameters that the cost cannot take.

    >>> import fastgc
    >>> fastgc.select_method(fastgc.Network([[1.0]], [1.0]), {"W1": [[0.5]], "b1": [[0.0]]})
    'incremental'
    >>> fastgc.select_method(lambda theta: theta**2, 3.0)
    'loop'
    """
    return method_for(pose(cost, parameters, vectorized=vectorized))


def method_for(problem: Problem, memory: int | None = None, *, spread: bool = False) -> str:
    """`select_method` for a problem already posed.

    ``loop`` where `memory` is too little for that, or where it is to be `spread` over the workers
    of an executor and cannot.
    """
    state = problem.state
    if state is not None:
        work = flops("incremental", state.widths, state.net.m)
        chosen = "incremental" if work <= AFFORDABLE else "node"
    else:
        chosen = "loop" if problem.evaluate_stack is None else "stacked"
    if spread and not METHODS[chosen].spreads:
        return "loop"
    if memory is not None and METHODS[chosen].least_memory(problem) > memory:
        return "loop"
    return chosen


def engine_for(problem: Problem, memory: int, *, spread: bool = False) -> str:
    """The method that takes the differences along directions: ``stacked`` where it can."""
    rows = 2 * (16 * problem.layout.size + problem.row_bytes)
    stacked = problem.state is None and problem.evaluate_stack is not None and not spread
    return "stacked" if stacked and 2 * rows <= memory else "loop"
