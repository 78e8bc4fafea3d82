"""Before a check begins: the problem, the method, and what it may use."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgc._version import __version__
from fastgc.core.gradients import AnalyticGradient
from fastgc.core.subset import Subset
from fastgc.core.tree import Container, Entries, FloatArray, Step, exact_steps
from fastgc.costs.base import Problem, pose
from fastgc.costs.noise import Base, balanced_steps
from fastgc.diagnosis.diagnose import diagnose
from fastgc.diagnosis.origin import origin, proven_right
from fastgc.methods.base import Approximation, Method
from fastgc.methods.registry import METHODS, RANDOM, engine_for, method_for
from fastgc.options import require_flag, require_number
from fastgc.parallel.chunks import Chunking, Resources, chunking
from fastgc.parallel.progress import Progress
from fastgc.parallel.threads import available_cores, one_blas_thread
from fastgc.report.data import Outcome
from fastgc.verdicts.outcome import tensor_reports, why_open
from fastgc.verdicts.second_look import completed, second_look

if TYPE_CHECKING:
    import os
    from concurrent.futures import Executor


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """A cost, and how it will be looked at.

    Attributes:
        problem: the cost at θ.
        method: its name.
        engine: what takes the differences: the method itself, or for ``random`` the one that does
            so along directions.
        epsilon: the step, or "auto".
        chunking: of the work into blocks; None where that is not needed.
        loading: seconds that making the method ready took, once in a process.
    """

    problem: Problem
    method: str
    engine: Method
    epsilon: float | str
    chunking: Chunking | None
    loading: float


def prepare(
    cost: Callable[..., Any],
    parameters: Container,
    *,
    method: str,
    epsilon: float | str | None,
    vectorized: bool,
    reseed: Callable[[], object] | None,
    memory: int,
    announce: bool,
    executor: "Executor | None",
    checkpoint: "str | os.PathLike[str] | None",
) -> Prepared:
    """Looks at what a caller passed, and decides what is to be done; nothing is evaluated yet."""
    epsilon = require_choices(method, epsilon, vectorized, reseed)
    if executor is not None:
        from fastgc.parallel.executor import require_executor  # loads concurrent.futures

        require_executor(executor, reseeded=reseed is not None)
    spread = executor is not None
    problem = pose(cost, parameters, vectorized=vectorized, reseed=reseed)
    if method == "auto":
        method = method_for(problem, memory, spread=spread)
    engine = METHODS[engine_for(problem, memory, spread=spread) if method == RANDOM else method]
    if spread and not engine.spreads:
        raise ValueError(
            f'method "{method}" evaluates many sets of parameters in one call, which no executor '
            "can share; executor= serves loop, random, incremental and node"
        )
    refusal = engine.refusal(problem)
    if refusal is not None:
        raise ValueError(f'method "{method}" cannot check this cost: {refusal}')
    if epsilon is None or (isinstance(epsilon, str) and engine.exact):
        epsilon = engine.epsilon
    loading = time.perf_counter()
    engine.load(announce)
    loading = time.perf_counter() - loading
    # kernels are sent arrays that fastgc makes; all else evaluates the problem
    divided = chunking(executor, checkpoint, None if engine.exact else problem)
    return Prepared(problem, method, engine, epsilon, divided, loading)


def identity_of(
    method: str, problem: Problem, base: Base, *others: object
) -> dict[str, tuple[object, ...]]:
    """What one check has to have in common with another to go on with its results."""
    layout, state = problem.layout, problem.state
    identity: dict[str, tuple[object, ...]] = {
        "the version of fastgc": (__version__,),
        "the method": (method, *others),
        "the parameters' names and shapes": (layout.kind, *layout.names, *layout.shapes),
        "the parameters' values": (problem.theta,),
        "the cost": (base.cost, base.noise, *base.seen),
    }
    if state is not None:
        net = state.net
        made = (repr(net.activation), net.loss, net.weight_decay, net.divisor)
        identity["the Network"] = (net.X, net.labels, *made)
    return identity


def require_method(method: object) -> None:
    """Raises TypeError or ValueError for what is no method's name."""
    known = ("auto", *METHODS, RANDOM)
    if not isinstance(method, str):
        raise TypeError(f"method is {method!r}; wanted one of the names: {', '.join(known)}")
    if method not in known:
        raise ValueError(f'method is "{method}"; known are: {", ".join(known)}')


