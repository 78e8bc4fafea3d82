"""Mistakes that multiply the gradient, or leave out a factor of a chain rule."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastgc.core.tree import FloatArray
from fastgc.diagnosis.evidence import CLEAR, Evidence, Surroundings, exactly, number, signed
from fastgc.network.layers import ACTIVATIONS
from fastgc.report.data import Diagnosis

NORM = "the derivative of a norm or projection"


def zero(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Nothing at all, or nothing but the weight decay."""
    if not e.g.any():
        return Diagnosis("zero", "all zero")
    if e.fixed.any() and e.fits(exactly(e.fixed)):
        return Diagnosis("zero", "nothing but the weight decay")
    return None


def known_factor(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Factors that have a name: −1, m, 1/m."""
    m = around.m
    named = [(-1.0, "sign", "the sign is flipped: −1 × the numerical gradient")]
    if m is not None and m > 1:
        named += [
            (m, "sum", f"{number(m)} × the numerical gradient: not averaged over the {m} samples"),
            (1 / m, "twice averaged",
             f"1/{m} × the numerical gradient: averaged over the {m} samples twice"),
        ]  # fmt: skip
    for c, kind, text in named:
        if is_multiple(e, c):
            return Diagnosis(kind, text, float(c))
    return None


def factor(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Any other factor, shown by two entries at least."""
    c = factor_of(e) if e.telling(e.found) > 1 else None
    return None if c is None else as_factor(c)


def any_factor(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Any other factor of a single entry, where it is no more than a description."""
    c = factor_of(e)
    if c is None:
        return None
    return replace(as_factor(c), text=f"{as_factor(c)}, in the one entry that tells")


def as_factor(c: float) -> Diagnosis:
    """The diagnosis of a factor."""
    return Diagnosis("factor", f"{number(c)} × the numerical gradient", c)


def factor_of(e: Evidence) -> float | None:
    """The number whose product with what was found g is."""
    for fixed in (0.0, e.fixed) if e.fixed.any() else (0.0,):
        if not e.telling(e.found - fixed):
            continue
        g, found = (e.g - fixed)[e.known], (e.found - fixed)[e.known]
        largest = np.abs(found).max(initial=0.0)
        if not 0 < largest < math.inf:
            continue
        g, found = g / largest, found / largest
        c = float(np.divide(g @ found, found @ found))
        if c != 0 and math.isfinite(c) and is_multiple(e, c):
            return c
    return None


def is_multiple(e: Evidence, c: float) -> bool:
    """Whether g is c times what was found, with or without the part that weight decay adds."""
    if e.fits(lambda at: c * e.found[at], growth=max(1.0, abs(c))):
        return True
    if not (e.fixed.any() and e.telling(e.found - e.fixed)):
        return False
    return e.fits(lambda at: c * (e.found[at] - e.fixed[at]) + e.fixed[at], growth=max(1.0, abs(c)))


def missing_decay(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """The cost has weight decay, the gradient has not."""
    if e.fixed.any() and e.fits(lambda at: e.found[at] - e.fixed[at]):
        rate = around.weight_decay
        return Diagnosis("decay", f"the weight decay is missing, λ = {rate:.4g}", -rate)
    return None


def decay(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """An error in proportion to the parameters."""
    if e.telling(e.theta) < 2 or not e.clear:
        return None
    theta = np.where(e.known, e.theta, 0.0)
    error = np.where(e.known, e.g - e.found, 0.0)
    rate = float(np.divide(error @ theta, theta @ theta))
    if not (math.isfinite(rate) and e.fits(lambda at: e.found[at] + rate * e.theta[at])):
        return None
    if np.count_nonzero(e.explained(e.found + rate * e.theta)) < 2:
        return None  # one number is a multiple of any other
    if e.along or _radial(e, (e.g.size,), None) is not None:
        text = f"the numerical gradient {signed(rate)} × the parameters: weight decay, or {NORM}"
    elif around.divisor is None:
        than = "more weight decay than the cost has" if rate > 0 else "weight decay is missing"
        text = f"the numerical gradient {signed(rate)} × the parameters: {than}"
    else:
        has = around.weight_decay if e.fixed.any() else 0.0
        rate *= around.divisor
        text = f"weight decay with λ = {number(has + rate)} where the cost has {has:.4g}"
        if around.weight_decay == 0:
            text += f"; is it Network(…, weight_decay={rate:.4g})?"
        return Diagnosis("decay", text, rate)
    return Diagnosis("decay", text, rate * (around.divisor or 1.0))


def projection(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """An error along the parameters of each row, or column, where one gradient has none of it."""
    if len(e.shape) < 2 or min(e.shape[:2]) < 2 or not e.known.all() or e.output_axes:
        return None
    theta = e.theta.reshape(e.shape)
    error = (e.g - e.found).reshape(e.shape)
    rows = tuple(range(1, len(e.shape)))
    for axes, what in ((rows, "row"), ((len(e.shape) - 1,), "line"), ((0,), "column")):
        side = _radial(e, e.shape, axes)
        if side is None:
            continue
        squares = (theta * theta).sum(axis=axes, keepdims=True)
        rates = (error * theta).sum(axis=axes, keepdims=True) / np.where(squares, squares, 1.0)
        values = e.found + (rates * theta).ravel()
        if e.shows(values, numbers=rates.size):
            text = f"off by a multiple of the parameters in each {what}: {NORM} is {side}"
            return Diagnosis("projection", text)
    return None


def _radial(e: Evidence, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> str | None:
    """Whether one of both gradients has no part along the parameters.

    ``missing`` where that is the numerical one: g misses what takes that part away;
    ``superfluous`` where it is g; None for neither, or where noise leaves that open.
    """
    theta, uncertainty = (
        np.where(e.known, v, 0.0).reshape(shape) for v in (e.theta, e.uncertainty)
    )

    def norm(values: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt((values * values).sum(axis=axes)))

    lost = (uncertainty * np.abs(theta)).sum(axis=axes)
    for values, side in ((e.found, "missing"), (e.g, "superfluous")):
        v = np.where(e.known, values, 0.0).reshape(shape)
        size = norm(v) * norm(theta)
        if not (norm(v) > CLEAR * norm(uncertainty)).all() or (lost > 1e-2 * size).any():
            continue
        if (np.abs((v * theta).sum(axis=axes)) <= 1e-6 * size + lost).all():
            return side
    return None


APART = 1e-3  # by how much, relative, the factors of two entries differ if they are not one factor


class Chain(NamedTuple):
    """A form θ(φ) of parameters φ, and its slope there."""

    form: str
    slope: Callable[[FloatArray], FloatArray]


CHAINS = (
    Chain("exp(φ)", np.exp),
    Chain("exp(−φ)", lambda p: -np.exp(-p)),
    Chain("log φ", lambda p: 1.0 / p),
    Chain("softplus(φ)", lambda p: ACTIVATIONS["softplus"].slopes(p)),
    Chain("sigmoid(φ)", lambda p: ACTIVATIONS["sigmoid"].slopes(p)),
    Chain("logit φ", lambda p: 1.0 / (p * (1.0 - p))),
    Chain("tanh(φ)", lambda p: ACTIVATIONS["tanh"].slopes(p)),
    Chain("φ²", lambda p: 2.0 * p),
    Chain("√φ", lambda p: 0.5 / np.sqrt(p)),
    Chain("1/φ", lambda p: -1.0 / (p * p)),
)


def reparametrised(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """A chain factor θ′(φ) that is missing or superfluous, in all entries or in those at fault."""
    at = e.probe[(e.wrong & e.known)[e.probe]]
    if at.size < 2:
        return None
    probed = e.part(at, (at.size,))
    for text, factor in _factors():
        if not _shows(probed, probed.found, factor(probed.theta)):
            continue
        factors = factor(e.theta)
        if _shows(e, e.found, factors):
            return Diagnosis("chain", text)
        wrong = np.where(e.wrong, factors, 1.0)
        if _shows(e, e.found, wrong):
            count = np.count_nonzero(e.wrong)
            return Diagnosis("chain", f"{text}, in the {count} entries that are wrong")
    return None


def _factors() -> Iterator[tuple[str, Callable[[FloatArray], FloatArray]]]:
    start = "the chain factor of θ = exp(φ) is"
    yield f"× the parameters: {start} superfluous, as of a gradient by log θ for θ", np.positive
    yield f"÷ the parameters: {start} missing, as of a gradient by θ for log θ", np.reciprocal
    for form, slope in CHAINS:
        start = f"the chain factor of θ = {form} is"
        yield f"{start} missing: the gradient by θ given for φ", _one_over(slope)
        yield f"{start} superfluous: the gradient by φ given for θ", slope


def _one_over(slope: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], FloatArray]:
    return lambda p: 1.0 / slope(p)


def _shows(e: Evidence, found: FloatArray, factors: FloatArray) -> bool:
    """Whether these factors, not all alike, reproduce g in two entries or more."""
    values = found * factors
    e = e.scaled(factors)
    if not (np.isfinite(values[e.known]).all() and e.shows(values)):
        return False
    telling = factors[e.explained(values)]
    return bool(np.ptp(telling) > APART * np.abs(telling).max())
