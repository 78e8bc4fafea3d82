"""A check along random directions: the verdict on each tensor, and how large its error is."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.rng import generator
from fastgc.core.statistics import Estimate, estimate_of, minimum_detectable_error
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Layout, Step
from fastgc.core.verdict import (
    AGREE,
    DISAGREE,
    ENTRY_VERDICTS,
    KINK,
    NONFINITE,
    UNRESOLVED,
    entry_scale,
    verdict_of,
)
from fastgc.costs.base import Base, Cost
from fastgc.costs.noise import balanced_steps
from fastgc.diagnosis.origin import origin, proven_right
from fastgc.directions.draw import Directions, DirectionsCost
from fastgc.directions.explain import Case, explained
from fastgc.directions.locate import Probe
from fastgc.methods.base import Approximation, Job, Method, best
from fastgc.methods.loop import LOOP
from fastgc.methods.registry import RANDOM, register
from fastgc.methods.stacked import STACKED
from fastgc.options import Choices
from fastgc.parallel.chunks import Resources
from fastgc.report.data import Entry, Outcome, TensorReport
from fastgc.verdicts.outcome import why_open
from fastgc.verdicts.record import Check, Findings
from fastgc.verdicts.second_look import second_look

TOGETHER = "all parameters"  # what directions through all tensors are about
TRIES = 8  # directions through all parameters, searched for a corner at θ
DEVIATIONS = 4.0  # standard deviations of the rounding of a right backward pass, along a direction


def check_along(job: Job, resources: Resources) -> Outcome:
    """Compares gradients with the cost along random directions through each tensor.

    With ``per_tensor=False`` each goes through all of them, and tensors are told apart only where
    these disagree.
    """
    if job.choices.per_tensor or len(job.subset.layout.names) == 1:
        return _Lines(job, resources, together=False).outcome()
    together = _Lines(job, resources, together=True).outcome()
    if all(tensor.ok for tensor in together.tensors.values()):
        return together
    apart = _Lines(job, resources, together=False).outcome()
    return replace(apart, evaluations=apart.evaluations + together.evaluations)


def along(
    cost: Cost, entries: Entries | None, base: Base, epsilon: Step, resources: Resources
) -> Approximation:
    """Differences along directions, of a `DirectionsCost`; many in a call where that pays."""
    chunks = resources.chunking
    spread = chunks is not None and chunks.dispatcher is not None
    stacks = cost.batch is not None and 2 * STACKED.least_memory(cost) <= resources.memory
    method = STACKED if stacks and not spread else LOOP
    return method.approximate(cost, entries, base, epsilon, resources)


def _evaluations(_: Cost, layout: Layout, choices: Choices) -> int:
    """Two for each direction."""
    return 2 * choices.lines * (len(layout.names) if choices.per_tensor else 1)


def _flops(cost: Cost) -> float | None:
    evaluations = _evaluations(cost, cost.layout, Choices())
    return None if cost.flops is None else evaluations * cost.flops


def _memory(cost: Cost, resources: Resources) -> int:
    drawn = min(8 * Choices().lines * cost.layout.size, resources.memory // 2)
    return drawn + cost.row_bytes


def _seconds(cost: Cost, _: Resources) -> float:
    """Of its evaluations, and of drawing each direction."""
    P, lines = cost.layout.size, Choices().lines
    draw = np.random.default_rng(0).standard_normal
    drawing = lines * best(lambda: draw(min(P, 2**16)), 3) * max(1.0, P / 2**16)
    evaluations = _evaluations(cost, cost.layout, Choices())
    return drawing + evaluations * best(lambda: cost.value(cost.theta), 3)


ALONG = Method(
    RANDOM, along, refusal=lambda _: None, least_memory=lambda _: 0, epsilon=1e-7, along=True,
    compare=check_along, evaluations=_evaluations, flops=_flops, vectors=5, memory=_memory,
    seconds=_seconds,
)  # fmt: skip
register(ALONG)


class _Lines:
    """Directions through the parts of θ, and the gradient along them."""

    def __init__(self, job: Job, resources: Resources, *, together: bool) -> None:
        cost, subset, analytic = job.cost, job.subset, job.analytic
        count, seed = job.choices.lines, job.choices.seed
        whole = slice(None) if subset.entries is None else subset.entries
        slices = [part for _, part in cost.layout.tensors()]
        tensors = slices if subset.tensors is None else [slices[t] for t in subset.tensors]
        self.job, self.resources, self.count, self.together = job, resources, count, together
        self.grad = np.zeros(cost.theta.size)  # all of it, for directions to be taken along
        self.grad[whole] = analytic.grad
        lost = _lost_by_rounding(cost, analytic, tensors)
        self.parts: list[slice | Entries] = [whole] if together else [*tensors]
        self.norms = np.array([_norm(self.grad[part]) for part in self.parts])
        self.names: tuple[str, ...] = subset.layout.names
        self.shapes: tuple[tuple[int, ...], ...] = subset.layout.shapes
        if together:
            budget = _norm(analytic.tolerances * [_norm(self.grad[part]) for part in tensors])
            analytic = _of_one(analytic, _ratio(budget, float(self.norms[0])))
            self.names, self.shapes = (TOGETHER,), ((subset.layout.size,),)
        self.spent = 0
        self.epsilon: Step
        if isinstance(job.epsilon, str):
            self.epsilon, self.spent = balanced_steps(self._cost_along(None), job.base)
        else:
            self.epsilon = job.epsilon
        self.cost = self._cost_along(self.epsilon)
        self.directions = self.cost.directions
        # the smallest numbers of a narrow dtype are counted with what is lost by rounding
        with np.errstate(all="ignore"):
            grad = self.directions.along(self.grad)
        self.analytic = replace(analytic, grad=grad, least=np.zeros(len(self.parts)), pooled=True)
        self.rounding = np.repeat([DEVIATIONS * _norm(lost[here]) for here in self.parts], count)
        self.probe = Probe(cost, job.base, job.epsilon, resources)
        self.rng = generator(6, seed)  # for what is drawn in a search

    def _cost_along(self, epsilon: Step | None) -> DirectionsCost:
        theta, choices = self.job.cost.theta, self.job.choices
        directions = Directions(
            theta, tuple(self.parts), choices.lines, choices.seed, epsilon,
            keep=self.resources.memory // 2,
        )  # fmt: skip
        return DirectionsCost(self.job.cost, directions, self.names)

    def look(self, entries: Entries | None, step: Step) -> Approximation:
        """The slopes along all directions, or some."""
        first = along(self.cost, entries, self.job.base, step, self.resources)
        numbers = range(self.directions.size) if entries is None else entries.tolist()
        lost = np.array([self.directions.lost(d) for d in numbers])
        rounding = self.rounding if entries is None else self.rounding[entries]
        return replace(first, uncertainty=np.where(lost, np.inf, first.uncertainty + rounding))

    def outcome(self) -> Outcome:
        """What the directions tell."""
        check = Check(
            cost=self.cost, base=self.job.base, subset=Subset(self.cost.layout),
            analytic=self.analytic, method=self.look, epsilon=self.epsilon, directions=True,
            tries=TRIES, evaluations=self.spent,
        )  # fmt: skip
        findings = second_look(check, self.look(None, self.epsilon))
        seen = _seen(findings, self.analytic.tolerances, self.count)
        case = Case(
            self.job.cost, self.names, self.shapes, self.job.analytic, self.grad, self.directions,
            findings, seen.residuals, self.probe, self.rng,
        )  # fmt: skip
        reasons = why_open(
            check, findings,
            lambda d: f"{self.names[d // self.count]} along v{d % self.count}",
        )  # fmt: skip
        tensors = {}
        for t, name in enumerate(self.names):
            norm = float(self.norms[t])
            estimate = estimate_of(
                seen.residuals[t], seen.least[t], seen.most[t], float(seen.caught[t]), norm
            )
            difference = _ratio(_rms(seen.residuals[t]), norm + float(seen.sizes[t]))
            report = self._tensor(t, findings, estimate, difference)
            if report.verdict == "wrong" and not self.together:
                report = explained(case, t, report)
            elif name in reasons:
                report = replace(report, diagnosis=reasons[name])
            tensors[name] = report
        said = {name: t.diagnosis for name, t in tensors.items() if t.diagnosis is not None}
        wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
        error = _norm(seen.residuals) / math.sqrt(self.count)
        return Outcome(
            tensors=tensors,
            difference=_ratio(error, _norm(self.norms) + _norm(seen.sizes)),
            epsilon=float(np.max(self.epsilon)),
            evaluations=check.evaluations + self.probe.evaluations,
            origin=origin(self.names, wrong, said, proven_right(self.cost.layout, findings))
            if wrong
            else None,
            scope=_scope(tensors, self.count, together=self.together),
            estimate=_of_all(seen, _norm(self.norms)),
        )

    def _tensor(
        self, t: int, findings: Findings, estimate: Estimate, difference: float
    ) -> TensorReport:
        found, d, name = findings.summary, findings.summary.place[t], self.names[t]
        low, high = findings.slopes
        at = int(np.searchsorted(findings.disputed, d))
        looked_at = at < findings.disputed.size and findings.disputed[at] == d
        worst = Entry(
            name=f"{name} along v{d % self.count}",
            index=(),
            analytic=float(findings.grad[d]),
            numerical=float(findings.gradapprox[d]),
            uncertainty=float(findings.uncertainty[d]),
            verdict=ENTRY_VERDICTS[int(findings.codes[d])],
            slopes=(float(low[at]), float(high[at])) if looked_at else None,
        )
        return TensorReport(
            name=name,
            shape=self.shapes[t],
            verdict=verdict_of(found.worst[t]),
            difference=difference,
            worst=worst,
            counts=dict(zip(ENTRY_VERDICTS, found.counts[t], strict=True)),
            at_rounding=0,
            resolution=found.resolutions[t],
            tolerance=float(self.analytic.tolerances[t]),
            dtype=self.analytic.dtypes[t],
            estimate=estimate,
            epsilon=findings.longest(self.directions.numbers(t)),
        )


def _lost_by_rounding(cost: Cost, analytic: AnalyticGradient, tensors: list[slice]) -> FloatArray:
    """What a right backward pass may lose of each entry, (P,)."""
    rounding = cost.rounding()
    lost = np.zeros(cost.theta.size) if rounding is None else rounding
    for here, unit, least in zip(tensors, analytic.units, analytic.least, strict=True):
        lost[here] = lost[here] * unit + least
    return lost


def _of_one(analytic: AnalyticGradient, tolerance: float) -> AnalyticGradient:
    """A claim about all tensors as one."""
    loosest = int(np.argmax(analytic.tolerances))
    return replace(
        analytic,
        tolerances=np.array([tolerance]),
        units=analytic.units[[loosest]],
        dtypes=(analytic.dtypes[loosest],),
    )


class _Seen(NamedTuple):
    """What directions show; a row for each tensor, (T, D), or a number, (T,).

    Attributes:
        residuals: v·grad less the slope of the cost along v.
        least: as small as |v·e| may be, for the error e of the gradient.
        most: as large as it may be.
        unexplained: as much of |v·e| as says nothing.
        sizes: the root mean square of the slopes, which is about ‖gradapprox‖.
        caught: the smallest ‖e‖ that would have shown.
    """

    residuals: FloatArray
    least: FloatArray
    most: FloatArray
    unexplained: FloatArray
    sizes: FloatArray
    caught: FloatArray


def _seen(findings: Findings, tolerances: FloatArray, count: int) -> _Seen:
    rows = (-1, count)
    grad, slopes = findings.grad.reshape(rows), findings.gradapprox.reshape(rows)
    codes, uncertainties = findings.codes.reshape(rows), findings.uncertainty.reshape(rows)
    allowance = _allowance(findings).reshape(rows)
    with np.errstate(all="ignore"):
        residuals = grad - slopes
        error = np.abs(residuals)
    disagrees, nonfinite = codes == DISAGREE, codes == NONFINITE
    most = np.where(nonfinite, np.inf, error + allowance)
    sizes = np.array([_rms(row) for row in slopes])
    scale = entry_scale(grad, slopes, sizes[:, np.newaxis])
    allowed = tolerances[:, np.newaxis] * scale + allowance
    return _Seen(
        residuals,
        least=np.where(disagrees, np.maximum(error - uncertainties, 0.0), 0.0),
        most=most,
        unexplained=np.where(disagrees, uncertainties, most),
        sizes=sizes,
        caught=np.array([minimum_detectable_error(row) for row in allowed]),
    )


def _of_all(seen: _Seen, norm: float) -> Estimate:
    """Of all tensors: summed over them, residuals are those along directions through all of them.

    An error as long as all those together that would have been caught is, in one tensor at least,
    as long as would have been there.
    """
    residuals = seen.residuals.sum(axis=0)
    with np.errstate(all="ignore"):
        size = np.abs(residuals)
        least = np.fmax(size - seen.unexplained.sum(axis=0), 0.0)
        allowance = np.nan_to_num(seen.most - np.abs(seen.residuals), nan=np.inf, posinf=np.inf)
        most = np.where(np.isfinite(size), size, 0.0) + allowance.sum(axis=0)
    return estimate_of(residuals, least, most, _norm(seen.caught), norm)


def _allowance(findings: Findings) -> FloatArray:
    """How much larger than its residual v·e may be, along each direction."""
    allowance = findings.uncertainty.copy()
    codes, places = findings.codes, findings.disputed
    allowance[(findings.grad == 0) & (findings.gradapprox == 0) & (codes == AGREE)] = 0.0
    low, high = findings.slopes
    # at a corner any slope between these may be right
    at_kink = (codes[places] == KINK) | (codes[places] == UNRESOLVED)
    allowance[places[at_kink]] += (high - low)[at_kink]
    return allowance


def _scope(tensors: Mapping[str, TensorReport], count: int, *, together: bool) -> str:
    caught = {name: tensor.estimate.caught for name, tensor in tensors.items() if tensor.estimate}
    shown = [value for value in caught.values() if value < 1]
    text = f"{count} random direction{'s' * (count != 1)} through "
    text += "all parameters" if together else "each tensor"
    if shown:
        least = max(shown)
        unit = 10.0 ** (math.floor(math.log10(least)) - 1) if least else 1.0
        least = math.ceil(least / unit) * unit
        text += f": an error of {least:.2g} of its gradient or more would have shown"
        text += ", with a probability of 99.9 %"
    if len(shown) < len(caught):
        blind = [name for name, value in caught.items() if not value < 1]
        names = ", ".join(blind[:6]) + (f" and {len(blind) - 6} more" if len(blind) > 6 else "")
        text += f"; an error as large as the gradient may not show in {names}"
    return text


def _norm(values: FloatArray) -> float:
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(values))


def _rms(values: FloatArray) -> float:
    return _norm(values) / math.sqrt(values.size)


def _ratio(error: float, size: float) -> float:
    if error == 0:
        return 0.0
    return error / size if size else math.inf
