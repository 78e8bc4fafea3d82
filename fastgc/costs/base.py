"""`Cost`: what all that is checked can do, whoever wrote it; and `as_cost`, which makes one."""

import contextlib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import (
    Container,
    Entries,
    FloatArray,
    Layout,
    flatten_parameters,
    scales,
)
from fastgc.core.verdict import THRESHOLDS


class Traits(NamedTuple):
    """What may be relied on when a cost is called.

    Attributes:
        deterministic: it depends on nothing but its parameters; nobody calls it twice to find out.
        thread_safe: `values` may run on several threads at once, and gains by it.
        blas_threads: BLAS would use threads for it, unless it is held to one.
        reseeded: something seeds what it draws from before each call.
    """

    deterministic: bool = False
    thread_safe: bool = False
    blas_threads: bool = False
    reseeded: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """J(θ) and its rounding noise: what is known of a cost before a method starts.

    Attributes:
        cost: J(θ).
        noise: σ_J, the standard deviation of its rounding errors.
        coarse: whether J has so few digits, as in single precision or beside a large constant, that
            a short step may not move it: then a difference of zero says nothing of its slope.
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
        return max(THRESHOLDS.noise * self.noise, THRESHOLDS.least_noise * abs(self.cost))

    @property
    def jitter(self) -> float:
        """How far its rounding may move a J that is otherwise the same."""
        return 4.0 * self.grain if self.coarse else THRESHOLDS.noise * self.noise

    @property
    def stillness(self) -> float:
        """By how much J may differ where nothing has changed; more than nothing."""
        return max(self.jitter, THRESHOLDS.least_noise * abs(self.cost))


class Batch(NamedTuple):
    """How many rows one call of `values` should get, of a cost that takes many.

    Attributes:
        least: fewer do not pay for the price of a call, memory allowing.
        most: a call runs to its end before Ctrl-C is looked at.
        together: whether code of the caller's computes the rows of a call together, so that one
            may depend on another.
        gains: whether a call takes less time than as many calls with a row each, at any size.
    """

    least: int = 2
    most: int = sys.maxsize
    together: bool = False
    gains: bool = True


class Candidate(NamedTuple):
    """A way to evaluate many rows in a call that nobody has tried yet.

    Attributes:
        batch: what a call would get.
        name: of the way, for a message.
        tolerance: relative; its values may differ by as much from those of single calls.
        apart: whether each tensor has to be tried by itself as well.
    """

    batch: Batch
    name: str
    tolerance: float
    apart: bool = False


class Interval(NamedTuple):
    """What is known of the slopes of n entries.

    Attributes:
        low: the least slope, (n,).
        high: the greatest.
        uncertainty: of both.
        evaluations: of the cost, spent on this.
    """

    low: FloatArray
    high: FloatArray
    uncertainty: FloatArray
    evaluations: int


class Samples(Protocol):
    """The samples of a cost that is their mean, looked at one by one where the cost has kinks."""

    def near_kink(self) -> bool:
        """Whether any is close enough to a kink that this may tell more than the cost does."""

    def slopes(self, entries: Entries, steps: FloatArray, base: Base, shorter: float) -> Interval:
        """Of each entry, the slopes that a backward pass may take.

        A kink is where one-sided slopes stay apart over a step `shorter` times as short.
        """

    def slopes_along(
        self, entries: Entries, by: FloatArray, base: Base, shorter: float
    ) -> Interval:
        """Of one move of many entries at once, whose slope is the change that it makes."""


class Cost(ABC):
    """A cost at a point θ, as a function of flat vectors.

    Code that checks asks what a cost can, by these attributes, never what it is.

    Attributes:
        layout: names and shapes of the parameters.
        theta: θ, (P,).
        batch: the rows that a call of `values` should get; None where it takes one at a time.
        candidate: a way to take many rows that is still to be tried; None for none.
        unbatched: why it takes one row at a time, and what to do about it.
        row_bytes: memory that evaluating one row takes besides the row itself.
        flops: floating-point operations of one evaluation; None where nobody has counted them.
        samples: its samples, for slopes at kinks; None where nobody can see them.
        affordable: entries up to which ``method="auto"`` looks at each; None for any number.
        derived: its gradients, by tensor, where its framework has them; one may be None.
        noun: what a message calls it.
    """

    layout: Layout
    theta: FloatArray
    batch: Batch | None = None
    candidate: Candidate | None = None
    unbatched: str = (
        "it evaluates many sets of parameters in one call: pass vectorized=True if the cost takes "
        'every array with a leading axis K and returns K costs, or method="loop"'
    )
    row_bytes: int = 0
    flops: float | None = None
    samples: Samples | None = None
    affordable: int | None = None
    derived: Mapping[str, NDArray[Any] | None] | None = None
    noun: str = "cost"

    @property
    def traits(self) -> Traits:
        """What may be relied on."""
        return Traits()

    @abstractmethod
    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,), which stays as it is."""

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P)."""
        return np.array([self.value(row) for row in rows])

    def start(self) -> float:
        """J(θ)."""
        return self.value(self.theta)

    def rest(self, failed: bool) -> int:  # noqa: ARG002  some costs keep nothing
        """Evaluates at θ once more, where the cost may keep what it was called with.

        Args:
            failed: whether the check did.

        Returns:
            The evaluations spent.
        """
        return 0

    def call(self, function: Callable[..., Any]) -> Any:
        """What a function of the caller's returns, of θ in the caller's kind of container."""
        return function(self.layout.build(self.layout.views(self.theta.copy())))

    def largest_gradient(self) -> float | None:
        """The largest finite entry of the gradients that are derived; None where none are."""
        if self.derived is None:
            return None
        gradients = [np.asarray(g, np.float64) for g in self.derived.values() if g is not None]
        sizes = [np.abs(g[np.isfinite(g)]) for g in gradients]
        return max((float(size.max(initial=0.0)) for size in sizes), default=0.0)

    def rounding(self) -> FloatArray | None:
        """How far rounding may move each entry of a right gradient, (P,); None where unknown."""
        return None

    def identity(self) -> Mapping[str, tuple[object, ...]]:
        """What tells it from other costs with the same values, by name; for a checkpoint."""
        return {}

    def at(self, theta: FloatArray) -> Self:
        """The same cost at another point."""
        other = object.__new__(type(self))  # what `__reduce__` says is for another process
        other.__dict__.update(self.__dict__, theta=theta)
        other.__dict__.pop("scale", None)
        return other

    @cached_property
    def scale(self) -> FloatArray:
        """The scale of each parameter, (P,)."""
        return scales(self.layout, self.theta)

    def value_or_nan(self, vector: FloatArray) -> float:
        """The cost away from θ; NaN where it cannot be had, or is not finite."""
        try:
            value = self.value(vector)
        except Exception:
            return math.nan
        return value if math.isfinite(value) else math.nan

    def near(self, entries: Any, by: Any) -> float:
        """The cost with these entries of θ moved by so much; NaN where it cannot be had."""
        moved = self.theta.copy()
        moved[entries] += by
        return self.value_or_nan(moved)

    def values_or_nan(self, rows: FloatArray) -> FloatArray:
        """The costs of rows (K, P), (K,); NaN where they cannot be had, or are not finite.

        Raises:
            Exception: that of the call, where each of its rows can be had alone.
        """
        try:
            costs = self.values(rows)
            return (
                costs if np.isfinite(costs).all() else np.where(np.isfinite(costs), costs, np.nan)
            )
        except Exception:
            costs = np.array([self.value_or_nan(row) for row in rows])
            if not np.isnan(costs).any():
                raise
            return costs


class Asked(NamedTuple):
    """What a caller passed as a cost, with its parameters; `settings` are NumPy's for errors."""

    cost: Callable[..., Any]
    layout: Layout
    theta: FloatArray
    vectorized: bool
    reseed: Callable[[], object] | None
    settings: dict[str, Any]


