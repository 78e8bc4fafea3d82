"""Single looks at a cost, each chosen by what the last has shown: at entries, and along vectors."""

import math
from dataclasses import replace

import numpy as np

from fastgc.claim import Claim
from fastgc.disputes import Findings, settle
from fastgc.layout import FloatArray
from fastgc.methods import METHODS, Approximation, Base, Resources
from fastgc.methods.interface import Entries, Step
from fastgc.noise import uncertainty_of_differences
from fastgc.parts import Part
from fastgc.problem import Problem
from fastgc.refinement import LOOKS, SHORTER
from fastgc.steps import balanced_steps


class Probe:
    """Looks at a cost, and counts its evaluations.

    Attributes:
        evaluations: spent so far.
    """

    def __init__(
        self, problem: Problem, base: Base, epsilon: float | str, resources: Resources
    ) -> None:
        self.evaluations = 0
        self._problem, self._base = problem, base
        self._step: Step | None = None if isinstance(epsilon, str) else epsilon
        # a few at a time: no work for an executor
        self._resources = replace(resources, division=None)

    def entries(self, part: Part, claim: Claim) -> Findings:
        """The verdicts on some entries, each by itself."""
        if self._step is None:
            self._step, spent = balanced_steps(self._problem, self._base)
            self.evaluations += spent

        def look(entries: Entries | None, step: Step) -> Approximation:
            places = part.entries if entries is None else part.whole(entries)
            return METHODS["loop"].approximate(
                self._problem, places, self._base, step, self._resources
            )

        first = look(None, self._step)
        found = settle(
            self._problem, self._base, look, self._step, claim, first,
            exact=False, part=part, tries=0,
        )  # fmt: skip
        self.evaluations += found.evaluations
        return found

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
