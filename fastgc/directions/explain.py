"""What is wrong with a tensor through which random directions disagree, and where."""

import math
from dataclasses import dataclass, replace

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import FloatArray, entry_name, index_of
from fastgc.core.verdict import DISAGREE, KINK, UNRESOLVED, root_mean_square
from fastgc.costs.base import Cost
from fastgc.diagnosis import kinds
from fastgc.diagnosis.evidence import Evidence
from fastgc.diagnosis.network import surroundings
from fastgc.directions.draw import Directions
from fastgc.directions.locate import Probe, Search, describe, example, locate, look_at
from fastgc.network.cost import state_of
from fastgc.report.data import Diagnosis, Entry, TensorReport
from fastgc.verdicts.record import Findings

MOST = 1000  # evaluations after which no more tensors are searched

NOT_SEARCHED = Diagnosis(
    "unknown", "no known kind of mistake fits; not searched, as so many tensors are wrong"
)


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """All that is known after a check along random directions.

    Attributes:
        cost: the cost at θ.
        names: of the tensors.
        shapes: of the tensors.
        analytic: about its gradient, of all the tensors that are checked.
        grad: the same gradient, (P,).
        directions: that were taken.
        findings: along them.
        residuals: v·grad less what was found, a row for each tensor, (T, D).
        probe: to look at more of the cost.
        rng: for what is drawn.
    """

    cost: Cost
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    analytic: AnalyticGradient
    grad: FloatArray
    directions: Directions
    findings: Findings
    residuals: FloatArray
    probe: Probe
    rng: np.random.Generator


def explained(case: Case, t: int, report: TensorReport) -> TensorReport:
    """The report of tensor t, with what its error looks like and entries that are wrong."""
    search = _search(case, t, report)
    bad = np.flatnonzero(~np.isfinite(search.grad))

    def address(k: int) -> str:
        return entry_name(report.name, index_of(report.shape, k))

    said: Diagnosis | None
    if bad.size:
        k = int(bad[0])
        what = "1 entry is" if bad.size == 1 else f"{bad.size} entries are"
        said = Diagnosis("nonfinite", f"{what} not finite: {address(k)} is {search.grad[k]}")
        found = look_at(search, k)
    elif not np.isfinite(case.residuals[t]).all():
        said = Diagnosis("cost", "the cost is not finite a step away")
        return replace(report, diagnosis=said)
    else:
        evidence = _evidence(case, t, report)
        said = kinds.first(kinds.LINEAR, evidence, surroundings(state_of(case.cost), {}))
        said = said or _misplaced(case, t, report, evidence)
        if said is not None:
            found = example(search)
        elif case.probe.evaluations > MOST:
            return replace(report, diagnosis=NOT_SEARCHED)
        else:
            found = locate(search)
            said = describe(found, address, report.shape)
    located = tuple(
        Entry(
            address(k), index_of(report.shape, k), *found.entries[k],
            "disagree" if math.isfinite(found.error(k)) else "nonfinite",
        )
        for k in found.worst_first()
    )  # fmt: skip
    worst = located[0] if located else report.worst
    return replace(report, diagnosis=said, located=located, worst=worst)


def _misplaced(case: Case, t: int, report: TensorReport, e: Evidence) -> Diagnosis | None:
    """A transpose, or another tensor's gradient: the slopes are those along it."""
    shape, numbers = report.shape, case.directions.numbers(t)
    vectors = [case.directions.vector(d) for d in range(numbers.start, numbers.stop)]

    def fits(g: FloatArray) -> bool:
        along = np.array([v @ g for v in vectors])
        scale = np.maximum(np.abs(along), root_mean_square(e.found))
        return bool((np.abs(along - e.found) <= e.tolerance * scale + e.uncertainty)[e.known].all())

    if not e.clear:
        return None
    own = case.grad[case.directions.tensors[t]]
    if len(shape) == 2 and shape[0] == shape[1] > 1 and fits(own.reshape(shape).T.ravel()):
        return Diagnosis("transposed", "the transpose of the numerical gradient")
    for name, other_shape, part in zip(
        case.names, case.shapes, case.directions.tensors, strict=True
    ):
        if name != report.name and other_shape == shape and fits(case.grad[part]):
            return Diagnosis("swapped", f"the numerical gradient is what was given for {name}")
    return None


def _search(case: Case, t: int, report: TensorReport) -> Search:
    directions, findings = case.directions, case.findings
    part, here = directions.tensors[t], directions.numbers(t)
    assert isinstance(part, slice)
    clear = findings.codes[here] == DISAGREE  # the others hide what they are off by, or are not
    clear |= findings.codes[here] < KINK
    return Search(
        name=report.name,
        shape=report.shape,
        part=part,
        grad=case.grad[part],
        directions=directions,
        step=directions.step(here.start),
        numbers=(here.start + np.flatnonzero(clear)).tolist(),
        residuals=case.residuals[t][clear],
        uncertainties=findings.uncertainty[here][clear],
        analytic=case.analytic.about(t),
        probe=case.probe,
        rng=case.rng,
    )


def _evidence(case: Case, t: int, report: TensorReport) -> Evidence:
    findings, here = case.findings, case.directions.numbers(t)
    part, state = case.directions.tensors[t], state_of(case.cost)
    theta = case.cost.theta[part]
    moved = np.array([theta @ case.directions.vector(d) for d in range(here.start, here.stop)])
    fixed = np.zeros(moved.size)
    if state is not None and any(part == layer.W for layer in state.layers):
        fixed = state.net.weight_decay / state.net.divisor * moved
    codes = findings.codes[here]
    return Evidence(
        name=report.name, shape=moved.shape, g=findings.grad[here],
        found=findings.gradapprox[here], uncertainty=findings.uncertainty[here],
        wrong=codes >= DISAGREE, known=(codes != KINK) & (codes != UNRESOLVED),
        theta=moved, fixed=fixed, tolerance=report.tolerance, along=True,
    )  # fmt: skip
