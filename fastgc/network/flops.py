"""What passes through a Network cost, in floating-point operations counted from its shapes."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

# Floating-point operations of one evaluation, roughly: of an activation, and of a loss.
ACTIVATION, LOSS = 5, 25


def forward_flops(widths: Sequence[int], m: int) -> float:
    """One forward pass: the products. Widths are n_0 … n_L, m the number of samples."""
    return float(sum(2 * k * n * m for k, n in pairwise(widths)))


def perturbations(widths: tuple[int, ...], m: int, *, by_unit: bool) -> int:
    """Two for each parameter; or `by_unit` for each pre-activation of each sample."""
    if by_unit:
        return 2 * m * sum(widths[1:])
    return 2 * sum((k + 1) * n for k, n in pairwise(widths))


@lru_cache(maxsize=64)
def carried_flops(widths: tuple[int, ...], m: int, *, by_unit: bool) -> float:
    """Carrying all perturbations up to the loss, if no unit is silent, and what comes around it.

    By unit the changes are put together by two products for each layer.
    """
    columns = [2.0 * n * m for n in widths]
    if not by_unit:
        for l in range(1, len(widths)):
            columns[l] *= widths[l - 1] + 1
    carried = sum(columns[l] * _column_flops(widths, l) for l in range(1, len(widths)))
    return carried + (3 if by_unit else 1) * forward_flops(widths, m)


def _column_flops(widths: Sequence[int], l: int) -> float:
    """Carrying one column from layer l up to the loss, if no unit is silent."""
    work = LOSS * widths[-1]
    for t, n in enumerate(widths[l + 1 :], start=l + 1):
        work += n if t == l + 1 else 2 * n * widths[t - 1]
        work += ACTIVATION * n if t < len(widths) - 1 else 0
    return float(work)
