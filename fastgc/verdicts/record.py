"""What is known of every entry while a verdict on it is being reached."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Layout, Step, exact_steps
from fastgc.core.verdict import (
    AGREE,
    THRESHOLDS,
    UNRESOLVED,
    Zeros,
    entry_scale,
    entry_verdicts,
)
from fastgc.costs.base import Base, Cost
from fastgc.methods.base import Approximation, Method
from fastgc.parallel.chunks import Resources
from fastgc.verdicts.summary import Summary, tensor_means

DIRECTIONS = 12  # in which a kink is looked for; a ReLU behind a ReLU is silent in many

ALL = slice(None)

#: A method at work on a cost: (entries, step) -> Approximation.
Look: TypeAlias = Callable[[Entries | None, Step], Approximation]


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """The outcome for every entry, (P,) each.

    Attributes:
        grad: the gradient that is checked.
        gradapprox: from the longest step that did not prove to be too long.
        uncertainty: of `gradapprox`.
        codes: the verdicts, indices into `ENTRY_VERDICTS`.
        at_rounding: the entries that agree only as far as the rounding of a right backward pass
            lets anyone tell, indices (n,).
        disputed: the entries that were looked at again, indices (n,), in order.
        slopes: their least and greatest one-sided slope, (n,) each.
        longer: the step that `gradapprox` is from, where it is longer than the first, else 0; None
            where none is.
        restless: the entries whose gradapprox still moves as the step shrinks, indices (n,).
        summary: what the report says of each tensor.
    """

    grad: FloatArray
    gradapprox: FloatArray
    uncertainty: FloatArray
    codes: NDArray[np.uint8]
    at_rounding: Entries
    disputed: Entries
    slopes: tuple[FloatArray, FloatArray]
    summary: Summary
    longer: FloatArray | None = None
    restless: Entries | None = None

    def longest(self, part: slice) -> float | None:
        """The longest step of a part, where it is longer than the first."""
        return None if self.longer is None else float(self.longer[part].max()) or None


class Looked(NamedTuple):
    """One look at n entries, (n,) each; slopes are the least and the greatest met."""

    gradapprox: FloatArray
    uncertainty: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def gap(self) -> FloatArray:
        """How far the slopes are apart."""
        return self.high - self.low

    @property
    def reach(self) -> FloatArray:
        """The largest slope on either side; 0 where neither can be had."""
        return np.nan_to_num(np.fmax(np.abs(self.low), np.abs(self.high)), nan=0.0, posinf=0.0)


def at_work(method: Method, cost: Cost, subset: Subset, base: Base, resources: Resources) -> Look:
    """A method that looks at the entries of a subset, numbered among these; None for all."""

    def look(entries: Entries | None, step: Step) -> Approximation:
        whole = subset.entries if entries is None else subset.whole(entries)
        return method.approximate(cost, whole, base, step, resources)

    return look


@dataclass(eq=False, repr=False, kw_only=True)
class Check:
    """What is checked, and how it is looked at.

    Attributes:
        cost: the cost at θ.
        base: J(θ) and its noise.
        subset: the entries that are checked; all numbers of entries here are among these.
        analytic: their gradients.
        method: looks at some entries of the subset, or all, with a step.
        epsilon: the step of the first look.
        exact: whether the method's differences are free of cancellation.
        directions: whether the entries are steps along random directions. Where one of these
            crosses kinks, a wrong gradient may lie between the slopes as well as a right one: it
            is accepted only where they are close together, and called wrong only where it lies far
            outside.
        tries: how many directions are searched for a kink of a cost that is not seen into.
        balanced: whether `epsilon` balances truncation and noise already.
        evaluations: of the cost, spent so far.
    """

    cost: Cost
    base: Base
    subset: Subset
    analytic: AnalyticGradient
    method: Look
    epsilon: Step
    exact: bool = False
    directions: bool = False
    tries: int = DIRECTIONS
    balanced: bool = False
    evaluations: int = 0

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,); NaN where it cannot be had."""
        self.evaluations += 1
        return self.cost.value_or_nan(vector)

    def near(self, entries: Entries, by: FloatArray | float) -> float:
        """The cost with these entries moved by so much; NaN where it cannot be had."""
        self.evaluations += 1
        return self.cost.near(self.subset.whole(entries), by)

    @property
    def opaque(self) -> bool:
        """Whether J is all that can be seen: no exact differences, no samples, no directions."""
        return not (self.exact or self.directions or self.cost.samples is not None)

    @property
    def steps_of_all(self) -> FloatArray:
        """The step of the first look at each parameter, (P,)."""
        return np.broadcast_to(self.epsilon, self.cost.layout.size)


