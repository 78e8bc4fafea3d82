"""What every method takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.layout import FloatArray
from fastgc.noise import LEAST_NOISE
from fastgc.problem import Problem

if TYPE_CHECKING:
    from fastgc.blocks import Division

Entries: TypeAlias = NDArray[np.intp]

#: ε, one for all or one for each of the P parameters; methods that are exact take one for all.
Step: TypeAlias = float | FloatArray


def _nothing(_: int) -> None:
    """Does nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """What is known of the cost at θ before a method starts.

    Attributes:
        cost: J(θ).
        noise: σ_J, the standard deviation of its rounding errors.
        coarse: whether it has too few digits for a short step to move it.
        seen: J at the points where its noise was measured, in order of size.
        grain: how far apart its values are at least, where it is rounded to few digits; else 0.
    """

    cost: float
    noise: float
    coarse: bool = False
    seen: tuple[float, ...] = ()
    grain: float = 0.0

    @property
    def rounding(self) -> float:
        """How far its rounding may move a J: 10 σ_J, at least 4u·|J|."""
        return max(10.0 * self.noise, LEAST_NOISE * abs(self.cost))

    @property
    def jitter(self) -> float:
        """How far its rounding may move a J that is otherwise the same."""
        return 4.0 * self.grain if self.coarse else 10.0 * self.noise


@dataclass(frozen=True, eq=False, repr=False)
class Resources:
    """What a method may use. None of it changes a result.

    Attributes:
        memory: bytes that it may allocate at once, beyond what parameters and data hold.
        threads: how many threads it may run.
        advance: called with the number of evaluations done since the last call, from any thread.
        skip: called with the number of evaluations that an earlier process has done already.
        division: of the work into blocks, for an executor or a checkpoint; None for neither.
    """

    memory: int
    threads: int
    advance: Callable[[int], None]
    skip: Callable[[int], None] = _nothing
    division: "Division | None" = None


@dataclass(frozen=True, eq=False, repr=False)
class Approximation:
    """What a method found of n entries; the verdict on it is reached elsewhere.

    Attributes:
        gradapprox: (n,).
        uncertainty: (n,); how far rounding may have moved each gradapprox, in the same unit.
        slopes: the least and the greatest slope of each entry, (n,) each: of the one-sided slopes
            (J − J_minus) / ε and (J_plus − J) / ε, or finer, sample by sample. They cost time and
            memory, and are asked for only where a gradient disagrees.
        evaluations: of the cost.
    """

    gradapprox: FloatArray
    uncertainty: FloatArray
    slopes: Callable[[], tuple[FloatArray, FloatArray]]
    evaluations: int


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """A way to get gradapprox.

    Attributes:
        approximate: (problem, entries, base, epsilon, resources) -> Approximation of the entries,
            indices (n,) into the flat vector of parameters; None for all.
        refusal: why it cannot work on a problem, with the remedy; None where it can.
        evaluations: how many perturbed costs it will look at in all.
        least_memory: bytes that its smallest block takes.
        epsilon: the step it takes where the caller names none.
        exact: whether its differences are free of cancellation, so that the noise of J does not
            matter, and its slopes are taken sample by sample.
        spreads: whether the workers of an executor can share its work.
        load: makes ready what it needs; its argument, whether to say so if that takes seconds.
        operations: (n_0 … n_L, m) -> floating-point operations on a Network, if no unit is silent;
            None where nobody has counted them.
        vectors: vectors of P numbers that a check with it holds: parameters, gradients, gradapprox,
            uncertainty, and those of its own.
        memory: bytes that it takes besides; None for its smallest block.
        seconds: what it would take on a problem, from timing a sample of its work; None for timing
            some entries and scaling.
    """

    approximate: Callable[[Problem, Entries | None, Base, Any, Resources], Approximation]
    refusal: Callable[[Problem], str | None]
    evaluations: Callable[[Problem], int]
    least_memory: Callable[[Problem], int]
    epsilon: float
    exact: bool = False
    spreads: bool = True
    load: Callable[[bool], object] = _nothing
    operations: Callable[[tuple[int, ...], int], float] | None = None
    vectors: int = 10
    memory: Callable[[Problem, Resources], int] | None = None
    seconds: Callable[[Problem, Resources], float] | None = None
