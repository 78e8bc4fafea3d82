"""What every method takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass

from fastgc.layout import FloatArray
from fastgc.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """What is known of the cost at θ before a method starts.

    Attributes:
        cost: J(θ).
        noise: σ_J, the standard deviation of its rounding errors.
    """

    cost: float
    noise: float


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
    """What a method found, entry by entry; the verdict on it is reached elsewhere.

    Attributes:
        gradapprox: (P,).
        uncertainty: (P,); how far rounding may have moved each gradapprox, in the same unit.
        evaluations: of the cost.
    """

    gradapprox: FloatArray
    uncertainty: FloatArray
    evaluations: int


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """A way to get gradapprox.

    Attributes:
        approximate: (problem, base, epsilon, resources) -> Approximation.
        refusal: why it cannot work on a problem, with the remedy; None where it can.
        epsilon: the step it takes where the caller names none.
    """

    approximate: Callable[[Problem, Base, float, Resources], Approximation]
    refusal: Callable[[Problem], str | None]
    epsilon: float
