"""Calling what the caller passed: in double precision, with copies, and what it may return."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextmanager
def unguarded() -> Iterator[None]:
    """JAX on this thread without its guards against what a check does on purpose, until it ends.

    It moves arrays between NumPy and JAX, and calls a loss again and again with the same keys.
    """
    with jax.transfer_guard("allow"), jax.debug_key_reuse(False):
        yield


@contextmanager
def float64() -> Iterator[None]:
    """JAX in double precision, and `unguarded`, on this thread. Nothing global changes."""
    switch = getattr(jax, "enable_x64", None)
    if switch is None:  # older versions
        switch = import_module("jax.experimental").enable_x64
    context: AbstractContextManager[Any] = switch(True)
    with unguarded(), context:
        yield


PINNED = (
    "Where it pins a dtype such as jnp.float32, that now meets float64: let it follow its inputs, "
    "as x.dtype"
)


@contextmanager
def noting(what: str) -> Iterator[None]:
    """Adds to an exception of the caller's code where it was raised."""
    try:
        yield
    except Exception as error:
        error.add_note(f"fastgc: {what}")
        raise


def copied(leaf: Any) -> Any:
    """A copy of an array, of its own dtype, that may be written to or donated; else the leaf."""
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return jnp.array(leaf)
    return leaf


def held(leaf: Any) -> Any:
    """A copy on the host of an array, floating-point numbers in double precision; else the leaf."""
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return leaf  # typed keys
        leaf = np.array(leaf)
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.astype(np.complex128)
    return leaf.astype(np.float64 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def require_concrete(value: Any, what: str) -> None:
    """TypeError for a tracer."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{what} is a tracer: fastgc.jax runs outside of jit, grad and vmap, on arrays that "
            "have values"
        )


def require_scalar(value: Any) -> Any:
    """The loss as it was returned; TypeError for what is no real number."""
    if isinstance(value, float):
        return value
    what, advice = "", ""
    if value is None:
        what, advice = "None", ". Does it end in a return?"
    elif not isinstance(value, jax.Array | np.ndarray | np.generic):
        what = f"an object of type {type(value).__name__}"
        if isinstance(value, tuple):
            advice = ". Return the loss alone: lambda params, *args: loss(params, *args)[0]"
    elif value.shape:
        what, advice = f"an array of shape {value.shape}", ". Sum or average it"
    elif not jnp.issubdtype(value.dtype, jnp.floating):
        what = f"a number of dtype {value.dtype}"
        advice = ". Take its real part" if value.dtype.kind == "c" else ""
    if what:
        raise TypeError(
            f"the loss returned {what}; wanted one real number, as jax.grad does{advice}"
        )
    return value
