"""The analytic gradient: its keys, shapes and containers, and how closely its dtype can be held."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.subset import Subset
from fastgc.core.tree import FloatArray, Layout, as_real_array, items_of, joined
from fastgc.core.verdict import THRESHOLDS

NAMED = 12  # tensors that an advice names at most


def flatten_gradients(
    layout: Layout, gradients: object, tensors: Sequence[int] | None = None
) -> tuple[FloatArray, list[str]]:
    """The values of `gradients` as a new float64 vector in the order of `layout`, and their dtypes.

    A mapping may be keyed ``W1`` or ``dW1``; keys that belong to no parameter, as the ``dZ1``,
    ``dA1`` … of a backward pass, are passed over. Of some `tensors` alone, by number, a mapping
    need not hold the others. One array may come as lists of numbers, and the other way about.

    Raises:
        TypeError: for another kind of container, or values that are not real numbers.
        ValueError: for missing or ambiguous keys and for wrong shapes.
    """
    tensors = range(len(layout.names)) if tensors is None else tensors
    items = _gradients_of(layout, gradients, tensors)
    arrays = []
    for (label, value), t in zip(items, tensors, strict=True):
        name, shape = layout.names[t], layout.shapes[t]
        array = as_real_array(value, label)
        if array.shape != shape:
            wanted = (
                f'parameters["{name}"]'
                if layout.kind == "mapping"
                else label.replace("gradients", "parameters", 1)
            )
            raise ValueError(
                f"{label} has shape {array.shape}; {wanted} has shape {shape}. "
                + _reshape_advice(array.shape, shape)
            )
        arrays.append(array)
    return joined(arrays), [_name_of(array.dtype) for array in arrays]


@lru_cache(maxsize=32)
def _name_of(dtype: np.dtype[Any]) -> str:
    """Its name, which NumPy takes 2.6 µs to compose."""
    return dtype.name


def _gradients_of(
    layout: Layout, gradients: object, tensors: Sequence[int]
) -> list[tuple[str, object]]:
    """The gradient of each of these tensors, with the expression that reaches it."""
    kind, items = items_of(gradients, "gradients")
    if layout.kind == "array" and kind == "sequence" and _is_one_array(gradients, layout.shapes[0]):
        return [("gradients", gradients)]
    if layout.kind == "sequence" and kind == "array" and _is_stack(gradients, layout.shapes):
        kind, items = items_of(list(as_real_array(gradients, "gradients")), "gradients")
    if kind != layout.kind:
        raise TypeError(
            f"gradients is {_a(kind)} and parameters is {_a(layout.kind)}; "
            "wanted the same kind of container for both"
            + (". Its first element alone?" if _led_by(gradients, layout) else "")
        )
    if kind == "mapping":
        return _match_keys(layout, gradients, tensors)
    if len(items) != len(layout.names):
        raise ValueError(
            f"gradients has {len(items)} arrays and parameters has {len(layout.names)}; "
            "wanted one gradient for each parameter, in the same order"
        )
    chosen = [items[t] for t in tensors]
    missing = [label for label, value in chosen if value is None]
    if missing:
        having = [layout.names[t] for t in tensors if items[t][1] is not None]
        raise ValueError(f"{missing[0]} is None: the parameter has no gradient{_only(having)}")
    return chosen


def _match_keys(layout: Layout, gradients: Any, tensors: Sequence[int]) -> list[tuple[str, object]]:
    names = [layout.names[t] for t in tensors]
    keys: dict[str, str | None] = {}
    for name in names:
        prefixed = f"d{name}"
        candidates = [key for key in (name, prefixed) if gradients.get(key) is not None]
        if len(candidates) == 2 and prefixed not in layout.names:
            raise ValueError(
                f'gradients has both "{name}" and "{prefixed}" for parameters["{name}"]; keep one'
            )
        keys[name] = candidates[0] if candidates else None
    for name, key in keys.items():
        if key is None:
            present = ", ".join(key for key in gradients if gradients[key] is not None) or "none"
            raise ValueError(
                f'gradients has no "{name}" and no "d{name}", for parameters["{name}"]; '
                f"its keys are: {present}{_only([name for name in names if keys[name]])}"
            )
    return [(f'gradients["{key}"]', gradients[key]) for key in keys.values()]


def _only(having: list[str]) -> str:
    """Advice to check the tensors that have gradients."""
    if not having:
        return ""
    quoted = ", ".join(f'"{name}"' for name in having[:NAMED])
    more = ", …" if len(having) > NAMED else ""
    return f". To check those that have one alone, pass only=[{quoted}{more}]"


def _is_one_array(gradients: Any, shape: tuple[int, ...]) -> bool:
    """Whether nested lists are one array, and not a container that begins with one."""
    found = _shape_of(gradients)
    if found is None or not gradients:
        return found is not None
    return found == shape or _shape_of(gradients[0]) != shape


def _is_stack(gradients: object, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether an array holds one gradient for each tensor, one after another."""
    found = _shape_of(gradients)
    return all(found == (len(shapes), *shape) for shape in shapes)


def _shape_of(value: Any) -> tuple[int, ...] | None:
    try:
        with warnings.catch_warnings(action="error"):
            shape: tuple[int, ...] = np.shape(value)
    except Exception:  # it is ragged, or __array__ raises
        return None
    return shape


