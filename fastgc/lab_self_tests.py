"""The lab's self-tests of the functions that a student writes; `fastgc.lab` offers them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

GREEN, RESET = "\033[92m", "\033[0m"

# gradient_check(3, 4), and gradient_check_n with the lab's planted bugs and without.
DIFFERENCE = 7.814075313343006e-11
PLANTED, MENDED = 0.2850931567761623, 1.1890913024229996e-07

NORMS = "norm(grad - gradapprox) / (norm(grad) + norm(gradapprox)) with epsilon = 1e-7"


def forward_propagation_test(target: Callable[[Any, Any], Any]) -> None:
    """The lab's self-test of a `forward_propagation`: " All tests passed." in green.

    Raises:
        AssertionError: where it returns something else than J = θx.

    >>> forward_propagation_test(lambda x, theta: theta + x)
    Traceback (most recent call last):
    AssertionError: <lambda>(2, 4) returned 6; wanted 8. The formula is J = theta * x
    """
    _self_test(target, (2, 4), 8.0, "J = theta * x")


def backward_propagation_test(target: Callable[[Any, Any], Any]) -> None:
    """The lab's self-test of a `backward_propagation`: " All tests passed." in green.

    Raises:
        AssertionError: where it returns something else than dJ/dθ = x.

    >>> backward_propagation_test(lambda x, theta: theta)
    Traceback (most recent call last):
    AssertionError: <lambda>(3, 4) returned 4; wanted 3. The formula is dtheta = x
    """
    _self_test(target, (3, 4), 3.0, "dtheta = x")


def gradient_check_test(target: Callable[[Any, Any], Any], difference: Any = None) -> None:
    """The lab's self-test of a `gradient_check`: " All tests passed." in green.

    Args:
        target: a function (x, theta) -> difference.
        difference: what ``target(3, 4)`` returned, which some editions of the lab pass too.

    Raises:
        AssertionError: where either is not the difference that the formula gives.

    >>> gradient_check_test(lambda x, theta: 0.0)
    Traceback (most recent call last):
    AssertionError: <lambda>(3, 4) returned 0.0; wanted 7.81408e-11. The formula is norm(grad - \
gradapprox) / (norm(grad) + norm(gradapprox)) with epsilon = 1e-7
    """
    if difference is not None and not (
        _is_number(difference) and math.isclose(difference, DIFFERENCE, rel_tol=0, abs_tol=1e-12)
    ):
        raise AssertionError(
            f"difference is {difference!r}; wanted {DIFFERENCE:g}, that of x = 3 and theta = 4. "
            f"The formula is {NORMS}"
        )
    _self_test(target, (3, 4), DIFFERENCE, NORMS)


def gradient_check_n_test(
    target: Callable[[Any, Any, Any, Any], Any], parameters: Any, gradients: Any, X: Any, Y: Any
) -> None:
    """The lab's self-test of a `gradient_check_n`: " All tests passed." in green.

    Args:
        target: a function (parameters, gradients, X, Y) -> difference.
        parameters: those of `gradient_check_n_test_case`.
        gradients: theirs, with the lab's planted bugs or without.
        X: the inputs of `gradient_check_n_test_case`.
        Y: its labels.

    Raises:
        AssertionError: where the difference is an array, or neither of the lab's two.

    >>> from fastgc.lab import gradient_check_n_test_case
    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> gradient_check_n_test(lambda *_: 0.0, parameters, {}, X, Y)
    Traceback (most recent call last):
    AssertionError: <lambda>(parameters, gradients, X, Y) returned 0.0; wanted 0.285093 with the \
planted bugs, or 1.18909e-07 without. The formula is norm(grad - gradapprox) / (norm(grad) + \
norm(gradapprox)) with epsilon = 1e-7
    """
    got = target(parameters, gradients, X, Y)
    # The smaller one is all rounding, of which another order of sums changes the third digit.
    right = not isinstance(got, np.ndarray) and any(
        _is_number(got) and math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-8)
        for wanted in (PLANTED, MENDED)
    )
    if not right:
        raise AssertionError(
            f"{_name(target)}(parameters, gradients, X, Y) returned {got!r}; wanted {PLANTED:g} "
            f"with the planted bugs, or {MENDED:g} without. The formula is {NORMS}"
        )
    _pass()


def _self_test(
    target: Callable[[Any, Any], Any], arguments: tuple[int, int], wanted: float, formula: str
) -> None:
    got = target(*arguments)
    # A rearranged formula may move the last digits of a gradapprox, and 1e-6 of the difference.
    if not _is_number(got) or not math.isclose(got, wanted, rel_tol=1e-5):
        raise AssertionError(
            f"{_name(target)}{arguments} returned {got!r}; wanted {wanted:g}. "
            f"The formula is {formula}"
        )
    _pass()


def _is_number(value: Any) -> bool:
    return np.shape(value) == () and np.asarray(value).dtype.kind in "iuf"


def _name(target: Callable[..., Any]) -> str:
    return getattr(target, "__name__", "the function")


def _pass() -> None:
    print(f"{GREEN} All tests passed.{RESET}")