Maker = Callable[[Asked], Cost | None]

_makers: list[Maker] = []


def register(maker: Maker) -> Maker:
    """Adds a kind of cost; its maker returns None for what is another kind. The latest is first."""
    _makers.insert(0, maker)
    return maker


def as_cost(
    cost: object,
    parameters: Container,
    *,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
) -> Cost:
    """`cost` at `parameters` as a `Cost`; `reseed` is called before each evaluation.

    Raises:
        TypeError, ValueError: for a cost that is not callable and for unusable parameters.
    """
    if not callable(cost):
        raise TypeError(
            f"cost is a {type(cost).__name__}; wanted a function of the parameters, or a Network. "
            "The order of the arguments is cost, parameters, gradients"
        )
    settings: dict[str, Any] = dict(np.geterr())
    if not {"call", "log"}.isdisjoint(settings.values()):
        settings["call"] = np.geterrcall()
    asked = Asked(cost, *flatten_parameters(parameters), vectorized, reseed, settings)
    return next(made for maker in _makers if (made := maker(asked)) is not None)


def base_cost(cost: Cost) -> tuple[float, int]:
    """J(θ), and the number of evaluations spent on it.

    A cost that is not known to be deterministic is evaluated twice: it must give the same number
    both times, or one that differs in its last bits.

    Raises:
        ValueError: for a cost that is not finite, or is random.
    """
    J = cost.start()
    if not math.isfinite(J):
        raise ValueError(
            f"the cost is {J} at the parameters given; wanted a finite number. "
            "Check the data and the parameters, or use a form of the loss that does not overflow"
        )
    return J, 1 + (0 if cost.traits.deterministic else require_repeatable(cost, J))


