"""Looks along the line of a single entry: over a share of its own size, and at its own noise."""

import math

import numpy as np

from fastgc.docket import Docket
from fastgc.layout import FloatArray
from fastgc.methods.interface import Entries
from fastgc.noise import POINTS, table_noise
from fastgc.refinement import NEAR
from fastgc.verdict import RESOLUTION, UNRESOLVED

SMALL = 1e-3  # of an entry, a step is short beside it; and of a slope, a difference counts
FEW = 16  # entries whose own noise is measured before that of all


def tiny(theta: FloatArray, steps: FloatArray) -> Entries:
    """Entries that a step is not short beside, (n,)."""
    return np.flatnonzero((theta != 0) & (SMALL * np.abs(theta) < steps))


def by_scale(docket: Docket) -> None:
    """Entries much smaller than the step, looked at over a share of their own size as well.

    Where the two looks contradict each other, the step leads over all that the entry does.
    """
    entries = tiny(docket.theta, docket.steps)
    if entries.size == 0:
        return
    steps = NEAR * np.abs(docket.theta[entries])
    looked = docket.look(entries, steps)
    with np.errstate(invalid="ignore"):
        apart = np.abs(looked.gradapprox - docket.gradapprox[entries])
        against = apart > looked.uncertainty + docket.uncertainty[entries]
        against &= apart > SMALL * np.abs(looked.gradapprox)
        against &= looked.uncertainty <= RESOLUTION * np.abs(looked.gradapprox)
    docket.take(entries[against], looked.part(against), steps[against])
    if against.any():
        docket.looked[entries[against]] = True
        docket.rescale()
        every = np.arange(docket.codes.size)
        docket.codes[:] = docket.judge(every)


def own_noise(docket: Docket, accused: Entries) -> None:
    """Leaves open what the noise along an entry's own line may explain.

    Along a line through many entries it may not show, as where one output is saturated and its
    logarithm is a staircase. A few entries are looked at first, and the others if any is in doubt.
    """
    for entries in (accused[:: max(1, accused.size // FEW)], accused):
        doubtful = [k for k in entries.tolist() if _is_noise(docket, k)]
        docket.codes[doubtful] = UNRESOLVED
        if not doubtful:
            return


def _is_noise(docket: Docket, k: int) -> bool:
    problem = docket.problem
    whole, step = int(docket.part.whole(np.array([k]))[0]), float(docket.steps[k])
    error = abs(float(docket.claim.grad[k] - docket.gradapprox[k]))
    noises = []
    for side in (1.0, -1.0):
        costs = [problem.cost_near(whole, side * step * i / (POINTS - 1)) for i in range(POINTS)]
        docket.evaluations += POINTS
        if all(map(math.isfinite, costs)):
            noises.append(table_noise(costs))
    return bool(noises) and error <= 10.0 * min(noises) / step
