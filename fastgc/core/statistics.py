"""What random directions say of a gradient's error: how large it is, and what would have shown.

Along v ~ N(0, I) a gradient that is off by e misses the slope of the cost by r = v·e, which is
N(0, ‖e‖²). So Σ r² / ‖e‖² over D directions is χ² with D degrees of freedom.
"""

import math
from dataclasses import dataclass

import numpy as np

from fastgc.core.tree import FloatArray

CONFIDENCE, SURE = 0.95, 0.999
NOISY = 1.1  # noise may carry a residual to the right side by a tenth of what is allowed for it


@dataclass(frozen=True)
class Estimate:
    """The error e of a gradient, relative to ‖grad‖; 0 where both are 0.

    Attributes:
        directions: how many it rests on.
        error: √(mean r²) / ‖grad‖, with the residuals r.
        low: the lower end of a 95 % confidence interval of ‖e‖ / ‖grad‖. What a right gradient may
            leave of a residual, by rounding, by the length of the step or at a corner, does not
            count: it begins at 0 where that may be all there is.
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
    residuals: FloatArray, least: FloatArray, most: FloatArray, caught: float, norm: float
) -> Estimate:
    """What residuals along D directions tell.

    Args:
        residuals: r = v·grad − FD_v, (D,).
        least: as small as |v·e| may be, (D,).
        most: as large as it may be, (D,).
        caught: the smallest ‖e‖ that would have shown.
        norm: ‖grad‖.
    """
    from scipy.special import gammaincinv

    D = residuals.size
    with np.errstate(all="ignore"):
        finite = np.isfinite(residuals).all()
        error = math.sqrt(float(np.mean(np.square(residuals)))) if finite else math.nan
        # the quantiles of χ² with D degrees of freedom
        tail = (1 - CONFIDENCE) / 2
        upper, lower = (2 * float(gammaincinv(D / 2, p)) for p in (1 - tail, tail))
        low = math.sqrt(float(np.sum(np.square(least))) / upper)
        high = math.sqrt(float(np.sum(np.square(most))) / lower)
    return Estimate(D, *(_relative(value, norm) for value in (error, low, high, caught)))


def minimum_detectable_error(allowed: FloatArray) -> float:
    """The smallest ‖e‖ that D directions show with a probability of 99.9 %.

    Args:
        allowed: the largest |r| along each that agrees, (D,).
    """
    from scipy.special import ndtri

    # all |r| ≤ a ‖e‖ has the probability (2Φ(a) − 1)^D; the best few may tell more than all do
    counts = np.arange(1, allowed.size + 1)
    reach = ndtri(0.5 * (1 + (1 - SURE) ** (1 / counts)))
    return NOISY * float(np.min(np.sort(allowed) / reach))


def _relative(value: float, norm: float) -> float:
    if value == 0:
        return 0.0
    return value / norm if norm else math.inf


def share_interval(drawn: int, wrong: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % confidence interval of a share."""
    from scipy.special import betaincinv

    low = float(betaincinv(wrong, drawn - wrong + 1, 0.025)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, drawn - wrong, 0.975)) if wrong < drawn else 1.0
    return low, high
