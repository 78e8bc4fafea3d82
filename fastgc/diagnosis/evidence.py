"""What a diagnosis rests on: a tensor's gradient as given and as found, and what fits it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray, entry_name, index_of
from fastgc.core.verdict import root_mean_square
from fastgc.report.data import Diagnosis

# A hypothesis has to leave at most this share of the error, and of what rounding may do. Errors
# close to either would otherwise be "reproduced" by whatever has a number to spare.
UNEXPLAINED, ROUNDING, MOST_ROUNDING = 0.1, 0.2, 0.3

SMALL = 1e-3  # of the tensor's root mean square: smaller entries tell nothing
CLEAR = 10.0  # times the rounding: smaller entries tell nothing

PROBE = 32  # entries at fault, and as many that agree, on which a hypothesis has to fit first

#: The gradient under a hypothesis: flat indices, or slice(None) for all -> values.
Hypothesis: TypeAlias = Callable[[Any], FloatArray]


def exactly(values: FloatArray) -> Hypothesis:
    """The hypothesis that g is `values`."""
    return lambda at: values[at]


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """One tensor. Arrays are flat, (n,).

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        g: the gradient that was checked.
        found: gradapprox.
        uncertainty: how far rounding may have moved either.
        wrong: the entries at fault.
        known: those that have one slope, and know it: neither at a kink nor unresolved.
        theta: the parameters.
        fixed: the part of `found` that weight decay adds.
        tolerance: relative.
        places: of a sample, the flat indices of its entries in the tensor; and the tensor's shape.
        output_axes: of a Jacobian, how many of its first axes are those of the output.
        along: whether its entries are slopes along random directions.
    """

    name: str
    shape: tuple[int, ...]
    g: FloatArray
    found: FloatArray
    uncertainty: FloatArray
    wrong: NDArray[np.bool_]
    known: NDArray[np.bool_]
    theta: FloatArray
    fixed: FloatArray
    tolerance: float
    places: tuple[NDArray[np.intp], tuple[int, ...]] | None = None
    output_axes: int = 0
    along: bool = False

    def address(self, k: int) -> str:
        """Of entry number k, as ``W2[3, 7]``."""
        if self.places is None:
            return entry_name(self.name, index_of(self.shape, k), self.output_axes)
        places, shape = self.places
        return entry_name(self.name, index_of(shape, int(places[k])))

    @cached_property
    def at_fault(self) -> bool:
        """Whether any entry is."""
        return bool(self.wrong.any())

    @cached_property
    def size_of_g(self) -> float:
        """Root mean square."""
        return root_mean_square(self.g)

    @cached_property
    def error(self) -> float:
        """‖g − found‖ over the known entries."""
        with np.errstate(all="ignore"):
            return _norm((self.g - self.found)[self.known])

    @cached_property
    def probe(self) -> NDArray[np.intp]:
        """Flat indices of the entries that tell most: large errors, and large values that agree."""
        wrong = _largest(np.where(self.wrong, np.abs(self.g - self.found), -1.0))
        right = _largest(np.where(self.known & ~self.wrong, np.abs(self.found), -1.0))
        return np.concatenate((wrong, right))

    @property
    def clear(self) -> bool:
        """Whether more is known of it than not."""
        return 2 * int(np.count_nonzero(self.known)) > self.known.size

    def telling(self, values: FloatArray) -> int:
        """How many of `values`, found or parameters, are large enough to tell a factor."""
        return int(np.count_nonzero(self._large(values) & self.known))

    @cached_property
    def proven(self) -> NDArray[np.bool_]:
        """The entries that are right and prove it: they agree with what is not zero."""
        return self._large(self.found) & self.known & ~self.wrong

    def _large(self, values: FloatArray) -> NDArray[np.bool_]:
        least = np.maximum(SMALL * root_mean_square(values), CLEAR * self.uncertainty)
        return np.asarray(np.abs(values) > least)

    def explained(self, values: FloatArray) -> NDArray[np.bool_]:
        """The known entries in which g may be `values` and cannot be `found`, (n,)."""
        scale = np.maximum(np.maximum(np.abs(values), np.abs(self.found)), self.size_of_g)
        apart = np.abs(values - self.found) > 3 * (self.tolerance * scale + self.uncertainty)
        return np.asarray(apart & self.known)

    def shows(self, values: FloatArray, numbers: int = 1) -> bool:
        """Whether g is `values`, in more entries than a kind has free `numbers`."""
        with np.errstate(all="ignore"):
            if not self.fits(exactly(values)):
                return False
            return int(np.count_nonzero(self.explained(values))) > numbers

    def fits(self, hypothesis: Hypothesis, growth: float = 1.0) -> bool:
        """Whether it reproduces g to within tolerance and rounding, in every known entry.

        Where the tensor is at fault it also has to explain nearly all of the error.

        Args:
            hypothesis: what it says g is.
            growth: how many times larger than that of `found` its rounding may be.
        """
        with np.errstate(all="ignore"):
            if self.probe.size < self.g.size and not self._within(hypothesis, self.probe, growth):
                return False
            return self._within(hypothesis, slice(None), growth, explain=self.at_fault)

    def _within(
        self, hypothesis: Hypothesis, at: Any, growth: float, *, explain: bool = False
    ) -> bool:
        g, h, uncertainty, known = self.g[at], hypothesis(at), self.uncertainty[at], self.known[at]
        errors = np.abs(g - h)
        scale = np.maximum(np.maximum(np.abs(g), np.abs(h)), self.size_of_g)
        if not (errors <= self.tolerance * scale + growth * uncertainty)[known].all():
            return False
        rounding = min(ROUNDING * growth * _norm(uncertainty[known]), MOST_ROUNDING * self.error)
        return not explain or _norm(errors[known]) <= UNEXPLAINED * self.error + rounding

    def scaled(self, growth: FloatArray | float) -> "Evidence":
        """For hypotheses that multiply `found`: the uncertainty grows as much, or stays."""
        return replace(self, uncertainty=self.uncertainty * np.maximum(1.0, np.abs(growth)))

    def moved(self) -> "Evidence":
        """For hypotheses that move entries: the largest uncertainty everywhere, none left out."""
        return replace(
            self,
            uncertainty=np.full_like(
                self.uncertainty, self.uncertainty[self.known].max(initial=0.0)
            ),
            known=np.ones_like(self.known),
        )

    def part(self, at: NDArray[np.intp], shape: tuple[int, ...]) -> "Evidence":
        """The entries `at` alone, as a tensor of that shape."""
        return replace(
            self, shape=shape, g=self.g[at], found=self.found[at], uncertainty=self.uncertainty[at],
            wrong=self.wrong[at], known=self.known[at], theta=self.theta[at], fixed=self.fixed[at],
        )  # fmt: skip


def _largest(values: FloatArray) -> NDArray[np.intp]:
    count = min(PROBE, int(np.count_nonzero(values >= 0)))
    return (
        np.argpartition(values, values.size - count)[values.size - count :]
        if count
        else (np.empty(0, np.intp))
    )


def _norm(values: FloatArray) -> float:
    return float(np.sqrt(values @ values))


@dataclass(frozen=True, eq=False, repr=False)
class Surroundings:
    """What else is known.

    Attributes:
        m: the number of samples; None where fastgc cannot see into the cost.
        divisor: of the sum of their losses; None likewise.
        weight_decay: λ of the cost.
        tensors: all of them, by name.
    """

    m: int | None
    divisor: float | None
    weight_decay: float
    tensors: Mapping[str, Evidence]


Kind: TypeAlias = Callable[[Evidence, Surroundings], Diagnosis | None]

UNKNOWN = Diagnosis("unknown", "no known kind of mistake fits")


def first(kinds: Iterable[Kind], evidence: Evidence, around: Surroundings) -> Diagnosis | None:
    """What the first of the `kinds` that recognises anything says."""
    with np.errstate(all="ignore"):
        return next((found for kind in kinds if (found := kind(evidence, around))), None)


def join(names: list[str]) -> str:
    """``W1, b1 and W2``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def listed(what: str, lines: NDArray[np.intp]) -> str:
    """``rows 0, 3 and 4``."""
    numbers = [str(i) for i in lines[:5]]
    if lines.size > 5:
        numbers.append(f"{lines.size - 5} more")
    return f"{what}{'s' if lines.size > 1 else ''} {join(numbers)}"


def ratio(g: float, found: float) -> str:
    """``2.000 × its numerical value``."""
    if g == 0 or found == 0:
        return f"{abs(g) if g == 0 else g:.4g} instead of {found:.4g}"
    return f"{number(g / found)} × its numerical value"


def number(c: float) -> str:
    """2.000, −0.0313, 1.00003: enough digits to tell it from 1."""
    away = abs(abs(c) - 1)
    if 1e-14 < away < 1e-3:
        return f"{c:.{min(15, 1 - math.floor(math.log10(away)))}f}".replace("-", "−")
    shown = f"{c:.3f}" if 0.1 <= abs(c) < 1e4 else f"{c:.4g}"
    return shown.replace("-", "−") if "e" not in shown else shown


def signed(c: float) -> str:
    """``+ 0.1``, ``− 0.1``."""
    return f"{'+' if c > 0 else '−'} {abs(c):.4g}"


def counted(count: int) -> str:
    """``1 entry``, ``3 entries``."""
    return "1 entry" if count == 1 else f"{count} entries"


def verb(count: int) -> str:
    """``is`` or ``are``."""
    return "is" if count == 1 else "are"
