"""How the kernels are compiled, and where what is compiled is kept."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

# "contract" rounds a·b + c once and reorders nothing: `incremental` on 784-512-256-1, m = 8 took 61
# to 76 ms with it, 79 to 89 without. The tests against 50 digits pin what it could spoil. No other
# flag: "reassoc" could fold (x + h) − x, "nnan" and "ninf" drop a test for NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

# What only compiled code calls needs no way in from Python or C.
INNER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """Compiled as a part of an `entry`."""
    return cast(F, numba.njit(**INNER)(function))


def entry(function: F) -> F:
    """Compiled, and kept on disk where there is a place for it."""
    try:
        return cast(F, numba.njit(cache=True, **OPTIONS)(function))
    except RuntimeError:  # no cache directory is writable
        return cast(F, numba.njit(**OPTIONS)(function))


def warm_up(kernel: Callable[..., object], *arguments: object) -> None:
    """Calls a kernel once: that loads it from the cache, or compiles it and puts it there."""
    try:
        kernel(*arguments)
    except OSError as error:  # it is compiled, but a full disk, perhaps, has no place for it
        print(f"fastgc: the compiled kernels could not be kept: {error}", file=sys.stderr)


def is_kept(function: Callable[..., Any]) -> bool | None:
    """Whether an `entry` lies compiled on disk; None where it cannot be kept there."""
    stats = getattr(function, "stats", None)
    if stats is None:  # the JIT is disabled: there is nothing to compile
        return True
    if stats.cache_path is None:
        return None
    return any(Path(stats.cache_path).glob(f"kernels.{function.__name__}-*.nbi"))
