"""Which method `method="auto"` takes."""

from collections.abc import Callable
from typing import Any

from fastgc.layout import Container
from fastgc.problem import Problem, pose


def select_method(
    cost: Callable[..., Any], parameters: Container, *, vectorized: bool = False
) -> str:
    """The method that ``method="auto"`` takes, given memory; a pure function, nothing is evaluated.

    A `Network`, and a cost with ``vectorized=True``, take many sets of parameters in one call:
    ``stacked``. Any other cost takes one at a time: ``loop``.

    Args:
        cost: a `Network`, or any function parameters -> float.
        parameters: as for `check`.
        vectorized: the cost takes every array with a leading axis K and returns K costs.

    Raises:
        TypeError, ValueError: for parameters that the cost cannot take.

    >>> import fastgc
    >>> fastgc.select_method(fastgc.Network([[1.0]], [1.0]), {"W1": [[0.5]], "b1": [[0.0]]})
    'stacked'
    >>> fastgc.select_method(lambda theta: theta**2, 3.0)
    'loop'
    """
    return method_for(pose(cost, parameters, vectorized=vectorized))


def method_for(problem: Problem) -> str:
    """`select_method` for a problem already posed."""
    return "loop" if problem.evaluate_stack is None else "stacked"
