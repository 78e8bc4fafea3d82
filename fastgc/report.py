"""Report: what a check found. Frozen data; how it looks is in `rendering`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastgc.disputes import Findings
from fastgc.layout import Layout, entry_name
from fastgc.verdict import ENTRY_VERDICTS, Verdict, verdict_of

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Entry:
    """One parameter: its gradient as given and as found.

    Attributes:
        name: its address, as ``W2[3, 7]``.
        index: its index in its tensor; empty for a scalar.
        analytic: the gradient that was checked.
        numerical: gradapprox.
        uncertainty: how far rounding may have moved `numerical`.
        verdict: ``agree``, ``kink``, ``unresolved``, ``disagree`` or ``nonfinite``.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numerical: float
    uncertainty: float
    verdict: str


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the parameters.

    Attributes:
        name: as in the parameters.
        shape: of the tensor.
        verdict: ``correct``, ``wrong`` or ``unresolved``, that of its worst entry.
        difference: the lab's formula over this tensor.
        worst: the entry with the worst verdict and, among those, the largest error.
        counts: number of entries by entry verdict.
        resolution: the largest uncertainty of its entries, relative to the gradient: errors
            smaller than this are lost in the rounding noise of the cost.
        diagnosis: what the error looks like; None where nothing is said.
    """

    name: str
    shape: tuple[int, ...]
    verdict: Verdict
    difference: float
    worst: Entry
    counts: Mapping[str, int]
    resolution: float
    diagnosis: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the verdict is ``correct``."""
        return self.verdict == "correct"


@dataclass(frozen=True)
class Report:
    """What a check found. True in a condition when the gradients are right; prints as a table.

    Attributes:
        verdict: ``correct``; ``wrong``, if any entry disagrees or is not finite; ``unresolved``,
            if some entries are lost in the rounding noise of the cost. It does not depend on
            `difference`.
        difference: ‖grad − gradapprox‖₂ / (‖grad‖₂ + ‖gradapprox‖₂) over all entries.
        tolerance: relative, as it was asked for.
        epsilon: the step.
        method: the method that was used.
        cost: J at the parameters.
        evaluations: of the cost, in all.
        seconds: that the check took, less loading the compiled kernels, once in a process.
        tensors: name -> `TensorReport`, in the order of the parameters.

    >>> import fastgc
    >>> report = fastgc.check(lambda p: p["a"] ** 2, {"a": 3.0}, {"a": 6.0})
    >>> bool(report), report.verdict, report.tensors["a"].counts["agree"]
    (True, 'correct', 1)
    >>> sorted(report.to_dict()["tensors"]["a"]["worst"])
    ['analytic', 'index', 'name', 'numerical', 'uncertainty', 'verdict']
    """

    verdict: Verdict
    difference: float
    tolerance: float
    epsilon: float
    method: str
    cost: float
    evaluations: int
    seconds: float
    tensors: Mapping[str, TensorReport]

    @property
    def ok(self) -> bool:
        """Whether the verdict is ``correct``."""
        return self.verdict == "correct"

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        from fastgc.rendering import plain

        return plain(self)

    def __rich__(self) -> "RenderableType":
        from fastgc.rendering import renderable

        return renderable(self)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain JSON types; NaN and inf, which JSON lacks, as strings."""
        return {
            "verdict": self.verdict,
            "ok": self.ok,
            "difference": _number(self.difference),
            "tolerance": self.tolerance,
            "epsilon": self.epsilon,
            "method": self.method,
            "cost": self.cost,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "tensors": {name: _tensor_dict(tensor) for name, tensor in self.tensors.items()},
        }


def tensor_reports(layout: Layout, findings: Findings) -> dict[str, TensorReport]:
    """The verdict on every tensor."""
    found = findings.tally
    reports = {}
    for t, (name, offset) in enumerate(zip(layout.names, layout.offsets, strict=False)):
        place, worst = found.place[t], found.worst[t]
        index = layout.index(t, place - offset)
        reports[name] = TensorReport(
            name=name,
            shape=layout.shapes[t],
            verdict=verdict_of(worst),
            difference=found.differences[t],
            worst=Entry(
                name=entry_name(name, index),
                index=index,
                analytic=float(findings.grad[place]),
                numerical=float(findings.gradapprox[place]),
                uncertainty=float(findings.uncertainty[place]),
                verdict=ENTRY_VERDICTS[worst],
            ),
            counts=dict(zip(ENTRY_VERDICTS, found.counts[t], strict=True)),
            resolution=found.resolutions[t],
        )
    return reports


def _tensor_dict(tensor: TensorReport) -> dict[str, Any]:
    worst = tensor.worst
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
        },
        "counts": dict(tensor.counts),
        "resolution": _number(tensor.resolution),
        "diagnosis": tensor.diagnosis,
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
