"""Costs that are compiled already: a Numba dispatcher of one flat vector, run without the GIL.

Imported only where Numba is, since it is what such a cost was made with.
"""

import math
import time
from functools import cached_property, lru_cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastgc.core.jit import entry, warm_up
from fastgc.core.tree import FloatArray
from fastgc.parallel.threads import one_blas_thread

VECTOR = types.Array(types.float64, 1, "C")

# One call into compiled code lasts about so long: Ctrl-C waits for it, and the last block of one
# thread may leave the others idle for as much. Around it Python spends some 20 µs.
SECONDS_AT_ONCE = 0.01


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
def _driver() -> Any:
    """`evaluate_rows`, loaded or compiled."""
    one = np.empty(1)
    warm_up(evaluate_rows, 0, np.empty((0, 1)), one, one, np.empty(1, np.int64))
    return evaluate_rows


class CompiledCost:
    """A Numba dispatcher vector (P,) -> float, as machine code. It has been called once, as is.

    Attributes:
        dispatcher: what the caller passed.
        seconds: the least that an evaluation took so far.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self.seconds = math.inf

    @cached_property
    def _code(self) -> Any:
        """What Numba compiled for float64(float64[::1]); None where it cannot."""
        code = self.dispatcher.overloads.get((VECTOR,))
        if code is not None and code.signature.return_type == types.float64:
            return code
        try:  # it returns an integer, has defaults, or was compiled for another array
            return _converted(self.dispatcher).overloads[(VECTOR,)]
        except NumbaError:  # it returns None at times, perhaps, or an array of no dimension
            return None

    @property
    def runs_alone(self) -> bool:
        """Whether it is compiled to a plain function, so that it needs no Python to be called."""
        return self._code is not None

    @property
    def concurrent(self) -> bool:
        """Whether it may run on several threads at once.

        Numba's workqueue, which any function with a prange may call, aborts the process on that.
        """
        if not self.runs_alone or self.dispatcher.targetoptions.get("parallel"):
            return False
        try:
            layer = numba.threading_layer()  # type: ignore[attr-defined]  # it is documented
            return bool(layer != "workqueue")
        except ValueError:  # nothing parallel is loaded
            return True

    @property
    def rows_at_once(self) -> int:
        """Rows that one call should be given, by how long an evaluation takes; at least 1."""
        return max(1, int(SECONDS_AT_ONCE / self.seconds))

    def took(self, seconds: float, evaluations: int) -> None:
        """Notes how long some evaluations took."""
        self.seconds = min(self.seconds, max(seconds, 1e-9) / evaluations)

    def costs(self, rows: FloatArray, at: NDArray[np.int64]) -> FloatArray:
        """The costs (K,) of rows (K, P), in one call that holds no GIL; `at` as `evaluate_rows`.

        With BLAS at one thread, as the cost may use it: a product with a matrix (3000, 1000) took
        7.6 ms where two threads of ours met two of BLAS, and takes 1.8.
        """
        code, driver = self._code, _driver()
        address = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
        scratch, costs = np.empty(rows.shape[1]), np.empty(len(rows))
        began = time.perf_counter()
        with one_blas_thread():
            driver(address, rows, scratch, costs, at)
        self.took(time.perf_counter() - began, len(rows))
        return costs


@lru_cache(maxsize=16)
def _converted(dispatcher: Any) -> Any:
    """The dispatcher as one of float64(float64[::1]); compiled, 0.1 s, for the last few of them."""
    return numba.njit(types.float64(VECTOR))(lambda vector: float(dispatcher(vector)))
