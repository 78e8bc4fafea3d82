"""The verdict on each tensor, in a report; and why nothing can be told of one."""

from collections.abc import Callable, Mapping

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import Layout
from fastgc.core.verdict import ENTRY_VERDICTS, UNRESOLVED, verdict_of
from fastgc.report.data import Arrays, Diagnosis, TensorReport
from fastgc.verdicts.record import Check, Findings

LENGTH = 200  # characters of an exception's message that are quoted


def tensor_reports(
    layout: Layout,
    analytic: AnalyticGradient,
    findings: Findings,
    diagnoses: Mapping[str, Diagnosis],
) -> dict[str, TensorReport]:
    """The verdict on every tensor."""
    summary = findings.summary
    reports = {}
    rounding = np.searchsorted(findings.at_rounding, layout.offsets)
    looks = np.searchsorted(findings.disputed, layout.offsets)
    for t, (name, part) in enumerate(layout.tensors()):
        looked_at = slice(looks[t], looks[t + 1])
        indices = None if layout.places is None else layout.places[t]
        shape = layout.shapes[t] if indices is None else indices.shape
        arrays = Arrays(
            shape=layout.shapes[t],
            places=indices,
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
            verdict=verdict_of(summary.worst[t]),
            difference=summary.differences[t],
            worst=arrays.entry(name, summary.place[t] - part.start),
            counts=dict(zip(ENTRY_VERDICTS, summary.counts[t], strict=True)),
            at_rounding=int(rounding[t + 1] - rounding[t]) + summary.vanishing[t][0],
            resolution=summary.resolutions[t],
            tolerance=float(analytic.tolerances[t]),
            dtype=analytic.dtypes[t],
            diagnosis=diagnoses.get(name),
            arrays=arrays,
            epsilon=findings.longest(part),
            zeros=summary.vanishing[t][0],
            zero_within=summary.vanishing[t][1],
        )
    return reports


def why_open(
    check: Check, findings: Findings, name_of: Callable[[int], str] | None = None
) -> dict[str, Diagnosis]:
    """A reason for each tensor that has one, by name.

    Args:
        check: what was checked; the evaluations go into its count.
        findings: on its entries.
        name_of: the name of each entry; None for its address.
    """
    layout, reasons = check.subset.layout, dict[str, Diagnosis]()
    if UNRESOLVED not in findings.summary.worst:
        return reasons
    missing = np.flatnonzero((findings.codes == UNRESOLVED) & ~np.isfinite(findings.gradapprox))
    for kind, entries in (("unsettled", findings.restless), ("cost", missing)):
        if entries is None:
            continue
        for t in np.unique(layout.tensor_of(entries)).tolist():
            k = int(entries[np.searchsorted(entries, layout.offsets[t])])
            name, value, moves = (
                (name_of or layout.entry)(k),
                findings.gradapprox[k],
                findings.uncertainty[k],
            )
            text = f"the slope by {name} still moves by {moves:.2g} at {value:.4g}"
            if kind == "cost":
                text = _a_step_away(check, k, name)
            reasons[layout.names[t]] = Diagnosis(kind, text)
    return reasons


def _a_step_away(check: Check, k: int, name: str) -> str:
    """What the cost does a step away from θ in entry k."""
    whole = check.subset.whole(np.array([k]))
    step = float(check.steps_of_all[whole[0]])
    for sign, shown in ((1.0, "+"), (-1.0, "−")):
        moved = check.cost.theta.copy()
        moved[whole] += sign * step
        place = f"at {name} {shown} {step:.3g}"
        check.evaluations += 1
        try:
            value = check.cost.value(moved)
        except Exception as error:
            lines = str(error).splitlines()
            text = f": {lines[0][:LENGTH]}" if lines else ""
            return f"{place} the cost raises {type(error).__name__}{text}"
        if not np.isfinite(value):
            return f"{place} the cost is {value}"
    return f"the cost has no value on either side of {name}"
