"""What each method would cost, before one is run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastgc.core.tree import Container, FloatArray
from fastgc.costs.base import Base, Cost, as_cost
from fastgc.directions.check import ALONG as ALONG  # which registers itself
from fastgc.methods.base import Method, best
from fastgc.methods.registry import METHODS, method_for
from fastgc.network.layers import LOSSES
from fastgc.network.network import Network
from fastgc.options import MEMORY, Choices, read, require_flag
from fastgc.parallel.chunks import Resources
from fastgc.parallel.threads import available_cores, one_blas_thread

TIMED = 8  # entries that are timed of a method that does not say how


@dataclass(frozen=True)
class Forecast:
    """What one method would cost.

    Attributes:
        perturbations: how many perturbed costs; for ``node``, of one sample each.
        operations: floating-point operations, if no unit is silent; None for a cost that fastgc
            cannot see into.
        memory: bytes at the peak, beyond what the caller's own arrays hold.
        seconds: of the method alone, as a sample of its work took on this machine, scaled. A check
            adds a verdict on every entry: some ten passes over the parameters.

    >>> import fastgc, numpy as np
    >>> forecast = fastgc.plan(lambda w: w @ w, np.ones(3)).forecasts["loop"]
    >>> forecast.perturbations, forecast.operations
    (6, None)
    """

    perturbations: int
    operations: float | None
    memory: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What each method would cost on one problem; prints as a table.

    Attributes:
        size: P, the number of parameters.
        chosen: the method that ``method="auto"`` takes.
        forecasts: method -> `Forecast`, for the methods that can check this cost.

    >>> import fastgc, numpy as np
    >>> plan = fastgc.plan(lambda w: float(w @ w), np.ones(1000))
    >>> print(str(plan).splitlines()[0])
    1,000 parameters; auto takes loop. Times of the methods alone, without the report
    """

    size: int
    chosen: str
    forecasts: Mapping[str, Forecast]

    def __str__(self) -> str:
        lines = [
            f"{self.size:,} parameters; auto takes {self.chosen}. "
            "Times of the methods alone, without the report",
            "",
        ]
        lines.append(
            f"{'method':<12}{'perturbations':>15}{'operations':>12}{'memory':>10}{'time':>10}"
        )
        for name, forecast in self.forecasts.items():
            work = "" if forecast.operations is None else f"{forecast.operations:.1e}"
            lines.append(
                f"{name:<12}{forecast.perturbations:>15,}{work:>12}"
                f"{_bytes(forecast.memory):>10}{_duration(forecast.seconds):>10}"
            )
        return "\n".join(lines)


def plan(
    cost: Callable[..., Any],
    parameters: Container,
    *,
    vectorized: bool = False,
    memory: int = MEMORY,
    threads: int | None = None,
) -> Plan:
    """What checking the gradients of `cost` would cost with each method that can.

    Nothing is checked. A small sample of each method's work is timed, a fraction of a second in
    all, and scaled to the whole.

    Args:
        cost: a `Network`, or any function parameters -> float.
        parameters: as for `check`.
        vectorized: as for `check`.
        memory: as for `check`.
        threads: as for `check`.

    Raises:
        TypeError, ValueError: for parameters that the cost cannot take.

    >>> import fastgc, numpy as np
    >>> net = fastgc.Network(np.ones((4, 3)), [0, 1, 1])
    >>> forecast = fastgc.plan(net, {"W1": np.ones((1, 4)), "b1": np.ones((1, 1))})
    >>> forecast.chosen, forecast.forecasts["node"].perturbations, list(forecast.forecasts)
    ('incremental', 6, ['loop', 'stacked', 'incremental', 'node', 'random'])
    """
    require_flag(vectorized, "vectorized")
    choices = read({"memory": memory, "threads": threads}, "plan")
    return planned(as_cost(cost, parameters, vectorized=vectorized), choices)


def planned(cost: Cost, choices: Choices) -> Plan:
    """`plan` of what is a `Cost` already."""
    threads = available_cores() if choices.threads is None else choices.threads
    resources = Resources(memory=choices.memory, threads=threads, advance=lambda _: None)
    forecasts = {}
    with one_blas_thread(), np.errstate(all="ignore"):
        for name, method in METHODS.items():
            if method.refusal(cost) is None and method.least_memory(cost) <= choices.memory:
                method.load(True)
                forecasts[name] = _forecast(method, cost, resources)
    return Plan(cost.layout.size, method_for(cost, choices.memory), forecasts)


def _forecast(method: Method, cost: Cost, resources: Resources) -> Forecast:
    besides = method.least_memory(cost)
    if method.memory is not None:
        besides = method.memory(cost, resources)
    seconds = partial(_seconds, method) if method.seconds is None else method.seconds
    return Forecast(
        perturbations=method.evaluations(cost, cost.layout, Choices()),
        operations=method.flops(cost),
        memory=8 * method.vectors * cost.layout.size + besides,
        seconds=seconds(cost, resources),
    )


def _seconds(method: Method, cost: Cost, resources: Resources) -> float:
    """Of a method that does not say: some entries, spread over the parameters, and scaled."""
    P = cost.layout.size
    sample = np.unique(np.linspace(0, P - 1, min(P, TIMED)).astype(np.intp))
    base = Base(cost.value(cost.theta), 0.0)
    run = partial(method.approximate, cost, sample, base, method.epsilon, resources)
    return P / sample.size * best(run, 2)


def drawn_network(
    widths: str, m: int, activation: str, loss: str
) -> tuple[Network, dict[str, FloatArray]]:
    """A random network of the `widths` "n_0,n_1,…,n_L", to plan for.

    Raises:
        ValueError: for widths or m that are no positive numbers, or unknown names.
    """
    try:
        numbers = [int(width) for width in widths.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or min(numbers) < 1:
        raise ValueError(
            f'widths is "{widths}"; wanted two or more positive numbers n_0,n_1,…,n_L, '
            "as 784,512,256,1"
        )
    if m < 1:
        raise ValueError(f"samples is {m}; wanted 1 or more")
    rng = np.random.default_rng(0)
    few = rng.standard_normal(min(2**20, max(numbers) ** 2))  # repeated: drawing 10⁸ takes seconds
    parameters = {}
    for l, (k, n) in enumerate(pairwise(numbers), start=1):
        parameters[f"W{l}"] = np.resize(few, (n, k)) * math.sqrt(2 / k)
        parameters[f"b{l}"] = np.zeros((n, 1))
    X = rng.standard_normal((numbers[0], m))
    classes = loss in LOSSES and LOSSES[loss].chances is not None
    Y = rng.integers(numbers[-1], size=m) if classes else rng.random((numbers[-1], m))
    return Network(X, Y, activation=activation, loss=loss), parameters


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
