"""A check along random directions: verdicts and estimates by tensor; then, what is wrong."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from fastgc.claim import Claim
from fastgc.diagnosis import kinds
from fastgc.diagnosis.evidence import Diagnosis, Evidence
from fastgc.diagnosis.origin import origin
from fastgc.disputes import Findings, settle
from fastgc.estimate import Estimate, estimate_of
from fastgc.layout import FloatArray, entry_name, index_of
from fastgc.localise import Search, describe, example, locate, look_at
from fastgc.methods import Approximation, Base, Method, Resources
from fastgc.methods.interface import Entries, Step
from fastgc.methods.random import Directions, along
from fastgc.parts import Part
from fastgc.probe import Probe
from fastgc.problem import Problem
from fastgc.report import Entry, Outcome, TensorReport
from fastgc.rounding import rounding_of_gradients
from fastgc.steps import balanced_steps
from fastgc.verdict import (
    AGREE,
    DISAGREE,
    ENTRY_VERDICTS,
    KINK,
    UNRESOLVED,
    entry_scale,
    verdict_of,
)

TOGETHER = "all parameters"  # the name of what directions through all tensors are about
TRIES = 8  # directions through all parameters, searched for a corner at θ


def check_along(
    problem: Problem,
    part: Part,
    claim: Claim,
    base: Base,
    epsilon: float | str,
    directions: int,
    seed: int,
    engine: Method,
    resources: Resources,
    *,
    per_tensor: bool,
) -> Outcome:
    """Compares gradients with the cost along random directions through each tensor.

    Args:
        problem: the cost at θ.
        part: the tensors that are checked, whole.
        claim: their gradients.
        base: J(θ) and its noise.
        epsilon: the step, or "auto".
        directions: through each tensor.
        seed: of their generator.
        engine: the method that takes the differences.
        resources: what it may use.
        per_tensor: whether each direction goes through one tensor; else through all of them, and
            tensors are told apart only where these disagree.
    """

    def run(part: Part, claim: Claim) -> Outcome:
        return _Check(
            problem, part, claim, base, epsilon, directions, seed, engine, resources
        ).run()

    if per_tensor or len(part.layout.names) == 1:
        return run(part, claim)
    together = run(*_as_one(part, claim))
    if all(tensor.ok for tensor in together.tensors.values()):
        return together
    apart = run(part, claim)
    return replace(apart, evaluations=apart.evaluations + together.evaluations)


class _Check:
    """The steps of `check_along`, which share what they know."""

    def __init__(
        self, problem: Problem, part: Part, claim: Claim, base: Base, epsilon: float | str,
        count: int, seed: int, engine: Method, resources: Resources,
    ) -> None:  # fmt: skip
        self.problem, self.part, self.claim, self.base = problem, part, claim, base
        self.count, self.engine, self.resources = count, engine, resources
        self.spent = 0
        names = part.layout.names
        every = [here for _, here in problem.layout.tensors()]
        tensors: tuple[slice | Entries, ...] = tuple(
            every if part.tensors is None else (every[t] for t in part.tensors)
        )
        if names == (TOGETHER,):
            tensors = (slice(None) if part.entries is None else part.entries,)
        draw = partial(Directions, problem.theta, tensors, count, seed, keep=resources.memory // 2)
        single = None if isinstance(epsilon, str) else epsilon
        self.probe = Probe(problem, base, single, resources)
        self.epsilon: Step
        if isinstance(epsilon, str):
            self.epsilon, self.spent = balanced_steps(along(problem, draw(None), names), base)
        else:
            self.epsilon = epsilon
        self.directions: Directions = draw(self.epsilon)
        self.posed = along(problem, self.directions, names)
        self.grad = np.zeros(problem.theta.size)  # all of it, for directions to be taken along
        self.grad[slice(None) if part.entries is None else part.entries] = claim.grad
        self.rounding = np.zeros(self.directions.size)
        if problem.inside is not None:  # what a right backward pass may lose
            bounds = np.abs(rounding_of_gradients(problem.inside))
            self.rounding = self.directions.along(bounds, sizes=True)
        self.rng = np.random.default_rng([seed, 6])  # for what is drawn in a search

    def run(self) -> Outcome:
        layout = self.posed.layout
        with np.errstate(all="ignore"):
            claim = replace(self.claim, grad=self.directions.along(self.grad))
        first = self.look(None, self.epsilon)
        findings = settle(
            self.posed, self.base, self.look, self.epsilon, claim, first,
            exact=False, part=Part(layout), tries=TRIES,
        )  # fmt: skip
        # a row for each tensor
        residuals, doubts = (found.reshape(-1, self.count) for found in _residuals(findings))
        slopes = findings.gradapprox.reshape(residuals.shape)
        sizes, errors = (np.array([_rms(row) for row in rows]) for rows in (slopes, residuals))
        norms = np.array([_norm(self.grad[part]) for part in self.directions.tensors])
        scale = entry_scale(claim.grad.reshape(slopes.shape), slopes, sizes[:, np.newaxis])
        allowed = claim.tolerances[:, np.newaxis] * scale + doubts
        tensors = {}
        for t, name in enumerate(layout.names):
            estimate = estimate_of(residuals[t], doubts[t], allowed[t], float(norms[t]))
            difference = _ratio(float(errors[t]), float(norms[t] + sizes[t]))
            report = self._tensor(t, name, findings, estimate, difference)
            if report.verdict == "wrong" and name != TOGETHER:
                report = self._explained(t, report, findings, residuals[t])
            tensors[name] = report
        # summed over the tensors they are residuals along directions through all of them; an error
        # shows least where it is all in one tensor
        estimate = estimate_of(residuals.sum(axis=0), doubts.sum(axis=0), allowed, _norm(norms))
        said = {name: t.diagnosis for name, t in tensors.items() if t.diagnosis is not None}
        wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
        return Outcome(
            tensors=tensors,
            difference=_ratio(_norm(errors), _norm(norms) + _norm(sizes)),
            epsilon=float(np.max(self.epsilon)),
            evaluations=self.spent + findings.evaluations + self.probe.evaluations,
            origin=origin(layout.names, wrong, said),
            scope=_scope(tensors, self.count),
            estimate=estimate,
        )

    def look(self, entries: Entries | None, step: Step) -> Approximation:
        found = self.engine.approximate(self.posed, entries, self.base, step, self.resources)
        some = range(self.directions.size) if entries is None else entries.tolist()
        lost = np.array([self.directions.lost(d) for d in some])
        rounding = self.rounding if entries is None else self.rounding[entries]
        return replace(found, uncertainty=np.where(lost, np.inf, found.uncertainty + rounding))

    def _tensor(
        self, t: int, name: str, findings: Findings, estimate: Estimate, difference: float
    ) -> TensorReport:
        found, d = findings.tally, findings.tally.place[t]
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
            shape=self.part.layout.shapes[t],
            verdict=verdict_of(found.worst[t]),
            difference=difference,
            worst=worst,
            counts=dict(zip(ENTRY_VERDICTS, found.counts[t], strict=True)),
            at_rounding=0,
            resolution=found.resolutions[t],
            tolerance=float(self.claim.tolerances[t]),
            dtype=self.claim.dtypes[t],
            estimate=estimate,
        )

    def _explained(
        self, t: int, report: TensorReport, findings: Findings, residuals: FloatArray
    ) -> TensorReport:
        """With what the error looks like, and entries that are wrong."""
        search = self._search(t, report, findings, residuals)
        bad = np.flatnonzero(~np.isfinite(search.grad))

        def address(k: int) -> str:
            return entry_name(report.name, index_of(report.shape, k))

        said: Diagnosis | None
        if bad.size:
            k = int(bad[0])
            what = "1 entry is" if bad.size == 1 else f"{bad.size} entries are"
            said = Diagnosis("nonfinite", f"{what} not finite: {address(k)} is {search.grad[k]}")
            found = look_at(search, k)
        elif not np.isfinite(residuals).all():
            said = Diagnosis("cost", "the cost is not finite a step away")
            return replace(report, diagnosis=said)
        else:
            said = kinds.first(kinds.LINEAR, self._evidence(t, report, findings), self._around())
            if said is not None:
                found = example(search)
            else:
                found = locate(search)
                said = describe(found, address, search.grad.size)
        located = tuple(
            Entry(
                address(k), index_of(report.shape, k), *found.entries[k],
                "disagree" if math.isfinite(found.error(k)) else "nonfinite",
            )
            for k in found.worst_first()
        )  # fmt: skip
        worst = located[0] if located else report.worst
        return replace(report, diagnosis=said, located=located, worst=worst)

    def _search(
        self, t: int, report: TensorReport, findings: Findings, residuals: FloatArray
    ) -> Search:
        part, first = self.directions.tensors[t], t * self.count
        assert isinstance(part, slice)
        here = slice(first, first + self.count)
        clear = np.flatnonzero(findings.codes[here] != KINK)  # the others hide what they are off by
        return Search(
            part=part,
            grad=self.grad[part],
            directions=self.directions,
            step=self.directions.step(first),
            numbers=(first + clear).tolist(),
            residuals=residuals[clear],
            doubts=findings.uncertainty[here][clear],
            tolerance=report.tolerance,
            typical=_rms(findings.gradapprox[here]) / math.sqrt(self.grad[part].size),
            probe=self.probe,
            rng=self.rng,
        )

    def _evidence(self, t: int, report: TensorReport, findings: Findings) -> Evidence:
        here = slice(t * self.count, (t + 1) * self.count)
        codes = findings.codes[here]
        theta, fixed = self.problem.theta, np.zeros(self.count)
        part = self.directions.tensors[t]
        numbers = range(here.start, here.stop)
        moved = np.array([theta[part] @ self.directions.vector(d) for d in numbers])
        inside = self.problem.inside
        if inside is not None and any(part == layer.W for layer in inside.layers):
            fixed = inside.net.weight_decay / inside.net.m * moved
        return Evidence(
            name=report.name, shape=(self.count,), g=findings.grad[here],
            found=findings.gradapprox[here], slack=findings.uncertainty[here],
            wrong=codes >= DISAGREE, known=(codes != KINK) & (codes != UNRESOLVED),
            theta=moved, fixed=fixed, tolerance=report.tolerance,
        )  # fmt: skip

    def _around(self) -> kinds.Surroundings:
        inside = self.problem.inside
        return kinds.Surroundings(
            m=None if inside is None else inside.net.m,
            weight_decay=0.0 if inside is None else inside.net.weight_decay,
            tensors={},
        )


def _as_one(part: Part, claim: Claim) -> tuple[Part, Claim]:
    """All tensors of a part as one, and the claim about it: no more than its narrowest allows."""
    size = part.layout.size
    layout = replace(
        part.layout, names=(TOGETHER,), shapes=((size,),), offsets=(0, size), places=None
    )
    loosest = int(np.argmax(claim.tolerances))
    one = replace(
        claim,
        tolerances=claim.tolerances[[loosest]],
        units=claim.units[[loosest]],
        least=claim.least[[loosest]],
        dtypes=(claim.dtypes[loosest],),
    )
    return Part(layout, part.entries), one


def _residuals(findings: Findings) -> tuple[FloatArray, FloatArray]:
    """v·grad − FD_v along each direction, and how far it may be off."""
    with np.errstate(all="ignore"):
        residuals = findings.grad - findings.gradapprox
    doubts = findings.uncertainty.copy()
    doubts[(findings.grad == 0) & (findings.gradapprox == 0) & (findings.codes == AGREE)] = 0.0
    # at a kink, any slope between those on both sides may be right
    kinks = findings.codes[findings.disputed] == KINK
    places = findings.disputed[kinks]
    low, high = (slopes[kinks] for slopes in findings.slopes)
    residuals[places] = 0.0
    doubts[places] += np.maximum(findings.grad[places] - low, high - findings.grad[places])
    return residuals, doubts


def _scope(tensors: Mapping[str, TensorReport], count: int) -> str:
    caught = [tensor.estimate.caught for tensor in tensors.values() if tensor.estimate]
    least = max(filter(math.isfinite, caught), default=math.inf)
    where = "all parameters" if TOGETHER in tensors else "each tensor"
    shown = f"an error of {least:.1g} of its gradient or more would have shown"
    return (
        f"{count} random directions through {where}"
        + f": {shown}, with a probability of 99.9 %" * math.isfinite(least)
    )


def _norm(values: FloatArray) -> float:
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(values))


def _rms(values: FloatArray) -> float:
    return _norm(values) / math.sqrt(values.size)


def _ratio(error: float, size: float) -> float:
    if error == 0:
        return 0.0
    return error / size if size else math.inf
