"""Random directions, of fastgc and of PyTorch, JAX and HIPS autograd, run and counted alike."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastgc
from benchmarks import other_checkers
from tests.cases import Array, Tensors

FIRST = 11  # evaluations of fastgc before its first direction: two at θ, nine for the noise


class Watched:
    """A cost that counts its calls and keeps where it was called, if that is asked for."""

    def __init__(self, *, keeping: bool = False) -> None:
        self.calls, self.keeping = 0, keeping
        self.places: list[list[Array]] = []

    def __call__(self, cost: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*values: Any) -> Any:
            self.calls += 1
            if self.keeping:
                self.places.append(_numbers(values))
            return cost(*values)

        return watched


def _numbers(values: Sequence[Any]) -> list[Array]:
    """What a cost was called with; nothing where JAX calls it to trace it."""
    found = []
    for value in values:
        if isinstance(value, importlib.import_module("jax").core.Tracer):
            return []
        if hasattr(value, "detach"):  # torch's
            value = value.detach()
        value = getattr(value, "_value", value)  # HIPS autograd's boxes
        if isinstance(value, list):
            found += _numbers(value)
        else:
            found.append(np.array(value, dtype=float))
    return found


@dataclass(frozen=True)
class Run:
    """What a checker says, of gradients that it is ready to look at.

    Attributes:
        verdict: looks; -> ``correct``, ``wrong`` or ``unresolved``.
        watched: the cost's calls.
    """

    verdict: Callable[[], str]
    watched: Watched


@dataclass(frozen=True)
class Checker:
    """A way to look along random directions.

    Attributes:
        name: for the tables.
        ready: (network, parameters, gradients, seed, watched) -> its verdict, when called.
        along: T tensors -> evaluations along directions.
    """

    name: str
    ready: Callable[[fastgc.Network, Tensors, Tensors, int, Watched], Callable[[], str]]
    along: Callable[[int], int]

    def run(
        self, net: fastgc.Network, parameters: Tensors, gradients: Tensors,
        seed: int = 0, *, keeping: bool = False,
    ) -> Run:  # fmt: skip
        watched = Watched(keeping=keeping)
        return Run(self.ready(net, parameters, gradients, seed, watched), watched)


def of_fastgc(name: str, directions: Callable[[int], int], *, per_tensor: bool) -> Checker:
    def ready(
        net: fastgc.Network, parameters: Tensors, gradients: Tensors, seed: int, watched: Watched
    ) -> Callable[[], str]:
        cost, count = watched(lambda p: net(p)), directions(len(parameters))

        def verdict() -> str:
            before = watched.calls
            report = fastgc.check(
                cost, parameters, gradients, method="random", directions=count,
                per_tensor=per_tensor, seed=seed, progress=False,
            )  # fmt: skip
            assert report.evaluations == watched.calls - before
            return report.verdict

        return verdict

    return Checker(name, ready, lambda T: 2 * directions(T) * (T if per_tensor else 1))


def _in_words(run: other_checkers.Run) -> Callable[[], str]:
    return lambda: "correct" if run() else "wrong"


def of_autograd(name: str, times: Callable[[int], int]) -> Checker:
    """So many runs, each along another direction, until one rejects."""

    def ready(
        net: fastgc.Network, parameters: Tensors, gradients: Tensors, seed: int, watched: Watched
    ) -> Callable[[], str]:
        seeds = range(1000 * seed, 1000 * seed + times(len(parameters)))
        runs = [
            other_checkers.autograd_check_grads(net, parameters, gradients, watched, each)
            for each in seeds
        ]
        return lambda: "correct" if all(run() for run in runs) else "wrong"

    return Checker(name, ready, lambda T: 2 * times(T))


def spent_by_torch(T: int) -> int:
    """A direction for each tensor, and twice at θ."""
    return 2 * T + 2


def spent_by_default(T: int) -> int:
    return FIRST + 16 * T


def _always(count: int) -> Callable[[int], int]:
    return lambda _: count


DEFAULT = of_fastgc('fastgc, `method="random"`', _always(8), per_tensor=True)
SINGLE = of_fastgc("fastgc, `directions=1`", _always(1), per_tensor=True)
TOGETHER = "fastgc, `per_tensor=False, directions={}`"
ONE, TWO, EIGHT = (
    of_fastgc(TOGETHER.format(count), _always(count), per_tensor=False) for count in (1, 2, 8)
)
LIKE_TORCH = of_fastgc(
    "fastgc, through all, as torch spends in all",
    lambda T: max(1, (spent_by_torch(T) - FIRST) // 2),
    per_tensor=False,
)
TORCH = Checker(
    "torch gradcheck, fast_mode",
    lambda net, p, g, _, watched: _in_words(
        other_checkers.torch_gradcheck(net, p, g, fast=True, watch=watched)
    ),
    lambda T: 2 * T,
)
JAX = Checker(
    "JAX check_grads",
    lambda net, p, g, _, watched: _in_words(other_checkers.jax_check_grads(net, p, g, watched)),
    lambda _: 2,
)
AUTOGRAD = of_autograd("HIPS autograd check_grads", lambda _: 1)
THRICE = of_autograd("HIPS autograd, 3 runs", lambda _: 3)
OFTEN = of_autograd("HIPS autograd, as fastgc's default spends", lambda T: spent_by_default(T) // 4)

IN_TIME = (DEFAULT, SINGLE, ONE, EIGHT, TORCH, JAX, AUTOGRAD)
AT_EQUAL = (DEFAULT, OFTEN, SINGLE, TORCH, LIKE_TORCH, TWO, ONE, THRICE, JAX, AUTOGRAD)
SAME_EVERY_RUN = (TORCH, JAX)


def require_same_places(net: fastgc.Network, parameters: Tensors, gradients: Tensors) -> None:
    """That running `SAME_EVERY_RUN` again finds nothing new, and `AUTOGRAD` with a seed does."""
    for checker in (*SAME_EVERY_RUN, AUTOGRAD):
        runs = [checker.run(net, parameters, gradients, seed, keeping=True) for seed in range(2)]
        for run in runs:
            run.verdict()
        (first, second) = (run.watched.places for run in runs)
        same = all(
            np.array_equal(a, b)
            for one, other in zip(first, second, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        assert any(first), checker.name
        assert same == (checker in SAME_EVERY_RUN), checker.name
