"""What a wrong gradient looks like, tensor by tensor, and where the mistake starts.

A kind of mistake is named only where it reproduces the wrong gradient to within tolerance.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.rng import generator
from fastgc.core.subset import Subset
from fastgc.core.verdict import DISAGREE, KINK, UNRESOLVED
from fastgc.costs.base import Cost
from fastgc.diagnosis import kinds
from fastgc.diagnosis.evidence import Evidence
from fastgc.diagnosis.network import FITTED, explain, other_activation, surroundings
from fastgc.diagnosis.samples import stale
from fastgc.network.cost import state_of
from fastgc.network.state import ForwardState, rounding_of_gradients
from fastgc.report.data import Diagnosis
from fastgc.verdicts.record import Check, Findings


def diagnose(check: Check, findings: Findings) -> dict[str, Diagnosis]:
    """What is wrong with each tensor that is, by name."""
    cost, analytic, subset = check.cost, check.analytic, check.subset
    if max(findings.summary.worst) < DISAGREE:
        return {}
    tensors = _evidence(cost, analytic, findings, subset)
    faulty = [name for name, e in tensors.items() if e.at_fault]
    state = state_of(cost)
    around = surroundings(state, tensors)
    flat = state is None and subset.entries is None and not findings.gradapprox.any()
    if flat and stands_still(check):
        found = dict.fromkeys(faulty, CONSTANT)
    elif state is None or subset.entries is not None:  # what a structure tells takes all tensors
        every = (*kinds.PLAIN, *kinds.SECOND, *kinds.LAST)
        unknown = kinds.UNKNOWN
        if state is None and {"W1", "b1"} <= tensors.keys():  # as of a network
            unknown = replace(unknown, text=f"{unknown}; as a fastgc.Network it may tell more")
        found = {name: kinds.first(every, tensors[name], around) or unknown for name in faulty}
    else:
        found = _of_network(state, analytic, tensors, around)
    if any(said.kind == "precision" for said in found.values()):  # then others too, if they may be
        found |= {n: said for n in faulty if (said := kinds.in_single(tensors[n])) is not None}
    return _one_norm(analytic, tensors, found)


def _of_network(
    state: ForwardState,
    analytic: AnalyticGradient,
    tensors: dict[str, Evidence],
    around: kinds.Surroundings,
) -> dict[str, Diagnosis]:
    """What a network's structure tells of its tensors, layer by layer, else of all at once."""
    found = explain(state, tensors, around)
    said = None
    if any(d.kind in FITTED for d in found.values()):
        said = other_activation(state, analytic, tensors)
    if said is None and any(d.kind == "unknown" for d in found.values()):
        said = stale(state, analytic.grad, tensors)
    return found if said is None else dict.fromkeys(found, said)


def _evidence(
    cost: Cost, analytic: AnalyticGradient, findings: Findings, subset: Subset
) -> dict[str, Evidence]:
    layout, theta, state = subset.layout, cost.theta, state_of(cost)
    every = slice(None) if subset.entries is None else subset.entries
    uncertainty, gradapprox = findings.uncertainty, findings.gradapprox
    fixed = np.zeros(theta.size)
    if state is not None:
        # at corners, where gradapprox is half-way, with the slope that backward passes take
        gradapprox = state.gradient[every]
        rounding = rounding_of_gradients(state)[every]
        uncertainty = uncertainty + np.repeat(analytic.units, layout.lengths) * rounding
        for layer in state.layers:
            fixed[layer.W] = state.net.weight_decay / state.net.divisor * theta[layer.W]
    theta, fixed = theta[every], fixed[every]
    known = (findings.codes != KINK) & (findings.codes != UNRESOLVED)
    # what cannot be had is no number to reckon with
    gradapprox = np.where(known | np.isfinite(gradapprox), gradapprox, 0.0)
    return {
        name: Evidence(
            name=name,
            shape=layout.shapes[t] if layout.places is None else layout.places[t].shape,
            g=analytic.grad[here],
            found=gradapprox[here],
            uncertainty=uncertainty[here],
            wrong=findings.codes[here] >= DISAGREE,
            known=known[here],
            theta=theta[here],
            fixed=fixed[here],
            tolerance=float(analytic.tolerances[t]),
            places=None if layout.places is None else (layout.places[t], layout.shapes[t]),
        )
        for t, (name, here) in enumerate(layout.tensors())
    }


def _one_norm(
    analytic: AnalyticGradient, tensors: Mapping[str, Evidence], found: dict[str, Diagnosis]
) -> dict[str, Diagnosis]:
    """Factors below 1 that leave a round norm, of all tensors or of one, are those of clipping."""
    shrunk = [d.value for d in found.values() if d.kind in ("factor", "follows", "twice averaged")]
    if len(shrunk) != len(found) or not shrunk[0] or not 0 < shrunk[0] < 1:
        return found
    norm = float(np.linalg.norm(analytic.grad))
    alone = len(found) == 1 and len(tensors) > 1
    if alone:
        norm = float(np.linalg.norm(tensors[next(iter(found))].g))
    elif not all(e.at_fault or kinds.is_multiple(e, shrunk[0]) for e in tensors.values()):
        return found  # a tensor is right that clipping would have shrunk
    if not kinds.is_round(norm):
        return found
    of = "its norm" if alone else "the norm of all tensors"
    text = f"{found[next(iter(found))].text}, which makes {of} {norm:.6g}: clipped to it"
    return dict.fromkeys(found, Diagnosis("clipped", text, norm))


CONSTANT = Diagnosis(
    "constant", "the cost does not change with any parameter: does it use its argument?"
)

# How far all parameters are moved at once, relative to the size of each tensor: a parameter may
# act only close by, as at the bottom of a hollow, or only far off, as one that is rounded.
MOVES = (1e-6, 1e-3, 1.0)


def stands_still(check: Check) -> bool:
    """Whether J is the same number at points near and far.

    A slope of zero does not say so: x² has one at 0, and moves. The last evaluation is at θ.
    """
    rng, theta = generator(9), check.cost.theta
    size = np.ones(theta.size)
    for _, part in check.cost.layout.tensors():
        size[part] = math.sqrt(float(np.mean(np.square(theta[part])))) or 1.0
    costs = [check.value(theta + move * size * rng.standard_normal(theta.size)) for move in MOVES]
    J = check.value(theta)
    return all(cost == J for cost in costs)
