"""The public boundary: check, assert_gradients, numerical_gradient.

What a caller passed is looked at here, once, before any work is done.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fastgc.core.gradients import analytic_gradient
from fastgc.core.subset import Subset, subset_of
from fastgc.core.tree import Container
from fastgc.core.verdict import worst_verdict
from fastgc.costs.base import Problem, base_cost, pose
from fastgc.costs.noise import Base, noise_of_cost
from fastgc.directions.check import check_along
from fastgc.methods.base import Method
from fastgc.methods.registry import METHODS, RANDOM
from fastgc.network.compare import require_same_cost
from fastgc.options import (
    require_directions,
    require_flag,
    require_number,
    require_resources,
    require_seed,
)
from fastgc.pipeline import AtWork, check_entries, gradient_of, identity_of, prepare
from fastgc.report.report import Report

if TYPE_CHECKING:
    from concurrent.futures import Executor

DEFAULT_MEMORY = 256 * 2**20


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
    method: str = "auto",
    epsilon: float | Literal["auto"] | None = None,
    tolerance: float = 2e-7,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    against: Callable[..., Any] | None = None,
    only: Sequence[str] | None = None,
    sample: int | None = None,
    directions: int | None = None,
    per_tensor: bool = True,
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    progress: bool = True,
    executor: "Executor | None" = None,
    checkpoint: str | os.PathLike[str] | None = None,
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
        method: ``loop``, ``stacked``, ``incremental``, ``node``, ``random``, or ``auto``, which is
            `select_method`'s choice, and ``loop`` where `memory` is too little for that.
            ``random`` takes 2 `directions` evaluations for each tensor, of any size: it says how
            large the error of each gradient is, and, where one is wrong, finds entries that are.
        epsilon: the step; None for the method's own: 1e-7, and 2⁻⁴⁰ for ``incremental`` and
            ``node``, whose differences do not cancel. ``"auto"`` measures, tensor by tensor, where
            truncation and the noise of the cost balance, as a noisy or single-precision cost
            needs; 12 evaluations for each tensor. ``incremental`` and ``node`` have no noise to
            balance and keep their own.
        tolerance: the relative error that an entry may have and still agree.
        vectorized: the cost takes every array with a leading axis K and returns K costs.
        reseed: called before every evaluation of the cost, and before `gradients` where that is a
            function, so that a random cost draws the same numbers each time:
            ``reseed=lambda: rng.seed(0)``.
        against: for a `Network`: your own cost. That the two are the same is verified at the
            parameters and at five random points around them.
        only: names of the tensors to check, or patterns of names, as ``["W1", "b*"]``; None for
            all. The gradients of the others may be left out of a mapping.
        sample: so many entries of each tensor, drawn at random, are checked; None for all.
        directions: how many random directions ``random`` takes through each tensor; None for 8.
        per_tensor: whether each of these goes through one tensor. False takes each through all of
            them: 2 `directions` evaluations in all, and as many again for each tensor only where
            something is wrong.
        seed: of the generator of directions and samples, which is fastgc's own.
        memory: bytes that the method's blocks may take at once; results of P numbers come on top.
        threads: at most this many threads for a `Network` or a compiled cost; None for one per
            core. Any other cost, and one compiled with ``parallel=True``, is called from the
            calling thread alone. Neither `memory` nor `threads` changes a bit of the result.
        progress: whether a check that lasts over a second shows a bar, in a terminal.
        executor: a `concurrent.futures.Executor`, of processes, threads, or Dask's
            ``client.get_executor()``, over whose workers ``loop``, ``random``, ``incremental`` and
            ``node`` spread their work. The cost and its data go to each worker once; the result is
            the same to the last bit. Work of a worker that is lost is done here, with a warning.
            What goes to a process has to be importable there, as a function at the top level of a
            module.
        checkpoint: a file that what is done is saved to, every few seconds. A check of the same
            problem that finds it there goes on from it, as after a crash; it stays when all is
            done, so that checking mended gradients evaluates next to nothing anew.

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
    began = time.perf_counter()
    tolerance = require_number(tolerance, "tolerance")
    memory, threads = require_resources(memory, threads, progress)
    count, seed = require_directions(directions), require_seed(seed)
    require_flag(per_tensor, "per_tensor")
    prepared = prepare(
        cost, parameters, method=method, epsilon=epsilon, vectorized=vectorized, reseed=reseed,
        memory=memory, announce=progress, executor=executor, checkpoint=checkpoint,
    )  # fmt: skip
    problem, engine, is_random = prepared.problem, prepared.engine, prepared.method == RANDOM
    if not is_random and (directions is not None or not per_tensor):
        raise ValueError(
            "directions= and per_tensor= are about random directions, and the method here is "
            f'"{prepared.method}"; pass method="random" as well'
        )
    subset = subset_of(problem.layout, only, sample, seed)
    if is_random and subset.layout.places is not None:
        raise ValueError(
            'sample= draws single entries, and method "random" looks along directions through all '
            "of a tensor; leave one of them out"
        )
    own = _posed_against(against, problem, parameters, reseed)
    began += prepared.loading  # once in a process, and none of the check's doing
    if callable(gradients):
        if reseed is not None:
            reseed()
        gradients = gradients(problem.layout.build(problem.layout.views(problem.theta.copy())))
    analytic = analytic_gradient(problem.layout, gradients, tolerance, subset)
    lines = count * (len(subset.layout.names) if per_tensor else 1)
    total = 2 * lines if is_random else _perturbations(problem, engine, subset)
    work = AtWork(prepared, total, memory, threads, progress)
    with work as resources:
        base, spent = _base(problem, measured=not engine.exact, memory=memory)
        if prepared.chunking is not None:
            looks: tuple[object, ...] = ()
            if is_random:
                looks = (count, seed, per_tensor, subset.entries, prepared.epsilon)
            prepared.chunking.identify(identity_of(prepared.method, problem, base, *looks))
        apart = None
        if own is not None:
            apart, evaluations = require_same_cost(problem, own, memory)
            spent += evaluations
        if is_random:
            found = check_along(
                problem, subset, analytic, base, prepared.epsilon, count, seed, engine, resources,
                per_tensor=per_tensor,
            )  # fmt: skip
        else:
            found = check_entries(
                problem, subset, analytic, base, prepared.epsilon, engine, resources
            )
    return Report(
        verdict=worst_verdict(tensor.verdict for tensor in found.tensors.values()),
        difference=found.difference,
        tolerance=tolerance,
        epsilon=found.epsilon,
        method=prepared.method,
        cost=base.cost,
        noise=base.noise,
        evaluations=spent + found.evaluations + work.spent,
        seconds=time.perf_counter() - began,
        tensors=found.tensors,
        origin=found.origin,
        against=apart,
        scope="; ".join(filter(None, (subset.scope, found.scope))) or None,
        estimate=found.estimate,
    )


def assert_gradients(
    cost: Callable[..., Any],
    parameters: Container,
    gradients: Container | Callable[..., Any],
    **options: Any,
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
    fastgc.checking.GradientMismatch: wrong: parameters (1 of 1 entry) disagrees with ...
    """
    __tracebackhide__ = True
    report = check(cost, parameters, gradients, **options)
    if not report.ok:
        raise GradientMismatch(report)
    return report


