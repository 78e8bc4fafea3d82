"""The public boundary: check, assert_gradients, numerical_gradient.

What a caller passed is looked at here, once, before any work is done.
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgc.blocks import Division, division
from fastgc.claim import claim_of
from fastgc.diagnosis import diagnose
from fastgc.diagnosis.origin import origin
from fastgc.disputes import settle
from fastgc.layout import Container, FloatArray
from fastgc.likeness import require_likeness
from fastgc.methods import METHODS, Approximation, Base, Resources
from fastgc.methods.interface import Entries, Step
from fastgc.noise import noise_of_cost
from fastgc.problem import Problem, base_cost, pose
from fastgc.progress import Progress
from fastgc.report import Report, tensor_reports
from fastgc.requirements import require_flag, require_number, require_resources
from fastgc.selection import method_for
from fastgc.steps import balanced_steps
from fastgc.threads import available_cores, one_blas_thread
from fastgc.verdict import worst_verdict

if TYPE_CHECKING:
    from concurrent.futures import Executor

DEFAULT_MEMORY = 256 * 2**20


class GradientMismatch(AssertionError):  # noqa: N818  named in the public interface
    """Gradients that are wrong, or that cannot be told right from wrong.

    Attributes:
        report: the `Report`, which is also the message.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type["GradientMismatch"], tuple[Report]]:
        return GradientMismatch, (self.report,)


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
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    progress: bool = True,
    executor: "Executor | None" = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Report:
    """Whether `gradients` are the gradients of `cost` at `parameters`, entry by entry.

    Args:
        cost: a `Network`, or any function parameters -> float.
        parameters: a mapping name -> array, a sequence of arrays, or one array; real numbers.
            Never written to: the cost gets float64 copies, in the same kind of container.
        gradients: the same container with the same shapes, or a function of the parameters that
            returns it. A mapping may be keyed ``W1`` or ``dW1``; the ``dZ1``, ``dA1``, … that a
            backward pass returns beside them are passed over. Those of dtype float32 are held to
            1e-4, of float16 to 5e-2.
        method: ``loop``, ``stacked``, ``incremental``, ``node``, or ``auto``, which is
            `select_method`'s choice, and ``loop`` where `memory` is too little for that.
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
        memory: bytes that the method's blocks may take at once; results of P numbers come on top.
        threads: at most this many threads for a `Network`; None for one per core. Any other cost
            is called from the calling thread alone. Neither `memory` nor `threads` changes a bit
            of the result.
        progress: whether a check that lasts over a second shows a bar, in a terminal.
        executor: a `concurrent.futures.Executor`, of processes, threads, or Dask's
            ``client.get_executor()``, over whose workers ``loop``, ``incremental`` and ``node``
            spread their work. The cost and its data go to each worker once; the result is the same
            to the last bit. Work of a worker that is lost is done here, with a warning. What goes
            to a process has to be importable there: a function at the top level of a module.
        checkpoint: a file that what is done is saved to, every few seconds. A check of the same
            problem that finds it there goes on from it, as after a crash; it stays when all is
            done, so that checking mended gradients evaluates next to nothing anew.

    Returns:
        A `Report`, true when the gradients are right.

    Raises:
        TypeError, ValueError: for input that cannot be checked, for a cost that is random, not
            finite, writes to its parameters or returns no number, and for a `Network` that does not
            compute the cost `against`. Wrong gradients raise nothing.

    An exception that the cost raises passes through, with a note of where it was raised.

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
    problem, method, asked, loading = _prepare(
        cost, parameters, method, epsilon, vectorized, reseed, memory, progress, executor
    )
    divided = division(executor, checkpoint, None if METHODS[method].exact else problem)
    own = _posed_against(against, problem, parameters, reseed)
    began += loading  # once in a process, and none of the check's doing
    layout, exact = problem.layout, METHODS[method].exact
    if callable(gradients):
        if reseed is not None:
            reseed()
        gradients = gradients(layout.build(layout.views(problem.theta.copy())))
    claim = claim_of(layout, gradients, tolerance)
    with _AtWork(
        problem, METHODS[method].evaluations(problem), memory, threads, progress, divided
    ) as resources:
        base, spent = _base(problem, measured=not exact, memory=memory)
        if divided is not None:
            divided.identify(method, problem, base)
        apart = None
        if own is not None:
            apart, evaluations = require_likeness(problem, own, memory)
            spent += evaluations
        step, evaluations = _step(problem, base, asked)
        spent += evaluations

        def look(entries: Entries | None, step: Step) -> Approximation:
            return METHODS[method].approximate(problem, entries, base, step, resources)

        first = look(None, step)
        findings = settle(problem, base, look, step, claim, first, exact=exact)
        diagnoses = diagnose(problem, claim, findings)
    tensors = tensor_reports(layout, claim, findings, diagnoses)
    wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
    return Report(
        verdict=worst_verdict(tensor.verdict for tensor in tensors.values()),
        difference=findings.tally.difference,
        tolerance=tolerance,
        epsilon=float(np.max(step)),
        method=method,
        cost=base.cost,
        noise=base.noise,
        evaluations=spent + findings.evaluations,
        seconds=time.perf_counter() - began,
        tensors=tensors,
        origin=origin(layout.names, wrong, diagnoses),
        against=apart,
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
        The same kind of container as `parameters`, with the same names and shapes, float64.

    Raises:
        TypeError, ValueError: for input that cannot be checked.

    >>> import fastgc
    >>> gradient = fastgc.numerical_gradient(lambda p: p["a"] * p["b"], {"a": 2.0, "b": 5.0})
    >>> {name: round(float(value), 6) for name, value in gradient.items()}
    {'a': 5.0, 'b': 2.0}
    """
    memory, threads = require_resources(memory, threads, progress)
    problem, method, asked, _ = _prepare(
        cost, parameters, method, epsilon, vectorized, reseed, memory, progress, executor
    )
    exact = METHODS[method].exact
    divided = division(executor, checkpoint, None if exact else problem)
    with _AtWork(
        problem, METHODS[method].evaluations(problem), memory, threads, progress, divided
    ) as resources:
        # its noise matters to no verdict here, but to a step of its own choice, and to a checkpoint
        # as one more sign that this is the cost it was
        measured = asked == "auto" or (checkpoint is not None and not exact)
        base, _ = _base(problem, measured=measured, memory=memory)
        if divided is not None:
            divided.identify(method, problem, base)
        step, _ = _step(problem, base, asked)
        found = METHODS[method].approximate(problem, None, base, step, resources)
    return problem.layout.build(problem.layout.views(found.gradapprox))


