"""Every kind of mistake that shows in one tensor by itself, in the order in which they are tried.

Each is a function of the evidence that returns what it has recognised, or None.
"""

import math

import numpy as np

from fastgc.diagnosis.evidence import UNKNOWN, Evidence, Kind, Surroundings, counted, first, join
from fastgc.diagnosis.factors import (
    any_factor,
    as_factor,
    decay,
    factor,
    factor_of,
    is_multiple,
    known_factor,
    missing_decay,
    projection,
    reparametrised,
    zero,
)
from fastgc.diagnosis.places import entries, regular, units
from fastgc.diagnosis.rearranged import (
    flipped,
    permuted,
    swapped,
    symmetric,
    transposed,
    wrong_axis,
)
from fastgc.report.data import Diagnosis

__all__ = [
    "LAST", "LINEAR", "PLAIN", "SECOND", "UNKNOWN", "Surroundings", "as_factor", "factor_of",
    "first", "in_single", "is_multiple", "is_round", "join",
]  # fmt: skip

SINGLE = 1e-4  # relative errors of a backward pass in single precision


def nonfinite(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """NaN or inf, in the gradient or in the cost."""
    bad = ~np.isfinite(e.g)
    if bad.any():
        k = int(np.argmax(bad))
        what = "1 entry is" if bad.sum() == 1 else f"{bad.sum()} entries are"
        return Diagnosis("nonfinite", f"{what} not finite: {e.address(k)} is {e.g[k]}")
    bad = ~np.isfinite(e.found) & e.wrong
    if bad.any():
        k = int(np.argmax(bad))
        return Diagnosis("cost", f"the cost is not finite a step away from {e.address(k)}")
    return None


def clipped(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Entries cut off at a largest size, or the whole scaled down to a round norm."""
    size = np.abs(e.g)
    limit = float(size.max())
    beyond = int(np.count_nonzero(np.abs(e.found) > limit * (1 + 1e-6)))
    if beyond == 0 or (beyond == 1 and not is_round(limit)) or not e.clear:
        return None
    if beyond == 1 and e.telling(e.found) < 2:
        return None  # one number is clipped at any limit
    if not e.fits(lambda at: np.clip(e.found[at], -limit, limit)):
        return None
    return Diagnosis("clipped", f"clipped at ±{limit:.6g}, {counted(beyond)}", limit)


def precision(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Computed in single precision, and converted."""
    return in_single(e) if np.count_nonzero(e.g[e.known]) > 1 else None


def in_single(e: Evidence) -> Diagnosis | None:
    """`precision` of a single entry too, which proves little by itself."""
    g = e.g[e.known]
    short = np.ldexp(np.rint(np.ldexp(np.frexp(g)[0], 12)), -12) == np.frexp(g)[0]
    if short.mean() > 0.5:  # whole and round numbers are of any precision
        return None
    if not (np.float32(g[:64]) == g[:64]).all():
        return None
    errors = np.abs(g - e.found[e.known])
    scale = np.maximum(np.abs(g), e.size_of_g)
    if not (np.float32(g) == g).all() or (errors > SINGLE * scale + e.uncertainty[e.known]).any():
        return None
    largest = float((errors / scale).max())
    text = f"computed in single precision: every value is a float32 number, off by {largest:.0e}"
    return Diagnosis("precision", f"{text}; as float32 it would be held to that", largest)


def is_round(value: float) -> bool:
    """Whether it has two significant digits at most, as limits that people choose."""
    return math.isclose(value, float(f"{value:.1e}"), rel_tol=1e-6)


#: Before what a Network's structure explains: no number is fitted.
PLAIN: tuple[Kind, ...] = (nonfinite, zero, known_factor)
#: After it, in this order: the fewer numbers a kind fits, the earlier.
SECOND: tuple[Kind, ...] = (
    transposed, swapped, missing_decay, factor, flipped, reparametrised, symmetric, wrong_axis,
)  # fmt: skip
LAST: tuple[Kind, ...] = (
    decay, projection, clipped, permuted, precision, units, regular, entries, any_factor,
)  # fmt: skip
#: What shows along directions as it does in entries.
LINEAR: tuple[Kind, ...] = (zero, known_factor, factor, decay)
