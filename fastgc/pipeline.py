"""From a cost, its gradients and options to a Report: the one route that every check takes."""

import contextlib
import time
from dataclasses import replace
from typing import Any

import numpy as np

from fastgc._version import __version__
from fastgc.core.gradients import AnalyticGradient, analytic_gradient
from fastgc.core.subset import Subset, subset_of
from fastgc.core.tree import Step, exact_steps
from fastgc.core.verdict import worst_verdict
from fastgc.costs.base import Base, Cost, base_cost
from fastgc.costs.batched import try_rows
from fastgc.costs.noise import balanced_steps, noise_of_cost
from fastgc.costs.unused import fixed, unused_parameters
from fastgc.diagnosis.diagnose import diagnose
from fastgc.diagnosis.origin import origin, proven_right
from fastgc.directions.check import ALONG
from fastgc.methods.base import Job, Method
from fastgc.methods.registry import METHODS, method_for
from fastgc.network.compare import require_same_cost
from fastgc.options import Choices
from fastgc.parallel.chunks import Chunking, Resources, chunking
from fastgc.parallel.progress import Progress
from fastgc.parallel.threads import available_cores, one_blas_thread
from fastgc.report.data import Outcome, also_saying
from fastgc.report.report import Report
from fastgc.verdicts.outcome import tensor_reports, why_open
from fastgc.verdicts.record import Check, at_work
from fastgc.verdicts.second_look import completed, second_look


def check(cost: Cost, gradients: object, choices: Choices, against: Cost | None = None) -> Report:
    """Compares gradients with a cost, by the method chosen.

    Args:
        cost: at θ.
        gradients: in the container of its parameters, or a function of these that returns it.
        choices: the options.
        against: the caller's own cost, which a Network's is compared with first.
    """
    began = time.perf_counter()
    subset = subset_of(cost.layout, choices.only, choices.sample, choices.seed)
    if cost.candidate is not None and choices.method != "loop":
        try_rows(cost, cost.candidate)
    method = choose(cost, choices, subset)
    if callable(gradients):
        gradients = cost.call(gradients)
    analytic = analytic_gradient(cost.layout, gradients, choices.tolerance, subset)
    cost, analytic, unused = _without_unused(cost, analytic, subset)
    began += _load(method, choices)  # once in a process, and none of the check's doing
    work = _Work(cost, method, choices, method.evaluations(cost, subset.layout, choices))
    with work as resources:
        base, spent = _base(cost, measured=not method.exact, memory=choices.memory)
        job = Job(cost, method, choices, _epsilon(method, choices), subset, analytic, base)
        _identify(resources.chunking, job)
        apart = None
        if against is not None:
            apart, evaluations = require_same_cost(cost, against, choices.memory)
            spent += evaluations
        outcome = (method.compare or _compare_entries)(job, resources)
    report = Report(
        verdict=worst_verdict(tensor.verdict for tensor in outcome.tensors.values()),
        difference=outcome.difference,
        tolerance=choices.tolerance,
        epsilon=outcome.epsilon,
        method=method.name,
        unit=method.unit,
        cost=base.cost,
        noise=base.noise,
        evaluations=spent + outcome.evaluations + work.spent,
        seconds=time.perf_counter() - began,
        tensors=outcome.tensors,
        origin=outcome.origin,
        against=apart,
        scope="; ".join(filter(None, (subset.scope, outcome.scope))) or None,
        estimate=outcome.estimate,
    )
    return also_saying(report, unused) if unused else report


def numerical_gradient(cost: Cost, choices: Choices) -> Any:
    """gradapprox in the container of the parameters; NaN where the cost can be had on no side."""
    subset = Subset(cost.layout)
    method = choose(cost, choices, subset)
    if method.along:
        known = ", ".join(name for name, other in METHODS.items() if not other.along)
        raise ValueError(
            f'method "{method.name}" estimates the error of a gradient that it is given, and has '
            f"none of its own to return; known here are: auto, {known}"
        )
    _load(method, choices)
    none = _no_gradient(cost)
    with _Work(cost, method, choices, method.evaluations(cost, cost.layout, choices)) as resources:
        # its noise matters to no verdict here, but to a step of its own choice, and to a checkpoint
        # as one more sign that this is the cost it was
        kept = choices.checkpoint is not None and not method.exact
        base, _ = _base(cost, measured=kept or choices.epsilon == "auto", memory=choices.memory)
        job = Job(cost, method, choices, _epsilon(method, choices), subset, none, base)
        _identify(resources.chunking, job)
        checked = _checked(job, resources)
        first = checked.method(None, checked.epsilon)
        gradapprox = first.gradapprox
        if not np.isfinite(gradapprox).all() and not method.exact:
            gradapprox = completed(checked, first)
    return cost.layout.build(cost.layout.views(gradapprox))