def _prepare(
    cost: Callable[..., Any],
    parameters: Container,
    method: str,
    epsilon: float | str | None,
    vectorized: bool,
    reseed: Callable[[], object] | None,
    memory: int,
    announce: bool,
    executor: "Executor | None",
) -> tuple[Problem, str, float | str, float]:
    """The problem, the method and step to use on it, and the seconds that loading it took."""
    if not isinstance(method, str):
        raise TypeError(
            f"method is {method!r}; wanted one of the names: auto, {', '.join(METHODS)}"
        )
    if method != "auto" and method not in METHODS:
        raise ValueError(f'method is "{method}"; known are: auto, {", ".join(METHODS)}')
    require_flag(vectorized, "vectorized")
    if reseed is not None and not callable(reseed):
        raise TypeError(
            f"reseed is {reseed!r}; wanted a function without arguments that seeds what the cost "
            "draws from, as lambda: rng.seed(0)"
        )
    if executor is not None:
        from fastgc.crew import require_executor  # loads concurrent.futures

        require_executor(executor, reseeded=reseed is not None)
    problem = pose(cost, parameters, vectorized=vectorized, reseed=reseed)
    if method == "auto":
        method = method_for(problem, memory, spread=executor is not None)
    if executor is not None and not METHODS[method].spreads:
        raise ValueError(
            f'method "{method}" evaluates many sets of parameters in one call, which no executor '
            "can share; executor= serves loop, random, incremental and node"
        )
    refusal = METHODS[method].refusal(problem)
    if refusal is not None:
        raise ValueError(f'method "{method}" cannot check this cost: {refusal}')
    if isinstance(epsilon, str):
        if epsilon != "auto":
            raise ValueError(
                f'epsilon is "{epsilon}"; wanted a positive step such as 1e-7, or "auto"'
            )
    elif epsilon is not None:
        epsilon = require_number(epsilon, "epsilon")
        if epsilon == 0:
            raise ValueError("epsilon is 0; wanted a positive step such as 1e-7")
    if epsilon is None or (isinstance(epsilon, str) and METHODS[method].exact):
        epsilon = METHODS[method].epsilon
    loading = time.perf_counter()
    METHODS[method].load(announce)
    return problem, method, epsilon, time.perf_counter() - loading


def _posed_against(
    against: Callable[..., Any] | None,
    problem: Problem,
    parameters: Container,
    reseed: Callable[[], object] | None,
) -> Problem | None:
    """The caller's own cost, to be compared with a Network."""
    if against is None:
        return None
    if problem.inside is None:
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
    noise = noise_of_cost(problem, cost, memory)
    return Base(cost, noise.sigma, noise.coarse), spent + noise.evaluations


def _step(problem: Problem, base: Base, epsilon: float | str) -> tuple[float | FloatArray, int]:
    """ε, and the evaluations spent on choosing it."""
    if isinstance(epsilon, str):
        return balanced_steps(problem, base)
    return epsilon, 0


class _AtWork:
    """What a method may use; shows a bar meanwhile, and holds BLAS to one thread for a Network.

    A class, since a generator's context manager writes to the exceptions that pass through it.
    """

    def __init__(
        self,
        problem: Problem,
        total: int,
        memory: int,
        threads: int | None,
        show: bool,
        divided: Division | None,
    ) -> None:
        self.bar = Progress(total, enabled=show)
        self.blas: Any = contextlib.nullcontext()
        if problem.inside is not None and problem.inside.uses_threads:
            self.blas = one_blas_thread()
        # an underflow is harmless, and what overflows is reported as not finite; a cost that fastgc
        # cannot see into runs under the caller's settings
        self.signals = np.errstate(all="ignore")
        self.resources = Resources(
            memory=memory,
            threads=available_cores() if threads is None else threads,
            advance=self.bar.advance,
            skip=self.bar.skip,
            division=divided,
        )

    def __enter__(self) -> Resources:
        self.blas.__enter__()
        self.signals.__enter__()
        self.bar.__enter__()
        return self.resources

    def __exit__(self, *error: Any) -> None:
        try:
            self.bar.__exit__(*error)
            if self.resources.division is not None:
                self.resources.division.close()
        finally:
            self.signals.__exit__(*error)
            self.blas.__exit__(*error)
