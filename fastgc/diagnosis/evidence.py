"""What a diagnosis rests on: a tensor's gradient as given and as found, and what fits it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.layout import FloatArray, entry_name, index_of
from fastgc.verdict import root_mean_square

# A hypothesis has to leave at most this share of the error, and of what rounding may do. Errors
# close to either would otherwise be "reproduced" by whatever has a number to spare.
UNEXPLAINED, ROUNDING, MOST_ROUNDING = 0.1, 0.2, 0.3

PROBE = 32  # entries at fault, and as many that agree, on which a hypothesis has to fit first

#: The gradient under a hypothesis: flat indices, or slice(None) for all -> values.
Hypothesis: TypeAlias = Callable[[Any], FloatArray]


def exactly(values: FloatArray) -> Hypothesis:
    """The hypothesis that g is `values`."""
    return lambda at: values[at]


@dataclass(frozen=True)
class Diagnosis:
    """What a tensor's error looks like.

    Attributes:
        kind: one word, for programs; docs/report.md lists them.
        text: for people.
        value: the number in it, such as a factor or λ; None where there is none.

    >>> import fastgc, numpy as np
    >>> w = np.array([3.0, 4.0])
    >>> diagnosis = fastgc.check(lambda w: w @ w, w, 6 * w).tensors["parameters"].diagnosis
    >>> diagnosis.kind, round(diagnosis.value, 6), str(diagnosis)
    ('factor', 3.0, '3.000 × the numerical gradient')
    """

    kind: str
    text: str
    value: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """One tensor. Arrays are flat, (n,).

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        g: the gradient that was checked.
        found: gradapprox.
        slack: how far rounding may have moved either.
        wrong: the entries at fault.
        known: those that have one slope, and know it: neither at a kink nor unresolved.
        theta: the parameters.
        fixed: the part of `found` that weight decay adds.
        tolerance: relative.
        places: of a sample, the flat indices of its entries in the tensor; and the tensor's shape.
        output_axes: of a Jacobian, how many of its first axes are those of the output.
    """

    name: str
    shape: tuple[int, ...]
    g: FloatArray
    found: FloatArray
    slack: FloatArray
    wrong: NDArray[np.bool_]
    known: NDArray[np.bool_]
    theta: FloatArray
    fixed: FloatArray
    tolerance: float
    places: tuple[NDArray[np.intp], tuple[int, ...]] | None = None
    output_axes: int = 0

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
        large = np.abs(values) > np.maximum(1e-3 * root_mean_square(values), 10 * self.slack)
        return int(np.count_nonzero(large & self.known))

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
        g, h, slack, known = self.g[at], hypothesis(at), self.slack[at], self.known[at]
        errors = np.abs(g - h)
        scale = np.maximum(np.maximum(np.abs(g), np.abs(h)), self.size_of_g)
        if not (errors <= self.tolerance * scale + growth * slack)[known].all():
            return False
        rounding = min(ROUNDING * growth * _norm(slack[known]), MOST_ROUNDING * self.error)
        return not explain or _norm(errors[known]) <= UNEXPLAINED * self.error + rounding

    def moved(self) -> "Evidence":
        """For hypotheses that move entries about: the largest slack everywhere, none left out."""
        return replace(
            self,
            slack=np.full_like(self.slack, self.slack.max()),
            known=np.ones_like(self.known),
        )

    def part(self, at: NDArray[np.intp], shape: tuple[int, ...]) -> "Evidence":
        """The entries `at` alone, as a tensor of that shape."""
        return replace(
            self, shape=shape, g=self.g[at], found=self.found[at], slack=self.slack[at],
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
