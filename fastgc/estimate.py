"""What random directions say of a gradient's error: how large it is, and what would have shown.

Along v ~ N(0, I) a gradient that is off by e misses the slope of the cost by r = v·e, which is
N(0, ‖e‖²). So Σ r² / ‖e‖² over D directions is χ² with D degrees of freedom.
"""

import math
from dataclasses import dataclass

import numpy as np

from fastgc.layout import FloatArray

CONFIDENCE, SURE = 0.95, 0.999


@dataclass(frozen=True)
class Estimate:
    """The error e of a gradient, relative to ‖grad‖; 0 where both are 0.

    Attributes:
        directions: how many it rests on.
        error: √(mean r²) / ‖grad‖, with the residuals r.
        low: the lower end of a 95 % confidence interval of ‖e‖ / ‖grad‖. The interval allows for
            the rounding noise of each residual: it begins at 0 where noise may be all there is.
        high: its upper end.
        caught: the smallest ‖e‖ / ‖grad‖ with which these directions would not have agreed, with a
            probability of 99.9 %.
    """

    directions: int
    error: float
    low: float
    high: float
    caught: float


def estimate_of(
    residuals: FloatArray, doubts: FloatArray, allowed: FloatArray, norm: float
) -> Estimate:
    """What residuals along D directions tell.

    Args:
        residuals: r = v·grad − FD_v, (D,).
        doubts: how far rounding may have moved each, (D,).
        allowed: the largest |r| that agrees, of every direction that has to, (…, D).
        norm: ‖grad‖.
    """
    from scipy.special import gammaincinv, ndtri

    D = residuals.size
    with np.errstate(all="ignore"):
        size = np.abs(residuals)
        below, above = np.maximum(size - doubts, 0.0), size + doubts
        error = math.sqrt(float(np.mean(np.square(size)))) if np.isfinite(size).all() else math.nan
        # the quantiles of χ² with D degrees of freedom
        tail = (1 - CONFIDENCE) / 2
        most, least = (2 * float(gammaincinv(D / 2, p)) for p in (1 - tail, tail))
        low = math.sqrt(float(np.sum(np.square(below))) / most)
        high = math.sqrt(float(np.sum(np.square(above))) / least)
    # all |r| ≤ a ‖e‖ has the probability (2Φ(a) − 1)^D
    reach = float(ndtri(0.5 * (1 + (1 - SURE) ** (1 / D))))
    caught = float(np.max(allowed)) / reach
    return Estimate(D, *(_relative(value, norm) for value in (error, low, high, caught)))


def _relative(value: float, norm: float) -> float:
    if value == 0:
        return 0.0
    return value / norm if norm else math.inf