def require_repeatable(cost: Cost, J: float) -> int:
    """Evaluates J(θ) once more; 1, the evaluations spent.

    Raises:
        ValueError: for a cost that gives another number than `J` now, in more than its last bits.
    """
    again = cost.value(cost.theta)
    if not abs(again - J) <= THRESHOLDS.last_bits * abs(J):
        raise random_cost(cost, J, again)
    return 1


def differ(one: float, other: float, tolerance: float) -> bool:
    """Whether two values are further apart than this part of the larger; NaN tells nothing."""
    return abs(one - other) > tolerance * max(abs(one), abs(other))


def random_cost(cost: Cost, J: float, again: float) -> ValueError:
    """The error for a cost that gave `J` and then `again` at the same parameters."""
    advice = "dropout? seed it, with reseed=lambda: rng.seed(0) or the like"
    if cost.traits.reseeded:
        advice = "reseed= was called before both, and is not what it draws from"
    return ValueError(
        f"the cost differs by {abs(again - J):.3g} between two identical calls "
        f"({J!r}, then {again!r}): it is random, or keeps state; {advice}"
    )


class Noting:
    """Adds to an exception of the cost at which parameters it was raised.

    A class: a generator's context manager writes to the exception, which it may not allow.
    """

    def __init__(self, cost: Cost, *vectors: FloatArray) -> None:
        self.cost, self.vectors = cost, vectors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not getattr(error, "__notes__", None):
            points = list(dict.fromkeys(_described(self.cost, vector) for vector in self.vectors))
            where = f"at {points[0]}"
            if len(points) > 1:
                where = f"in the stack from {' to '.join(points)}"
            with contextlib.suppress(Exception):
                error.add_note(f"fastgc: the cost raised this {where}")


def _described(cost: Cost, vector: FloatArray) -> str:
    layout, theta = cost.layout, cost.theta
    changed = np.flatnonzero(vector != theta)
    if changed.size == 0:
        return "the parameters as given"
    if changed.size == 1:
        k = int(changed[0])
        return f"{layout.entry(k)} {vector[k] - theta[k]:+.3g}"
    step = float(np.linalg.norm(vector - theta))
    first, last = layout.tensor_of(changed[[0, -1]])
    where = f" in {layout.names[first]}" if first == last and len(layout.names) > 1 else ""
    return f"a random step of length {step:.3g}{where}"
