"""Why nothing can be told of a tensor: what was met a step away, or that a slope still moves."""

from collections.abc import Callable

import numpy as np

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.docket import Findings
from fastgc.methods.interface import Step
from fastgc.parts import Part
from fastgc.problem import Problem
from fastgc.verdict import UNRESOLVED

LENGTH = 200  # characters of an exception's message that are quoted


def why_open(
    problem: Problem,
    part: Part,
    findings: Findings,
    step: Step,
    name_of: Callable[[int], str] | None = None,
) -> tuple[dict[str, Diagnosis], int]:
    """A reason for each tensor that has one, by name; and the evaluations spent.

    Args:
        problem: the cost at θ.
        part: the entries that were checked.
        findings: on them.
        step: of the first look.
        name_of: the name of each entry of the part; None for its address.
    """
    reasons: dict[str, Diagnosis] = {}
    evaluations = 0
    if UNRESOLVED not in findings.tally.worst:
        return reasons, evaluations
    missing = np.flatnonzero((findings.codes == UNRESOLVED) & ~np.isfinite(findings.gradapprox))
    steps = np.broadcast_to(step, problem.layout.size)
    for kind, entries in (("unsettled", findings.restless), ("cost", missing)):
        if entries is None:
            continue
        for t in np.unique(part.layout.tensor_of(entries)).tolist():
            k = int(entries[np.searchsorted(entries, part.layout.offsets[t])])
            name, whole = (name_of or part.layout.entry)(k), int(part.whole(np.array([k]))[0])
            if kind == "cost":
                said, spent = _met(problem, whole, float(steps[whole]), name)
                evaluations += spent
            else:
                low, high = findings.gradapprox[k], findings.uncertainty[k]
                said = f"the slope by {name} still moves by {high:.2g} at {low:.4g}"
            reasons[part.layout.names[t]] = Diagnosis(kind, said)
    return reasons, evaluations


def _met(problem: Problem, k: int, step: float, name: str) -> tuple[str, int]:
    """What the cost does a step away from θ, and the evaluations spent."""
    for spent, (sign, shown) in enumerate(((1.0, "+"), (-1.0, "−")), start=1):
        moved = problem.theta.copy()
        moved[k] += sign * step
        where = f"at {name} {shown} {step:.3g}"
        try:
            value = problem.evaluate(moved)
        except Exception as error:
            lines = str(error).splitlines()
            text = f": {lines[0][:LENGTH]}" if lines else ""
            return f"{where} the cost raises {type(error).__name__}{text}", spent
        if not np.isfinite(value):
            return f"{where} the cost is {value}", spent
    return f"the cost has no value on either side of {name}", spent
