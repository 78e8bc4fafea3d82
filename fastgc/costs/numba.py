"""Costs that Numba compiled: dispatchers of one flat vector, run in compiled code on threads."""

import math
import sys
import time
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray
from fastgc.costs.base import Asked, Batch, Cost, Noting, Traits, register
from fastgc.costs.function import FunctionCost
from fastgc.parallel.threads import one_blas_thread

# One call into compiled code lasts about so long: Ctrl-C waits for it, and the last block of one
# thread may leave the others idle for as much. Around it Python spends some 20 µs.
SECONDS_AT_ONCE = 0.01


class NumbaCost(FunctionCost):
    """A Numba dispatcher vector (P,) -> float.

    Attributes:
        seconds: the least that an evaluation took so far.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds = math.inf

    @cached_property
    def _code(self) -> Any:
        """What Numba compiled for float64(float64[::1]); None where it cannot."""
        from fastgc.costs import numba_driver

        return numba_driver.code_of(self._function)

    @property
    def batch(self) -> Batch:  # type: ignore[override]  # it learns how long an evaluation takes
        """As many rows as last so long; the bits do not depend on it."""
        return Batch(most=max(1, int(SECONDS_AT_ONCE / self.seconds)))

    @property
    def traits(self) -> Traits:
        """Whether it may run on several threads at once.

        Numba's workqueue, which any function with a prange may call, aborts the process on that.
        """
        dispatcher: Any = self._function
        if dispatcher.targetoptions.get("parallel") or self._code is None:
            return Traits()
        import numba

        try:
            layer = numba.threading_layer()  # type: ignore[attr-defined]  # it is documented
        except ValueError:  # nothing parallel is loaded
            layer = None
        return Traits(thread_safe=layer != "workqueue")

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,), called as the caller would."""
        began = time.perf_counter()
        J = super().value(vector)
        self._took(time.perf_counter() - began, 1)
        return J

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P), in one call that holds no GIL."""
        if self._code is None:
            return super().values(rows)
        at = np.zeros(1, np.int64)
        try:
            return self.run(rows, at)
        except Exception:
            with Noting(self, rows[at[0]]):
                raise

    def rest(self, failed: bool) -> int:  # noqa: ARG002
        """Nothing: compiled code keeps nothing."""
        return 0

    def run(self, rows: FloatArray, at: NDArray[np.int64]) -> FloatArray:
        """The costs (K,) of rows (K, P); at[0] is the row that is being evaluated.

        With BLAS at one thread, as the cost may use it: a product with a matrix (3000, 1000) took
        7.6 ms where two threads of ours met two of BLAS, and takes 1.8.
        """
        from fastgc.costs import numba_driver

        scratch, costs = np.empty(rows.shape[1]), np.empty(len(rows))
        run, address = numba_driver.driver(), numba_driver.address_of(self._code)
        began = time.perf_counter()
        with one_blas_thread():
            run(address, rows, scratch, costs, at)
        self._took(time.perf_counter() - began, len(rows))
        return costs

    def _took(self, seconds: float, evaluations: int) -> None:
        self.seconds = min(self.seconds, max(seconds, 1e-9) / evaluations)


@register
def _dispatcher(asked: Asked) -> Cost | None:
    """Of a Numba dispatcher of one flat vector."""
    numba = sys.modules.get("numba.core.registry")  # where it is not loaded, nothing is one
    flat = asked.layout.kind == "array" and len(asked.layout.shapes[0]) == 1
    if numba is None or asked.vectorized or asked.reseed is not None or not flat:
        return None
    cost: Any = asked.cost
    if not isinstance(cost, numba.CPUDispatcher) or cost.targetoptions.get("forceobj"):
        return None
    return NumbaCost(cost, asked.layout, asked.theta, None, asked.settings)
