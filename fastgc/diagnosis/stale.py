"""Gradients of other parameters: those before the last step, or rounded to single precision."""

from collections.abc import Mapping

import numpy as np

from fastgc.diagnosis.evidence import Diagnosis, Evidence, exactly
from fastgc.inside import Inside
from fastgc.layout import FloatArray

ROUNDS = 8


def stale(inside: Inside, grad: FloatArray, tensors: Mapping[str, Evidence]) -> Diagnosis | None:
    """Whether `grad` is the gradient at θ + α grad, from which a step of α led to θ."""
    if not np.isfinite(grad).all() or sum(e.telling(e.found) for e in tensors.values()) < 2:
        return None
    with np.errstate(all="ignore"):
        rounded = inside.theta.astype(np.float32).astype(np.float64)
        if _fits(_gradient(inside, rounded), tensors):
            return Diagnosis("precision", "the gradient at the parameters rounded to float32")
        size = float(np.sqrt(grad @ grad))
        reach = float(np.sqrt(inside.theta @ inside.theta)) / size if size else 0.0
        if not 0 < reach < np.inf:
            return None
        # the best of some lengths, then Gauss and Newton's
        lengths = [reach * sign * 10.0**e for e in range(-5, 1) for sign in (1, -1)]
        away = [_distance(_gradient(inside, inside.theta + a * grad), grad) for a in lengths]
        alpha = lengths[int(np.argmin(np.nan_to_num(away, nan=np.inf)))]
        here = _gradient(inside, inside.theta + alpha * grad)
        nudge = 1e-6 * reach
        for _ in range(ROUNDS):
            rise = (_gradient(inside, inside.theta + (alpha + nudge) * grad) - here) / nudge
            step = float(np.divide(rise @ (grad - here), rise @ rise))
            if not np.isfinite(step):
                return None
            alpha += step
            here = _gradient(inside, inside.theta + alpha * grad)
        if alpha == 0 or not _fits(here, tensors):
            return None
    return Diagnosis(
        "stale",
        f"the gradient at other parameters, those before a step of {alpha:.3g} × this gradient",
        alpha,
    )


def _distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.sqrt((one - other) @ (one - other)))


def _gradient(inside: Inside, theta: FloatArray) -> FloatArray:
    """The gradient of the network at θ, by exact differences."""
    return Inside(inside.net, inside.layers, theta).gradient


def _fits(gradient: FloatArray, tensors: Mapping[str, Evidence]) -> bool:
    at = 0
    for e in tensors.values():
        part = gradient[at : at + e.g.size]
        at += e.g.size
        if not e.fits(exactly(part)):
            return False
    return True