@dataclass(eq=False, repr=False, kw_only=True)
class Record(Check):
    """What is known so far of n entries, (n,) each; and what looking and judging take.

    Attributes:
        gradapprox, uncertainty: as in `Findings`.
        reach: the largest one-sided slope of the look that gradapprox is from.
        steps: of that look.
        codes: the verdicts.
        low, high: the least and the greatest slope found of an entry that was looked at again.
        means: the root mean square of gradapprox over each tensor, (T,), of settled entries.
        looked: which entries were looked at again.
        at_kink: which have a kink at θ.
        restless: which have a gradapprox that still moves as the step shrinks.
        limits: the longest step that an entry bears, where the cost ends close by.
        needed: the largest uncertainty at which an entry may agree: half of what it was off by at
            an earlier look that no shorter step has refuted.
    """

    gradapprox: FloatArray
    uncertainty: FloatArray
    reach: FloatArray
    steps: FloatArray
    codes: NDArray[np.uint8]
    low: FloatArray
    high: FloatArray
    means: FloatArray

    def __post_init__(self) -> None:
        n = self.codes.size
        self.looked, self.at_kink, self.restless = np.zeros((3, n), dtype=np.bool_)
        self.needed, self.limits = np.full((2, n), np.inf)

    @classmethod
    def of(
        cls, check: Check, first: Approximation, uncertainty: FloatArray, codes: NDArray[np.uint8]
    ) -> "Record":
        """What a first look shows; `codes` are written to."""
        low, high = (slopes.copy() for slopes in first.slopes())
        approx = first.gradapprox.copy()
        reach = Looked(approx, uncertainty, low, high).reach
        return cls(
            **vars(check),
            gradapprox=approx,
            uncertainty=uncertainty.copy(),
            reach=np.full(codes.size, np.inf) if check.exact else reach,
            steps=check.subset.of(check.steps_of_all).copy(),
            codes=codes,
            low=low,
            high=high,
            means=tensor_means(check.subset.layout, first.gradapprox),
        )

    @property
    def layout(self) -> Layout:
        """Of the entries that are checked."""
        return self.subset.layout

    @property
    def theta(self) -> FloatArray:
        """The parameters that are checked, (n,)."""
        return self.subset.of(self.cost.theta)

    @property
    def scale(self) -> FloatArray:
        """Their scales, (n,)."""
        return self.subset.of(self.cost.scale)

    @property
    def steps_now(self) -> FloatArray:
        """The step of each parameter (P,) that what is known of it is from."""
        steps = np.array(self.steps_of_all)
        steps[self.subset.whole(np.arange(self.layout.size))] = self.steps
        return steps

    def look(self, entries: Entries, steps: FloatArray) -> Looked:
        """Looks at some entries with other steps, (n,); one for all where the method is exact."""
        step: Step
        if self.exact:
            step = float(steps[0])
        else:
            whole = self.subset.whole(entries)
            step = np.zeros(self.cost.layout.size)
            step[whole] = exact_steps(self.cost.theta[whole], steps)
        approx = self.method(None if entries.size == self.layout.size else entries, step)
        self.evaluations += approx.evaluations
        uncertainty = self.as_analytic(entries, approx.uncertainty)
        return Looked(approx.gradapprox, uncertainty, *approx.slopes())

    def take(self, entries: Entries, looked: Looked, steps: FloatArray, mask: Any = ALL) -> Entries:
        """Puts a look, of the entries that `mask` chooses, in the place of what was known of these.

        Returns:
            The entries that it chooses.
        """
        taken: Entries = entries[mask]
        self.steps[taken] = steps[mask]
        self.reach[taken] = np.inf if self.exact else looked.reach[mask]
        known = self.gradapprox, self.uncertainty, self.low, self.high
        for values, news in zip(known, looked, strict=True):
            values[taken] = news[mask]
        return taken

    def rejudge(self, entries: Entries) -> None:
        """Takes the verdicts on some entries from what is known of them now."""
        self.codes[entries] = self.judge(entries)

    def judge(
        self,
        entries: Entries,
        extra: FloatArray | float = 0.0,
        *,
        exact_zeros: bool | None = None,
    ) -> NDArray[np.uint8]:
        """The verdicts on some entries, with some `extra` uncertainty."""
        still: bool | NDArray[np.bool_] = exact_zeros is True
        if exact_zeros is None:
            # where J moves as far on both sides, it may do so over this step alone
            moves = (self.reach[entries] > 0) & (self.reach[entries] < np.inf)
            still = ~moves & (not self.base.coarse)
        tensors, uncertainty = self.layout.tensor_of(entries), self.uncertainty[entries]
        codes = entry_verdicts(
            self.analytic.grad[entries], self.gradapprox[entries], uncertainty + extra,
            self.means[tensors], self.analytic.tolerances[tensors],
            floor=self.analytic.floors[tensors],
            zeros=Zeros(self.reach[entries], still),
        )  # fmt: skip
        needed = self.needed[entries]
        tells = (uncertainty <= needed) | (
            uncertainty + 2 * needed <= THRESHOLDS.zero * self.reach[entries]
        )
        with np.errstate(invalid="ignore"):  # or what it was off by has gone, as truncation does
            error = np.abs(self.analytic.grad[entries] - self.gradapprox[entries])
            tells |= (error <= needed / 2) & (uncertainty <= THRESHOLDS.explained * needed)
        codes[(codes == AGREE) & ~tells] = UNRESOLVED
        return codes

    def allowed(self, entries: Entries, approx: FloatArray) -> FloatArray:
        """T of some entries, against these values of gradapprox."""
        tensors = self.layout.tensor_of(entries)
        relative = self.analytic.tolerances[tensors]
        absolute = self.analytic.floors[tensors] * self.means[tensors]
        return relative * entry_scale(self.analytic.grad[entries], approx, 0.0) + absolute

    def size(self, entries: Entries, approx: FloatArray) -> FloatArray:
        """What the uncertainty of some entries is relative to."""
        means = self.means[self.layout.tensor_of(entries)]
        return entry_scale(self.analytic.grad[entries], approx, means)

    def rescale(self) -> bool:
        """Takes the tensors' sizes from settled differences alone; whether that changed any."""
        settled = self.codes != UNRESOLVED
        settled |= ~self.looked
        settled &= np.isfinite(self.gradapprox)
        means = tensor_means(self.layout, np.where(settled, self.gradapprox, 0.0))
        counts = np.add.reduceat(settled, self.layout.offsets[:-1], dtype=np.intp)
        means *= np.sqrt(self.layout.lengths / np.maximum(counts, 1))
        changed = bool((np.abs(means - self.means) > 1e-3 * self.means).any())
        self.means = means
        return changed

    def as_analytic(self, entries: Entries, uncertainty: FloatArray) -> FloatArray:
        """The uncertainty of a method as one of the claim, which may be of narrow floats."""
        return self.analytic.uncertainty(
            uncertainty, self.layout.tensor_of(entries), exact=self.exact
        )

    def with_code(self, *codes: int) -> Entries:
        """The entries whose verdict is one of these."""
        return np.flatnonzero(np.isin(self.codes, codes))


def within(
    low: FloatArray, g: FloatArray, high: FloatArray, allowance: FloatArray | float
) -> NDArray[np.bool_]:
    """Whether g lies between low and high, widened by `allowance`."""
    return (low - allowance <= g) & (g <= high + allowance)


def far_outside(
    low: FloatArray, g: FloatArray, high: FloatArray, allowance: FloatArray
) -> NDArray[np.bool_]:
    """Whether g lies so far outside these slopes that no choice at a kink explains it."""
    return np.maximum(low - g, g - high) > THRESHOLDS.far * (high - low) + allowance
