"""How a verdict is reached: gradient against gradapprox, entry by entry."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import UNIT_ROUNDOFF, FloatArray

Verdict: TypeAlias = Literal["correct", "wrong", "unresolved"]
EntryVerdict: TypeAlias = Literal["agree", "kink", "unresolved", "disagree", "nonfinite"]

#: What can be said of one entry, from best to worst; `entry_verdicts` returns their indices.
ENTRY_VERDICTS: tuple[EntryVerdict, ...] = get_args(EntryVerdict)
AGREE, KINK, UNRESOLVED, DISAGREE, NONFINITE = range(5)


@dataclass(frozen=True)
class Thresholds:
    """What verdicts rest on, each with why it is what it is. u is 2⁻⁵³.

    Attributes:
        resolution: the largest uncertainty, relative to the gradient, at which an agreement still
            says something: three digits.
        zero: the largest uncertainty, relative to the slopes that the cost has around, at which a
            gradient that vanishes is known to do so.
        floor: the share of the size of a tensor's gradients that is allowed to each of its entries:
            what a backward pass in float64 may round away where large terms cancel.
        vanishing: beside the largest gradient of all, what a right backward pass may leave of a
            zero.
        far: times as far as the slopes at several kinks are apart, outside of them, from where on
            no choice at a kink explains a gradient.
        explained: times what an entry was off by, that its uncertainty may be where that has gone.
        noise: times σ_J, by which rounding may move a J. Source: Moré & Wild 2011, whose table is
            good to a small factor.
        least_noise: of |J|, likewise where the table shows nothing: a J rounded once moves a
            central difference by u·|J|/ε, and a sum of a few terms by some more.
        bent: rounding units of θ by which what is computed from θ may be off, at the same J.
        safety: rounding units of what went into a sum, by which an exact difference may be off. In
            1,500 drawn networks it accused no right gradient of either of two backward passes.
        last_bits: relative differences of identical calls up to which a cost is noisy, as sums by
            threads are, and not random.
    """

    resolution: float = 1e-3
    zero: float = 1e-6
    floor: float = 1e-12
    vanishing: float = 1e-12
    far: float = 8.0
    explained: float = 8.0
    noise: float = 10.0
    least_noise: float = 4 * UNIT_ROUNDOFF
    bent: float = 8 * UNIT_ROUNDOFF
    safety: float = 64 * UNIT_ROUNDOFF
    last_bits: float = 1e-12


THRESHOLDS = Thresholds()


class Zeros(NamedTuple):
    """What tells that a gradient is zero.

    Attributes:
        reach: S, the size of the slopes that the cost has around, (n,) or one for all; inf where
            what is known of ĝ does not depend on it.
        exact: for all, or for each, (n,): whether a ĝ of exactly zero says that J does not depend
            on the entry; it does not where J has so few digits that the step may be too short to
            change them.
    """

    reach: FloatArray | float = 0.0
    exact: bool | NDArray[np.bool_] = True


#: What is zero is known to be.
KNOWN = Zeros()


def entry_verdicts(
    grad: FloatArray,
    gradapprox: FloatArray,
    uncertainty: FloatArray,
    typical: FloatArray | float,
    tolerance: FloatArray | float,
    floor: FloatArray | float = THRESHOLDS.floor,
    zeros: Zeros = KNOWN,
) -> NDArray[np.uint8]:
    """Index into `ENTRY_VERDICTS` for every entry.

    With g, ĝ, U, s and S, T = tolerance · max(|g|, |ĝ|) + floor · s. An entry is nonfinite if g is;
    unresolved, if ĝ is not finite; disagree, if |g − ĝ| > T + U; else agree, if
    U ≤ 1e-3 · max(|g|, |ĝ|, s), or U ≤ 1e-6 · S, or both are exactly zero; else unresolved.

    Args:
        grad: g, (n,).
        gradapprox: ĝ, (n,).
        uncertainty: U, (n,).
        typical: s, (n,); the root mean square of ĝ over the entry's tensor.
        tolerance: relative, (n,) or one for all.
        floor: the share of s that is allowed to any entry, (n,) or one for all.
        zeros: what tells a zero.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        own = np.maximum(np.abs(grad), np.abs(gradapprox))
        allowed = tolerance * own + floor * typical
        errors = np.abs(grad - gradapprox)
    return verdicts_on_errors(
        grad, gradapprox, errors, allowed, np.maximum(own, typical), uncertainty, zeros
    )