def _reshape_advice(got: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(got) > 1 and got[::-1] == wanted:
        return "Transpose it?"
    if math.prod(got) == math.prod(wanted):
        return f"Reshape it: .reshape({wanted})"
    if len(got) == len(wanted) and all(g == w or w == 1 for g, w in zip(got, wanted, strict=True)):
        return "Sum it over the samples: .sum(axis=1, keepdims=True)?"
    return "A gradient has the shape of its parameter"


def _led_by(gradients: object, layout: Layout) -> bool:
    """Whether it begins, as gradients and a cache do, with what was wanted."""
    if not isinstance(gradients, list | tuple) or not gradients:
        return False
    if layout.kind == "mapping":
        return isinstance(gradients, tuple) and isinstance(gradients[0], Mapping)
    return layout.kind == "array" and _shape_of(gradients[0]) == layout.shapes[0]


def _a(kind: str) -> str:
    return {"mapping": "a mapping", "sequence": "a sequence", "array": "an array"}[kind]


class Precision(NamedTuple):
    """What a format of floats leaves of a gradient.

    Attributes:
        tolerance: the relative error that a right backward pass in it may have.
        unit: its rounding unit over that of float64.
        least: its smallest number above 0, beside which gradients vanish.
    """

    tolerance: float
    unit: float
    least: float


# A backward pass of a few layers in float32 is off by 1e-7 to 1e-5 of its tensor's size.
NARROW = {
    "float32": Precision(1e-4, 2.0**29, 2.0**-149),
    "float16": Precision(5e-2, 2.0**42, 2.0**-24),
    "bfloat16": Precision(2e-1, 2.0**45, 2.0**-133),
}


@dataclass(frozen=True, eq=False, repr=False)
class AnalyticGradient:
    """Gradients to be checked.

    Attributes:
        grad: (P,).
        tolerances: relative, for each tensor, (T,): as asked for, or what its dtype allows.
        units: the rounding unit of each tensor's dtype over that of float64, (T,).
        least: the smallest number above 0 of each tensor's dtype, 0 for a wide one, (T,).
        dtypes: the name of each tensor's dtype, (T,).
        in_float64: whether no dtype matters.
        pooled: whether an error is relative to the tensor's size, for each entry; so it is along
            directions, and for gradients of a narrow dtype.
    """

    grad: FloatArray
    tolerances: FloatArray
    units: FloatArray
    least: FloatArray
    dtypes: tuple[str, ...]
    in_float64: bool
    pooled: bool = False

    @cached_property
    def floors(self) -> FloatArray:
        """The share of the size of a tensor's gradients that each of its entries may be off, (T,).

        A backward pass in narrow floats loses as much of a small entry as of a large one.
        """
        return np.where(self.pooled | (self.units > 1.0), self.tolerances, THRESHOLDS.floor)

    def about(self, t: int) -> "AnalyticGradient":
        """What is claimed of tensor t alone, without its gradient."""
        one = slice(t, t + 1)
        return AnalyticGradient(
            self.grad[:0], self.tolerances[one], self.units[one], self.least[one],
            self.dtypes[one], in_float64=self.in_float64 or self.dtypes[t] not in NARROW,
            pooled=self.pooled,
        )  # fmt: skip

    def uncertainty(
        self, uncertainty: FloatArray, tensors: NDArray[np.intp], *, exact: bool
    ) -> FloatArray:
        """The uncertainty of a method, as one of entries of these tensors.

        That of an `exact` method is what a right backward pass may lose, and grows with its unit.
        """
        if self.in_float64:
            return uncertainty
        return uncertainty * (self.units[tensors] if exact else 1.0) + self.least[tensors]

    def tolerance(self, layout: Layout, tensors: slice, lengths: NDArray[np.intp]) -> Any:
        """The tolerance of each entry of a piece of the flat vector, or of them all."""
        if self.in_float64:
            return self.tolerances[0]
        return layout.per_entry(self.tolerances, tensors, lengths)

    def floor(self, layout: Layout, tensors: slice, lengths: NDArray[np.intp]) -> Any:
        """The share of its tensor's size for each entry of a piece, or of them all."""
        if self.in_float64:
            return self.floors[0]
        return layout.per_entry(self.floors, tensors, lengths)


def analytic_gradient(
    layout: Layout, gradients: object, tolerance: float, subset: Subset | None = None
) -> AnalyticGradient:
    """`gradients` as a claim; what `flatten_gradients` refuses is refused.

    Args:
        layout: of all parameters.
        gradients: as the caller passed them.
        tolerance: relative, as asked for.
        part: the entries that it is to be about; None for all.
    """
    grad, dtypes = flatten_gradients(layout, gradients, None if subset is None else subset.tensors)
    if subset is not None and subset.layout.places is not None:
        starts = np.cumsum([0, *(math.prod(shape) for shape in subset.layout.shapes)])
        places = zip(starts, subset.layout.places, strict=False)
        grad = grad[np.concatenate([start + where for start, where in places])]
    tolerances = np.full(len(dtypes), tolerance)
    units, least = np.ones(len(dtypes)), np.zeros(len(dtypes))
    for t, dtype in enumerate(dtypes):
        if dtype in NARROW:
            tolerances[t] = max(tolerance, NARROW[dtype].tolerance)
            units[t], least[t] = NARROW[dtype].unit, NARROW[dtype].least
    in_float64 = not NARROW.keys() & set(dtypes)
    return AnalyticGradient(grad, tolerances, units, least, tuple(dtypes), in_float64=in_float64)
