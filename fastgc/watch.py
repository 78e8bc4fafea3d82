"""fastgc.watch: the gradients of a training, checked now and then."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fastgc.check import DEFAULT_MEMORY, check
from fastgc.core.gradients import flatten_gradients
from fastgc.core.subset import subset_of
from fastgc.costs.base import Problem, pose
from fastgc.methods.registry import METHODS, RANDOM, method_for
from fastgc.network.flops import forward_flops
from fastgc.network.propagate import kernels_are_kept, kernels_are_loaded
from fastgc.options import require_number, require_resources
from fastgc.pipeline import require_choices
from fastgc.watcher import FIRST, STEPS, Moment, OnWrong, Watcher

# What a check is expected to take before one has been timed, rather too much than too little.
KERNELS = 5.0  # times as long as the same operations take in a forward pass
KEPT, COMPILED = 1.0, 10.0  # seconds to load the kernels from disk, and to compile them


def watch(
    cost: Callable[..., Any],
    *,
    every: int = 500,
    budget: float = 0.01,
    credit: float = 0.0,
    on_wrong: OnWrong = "raise",
    method: str = "auto",
    epsilon: float | Literal["auto"] | None = None,
    tolerance: float = 2e-7,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    against: Callable[..., Any] | None = None,
    only: Sequence[str] | None = None,
    directions: int | None = None,
    per_tensor: bool | None = None,
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Watcher:
    """Watches the gradients of a training: checks them now and then, and stops at a wrong one.

    Call what it returns with every step, *before* the step changes the parameters:
    ``watcher(parameters, gradients)``, or ``watcher(parameters, gradients, X, Y)`` where each step
    has a batch of its own, whose cost is then ``cost(X, Y)``. A step with no check due takes a
    fraction of a microsecond, and nothing is made or kept of its arguments.

    A check is due at the first step and `every` steps after the last one, and waits until the time
    it will take fits into the budget. Then it is the best that fits: every entry; else 8 random
    directions through each tensor; else up to 8 through all of them at once. What a check will
    take goes by one evaluation of the cost, timed before each, and by what it took the last time.
    The first such look waits until two evaluations fit, if they take no longer than a step.
    That a `Network`'s kernels are loaded, or compiled once in an installation, counts as well:
    until the budget has room for that, directions are taken. SciPy, which these need, is loaded by
    `watch` itself, before the time begins.

    Args:
        cost: as for `check`; or what makes the cost of a step from its batch, as
            ``fastgc.Network`` or ``lambda X, Y: fastgc.Network(X, Y, activation="tanh")``, which
            is called only where a check is due, and at the first step.
        every: steps between checks, at least.
        budget: the share of the time since the first step that checks may take. A check that
            takes longer than expected is made up for by later ones.
        credit: seconds that they may take on top of that, so that the first step is checked.
        on_wrong: what to do at the first wrong gradient, after which nothing more is checked:
            ``"raise"`` a `GradientMismatch` whose message begins with the step; ``"log"`` it as an
            error of the logger ``fastgc``; or a function that is called with it.
        method: ``auto`` for the best that fits; another is taken as it is, as seldom as it has to.
        epsilon: as for `check`.
        tolerance: as for `check`.
        vectorized: as for `check`.
        reseed: as for `check`. It is called where a check is made: let the cost draw from a
            generator that nothing else of the training draws from.
        against: as for `check`.
        only: as for `check`.
        directions: for method ``random``; None for as many as fit, up to 8.
        per_tensor: for method ``random``; None for whether that fits.
        seed: of the directions of the first check; every other draws others.
        memory: as for `check`.
        threads: as for `check`.
        clock: what the time is read from, seconds.

    Returns:
        A `Watcher`: call it, and ask it for `report`, `checks`, `seconds` and `share`.

    Raises:
        TypeError, ValueError: for options that cannot be, at once; for parameters, gradients and
            costs that cannot be checked, at the first step or where they are.

    A check that cannot tell is logged as a warning, once. An exception that the cost raises at
    the parameters passes through, with a note of the step.

    >>> import fastgc, numpy as np
    >>> w = np.array([3.0, 4.0])
    >>> with fastgc.watch(lambda w: float(w @ w), every=10, budget=1.0) as watcher:
    ...     for _ in range(100):
    ...         gradient = 2 * w
    ...         _ = watcher(w, gradient)
    ...         w = w - 0.1 * gradient
    >>> watcher.checks, watcher.report.ok
    (10, True)
    """
    if not callable(cost):
        raise TypeError(
            f"cost is a {type(cost).__name__}; wanted a function of the parameters, a Network, or "
            "what makes one of a step's batch"
        )
    if against is not None and not callable(against):
        raise TypeError(
            f"against is a {type(against).__name__}; wanted a function of the parameters"
        )
    require_choices(method, epsilon, vectorized, reseed)
    memory, threads = require_resources(memory, threads, progress=False)
    options = {
        "epsilon": epsilon, "tolerance": require_number(tolerance, "tolerance"),
        "vectorized": vectorized, "reseed": reseed, "against": against, "only": only,
        "memory": memory, "threads": threads,
    }  # fmt: skip

    def moment(*of_step: Any) -> Moment:
        return _moment(cost, of_step, method, options)

    return Watcher(
        moment, every=every, budget=budget, credit=credit, on_wrong=on_wrong, method=method,
        directions=directions, per_tensor=per_tensor, seed=seed, clock=clock,
    )  # fmt: skip


def _moment(
    cost: Callable[..., Any], of_step: tuple[Any, ...], method: str, options: Mapping[str, Any]
) -> Moment:
    """What the caller passed of one step."""
    if len(of_step) < 2:
        raise TypeError(
            f"the watcher got {len(of_step)} argument{'s' * (len(of_step) != 1)}; wanted "
            "watcher(parameters, gradients), and the batch after them where each step has its own"
        )
    parameters, gradients, *batch = of_step
    cost = _cost_of(cost, batch)
    problem = pose(cost, parameters, vectorized=options["vectorized"], reseed=options["reseed"])
    subset = subset_of(problem.layout, options["only"], None, 0)
    if not callable(gradients):
        flatten_gradients(problem.layout, gradients, subset.tensors)
    if method == "auto":
        chosen = method_for(problem, options["memory"])
    else:
        chosen = "loop" if method == RANDOM else method
    refusal = METHODS[chosen].refusal(problem)
    if refusal is not None:
        raise ValueError(f'method "{method}" cannot check this cost: {refusal}')
    tensors = len(subset.layout.names)
    spared: float = FIRST + (STEPS * tensors if options["epsilon"] == "auto" else 0)
    entries, loading = price_of_entries(problem, chosen) or (spared + 2 * subset.layout.size, 0.0)
    return Moment(
        tensors=tensors,
        evaluate=lambda: problem.evaluate(problem.theta),
        check=lambda **way: check(cost, parameters, gradients, **way, **options, progress=False),
        entries=entries,
        loading=loading,
        spared=spared,
    )


def price_of_entries(problem: Problem, method: str) -> tuple[float, float] | None:
    """What the kernels take for every entry of a Network: evaluations, and seconds to load them.

    None for a method that evaluates the cost itself.
    """
    state = problem.state
    count = METHODS[method].flops
    if state is None or not METHODS[method].exact or count is None:
        return None
    widths, m = state.widths, state.net.m
    work = count(widths, m) / forward_flops(widths, m)
    return KERNELS * work, loading_time()


def _cost_of(cost: Callable[..., Any], batch: list[Any]) -> Callable[..., Any]:
    """The cost of one step."""
    if not batch:
        if isinstance(cost, type):
            raise TypeError(
                f"cost is the class {cost.__name__}, which makes a cost of a step's batch, and the "
                "step came without one; wanted watcher(parameters, gradients, X, Y)"
            )
        return cost
    made = cost(*batch)
    if not callable(made):
        raise TypeError(
            f"the step came with a batch, and the cost made of it is a {type(made).__name__}; "
            "wanted a function of the parameters. Pass what makes one, as "
            "lambda X, Y: lambda parameters: f(parameters, X, Y)"
        )
    found: Callable[..., Any] = made
    return found


def loading_time() -> float:
    """Seconds that making the kernels ready is expected to take; asked without loading Numba."""
    if kernels_are_loaded():
        return 0.0
    return KEPT if kernels_are_kept() else COMPILED
