"""Numerical Jacobians of a function of tensors: central differences, batched where they can be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastgc.core.tree import index_of
from fastgc.torch.function import Function, Tensors, attempt, is_float

BLOCK = 4 * 2**20  # bytes of inputs and outputs in one batched evaluation
FEW = 16  # entries that cost less than to find out whether they can be batched
CLOSE = 0.1  # of the tolerance: how far apart two ways to the same slope may lie
TRIALS = 2  # random points at which a batched function has to be the plain one


@dataclass(frozen=True)
class Tolerance:
    """|analytic − numerical| ≤ atol + rtol · |numerical|.

    Attributes:
        atol, rtol: of each entry.
        nondet: how far apart two backward passes over the same graph may be.
    """

    atol: float
    rtol: float
    nondet: float = 0.0

    def allows(self, errors: Tensor, numerical: Tensor, share: float = 1.0) -> Tensor:
        """Which of the errors are within this `share` of it; a NaN never is."""
        return errors <= share * (self.atol + self.rtol * numerical.abs())


def slopes(
    function: Function,
    k: int,
    step: complex,
    tolerance: Tolerance,
    *,
    graph: bool,
    batch: bool = True,
) -> list[Tensor]:
    """(f(x + ε) − f(x − ε)) / 2|ε| of each output, (entries of the input, entries of the output).

    Args:
        function: the function.
        k: which input.
        step: ε; imaginary for the imaginary part of a complex input.
        tolerance: of the entries, which says how close a batched evaluation has to be.
        graph: whether evaluations have to record one.
        batch: whether many points may be evaluated at once.
    """
    x: Tensor = function.inputs[k]
    narrow = any(torch.finfo(t.dtype).bits < 64 for t in (x, *function.outputs) if is_float(t))
    matrices = None
    if batch and x.numel() > FEW and not narrow:  # those to the bit as PyTorch's own differences
        with torch.no_grad():
            matrices = attempt(lambda: _batched(function, k, step, tolerance))
    if matrices is None:
        matrices = _empty(function, x)
        for n in range(x.numel()):
            ends = around(function, k, n, step, graph=graph)
            for matrix, (low, high) in zip(matrices, ends, strict=True):
                matrix[n] = ((high - low) / (2 * abs(step))).reshape(-1)
    return matrices


def around(
    function: Function, k: int, n: int, step: complex, *, graph: bool
) -> list[tuple[Tensor, Tensor]]:
    """Each output where entry `n` of input `k` is a step less, and a step more."""
    data: Tensor = function.inputs[k].data
    entry = data[index_of(tuple(data.shape), n)]
    points = entry - step, entry + step
    with torch.set_grad_enabled(graph):
        low, high = (function.moved(entry, point) for point in points)
    for a, b, o in zip(low, high, function.outputs, strict=True):
        if not a.shape == b.shape == o.shape or a.dtype != b.dtype:
            raise AssertionError(
                f"the function returns tensors of shape {tuple(a.shape)}, {a.dtype}, and "
                f"{tuple(b.shape)}, {b.dtype}, where entry {n} of inputs[{k}] is {abs(step):g} "
                "less and more; wanted outputs of one shape and dtype"
            )
    return list(zip(low, high, strict=True))


def _empty(function: Function, x: Tensor) -> list[Tensor]:
    return [o.new_zeros((x.numel(), o.numel())) for o in function.outputs]


def _batched(
    function: Function, k: int, step: complex, tolerance: Tolerance
) -> list[Tensor] | None:
    """Differences from evaluations of many points at once; None where these are another function's.

    As of one that does not look at its argument.
    """
    x: Tensor = function.inputs[k].data
    forward = replace(function, call=_forward_pass(function.call))
    run = torch.func.vmap(lambda value: forward.with_input(k, value))
    if not _is_the_same(function, run, k, step, tolerance):
        return None
    row = x.numel() + sum(o.numel() for o in function.outputs)
    rows = max(1, min(x.numel(), BLOCK // (2 * row * x.element_size())))
    matrices = _empty(function, x)
    for start in range(0, x.numel(), rows):
        count = min(rows, x.numel() - start)
        points = x.reshape(-1).repeat(2, count, 1)
        points[0].diagonal(start).sub_(step)
        points[1].diagonal(start).add_(step)
        outputs = run(points.reshape(2 * count, *x.shape))
        function.spent[0] += 2 * count
        for matrix, output in zip(matrices, outputs, strict=True):
            low, high = output.reshape(2, count, -1)
            torch.div(high - low, 2 * abs(step), out=matrix[start : start + count])
    return matrices


def _is_the_same(
    function: Function,
    run: Callable[[Tensor], Tensors],
    k: int,
    step: complex,
    tolerance: Tolerance,
) -> bool:
    """Whether a batched function has the plain one's differences, all entries moved at random."""
    x: Tensor = function.inputs[k].data
    generator = torch.Generator().manual_seed(k)
    signs = torch.randint(0, 2, (TRIALS, *x.shape), generator=generator) * 2 - 1
    moves = signs.to(x.device) * step
    points = torch.cat((x - moves, x + moves))
    batched = run(points)
    function.spent[0] += len(points)
    plain = [function.moved(x, point) for point in points]
    for values, *single in zip(batched, *plain, strict=True):
        stacked = torch.stack(single)
        if values.shape != stacked.shape or values.dtype != stacked.dtype:
            return False
        one, other = (
            (ends[TRIALS:] - ends[:TRIALS]) / (2 * abs(step)) for ends in (values, stacked)
        )
        if not tolerance.allows((one - other).abs(), other, CLOSE).all():
            return False
    return True


class _Context:
    """Takes what a forward pass leaves for its backward pass, and drops it."""

    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *_: Any) -> None:
        """Nothing is saved."""

    save_for_forward = mark_dirty = mark_non_differentiable = save_for_backward
    set_materialize_grads = save_for_backward


def _forward_pass(call: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass alone where the function is an ``autograd.Function``'s ``apply``.

    One without rules of its own for vmap can still be batched in its values.
    """
    owner = getattr(call, "__self__", None)
    apply: Any = torch.autograd.Function.apply  # its stub knows no __func__
    is_apply = getattr(call, "__func__", None) is apply.__func__
    if not (is_apply and isinstance(owner, type) and issubclass(owner, torch.autograd.Function)):
        return call
    if owner.setup_context is not torch.autograd.Function.setup_context:
        return owner.forward
    return lambda *inputs: owner.forward(_Context(), *inputs)
