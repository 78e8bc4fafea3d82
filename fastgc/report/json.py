"""A Report as plain JSON types, and back; docs/report.md describes them to a reader."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from fastgc.core.statistics import Estimate
from fastgc.core.verdict import ENTRY_VERDICTS
from fastgc.report.data import C, Contents, Diagnosis, Entry, TensorReport

#: Raised when a key changes its meaning or goes; new keys do not count.
SCHEMA = 1
#: Keys that earlier reports of this schema lack, with what they stand for there.
SINCE: dict[str, Any] = {
    "scope": None, "estimate": None, "located": [], "zeros": 0, "zero_within": 0.0,
    "unit": "evaluations",
}  # fmt: skip


def to_dict(report: Contents) -> dict[str, Any]:
    """See `Report.to_dict`."""
    return {
        "schema": SCHEMA,
        "verdict": report.verdict,
        "ok": report.ok,
        "difference": _number(report.difference),
        "tolerance": report.tolerance,
        "epsilon": report.epsilon,
        "method": report.method,
        "cost": report.cost,
        "noise": _number(report.noise),
        "evaluations": report.evaluations,
        "seconds": report.seconds,
        "origin": report.origin,
        "against": report.against,
        "scope": report.scope,
        "estimate": _estimate_dict(report.estimate),
        "unit": report.unit,
        "tensors": {name: _tensor_dict(tensor) for name, tensor in report.tensors.items()},
    }


def _tensor_dict(tensor: TensorReport) -> dict[str, Any]:
    diagnosis = tensor.diagnosis
    return {
        "shape": list(tensor.shape),
        "verdict": tensor.verdict,
        "ok": tensor.ok,
        "difference": _number(tensor.difference),
        "worst": _entry_dict(tensor.worst),
        "counts": dict(tensor.counts),
        "at_rounding": tensor.at_rounding,
        "resolution": _number(tensor.resolution),
        "tolerance": tensor.tolerance,
        "dtype": tensor.dtype,
        "diagnosis": None
        if diagnosis is None
        else {
            "kind": diagnosis.kind,
            "text": diagnosis.text,
            "value": None if diagnosis.value is None else _number(diagnosis.value),
        },
        "estimate": _estimate_dict(tensor.estimate),
        "located": [_entry_dict(entry) for entry in tensor.located],
        "epsilon": tensor.epsilon,
        "zeros": tensor.zeros,
        "zero_within": tensor.zero_within,
    }


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "index": list(entry.index),
        "analytic": _number(entry.analytic),
        "numerical": _number(entry.numerical),
        "uncertainty": _number(entry.uncertainty),
        "verdict": entry.verdict,
        "slopes": None if entry.slopes is None else [_number(s) for s in entry.slopes],
    }


def _estimate_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {name: _number(value) for name, value in dataclasses.asdict(estimate).items()}


def from_dict(kind: type[C], data: Mapping[str, Any]) -> C:
    """See `Report.from_dict`."""
    read = _Reader(data, "the report")
    schema = read("schema", int)
    if schema != SCHEMA:
        raise ValueError(
            f"the report has schema {schema}; this fastgc reads schema {SCHEMA}. "
            "Read it with the version that wrote it"
        )
    return kind(
        verdict=read("verdict", _one_of("correct", "wrong", "unresolved")),
        difference=read("difference", _float),
        tolerance=read("tolerance", _float),
        epsilon=read("epsilon", _float),
        method=read("method", _str),
        cost=read("cost", _optional(_float)),
        noise=read("noise", _float),
        evaluations=read("evaluations", int),
        seconds=read("seconds", _float),
        origin=read("origin", _optional(_str)),
        against=read("against", _optional(_float)),
        scope=read("scope", _optional(_str)),
        estimate=_estimate(read("estimate", _optional(dict)), "the report.estimate"),
        unit=read("unit", _str),
        tensors={
            name: _tensor(name, _Reader(tensor, f'tensors["{name}"]'))
            for name, tensor in read("tensors", dict).items()
        },
    )


def _tensor(name: str, read: "_Reader") -> TensorReport:
    diagnosis = read("diagnosis", _optional(dict))
    return TensorReport(
        name=name,
        shape=read("shape", _tuple(int)),
        verdict=read("verdict", _one_of("correct", "wrong", "unresolved")),
        difference=read("difference", _float),
        worst=_entry(_Reader(read("worst", dict), f"{read.what}.worst")),
        counts={verdict: int(count) for verdict, count in read("counts", dict).items()},
        at_rounding=read("at_rounding", int),
        resolution=read("resolution", _float),
        tolerance=read("tolerance", _float),
        dtype=read("dtype", _str),
        diagnosis=None
        if diagnosis is None
        else _diagnosis(_Reader(diagnosis, f"{read.what}.diagnosis")),
        estimate=_estimate(read("estimate", _optional(dict)), f"{read.what}.estimate"),
        located=tuple(
            _entry(_Reader(entry, f"{read.what}.located")) for entry in read("located", list)
        ),
        epsilon=_optional(_float)(read.data.get("epsilon")),
        zeros=read("zeros", int),
        zero_within=read("zero_within", _float),
    )


def _entry(read: "_Reader") -> Entry:
    return Entry(
        name=read("name", _str),
        index=read("index", _tuple(int)),
        analytic=read("analytic", _float),
        numerical=read("numerical", _float),
        uncertainty=read("uncertainty", _float),
        verdict=read("verdict", _one_of(*ENTRY_VERDICTS)),
        slopes=read("slopes", _optional(_tuple(_float))),
    )


def _estimate(data: Mapping[str, Any] | None, what: str) -> Estimate | None:
    if data is None:
        return None
    read = _Reader(data, what)
    return Estimate(
        directions=read("directions", int),
        error=read("error", _float),
        low=read("low", _float),
        high=read("high", _float),
        caught=read("caught", _float),
    )


def _diagnosis(read: "_Reader") -> Diagnosis:
    return Diagnosis(read("kind", _str), read("text", _str), read("value", _optional(_float)))


class _Reader:
    """Values of a mapping by key; an error names the key."""

    def __init__(self, data: Any, what: str) -> None:
        if not isinstance(data, Mapping):
            raise TypeError(f"{what} is a {type(data).__name__}; wanted what Report.to_dict made")
        self.data, self.what = data, what

    def __call__(self, key: str, make: Callable[[Any], Any]) -> Any:
        if key not in self.data and key in SINCE:
            return make(SINCE[key])
        if key not in self.data:
            raise ValueError(f'{self.what} has no "{key}"; wanted what Report.to_dict made')
        try:
            return make(self.data[key])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'{self.what} has "{key}": {self.data[key]!r}; wanted what Report.to_dict made'
            ) from error


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _float(value: Any) -> float:
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise ValueError
    return float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _one_of(*names: str) -> Callable[[Any], Any]:
    def make(value: Any) -> Any:
        if value not in names:
            raise ValueError
        return value

    return make


def _optional(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else make(value)


def _tuple(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: tuple(make(value) for value in values)
