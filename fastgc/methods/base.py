"""What every method takes and returns."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastgc.core.tree import Entries, FloatArray
from fastgc.costs.base import Problem
from fastgc.costs.noise import Base
from fastgc.parallel.chunks import Resources


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
        flops: (n_0 … n_L, m) -> floating-point operations on a Network, if no unit is silent;
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
    load: Callable[[bool], object] = lambda _: None
    flops: Callable[[tuple[int, ...], int], float] | None = None
    vectors: int = 10
    memory: Callable[[Problem, Resources], int] | None = None
    seconds: Callable[[Problem, Resources], float] | None = None


def best(work: Callable[[], object], times: int) -> float:
    """Seconds that `work` takes: the least of several."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)