def verdicts_on_errors(
    grad: FloatArray,
    gradapprox: FloatArray,
    errors: FloatArray,
    allowed: FloatArray,
    scale: FloatArray,
    uncertainty: FloatArray,
    zeros: Zeros,
) -> NDArray[np.uint8]:
    """`entry_verdicts` where |g − ĝ|, T and max(|g|, |ĝ|, s) are known already."""
    # inf and NaN are told apart below; an error too large for a float disagrees
    with np.errstate(invalid="ignore", over="ignore"):
        within = errors <= allowed + uncertainty
        resolved = uncertainty <= THRESHOLDS.resolution * scale
    codes = np.zeros(grad.size, dtype=np.uint8)
    if within.all() and resolved.all() and scale.max(initial=0.0) < np.inf:  # as nearly always
        return codes
    resolved |= (uncertainty <= THRESHOLDS.zero * zeros.reach) & (uncertainty < np.inf)
    resolved |= zeros.exact & (grad == 0) & (gradapprox == 0) & (uncertainty < np.inf)
    codes[~resolved] = UNRESOLVED
    codes[~within] = DISAGREE
    codes[~np.isfinite(gradapprox)] = UNRESOLVED
    codes[~np.isfinite(grad)] = NONFINITE
    return codes


def entry_scale(
    grad: FloatArray, gradapprox: FloatArray, typical: FloatArray | float
) -> FloatArray:
    """max(|g|, |ĝ|, s), (n,): what an entry's uncertainty is relative to."""
    scale = np.abs(grad)
    np.maximum(scale, np.abs(gradapprox), out=scale)
    return np.maximum(scale, typical, out=scale)


def verdict_of(worst: int) -> Verdict:
    """The verdict on a tensor whose worst entry has the index `worst` into `ENTRY_VERDICTS`."""
    if worst >= DISAGREE:
        return "wrong"
    return "unresolved" if worst == UNRESOLVED else "correct"


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all tensors: wrong before unresolved before correct."""
    return max(verdicts, key=("correct", "unresolved", "wrong").index)


def relative_difference(grad: FloatArray, gradapprox: FloatArray) -> float:
    """‖grad − gradapprox‖₂ / (‖grad‖₂ + ‖gradapprox‖₂), the lab's formula; 0 where both are zero.

    >>> import numpy as np
    >>> relative_difference(np.array([3.0]), np.array([1.0]))
    0.5
    """
    sizes = _largest(grad), _largest(gradapprox)
    if not all(map(math.isfinite, sizes)):
        return math.nan
    exponent = _exponent(max(sizes))
    if exponent:  # a common power of two cancels exactly
        grad, gradapprox = np.ldexp(grad, -exponent), np.ldexp(gradapprox, -exponent)
    denominator = _norm(grad) + _norm(gradapprox)
    return _norm(grad - gradapprox) / denominator if denominator else 0.0


def root_mean_square(vector: FloatArray) -> float:
    """Of the finite entries, also where their squares would overflow or vanish; 0 for none."""
    largest = _largest(vector)
    if not math.isfinite(largest):
        vector = vector[np.isfinite(vector)]
        largest = _largest(vector)
    if largest == 0:
        return 0.0
    exponent = _exponent(largest)
    mean = _norm(np.ldexp(vector, -exponent)) / math.sqrt(vector.size)
    # rounded up, the mean of the largest floats would be none
    return math.ldexp(min(mean, math.ldexp(largest, -exponent)), exponent)


def _largest(vector: FloatArray) -> float:
    """max |v|, without a copy; NaN if there is one."""
    return max(float(vector.max(initial=0.0)), -float(vector.min(initial=0.0)))


def _norm(vector: FloatArray) -> float:
    return math.sqrt(float(vector @ vector))


def _exponent(largest: float) -> int:
    """The power of two to divide by before squaring; 0 where the squares are in range anyway."""
    return 0 if largest == 0 or 1e-120 < largest < 1e120 else math.frexp(largest)[1]
