"""Corners in several samples at once: the interval of slopes of an entry of a Network.

The slopes of J alone do not show them: at a corner in one sample the slope jumps up, in another
down, and the sum may look smooth. So each sample's own loss is looked at.
"""

import numpy as np

from fastgc.layout import FloatArray
from fastgc.methods import Base
from fastgc.methods.interface import Entries
from fastgc.noise import uncertainty_of_differences
from fastgc.problem import Problem

BLOCK = 32  # entries at a time


def slope_intervals(
    problem: Problem, entries: Entries, base: Base, epsilon: float, shorter: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The least and the greatest slope of each entry, and the uncertainty of both, (n,) each.

    A sample whose two one-sided slopes stay apart when the step is `shorter` times as long adds
    the interval between them; any other adds its central difference.
    """
    assert problem.sample_losses is not None
    theta = problem.theta
    here = problem.sample_losses(theta[np.newaxis])[0]
    m = here.size - 1
    here = here / m
    low, high, uncertainty = np.empty((3, entries.size))
    for start in range(0, entries.size, BLOCK):
        some = entries[start : start + BLOCK]
        gaps = []
        for step in (epsilon, epsilon / shorter):
            up, down = (theta[some] + step) - theta[some], theta[some] - (theta[some] - step)
            rows = np.repeat(theta[np.newaxis], 2 * some.size, axis=0)
            rows[np.arange(some.size) * 2, some] += step
            rows[np.arange(some.size) * 2 + 1, some] -= step
            losses = problem.sample_losses(rows) / m
            above = (losses[0::2] - here) / up[:, np.newaxis]
            below = (here - losses[1::2]) / down[:, np.newaxis]
            gaps.append(np.abs(above - below))
        found = uncertainty_of_differences(base.cost, base.noise, up + down)
        corner = (gaps[1] > gaps[0] / 4) & (gaps[1] > found[:, np.newaxis])
        middle = 0.5 * (above + below)
        part = slice(start, start + some.size)
        low[part] = np.where(corner, np.minimum(below, above), middle).sum(axis=1)
        high[part] = np.where(corner, np.maximum(below, above), middle).sum(axis=1)
        uncertainty[part] = found
    return low, high, uncertainty
