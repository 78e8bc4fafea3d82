"""fastgc.jax beside what JAX users have: ``python -m benchmarks.jax_checkers``.

The same losses for all, in double precision and compiled (``jax.jit``). A wrong gradient is planted
by `custom_vjp`, so that all look at the same function; what a checker says is looked at before it
is timed. Needs the extra ``jax``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import test_util
from jax.flatten_util import ravel_pytree

import fastgc.jax
from benchmarks.tables import share, time_of
from fastgc.jax.calling import float64

COMMAND = "python -m benchmarks.jax_checkers"
ROWS = 256  # in a block, by hand
MOST = 1000  # parameters that all go into one call, by hand
SHORTEST, ROUNDS = 1.0, 5  # of repeated runs: seconds in all, and how many at least

Loss: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True)
class Model:
    """A loss at a point; `build` makes both anew, so that nothing of it has been compiled."""

    name: str
    build: Callable[[], tuple[Loss, Any]]


def _normal(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def network(*widths: int, m: int, corner: bool = False) -> tuple[Loss, Any]:
    """ReLU and a logistic loss. At a `corner` biases are zero, and so is one of the samples."""
    X, Y = _normal(0, m, widths[0]), _normal(1, m, widths[-1]) > 0
    params = [
        {"w": _normal(2 + n, k, n) * np.sqrt(2 / k), "b": 0.1 * _normal(3 + n, n)}
        for k, n in pairwise(widths)
    ]
    if corner:
        X = X.at[0].set(0.0)
        params = [{"w": layer["w"], "b": jnp.zeros_like(layer["b"])} for layer in params]

    def loss(params: Any) -> Any:
        A = X
        for layer in params[:-1]:
            A = jax.nn.relu(A @ layer["w"] + layer["b"])
        Z = A @ params[-1]["w"] + params[-1]["b"]
        return jnp.mean(jax.nn.softplus(jnp.where(Y, -Z, Z)))

    return loss, params


def convolutions() -> tuple[Loss, Any]:
    images, numbers = _normal(0, 8, 8, 8, 2), ("NHWC", "HWIO", "NHWC")
    params = {
        "first": _normal(1, 3, 3, 2, 6) / 4,
        "second": _normal(2, 3, 3, 6, 6) / 7,
        "out": _normal(3, 6, 5) / 2,
    }

    def loss(params: Any) -> Any:
        A = images
        for name in ("first", "second"):
            A = jax.nn.silu(
                jax.lax.conv_general_dilated(
                    A, params[name], (1, 1), "SAME", dimension_numbers=numbers
                )
            )
        return -jnp.mean(jax.nn.log_softmax(A.mean((1, 2)) @ params["out"])[:, 0])

    return loss, params


def attention() -> tuple[Loss, Any]:
    x = _normal(0, 12, 16)
    params = {name: _normal(i, 16, 16) / 4 for i, name in enumerate(("q", "k", "v", "out"))}

    def loss(params: Any) -> Any:
        q, k, v = (x @ params[name] for name in "qkv")
        scores = jnp.where(jnp.tril(jnp.ones((12, 12), bool)), q @ k.T / 4, -1e30)
        return jnp.mean((jnp.tanh(jax.nn.softmax(scores) @ v) @ params["out"]) ** 2)

    return loss, params


MODELS = (
    Model("4-5-3-1, m = 3", lambda: network(4, 5, 3, 1, m=3)),
    Model("two convolutions, 8 images", convolutions),
    Model("attention, 12 × 16", attention),
    Model("30-64-32-1, m = 64", lambda: network(30, 64, 32, 1, m=64)),
)
KINKED = tuple(
    Model(f"a right ReLU network at a corner, {seed}", build)
    for seed, build in enumerate(
        lambda widths=widths: network(*widths, m=16, corner=True)
        for widths in ((4, 5, 3, 1), (6, 8, 1), (10, 16, 8, 2), (3, 20, 1), (8, 4, 4, 4, 1))
    )
)


def planted(loss: Loss, change: Callable[[Any], Any]) -> Loss:
    """`loss` with its gradient changed."""

    def forward(params: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        return value, change(grads)

    def backward(grads: Any, cotangent: Any) -> Any:
        return (jax.tree_util.tree_map(lambda leaf: cotangent * leaf, grads),)

    function = jax.custom_vjp(loss)
    function.defvjp(forward, backward)
    return function


def _first_off(by: float) -> Callable[[Any], Any]:
    """The first tensor of the gradients off by a part of itself."""

    def change(grads: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten(grads)
        return jax.tree_util.tree_unflatten(structure, [(1 + by) * leaves[0], *leaves[1:]])

    return change


def _entry_off(by: float) -> Callable[[Any], Any]:
    """The largest entry of the last tensor off by a part of itself."""

    def change(grads: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten(grads)
        flat = leaves[-1].ravel()
        k = jnp.argmax(jnp.abs(flat))
        last = flat.at[k].multiply(1 + by).reshape(leaves[-1].shape)
        return jax.tree_util.tree_unflatten(structure, [*leaves[:-1], last])

    return change


MISTAKES = {
    "a tensor doubled": _first_off(1.0),
    "a tensor 1 %": _first_off(1e-2),
    "a tensor 10⁻⁴": _first_off(1e-4),
    "an entry 10 %": _entry_off(1e-1),
    "an entry 0.1 %": _entry_off(1e-3),
}


@dataclass(frozen=True)
class Checker:
    """A way to check.

    Attributes:
        name: for the tables.
        ready: (compiled loss, params) -> whether its gradient is accepted, when called; what it
            compiles is kept from call to call.
        evaluations: of the loss, for P parameters; None for those that the report counts.
    """

    name: str
    ready: Callable[[Loss, Any], Callable[[], bool]]
    evaluations: Callable[[int], int] | None


def _of_fastgc(loss: Loss, params: Any) -> Callable[[], bool]:
    return lambda: fastgc.jax.check(loss, params, progress=False).ok


def _of_jax(loss: Loss, params: Any) -> Callable[[], bool]:
    check_grads: Any = test_util.check_grads

    def run() -> bool:
        try:
            check_grads(loss, (params,), order=1, modes=["rev"])
        except AssertionError:
            return False
        return True

    return run


def by_hand(rows: int | None) -> Callable[[Loss, Any], Callable[[], bool]]:
    """Central differences of all parameters, `rows` in a call, and the course's rule."""

    def ready(loss: Loss, params: Any) -> Callable[[], bool]:
        theta, unravel = ravel_pytree(params)
        one_hot: Any = jax.nn.one_hot
        gradient = jax.jit(lambda theta: ravel_pytree(jax.grad(loss)(unravel(theta)))[0])
        step = rows or theta.size

        @jax.jit
        def differences(theta: Any, start: Any) -> Any:
            moves = 1e-7 * one_hot(start + jnp.arange(step), theta.size, dtype=theta.dtype)
            losses: Any = jax.vmap(lambda row: loss(unravel(row)))
            return (losses(theta + moves) - losses(theta - moves)) / 2e-7

        def run() -> bool:
            blocks = [differences(theta, start) for start in range(0, theta.size, step)]
            grad, found = gradient(theta), jnp.concatenate(blocks)[: theta.size]
            size = jnp.linalg.norm(grad) + jnp.linalg.norm(found)
            return bool(jnp.linalg.norm(grad - found) <= 2e-7 * size)

        return run

    return ready


