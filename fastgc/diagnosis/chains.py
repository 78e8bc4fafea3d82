"""The gradient by another form of the parameters: by θ where they are log θ, and the like."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastgc.activations import slopes
from fastgc.diagnosis.evidence import Diagnosis, Evidence, Surroundings
from fastgc.layout import FloatArray

APART = 1e-3  # by how much, relative, the factors of two entries differ if they are not one factor


class Chain(NamedTuple):
    """A form θ(φ) of parameters φ, and its slope there."""

    form: str
    slope: Callable[[FloatArray], FloatArray]


CHAINS = (
    Chain("exp(φ)", np.exp),
    Chain("exp(−φ)", lambda p: -np.exp(-p)),
    Chain("log φ", lambda p: 1.0 / p),
    Chain("softplus(φ)", lambda p: slopes("softplus", p)),
    Chain("sigmoid(φ)", lambda p: slopes("sigmoid", p)),
    Chain("logit φ", lambda p: 1.0 / (p * (1.0 - p))),
    Chain("tanh(φ)", lambda p: slopes("tanh", p)),
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
