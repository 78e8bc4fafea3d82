"""The lab's self-tests of the functions that a student writes; `fastgc.lab` offers them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def forward_propagation_test(target: Callable[[Any, Any], Any]) -> None:
    """The lab's self-test of a `forward_propagation`: prints " All tests passed." or raises.

    >>> from fastgc.lab import forward_propagation
    >>> forward_propagation_test(forward_propagation)
     All tests passed.
    """
    _self_test(target, (2, 4), 8.0, "J = theta * x")


def backward_propagation_test(target: Callable[[Any, Any], Any]) -> None:
    """The lab's self-test of a `backward_propagation`: prints " All tests passed." or raises.

    >>> from fastgc.lab import backward_propagation
    >>> backward_propagation_test(backward_propagation)
     All tests passed.
    """
    _self_test(target, (3, 4), 3.0, "dtheta = x")


def gradient_check_test(target: Callable[[Any, Any], Any]) -> None:
    """The lab's self-test of a `gradient_check`: prints " All tests passed." or raises.

    >>> from fastgc.lab import gradient_check
    >>> gradient_check_test(gradient_check)
     All tests passed.
    """
    _self_test(
        target,
        (3, 4),
        7.814075313343006e-11,
        "norm(grad - gradapprox) / (norm(grad) + norm(gradapprox)) with epsilon = 1e-7",
    )


def _self_test(
    target: Callable[[Any, Any], Any], arguments: tuple[int, int], wanted: float, formula: str
) -> None:
    name = getattr(target, "__name__", "the function")
    got = target(*arguments)
    # A rearranged formula may move the last digits of a gradapprox, and 1e-6 of the difference.
    number = np.shape(got) == () and np.asarray(got).dtype.kind in "iuf"
    if not number or not math.isclose(float(got), wanted, rel_tol=1e-5):
        raise AssertionError(
            f"{name}{arguments} returned {got!r}; wanted {wanted:g}. The formula is {formula}"
        )
    print(" All tests passed.")
