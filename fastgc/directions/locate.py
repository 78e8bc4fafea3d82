"""Single looks at a cost, each chosen by what the last has shown: at entries, and along vectors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.statistics import share_interval
from fastgc.core.subset import Subset
from fastgc.core.tree import Entries, FloatArray, Layout, Step, index_of
from fastgc.core.verdict import DISAGREE
from fastgc.costs.base import Base, Cost
from fastgc.costs.noise import balanced_steps, uncertainty_of_differences
from fastgc.directions.draw import Directions
from fastgc.methods.loop import LOOP
from fastgc.parallel.chunks import Resources
from fastgc.report.data import Diagnosis
from fastgc.verdicts.record import Check, Findings, at_work
from fastgc.verdicts.refinement import LOOKS, SHORTER
from fastgc.verdicts.second_look import second_look


class Probe:
    """Looks at a cost, and counts its evaluations.

    Attributes:
        evaluations: spent so far.
    """

    def __init__(self, cost: Cost, base: Base, epsilon: float | str, resources: Resources) -> None:
        self.evaluations = 0
        self._cost, self._base = cost, base
        self._step: Step | None = None if isinstance(epsilon, str) else epsilon
        # a few at a time: no work for an executor
        self._resources = replace(resources, chunking=None)

    def entries(self, subset: Subset, analytic: AnalyticGradient) -> Findings:
        """The verdicts on some entries, each by itself."""
        if self._step is None:
            self._step, spent = balanced_steps(self._cost, self._base)
            self.evaluations += spent

        look = at_work(LOOP, self._cost, subset, self._base, self._resources)
        check = Check(
            cost=self._cost, base=self._base, subset=subset, analytic=analytic, method=look,
            epsilon=self._step, tries=0,
        )  # fmt: skip
        findings = second_look(check, look(None, self._step))
        self.evaluations += check.evaluations
        return findings

    def slope(self, v: FloatArray, step: float, allowed: float) -> tuple[float, float]:
        """The slope of the cost along v (P,), and its uncertainty.

        With shorter steps where the first crosses a corner, until it is good to about `allowed`.
        """
        theta, J = self._cost.theta, self._base.cost
        found: list[float] = []
        while True:
            plus, minus = (self._cost.value(theta + t * v) for t in (step, -step))
            self.evaluations += 2
            found.append((plus - minus) / (2 * step))
            both = np.array([2 * step])
            uncertainty = float(uncertainty_of_differences(J, self._base.noise, both)[0])
            bend = abs(plus - 2 * J + minus) / step
            settled = bend <= allowed or (
                len(found) > 1 and abs(found[-1] - found[-2]) <= allowed + 2 * uncertainty
            )
            if settled or len(found) > LOOKS or not math.isfinite(bend):
                return found[-1], uncertainty
            step /= SHORTER


FEW = 32  # entries of a tensor that are all looked at by themselves
PROBES = 12  # entries drawn at random, to see whether the error is widespread
MEASURED = 4  # directions through half of a part; so many tell one column from another
EXAMPLES = 4  # entries that are looked at for an example of a mistake that is all over
MOST = 8  # wrong entries that are located in one tensor
MOST_SPLITS = 20  # of one tensor; each takes 8 evaluations, or more where corners are crossed
ENOUGH = 8  # directions through a tensor, where too few of them tell, before it is searched
ALIKE = 0.05  # of the residuals, that the column of a candidate may leave unexplained

NONE_FOUND = Diagnosis("unknown", "no known kind of mistake fits, and no single entry stands out")


@dataclass(frozen=True, eq=False, repr=False)
class Search:
    """What is known of one tensor, and the ways to learn more.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        part: its slice of the flat vector.
        grad: its gradient, (n,).
        directions: the random directions, of which `numbers` go through it.
        step: of these.
        numbers: of those whose residuals are known.
        residuals: v·grad − FD_v for each of them.
        uncertainties: how far rounding may have moved each.
        analytic: about the tensor, for the entries that are looked at.
        probe: to look at more of the cost.
        rng: for what is drawn.
    """

    name: str
    shape: tuple[int, ...]
    part: slice
    grad: FloatArray
    directions: Directions
    step: float
    numbers: list[int]
    residuals: FloatArray
    uncertainties: FloatArray
    analytic: AnalyticGradient
    probe: Probe
    rng: np.random.Generator


@dataclass(eq=False, repr=False)
class Located:
    """What was found in one tensor.

    Attributes:
        entries: those that were looked at, by their places in the tensor: analytic, numerical, and
            the uncertainty of that.
        wrong: of these, the ones that disagree.
        explored: the share of the tensor in which every wrong entry is known.
        drawn: of entries looked at because they were drawn: how many were, and how many are wrong.
    """

    entries: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    wrong: list[int] = field(default_factory=list)
    explored: float = 0.0
    drawn: tuple[int, int] | None = None

    def error(self, k: int) -> float:
        """Analytic less numerical, of an entry that was looked at."""
        analytic, numerical, _ = self.entries[k]
        return analytic - numerical

    def worst_first(self) -> list[int]:
        """The wrong entries, the largest error first."""
        return sorted(self.wrong, key=lambda k: abs(self.error(k)), reverse=True)


def look_at(search: Search, k: int) -> Located:
    """One entry by itself."""
    found = Located()
    _confirm(search, found, np.array([k]))
    return found


def example(search: Search) -> Located:
    """One wrong entry, of a tensor whose entries mostly are."""
    found = Located()
    sizes = np.abs(search.grad)
    if not sizes.any():  # an entry whose error is large goes along with the residuals
        for d, r in zip(search.numbers, search.residuals.tolist(), strict=True):
            sizes = sizes + r * search.directions.vector(d)
        sizes = np.abs(sizes)
    for k in np.argsort(sizes)[: -EXAMPLES - 1 : -1]:
        if _confirm(search, found, np.array([k])):
            break
    return found


def locate(search: Search) -> Located:
    """The wrong entries of a tensor, as far as the budget goes."""
    found = Located()
    n = search.grad.size
    if n <= FEW:
        _confirm(search, found, np.arange(n))
        found.explored = 1.0
        return found
    if len(search.numbers) < MEASURED:
        search = _measured(search)
    allowed = _allowed(search, search.grad, search.uncertainties)
    residuals = _explain(search, found, None, search.residuals, allowed, search.numbers)
    if (np.abs(residuals) <= allowed).all():
        found.explored = 1.0
        return found
    if len(found.wrong) < MOST:
        wrong = _confirm(search, found, search.rng.choice(n, PROBES, replace=False))
        if len(wrong) > 1:
            found.drawn = PROBES, len(wrong)
            return found
        for k in wrong:
            residuals = residuals - found.error(k) * _column(search, k, search.numbers)
        _split(search, found, residuals[:MEASURED], allowed[:MEASURED])
    return found


def _measured(search: Search) -> Search:
    """With residuals along enough directions to tell one entry from another."""
    known, seed = search.directions, int(search.rng.integers(2**31))
    drawn = Directions(known.theta, (search.part,), ENOUGH, seed, search.step, known.keep)
    residuals, uncertainties = _residuals(
        replace(search, directions=drawn), range(ENOUGH), slice(None)
    )
    return replace(
        search,
        directions=drawn,
        numbers=list(range(ENOUGH)),
        residuals=residuals,
        uncertainties=uncertainties,
    )


def _residuals(search: Search, numbers: Sequence[int], some: Any) -> tuple[FloatArray, FloatArray]:
    """v·grad − FD_v along directions through some entries of the tensor alone, and their doubts."""
    residuals, uncertainties = np.empty((2, len(numbers)))
    limit = search.analytic.tolerances[0] * float(np.linalg.norm(search.grad[some]))
    for i, d in enumerate(numbers):
        v = search.directions.vector(d)[some]
        along = np.zeros_like(search.directions.theta)
        along[search.part][some] = v
        slope, uncertainties[i] = search.probe.slope(along, search.step, limit)
        residuals[i] = v @ search.grad[some] - slope
    return residuals, uncertainties


def _split(search: Search, found: Located, residuals: FloatArray, allowed: FloatArray) -> None:
    """Halves, and halves of these, until each is clear or has one wrong entry."""
    n, numbers = search.grad.size, search.numbers[:MEASURED]
    order = search.rng.permutation(n)
    todo = [(0, n, residuals, allowed)]
    clear = splits = 0
    while todo and len(found.wrong) < MOST and splits < MOST_SPLITS:
        first, end, residuals, allowed = todo.pop()
        places = order[first:end]
        if first > 0 or end < n:  # the whole was tried with more directions
            residuals = _explain(search, found, places, residuals, allowed, numbers)
        if (np.abs(residuals) <= allowed).all():
            clear += end - first
            continue
        if end - first == 1:
            _confirm(search, found, places)
            clear += 1
            continue
        splits += 1
        middle = (first + end) // 2
        half = order[first:middle]
        left, uncertainties = _residuals(search, numbers, half)
        for k in np.intersect1d(found.wrong, half).tolist():
            left -= found.error(int(k)) * _column(search, int(k), numbers)
        least = _allowed(search, search.grad[half], uncertainties)
        todo.append((middle, end, residuals - left, allowed + least))
        todo.append((first, middle, left, least))
    found.explored = clear / n


def _explain(
    search: Search,
    found: Located,
    places: Entries | None,
    residuals: FloatArray,
    allowed: FloatArray,
    numbers: list[int],
) -> FloatArray:
    """What residuals remain once single entries of a part that explain them are taken out."""
    if len(numbers) < 2:
        return residuals
    while (np.abs(residuals) > allowed).any() and len(found.wrong) < MOST:
        k = _candidate(search, places, residuals, numbers)
        if k is None or k in found.entries or not _confirm(search, found, np.array([k])):
            break
        residuals = residuals - found.error(k) * _column(search, k, numbers)
    return residuals


def _candidate(
    search: Search, places: Entries | None, residuals: FloatArray, numbers: list[int]
) -> int | None:
    """The entry whose column is a multiple of the residuals; None where there is none."""
    if not np.isfinite(residuals).all():
        return None
    n = search.grad.size if places is None else places.size
    products, squares = np.zeros(n), np.zeros(n)
    for d, r in zip(numbers, residuals.tolist(), strict=True):
        v = search.directions.vector(d)
        v = v if places is None else v[places]
        products += r * v
        squares += v * v
    with np.errstate(divide="ignore", invalid="ignore"):
        best = int(np.nanargmax(products * products / squares))
    k = best if places is None else int(places[best])
    column = _column(search, k, numbers)
    left = residuals - (products[best] / squares[best]) * column
    return k if np.linalg.norm(left) <= ALIKE * np.linalg.norm(residuals) else None


def _column(search: Search, k: int, numbers: list[int]) -> FloatArray:
    return np.array([search.directions.vector(d)[k] for d in numbers])


def _allowed(search: Search, grad: FloatArray, uncertainties: FloatArray) -> FloatArray:
    """The largest residuals that right entries leave."""
    return 3 * float(search.analytic.tolerances[0]) * float(np.linalg.norm(grad)) + uncertainties


def _confirm(search: Search, found: Located, places: Entries) -> list[int]:
    """Looks at entries by themselves; those that are wrong."""
    places = np.array([k for k in places.tolist() if k not in found.entries], dtype=np.intp)
    if places.size == 0:
        return []
    layout = Layout(
        "sequence", (search.name,), (search.shape,), (0, places.size), list, places=(places,)
    )
    analytic = replace(search.analytic, grad=search.grad[places])
    looked = search.probe.entries(Subset(layout, search.part.start + places), analytic)
    for k, g, value, uncertainty in zip(
        places.tolist(), analytic.grad.tolist(), looked.gradapprox.tolist(),
        looked.uncertainty.tolist(), strict=True,
    ):  # fmt: skip
        found.entries[k] = (g, value, uncertainty)
    wrong: list[int] = places[looked.codes >= DISAGREE].tolist()
    found.wrong += wrong
    return wrong


def describe(found: Located, name_of: Callable[[int], str], shape: tuple[int, ...]) -> Diagnosis:
    """What was found, in words."""
    if not found.wrong:
        return NONE_FOUND
    n, worst = math.prod(shape), found.worst_first()[0]
    analytic, numerical, _ = found.entries[worst]
    what = f"{name_of(worst)} is {analytic:.6g}, numerically {numerical:.6g}"
    count = len(found.wrong)
    if found.drawn is not None:
        low, high = share_interval(*found.drawn)
        drawn, wrong = found.drawn
        return Diagnosis(
            "widespread",
            f"widespread: {wrong} of {drawn} entries drawn at random are wrong, so {low:.0%} to "
            f"{high:.0%} of the tensor, with 95 % confidence; the worst of them, {what}",
            wrong / drawn,
        )
    entries = "one entry" if count == 1 else f"{count} entries"
    what += _in_line(found.wrong, shape)
    if found.explored == 1:
        worst_of = what if count == 1 else f"the worst, {what}"
        rest = "the others agree" if n <= FEW else "that explains all that the directions show"
        return Diagnosis("entries", f"{entries} alone: {worst_of}; {rest}")
    if found.explored == 0:
        return Diagnosis("widespread", f"{entries} found at once, of many; the worst, {what}")
    about = float(f"{count / found.explored:.1g}")
    return Diagnosis(
        "widespread",
        f"{entries} found where {found.explored:.2g} of the tensor has been searched, so some "
        f"{about:,.0f} of its {n:,} are wrong; the worst of them, {what}",
        count / found.explored / n,
    )


def _in_line(wrong: list[int], shape: tuple[int, ...]) -> str:
    """What several entries have in common, if that is their row or their column."""
    if len(wrong) < 3 or len(shape) != 2:
        return ""
    indices = np.array([index_of(shape, k) for k in wrong])
    for axis, line in enumerate(("row", "column")):
        if shape[1 - axis] > 1 and (indices[:, axis] == indices[0, axis]).all():
            return f"; all of these lie in {line} {indices[0, axis]}"
    return ""