def choose(cost: Cost, choices: Choices, subset: Subset) -> Method:
    """The method that is asked for, or that ``auto`` takes.

    Raises:
        TypeError, ValueError: for one that is unknown, that cannot check this cost, or that has no
            use for an option.
    """
    spread = choices.executor is not None
    if spread:
        from fastgc.parallel.executor import require_executor  # loads concurrent.futures

        require_executor(choices.executor, reseeded=cost.traits.reseeded)
    name = require_method(choices.method)
    if name == "auto":
        name = method_for(cost, choices.memory, spread=spread)
        many = cost.affordable is not None and subset.layout.size > cost.affordable
        name = ALONG.name if many and choices.sample is None else name
    method = METHODS[name]
    if spread and not method.spreads:
        raise ValueError(
            f'method "{name}" evaluates many sets of parameters in one call, which no executor '
            "can share; executor= serves loop, random, incremental and node"
        )
    refusal = method.refusal(cost)
    if refusal is not None:
        raise ValueError(f'method "{name}" cannot check this {cost.noun}: {refusal}')
    if not method.along and (choices.directions is not None or not choices.per_tensor):
        raise ValueError(
            "directions= and per_tensor= are about random directions, and the method here is "
            f'"{name}"; pass method="random" as well'
        )
    if method.along and subset.layout.places is not None:
        raise ValueError(
            f'sample= draws single entries, and method "{name}" looks along directions through all '
            "of a tensor; leave one of them out"
        )
    return method


def require_method(name: object) -> str:
    """A method's name, or ``auto``; TypeError or ValueError for anything else."""
    known = ("auto", *METHODS)
    if not isinstance(name, str):
        raise TypeError(f"method is {name!r}; wanted one of the names: {', '.join(known)}")
    if name not in known:
        raise ValueError(f'method is "{name}"; known are: {", ".join(known)}')
    return name


def _without_unused(
    cost: Cost, analytic: AnalyticGradient, subset: Subset
) -> tuple[Cost, AnalyticGradient, str | None]:
    """The cost with tensors that it does not depend on fixed; and a word on them.

    That is for costs whose framework has derived all gradients: beside these a gradient is known to
    be rounding of zero.
    """
    largest = cost.largest_gradient()
    names = [] if largest is None else unused_parameters(cost, analytic, subset, largest)
    if not names:
        return cost, analytic, None
    grad = analytic.grad.copy()
    for name, part in subset.layout.tensors():
        grad[part] = 0.0 if name in names else grad[part]
    said = f"the loss does not depend on {', '.join(names)}: "
    said += "what gradient there is, is rounding of zero"
    return fixed(cost, names), replace(analytic, grad=grad), said


def _load(method: Method, choices: Choices) -> float:
    began = time.perf_counter()
    method.load(choices.progress)
    return time.perf_counter() - began


def _epsilon(method: Method, choices: Choices) -> float | str:
    chosen = choices.epsilon
    return method.epsilon if chosen is None or (method.exact and chosen == "auto") else chosen


def _base(cost: Cost, *, measured: bool, memory: int) -> tuple[Base, int]:
    """J(θ) and its noise, where that is `measured`; and the evaluations spent."""
    J, spent = base_cost(cost)
    if not measured:
        return Base(J, noise=0.0), spent
    base, evaluations = noise_of_cost(cost, J, memory)
    return base, spent + evaluations