FASTGC = Checker("`fastgc.jax.check`", _of_fastgc, None)
JAX = Checker("`check_grads`, reverse mode, order 1", _of_jax, lambda _: 2)
WHOLE = Checker("by hand, jit + vmap, one call", by_hand(None), lambda P: 2 * P)
BLOCKS = Checker(f"by hand, jit + vmap, blocks of {ROWS}", by_hand(ROWS), lambda P: 2 * P)
CHECKERS = (FASTGC, JAX, WHOLE, BLOCKS)


def _times(checker: Checker, model: Model) -> tuple[bool, float, float]:
    """What it says, how long the first check takes, and the least of later ones."""
    loss, params = model.build()
    compiled = jax.jit(loss)
    began = time.perf_counter()
    run = checker.ready(compiled, params)
    said = run()
    first = time.perf_counter() - began
    times: list[float] = []
    while len(times) < ROUNDS or sum(times) < SHORTEST:
        began = time.perf_counter()
        assert run() == said
        times.append(time.perf_counter() - began)
    return said, first, min(times)


def _evaluations(checker: Checker, model: Model) -> int:
    loss, params = model.build()
    if checker.evaluations is None:
        return fastgc.jax.check(jax.jit(loss), params, progress=False).evaluations
    return checker.evaluations(ravel_pytree(params)[0].size)


