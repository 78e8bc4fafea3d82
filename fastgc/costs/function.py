"""Functions of the caller's as costs: of one set of parameters at a time, or of many in a stack."""

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray, Layout
from fastgc.costs.base import Asked, Batch, Cost, Noting, Traits, register

# Rows that a call gets at least, since it has a price, as one under torch.func.vmap. Of a CNN of
# 46,196 parameters, 4 rows a call took 1.09 ms each, 22 took 0.18.
LEAST_ROWS = 32


class FunctionCost(Cost):
    """A function parameters -> float. It gets copies, which it may keep, in the caller's container.

    Args:
        function: the caller's.
        layout: of its parameters.
        theta: θ, (P,).
        reseed: called before each evaluation; None for nothing.
        settings: NumPy's for floating-point errors, under which it is called.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        layout: Layout,
        theta: FloatArray,
        reseed: Callable[[], object] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.layout, self.theta = layout, theta
        self._function, self._reseed, self._settings = function, reseed, settings or {}
        self._away = [False]  # whether the last call was; shared with the cost `at` other points

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self._function, self.layout, self.theta, self._reseed, self._settings,
        )  # fmt: skip

    @property
    def traits(self) -> Traits:
        """Whether something seeds it; nothing else is known."""
        return Traits(reseeded=self._reseed is not None)

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,)."""
        arrays = self.layout.views(vector.copy())
        return as_float(self._called(arrays, vector, at_theta=vector is self.theta))

    def call(self, function: Callable[..., Any]) -> Any:
        """What another function of the caller's returns of θ, `reseed` called before it."""
        if self._reseed is not None:
            self._reseed()
        return super().call(function)

    def rest(self, failed: bool) -> int:
        """Evaluates at θ once more, unless a call there has `failed`."""
        if failed and not self._away[0]:
            return 0
        with contextlib.suppress(Exception):  # the check has its result, or its own exception
            self.value(self.theta)
        return 1

    def _called(self, arrays: list[FloatArray], *ends: FloatArray, at_theta: bool) -> Any:
        """What the function returns; `ends` are the first vector and the last, for a note."""
        self._away[0] = not at_theta
        with Noting(self, *ends), np.errstate(**self._settings):
            if self._reseed is not None:
                self._reseed()
            returned = self._function(self.layout.build(arrays))
        if at_theta:
            _refuse_writes(self.layout, self.theta, arrays)
        return returned


class VectorizedCost(FunctionCost):
    """A function that takes every array with a leading axis K and returns K costs."""

    batch = Batch(least=LEAST_ROWS, together=True)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.row_bytes = 8 * self.layout.size  # the copies that the cost may keep

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,), as a stack of one."""
        at_theta = vector is self.theta
        returned = self._called(self._copies(vector[np.newaxis]), vector, at_theta=at_theta)
        return float(as_stack(returned, 1)[0])

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P), in one call."""
        returned = self._called(self._copies(rows), rows[0], rows[-1], at_theta=False)
        return as_stack(returned, len(rows))

    def _copies(self, rows: FloatArray) -> list[FloatArray]:
        return [view.copy() for view in self.layout.views(rows)]


@register
def _function(asked: Asked) -> Cost:
    """Of anything that is no other kind of cost."""
    kind = VectorizedCost if asked.vectorized else FunctionCost
    return kind(asked.cost, asked.layout, asked.theta, asked.reseed, asked.settings)


def _refuse_writes(layout: Layout, theta: FloatArray, arrays: list[FloatArray]) -> None:
    for name, shape, array in zip(layout.names, layout.shapes, arrays, strict=True):
        if array.size != math.prod(shape):
            raise ValueError(
                f"the cost resizes its parameters: {name} had {math.prod(shape)} entries before "
                f"the call and {array.size} after it. Let it work on copies of its own"
            )
    after = np.concatenate([array.ravel() for array in arrays])
    if not np.array_equal(after, theta):
        k = int(np.argmax(after != theta))
        raise ValueError(
            f"the cost writes to its parameters: {layout.entry(k)} was {theta[k]} before the call "
            f"and {after[k]} after it. It got a copy, so nothing of yours has changed; let it "
            "work on copies of its own"
        )


def as_float(value: object) -> float:
    """The cost as a float, also from an array of one number; TypeError for what is none."""
    if isinstance(value, float):
        return float(value)
    array = _as_number_array(value, "a float")
    if array.size != 1:
        raise TypeError(
            f"the cost returned an array of shape {array.shape}; wanted a float. "
            "Sum or average it to one number"
        )
    return float(array.item())


def as_stack(value: object, count: int) -> FloatArray:
    """The costs of a stack as an array (K,); a column (K, 1) is one."""
    array = _as_number_array(value, f"an array of shape ({count},)")
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        raise TypeError(
            f"the vectorized cost returned an array of shape {array.shape} for a stack of {count}; "
            f"wanted ({count},). It gets every array with a leading axis K and returns K costs"
        )
    with np.errstate(all="ignore"):  # what is too large becomes inf
        return array.astype(np.float64)


def _as_number_array(value: object, wanted: str) -> NDArray[Any]:
    if value is None:
        raise TypeError(f"the cost returned None; wanted {wanted}. Does it end in a return?")
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return np.asarray(float(value))
        except OverflowError:
            return np.asarray(np.inf)
    try:
        array = np.asarray(value)
    except Exception:  # __array__ may raise anything
        array = np.asarray(None)
    if isinstance(value, tuple) or array.dtype.kind not in "iuf":
        advice = ""
        if isinstance(value, tuple):
            advice = " Return the cost alone: lambda parameters: f(parameters)[0]"
        elif array.dtype.kind == "c":
            advice = " Take its real part"
        raise TypeError(f"the cost returned {_kind(value)}; wanted {wanted}.{advice}")
    return array


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return f"a {type(value).__name__}"
