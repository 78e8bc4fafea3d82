"""Whether a Network computes the same cost as a function of the caller's own."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import FloatArray, Layout
from fastgc.costs.base import Cost, base_cost
from fastgc.costs.noise import noise_of_cost
from fastgc.network.cost import state_of
from fastgc.network.state import ForwardState

# How far from θ they are compared, in the parameters' size: far enough to wake silent units.
AWAY = (0.0, 0.03, 0.1, 0.3, 1.0, 1.0)
RETREATS = 3  # to a tenth of that, where a cost is not finite

# Costs may differ by so much, at θ and away from it: their formulas round differently, as
# log(1 − a) does where a is nearly 1, or guard a logarithm with 1e-8.
TOLERANCE, TOLERANCE_AWAY = 2e-7, 1e-5


class Apart(NamedTuple):
    """Two costs that differ: at which point, numbered, and both values there."""

    place: int
    mine: float
    theirs: float


class _Own:
    """The caller's cost, asked once at each point.

    Attributes:
        evaluations: spent so far, of it and of its noise.
    """

    def __init__(self, own: Cost, memory: int) -> None:
        self.cost, self.memory = own, memory
        J, self.evaluations = base_cost(own)
        self._known = {own.theta.tobytes(): J}
        self._sigma: dict[bytes, float] = {}

    def value(self, point: FloatArray) -> float:
        """At a point; NaN where it cannot be had."""
        key = point.tobytes()
        if key not in self._known:
            self._known[key] = self.cost.value_or_nan(point)
            self.evaluations += 1
        return self._known[key]

    def noise(self, point: FloatArray) -> float:
        """σ at a point."""
        key = point.tobytes()
        if key not in self._sigma:
            at = self.cost.at(point)
            found, evaluations = noise_of_cost(at, self.value(point), self.memory)
            self.evaluations += evaluations
            self._sigma[key] = found.noise
        return self._sigma[key]


def comparable(cost: Cost, against: object) -> Callable[..., Any]:
    """The caller's ``against=``, to be compared with a Network.

    Raises:
        TypeError, ValueError: for what is no function, and for a cost that is no Network's.
    """
    if state_of(cost) is None:
        raise ValueError(
            "against= compares a fastgc.Network with a cost of your own, and the cost to be "
            "checked is a function already. Leave it out"
        )
    if not callable(against):
        raise TypeError(
            f"against is a {type(against).__name__}; wanted a function of the parameters"
        )
    return against


def require_same_cost(cost: Cost, own: Cost, memory: int) -> tuple[float, int]:
    """How far the two costs lie apart at most, relative, and the evaluations of the caller's.

    They are compared at θ and at random points around it, up to the parameters' own size away, so
    that another activation, loss or decay shows.

    Args:
        cost: of the Network.
        own: of the caller's cost, at the same parameters.
        memory: bytes that may be allocated at once.

    Raises:
        ValueError: where they differ by more than 2e-7 at θ, 1e-5 away from it, and what rounding
            explains. It says with which activation they would agree, if with any.
    """
    try:
        apart, spent = _require_same_cost(cost, own, memory)
    except BaseException:
        own.rest(True)  # the caller's cost sees θ last
        raise
    return apart, spent + own.rest(False)


def _require_same_cost(cost: Cost, own: Cost, memory: int) -> tuple[float, int]:
    state = state_of(cost)
    assert state is not None
    theirs = _Own(own, memory)
    found = _compare(state, cost.layout, theirs)
    if isinstance(found, Apart):
        fitting = [
            name
            for name, other in state.others()
            if not isinstance(_compare(other, cost.layout, theirs), Apart)
        ]
        raise ValueError(_difference(found, state.net.m, fitting))
    return found, theirs.evaluations


def _compare(state: ForwardState, layout: Layout, own: _Own) -> float | Apart:
    """How far a network and the caller's cost lie apart at most, relative, or where too far."""
    theta, rng = state.theta, generator(4)
    size = np.empty(theta.size)
    for _, part in layout.tensors():
        size[part] = math.sqrt(float(np.mean(np.square(theta[part])))) or 1.0
    largest = 0.0
    for i, away in enumerate(AWAY):
        direction = rng.standard_normal(theta.size) * size
        for _ in range(RETREATS):
            point = theta + away * direction
            mine, theirs = float(state.net.forward(state.layers, point)), own.value(point)
            if math.isfinite(mine) and math.isfinite(theirs):
                break
            away /= 10
        else:
            continue
        scale = max(abs(mine), abs(theirs))
        apart, tolerance = abs(mine - theirs), TOLERANCE_AWAY if i else TOLERANCE
        if apart > tolerance * scale and apart > tolerance * scale + 100 * own.noise(point):
            return Apart(i, mine, theirs)
        largest = max(largest, apart / scale if scale else 0.0)
    return largest


def _difference(found: Apart, m: int, fitting: Sequence[str]) -> str:
    place, mine, theirs = found
    at_theta = place == 0
    where = "at the parameters given" if at_theta else "near the parameters given, not at them"
    ratio = theirs / mine if mine else math.nan
    if math.isclose(ratio, m, rel_tol=1e-6) and m > 1:
        advice = f"It is {m} times the Network's: a sum over the samples where that takes the mean?"
    elif fitting:
        named = " or ".join(f'activation="{name}"' for name in fitting)
        advice = f"With {named} the two agree."
    elif at_theta:
        advice = "Has it another loss, label, factor or weight decay?"
    else:
        advice = "Has it another activation, loss or weight decay, or a guard in a logarithm?"
    return (
        f"the Network does not compute the cost passed as against=: {where} it is {mine!r} and "
        f"that cost {theirs!r}; they differ by {abs(mine - theirs):.3g}. {advice} "
        "Mend the Network, or check the cost itself"
    )