def _says(checker: Checker, loss: Loss, params: Any) -> bool:
    return checker.ready(jax.jit(loss), params)()


def _require_right(model: Model) -> None:
    """That the gradients which count as right are, to what a longer step shows of them."""
    loss, params = model.build()
    theta, unravel = ravel_pytree(params)
    v = _normal(9, theta.size)
    grad = jax.jit(jax.grad(lambda theta: loss(unravel(theta))))(theta)
    slope = (loss(unravel(theta + 1e-5 * v)) - loss(unravel(theta - 1e-5 * v))) / 2e-5
    assert abs(slope - grad @ v) <= 1e-6 * (abs(slope) + jnp.linalg.norm(grad)), model.name


def section() -> list[str]:
    """Of docs/benchmarks.md."""
    with float64():
        return [
            "## JAX",
            "",
            f"Written by `{COMMAND}`, JAX {jax.__version__}, in double precision. *First* is the",
            "check of a loss that has not been seen, tracing and compiling included; *again* the",
            "least of later checks of the same loss, which is compiled (`jax.jit`). What is done",
            "by hand says yes or no by the course's rule; `check_grads` looks along one direction.",
            "",
            *(line for model in MODELS for line in _table_of_times(model)),
            "Right gradients accepted, and planted errors caught, of the models above"
            f" (by hand in one call: up to {MOST:,} parameters):",
            "",
            *_table_of_verdicts(),
        ]


def _fits(checker: Checker, model: Model) -> bool:
    return checker is not WHOLE or ravel_pytree(model.build()[1])[0].size <= MOST


def _table_of_times(model: Model) -> list[str]:
    _require_right(model)
    P = ravel_pytree(model.build()[1])[0].size
    lines = [
        f"### {model.name} (P = {P:,})",
        "",
        "| | evaluations | first | again | accepts these right gradients |",
        "|---|---|---|---|---|",
    ]
    for checker in CHECKERS:
        if not _fits(checker, model):
            continue
        said, first, again = _times(checker, model)
        lines.append(
            f"| {checker.name} | {_evaluations(checker, model):,} | {time_of(first)} | "
            f"{time_of(again)} | {'yes' if said else 'no'} |"
        )
    return [*lines, ""]


def _table_of_verdicts() -> list[str]:
    checkers = [checker for checker in CHECKERS if checker is not WHOLE]
    lines = [
        "| | " + " | ".join(checker.name for checker in checkers) + " |",
        "|---|" + "---|" * len(checkers),
    ]
    for text, models in (("right, smooth", MODELS), ("right, at a corner of ReLU", KINKED)):
        said = [sum(_says(c, *model.build()) for model in models) for c in checkers]
        lines.append(_row(f"{text}: accepted", said, len(models)))
    for mistake, change in MISTAKES.items():
        caught = [0] * len(checkers)
        for model in MODELS:
            loss, params = model.build()
            for i, checker in enumerate(checkers):
                caught[i] += not _says(checker, planted(loss, change), params)
        lines.append(_row(f"{mistake}: caught", caught, len(MODELS)))
    return [*lines, ""]


def _row(text: str, counts: list[int], of: int) -> str:
    return f"| {text} | " + " | ".join(share(count, of) for count in counts) + " |"


if __name__ == "__main__":
    print("\n".join(section()))
