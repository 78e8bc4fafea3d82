"""The caller's loss in double precision: as it is, compiled, and over many sets of parameters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fastgc.core.tree import FloatArray, Layout
from fastgc.costs.base import Batch, Candidate, Noting, differ
from fastgc.costs.function import LEAST_ROWS, FunctionCost
from fastgc.jax.calling import (
    PINNED,
    copied,
    float64,
    held,
    noting,
    require_concrete,
    require_scalar,
)
from fastgc.jax.tracing import narrow_dtypes, work_bytes
from fastgc.jax.tree import Tree
from fastgc.methods.stacked import CACHE_BYTES

Values: TypeAlias = Sequence[Any]  # one array for each leaf that is checked

# Sets of parameters in one call, at most. On 20-16-1 with m = 64, 64 took 13 µs each, 256 took 12,
# 1024 took 17, 8 took 17, one alone 108 (two cores); and looks at single points fill a block too.
MOST_ROWS = 64

# Entries beyond which method="auto" takes random directions. Their time grows with the square: of
# 784-32-10 with m = 32 (P = 25,450) it is 6 to 10 s on two cores, of a hundred times that a day.
MOST_ENTRIES = 20_000

# Evaluated in another way, a loss moves by rounding; what depends on its neighbours in a block, on
# chance or on the state of something else, by more than this.
SAME = 1e-5

RETURNED = "what the loss returned"

KEPT = 8  # compiled functions, three for each loss


@dataclass(frozen=True)
class Form:
    """A loss, and where its arrays belong in what it is called with; it can be hashed.

    Attributes:
        loss: the caller's function.
        structure: of the pytree (params, *args).
        checked: the numbers of the leaves that are checked.
        arrays: those of other leaves that are arrays.
        constants: all others, as (number, type, value).
    """

    loss: Callable[..., Any]
    structure: Any
    checked: tuple[int, ...]
    arrays: tuple[int, ...]
    constants: tuple[tuple[int, type, Any], ...]

    def __call__(self, values: Values, arrays: Values) -> Any:
        """The loss with these leaves."""
        leaves = {i: value for i, _, value in self.constants}
        leaves |= zip(self.checked, values, strict=True)
        leaves |= zip(self.arrays, arrays, strict=True)
        called = jax.tree_util.tree_unflatten(self.structure, [leaves[i] for i in sorted(leaves)])
        return require_scalar(self.loss(*called))

    @property
    def lasting(self) -> bool:
        """Whether another check of it may use what was compiled for this one.

        That of a loss which its owner compiled: JAX then holds what it read of other variables to
        be constant. Any other is traced anew.
        """
        if not isinstance(self.loss, jax.stages.Wrapped):
            return False
        try:
            hash(self.structure)
        except TypeError:
            return False
        plain = bool | int | float | complex | str | bytes
        return all(isinstance(value, plain) for _, _, value in self.constants)

    def compiled(self, kind: str) -> Callable[..., Any]:
        """(values, arrays) -> the ``loss``, or those of many ``rows`` of values.

        Or (values, arrays, by) -> so many times the loss, and the ``gradient`` of that.
        """
        return _kept(self, kind) if self.lasting else _compile(self, kind)


def _compile(form: Form, kind: str) -> Callable[..., Any]:
    def called(values: Values, arrays: Values) -> Any:  # JAX wants to hash what it compiles
        return form(values, arrays)

    if kind == "rows":
        return jax.jit(jax.vmap(called, in_axes=(0, None)))
    if kind == "gradient":
        return jax.jit(jax.value_and_grad(lambda v, arrays, by: by * called(v, arrays)))
    return jax.jit(called)


_kept = lru_cache(maxsize=KEPT)(_compile)


def bound(form: Form, kind: str, arrays: Values) -> Callable[..., Any]:
    """What is compiled of a form, with these arrays: a function of the values alone, or of `by`."""
    run = form.compiled(kind)
    return lambda values, *by: run(values, arrays, *by)


class Loss:
    """A loss at a point. All of this is for within `float64`.

    Attributes:
        values: the leaves that are checked, float64.
        single: values -> the loss, compiled where it can be.
        form: what is compiled; None where JAX cannot.
        arrays: the other arrays that it takes.
        multiple: by -> so many times the loss, and the gradient of that, once `derive` was called.
    """

    def __init__(
        self, loss: Callable[..., Any], params: Any, tree: Tree, args: tuple[Any, ...]
    ) -> None:
        for path, leaf in jax.tree_util.tree_flatten_with_path(args)[0]:
            require_concrete(leaf, f"args{jax.tree_util.keystr(path)}")
        leaves, self._structure = jax.tree_util.tree_flatten((params, *args))
        self._loss, self._checked = loss, tuple(tree.checked.values())
        self._traced = [isinstance(leaf, jax.Array) for leaf in leaves]
        self._held = [held(leaf) for leaf in leaves]
        self.values = [np.array(leaves[i], np.float64) for i in self._checked]
        self.form: Form | None = None
        self.arrays: list[Any] = []
        self.single: Callable[[Values], Any] = self.plain
        self.multiple: Callable[[float], tuple[Any, list[Any]]] | None = None

    def called_with(self, values: Values) -> Any:
        """(params, *args), in copies that may be written to or donated."""
        leaves = [
            jnp.array(leaf) if traced and isinstance(leaf, np.ndarray) else copied(leaf)
            for leaf, traced in zip(self._held, self._traced, strict=True)
        ]
        for i, value in zip(self._checked, values, strict=True):
            leaves[i] = jnp.array(value)
        return jax.tree_util.tree_unflatten(self._structure, leaves)

    def plain(self, values: Values) -> Any:
        """The loss as the caller calls it."""
        return require_scalar(self._loss(*self.called_with(values)))

    def evaluate(self) -> Any:
        """The loss at `values`."""
        value = self._compiled("loss")
        return self._called() if value is None else value

    def derive(self) -> tuple[Any, list[Any]]:
        """The loss at `values`, and its gradient as JAX has it."""
        derived: tuple[Any, list[Any]] | None = self._compiled("gradient", 1.0)
        if derived is not None:
            return derived
        self._called()
        values = [jnp.array(value) for value in self.values]
        self.multiple = lambda by: jax.value_and_grad(lambda v: by * self.plain(v))(values)
        with noting("jax.grad of the loss raised this. To check a gradient of yours, pass grads="):
            return self.multiple(1.0)

    def _called(self) -> Any:
        """The loss at `values`, for the first time."""
        with noting(f"the loss raised this, called in double precision. {PINNED}"):
            value = self._loss(*self.called_with(self.values))
        require_concrete(value, RETURNED)
        return require_scalar(value)

    def _compiled(self, kind: str, *by: float) -> Any:
        """What a compiled function returns at `values`; None where there is none."""
        for form, arrays in self._forms():
            run = bound(form, kind, arrays)
            try:
                returned = run(self.values, *by)
            except Exception:  # what is no fault of compiling is raised again, by the plain call
                continue
            require_concrete(jax.tree_util.tree_leaves(returned)[0], RETURNED)
            self.form, self.arrays, self.single = form, arrays, run
            if by:
                self.single, self.multiple = partial(_value_of, run), partial(run, self.values)
            return returned
        return None

    def _forms(self) -> Iterator[tuple[Form, list[Any]]]:
        """With all arrays as arguments; then with NumPy's as they are, for NumPy to work on."""
        of_jax = [i for i, traced in enumerate(self._traced) if traced]
        of_numpy = [i for i, leaf in enumerate(self._held) if _can_be_traced(leaf)]
        for numbers in dict.fromkeys((tuple(sorted({*of_jax, *of_numpy})), tuple(of_jax))):
            arrays = tuple(i for i in numbers if i not in self._checked)
            constants = tuple(
                (i, type(leaf), leaf)
                for i, leaf in enumerate(self._held)
                if i not in self._checked and i not in arrays
            )
            form = Form(self._loss, self._structure, self._checked, arrays, constants)
            yield form, [jnp.array(self._held[i]) for i in arrays]

    def alone(self) -> Callable[[Values], Any]:
        """One set of parameters at a time: compiled, where that is the same as being called."""
        one = float(self.plain(self.values))
        if self.form is not None:
            run = bound(self.form, "loss", self.arrays)
            if not differ(one, float(run(self.values)), SAME):
                return run
        again = float(self.plain(self.values))
        if differ(one, again, SAME):
            raise ValueError(
                f"the loss is {one!r} in one call and {again!r} in the next, of the same "
                "parameters: it is random, or keeps state. Draw its numbers with jax.random, from "
                "a key that is an argument"
            )
        return self.plain

    def rows(self, entries: int, memory: int) -> int:
        """How many sets of parameters go into one call: what a cache holds, with their work."""
        size = sum(value.size for value in self.values)
        each = 16 * size + (0 if self.form is None else work_bytes(self.traced))
        return int(min(MOST_ROWS, 2 * entries, max(2, min(CACHE_BYTES, memory) // each)))

    @cached_property
    def traced(self) -> Any:
        """The loss as JAX has traced it; None where it cannot."""
        if self.form is None:
            return None
        run = self.form.compiled("loss")  # whose trace JAX keeps
        return jax.make_jaxpr(run)(self.values, self.arrays).jaxpr

    def narrow_dtypes(self, value: Any) -> list[str]:
        """The dtypes below double precision that the loss, which returned `value`, computes in."""
        if self.traced is not None:
            count = len(self.values)
            moved = [i < count for i in range(len(self.traced.invars))]
            return sorted(narrow_dtypes(self.traced, moved))
        dtype = getattr(value, "dtype", np.dtype(np.float64))
        return [str(dtype)] if dtype.itemsize < 8 else []


class LossCost(FunctionCost):
    """A loss as a cost, in the fastest form that gives the caller's own numbers.

    Args:
        loss: at a point.
        layout: of its leaves that are checked.
        theta: these, (P,).
        rows: how many sets of parameters each call of jit(vmap(loss)) takes.
        in_float32: whether the loss passes through single precision.
    """

    affordable, noun = MOST_ENTRIES, "loss"

    def __init__(
        self, loss: Loss, layout: Layout, theta: FloatArray, *, rows: int, in_float32: bool
    ) -> None:
        super().__init__(self._one, layout, theta, None, dict(np.geterr()))
        self.row_bytes = 8 * theta.size
        self._loss, self._rows, self._in_float32 = loss, rows, in_float32
        self.unbatched = 'jit(loss) raises an exception. Pass method="loop"'
        if loss.form is not None:
            self._many = bound(loss.form, "rows", loss.arrays)
            batch = Batch(least=LEAST_ROWS, together=True)
            self.candidate = Candidate(batch, "jit(vmap(loss))", SAME)

    def value(self, vector: FloatArray) -> float:
        """The loss at a vector (P,), by the function that takes many where that is taken."""
        if self.batch is None:
            return super().value(vector)
        self._away[0] = vector is not self.theta
        return float(self.values(vector[np.newaxis])[0])

    def values(self, rows: FloatArray) -> FloatArray:
        """The losses (K,) of rows (K, P), through one compiled function of fixed height."""
        losses = []
        with Noting(self, rows[0], rows[-1]), np.errstate(**self._settings), float64():
            for start in range(0, len(rows), self._rows):
                part = rows[start : start + self._rows]
                missing = self._rows - len(part)
                if missing:
                    part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
                losses.append(np.asarray(self._many(self.layout.views(part)), np.float64))
        rounded: FloatArray = self._rounded(np.concatenate(losses)[: len(rows)])
        return rounded

    @cached_property
    def _alone(self) -> Callable[[Values], Any]:
        return self._loss.alone()

    def _one(self, parameters: dict[str, FloatArray]) -> float:
        with float64():
            # until it is known whether many are taken at once, what is compiled already serves
            call = self._alone if self.candidate is None else self._loss.single
            return float(self._rounded(float(call(list(parameters.values())))))

    def _rounded(self, losses: Any) -> Any:
        """With no more digits than float32 has, where the loss passes through that.

        Double precision has room for what that does to a loss to look like no noise: as steps, of
        which the next is nowhere near. Rounded alike the loss shows what noise there is.
        """
        if not self._in_float32:
            return losses
        digits = 1 + np.finfo(np.float32).nmant
        mantissa, exponent = np.frexp(losses)
        return np.ldexp(np.rint(np.ldexp(mantissa, digits)), exponent - digits)


def _value_of(run: Callable[..., Any], values: Values) -> Any:
    return run(values, 1.0)[0]


def _can_be_traced(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and (
        leaf.dtype.kind == "b" or bool(jnp.issubdtype(leaf.dtype, np.number))
    )
