"""The methods by name, and which of them `method="auto"` takes."""

from collections.abc import Callable
from typing import Any

from fastgc.core.tree import Container
from fastgc.costs.base import Cost, as_cost
from fastgc.methods.base import Method
from fastgc.methods.exact import INCREMENTAL, NODE
from fastgc.methods.loop import LOOP
from fastgc.methods.stacked import STACKED
from fastgc.options import require_flag

METHODS: dict[str, Method] = {}

#: The method that looks along random directions.
RANDOM = "random"

#: What ``auto`` takes the first of that can, and is not too long about it.
PREFERRED = ("incremental", "node", "stacked", "loop")


def register(*methods: Method) -> None:
    """Adds methods, so that they can be named, planned and, in the tests, held to the others."""
    METHODS.update({method.name: method for method in methods})


register(LOOP, STACKED, INCREMENTAL, NODE)


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
    require_flag(vectorized, "vectorized")
    return method_for(as_cost(cost, parameters, vectorized=vectorized))


def method_for(cost: Cost, memory: int | None = None, *, spread: bool = False) -> str:
    """`select_method` for what is a `Cost` already.

    ``loop`` where `memory` is too little for that, or where it is to be `spread` over the workers
    of an executor and cannot.
    """
    able = (METHODS[name] for name in PREFERRED if METHODS[name].refusal(cost) is None)
    chosen = next(method for method in able if (method.flops(cost) or 0.0) <= method.most_flops)
    lacking = memory is not None and chosen.least_memory(cost) > memory
    return "loop" if lacking or (spread and not chosen.spreads) else chosen.name
