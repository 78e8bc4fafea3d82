"""The front door: check, assert_gradients, numerical_gradient."""

from collections.abc import Callable
from typing import Any, Unpack

from fastgc import pipeline
from fastgc.core.tree import Container
from fastgc.costs.base import Cost, as_cost
from fastgc.network.compare import comparable
from fastgc.options import COMPARING, GradientOptions, Options, read, require_flag, require_reseed
from fastgc.report.report import Report


class GradientMismatch(AssertionError):  # noqa: N818  named in the public interface
    """Gradients that are wrong, or that cannot be told right from wrong.

    Attributes:
        report: the `Report`, which is also the message.
        step: of a training that was watched, which the message begins with; None elsewhere.

    >>> import fastgc
    >>> try:
    ...     fastgc.assert_gradients(lambda t: t**3, 2.0, 8.0)
    ... except fastgc.GradientMismatch as mismatch:
    ...     mismatch.report.verdict
    'wrong'
    """

    def __init__(self, report: Report, step: int | None = None) -> None:
        super().__init__(str(report) if step is None else f"step {step}: {report}")
        self.report = report
        self.step = step

    def __reduce__(self) -> tuple[type["GradientMismatch"], tuple[Report, int | None]]:
        return GradientMismatch, (self.report, self.step)


def check(
    cost: Callable[..., Any],
    parameters: Container,
    gradients: Container | Callable[..., Any],
    *,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    against: Callable[..., Any] | None = None,
    **options: Unpack[Options],
) -> Report:
    """Whether `gradients` are the gradients of `cost` at `parameters`, entry by entry.

    Args:
        cost: a `Network`, or any function parameters -> float. One that is a Numba dispatcher
            (``@numba.njit``) of one flat vector is run in compiled code, on several threads.
        parameters: a mapping name -> array, a sequence of arrays, or one array; real numbers.
            Never written to: the cost gets float64 copies, in the same kind of container.
        gradients: the same container with the same shapes, or a function of the parameters that
            returns it. A mapping may be keyed ``W1`` or ``dW1``; keys that belong to no parameter,
            as the ``dZ1``, ``dA1``, … of a backward pass, are passed over. One array may also be
            lists of numbers. Those of dtype float32 are held to 1e-4, of float16 to 5e-2.
        vectorized: the cost takes every array with a leading axis K and returns K costs.
        reseed: called before every evaluation of the cost, and before `gradients` where that is a
            function, so that a random cost draws the same numbers each time:
            ``reseed=lambda: rng.seed(0)``.
        against: for a `Network`: your own cost. That the two are the same is verified at the
            parameters and at five random points around them.
        **options: method, epsilon, tolerance, only, sample, directions, per_tensor, seed, memory,
            threads, progress, executor, checkpoint: see `Options`.

    Returns:
        A `Report`, true when the gradients are right.

    Raises:
        TypeError, ValueError: for input that cannot be checked, for a cost that is random, not
            finite, writes to its parameters or returns no number, and for a `Network` that does not
            compute the cost `against`. Wrong gradients raise nothing.

    An exception that the cost raises at the parameters passes through, with a note. One that it
    raises a step away is met with shorter steps, then with the side that exists; where there is
    none the entry is "unresolved", and the report says what was met. The cost is always called with
    the parameters as they are last.

    Source: the gradient-checking lab of the deep-learning courses; verdicts by entry instead of
    one threshold on the whole.

    >>> import fastgc, numpy as np
    >>> theta = {"w": np.array([3.0, 4.0])}
    >>> report = fastgc.check(lambda p: float(p["w"] @ p["w"]), theta, {"w": [6.0, 8.0]})
    >>> report.ok
    True
    >>> report = fastgc.check(lambda p: float(p["w"] @ p["w"]), theta, {"w": [6.0, 4.0]})
    >>> report.verdict, report.tensors["w"].worst.name
    ('wrong', 'w[1]')
    """
    choices = read(options, "check")
    at_theta = _as_cost(cost, parameters, vectorized, reseed)
    mine = None
    if against is not None:
        mine = as_cost(comparable(at_theta, against), parameters, reseed=reseed)
    return pipeline.check(at_theta, gradients, choices, mine)


def assert_gradients(
    cost: Callable[..., Any],
    parameters: Container,
    gradients: Container | Callable[..., Any],
    *,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    against: Callable[..., Any] | None = None,
    **options: Unpack[Options],
) -> Report:
    """`check`, for tests: returns the `Report` of right gradients and raises on any other.

    Takes the arguments and options of `check`.

    Raises:
        GradientMismatch: an AssertionError whose text is the report; it begins with "wrong" where
            entries disagree, with "cannot tell" where rounding hides them.

    >>> import fastgc
    >>> fastgc.assert_gradients(lambda t: t**3, 2.0, 12.0).ok
    True
    >>> fastgc.assert_gradients(lambda t: t**3, 2.0, 8.0)   # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    fastgc.check.GradientMismatch: wrong: parameters (1 of 1 entry) disagrees with ...
    """
    __tracebackhide__ = True
    report = check(
        cost,
        parameters,
        gradients,
        vectorized=vectorized,
        reseed=reseed,
        against=against,
        **options,
    )
    if not report.ok:
        raise GradientMismatch(report)
    return report


def numerical_gradient(
    cost: Callable[..., Any],
    parameters: Container,
    *,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    **options: Unpack[GradientOptions],
) -> Any:
    """The gradient of `cost` at `parameters` by central differences.

    Takes the options of `check`.

    Returns:
        The same kind of container as `parameters`, with the same names and shapes, float64. Where
        the cost can be had on one side alone, the slope there; where on none, NaN.

    Raises:
        TypeError, ValueError: for input that cannot be checked.

    >>> import fastgc
    >>> gradient = fastgc.numerical_gradient(lambda p: p["a"] * p["b"], {"a": 2.0, "b": 5.0})
    >>> {name: round(float(value), 6) for name, value in gradient.items()}
    {'a': 5.0, 'b': 2.0}
    """
    choices = read(options, "numerical_gradient", without=COMPARING)
    return pipeline.numerical_gradient(_as_cost(cost, parameters, vectorized, reseed), choices)


def _as_cost(
    cost: Callable[..., Any],
    parameters: Container,
    vectorized: bool,
    reseed: Callable[[], object] | None,
) -> Cost:
    require_flag(vectorized, "vectorized")
    require_reseed(reseed)
    return as_cost(cost, parameters, vectorized=vectorized, reseed=reseed)
