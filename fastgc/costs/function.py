"""What a cost returned, as numbers; and that it sees the unperturbed parameters last."""

import contextlib
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray


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


class Rest:
    """The last call of a cost, at θ."""

    def __init__(self) -> None:
        self.away = False

    def evaluate(
        self, evaluate: Callable[[FloatArray], float], theta: FloatArray, failed: bool
    ) -> int:
        """Evaluates at θ once more, unless a call there has `failed`; the evaluations spent."""
        if failed and not self.away:
            return 0
        with contextlib.suppress(Exception):  # the check has its result, or its own exception
            evaluate(theta)
        return 1
