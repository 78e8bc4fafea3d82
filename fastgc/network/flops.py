"""What a method costs on a Network, counted from its shapes."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

# Floating-point operations of one evaluation, roughly: of an activation, and of a loss.
ACTIVATION, LOSS = 5, 25

METHODS = ("loop", "stacked", "incremental", "node")  # those that are counted here


def forward_flops(widths: Sequence[int], m: int) -> float:
    """One forward pass: the products."""
    return float(sum(2 * k * n * m for k, n in pairwise(widths)))


def column_flops(widths: Sequence[int], l: int) -> float:
    """Carrying one column from layer l up to the loss, if no unit is silent."""
    upper = widths[l + 1 :]
    work = LOSS * widths[-1]
    for t, n in enumerate(upper, start=l + 1):
        work += n if t == l + 1 else 2 * n * widths[t - 1]
        work += ACTIVATION * n if t < len(widths) - 1 else 0
    return float(work)


def perturbations(method: str, widths: tuple[int, ...], m: int) -> int:
    """How many perturbed costs one of `METHODS` looks at; for `node`, of one sample each."""
    if method == "node":
        return 2 * m * sum(widths[1:])
    return 2 * sum((k + 1) * n for k, n in pairwise(widths))


@lru_cache(maxsize=64)
def flops(method: str, widths: tuple[int, ...], m: int) -> float:
    """The floating-point operations of a method on a Network, if no unit is silent.

    Args:
        method: one of `METHODS`.
        widths: n_0 … n_L.
        m: the number of samples.

    Raises:
        ValueError: for another method, whose own count stands in its `Method`.
    """
    if method not in METHODS:
        raise ValueError(f'the operations of "{method}" are counted where it is defined, not here')
    forward = forward_flops(widths, m)
    if method in ("loop", "stacked"):
        return perturbations(method, widths, m) * forward
    columns = [2.0 * n * m for n in widths]
    if method == "incremental":
        for l in range(1, len(widths)):
            columns[l] *= widths[l - 1] + 1
    carried = sum(columns[l] * column_flops(widths, l) for l in range(1, len(widths)))
    return forward + carried + (2 * forward if method == "node" else 0)