def _identify(chunks: Chunking | None, job: Job) -> None:
    """Refuses a checkpoint of another check than this one."""
    if chunks is None:
        return
    cost, base, choices = job.cost, job.base, job.choices
    looks: tuple[object, ...] = ()
    if job.method.along:
        looks = (
            choices.lines, choices.seed, choices.per_tensor, job.subset.entries, job.epsilon
        )  # fmt: skip
    chunks.identify(
        {
            "the version of fastgc": (__version__,),
            "the method": (job.method.name, *looks),
            "the parameters' names and shapes": (
                cost.layout.kind, *cost.layout.names, *cost.layout.shapes,
            ),
            "the parameters' values": (cost.theta,),
            "the cost": (base.cost, base.noise, *base.seen),
            **cost.identity(),
        }
    )  # fmt: skip


class _Work:
    """What a method may use; shows a bar meanwhile, and holds BLAS to one thread where it matters.

    At its end the cost is evaluated at θ once more: it may keep what it was called with, as one
    that sets the weights of a model does.

    A class, since a generator's context manager writes to the exceptions that pass through it.

    Attributes:
        spent: evaluations at its end.
    """

    def __init__(self, cost: Cost, method: Method, choices: Choices, total: int) -> None:
        self._cost, self.spent = cost, 0
        self._bar = Progress(total, enabled=choices.progress)
        self._blas: Any = contextlib.nullcontext()
        if cost.traits.blas_threads:
            self._blas = one_blas_thread()
        # an underflow is harmless, and what overflows is reported as not finite; a function of the
        # caller's runs under the caller's settings
        self._signals = np.errstate(all="ignore")
        self._resources = Resources(
            memory=choices.memory,
            threads=available_cores() if choices.threads is None else choices.threads,
            advance=self._bar.advance,
            skip=self._bar.skip,
            # kernels are sent arrays that fastgc makes; all else evaluates the cost
            chunking=chunking(
                choices.executor,
                choices.checkpoint,
                None if method.exact else cost,
                one_blas_thread=cost.traits.blas_threads,
                alone=cost.traits.reseeded,
            ),
        )

    def __enter__(self) -> Resources:
        self._blas.__enter__()
        self._signals.__enter__()
        self._bar.__enter__()
        return self._resources

    def __exit__(self, *error: Any) -> None:
        try:
            self._bar.__exit__(*error)
            if self._resources.chunking is not None:
                self._resources.chunking.close(error[1])
        finally:
            self._signals.__exit__(*error)
            self._blas.__exit__(*error)
            self.spent = self._cost.rest(error[0] is not None)


def _no_gradient(cost: Cost) -> AnalyticGradient:
    tensors = len(cost.layout.names)
    none = np.zeros(tensors)
    return AnalyticGradient(
        grad=np.zeros(cost.layout.size), tolerances=none, units=np.ones(tensors), least=none,
        dtypes=("float64",) * tensors, in_float64=True,
    )  # fmt: skip


def _checked(job: Job, resources: Resources) -> Check:
    """What is checked, with the step, and the evaluations spent on choosing that."""
    cost, method, spent = job.cost, job.method, 0
    step: Step
    if isinstance(job.epsilon, str):
        step, spent = balanced_steps(cost, job.base)
    else:
        step = job.epsilon
    return Check(
        cost=cost, base=job.base, subset=job.subset, analytic=job.analytic,
        method=at_work(method, cost, job.subset, job.base, resources),
        # free of rounding beside θ where that matters
        epsilon=step if method.exact else exact_steps(cost.theta, step),
        exact=method.exact, balanced=isinstance(job.epsilon, str), evaluations=spent,
    )  # fmt: skip


def _compare_entries(job: Job, resources: Resources) -> Outcome:
    """Compares gradients with the differences of a method, entry by entry."""
    checked = _checked(job, resources)
    layout = job.subset.layout
    findings = second_look(checked, checked.method(None, checked.epsilon))
    diagnoses = diagnose(checked, findings)
    reasons = why_open(checked, findings)
    tensors = tensor_reports(layout, job.analytic, findings, reasons | diagnoses)
    wrong = [name for name, tensor in tensors.items() if tensor.verdict == "wrong"]
    return Outcome(
        tensors=tensors,
        difference=findings.summary.difference,
        epsilon=job.epsilon if isinstance(job.epsilon, float) else float(np.max(checked.epsilon)),
        evaluations=checked.evaluations,
        # of a sample no tensor is known to be right
        origin=None
        if layout.places or not wrong
        else origin(layout.names, wrong, diagnoses, proven_right(layout, findings)),
    )