def numerical_gradient(
    cost: Callable[..., Any],
    parameters: Container,
    *,
    method: str = "auto",
    epsilon: float | Literal["auto"] | None = None,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    progress: bool = True,
    executor: "Executor | None" = None,
    checkpoint: str | os.PathLike[str] | None = None,
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
    memory, threads = require_resources(memory, threads, progress)
    prepared = prepare(
        cost, parameters, method=method, epsilon=epsilon, vectorized=vectorized, reseed=reseed,
        memory=memory, announce=progress, executor=executor, checkpoint=checkpoint,
    )  # fmt: skip
    if prepared.method == RANDOM:
        raise ValueError(
            'method "random" estimates the error of a gradient that it is given, and has none of '
            f"its own to return; known here are: auto, {', '.join(METHODS)}"
        )
    problem, engine, asked = prepared.problem, prepared.engine, prepared.epsilon
    with AtWork(prepared, engine.evaluations(problem), memory, threads, progress) as resources:
        # its noise matters to no verdict here, but to a step of its own choice, and to a checkpoint
        # as one more sign that this is the cost it was
        measured = asked == "auto" or (checkpoint is not None and not engine.exact)
        base, _ = _base(problem, measured=measured, memory=memory)
        if prepared.chunking is not None:
            prepared.chunking.identify(identity_of(prepared.method, problem, base))
        found = gradient_of(problem, base, asked, engine, resources)
    return problem.layout.build(problem.layout.views(found))


def _perturbations(problem: Problem, engine: Method, subset: Subset) -> int:
    """How many perturbed costs a check of entries will look at, if nothing is wrong."""
    if subset.entries is None or engine is METHODS["node"]:  # which looks at all units in any case
        return engine.evaluations(problem)
    return 2 * subset.layout.size


def _posed_against(
    against: Callable[..., Any] | None,
    problem: Problem,
    parameters: Container,
    reseed: Callable[[], object] | None,
) -> Problem | None:
    """The caller's own cost, to be compared with a Network."""
    if against is None:
        return None
    if problem.state is None:
        raise ValueError(
            "against= compares a fastgc.Network with a cost of your own, and the cost to be "
            "checked is a function already. Leave it out"
        )
    if not callable(against):
        raise TypeError(
            f"against is a {type(against).__name__}; wanted a function of the parameters"
        )
    return pose(against, parameters, reseed=reseed)


def _base(problem: Problem, *, measured: bool, memory: int) -> tuple[Base, int]:
    """J(θ) and its noise, where that is `measured`; and the evaluations spent."""
    cost, spent = base_cost(problem)
    if not measured:
        return Base(cost, noise=0.0), spent
    base, evaluations = noise_of_cost(problem, cost, memory)
    return base, spent + evaluations
