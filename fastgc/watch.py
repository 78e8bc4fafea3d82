"""fastgc.watch: the gradients of a training, checked now and then."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from fastgc.check import check
from fastgc.core.gradients import flatten_gradients
from fastgc.core.subset import subset_of
from fastgc.costs.base import Cost, as_cost
from fastgc.methods.registry import METHODS, RANDOM, method_for
from fastgc.network.propagate import kernels_are_kept, kernels_are_loaded
from fastgc.options import WatchOptions, read_watch, require_flag, require_reseed
from fastgc.pipeline import require_method
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
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
    against: Callable[..., Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **options: Unpack[WatchOptions],
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
        vectorized: as for `check`.
        reseed: as for `check`. It is called where a check is made: let the cost draw from a
            generator that nothing else of the training draws from.
        against: as for `check`.
        clock: what the time is read from, seconds.
        **options: method, epsilon, tolerance, only, directions, per_tensor, seed, memory, threads:
            see `WatchOptions`.

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
    require_flag(vectorized, "vectorized")
    require_reseed(reseed)
    choices, ways = read_watch(options, "watch")
    require_method(choices.method)
    passed = {
        "epsilon": choices.epsilon, "tolerance": choices.tolerance, "only": choices.only,
        "memory": choices.memory, "threads": choices.threads, "progress": False,
        "vectorized": vectorized, "reseed": reseed, "against": against,
    }  # fmt: skip

    def moment(*of_step: Any) -> Moment:
        return _moment(cost, of_step, choices.method, passed)

    return Watcher(
        moment, every=every, budget=budget, credit=credit, on_wrong=on_wrong, clock=clock, **ways
    )


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
    at_theta = as_cost(cost, parameters, vectorized=options["vectorized"], reseed=options["reseed"])
    subset = subset_of(at_theta.layout, options["only"], None, 0)
    if not callable(gradients):
        flatten_gradients(at_theta.layout, gradients, subset.tensors)
    if method == "auto":
        chosen = method_for(at_theta, options["memory"])
    else:
        chosen = "loop" if method == RANDOM else method
    refusal = METHODS[chosen].refusal(at_theta)
    if refusal is not None:
        raise ValueError(f'method "{method}" cannot check this cost: {refusal}')
    tensors = len(subset.layout.names)
    spared: float = FIRST + (STEPS * tensors if options["epsilon"] == "auto" else 0)
    entries, loading = price_of_entries(at_theta, chosen) or (spared + 2 * subset.layout.size, 0.0)
    return Moment(
        tensors=tensors,
        evaluate=lambda: at_theta.value(at_theta.theta),
        check=lambda **way: check(cost, parameters, gradients, **way, **options),
        entries=entries,
        loading=loading,
        spared=spared,
    )


def price_of_entries(at_theta: Cost, method: str) -> tuple[float, float] | None:
    """What the kernels take for every entry of a Network: evaluations, and seconds to load them.

    None for a method that evaluates the cost itself.
    """
    chosen, flops = METHODS[method], METHODS[method].flops(at_theta)
    if not chosen.exact or flops is None or at_theta.flops is None:
        return None
    return KERNELS * flops / at_theta.flops, loading_time()


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
