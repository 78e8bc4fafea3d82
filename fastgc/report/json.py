"""A Report as plain JSON types, and back; docs/report.md describes them to a reader.

The keys are the fields of the dataclasses, and `ok` where there is a verdict on the whole.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastgc.report.data import C, Contents, TensorReport

#: Raised when a key changes its meaning or goes; new keys do not count.
SCHEMA = 1
#: Keys that earlier reports of this schema lack; there they stand for the fields' defaults.
SINCE = ("scope", "estimate", "unit", "located", "epsilon", "zeros", "zero_within")

WANTED = "wanted what Report.to_dict made"


def to_dict(report: Contents) -> dict[str, Any]:
    """See `Report.to_dict`."""
    data = {"schema": SCHEMA, **_plain(report)}
    return data | {"tensors": data.pop("tensors")}  # the longest last


def from_dict(kind: type[C], data: Mapping[str, Any]) -> C:
    """See `Report.from_dict`."""
    schema = _get(data, "schema", "the report")
    if schema != SCHEMA:
        raise ValueError(
            f"the report has schema {schema}; this fastgc reads schema {SCHEMA}. "
            "Read it with the version that wrote it"
        )
    report: C = _read(kind, data, "the report")
    return report


def _fields(kind: Any) -> Iterator[dataclasses.Field[Any]]:
    """The fields that are keys; a tensor's name is the key that it stands under."""
    for field in dataclasses.fields(kind):
        if kind is not TensorReport or field.name not in ("name", "arrays"):
            yield field


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        data = {}
        for field in _fields(type(value)):
            data[field.name] = _plain(getattr(value, field.name))
            if field.name == "verdict" and hasattr(value, "ok"):
                data["ok"] = value.ok
        return data
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class _Unfit(Exception):  # noqa: N818  becomes a ValueError that names the key
    """A value that no field of its type can have."""


def _get(data: Any, key: str, what: str) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"{what} is a {type(data).__name__}; {WANTED}")
    if key not in data:
        raise ValueError(f'{what} has no "{key}"; {WANTED}')
    return data[key]


def _read(kind: Any, data: Any, what: str, **values: Any) -> Any:
    """The dataclass `kind` with these `values`, and the others from `data`.

    Raises:
        TypeError, ValueError: they name `what` was read, and the key.
    """
    hints = get_type_hints(kind)
    for field in _fields(kind):
        key = field.name
        if field.default is dataclasses.MISSING or key not in SINCE or key in data:
            value = _get(data, key, what)
            try:
                values[key] = _value(hints[key], value, f"{what}.{key}")
            except _Unfit:
                raise ValueError(f'{what} has "{key}": {value!r}; {WANTED}') from None
    return kind(**values)


def _value(hint: Any, value: Any, what: str) -> Any:
    """What `value` stands for in a field of the type `hint`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _read(hint, value, what)
    if origin is UnionType:
        return None if value is None else _value(arguments[0], value, what)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not ... and len(value) != len(arguments):
            raise _Unfit
        return tuple(_value(arguments[0], item, what) for item in value)
    if origin is Mapping and isinstance(value, Mapping):
        if arguments[1] is TensorReport:
            return {
                name: _read(TensorReport, tensor, f'tensors["{name}"]', name=name)
                for name, tensor in value.items()
            }
        return {key: _value(arguments[1], item, what) for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint is int and isinstance(value, int | float) and value % 1 == 0:
        return int(value)
    if hint is float and (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
        return float(value)
    raise _Unfit
