"""The gradients that are claimed, and how closely they can be held to account."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.gradients import flatten_gradients
from fastgc.layout import FloatArray, Layout
from fastgc.parts import Part
from fastgc.verdict import FLOOR


class Precision(NamedTuple):
    """What a format of floats leaves of a gradient.

    Attributes:
        tolerance: the relative error that a right backward pass in it may have.
        unit: its rounding unit over that of float64.
        least: its smallest number above 0, beside which gradients vanish.
    """

    tolerance: float
    unit: float
    least: float


# A backward pass of a few layers in float32 is off by 1e-7 to 1e-5 of its tensor's size.
NARROW = {
    "float32": Precision(1e-4, 2.0**29, 2.0**-149),
    "float16": Precision(5e-2, 2.0**42, 2.0**-24),
    "bfloat16": Precision(2e-1, 2.0**45, 2.0**-133),
}


@dataclass(frozen=True, eq=False, repr=False)
class Claim:
    """Gradients to be checked.

    Attributes:
        grad: (P,).
        tolerances: relative, for each tensor, (T,): as asked for, or what its dtype allows.
        units: the rounding unit of each tensor's dtype over that of float64, (T,).
        least: the smallest number above 0 of each tensor's dtype, 0 for a wide one, (T,).
        dtypes: the name of each tensor's dtype, (T,).
        in_double: whether no dtype matters.
        pooled: whether an error is relative to the tensor's size, for each entry; so it is along
            directions, and for gradients of a narrow dtype.
    """

    grad: FloatArray
    tolerances: FloatArray
    units: FloatArray
    least: FloatArray
    dtypes: tuple[str, ...]
    in_double: bool
    pooled: bool = False

    @cached_property
    def floors(self) -> FloatArray:
        """The share of the size of a tensor's gradients that each of its entries may be off, (T,).

        A backward pass in narrow floats loses as much of a small entry as of a large one.
        """
        return np.where(self.pooled | (self.units > 1.0), self.tolerances, FLOOR)

    def about(self, t: int) -> "Claim":
        """What is claimed of tensor t alone, without its gradient."""
        one = slice(t, t + 1)
        return Claim(
            self.grad[:0], self.tolerances[one], self.units[one], self.least[one],
            self.dtypes[one], in_double=self.in_double or self.dtypes[t] not in NARROW,
            pooled=self.pooled,
        )  # fmt: skip

    def doubt(
        self, uncertainty: FloatArray, tensors: NDArray[np.intp], *, exact: bool
    ) -> FloatArray:
        """The uncertainty of a method, as one of entries of these tensors.

        That of an `exact` method is what a right backward pass may lose, and grows with its unit.
        """
        if self.in_double:
            return uncertainty
        return uncertainty * (self.units[tensors] if exact else 1.0) + self.least[tensors]

    def tolerance(self, layout: Layout, tensors: slice, lengths: NDArray[np.intp]) -> Any:
        """The tolerance of each entry of a piece of the flat vector, or of them all."""
        if self.in_double:
            return self.tolerances[0]
        return layout.per_entry(self.tolerances, tensors, lengths)

    def floor(self, layout: Layout, tensors: slice, lengths: NDArray[np.intp]) -> Any:
        """The share of its tensor's size for each entry of a piece, or of them all."""
        if self.in_double:
            return self.floors[0]
        return layout.per_entry(self.floors, tensors, lengths)


def claim_of(
    layout: Layout, gradients: object, tolerance: float, part: Part | None = None
) -> Claim:
    """`gradients` as a claim; what `flatten_gradients` refuses is refused.

    Args:
        layout: of all parameters.
        gradients: as the caller passed them.
        tolerance: relative, as asked for.
        part: the entries that it is to be about; None for all.
    """
    grad, dtypes = flatten_gradients(layout, gradients, None if part is None else part.tensors)
    if part is not None and part.layout.places is not None:
        starts = np.cumsum([0, *(math.prod(shape) for shape in part.layout.shapes)])
        places = zip(starts, part.layout.places, strict=False)
        grad = grad[np.concatenate([start + where for start, where in places])]
    tolerances = np.full(len(dtypes), tolerance)
    units, least = np.ones(len(dtypes)), np.zeros(len(dtypes))
    for t, dtype in enumerate(dtypes):
        if dtype in NARROW:
            tolerances[t] = max(tolerance, NARROW[dtype].tolerance)
            units[t], least[t] = NARROW[dtype].unit, NARROW[dtype].least
    in_double = not NARROW.keys() & set(dtypes)
    return Claim(grad, tolerances, units, least, tuple(dtypes), in_double=in_double)
