"""The step that epsilon="auto" takes: where truncation and rounding noise balance."""

import math

import numpy as np

from fastgc.drawing import generator
from fastgc.layout import FloatArray
from fastgc.methods import Base
from fastgc.methods.interface import Entries
from fastgc.noise import LEAST_NOISE
from fastgc.problem import Problem

TRIED = 3  # entries of each tensor whose third derivative is measured
LONGEST, SHORTEST = 0.1, 2.0**-26  # of the scale of an entry
RETREATS = 4  # to shorter steps, where the cost cannot be had


def balanced_steps(
    problem: Problem, base: Base, entries: Entries | None = None
) -> tuple[FloatArray, int]:
    """A step for each entry, (P,), and the evaluations spent: 4 for each of 3 entries a tensor.

    A central difference is off by ε²|J‴|/6 by truncation and by σ_J/ε by noise; their sum is least
    at ε = (3 σ_J / |J‴|)^⅓. J‴ is measured at a few entries of each tensor, by a difference of its
    own, and the least ε found serves the whole tensor, in proportion to the scale of its entries
    (`Problem.scale`).

    Args:
        problem: the cost at θ.
        base: J(θ) and its noise.
        entries: those that need a step, (n,), whose tensors alone are measured; None for all.
            The steps of the others are 0.

    Source: Moré & Wild, *Estimating Derivatives of Noisy Simulations*, ACM TOMS 2012, for the
    balance; central instead of forward differences.
    """
    scale, layout = problem.scale, problem.layout
    noise = max(base.noise, LEAST_NOISE * abs(base.cost), np.finfo(np.float64).tiny)
    rng = generator(3)
    steps = np.zeros(scale.size)
    evaluations = 0
    for _, part in layout.tensors():
        places = np.arange(part.start, part.stop)
        if entries is not None:
            first, end = np.searchsorted(entries, (part.start, part.stop))
            places = entries[first:end]
        if places.size == 0:
            continue
        shares = []
        for k in rng.choice(places, min(TRIED, places.size), replace=False).tolist():
            share, spent = _share(problem, k, float(scale[k]), base, noise)
            shares.append(share)
            evaluations += spent
        steps[places] = min(shares) * scale[places]
    return steps, evaluations


def _share(problem: Problem, k: int, scale: float, base: Base, noise: float) -> tuple[float, int]:
    """The best step of entry k over its scale, and the evaluations spent."""
    # the third difference itself is best where its noise, σ/H³, meets its truncation
    share = min(LONGEST, (noise / max(abs(base.cost), noise)) ** 0.2)
    spent = 0
    for _ in range(RETREATS):
        H = share * scale
        costs = [problem.cost_near(k, t * H) for t in (-2.0, -1.0, 1.0, 2.0)]
        spent += 4
        if all(map(math.isfinite, costs)):
            a, b, c, d = costs
            third = max(abs((d - a) - 2.0 * (c - b)), 6.0 * noise) / 2.0
            # (3 σ / (third / H³))^⅓
            return max(SHORTEST, min(share, share * (3.0 * noise / third) ** (1 / 3))), spent
        share /= 16
    return share, spent
