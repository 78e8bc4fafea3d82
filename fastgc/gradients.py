"""The analytic gradient as one flat vector: its keys, shapes and kinds of containers."""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastgc.layout import FloatArray, Layout, as_real_array, items_of, joined

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
