"""`random`: whole random directions, each a central difference of the cost along it.

The check along directions is a check of another problem, whose parameters are how far to go along
each: t -> J(θ + Σ t_d v_d), at t = 0. The other methods, the verdicts and the search for corners
then serve it as they are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import Entries, FloatArray, Layout, Step
from fastgc.core.verdict import root_mean_square
from fastgc.costs.base import Cost, Traits

# v is rounded so that θ ± εv is exact, for steps down to ε/8⁴ where θ leaves room for it; else the
# rounding of θ ± εv moves a difference by u·|θ|/ε, a tenth of the tolerance at θ = 100.
ROOM = 8.0**4


@dataclass(frozen=True, eq=False, repr=False)
class Directions:
    """Random directions, some for each tensor, from a generator of their own.

    Attributes:
        theta: the parameters (P,).
        tensors: the parts of θ that directions move: a slice for each tensor, or one array of
            indices for several together.
        count: directions for each tensor.
        seed: of the generator.
        epsilon: the step, one for all directions or one for each; None before it is known.
        keep: bytes of directions that may be held; others are drawn anew.
    """

    theta: FloatArray
    tensors: tuple[slice | Entries, ...]
    count: int
    seed: int
    epsilon: Step | None
    keep: int
    _held: dict[int, FloatArray] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the vectors that it holds, which a worker draws itself."""
        parts = self.theta, self.tensors, self.count, self.seed, self.epsilon, self.keep
        return Directions, parts

    @property
    def size(self) -> int:
        """How many there are in all."""
        return self.count * len(self.tensors)

    def part(self, d: int) -> slice | Entries:
        """The part of θ that direction d moves."""
        return self.tensors[d // self.count]

    def step(self, d: int) -> float:
        """ε of direction d."""
        assert self.epsilon is not None
        return float(np.broadcast_to(self.epsilon, self.size)[d])

    def vector(self, d: int) -> FloatArray:
        """Direction d, v ~ N(0, I), of the length of its part of θ."""
        held = self._held.get(d)
        if held is not None:
            return held
        part = self.part(d)
        theta = self.theta[part]
        v = generator(7, self.seed, d).standard_normal(theta.size)
        if self.epsilon is not None:
            step = self.step(d)
            room = self._room(part, step)
            v *= step / room
            v += theta
            v -= theta
            v *= room / step
        if 8 * v.size * (len(self._held) + 1) > self.keep:
            self._held.clear()  # θ + εv and θ − εv are asked for one after the other
        self._held[d] = v
        return v

    def _room(self, part: slice | Entries, step: float) -> float:
        """A power of two: v is a multiple of so many rounding units of θ, over ε."""
        spacing = float(np.spacing(np.abs(self.theta[part]).max()))
        return 2.0 ** math.floor(math.log2(min(max(step / (8 * spacing), 1.0), ROOM)))

    def lost(self, d: int) -> bool:
        """Whether the step of direction d is lost to the rounding of θ, in some entry."""
        return self.step(d) < 2 * float(np.spacing(np.abs(self.theta[self.part(d)]).max()))

    def numbers(self, t: int) -> slice:
        """Those of the directions through tensor t."""
        return slice(t * self.count, (t + 1) * self.count)

    def along(self, gradient: FloatArray) -> FloatArray:
        """v·gradient for each direction, of a gradient (P,)."""
        return np.array([gradient[self.part(d)] @ self.vector(d) for d in range(self.size)])

    def point(self, steps: FloatArray) -> FloatArray:
        """θ + Σ t_d v_d, (P,)."""
        moved = self.theta.copy()
        for d in np.flatnonzero(steps).tolist():
            moved[self.part(d)] += steps[d] * self.vector(d)
        return moved

    def layout(self, names: Iterator[str]) -> Layout:
        """Of the steps along them: a tensor (count,) for each tensor."""
        offsets = range(0, self.size + 1, self.count)
        shapes = ((self.count,),) * len(self.tensors)
        return Layout("sequence", tuple(names), shapes, tuple(offsets), list)


class DirectionsCost(Cost):
    """The cost of the steps along directions through the parameters of another, at 0.

    Args:
        cost: the other.
        directions: some for each of its tensors, or for all.
        names: of these tensors.
    """

    def __init__(self, cost: Cost, directions: Directions, names: tuple[str, ...]) -> None:
        self._cost, self.directions, self._names = cost, directions, names
        self.layout, self.theta = directions.layout(iter(names)), np.zeros(directions.size)
        self.batch = cost.batch if cost.batch is not None and cost.batch.gains else None
        self.row_bytes = cost.row_bytes + 2 * 8 * directions.theta.size
        self.scale = np.repeat(
            [root_mean_square(directions.theta[part]) or 1.0 for part in directions.tensors],
            directions.count,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return DirectionsCost, (self._cost, self.directions, self._names)

    @property
    def traits(self) -> Traits:
        """Those of the other; that two calls agree is known of it already."""
        return self._cost.traits._replace(deterministic=False)

    def value(self, vector: FloatArray) -> float:
        """The other's cost at θ + Σ t_d v_d, of steps t (D,)."""
        return self._cost.value(self.directions.point(vector))

    def values(self, rows: FloatArray) -> FloatArray:
        """Likewise of many rows of steps, (K, D)."""
        return self._cost.values(np.stack([self.directions.point(row) for row in rows]))
