"""What a method sees of a check: the cost as a function of flat vectors, or of stacks of them."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgc.core.tree import Container, FloatArray, Layout, flatten_parameters, scales
from fastgc.costs.function import Rest, as_float, as_stack
from fastgc.network.network import Network
from fastgc.network.state import ForwardState

if TYPE_CHECKING:
    from fastgc.costs.numba import CompiledCost

Cost = Callable[[Any], Any]

#: Relative differences of identical calls up to which a cost is noisy, as sums by threads are.
LAST_BITS = 1e-12


def _nothing(_: bool) -> int:
    return 0


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """A cost at a point, ready for a method.

    Attributes:
        layout: names and shapes of the parameters.
        theta: the parameters (P,).
        evaluate: vector (P,) -> cost; leaves the vector as it is.
        evaluate_stack: rows (K, P) -> costs (K,); None where the cost takes one set of parameters
            at a time.
        row_bytes: memory that evaluating one row of a stack takes besides the row itself.
        reseeded: whether something is called before each evaluation to make it repeatable.
        state: what fastgc sees inside a Network; None for any other cost.
        compiled: a cost that is a Numba dispatcher of one flat vector; None for any other.
        recipe: poses the same problem again, in another process: what pickling keeps of it.
        rest: evaluates the cost at θ once more, since some keep what they were called with; takes
            whether the check failed, and returns the evaluations spent.
        sizes: the scale of each parameter (P,), where `theta` does not tell it.
    """

    layout: Layout
    theta: FloatArray
    evaluate: Callable[[FloatArray], float]
    evaluate_stack: Callable[[FloatArray], FloatArray] | None
    state: ForwardState | None
    row_bytes: int
    reseeded: bool = False
    compiled: "CompiledCost | None" = None
    recipe: "Callable[[], Problem] | None" = None
    rest: Callable[[bool], int] = _nothing
    sizes: FloatArray | None = None

    def __reduce__(self) -> "tuple[Callable[[], Problem], tuple[()]]":
        if self.recipe is None:
            raise TypeError("this problem has no recipe")
        return self.recipe, ()

    def evaluate_or_nan(self, vector: FloatArray) -> float:
        """The cost away from θ; NaN where it cannot be had, or is not finite."""
        try:
            value = self.evaluate(vector)
        except Exception:
            return math.nan
        return value if math.isfinite(value) else math.nan

    def cost_near(self, entries: Any, by: Any) -> float:
        """The cost with these entries of θ moved by so much; NaN where it cannot be had."""
        moved = self.theta.copy()
        moved[entries] += by
        return self.evaluate_or_nan(moved)

    def stack_or_nan(self, rows: FloatArray) -> FloatArray:
        """The costs of a stack (K, P), (K,); NaN where they cannot be had, or are not finite.

        Raises:
            Exception: that of the stack, where each of its rows can be had alone.
        """
        assert self.evaluate_stack is not None
        try:
            found = self.evaluate_stack(rows)
            return (
                found if np.isfinite(found).all() else np.where(np.isfinite(found), found, np.nan)
            )
        except Exception:
            costs, met = np.full(len(rows), np.nan), False
            for i, row in enumerate(rows):
                costs[i] = self.evaluate_or_nan(row)
                met |= math.isnan(costs[i])
            if not met:
                raise
            return costs

    @cached_property
    def scale(self) -> FloatArray:
        """The scale of each parameter, (P,)."""
        return scales(self.layout, self.theta) if self.sizes is None else self.sizes

    @property
    def pure(self) -> bool:
        """Whether the cost is known to depend on nothing but its parameters; not tried twice."""
        return self.state is not None

    @property
    def concurrent(self) -> bool:
        """Whether `evaluate_stack` may run on several threads at once, and gains by it."""
        return self.compiled.concurrent if self.compiled is not None else self.state is not None

    @property
    def rows_at_once(self) -> int:
        """The most rows that `evaluate_stack` should be given; the bits do not depend on it.

        It runs to its end before Ctrl-C is looked at, and a compiled cost may be slow.
        """
        return self.compiled.rows_at_once if self.compiled is not None else sys.maxsize


def pose(
    cost: object,
    parameters: Container,
    *,
    vectorized: bool = False,
    reseed: Callable[[], object] | None = None,
) -> Problem:
    """The problem of checking `cost` at `parameters`; `reseed` is called before each evaluation.

    Raises:
        TypeError, ValueError: for a cost that is not callable and for unusable parameters.
    """
    if not callable(cost):
        raise TypeError(
            f"cost is a {type(cost).__name__}; wanted a function of the parameters, or a Network. "
            "The order of the arguments is cost, parameters, gradients"
        )
    return _posed(cost, *flatten_parameters(parameters), vectorized, reseed, _error_settings())


def _posed(
    cost: Cost,
    layout: Layout,
    theta: FloatArray,
    vectorized: bool,
    reseed: Callable[[], object] | None,
    settings: dict[str, Any],
) -> Problem:
    """The problem; `settings` are NumPy's for floating-point errors, for a cost of the caller's."""
    recipe = partial(_posed, cost, layout, theta, vectorized, reseed, settings)
    if isinstance(cost, Network) and not _overrides(type(cost)):
        return _network_problem(cost, layout, theta, recipe)
    if not vectorized and reseed is None and _is_compiled(cost, layout):
        return replace(_compiled_problem(cost, layout, theta, settings), recipe=recipe)
    called = cost if reseed is None else _reseeded(cost, reseed)
    make = _vectorized_problem if vectorized else _function_problem
    problem = make(called, layout, theta, settings)
    return replace(problem, reseeded=reseed is not None, recipe=recipe)


def _error_settings() -> dict[str, Any]:
    settings: dict[str, Any] = dict(np.geterr())
    if not {"call", "log"}.isdisjoint(settings.values()):
        settings["call"] = np.geterrcall()
    return settings


def _reseeded(cost: Cost, reseed: Callable[[], object]) -> Cost:
    def reseeded(parameters: Any) -> Any:
        reseed()
        return cost(parameters)

    return reseeded


def _is_compiled(cost: Cost, layout: Layout) -> bool:
    """Whether it is a Numba dispatcher of one flat vector."""
    numba = sys.modules.get("numba.core.registry")  # where it is not loaded, nothing is one
    if numba is None or layout.kind != "array" or len(layout.shapes[0]) != 1:
        return False
    return isinstance(cost, numba.CPUDispatcher) and not cost.targetoptions.get("forceobj")


def _overrides(kind: type[Network]) -> bool:
    """Whether a subclass of Network computes another cost, which fastgc cannot see into."""
    parts = ("__call__", "forward", "sample_losses", "propagate", "mean", "decay", "layers")
    return any(getattr(kind, part) is not getattr(Network, part) for part in parts)


def base_cost(problem: Problem) -> tuple[float, int]:
    """J(θ), and the number of evaluations spent on it.

    A cost that is not a Network is evaluated twice: it must give the same number both times, or one
    that differs in its last bits.

    Raises:
        ValueError: for a cost that is not finite, or is random.
    """
    value = problem.evaluate(problem.theta) if problem.state is None else problem.state.cost
    if not math.isfinite(value):
        raise ValueError(
            f"the cost is {value} at the parameters given; wanted a finite number. "
            "Check the data and the parameters, or use a form of the loss that does not overflow"
        )
    if problem.pure:
        return value, 1
    return value, 1 + require_repeatable(problem, value)


def require_repeatable(problem: Problem, value: float) -> int:
    """Evaluates J(θ) once more; 1, the evaluations spent.

    Raises:
        ValueError: for a cost that gives another number than `value` now, in more than its last
            bits.
    """
    again = problem.evaluate(problem.theta)
    if not abs(again - value) <= LAST_BITS * abs(value):
        raise random_cost(problem, value, again)
    return 1


def random_cost(problem: Problem, value: float, again: float) -> ValueError:
    """The error for a cost that gave `value` and then `again` at the same parameters."""
    advice = "dropout? seed it, with reseed=lambda: rng.seed(0) or the like"
    if problem.reseeded:
        advice = "reseed= was called before both, and is not what it draws from"
    return ValueError(
        f"the cost differs by {abs(again - value):.3g} between two identical calls "
        f"({value!r}, then {again!r}): it is random, or keeps state; {advice}"
    )


def _network_problem(
    net: Network, layout: Layout, theta: FloatArray, recipe: Callable[[], Problem]
) -> Problem:
    layers, layout = net.layers(layout)

    widest = max(layer.n for layer in layers)
    return Problem(
        layout,
        theta,
        evaluate=lambda vector: float(net.forward(layers, vector)),
        state=ForwardState(net, layers, theta),
        evaluate_stack=lambda rows: net.forward(layers, rows),
        row_bytes=7 * 8 * widest * net.m,  # Z, A and the temporaries of silu, the widest layer's
        recipe=recipe,
    )


def _function_problem(
    cost: Cost, layout: Layout, theta: FloatArray, settings: dict[str, Any]
) -> Problem:
    rest = Rest()

    def evaluate(vector: FloatArray) -> float:
        rest.away = vector is not theta
        arrays = layout.views(vector.copy())
        with _Noting(layout, theta, vector), np.errstate(**settings):
            value = cost(layout.build(arrays))
        if vector is theta:
            _refuse_writes(layout, theta, arrays)
        return as_float(value)

    return Problem(
        layout,
        theta,
        evaluate=evaluate,
        evaluate_stack=None,
        state=None,
        row_bytes=0,
        rest=partial(rest.evaluate, evaluate, theta),
    )


def _compiled_problem(
    cost: Cost, layout: Layout, theta: FloatArray, settings: dict[str, Any]
) -> Problem:
    from fastgc.costs.numba import CompiledCost

    compiled = CompiledCost(cost)
    problem = _function_problem(cost, layout, theta, settings)

    def evaluate(vector: FloatArray) -> float:
        began = time.perf_counter()
        value = problem.evaluate(vector)
        compiled.took(time.perf_counter() - began, 1)
        return value

    def evaluate_stack(rows: FloatArray) -> FloatArray:
        if not compiled.runs_alone:
            return np.array([evaluate(row) for row in rows])
        at = np.zeros(1, np.int64)
        try:
            return compiled.costs(rows, at)
        except Exception:
            with _Noting(layout, theta, rows[at[0]]):
                raise

    return replace(
        problem, evaluate=evaluate, evaluate_stack=evaluate_stack, compiled=compiled, rest=_nothing
    )


def _vectorized_problem(
    cost: Cost, layout: Layout, theta: FloatArray, settings: dict[str, Any]
) -> Problem:
    rest = Rest()

    def evaluate(vector: FloatArray) -> float:
        return float(evaluate_stack(vector[np.newaxis])[0])

    def evaluate_stack(rows: FloatArray) -> FloatArray:
        rest.away = rows.base is not theta
        arrays = [view.copy() for view in layout.views(rows)]
        with _Noting(layout, theta, rows[0], rows[-1]), np.errstate(**settings):
            value = cost(layout.build(arrays))
        if rows.base is theta:
            _refuse_writes(layout, theta, arrays)
        return as_stack(value, len(rows))

    return Problem(
        layout,
        theta,
        evaluate=evaluate,
        evaluate_stack=evaluate_stack,
        state=None,
        row_bytes=8 * layout.size,  # the copies that the cost may keep
        rest=partial(rest.evaluate, evaluate, theta),
    )


def _refuse_writes(layout: Layout, theta: FloatArray, arrays: list[FloatArray]) -> None:
    for name, shape, array in zip(layout.names, layout.shapes, arrays, strict=True):
        if array.size != math.prod(shape):
            raise ValueError(
                f"the cost resizes its parameters: {name} had {math.prod(shape)} entries before "
                f"the call and {array.size} after it. Let it work on copies of its own"
            )
    after = np.concatenate([array.ravel() for array in arrays])
    if not np.array_equal(after, theta):
        k = int(np.argmax(after != theta))
        raise ValueError(
            f"the cost writes to its parameters: {layout.entry(k)} was {theta[k]} before the call "
            f"and {after[k]} after it. It got a copy, so nothing of yours has changed; let it "
            "work on copies of its own"
        )


class _Noting:
    """Adds to an exception of the cost at which parameters it was raised.

    A class: a generator's context manager writes to the exception, which it may not allow.
    """

    def __init__(self, layout: Layout, theta: FloatArray, *vectors: FloatArray) -> None:
        self.layout, self.theta, self.vectors = layout, theta, vectors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not getattr(error, "__notes__", None):
            described = (_describe(self.layout, self.theta, vector) for vector in self.vectors)
            places = list(dict.fromkeys(described))
            where = f"at {places[0]}"
            if len(places) > 1:
                where = f"in the stack from {' to '.join(places)}"
            with contextlib.suppress(Exception):
                error.add_note(f"fastgc: the cost raised this {where}")


def _describe(layout: Layout, theta: FloatArray, vector: FloatArray) -> str:
    changed = np.flatnonzero(vector != theta)
    if changed.size == 0:
        return "the parameters as given"
    if changed.size == 1:
        k = int(changed[0])
        return f"{layout.entry(k)} {vector[k] - theta[k]:+.3g}"
    step = float(np.linalg.norm(vector - theta))
    first, last = layout.tensor_of(changed[[0, -1]])
    where = f" in {layout.names[first]}" if first == last and len(layout.names) > 1 else ""
    return f"a random step of length {step:.3g}{where}"
