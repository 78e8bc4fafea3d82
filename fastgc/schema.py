"""A Report as plain JSON types, and back; docs/report.md describes them to a reader."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.report import Entry, Report, TensorReport
from fastgc.verdict import ENTRY_VERDICTS

#: Raised when a key changes its meaning or goes; new keys do not count.
SCHEMA = 1


def to_dict(report: Report) -> dict[str, Any]:
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
        "tensors": {name: _tensor_dict(tensor) for name, tensor in report.tensors.items()},
    }


def _tensor_dict(tensor: TensorReport) -> dict[str, Any]:
    worst, diagnosis = tensor.worst, tensor.diagnosis
    return {
        "shape": list(tensor.shape),
        "verdict": tensor.verdict,
        "ok": tensor.ok,
        "difference": _number(tensor.difference),
        "worst": {
            "name": worst.name,
            "index": list(worst.index),
            "analytic": _number(worst.analytic),
            "numerical": _number(worst.numerical),
            "uncertainty": _number(worst.uncertainty),
            "verdict": worst.verdict,
            "slopes": None if worst.slopes is None else [_number(s) for s in worst.slopes],
        },
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
    }


def from_dict(data: Mapping[str, Any]) -> Report:
    """See `Report.from_dict`."""
    read = _Reader(data, "the report")
    schema = read("schema", int)
    if schema != SCHEMA:
        raise ValueError(
            f"the report has schema {schema}; this fastgc reads schema {SCHEMA}. "
            "Read it with the version that wrote it"
        )
    return Report(
        verdict=read("verdict", _one_of("correct", "wrong", "unresolved")),
        difference=read("difference", _float),
        tolerance=read("tolerance", _float),
        epsilon=read("epsilon", _float),
        method=read("method", _str),
        cost=read("cost", _float),
        noise=read("noise", _float),
        evaluations=read("evaluations", int),
        seconds=read("seconds", _float),
        origin=read("origin", _optional(_str)),
        against=read("against", _optional(_float)),
        tensors={
            name: _tensor(name, _Reader(tensor, f'tensors["{name}"]'))
            for name, tensor in read("tensors", dict).items()
        },
    )


def _tensor(name: str, read: "_Reader") -> TensorReport:
    entry = _Reader(read("worst", dict), f"{read.what}.worst")
    diagnosis = read("diagnosis", _optional(dict))
    return TensorReport(
        name=name,
        shape=read("shape", _tuple(int)),
        verdict=read("verdict", _one_of("correct", "wrong", "unresolved")),
        difference=read("difference", _float),
        worst=Entry(
            name=entry("name", _str),
            index=entry("index", _tuple(int)),
            analytic=entry("analytic", _float),
            numerical=entry("numerical", _float),
            uncertainty=entry("uncertainty", _float),
            verdict=entry("verdict", _one_of(*ENTRY_VERDICTS)),
            slopes=entry("slopes", _optional(_tuple(_float))),
        ),
        counts={verdict: int(count) for verdict, count in read("counts", dict).items()},
        at_rounding=read("at_rounding", int),
        resolution=read("resolution", _float),
        tolerance=read("tolerance", _float),
        dtype=read("dtype", _str),
        diagnosis=None
        if diagnosis is None
        else _diagnosis(_Reader(diagnosis, f"{read.what}.diagnosis")),
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
