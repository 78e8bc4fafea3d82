"""Single looks at a cost, each chosen by what the last has shown: at entries, and along vectors."""

import math
from dataclasses import replace

import numpy as np

from fastgc.disputes import LOOKS, SHORTER
from fastgc.layout import FloatArray
from fastgc.methods import METHODS, Base, Resources
from fastgc.methods.interface import Entries, Step
from fastgc.noise import uncertainty_of_differences
from fastgc.problem import Problem
from fastgc.steps import balanced_steps


class Probe:
    """Looks at a cost, and counts its evaluations.

    Attributes:
        step: of single entries; None for the one that `balanced_steps` finds when it is needed.
        evaluations: spent so far.
    """

    def __init__(
        self, problem: Problem, base: Base, step: float | None, resources: Resources
    ) -> None:
        self.step: Step | None = step
        self.evaluations = 0
        self._problem, self._base = problem, base
        # a few at a time: no work for an executor
        self._resources = replace(resources, division=None)

    def entries(self, entries: Entries) -> tuple[FloatArray, FloatArray]:
        """gradapprox of some entries of the flat vector, and its uncertainty, (n,) each."""
        if self.step is None:
            self.step, spent = balanced_steps(self._problem, self._base)
            self.evaluations += spent
        found = METHODS["loop"].approximate(
            self._problem, entries, self._base, self.step, self._resources
        )
        self.evaluations += found.evaluations
        return found.gradapprox, found.uncertainty

    def slope(self, v: FloatArray, step: float, allowed: float) -> tuple[float, float]:
        """The slope of the cost along v (P,), and its uncertainty.

        With shorter steps where the first crosses a corner, until it is good to about `allowed`.
        """
        theta, cost = self._problem.theta, self._base.cost
        found: list[float] = []
        while True:
            plus, minus = (self._problem.evaluate(theta + t * v) for t in (step, -step))
            self.evaluations += 2
            found.append((plus - minus) / (2 * step))
            both = np.array([2 * step])
            doubt = float(uncertainty_of_differences(cost, self._base.noise, both)[0])
            bend = abs(plus - 2 * cost + minus) / step
            settled = bend <= allowed or (
                len(found) > 1 and abs(found[-1] - found[-2]) <= allowed + 2 * doubt
            )
            if settled or len(found) > LOOKS or not math.isfinite(bend):
                return found[-1], doubt
            step /= SHORTER
