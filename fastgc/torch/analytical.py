"""Jacobians as automatic differentiation has them: by rows, backward, and by columns, forward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from fastgc.torch.function import Component, Function, attempt
from fastgc.torch.numerical import BLOCK, FEW

#: How far combined rows may be from a plain pass, relative to what is summed, and to all there is.
ROUNDING, OF_LARGEST = 1e-9, 1e-13


class Refused(Exception):  # noqa: N818  not an error of the caller's, but a finding
    """The derivative has no Jacobian to compare: its message says why."""


@dataclass(frozen=True, eq=False)
class Derivative:
    """A linear map: gradients of an output, pulled back, or tangents of an input, pushed forward.

    Attributes:
        argument: a tensor like those that are mapped.
        images: tensors like what these are mapped to.
        plain: maps one: a tensor -> its images, flat.
        batched: maps many, (K, …), at once -> their images, (K, n) each.
        nondet_tol: how far apart two passes may be; None where one will do.
    """

    argument: Tensor
    images: Sequence[Tensor]
    plain: Callable[[Tensor], Sequence[Tensor]]
    batched: Callable[[Tensor], Sequence[Tensor]]
    nondet_tol: float | None = None

    def row(self, n: int) -> Sequence[Tensor]:
        """The images of the unit vector `n`."""
        unit = torch.zeros_like(self.argument, memory_format=torch.legacy_contiguous_format)
        unit.view(-1)[n] = 1.0
        return self.plain(unit)

    def jacobian(self, *, batch: bool = True) -> list[Tensor]:
        """Its matrix for each image, (entries of the argument, entries of the image).

        `batch` allows to compute many rows at once. `Refused` is raised where a second time gives
        something else, and for a gradient of another dtype or shape.
        """
        like = self.argument
        matrices = None
        if batch and like.numel() > FEW and like.dtype in (torch.float64, torch.complex128):
            matrices = attempt(self._at_once)
            if matrices is not None and not self._combines(matrices):
                matrices = None
        if matrices is None:
            matrices = self._one_by_one()
            if self.nondet_tol is not None:
                _require_close(matrices, self._one_by_one(), self.nondet_tol)
        return matrices

    def _empty(self) -> list[Tensor]:
        return [image.new_zeros((self.argument.numel(), image.numel())) for image in self.images]

    def _one_by_one(self) -> list[Tensor]:
        matrices = self._empty()
        for n in range(self.argument.numel()):
            for matrix, image in zip(matrices, self.row(n), strict=True):
                matrix[n] = image
        return matrices

    def _at_once(self) -> list[Tensor] | None:
        """From passes of many rows; None where a second one gives something else."""
        like, size, matrices = self.argument, self.argument.numel(), self._empty()
        row = size + sum(image.numel() for image in self.images)
        count = max(1, BLOCK // (row * like.element_size()))
        for start in range(0, size, count):
            units = like.new_zeros((min(count, size - start), size))
            units.diagonal(start).fill_(1.0)
            units = units.reshape(-1, *like.shape)
            block = self.batched(units)
            if self.nondet_tol is not None and any(
                one.numel() and not (one - two).abs().max() <= self.nondet_tol
                for one, two in zip(block, self.batched(units), strict=True)
            ):
                return None
            for matrix, rows in zip(matrices, block, strict=True):
                matrix[start : start + len(units)] = rows
        return matrices

    def _combines(self, matrices: list[Tensor]) -> bool:
        """Whether rows computed at once are those of plain passes, up to rounding.

        The map is linear, so that its image of a random combination of unit vectors says it of all.
        """
        like, size = self.argument, self.argument.numel()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(size, generator=generator, dtype=torch.float64).to(like.device)
        last = torch.zeros_like(weights)
        last[-1] = 1.0
        return all(
            _combine_to(matrix, mixed, image)
            for mixed in (weights, last)
            for matrix, image in zip(
                matrices, self.plain(mixed.to(like.dtype).reshape(like.shape)), strict=True
            )
        )


def _combine_to(matrix: Tensor, weights: Tensor, image: Tensor) -> bool:
    """Whether the rows of a matrix, so weighted, add up to an image, up to rounding."""
    if matrix.numel() == 0:
        return True
    sizes = matrix.abs()
    allowance = ROUNDING * (weights.abs().to(sizes.dtype) @ sizes)
    allowance += OF_LARGEST * sizes.max() * float(weights.abs().sum())
    return bool(((weights.to(matrix.dtype) @ matrix - image).abs() <= allowance).all())


def _require_close(matrices: list[Tensor], again: list[Tensor], nondet_tol: float) -> None:
    for one, two in zip(matrices, again, strict=True):
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


def backward(output: Tensor, wanted: Sequence[Tensor], nondet_tol: float) -> Derivative:
    """The gradients of the entries of one real output, with its graph, by each wanted input."""
    plain = partial(_pulled_back, output, wanted)
    return Derivative(output, wanted, plain, partial(plain, batched=True), nondet_tol)


def _pulled_back(
    output: Tensor, wanted: Sequence[Tensor], seeds: Tensor, *, batched: bool = False
) -> list[Tensor]:
    """What one backward pass brings to each input, flat: of one seed, or of many."""
    gradients = torch.autograd.grad(
        output, wanted, seeds, retain_graph=True, allow_unused=True, is_grads_batched=batched
    )
    lead = seeds.shape[:1] if batched else ()
    flat = []
    for g, x in zip(gradients, wanted, strict=True):
        if g is None:
            flat.append(x.new_zeros((*lead, x.numel())))
            continue
        if g.size() != (*lead, *x.size()) or g.dtype != x.dtype:
            raise Refused(
                f"a gradient has shape {tuple(g.size())} and dtype {g.dtype}; its input has "
                f"shape {tuple(x.size())} and dtype {x.dtype}"
            )
        dense = g if g.layout == torch.strided else g.to_dense()
        # a copy, since a backward pass may return one tensor twice
        flat.append(dense.detach().reshape(*lead, x.numel()).clone())
    return flat


def forward(function: Function, component: Component) -> Derivative:
    """Derivatives of the outputs by each entry of an input, along one of its parts."""
    k, part = component
    x: Tensor = function.inputs[k].detach()

    def push(tangent: Tensor) -> list[Tensor]:
        inputs = list(function.inputs)
        with forward_ad.dual_level():
            for i in function.wanted:
                primal = function.inputs[i].detach()
                inputs[i] = forward_ad.make_dual(
                    primal, part * tangent if i == k else torch.zeros_like(primal)
                )
            outputs = function.outputs_of(tuple(inputs))
            tangents = [forward_ad.unpack_dual(output).tangent for output in outputs]
        return [
            (torch.zeros_like(output) if t is None else t).reshape(-1)
            for t, output in zip(tangents, function.outputs, strict=True)
        ]

    def push_many(tangents: Tensor) -> list[Tensor]:
        def along(tangent: Tensor) -> Any:  # by torch.func, since make_dual has no vmap
            call = partial(function.with_input, k)
            return torch.func.jvp(call, (x,), (part * tangent,))[1]

        images = torch.func.vmap(along)(tangents)
        return [image.reshape(len(tangents), -1) for image in images]

    return Derivative(x, function.outputs, push, push_many)
