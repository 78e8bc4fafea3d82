"""Tensors that a cost does not depend on, whose gradients are rounding errors of zero.

As the bias below a batch normalisation, or that of the keys of an attention: differences of such a
cost are rounding as well, and comparing the two can tell nothing.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.rng import generator
from fastgc.core.subset import Subset
from fastgc.core.tree import FloatArray
from fastgc.core.verdict import THRESHOLDS, root_mean_square
from fastgc.costs.base import Cost, Traits

#: Gradients that are this small beside others, in their dtype, may be rounding errors of zero.
VANISHING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2}

MOVES = (
    1e-2,
    0.3,
    1.0,
)  # of its own size, such a tensor leaves the cost as it is, to its last bits


def unused_parameters(
    cost: Cost, analytic: AnalyticGradient, subset: Subset, largest: float
) -> list[str]:
    """The tensors of a subset that the cost does not depend on, though a gradient is given.

    That is small beside the `largest` gradient of all tensors.
    """
    unused = []
    for t, (name, part) in enumerate(subset.layout.tensors()):
        size = float(np.abs(analytic.grad[part]).max())
        limit = VANISHING.get(analytic.dtypes[t], 0.0) * max(largest, size)
        if 0 < size <= limit and _stays(cost, name):
            unused.append(name)
    return unused


def _stays(cost: Cost, name: str) -> bool:
    """Whether the cost is the same wherever a tensor is moved."""
    part = dict(cost.layout.tensors())[name]
    J, size = cost.value(cost.theta), root_mean_square(cost.theta[part]) or 1.0
    rng = generator(7)
    draws = [rng.standard_normal(part.stop - part.start) for _ in MOVES]
    away = [cost.near(part, move * size * draw) for move, draw in zip(MOVES, draws, strict=True)]
    return all(abs(other - J) <= THRESHOLDS.last_bits * abs(J) for other in away)


class _Fixed(Cost):
    """A cost some of whose parameters stay where they are, whatever they are said to be."""

    def __init__(self, cost: Cost, parts: list[slice]) -> None:
        self._cost, self._parts = cost, parts
        self.layout, self.theta, self.batch = cost.layout, cost.theta, cost.batch
        self.row_bytes, self.affordable = cost.row_bytes, cost.affordable

    def __reduce__(self) -> tuple[Any, ...]:
        return _Fixed, (self._cost, self._parts)

    @property
    def traits(self) -> Traits:
        """Those of the cost."""
        return self._cost.traits

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,)."""
        return self._cost.value(vector if vector is self.theta else self._back(vector))

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P)."""
        return self._cost.values(self._back(rows))

    def rest(self, failed: bool) -> int:
        """As the cost does."""
        return self._cost.rest(failed)

    def _back(self, vectors: FloatArray) -> FloatArray:
        vectors = vectors.copy()
        for part in self._parts:
            vectors[..., part] = self.theta[part]
        return vectors


def fixed(cost: Cost, names: Collection[str]) -> Cost:
    """The cost with the tensors of these names kept where they are."""
    return _Fixed(cost, [part for name, part in cost.layout.tensors() if name in names])
