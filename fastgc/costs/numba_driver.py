"""Compiled code around a cost that Numba compiled: its rows are evaluated without the GIL.

Imported only where Numba is, since it is what such a cost was made with.
"""

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastgc.core.jit import entry, warm_up
from fastgc.core.tree import FloatArray

VECTOR = types.Array(types.float64, 1, "C")


@intrinsic
def _call(_context: Any, _address: Any, _vector: Any) -> Any:
    """The compiled function float64(float64[::1]) at an address, its exceptions passed on.

    A driver that took the dispatcher itself, as an argument or a closure, would be compiled for
    each cost in each process, 0.20 s, since Numba keeps none such on disk; this one is the same for
    all and is kept (0.23 s once, then 5 ms to load). `types.FunctionType` would do, at 90 µs a
    call, but Numba 0.60 swallows the exceptions of what it calls.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, vector = arguments
        kind = context.call_conv.get_function_type(types.float64, (VECTOR,))
        function = builder.inttoptr(address, kind.as_pointer())
        status, value = context.call_conv.call_function(
            builder, function, types.float64, (VECTOR,), [vector]
        )
        with builder.if_then(status.is_error, likely=False):
            context.call_conv.return_status_propagate(builder, status)
        return value

    return types.float64(types.int64, VECTOR), generate


@entry
def evaluate_rows(
    address: int, rows: FloatArray, scratch: FloatArray, costs: FloatArray, at: NDArray[np.int64]
) -> None:
    """The costs (K,) of rows (K, P), by a function that may write to its argument.

    Args:
        address: of the function.
        rows: they stay as they are.
        scratch: (P,), what the function gets.
        costs: filled.
        at: (1,), the row that is being evaluated.
    """
    for i in range(rows.shape[0]):
        at[0] = i
        for j in range(rows.shape[1]):
            scratch[j] = rows[i, j]
        costs[i] = _call(address, scratch)  # type: ignore[call-arg]  # an intrinsic


@lru_cache(maxsize=1)
def driver() -> Any:
    """`evaluate_rows`, loaded or compiled."""
    one = np.empty(1)
    warm_up(evaluate_rows, 0, np.empty((0, 1)), one, one, np.empty(1, np.int64))
    return evaluate_rows


def code_of(dispatcher: Any) -> Any:
    """What Numba compiled for float64(float64[::1]); None where it cannot."""
    # as a call of it would, so that the bits are the same whether it was called before or not
    with suppress(NumbaError, RuntimeError, TypeError):  # what it has is all that it may have
        dispatcher.compile((VECTOR,))
    code = dispatcher.overloads.get((VECTOR,))
    if code is not None and code.signature.return_type == types.float64:
        return code
    try:  # it returns an integer, has defaults, or was compiled for another array
        return _converted(dispatcher).overloads[(VECTOR,)]
    except NumbaError:  # it returns None at times, perhaps, or an array of no dimension
        return None


def address_of(code: Any) -> int:
    """Where compiled code begins."""
    address: int = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
    return address


@lru_cache(maxsize=16)
def _converted(dispatcher: Any) -> Any:
    """The dispatcher as one of float64(float64[::1]); compiled, 0.1 s, for the last few of them."""
    return numba.njit(types.float64(VECTOR))(lambda vector: float(dispatcher(vector)))
