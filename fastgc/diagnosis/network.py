"""Mistakes in the backward pass of a Network: what gradients would come out if it were made so.

A step is left out, made twice or made with the wrong thing, and the gradients that follow are held
against those given. What is known of the right pass comes from exact differences (`ForwardState`).
Arrays of samples are transposed, (m, n), as there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import FloatArray
from fastgc.diagnosis.evidence import UNKNOWN, Evidence, Hypothesis, Surroundings, exactly, first
from fastgc.diagnosis.factors import as_factor, factor_of, is_multiple
from fastgc.diagnosis.kinds import LAST, PLAIN, SECOND
from fastgc.diagnosis.samples import some_samples
from fastgc.network.layers import ACTIVATIONS
from fastgc.network.state import ForwardState, rounding_of_gradients
from fastgc.report.data import Diagnosis

# Wrong formulas for the slope of an activation, from a = φ(z) and z, where another one is meant.
FORMULAS: dict[str, tuple[tuple[str, Callable[[FloatArray, FloatArray], FloatArray]], ...]] = {
    "tanh": (
        ("1 − A{l}", lambda a, _: 1 - a),
        ("A{l}(1 − A{l})", lambda a, _: a * (1 - a)),
        ("1 − Z{l}²", lambda _, z: 1 - z * z),
        ("A{l}", lambda a, _: a),
        ("1 + A{l}²", lambda a, _: 1 + a * a),
    ),
    "sigmoid": (
        ("1 − A{l}", lambda a, _: 1 - a),
        ("A{l}", lambda a, _: a),
        ("Z{l}(1 − Z{l})", lambda _, z: z * (1 - z)),
        ("1 − A{l}²", lambda a, _: 1 - a * a),
        ("A{l}(A{l} − 1)", lambda a, _: a * (a - 1)),
    ),
    "softplus": (("A{l}", lambda a, _: a), ("1 − A{l}", lambda a, _: 1 - a)),
    "silu": (
        ("A{l}(1 − A{l})", lambda a, _: a * (1 - a)),
        ("A{l}", lambda a, _: a),
    ),
}

# What is found of W_l and b_l alike may be that of dZ_l, and then shows in every layer below.
FACTORS = ("zero", "sign", "sum", "twice averaged")
LINEAR = (*FACTORS, "factor", "samples")


class Variant(NamedTuple):
    """dZ_lᵀ as a mistake would make it."""

    kind: str
    text: str
    dZ: FloatArray  # noqa: N815  a name of the mathematics


def surroundings(state: ForwardState | None, tensors: Mapping[str, Evidence]) -> Surroundings:
    """What else is known, of a Network or of any other cost."""
    net = None if state is None else state.net
    return Surroundings(
        m=None if net is None else net.m,
        divisor=None if net is None else net.divisor,
        weight_decay=0.0 if net is None else net.weight_decay,
        tensors=tensors,
    )


def explain(
    state: ForwardState, tensors: Mapping[str, Evidence], around: Surroundings
) -> dict[str, Diagnosis]:
    """What each tensor at fault looks like, from the last layer to the first."""
    found: dict[str, Diagnosis] = {}
    mistaken: FloatArray | None = None  # dZᵀ of the layer above, as a mistake left it
    with np.errstate(all="ignore"):
        for l in range(len(state.layers), 0, -1):
            pair = tensors[f"W{l}"], tensors[f"b{l}"]
            if not any(e.at_fault for e in pair):
                mistaken = None
                continue
            mistaken = _explain_layer(state, l, pair, mistaken, around, found)
    return found


def _explain_layer(
    state: ForwardState,
    l: int,
    pair: tuple[Evidence, Evidence],
    mistaken: FloatArray | None,
    around: Surroundings,
    found: dict[str, Diagnosis],
) -> FloatArray | None:
    """Adds to `found`; returns dZ_lᵀ as the mistake made it, where the layers below may show it."""
    faulty = [e.name for e in pair if e.at_fault]
    if mistaken is not None:
        follows = _back(state, l, mistaken)
        if _both(state, l, pair, follows):
            said = found.get(f"W{l + 1}") or found.get(f"b{l + 1}")
            if said is None or said.kind not in LINEAR:  # what is linear in dZ looks the same below
                said = _follows(l)
            found |= dict.fromkeys(faulty, said)
            return follows
    plain = {e.name: first(PLAIN, e, around) for e in pair if e.at_fault}
    sources = [state.sensitivities[l] if l < len(state.layers) else None]
    if mistaken is not None:
        sources.append(mistaken)
    if not all(plain.values()):
        for above in sources:
            for kind, text, dZ in _variants(state, l, above):
                if _both(state, l, pair, dZ):
                    found |= dict.fromkeys(faulty, Diagnosis(kind, f"dZ{l}: {text}"))
                    return dZ
        joint = _alike(state, l, pair)
        if joint is not None:
            said, dZ = joint
            found |= dict.fromkeys(faulty, said)
            return dZ
    for e in pair:
        if e.at_fault:
            found[e.name] = plain[e.name] or _explain_tensor(state, l, e, sources, around)
    one, other = (found.get(e.name) for e in pair)
    if one is None or other is None or one.kind != other.kind or one.kind not in FACTORS:
        return None
    return state.sensitivities[l - 1] * (one.value or 0.0)


def _alike(
    state: ForwardState, l: int, pair: tuple[Evidence, Evidence]
) -> tuple[Diagnosis, FloatArray] | None:
    """One factor, or one choice of samples, for dW_l and db_l, and so perhaps of dZ_l."""
    if not all(e.at_fault for e in pair):
        return None
    D = state.sensitivities[l - 1]
    for e in pair:
        c = factor_of(e) if e.telling(e.found) > 1 else None
        if c is not None and all(is_multiple(each, c) for each in pair):
            return as_factor(c), c * D
    for e in reversed(pair):
        counted = some_samples(e, *_terms(state, l, e), state.net.divisor)
        if counted is not None:
            dZ = D * counted.weights[:, np.newaxis]
            if _both(state, l, pair, dZ):
                return counted.diagnosis, dZ
    return None


def _explain_tensor(
    state: ForwardState,
    l: int,
    e: Evidence,
    sources: list[FloatArray | None],
    around: Surroundings,
) -> Diagnosis:
    """A mistake in dW_l alone, or in db_l alone."""
    name = f"d{e.name}"
    for above in sources[1:]:
        assert above is not None
        if e.fits(_gradient(state, l, e, _back(state, l, above))):
            return _follows(l)
    for above in sources:
        for kind, text, dZ in _variants(state, l, above):
            if e.fits(_gradient(state, l, e, dZ)):
                return Diagnosis(kind, f"{name} made with another dZ{l}: {text}")
    D = state.sensitivities[l - 1]
    if e.name == f"b{l}" and D.shape[0] == D.shape[1] and e.telling(e.found) > 1:
        over_units = (D.sum(axis=1) / state.net.divisor + e.fixed).ravel()
        if e.moved().shows(over_units):
            return Diagnosis("axis", f"{name}: dZ{l} summed over the units, not over the samples")
    if e.name == f"W{l}":
        for text, A in _inputs(state, l):
            if e.fits(_gradient(state, l, e, D, A)):
                return Diagnosis("input", f"{name} made with {text}")
    said = first(SECOND, e, around)
    if said is None:
        counted = some_samples(e, *_terms(state, l, e), state.net.divisor)
        said = None if counted is None else counted.diagnosis
    return said or first(LAST, e, around) or UNKNOWN


def _follows(l: int) -> Diagnosis:
    return Diagnosis(
        "follows",
        f"correct, given the wrong dZ{l + 1} that it is computed from; fix dZ{l + 1} first",
    )


def _both(state: ForwardState, l: int, pair: tuple[Evidence, Evidence], dZ: FloatArray) -> bool:
    """Whether both gradients of a layer are those that dZ_l leads to; the cheap one first."""
    return all(e.fits(_gradient(state, l, e, dZ)) for e in reversed(pair))


def _gradient(
    state: ForwardState, l: int, e: Evidence, dZ: FloatArray, A: FloatArray | None = None
) -> Hypothesis:
    """dW_l = dZ_l A_{l−1}ᵀ / m, or db_l, weight decay included."""
    m = state.net.divisor
    if e.name == f"b{l}":
        return lambda at: (dZ.sum(axis=0) / m + e.fixed)[at]
    below = state.values[0][l - 1] if A is None else A

    def weights(at: Any) -> FloatArray:
        if isinstance(at, slice):
            return np.asarray((dZ.T @ below).ravel() / m + e.fixed)
        rows, columns = np.divmod(at, e.shape[1])
        return np.asarray((dZ[:, rows] * below[:, columns]).sum(axis=0) / m + e.fixed[at])

    return weights


def _terms(state: ForwardState, l: int, e: Evidence) -> tuple[FloatArray, FloatArray]:
    """dZ_lᵀ (m, n) and the inputs (m, k): the gradient is the sum of their products."""
    dZ = state.sensitivities[l - 1]
    below = state.values[0][l - 1] if e.name == f"W{l}" else np.ones((state.net.m, 1))
    return dZ, below


def _back(state: ForwardState, l: int, above: FloatArray) -> FloatArray:
    """dZ_l from dZ_{l+1}, rightly."""
    return _times_W(state, l + 1, above) * state.slopes[l - 1]


def _times_W(state: ForwardState, l: int, dZ: FloatArray) -> FloatArray:
    layer = state.layers[l - 1]
    return np.asarray(dZ @ state.theta[layer.W].reshape(layer.n, layer.k))


def _variants(state: ForwardState, l: int, above: FloatArray | None) -> Iterator[Variant]:
    """What dZ_l may have been, from dZ_{l+1} as it is `above`; for the last layer that is None."""
    if above is None:
        yield from _last(state)
        return
    layer, Zs = state.layers[l - 1], state.values[1]
    Z, slope = Zs[l - 1], state.slopes[l - 1]
    dA = _times_W(state, l + 1, above)
    derivative = "the activation mask" if layer.act.kink is not None else "the derivative"
    yield Variant("mask", f"{derivative} of {layer.activation} is missing", dA)
    if layer.act is not ACTIVATIONS["relu"]:
        text = f"{derivative} of {layer.activation} is applied twice"
        yield Variant("twice", text, dA * slope**2)
    if layer.act.kink is not None:
        yield Variant("mask", "the activation mask is inverted", dA * layer.act.slopes(-Z))
    else:
        A = layer.act.value(Z.copy())
        at_A = layer.act.slopes(A)
        text = f"the derivative of {layer.activation} is taken at A{l} instead of Z{l}"
        yield Variant("derivative", text, dA * at_A)
        for formula, slope_of in FORMULAS.get(layer.activation, ()):
            text = f"the derivative of {layer.activation} is written as {formula.format(l=l)}"
            yield Variant("derivative", text, dA * slope_of(A, Z))
    for k, of_k in enumerate(state.slopes, start=1):
        if k != l and of_k.shape == slope.shape:
            yield Variant("mask", f"{derivative} is that of layer {k}", dA * of_k)
    X = state.net.X.T
    if X.shape == slope.shape:
        yield Variant("mask", f"{derivative} is taken at X", dA * layer.act.slopes(X))
    for name, other in ACTIVATIONS.items():
        if name not in (layer.activation, "identity"):
            yield Variant("derivative", f"the derivative is that of {name}", dA * other.slopes(Z))
    above_layer = state.layers[l]
    if above_layer.n == above_layer.k:
        W = state.theta[above_layer.W].reshape(above_layer.n, above_layer.k)
        yield Variant("transposed", f"W{l + 1} is not transposed", (above @ W.T) * slope)


def _last(state: ForwardState) -> Iterator[Variant]:
    """What dZ_L may have been, beside factors."""
    loss, Z, dZ = state.net.losses, state.values[1][-1], state.sensitivities[-1]
    forgotten = loss.without_labels(Z.T, state.net.labels, dZ.T).T
    yield Variant("labels", "the labels are not subtracted", np.ascontiguousarray(forgotten))
    if not loss.probable:
        return
    # at the last layer's own sigmoid, which the loss already undoes
    text = "multiplied by the sigmoid's derivative, which the loss has cancelled"
    yield Variant("twice", text, dZ * ACTIVATIONS["sigmoid"].slopes(Z))


def _inputs(state: ForwardState, l: int) -> Iterator[tuple[str, FloatArray]]:
    """What may have been taken for A_{l−1}."""
    inputs, Zs = state.values
    right = inputs[l - 1]
    if l > 1:
        yield f"Z{l - 1} in the place of A{l - 1}", Zs[l - 2]
    for k, A in enumerate(inputs):
        if k != l - 1 and A.shape == right.shape:
            yield f"{f'A{k}' if k else 'X'} in the place of {f'A{l - 1}' if l > 1 else 'X'}", A


#: Kinds that a gradient of another activation may be mistaken for: what fits numbers, or nothing.
FITTED = (
    "unknown", "factor", "samples", "entries", "places", "rows", "columns", "clipped", "permuted",
    "precision", "decay",
)  # fmt: skip

ROUGHLY = 1e-3  # of the terms of the last bias's gradient, to tell at once what does not fit


def other_activation(
    state: ForwardState, analytic: AnalyticGradient, tensors: Mapping[str, Evidence]
) -> Diagnosis | None:
    """The activations with which every tensor is right."""
    depth = len(state.layers)
    last = tensors[f"b{depth}"], tensors[f"W{depth}"]
    if not any(e.at_fault for e in last):
        return None
    fitting = [name for name, other in state.others() if _fits(other, analytic, tensors)]
    if not fitting:
        return None
    named = " or ".join(f'"{name}"' for name in fitting)
    return Diagnosis("activation", f"with activation={named} these gradients are right")


def _fits(other: ForwardState, analytic: AnalyticGradient, tensors: Mapping[str, Evidence]) -> bool:
    """Whether its gradient is the one given; the last bias first, which takes no backward pass."""
    bias = tensors[f"b{len(other.layers)}"]
    m = other.net.divisor
    with np.errstate(all="ignore"):
        away = np.abs(other.last.sum(axis=0) / m - bias.g)
        terms = np.abs(other.last).sum(axis=0).max() / abs(m)
        if not (away <= max(ROUGHLY, 2 * bias.tolerance) * terms).all():
            return False
        rounding = rounding_of_gradients(other)
    at = 0
    for t, e in enumerate(tensors.values()):
        here = slice(at, at + e.g.size)
        at += e.g.size
        # what is known of this network's corners says nothing of the other's
        seen = replace(
            e, uncertainty=analytic.units[t] * rounding[here], known=np.ones_like(e.known)
        )
        if not seen.fits(exactly(other.gradient[here])):
            return False
    return True
