"""What every method takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.layout import FloatArray
from fastgc.problem import Problem

Entries: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """What is known of the cost at θ before a method starts.

    Attributes:
        cost: J(θ).
        noise: σ_J, the standard deviation of its rounding errors.
        coarse: whether it has too few digits for a short step to move it.
    """

    cost: float
    noise: float
    coarse: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Resources:
    """What a method may use. None of it changes a result.

    Attributes:
        memory: bytes that it may allocate at once, beyond what parameters and data hold.
        threads: how many threads it may run.
        advance: called with the number of evaluations done since the last call, from any thread.
    """

    memory: int
    threads: int
    advance: Callable[[int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Approximation:
    """What a method found of n entries; the verdict on it is reached elsewhere.

    Attributes:
        gradapprox: (n,).
        uncertainty: (n,); how far rounding may have moved each gradapprox, in the same unit.
        slope_below: (n,); the one-sided slope (J − J_minus) / ε.
        slope_above: (n,); the one-sided slope (J_plus − J) / ε.
        evaluations: of the cost.
    """

    gradapprox: FloatArray
    uncertainty: FloatArray
    slope_below: FloatArray
    slope_above: FloatArray
    evaluations: int

    def of(self, some: NDArray[np.bool_]) -> "Approximation":
        """The same of some of the entries."""
        return Approximation(
            self.gradapprox[some],
            self.uncertainty[some],
            self.slope_below[some],
            self.slope_above[some],
            self.evaluations,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """A way to get gradapprox.

    Attributes:
        approximate: (problem, entries, base, epsilon, resources) -> Approximation of the entries,
            indices (n,) into the flat vector of parameters.
        refusal: why it cannot work on a problem, with the remedy; None where it can.
        epsilon: the step it takes where the caller names none.
    """

    approximate: Callable[[Problem, Entries, Base, float, Resources], Approximation]
    refusal: Callable[[Problem], str | None]
    epsilon: float
