"""Jacobians as automatic differentiation has them: by rows, backward, and by columns, forward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from fastgc.torch.numerical import BLOCK, Subject, warned

FEW = 16  # rows, or columns, that cost less than to find out whether they can be batched
#: How far combined rows may be from a plain pass, relative to what is summed, and to all there is.
ROUNDING, OF_LARGEST = 1e-9, 1e-13


class Refused(Exception):  # noqa: N818  not an error of the caller's, but a finding
    """The derivative has no Jacobian to compare: its message says why."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The gradients of the entries of one real output.

    Attributes:
        jacobian: for each wanted input (entries of the output, entries of the input).
        batched: whether they come from backward passes of many rows at once.
    """

    jacobian: list[Tensor]
    batched: bool


def rows(output: Tensor, wanted: list[Tensor], nondet_tol: float, *, batch: bool = True) -> Rows:
    """The gradients of each entry of an output, computed twice, as PyTorch's gradcheck does.

    Args:
        output: real, with its graph.
        wanted: the inputs.
        nondet_tol: how far apart the two times may be.
        batch: whether many rows may be computed at once.

    Raises:
        Refused: where the second time gives something else, or a gradient another dtype or shape.
    """
    many = output.numel() > FEW and output.dtype == torch.float64
    found = _batched(output, wanted, nondet_tol) if batch and many else None
    if found is not None:
        return Rows(found, batched=True)
    every, again = (_one_by_one(output, wanted) for _ in range(2))
    for one, two in zip(every, again, strict=True):
        sizes = (one - two).abs()  # real, of complex rows too, and of none
        apart = sizes.amax(dim=1) if sizes.numel() else sizes.sum(dim=1)
        if (apart > nondet_tol).any():
            n = int(apart.nan_to_num(0.0).argmax())
            raise Refused(
                "Backward is not reentrant, i.e., running backward with same input and "
                "grad_output multiple times gives different values: those of entry "
                f"{n} of the output are {float(apart[n]):.3g} apart; the tolerance for "
                f"nondeterminism was {nondet_tol}"
            )
    return Rows(every, batched=False)


def _one_by_one(output: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    found = [row(output, wanted, n) for n in range(output.numel())]
    return [torch.stack(of_input) for of_input in zip(*found, strict=True)] or [
        x.new_zeros((0, x.numel())) for x in wanted
    ]


def row(output: Tensor, wanted: list[Tensor], n: int) -> list[Tensor]:
    """The gradients of entry `n` of an output by each input, flat."""
    seed = torch.zeros_like(output, memory_format=torch.legacy_contiguous_format)
    seed.view(-1)[n] = 1.0
    return _pulled_back(output, wanted, seed)


def _pulled_back(output: Tensor, wanted: list[Tensor], seed: Tensor) -> list[Tensor]:
    """One plain backward pass."""
    found = torch.autograd.grad(output, wanted, seed, retain_graph=True, allow_unused=True)
    flat = []
    for g, x in zip(found, wanted, strict=True):
        if g is None:
            flat.append(x.new_zeros(x.numel()))
            continue
        if g.size() != x.size() or g.dtype != x.dtype:
            raise Refused(
                f"a gradient has shape {tuple(g.size())} and dtype {g.dtype}; its input has "
                f"shape {tuple(x.size())} and dtype {x.dtype}"
            )
        dense = g if g.layout == torch.strided else g.to_dense()
        flat.append(
            dense.detach().reshape(-1).clone()
        )  # a backward pass may return one tensor twice
    return flat


def _batched(output: Tensor, wanted: list[Tensor], nondet_tol: float) -> list[Tensor] | None:
    """All rows from passes of many at once; None where these are not what plain passes give.

    A backward pass is linear in what it pulls back. So one plain pass along a random combination
    of rows says whether the batched rows are the plain ones, up to rounding.
    """
    size = output.numel()
    count = max(1, BLOCK // ((size + sum(x.numel() for x in wanted)) * output.element_size()))
    found = [x.new_zeros((size, x.numel())) for x in wanted]
    try:
        with warned() as warnings_seen:
            for start in range(0, size, count):
                seeds = output.new_zeros((min(count, size - start), size))
                seeds.diagonal(start).fill_(1.0)
                seeds = seeds.reshape(-1, *output.shape)
                one, two = (_pulled_back_at_once(output, wanted, seeds) for _ in range(2))
                for to, a, b in zip(found, one, two, strict=True):
                    if a.numel() and not (a - b).abs().max() <= nondet_tol:
                        return None
                    to[start : start + len(seeds)] = a
    except Exception:  # plain passes meet it as well, if it is the user's
        return None
    if warnings_seen:
        return None
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(size, generator=generator, dtype=torch.float64).to(output)
    for mixed, along in (
        (weights, _pulled_back(output, wanted, weights.reshape(output.shape))),
        (_unit(weights), row(output, wanted, size - 1)),
    ):
        if not all(_combine_to(J, mixed, g) for J, g in zip(found, along, strict=True)):
            return None
    return found


def _combine_to(J: Tensor, weights: Tensor, g: Tensor) -> bool:
    """Whether the rows of J, so weighted, add up to g, up to rounding."""
    if J.numel() == 0:
        return True
    size, weights = J.abs(), weights.to(J.dtype)
    allowance = ROUNDING * (weights.abs().to(size.dtype) @ size)
    allowance += OF_LARGEST * size.max() * float(weights.abs().sum())
    return bool(((weights @ J - g).abs() <= allowance).all())


def _unit(weights: Tensor) -> Tensor:
    last = torch.zeros_like(weights)
    last[-1] = 1.0
    return last


def _pulled_back_at_once(output: Tensor, wanted: list[Tensor], seeds: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(
        output, wanted, seeds, retain_graph=True, allow_unused=True, is_grads_batched=True
    )
    return [
        x.new_zeros((len(seeds), x.numel())) if g is None else g.detach().reshape(len(seeds), -1)
        for g, x in zip(found, wanted, strict=True)
    ]


def columns(subject: Subject, k: int, part: complex, *, batch: bool = True) -> list[Tensor]:
    """Derivatives by each entry of input `k` with forward AD; (n, entries of the output) each.

    Args:
        subject: the function.
        k: which input.
        part: 1 or 1j, along which of its parts.
        batch: whether many columns may be computed at once.
    """
    x: Tensor = subject.inputs[k]
    push = _pushed_forward(subject, k, part)
    many = x.numel() > FEW and x.dtype in (torch.float64, torch.complex128)
    found = _batched_columns(subject, k, push) if batch and many else None
    if found is not None:
        return found
    found = [o.new_zeros((x.numel(), o.numel())) for o in subject.outputs]
    for n in range(x.numel()):
        tangent = x.detach().new_zeros(x.shape)
        tangent.view(-1)[n] = 1.0
        for to, value in zip(found, push(tangent), strict=True):
            to[n] = value.reshape(-1)
    return found


def _pushed_forward(
    subject: Subject, k: int, part: complex
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Tangent of an input -> tangents of the outputs."""

    def push(tangent: Tensor) -> tuple[Tensor, ...]:
        with forward_ad.dual_level():
            inputs = list(subject.inputs)
            for i in subject.wanted:
                x = subject.inputs[i].detach()
                inputs[i] = forward_ad.make_dual(
                    x, part * tangent if i == k else x.new_zeros(x.shape)
                )
            found = subject.select(subject.call(*inputs))
            tangents = [forward_ad.unpack_dual(out).tangent for out in found]
        return tuple(
            torch.zeros_like(out) if t is None else t
            for t, out in zip(tangents, subject.outputs, strict=True)
        )

    return push


def _batched_columns(
    subject: Subject, k: int, push: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[Tensor] | None:
    """All columns at once; None where these are not the plain ones. As `_batched`."""
    x: Tensor = subject.inputs[k].detach()
    size = x.numel()
    row = size + sum(o.numel() for o in subject.outputs)
    count = max(1, BLOCK // (row * x.element_size()))
    found = [o.new_zeros((size, o.numel())) for o in subject.outputs]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(size, generator=generator, dtype=torch.float64).to(x)
    try:
        with warned() as warnings_seen:
            for start in range(0, size, count):
                tangents = x.new_zeros((min(count, size - start), size))
                tangents.diagonal(start).fill_(1.0)
                outputs = torch.func.vmap(push)(tangents.reshape(-1, *x.shape))
                for to, value in zip(found, outputs, strict=True):
                    to[start : start + len(tangents)] = value.reshape(len(tangents), -1)
    except Exception:  # plain evaluations meet it as well, if it is the user's
        return None
    if warnings_seen:
        return None
    along = push(weights.reshape(x.shape))
    same = all(_combine_to(J, weights, g.reshape(-1)) for J, g in zip(found, along, strict=True))
    return found if same else None
