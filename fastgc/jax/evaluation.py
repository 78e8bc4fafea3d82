"""The caller's loss in double precision: as it is, compiled, and over many sets of parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import FloatArray, scale_of
from fastgc.jax.calling import (
    PINNED,
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

# Evaluated in another way, a loss moves by rounding; what depends on its neighbours in a block, on
# chance or on the state of something else, by more than this.
SAME = 1e-5

AWAY = 1e-3  # of the parameters' scale: where the second point of that comparison is

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

    def place(self, values: Values, arrays: Values) -> tuple[Any, ...]:
        """(params, *args) with these leaves."""
        leaves: list[Any] = [None] * self.structure.num_leaves
        for i, _, value in self.constants:
            leaves[i] = value
        for numbers, some in ((self.checked, values), (self.arrays, arrays)):
            for i, value in zip(numbers, some, strict=True):
                leaves[i] = value
        called: tuple[Any, ...] = jax.tree_util.tree_unflatten(self.structure, leaves)
        return called

    def __call__(self, values: Values, arrays: Values) -> Any:
        """The loss."""
        return require_scalar(self.loss(*self.place(values, arrays)))

    @property
    def lasting(self) -> bool:
        """Whether another check of it may use what was compiled for this one.

        That of a loss which its owner compiled: JAX then holds what it read of other variables to
        be constant. Any other is traced anew.
        """
        plain = bool | int | float | complex | str | bytes
        if not isinstance(self.loss, jax.stages.Wrapped):
            return False
        return _can_be_hashed(self.structure) and all(
            isinstance(value, plain) for _, _, value in self.constants
        )


def _can_be_hashed(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _compile(form: Form, kind: str) -> Callable[..., Any]:
    def called(values: Values, arrays: Values) -> Any:  # JAX wants to hash what it compiles
        return form(values, arrays)

    if kind == "rows":
        return jax.jit(jax.vmap(called, in_axes=(0, None)))
    if kind == "gradient":
        return jax.jit(jax.value_and_grad(lambda v, arrays, by: by * called(v, arrays)))
    return jax.jit(called)


_kept = lru_cache(maxsize=KEPT)(_compile)


def _compiled(form: Form, kind: str) -> Callable[..., Any]:
    return _kept(form, kind) if form.lasting else _compile(form, kind)


def bound(form: Form, kind: str, arrays: Values) -> Callable[..., Any]:
    """values -> the ``loss``, or those of many ``rows``, compiled.

    Or (values, by) -> so many times the loss, and the ``gradient`` of that.
    """
    run = _compiled(form, kind)
    return lambda values, *by: run(values, arrays, *by)


class Posed:
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

    def called_with(self, values: Values) -> tuple[Any, ...]:
        """(params, *args), in copies that may be written to or donated."""
        leaves = []
        for leaf, traced in zip(self._held, self._traced, strict=True):
            array = isinstance(leaf, np.ndarray)
            leaves.append(jnp.array(leaf) if array and traced else leaf.copy() if array else leaf)
        for i, value in zip(self._checked, values, strict=True):
            leaves[i] = jnp.array(value)
        called: tuple[Any, ...] = jax.tree_util.tree_unflatten(self._structure, leaves)
        return called

    def plain(self, values: Values) -> Any:
        """The loss as the caller calls it."""
        return require_scalar(self._loss(*self.called_with(values)))

    def evaluate(self) -> Any:
        """The loss at `values`."""
        found = self._compiled("loss")
        return self._called() if found is None else found

    def derive(self) -> tuple[Any, list[Any]]:
        """The loss at `values`, and its gradient as JAX has it."""
        found: tuple[Any, list[Any]] | None = self._compiled("gradient")
        if found is not None:
            return found
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

    def _compiled(self, kind: str) -> Any:
        """What a compiled function returns at `values`; None where there is none."""
        for form, arrays in self._forms():
            run = bound(form, kind, arrays)
            call = partial(run, self.values)
            try:
                found = call(1.0) if kind == "gradient" else call()
            except Exception:  # what is no fault of compiling is raised again, by the plain call
                continue
            require_concrete(jax.tree_util.tree_leaves(found)[0], RETURNED)
            self.form, self.arrays = form, arrays
            self.single = run
            if kind == "gradient":
                self.single, self.multiple = partial(_value_of, run), call
            return found
        return None

    def _forms(self) -> Iterator[tuple[Form, list[Any]]]:
        """With all arrays as arguments; then with NumPy's as they are, for NumPy to work on."""
        ours = [i for i, traced in enumerate(self._traced) if traced]
        numpys = [i for i, leaf in enumerate(self._held) if _can_be_traced(leaf)]
        for numbers in dict.fromkeys((tuple(sorted({*ours, *numpys})), tuple(ours))):
            arrays = tuple(i for i in numbers if i not in self._checked)
            constants = tuple(
                (i, type(leaf), leaf)
                for i, leaf in enumerate(self._held)
                if i not in self._checked and i not in arrays
            )
            form = Form(self._loss, self._structure, self._checked, arrays, constants)
            yield form, [jnp.array(self._held[i]) for i in arrays]

    def cost(self, loss: float, entries: int, memory: int, *, many: bool) -> "Cost":
        """The loss for `fastgc.check`, in the fastest form that gives the caller's own numbers.

        Args:
            loss: at `values`.
            entries: how many are going to be perturbed.
            memory: bytes that a block may take.
            many: whether to try many sets of parameters in one call.
        """
        refusal = None
        if many:
            rows = self._rows(entries, memory)
            call, refusal = self._stacked(rows, loss)
            if refusal is None:
                return Cost(call, rows)
        call = self._alone(loss)
        return Cost(call, None, refusal)

    def _stacked(self, rows: int, loss: float) -> tuple[Callable[[Values], Any], str | None]:
        """jit(vmap(loss)), and why it will not do."""
        if self.form is None:
            return self.plain, "jit(loss) raises an exception"
        cost = Cost(bound(self.form, "rows", self.arrays), rows)
        points = [self.values, _moved(self.values)]
        wanted = [loss, _or_nan(self.single, points[1])]
        try:
            found = cost.stack([np.stack(pair) for pair in zip(*points, strict=True)])
        except Exception as error:
            return self.plain, f"jit(vmap(loss)) raises {_in_short(error)}"
        for one, many in zip(wanted, found.tolist(), strict=True):
            if not _same(one, many, abs(loss)):
                return self.plain, f"jit(vmap(loss)) gives {many!r} where the loss is {one!r}"
        return cost.call, None

    def _alone(self, loss: float) -> Callable[[Values], Any]:
        """One set of parameters at a time: compiled, where that is the same as being called.

        Raises:
            ValueError: for a loss that is another number each time.
        """
        one = float(self.plain(self.values))
        if self.form is not None:
            run = bound(self.form, "loss", self.arrays)
            if _same(one, float(run(self.values)), abs(loss)):
                return run
        again = float(self.plain(self.values))
        if not _same(one, again, abs(loss)):
            raise ValueError(
                f"the loss is {one!r} in one call and {again!r} in the next, of the same "
                "parameters: it is random, or keeps state. Draw its numbers with jax.random, from "
                "a key that is an argument"
            )
        return self.plain

    def _rows(self, entries: int, memory: int) -> int:
        """How many sets of parameters go into one call: what a cache holds, with their work."""
        size = sum(value.size for value in self.values)
        each = 16 * size + (0 if self.form is None else work_bytes(self.traced))
        return int(min(MOST_ROWS, 2 * entries, max(2, min(CACHE_BYTES, memory) // each)))

    @cached_property
    def traced(self) -> Any:
        """The loss as JAX has traced it; None where it cannot."""
        if self.form is None:
            return None
        run = _compiled(self.form, "loss")  # whose trace JAX keeps
        return jax.make_jaxpr(run)(self.values, self.arrays).jaxpr

    def narrow_dtypes(self, value: Any) -> list[str]:
        """The dtypes below double precision that the loss computes in all the same.

        Args:
            value: the loss, as it was returned.
        """
        if self.traced is not None:
            count = len(self.values)
            moved = [i < count for i in range(len(self.traced.invars))]
            return sorted(narrow_dtypes(self.traced, moved))
        dtype = getattr(value, "dtype", np.dtype(np.float64))
        return [str(dtype)] if dtype.itemsize < 8 else []


@dataclass(frozen=True, eq=False, repr=False)
class Cost:
    """A loss as a cost of a mapping name -> array.

    Attributes:
        call: values -> loss; or stacks of values -> losses.
        rows: how many sets of parameters each call takes; None where it takes one.
        refusal: why that is so, where many were tried.
        digits: binary ones that a loss is rounded to; None for all.
        fixed: parameters that are not moved, whatever the mapping says.
    """

    call: Callable[[Values], Any]
    rows: int | None
    refusal: str | None = None
    digits: int | None = None
    fixed: Mapping[str, FloatArray] = field(default_factory=dict)

    def __call__(self, parameters: dict[str, FloatArray]) -> Any:
        """The loss; or the losses of a stack."""
        values = [
            value if name not in self.fixed else np.broadcast_to(self.fixed[name], value.shape)
            for name, value in parameters.items()
        ]
        with float64():
            found = float(self.call(values)) if self.rows is None else self.stack(values)
        return found if self.digits is None else _rounded(found, self.digits)

    def at(self, parameters: dict[str, FloatArray]) -> float:
        """The loss of one set of parameters."""
        if self.rows is None:
            return float(self(parameters))
        return float(self({name: value[np.newaxis] for name, value in parameters.items()})[0])

    def rounded_to(self, dtype: str) -> "Cost":
        """With no more digits than this dtype, which the loss passes through, has.

        Double precision has room for what that does to a loss to look like no noise: as steps, of
        which the next is nowhere near. Rounded alike the loss shows what noise there is.
        """
        finfo: Any = jnp.finfo
        return replace(self, digits=1 + int(finfo(dtype).nmant))

    def stack(self, values: Values) -> FloatArray:
        """The losses of a stack of any height, through one compiled function of fixed height."""
        assert self.rows is not None
        count, losses = len(values[0]), []
        for start in range(0, count, self.rows):
            some = [value[start : start + self.rows] for value in values]
            missing = self.rows - len(some[0])
            if missing:
                some = [np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for v in some]
            losses.append(np.asarray(self.call(some), np.float64))
        return np.concatenate(losses)[:count]


def _rounded(values: Any, digits: int) -> Any:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissa, digits)), exponent - digits)


def _value_of(run: Callable[..., Any], values: Values) -> Any:
    return run(values, 1.0)[0]


def _can_be_traced(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and (
        leaf.dtype.kind == "b" or bool(jnp.issubdtype(leaf.dtype, np.number))
    )


def _moved(values: Values) -> list[FloatArray]:
    """Another point nearby."""
    rng = generator(8)
    return [
        v + AWAY * scale_of(v.ravel()).reshape(v.shape) * rng.standard_normal(v.shape)
        for v in values
    ]


def _or_nan(call: Callable[[Values], Any], values: Values) -> float:
    """The loss away from where it is checked; NaN where it cannot be had."""
    try:
        return float(call(values))
    except Exception:
        return float("nan")


def _same(one: float, other: float, scale: float) -> bool:
    """Whether two values of a loss of about this `scale` are the same number; NaN tells nothing."""
    if not (np.isfinite(one) and np.isfinite(other)):
        return True
    return abs(one - other) <= SAME * max(abs(one), abs(other), scale)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0].rstrip('.')}"
