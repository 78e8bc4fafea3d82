"""A check of entries: a method, the verdicts on what it finds, and what is wrong."""

import numpy as np

from fastgc.claim import Claim
from fastgc.diagnosis import diagnose
from fastgc.diagnosis.origin import origin, proven_right
from fastgc.disputes import completed, settle
from fastgc.layout import FloatArray
from fastgc.methods import Approximation, Base, Method, Resources
from fastgc.methods.interface import Entries, Step
from fastgc.parts import Part
from fastgc.problem import Problem
from fastgc.report import Outcome, tensor_reports
from fastgc.scales import exact_steps
from fastgc.steps import balanced_steps
from fastgc.unresolved import why_open


def check_entries(
    problem: Problem,
    part: Part,
    claim: Claim,
    base: Base,
    epsilon: float | str,
    method: Method,
    resources: Resources,
) -> Outcome:
    """Compares gradients with the differences of a method, entry by entry.

    Args:
        problem: the cost at θ.
        part: the entries that are checked.
        claim: their gradients.
        base: J(θ) and its noise.
        epsilon: the step, or "auto".
        method: that takes the differences.
        resources: what it may use.
    """
    step, spent = step_of(problem, base, epsilon, method)

    def look(entries: Entries | None, step: Step) -> Approximation:
        places = part.entries if entries is None else part.whole(entries)
        return method.approximate(problem, places, base, step, resources)

    first = look(None, step)
    findings = settle(
        problem, base, look, step, claim, first, exact=method.exact, part=part,
        balanced=isinstance(epsilon, str),
    )  # fmt: skip
    diagnoses, asked = diagnose(problem, claim, findings, part)
    reasons, looked_up = why_open(problem, part, findings, step)
    tensors = tensor_reports(part.layout, claim, findings, reasons | diagnoses)
    wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
    return Outcome(
        tensors=tensors,
        difference=findings.tally.difference,
        epsilon=float(np.max(step)) if isinstance(epsilon, str) else epsilon,
        evaluations=spent + findings.evaluations + asked + looked_up,
        # of a sample no tensor is known to be right
        origin=None
        if part.layout.places or not wrong
        else origin(part.layout.names, wrong, diagnoses, proven_right(part.layout, findings)),
    )


def gradient_of(
    problem: Problem, base: Base, epsilon: float | str, method: Method, resources: Resources
) -> FloatArray:
    """gradapprox of all parameters, (P,); where the cost ends close by, of the side that exists.

    NaN where the cost can be had on neither side.
    """
    step, _ = step_of(problem, base, epsilon, method)

    def look(entries: Entries | None, step: Step) -> Approximation:
        return method.approximate(problem, entries, base, step, resources)

    found = look(None, step)
    if not np.isfinite(found.gradapprox).all() and not method.exact:
        return completed(problem, base, look, step, found)
    return found.gradapprox


def step_of(problem: Problem, base: Base, epsilon: float | str, method: Method) -> tuple[Step, int]:
    """ε, free of rounding beside θ where that matters; and the evaluations spent on choosing it."""
    if isinstance(epsilon, str):
        steps, spent = balanced_steps(problem, base)
        return steps if method.exact else exact_steps(problem.theta, steps), spent
    return epsilon if method.exact else exact_steps(problem.theta, epsilon), 0
