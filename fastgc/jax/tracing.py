"""What a function computes, as JAX has traced it."""

from collections.abc import Collection, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np


def work_bytes(jaxpr: Any) -> int:
    """Bytes of all that a traced function computes on its way; it may hold less at a time."""
    total = 0
    for equation in jaxpr.eqns:
        total += max(_bytes_of(equation), *(work_bytes(inner) for inner in _inner(equation)), 0)
    return total


def narrow_dtypes(jaxpr: Any, moved: Collection[bool]) -> set[str]:
    """The floating-point dtypes below double precision in which a traced function computes.

    Args:
        jaxpr: the function.
        moved: for each of its inputs, whether it is one of those that matter; what depends on none
            of these may be in any precision.
    """
    dtypes = set()
    depends = {v for v, matters in zip(jaxpr.invars, moved, strict=True) if matters}
    for equation in jaxpr.eqns:
        inputs = [_among(v, depends) for v in equation.invars]
        if not any(inputs):
            continue
        depends.update(equation.outvars)
        for out in equation.outvars:
            dtype = getattr(out.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 8:
                dtypes.add(str(dtype))
        for inner in _inner(equation):
            dtypes |= narrow_dtypes(inner, _passed_on(equation, inputs, len(inner.invars)))
    return dtypes


def _among(variable: Any, depends: set[Any]) -> bool:
    """Whether it is one of these variables; a number in its place cannot be hashed."""
    return not hasattr(variable, "val") and variable in depends


def _passed_on(equation: Any, inputs: list[bool], count: int) -> list[bool]:
    """Which inputs of a function that an equation calls are among those that matter."""
    loops = equation.primitive.name in ("scan", "while")  # what comes out of it goes in again
    chooses = len(inputs) - count  # of cond, the first input does
    return [True] * count if loops or chooses not in (0, 1) else inputs[chooses:]


def _bytes_of(equation: Any) -> int:
    return sum(
        int(np.prod(out.aval.shape)) * getattr(out.aval.dtype, "itemsize", 8)
        for out in equation.outvars
        if hasattr(out.aval, "dtype")
    )


def _inner(equation: Any) -> Iterator[Any]:
    """The functions that an equation of a traced function calls."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one
