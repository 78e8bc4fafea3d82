"""Mistakes in a backward pass, planted by making the pass with them: for tests and for the study.

Derivatives appear here and in cases.py, and nowhere in fastgc.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import fastgc
from fastgc.network.layers import ACTIVATIONS
from tests.cases import _SLOPES, _VALUES, Array, Tensors, _output_slope, _sigmoid

Rng = np.random.Generator


class Pass:
    """A right backward pass with all its steps, and ways to make it wrongly."""

    def __init__(self, net: fastgc.Network, parameters: Tensors) -> None:
        self.net, self.parameters = net, parameters
        self.depth = len(parameters) // 2
        names = net.activation
        self.hidden = (names,) * (self.depth - 1) if isinstance(names, str) else names
        self.A, self.Z = [net.X], [net.X]  # A[l] and Z[l] are those of layer l
        for l in range(1, self.depth + 1):
            Z = parameters[f"W{l}"] @ self.A[-1] + parameters[f"b{l}"]
            self.Z.append(Z)
            self.A.append(_VALUES[self.hidden[l - 1]](Z) if l < self.depth else Z)
        self.slopes = [
            net.X,
            *(_SLOPES[f](Z) for f, Z in zip(self.hidden, self.Z[1:], strict=False)),
        ]

    @cached_property
    def dZ(self) -> list[Array]:
        """dZ[l], l = 1 … L, of the loss of each sample; dZ[0] is unused."""
        found = [_output_slope(self.net, self.Z[-1])]
        for l in range(self.depth - 1, 0, -1):
            found.append((self.parameters[f"W{l + 1}"].T @ found[-1]) * self.slopes[l])
        return [self.net.X, *found[::-1]]

    def dA(self, l: int) -> Array:
        return np.asarray(self.parameters[f"W{l + 1}"].T @ self.dZ[l + 1])

    def gradients(self, l: int = 0, dZ: Array | None = None) -> Tensors:
        """The gradients; with dZ_l replaced, and all that follows from it."""
        m, below = self.net.m, {}
        if dZ is not None:
            below[l] = dZ
            for k in range(l - 1, 0, -1):
                below[k] = (self.parameters[f"W{k + 1}"].T @ below[k + 1]) * self.slopes[k]
        found = {}
        for k in range(1, self.depth + 1):
            d = below.get(k, self.dZ[k])
            found[f"W{k}"] = d @ self.A[k - 1].T / m + self.decay(k)
            found[f"b{k}"] = d.sum(axis=1, keepdims=True) / m
        return found

    def decay(self, l: int) -> Array:
        return np.asarray(self.net.weight_decay / self.net.m * self.parameters[f"W{l}"])


#: Makes wrong gradients, and says in which tensors the mistake was made; None where it cannot be.
Plant = Callable[[Pass, Rng], tuple[Tensors, list[str]] | None]


@dataclass(frozen=True)
class Mistake:
    """A kind of mistake.

    Attributes:
        name: what is done wrongly.
        kind: what a diagnosis should call it; ``unknown`` where no kind may be claimed.
        plant: does it.
    """

    name: str
    kind: str
    plant: Plant


def _some(p: Pass, rng: Rng, wanted: str = "Wb", least: int = 1) -> str | None:
    """A tensor with some entries that are not zero, and of some size."""
    right = p.gradients()
    names = [
        name for name, g in right.items()
        if name[0] in wanted and g.size >= least and np.count_nonzero(g) >= least
    ]  # fmt: skip
    return str(rng.choice(names)) if names else None


def _in_one(
    change: Callable[[Array, Rng], Array | None], wanted: str = "Wb", least: int = 1
) -> Plant:
    """A mistake in one tensor alone, made of its right gradient."""

    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        name = _some(p, rng, wanted, least)
        if name is None:
            return None
        gradients = p.gradients()
        wrong = change(gradients[name], rng)
        return None if wrong is None else ({**gradients, name: wrong}, [name])

    return plant


def _scaled_by(factor: Callable[[Pass], float], *, everywhere: bool) -> Plant:
    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        c = factor(p)
        if c == 1:
            return None
        if everywhere:
            return p.gradients(p.depth, c * p.dZ[-1]), [f"W{p.depth}", f"b{p.depth}"]
        name = _some(p, rng)
        gradients = p.gradients()
        return None if name is None else ({**gradients, name: c * gradients[name]}, [name])

    return plant


def _rows(change: Callable[[Array], Array], axis: int) -> Callable[[Array, Rng], Array | None]:
    def wrong(g: Array, rng: Rng) -> Array | None:
        if g.shape[axis] < 3 or g.shape[1 - axis] < 2:
            return None
        lines = np.moveaxis(g.copy(), axis, 0)
        telling = np.flatnonzero((np.abs(lines) > 1e-3 * np.abs(g).max()).mean(axis=1) > 0.6)
        if telling.size == 0:
            return None
        i = rng.choice(telling)
        lines[i] = change(lines[i])
        return np.ascontiguousarray(np.moveaxis(lines, 0, axis))

    return wrong


def _entry(change: Callable[[float], float]) -> Callable[[Array, Rng], Array | None]:
    def wrong(g: Array, rng: Rng) -> Array | None:
        found = g.copy()
        k = rng.choice(np.flatnonzero(np.abs(g) > 1e-2 * np.abs(g).max()))
        found.flat[k] = change(found.flat[k])
        return found

    return wrong


def _clipped(g: Array, _: Rng) -> Array | None:
    sizes = np.sort(np.abs(g).ravel())
    limit = 0.9 * sizes[-2]
    return np.clip(g, -limit, limit) if limit > 0 else None


def _clipped_norm(p: Pass, _: Rng) -> tuple[Tensors, list[str]] | None:
    gradients = p.gradients()
    norm = float(np.sqrt(sum((g**2).sum() for g in gradients.values())))
    if not 0 < norm < np.inf:
        return None
    limit = float(f"{0.4 * norm:.0e}")
    clipped: Tensors = {name: np.multiply(g, limit / norm) for name, g in gradients.items()}
    return clipped, list(gradients)


def _missing_decay(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
    if p.net.weight_decay == 0:
        return None
    l = int(rng.integers(1, p.depth + 1))
    gradients = p.gradients()
    return {**gradients, f"W{l}": gradients[f"W{l}"] - p.decay(l)}, [f"W{l}"]


def _extra_decay(kind: str) -> Plant:
    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        name = f"{kind}{rng.integers(1, p.depth + 1)}"
        theta = p.parameters[name]
        if theta.size < 2 or not theta.any():
            return None
        gradients = p.gradients()
        return {**gradients, name: gradients[name] + 0.3 / p.net.m * theta}, [name]

    return plant


def _order(axis: int) -> Callable[[Array, Rng], Array | None]:
    def wrong(g: Array, _: Rng) -> Array | None:
        return np.roll(g, 1, axis=axis) if g.shape[axis] > 2 else None

    return wrong


def _column_major(g: Array, _: Rng) -> Array | None:
    if min(g.shape) < 2 or g.shape[0] == g.shape[1]:
        return None
    return np.ascontiguousarray(g.T.reshape(g.shape))


def _transposed(g: Array, _: Rng) -> Array | None:
    return g.T.copy() if g.shape[0] == g.shape[1] > 1 else None


def _swapped(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
    gradients = p.gradients()
    pairs = [
        (a, b) for a in gradients for b in gradients
        if a < b and gradients[a].shape == gradients[b].shape and gradients[a].size > 1
    ]  # fmt: skip
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    return {**gradients, a: gradients[b], b: gradients[a]}, [a, b]


def _single_precision(p: Pass, _: Rng) -> tuple[Tensors, list[str]] | None:
    f = np.float32
    m, gradients = f(p.net.m), {}
    d = p.dZ[-1].astype(f)
    for l in range(p.depth, 0, -1):
        W = p.parameters[f"W{l}"].astype(f)
        decay = f(p.net.weight_decay) / m * W
        gradients[f"W{l}"] = (d @ p.A[l - 1].astype(f).T / m + decay).astype(float)
        gradients[f"b{l}"] = (d.sum(axis=1, keepdims=True) / m).astype(float)
        if l > 1:
            d = (W.T @ d) * p.slopes[l - 1].astype(f)
    return gradients, list(gradients)


def _samples(counted: Callable[[int, Rng], Any], *, alone: bool, everywhere: bool) -> Plant:
    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        m = p.net.m
        if m < 2:
            return None
        weights = np.zeros(m)
        weights[counted(m, rng)] = 1.0
        if not 0 < weights.sum() < m:
            return None
        if alone:
            weights *= m / weights.sum()
        if everywhere:
            return p.gradients(p.depth, weights * p.dZ[-1]), [f"W{p.depth}", f"b{p.depth}"]
        l = int(rng.integers(1, p.depth + 1))
        wrong = (weights * p.dZ[l]) @ p.A[l - 1].T / m + p.decay(l)
        return {**p.gradients(), f"W{l}": wrong}, [f"W{l}"]

    return plant


def _dZ(make: Callable[[Pass, int, Rng], Array | None]) -> Plant:
    """dZ_l of a hidden layer made wrongly, and all that follows."""

    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        if p.depth < 2:
            return None
        l = int(rng.integers(1, p.depth))
        wrong = make(p, l, rng)
        return None if wrong is None else (p.gradients(l, wrong), [f"W{l}", f"b{l}"])

    return plant


def _twice(p: Pass, l: int, _: Rng) -> Array | None:
    binary = p.hidden[l - 1] in ("relu", "identity")  # whose square is the same
    return None if binary else p.dZ[l] * p.slopes[l]


def _mask_of_another(p: Pass, l: int, rng: Rng) -> Array | None:
    others = [k for k in range(1, p.depth) if k != l and p.Z[k].shape == p.Z[l].shape]
    return p.dA(l) * p.slopes[int(rng.choice(others))] if others else None


def _other_derivative(p: Pass, l: int, rng: Rng) -> Array | None:
    slopes = [_SLOPES[name](p.Z[l]) for name in ACTIVATIONS if name != "identity"]
    # one that is neither the right one nor none at all, where this network can tell
    others = [s for s in slopes if not np.allclose(s, p.slopes[l]) and not np.allclose(s, 1.0)]
    return p.dA(l) * others[rng.integers(len(others))] if others else None


def _at_A(p: Pass, l: int, _: Rng) -> Array | None:
    if p.hidden[l - 1] in ("relu", "leaky_relu", "identity"):
        return None
    return p.dA(l) * _SLOPES[p.hidden[l - 1]](p.A[l])


def _inverted(p: Pass, l: int, _: Rng) -> Array | None:
    return p.dA(l) * (p.Z[l] <= 0) if p.hidden[l - 1] == "relu" else None


def _not_transposed(p: Pass, l: int, _: Rng) -> Array | None:
    W = p.parameters[f"W{l + 1}"]
    return (W @ p.dZ[l + 1]) * p.slopes[l] if W.shape[0] == W.shape[1] > 1 else None


def _labels(p: Pass, _: Rng) -> tuple[Tensors, list[str]] | None:
    z = p.Z[-1]
    if p.net.loss == "squared":
        wrong = z
    elif p.net.loss == "huber":
        wrong = np.clip(z, -1.0, 1.0)
    elif p.net.loss == "logistic":
        wrong = _sigmoid(z)
    else:
        wrong = np.exp(z - z.max(axis=0))
        wrong = wrong / wrong.sum(axis=0)
    return p.gradients(p.depth, wrong), [f"W{p.depth}", f"b{p.depth}"]


def _output_twice(p: Pass, _: Rng) -> tuple[Tensors, list[str]] | None:
    if p.net.loss != "logistic":
        return None
    a = _sigmoid(p.Z[-1])
    return p.gradients(p.depth, p.dZ[-1] * a * (1 - a)), [f"W{p.depth}", f"b{p.depth}"]


def _in_dW(make: Callable[[Pass, int], tuple[Array, Array]]) -> Plant:
    """dW_l of a layer below the last made with another dZ_l or A_{l−1}."""

    def plant(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
        if p.depth < 2:
            return None
        l = int(rng.integers(1, p.depth))
        dZ, A = make(p, l)
        return {**p.gradients(), f"W{l}": dZ @ A.T / p.net.m + p.decay(l)}, [f"W{l}"]

    return plant


def _Z_for_A(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
    if p.depth < 2:
        return None
    l = int(rng.integers(2, p.depth + 1))
    wrong = p.dZ[l] @ p.Z[l - 1].T / p.net.m + p.decay(l)
    return {**p.gradients(), f"W{l}": wrong}, [f"W{l}"]


def _stale(p: Pass, _: Rng) -> tuple[Tensors, list[str]] | None:
    """The gradients at θ + α g, from which a step of α would have led here: a fixed point in g."""
    gradients = p.gradients()
    norm = float(np.sqrt(sum((g**2).sum() for g in gradients.values())))
    size = float(np.sqrt(sum((v**2).sum() for v in p.parameters.values())))
    if not norm > 0:
        return None
    alpha = 0.01 * size / norm
    with np.errstate(all="ignore"):  # the iteration may diverge
        for _round in range(60):
            before = gradients
            moved = {name: v + alpha * gradients[name] for name, v in p.parameters.items()}
            gradients = Pass(p.net, moved).gradients()
    off = max(np.abs(gradients[name] - before[name]).max() for name in gradients)
    if not off <= 1e-13 * max(np.abs(g).max() for g in gradients.values()):
        return None  # the iteration has not settled
    return gradients, list(gradients)


def _noisy(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
    name = _some(p, rng, least=6)
    if name is None:
        return None
    gradients = p.gradients()
    g = gradients[name]
    return {**gradients, name: g * (1 + 0.1 * rng.standard_normal(g.shape))}, [name]


def _unrelated(p: Pass, rng: Rng) -> tuple[Tensors, list[str]] | None:
    name = _some(p, rng, least=6)
    if name is None:
        return None
    gradients = p.gradients()
    g = gradients[name]
    return {**gradients, name: np.abs(g).max() * rng.standard_normal(g.shape)}, [name]


MISTAKES = (
    Mistake("doubled", "factor", _scaled_by(lambda p: 2.0, everywhere=False)),
    Mistake("a thousandth off", "factor", _scaled_by(lambda p: 1.001, everywhere=False)),
    Mistake("× 0.37", "factor", _scaled_by(lambda p: 0.37, everywhere=False)),
    Mistake("sign flipped", "sign", _scaled_by(lambda p: -1.0, everywhere=False)),
    Mistake("not averaged over the batch", "sum", _scaled_by(lambda p: p.net.m, everywhere=False)),
    Mistake("averaged twice", "twice averaged", _scaled_by(lambda p: 1 / p.net.m, everywhere=False)),
    Mistake("zero", "zero", _in_one(lambda g, rng: 0 * g)),
    Mistake("dZ_L doubled", "factor", _scaled_by(lambda p: 2.0, everywhere=True)),
    Mistake("dZ_L with its sign flipped", "sign", _scaled_by(lambda p: -1.0, everywhere=True)),
    Mistake("dZ_L not averaged", "sum", _scaled_by(lambda p: p.net.m, everywhere=True)),
    Mistake("transposed", "transposed", _in_one(_transposed, "W", 2)),
    Mistake("two tensors exchanged", "swapped", _swapped),
    Mistake("one unit doubled", "rows", _in_one(_rows(lambda row: 2 * row, 0), "W", 6)),
    Mistake("one unit zero", "rows", _in_one(_rows(lambda row: 0 * row, 0), "W", 6)),
    Mistake("one input zero", "columns", _in_one(_rows(lambda row: 0 * row, 1), "W", 6)),
    Mistake("one entry a thousandth off", "entries", _in_one(_entry(lambda g: 1.001 * g), least=3)),
    Mistake("one entry with its sign flipped", "entries", _in_one(_entry(lambda g: -g), least=3)),
    Mistake("one NaN", "nonfinite", _in_one(_entry(lambda g: np.nan))),
    Mistake("entries clipped", "clipped", _in_one(_clipped, least=4)),
    Mistake("clipped to a norm", "clipped", _clipped_norm),
    Mistake("weight decay missing", "decay", _missing_decay),
    Mistake("weight decay too much", "decay", _extra_decay("W")),
    Mistake("weight decay on a bias", "decay", _extra_decay("b")),
    Mistake("rows in another order", "permuted", _in_one(_order(0), "W", 6)),
    Mistake("columns in another order", "permuted", _in_one(_order(1), "W", 6)),
    Mistake("column-major order", "permuted", _in_one(_column_major, "W", 6)),
    Mistake("single precision", "precision", _single_precision),
    Mistake("the first sample alone in dW", "samples", _samples(lambda m, rng: 0, alone=False, everywhere=False)),
    Mistake("the last sample left out of dW", "samples", _samples(lambda m, rng: slice(0, m - 1), alone=False, everywhere=False)),
    Mistake("half of the batch in dZ_L", "samples", _samples(lambda m, rng: slice(0, m // 2), alone=True, everywhere=True)),
    Mistake("activation mask or derivative missing", "mask", _dZ(lambda p, l, rng: p.dA(l))),
    Mistake("mask or derivative of another layer", "mask", _dZ(_mask_of_another)),
    Mistake("mask inverted", "mask", _dZ(_inverted)),
    Mistake("mask or derivative missing in dW alone", "mask", _in_dW(lambda p, l: (p.dA(l), p.A[l - 1]))),
    Mistake("derivative applied twice", "twice", _dZ(_twice)),
    Mistake("the sigmoid's derivative at the output", "twice", _output_twice),
    Mistake("derivative of another activation", "derivative", _dZ(_other_derivative)),
    Mistake("derivative at A instead of Z", "derivative", _dZ(_at_A)),
    Mistake("W not transposed", "transposed", _dZ(_not_transposed)),
    Mistake("labels not subtracted", "labels", _labels),
    Mistake("Z in the place of A in dW", "input", _Z_for_A),
    Mistake("parameters of before the last step", "stale", _stale),
    Mistake("a tenth of noise", "unknown", _noisy),
    Mistake("unrelated numbers", "unknown", _unrelated),
)  # fmt: skip
