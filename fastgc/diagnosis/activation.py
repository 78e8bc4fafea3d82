"""A Network whose activation is not the one that the gradients were computed with."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastgc.claim import Claim
from fastgc.diagnosis.evidence import Diagnosis, Evidence, exactly
from fastgc.inside import Inside
from fastgc.rounding import rounding_of_gradients

#: Kinds that a gradient of another activation may be mistaken for: what fits numbers, or nothing.
FITTED = (
    "unknown", "factor", "samples", "entries", "places", "rows", "columns", "clipped", "permuted",
    "precision", "decay",
)  # fmt: skip

ROUGHLY = 1e-3  # of the terms of the last bias's gradient, to tell at once what does not fit


def other_activation(
    inside: Inside, claim: Claim, tensors: Mapping[str, Evidence]
) -> Diagnosis | None:
    """The activations with which every tensor is right."""
    depth = len(inside.layers)
    last = tensors[f"b{depth}"], tensors[f"W{depth}"]
    if not any(e.at_fault for e in last):
        return None
    fitting = [name for name, other in inside.others() if _fits(other, claim, tensors)]
    if not fitting:
        return None
    named = " or ".join(f'"{name}"' for name in fitting)
    return Diagnosis("activation", f"with activation={named} these gradients are right")


def _fits(other: Inside, claim: Claim, tensors: Mapping[str, Evidence]) -> bool:
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
        seen = replace(e, slack=claim.units[t] * rounding[here], known=np.ones_like(e.known))
        if not seen.fits(exactly(other.gradient[here])):
            return False
    return True
