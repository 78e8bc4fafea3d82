"""Gradients of JAX functions, checked over any pytree of parameters.

JAX is the extra ``jax``: ``pip install "fastgc[jax]"``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    advice = 'fastgc.jax needs JAX; pip install "fastgc[jax]"'
    raise ModuleNotFoundError(advice, name="jax") from error

import numpy as np

from fastgc import pipeline
from fastgc.check import GradientMismatch
from fastgc.core.gradients import NARROW
from fastgc.core.subset import subset_of
from fastgc.core.tree import flatten_parameters
from fastgc.costs.base import differ
from fastgc.diagnosis.upstream import Findings, findings, with_findings
from fastgc.jax.calling import PINNED, copied, float64, noting, unguarded
from fastgc.jax.evaluation import Loss, LossCost
from fastgc.jax.tree import Tree, gradients_of, is_function, tree_of
from fastgc.methods.registry import RANDOM
from fastgc.options import LossOptions, Options, read
from fastgc.report.data import also_saying
from fastgc.report.report import Report

__all__ = ["assert_gradients", "check"]

METHODS = ("auto", "loop", "stacked", RANDOM)

#: Options of `fastgc.check` that have no meaning here, and why.
REFUSED = {
    "vectorized": "whether jit(vmap(loss)) can be evaluated is found out by trying",
    "reseed": "random numbers of JAX come from keys, which are arguments of the loss",
    "against": "there is no fastgc.Network here to compare with",
    "threads": "JAX spreads each evaluation over the cores itself",
    "executor": "JAX spreads each evaluation over the cores itself",
}

SINGLE = "float32"

# Losses that lie so far apart, relative, are not the same function in float64 and float32.
APART = 1e-3


def check(
    loss: Callable[..., Any],
    params: Any,
    *args: Any,
    grads: Any = None,
    **options: Unpack[LossOptions],
) -> Report:
    """Whether the gradients of ``loss(params, *args)`` by `params` are right, entry by entry.

    Loss and gradients are evaluated in double precision, `params` and `args` converted to it; your
    ``jax_enable_x64`` stays as it is. Every floating-point leaf of `params` is a tensor of the
    report, under the path that JAX gives it: ``['dense']['kernel'][3, 7]`` is an entry. A pytree
    that is one array is called ``params``. Leaves of integers, booleans, keys or anything else, and
    empty ones, are passed on as they are.

    A float32 that the loss pins inside keeps it, and its gradients, in single precision: the report
    says so, they are held to 1e-4, and small ones may be "cannot tell". Less than that is refused.

    The gradient of 2·loss has to be twice that of the loss: a ``custom_vjp`` that ignores its
    cotangent is wrong, even where the loss is last and that is 1.

    Args:
        loss: a function that returns one real number; `params` are its first argument. For keyword
            arguments of its own pass ``lambda params, *args: loss(params, *args, train=False)``,
            for auxiliary output ``lambda params, *args: loss(params, *args)[0]``. It is compiled,
            for many sets of parameters in one call, wherever ``jit(vmap(loss))`` can be had and
            gives the same numbers. A loss that is compiled already, ``jax.jit(loss)``, is compiled
            in that form once for all checks of it; any other is in each.
        params: any pytree of arrays and numbers; never written to, nor donated.
        *args: passed on to the loss, likewise.
        grads: the gradients to be checked. None for those of ``jax.grad(loss)``, as for a loss with
            ``custom_vjp`` or ``custom_jvp`` in it; a pytree with the structure of `params`, those
            of leaves that are not floating-point being passed over; or a function of
            ``(params, *args)`` that returns one. Those of dtype float32 are held to 1e-4, of
            float16 to 5e-2, of bfloat16 to 2e-1.
        **options: method, epsilon, tolerance, only, sample, directions, per_tensor, seed, memory,
            progress, checkpoint, with the defaults of `fastgc.check`: see `fastgc.Options`. Names
            are those of leaves, as in ``only=["['dense']*"]``. `epsilon` is ``"auto"`` by default
            where the loss pins float32. JAX itself spreads each evaluation over the cores.

    The method ``stacked`` evaluates many sets of parameters in one call of ``jit(vmap(loss))``,
    ``loop`` one in each, and ``random`` along random directions, by default 16 evaluations for each
    tensor of any size. ``auto`` is ``stacked``, or ``loop`` where the loss does not allow that, for
    up to 20,000 entries to be checked, and ``random`` for more.

    Returns:
        A `fastgc.Report`, true when the gradients are right.

    Raises:
        TypeError, ValueError: for a loss, parameters, gradients or options that cannot be. Wrong
            gradients raise nothing.

    An exception that your own functions raise at `params` passes through, with a note of where it
    was raised. One that the loss raises a step away does not: `fastgc.check` says what is done.

    >>> import fastgc.jax, jax, jax.numpy as jnp
    >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    >>> def loss(params, x):
    ...     return jnp.sum(jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"]))
    >>> x = jnp.array([[1.0, 2.0]])
    >>> fastgc.jax.check(loss, params, x).ok
    True
    >>> def doubled(params, x):
    ...     grads = jax.grad(loss)(params, x)
    ...     return {"dense": {**grads["dense"], "bias": 2 * grads["dense"]["bias"]}}
    >>> report = fastgc.jax.check(loss, params, x, grads=doubled)
    >>> report.verdict, str(report.tensors["['dense']['bias']"].diagnosis)
    ('wrong', '2.000 × the numerical gradient')
    """
    if not callable(loss):
        raise TypeError(
            f"loss is a {type(loss).__name__}; wanted a function of (params, *args). "
            "The order of the arguments is loss, params, *args"
        )
    began = time.perf_counter()
    _require_known(options)
    choices = read(options, "fastgc.jax.check")
    tree = tree_of(params)
    at_params = Loss(loss, params, tree, args)
    layout, theta = flatten_parameters(dict(zip(tree.checked, at_params.values, strict=True)))
    subset = subset_of(layout, choices.only, choices.sample, choices.seed)
    with float64():
        value, gradients = _gradients(at_params, tree, grads, subset.layout.names)
        in_float32 = _is_in_float32(at_params.narrow_dtypes(value))
        if in_float32:
            choices = replace(
                choices,
                tolerance=max(choices.tolerance, NARROW[SINGLE].tolerance),
                epsilon="auto" if choices.epsilon is None else choices.epsilon,
            )
        passes = _passes(at_params, tree, gradients, choices.tolerance, single=in_float32)
        rows = at_params.rows(subset.layout.size, choices.memory)
    cost = LossCost(at_params, layout, theta, rows=rows, in_float32=in_float32)
    cost.derived = gradients
    report = pipeline.check(cost, gradients, choices)
    if not (report.ok or grads is None or is_function(grads, tree)):
        _require_same_loss(loss, params, args, float(value))
    if not tree.ordered:
        report = replace(report, origin=None)  # which is told by the order of the tensors
    if in_float32:
        report = also_saying(
            report,
            f"a dtype or an astype in the loss keeps it in {SINGLE}: its gradients are held to "
            f"{report.tolerance:g}, as that allows. x.dtype would follow its inputs",
        )
    return replace(with_findings(report, passes), seconds=time.perf_counter() - began)


def assert_gradients(
    loss: Callable[..., Any],
    params: Any,
    *args: Any,
    grads: Any = None,
    **options: Unpack[LossOptions],
) -> Report:
    """`check`, for tests: returns the `Report` of right gradients and raises on any other.

    Takes the arguments and options of `check`.

    Raises:
        fastgc.GradientMismatch: an AssertionError whose text is the report.

    >>> import fastgc.jax, jax.numpy as jnp
    >>> fastgc.jax.assert_gradients(lambda w: jnp.sum(w**3), jnp.array([1.0, 2.0])).ok
    True
    """
    __tracebackhide__ = True
    report = check(loss, params, *args, grads=grads, **options)
    if not report.ok:
        raise GradientMismatch(report)
    return report


def _require_known(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in REFUSED:
            raise TypeError(f"fastgc.jax takes no {name}=: {REFUSED[name]}. Leave it out")
        if name in Options.__annotations__:
            continue
        raise TypeError(
            f"fastgc.jax has no option {name}=. Is it an argument of the loss? Pass "
            f"lambda params, *args: loss(params, *args, {name}=...) as the loss"
        )
    method = options.get("method", "auto")
    if not isinstance(method, str):
        raise TypeError(f"method is {method!r}; wanted one of the names: {', '.join(METHODS)}")
    if method not in METHODS:
        advice = ""
        if method in ("incremental", "node"):
            advice = ". That one is for a fastgc.Network"
        raise ValueError(f'method is "{method}"; known here are: {", ".join(METHODS)}{advice}')


def _gradients(
    loss: Loss, tree: Tree, grads: Any, wanted: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """The loss, and the gradients that are to be checked, by name."""
    if grads is None:
        value, derived = loss.derive()
        return value, dict(zip(tree.checked, map(np.asarray, derived), strict=True))
    if is_function(grads, tree):
        value = loss.evaluate()
        with noting(f"grads raised this, called in double precision. {PINNED}"):
            grads = grads(*loss.called_with(loss.values))
        return value, gradients_of(tree, grads, wanted)
    gradients = gradients_of(tree, grads, wanted)
    return loss.evaluate(), gradients


def _passes(
    loss: Loss, tree: Tree, gradients: dict[str, Any], tolerance: float, *, single: bool
) -> Findings:
    """What JAX's gradients of multiples of the loss show; nothing where JAX has made none."""
    multiple = loss.multiple
    if multiple is None:
        return Findings()

    def run(by: float, _: int) -> dict[str, Any]:
        return dict(zip(tree.checked, map(np.asarray, multiple(by)[1]), strict=True))

    on_cpu = jax.default_backend() == "cpu"
    return findings(gradients, run, tolerance, on_cpu=on_cpu, single=single)


def _require_same_loss(
    loss: Callable[..., Any], params: Any, args: tuple[Any, ...], value: float
) -> None:
    """Raises ValueError for a loss that is another number as the caller calls it.

    Gradients that were computed elsewhere are then not those of what was checked.
    """
    called = jax.tree_util.tree_map(copied, (params, *args))
    try:
        with unguarded():
            returned = loss(*called)
            as_called = float(returned)
    except Exception:  # in single precision it cannot be had, and there is nothing to compare
        return
    narrow = NARROW.get(str(getattr(returned, "dtype", None)))
    apart = APART if narrow is None else max(APART, narrow.tolerance)
    if differ(as_called, value, apart):
        raise ValueError(
            f"the loss is {as_called!r} as you call it, and {value!r} in double precision, where "
            "fastgc checks it, so that gradients computed beforehand may be those of something "
            "else. Random numbers, as for dropout, differ between the two, and so does what is "
            "left where nearly equal numbers are subtracted, as in a perfect fit. Pass a function "
            "as grads=, such as jax.grad(loss): it is called in double precision as well"
        )


def _is_in_float32(dtypes: Sequence[str]) -> bool:
    """Whether the loss is in single precision, of these dtypes; half precision is refused."""
    half = " and ".join(dtype for dtype in dtypes if dtype != SINGLE)
    if half:
        raise ValueError(
            f"the loss computes in {half} where its parameters and arguments are float64, by a "
            "dtype or an astype in it. Differences of numbers of so few digits tell nothing; let "
            "it follow its inputs, as x.dtype, or take the dtype as an argument"
        )
    return bool(dtypes)
