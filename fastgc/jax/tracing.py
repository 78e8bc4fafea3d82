"""What a function computes, as JAX has traced it."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np


def work_bytes(jaxpr: Any) -> int:
    """Bytes of all that a traced function computes on its way; it may hold less at a time."""
    total = 0
    for equation in jaxpr.eqns:
        total += max(_bytes_of(equation), *(work_bytes(inner) for inner in _inner(equation)), 0)
    return total


def narrow_dtypes(jaxpr: Any) -> set[str]:
    """The floating-point dtypes below double precision in which a traced function computes."""
    found = set()
    for equation in jaxpr.eqns:
        for out in equation.outvars:
            dtype = getattr(out.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 8:
                found.add(str(dtype))
        found.update(*(narrow_dtypes(inner) for inner in _inner(equation)))
    return found


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
