"""The verdict on each tensor, in a report; and why nothing can be told of one."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import Layout
from fastgc.core.verdict import ENTRY_VERDICTS, UNRESOLVED, verdict_of
from fastgc.costs.base import Cost
from fastgc.report.data import Arrays, Diagnosis, TensorReport
from fastgc.verdicts.record import Check, Findings

if TYPE_CHECKING:
    pass


def tensor_reports(
    layout: Layout,
    analytic: AnalyticGradient,
    findings: Findings,
    diagnoses: Mapping[str, Diagnosis],
) -> dict[str, TensorReport]:
    """The verdict on every tensor."""
    found = findings.summary
    reports = {}
    rounding = np.searchsorted(findings.at_rounding, layout.offsets)
    looks = np.searchsorted(findings.disputed, layout.offsets)
    for t, (name, part) in enumerate(layout.tensors()):
        looked_at = slice(looks[t], looks[t + 1])
        places = None if layout.places is None else layout.places[t]
        shape = layout.shapes[t] if places is None else places.shape
        arrays = Arrays(
            shape=layout.shapes[t],
            places=places,
            analytic=findings.grad[part].reshape(shape),
            numerical=findings.gradapprox[part].reshape(shape),
            uncertainty=findings.uncertainty[part].reshape(shape),
            verdicts=findings.codes[part].reshape(shape),
            looked_at=findings.disputed[looked_at] - part.start,
            slopes=(findings.slopes[0][looked_at], findings.slopes[1][looked_at]),
            output_axes=0 if layout.output_axes is None else layout.output_axes[t],
        )
        reports[name] = TensorReport(
            name=name,
            shape=layout.shapes[t],
            verdict=verdict_of(found.worst[t]),
            difference=found.differences[t],
            worst=arrays.entry(name, found.place[t] - part.start),
            counts=dict(zip(ENTRY_VERDICTS, found.counts[t], strict=True)),
            at_rounding=int(rounding[t + 1] - rounding[t]) + found.vanishing[t][0],
            resolution=found.resolutions[t],
            tolerance=float(analytic.tolerances[t]),
            dtype=analytic.dtypes[t],
            diagnosis=diagnoses.get(name),
            arrays=arrays,
            epsilon=findings.longest(part),
            zeros=found.vanishing[t][0],
            zero_within=found.vanishing[t][1],
        )
    return reports


LENGTH = 200  # characters of an exception's message that are quoted


def why_open(
    check: Check, findings: Findings, name_of: Callable[[int], str] | None = None
) -> tuple[dict[str, Diagnosis], int]:
    """A reason for each tensor that has one, by name; and the evaluations spent.

    Args:
        check: what was checked.
        findings: on its entries.
        name_of: the name of each entry; None for its address.
    """
    cost, subset = check.cost, check.subset
    reasons: dict[str, Diagnosis] = {}
    evaluations = 0
    if UNRESOLVED not in findings.summary.worst:
        return reasons, evaluations
    missing = np.flatnonzero((findings.codes == UNRESOLVED) & ~np.isfinite(findings.gradapprox))
    for kind, entries in (("unsettled", findings.restless), ("cost", missing)):
        if entries is None:
            continue
        for t in np.unique(subset.layout.tensor_of(entries)).tolist():
            k = int(entries[np.searchsorted(entries, subset.layout.offsets[t])])
            name, whole = (name_of or subset.layout.entry)(k), int(subset.whole(np.array([k]))[0])
            if kind == "cost":
                said, spent = _met(cost, whole, float(check.steps_of_all[whole]), name)
                evaluations += spent
            else:
                low, high = findings.gradapprox[k], findings.uncertainty[k]
                said = f"the slope by {name} still moves by {high:.2g} at {low:.4g}"
            reasons[subset.layout.names[t]] = Diagnosis(kind, said)
    return reasons, evaluations


def _met(cost: Cost, k: int, step: float, name: str) -> tuple[str, int]:
    """What the cost does a step away from θ, and the evaluations spent."""
    for spent, (sign, shown) in enumerate(((1.0, "+"), (-1.0, "−")), start=1):
        moved = cost.theta.copy()
        moved[k] += sign * step
        where = f"at {name} {shown} {step:.3g}"
        try:
            value = cost.value(moved)
        except Exception as error:
            lines = str(error).splitlines()
            text = f": {lines[0][:LENGTH]}" if lines else ""
            return f"{where} the cost raises {type(error).__name__}{text}", spent
        if not np.isfinite(value):
            return f"{where} the cost is {value}", spent
    return f"the cost has no value on either side of {name}", spent
