"""fastgc.torch beside PyTorch's own checkers, in slow and in fast mode, on the same functions.

``python -m benchmarks.torch_checkers`` measures and prints the tables.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fastgc.torch
from benchmarks.tables import share, time_of

REPEATS = 5
COMMAND = "python -m benchmarks.torch_checkers"

#: func, inputs -> whether the gradients are accepted.
Checker = Callable[[Callable[..., Any], tuple[Any, ...]], bool]

CHECKERS: dict[str, Checker] = {
    "fastgc.torch.gradcheck": lambda func, inputs: fastgc.torch.gradcheck(
        func, inputs, raise_exception=False
    ),
    "torch gradcheck": lambda func, inputs: torch.autograd.gradcheck(
        func, inputs, raise_exception=False
    ),
    "torch gradcheck, fast_mode": lambda func, inputs: torch.autograd.gradcheck(
        func, inputs, raise_exception=False, fast_mode=True
    ),
}


class Swish(torch.autograd.Function):
    """x σ(x), with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        slope: Tensor = s + x * s * (1 - s)
        return g * slope


class Off(torch.autograd.Function):
    """Its input; on the way back, one entry of the gradient is off by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: int, factor: float) -> Tensor:
        ctx.at, ctx.factor = at, factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        factors = torch.ones_like(g)
        factors.view(-1)[ctx.at] = ctx.factor
        return factors * g, None, None


@dataclass(frozen=True)
class Cost:
    """A function to be checked.

    Attributes:
        name: for the tables.
        func: the function, whose gradients are right.
        inputs: its arguments.
    """

    name: str
    func: Callable[..., Any]
    inputs: tuple[Tensor, ...]

    @property
    def entries(self) -> int:
        """Of its Jacobian."""
        found = self.func(*self.inputs)
        return int(sum(x.numel() for x in self.inputs) * found.numel())

    def planted(self, factor: float) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
        """The same, with a gradient that is off by a factor in one entry of the first input."""
        x, *_ = self.inputs
        at = x.numel() // 2
        return lambda x, *others: self.func(Off.apply(x, at, factor), *others), self.inputs


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def problems() -> list[Cost]:
    layers = tuple(
        draw(*shape, seed=i) for i, shape in enumerate([(8, 10), (10, 20), (20,), (20, 5), (5,)])
    )
    images = draw(2, 3, 8, 8, seed=5), draw(4, 3, 3, 3, seed=6), draw(4, seed=7)
    matrix = (
        torch.eye(10, dtype=torch.float64) * 4 + draw(10, 10, seed=8).detach()
    ).requires_grad_()
    return [
        Cost("network, 10-20-5, 8 samples", _network, layers),
        Cost("its loss, a number", lambda *p: _network(*p).square().mean(), layers),
        Cost("convolution, 2 × 3 × 8 × 8", torch.nn.functional.conv2d, images),
        Cost("custom Function, 200 entries", lambda x: Swish.apply(x), (draw(200, seed=9),)),
        Cost("inverse of a 10 × 10 matrix", torch.linalg.inv, (matrix,)),
        Cost("sine of 5 numbers", torch.sin, (draw(5, seed=10),)),
    ]  # fmt: skip


def _network(x: Tensor, W: Tensor, b: Tensor, V: Tensor, c: Tensor) -> Tensor:
    return torch.tanh(x @ W + b) @ V + c


def seconds(check: Callable[[], bool], repeats: int = REPEATS) -> float:
    """The least of several times; the first run, which may load things, is not among them."""
    assert check(), "a right gradient was rejected"
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        check()
        times.append(time.perf_counter() - began)
    return min(times)


@dataclass(frozen=True)
class Row:
    """What was measured on one problem.

    Attributes:
        problem: its name.
        entries: of the Jacobian.
        seconds: checker -> the least time.
    """

    problem: str
    entries: int
    seconds: dict[str, float]


def timings(repeats: int = REPEATS) -> list[Row]:
    """Every checker on every problem, whose gradients are right and are accepted."""
    return [
        Row(
            problem.name,
            problem.entries,
            {
                name: seconds(partial(checker, problem.func, problem.inputs), repeats)
                for name, checker in CHECKERS.items()
            },
        )
        for problem in problems()
    ]


FACTORS = (1.005, 1.02, 1.1, 1.5, 2.0, 0.0, -1.0)


def caught() -> dict[str, dict[float, tuple[int, int]]]:
    """checker -> factor -> problems where one entry, off by it, was noticed; and the number of all.

    All entries of the Jacobian that belong to one entry of the first input are off.
    """
    every = problems()
    return {
        name: {
            factor: (sum(not checker(*p.planted(factor)) for p in every), len(every))
            for factor in FACTORS
        }
        for name, checker in CHECKERS.items()
    }


def gradcheck_tables(repeats: int = REPEATS) -> str:
    """Both tables, as Markdown; on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, found = timings(repeats), caught()
    finally:
        torch.set_num_threads(threads)
    return f"{timings_table(rows)}\n\n{caught_table(found)}"


def timings_table(rows: Sequence[Row]) -> str:
    slow, ours = "torch gradcheck", "fastgc.torch.gradcheck"
    lines = [
        f"| function | entries | {' | '.join(CHECKERS)} | against slow mode |",
        f"|---|---|{'---|' * len(CHECKERS)}---|",
    ]
    for row in rows:
        times = " | ".join(time_of(row.seconds[name]) for name in CHECKERS)
        ratio = row.seconds[slow] / row.seconds[ours]
        lines.append(f"| {row.problem} | {row.entries:,} | {times} | {ratio:.1f} × |")
    return "\n".join(lines)


def caught_table(found: dict[str, dict[float, tuple[int, int]]]) -> str:
    lines = [
        f"| one entry times | {' | '.join(CHECKERS)} |",
        f"|---|{'---|' * len(CHECKERS)}",
    ]
    for factor in FACTORS:
        counts = " | ".join(share(*found[name][factor]) for name in CHECKERS)
        lines.append(f"| {factor:g} | {counts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(gradcheck_tables())
