"""What every method takes and returns."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Layout
from fastgc.costs.base import Base, Cost
from fastgc.options import Choices
from fastgc.parallel.chunks import Resources
from fastgc.report.data import Outcome


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


def _twice(_: Cost, layout: Layout, __: Choices) -> int:
    return 2 * layout.size


def _unknown(_: Cost) -> None:
    """Nobody has counted them."""


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """A way to get gradapprox. What it costs is its own: `plan` and the report ask it.

    Attributes:
        name: as in ``method=``.
        approximate: (cost, entries, base, epsilon, resources) -> Approximation of the entries,
            indices (n,) into the flat vector of parameters; None for all.
        refusal: why it cannot work on a cost, with the remedy; None where it can.
        least_memory: bytes that its smallest block takes.
        epsilon: the step it takes where the caller names none.
        exact: whether its differences are free of cancellation, so that the noise of J does not
            matter, and its slopes are taken sample by sample.
        along: whether it looks along random directions, instead of at entries.
        compare: (a `Job`, resources) -> `Outcome`, of one that compares gradients in a way of its
            own; None for the comparison entry by entry.
        spreads: whether the workers of an executor can share its work.
        load: makes ready what it needs; its argument, whether to say so if that takes seconds.
        evaluations: (cost, layout, choices) -> how many perturbed costs it looks at, for a check of
            the entries that the layout has.
        unit: what these are.
        flops: floating-point operations for all entries, if no unit is silent; None where nobody
            has counted them.
        most_flops: so many, up to which ``auto`` may take it.
        vectors: vectors of P numbers that a check with it holds: parameters, gradients, gradapprox,
            uncertainty, and those of its own.
        memory: bytes that it takes besides; None for its smallest block.
        seconds: what it would take on a cost, from timing a sample of its work; None for timing
            some entries and scaling.
    """

    name: str
    approximate: Callable[[Cost, Entries | None, Base, Any, Resources], Approximation]
    refusal: Callable[[Cost], str | None]
    least_memory: Callable[[Cost], int]
    epsilon: float
    exact: bool = False
    along: bool = False
    compare: "Callable[[Job, Resources], Outcome] | None" = None
    spreads: bool = True
    load: Callable[[bool], object] = lambda _: None
    evaluations: Callable[[Cost, Layout, Choices], int] = _twice
    unit: str = "evaluations"
    flops: Callable[[Cost], float | None] = _unknown
    most_flops: float = math.inf
    vectors: int = 10
    memory: Callable[[Cost, Resources], int] | None = None
    seconds: Callable[[Cost, Resources], float] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Job:
    """A comparison of gradients with a cost, as a method gets it.

    Attributes:
        cost: at θ.
        method: that looks at it.
        choices: the options.
        epsilon: the step, or "auto".
        subset: the entries that are checked.
        analytic: their gradients.
        base: J(θ) and its noise.
    """

    cost: Cost
    method: Method
    choices: Choices
    epsilon: float | str
    subset: Subset
    analytic: AnalyticGradient
    base: Base


def forward_flops_of_all(cost: Cost) -> float | None:
    """Two evaluations for each parameter, where the operations of one are known."""
    return None if cost.flops is None else 2 * cost.layout.size * cost.flops


def best(work: Callable[[], object], times: int) -> float:
    """Seconds that `work` takes: the least of several."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)