def require_choices(
    method: object, epsilon: object, vectorized: object, reseed: object
) -> float | str | None:
    """The epsilon= asked for; TypeError or ValueError for what cannot be one of these options."""
    require_method(method)
    require_flag(vectorized, "vectorized")
    if reseed is not None and not callable(reseed):
        raise TypeError(
            f"reseed is {reseed!r}; wanted a function without arguments that seeds what the cost "
            "draws from, as lambda: rng.seed(0)"
        )
    if epsilon is None:
        return None
    if isinstance(epsilon, str):
        if epsilon != "auto":
            raise ValueError(
                f'epsilon is "{epsilon}"; wanted a positive step such as 1e-7, or "auto"'
            )
        return epsilon
    step = require_number(epsilon, "epsilon")
    if step == 0:
        raise ValueError("epsilon is 0; wanted a positive step such as 1e-7")
    return step


class AtWork:
    """What a method may use; shows a bar meanwhile, and holds BLAS to one thread for a Network.

    At its end the cost is evaluated at θ once more: it may keep what it was called with, as one
    that sets the weights of a model does.

    A class, since a generator's context manager writes to the exceptions that pass through it.

    Attributes:
        spent: evaluations at its end.
    """

    def __init__(
        self, prepared: Prepared, total: int, memory: int, threads: int | None, show: bool
    ) -> None:
        self.rest, self.spent = prepared.problem.rest, 0
        state = prepared.problem.state
        self.bar = Progress(total, enabled=show)
        self.blas: Any = contextlib.nullcontext()
        if state is not None and state.uses_threads:
            self.blas = one_blas_thread()
        # an underflow is harmless, and what overflows is reported as not finite; a cost that fastgc
        # cannot see into runs under the caller's settings
        self.signals = np.errstate(all="ignore")
        self.resources = Resources(
            memory=memory,
            threads=available_cores() if threads is None else threads,
            advance=self.bar.advance,
            skip=self.bar.skip,
            chunking=prepared.chunking,
        )

    def __enter__(self) -> Resources:
        self.blas.__enter__()
        self.signals.__enter__()
        self.bar.__enter__()
        return self.resources

    def __exit__(self, *error: Any) -> None:
        try:
            self.bar.__exit__(*error)
            if self.resources.chunking is not None:
                self.resources.chunking.close(error[1])
        finally:
            self.signals.__exit__(*error)
            self.blas.__exit__(*error)
            self.spent = self.rest(error[0] is not None)


def check_entries(
    problem: Problem,
    subset: Subset,
    analytic: AnalyticGradient,
    base: Base,
    epsilon: float | str,
    method: Method,
    resources: Resources,
) -> Outcome:
    """Compares gradients with the differences of a method, entry by entry.

    Args:
        problem: the cost at θ.
        part: the entries that are checked.
        analytic: their gradients.
        base: J(θ) and its noise.
        epsilon: the step, or "auto".
        method: that takes the differences.
        resources: what it may use.
    """
    step, spent = step_of(problem, base, epsilon, method)

    def look(entries: Entries | None, step: Step) -> Approximation:
        places = subset.entries if entries is None else subset.whole(entries)
        return method.approximate(problem, places, base, step, resources)

    first = look(None, step)
    findings = second_look(
        problem, base, look, step, analytic, first, exact=method.exact, subset=subset,
        balanced=isinstance(epsilon, str),
    )  # fmt: skip
    diagnoses, asked = diagnose(problem, analytic, findings, subset)
    reasons, looked_up = why_open(problem, subset, findings, step)
    tensors = tensor_reports(subset.layout, analytic, findings, reasons | diagnoses)
    wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
    return Outcome(
        tensors=tensors,
        difference=findings.summary.difference,
        epsilon=float(np.max(step)) if isinstance(epsilon, str) else epsilon,
        evaluations=spent + findings.evaluations + asked + looked_up,
        # of a sample no tensor is known to be right
        origin=None
        if subset.layout.places or not wrong
        else origin(subset.layout.names, wrong, diagnoses, proven_right(subset.layout, findings)),
    )


def gradient_of(
    problem: Problem, base: Base, epsilon: float | str, method: Method, resources: Resources
) -> FloatArray:
    """gradapprox of all parameters, (P,); where the cost ends close by, of the side that exists.

    NaN where the cost can be had on neither side.
    """
    step, _ = step_of(problem, base, epsilon, method)

    def look(entries: Entries | None, step: Step) -> Approximation:
        return method.approximate(problem, entries, base, step, resources)

    found = look(None, step)
    if not np.isfinite(found.gradapprox).all() and not method.exact:
        return completed(problem, base, look, step, found)
    return found.gradapprox


def step_of(problem: Problem, base: Base, epsilon: float | str, method: Method) -> tuple[Step, int]:
    """ε, free of rounding beside θ where that matters; and the evaluations spent on choosing it."""
    if isinstance(epsilon, str):
        steps, spent = balanced_steps(problem, base)
        return steps if method.exact else exact_steps(problem.theta, steps), spent
    return epsilon if method.exact else exact_steps(problem.theta, epsilon), 0
