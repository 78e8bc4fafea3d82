"""A Network as a cost: seen into, exact, and looked at sample by sample where it has kinks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastgc.core.tree import Entries, FloatArray, Layout
from fastgc.costs.base import Asked, Base, Batch, Cost, Interval, Traits, register
from fastgc.costs.noise import uncertainty_of_differences
from fastgc.network.flops import forward_flops
from fastgc.network.network import Network
from fastgc.network.state import ForwardState, rounding_of_gradients

MOST_ROWS = 64  # perturbed parameters held at once, and
MOST_NUMBERS = 2**22  # numbers in them


class NetworkCost(Cost):
    """The cost of a Network at its parameters.

    Attributes:
        state: its forward pass at θ.
    """

    batch = Batch(gains=False)  # the rows of a call share nothing but X

    def __init__(self, net: Network, layout: Layout, theta: FloatArray) -> None:
        layers, self.layout = net.layers(layout)
        self.theta, self.state = theta, ForwardState(net, layers, theta)
        self.flops = forward_flops(self.state.widths, net.m)
        self.samples = NetworkSamples(self.state)
        # Z, A and the temporaries of silu, the widest layer's
        self.row_bytes = 7 * 8 * max(layer.n for layer in layers) * net.m

    def __reduce__(self) -> tuple[Any, ...]:
        return NetworkCost, (self.state.net, self.layout, self.theta)

    @property
    def traits(self) -> Traits:
        """All that may be relied on."""
        return Traits(deterministic=True, thread_safe=True, blas_threads=self.state.uses_threads)

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,)."""
        return float(self.state.net.forward(self.state.layers, vector))

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P), to the bit as each alone."""
        return self.state.net.forward(self.state.layers, rows)

    def start(self) -> float:
        """J(θ), from the forward pass that is kept."""
        return self.state.cost

    def rounding(self) -> FloatArray:
        """How far rounding may move each entry of a right gradient, (P,)."""
        return rounding_of_gradients(self.state)

    def identity(self) -> Mapping[str, tuple[object, ...]]:
        """Its data and what it is made of."""
        net = self.state.net
        made = (repr(net.activation), net.loss, net.weight_decay, net.divisor)
        return {"the Network": (net.X, net.labels, *made)}


@register
def _network(asked: Asked) -> Cost | None:
    """Of a Network, unless a subclass computes another cost, which nobody can see into."""
    net = asked.cost
    if not isinstance(net, Network) or net.is_overridden():
        return None
    return NetworkCost(net, asked.layout, asked.theta)


def state_of(cost: Cost) -> ForwardState | None:
    """The forward pass of a Network's cost at θ; None of any other cost."""
    return cost.state if isinstance(cost, NetworkCost) else None


class _Pairs(NamedTuple):
    """Rows θ + d, θ − d, …, (2n, P), and how long each d is, upwards and downwards, (n,) each."""

    rows: FloatArray
    up: FloatArray
    down: FloatArray


class NetworkSamples:
    """The samples of a Network, each of which may take its own slope at a kink."""

    def __init__(self, state: ForwardState) -> None:
        self.state = state

    def near_kink(self) -> bool:
        """Whether a hidden unit lies close to its kink."""
        return self.state.near_kink()

    def slopes(self, entries: Entries, steps: FloatArray, base: Base, shorter: float) -> Interval:
        """The slopes of J by each entry, kinks taken sample by sample.

        A sample adds the interval between its one-sided slopes, where these stay apart when the
        step is `shorter` times as long, and between those that it has with all the units at their
        kinks inactive, all active, and half-way, which are what a backward pass may take. Any other
        adds its central difference.
        """
        theta = self.state.theta
        low, high, uncertainty = np.empty((3, entries.size))
        each = max(1, min(MOST_ROWS, MOST_NUMBERS // theta.size) // 2)
        for start in range(0, entries.size, each):
            chunk = slice(start, start + each)
            k, step = entries[chunk], steps[chunk]

            def moved(share: float, k: Entries = k, step: FloatArray = step) -> _Pairs:
                h, at = share * step, np.arange(k.size) * 2
                rows = np.repeat(theta[np.newaxis], 2 * k.size, axis=0)
                rows[at, k] += h
                rows[at + 1, k] -= h
                return _Pairs(rows, (theta[k] + h) - theta[k], theta[k] - (theta[k] - h))

            low[chunk], high[chunk], uncertainty[chunk] = self._slopes(base, moved, shorter)
        spent = (4 + 2 * len(self.state.forced())) * entries.size + 1
        return Interval(low, high, uncertainty, spent)

    def slopes_along(
        self, entries: Entries, by: FloatArray, base: Base, shorter: float
    ) -> Interval:
        """`slopes` of one move of many entries at once, whose slope is the change it makes."""

        def moved(share: float) -> _Pairs:
            rows = np.repeat(self.state.theta[np.newaxis], 2, axis=0)
            rows[0, entries] += share * by
            rows[1, entries] -= share * by
            return _Pairs(rows, np.array([share]), np.array([share]))

        spent = 5 + 2 * len(self.state.forced())
        return Interval(*self._slopes(base, moved, shorter), spent)

    def _slopes(
        self, base: Base, moved: Callable[[float], _Pairs], shorter: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The least and the greatest slopes, and their uncertainty, (n,) each."""
        state = self.state
        m, divisor, forced = state.net.m, state.net.divisor, state.forced()
        at_kink = np.zeros(m + 1, dtype=np.bool_)  # the last is weight decay
        for kinks in state.kinks:
            at_kink[:m] |= kinks.any(axis=1)
        middle = state.sample_losses(state.theta[np.newaxis])[0] / divisor
        gaps = []
        for share in (1.0, 1.0 / shorter):
            rows, up, down = moved(share)
            losses = state.sample_losses(rows) / divisor
            above = (losses[0::2] - middle) / up[:, np.newaxis]
            below = (middle - losses[1::2]) / down[:, np.newaxis]
            gaps.append(np.abs(above - below))
        uncertainty = uncertainty_of_differences(base.cost, base.noise, up + down)
        kink = (gaps[1] > gaps[0] / 4) & (gaps[1] > uncertainty[:, np.newaxis])
        central = 0.5 * (above + below)
        least = np.where(kink | at_kink, np.minimum(below, above), central)
        greatest = np.where(kink | at_kink, np.maximum(below, above), central)
        for side in forced:
            losses = state.sample_losses(rows, side) / divisor
            slope = (losses[0::2] - losses[1::2]) / (up + down)[:, np.newaxis]
            least = np.where(at_kink, np.minimum(least, slope), least)
            greatest = np.where(at_kink, np.maximum(greatest, slope), greatest)
        return least.sum(axis=1), greatest.sum(axis=1), uncertainty
