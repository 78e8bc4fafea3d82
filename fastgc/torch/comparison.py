"""Entries of a Jacobian, as computed and as found: which are wrong, and a second look at these."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from fastgc.torch.analytical import row
from fastgc.torch.numerical import Subject, Tolerance, around

At = tuple[int, complex]  # which input or output, and which part of it, 1 or 1j


@dataclass(frozen=True, eq=False)
class Pair:
    """The Jacobian of one output with respect to one input; of complex ones, two real parts.

    Attributes:
        outputs, inputs: of each part, whose Jacobian it is.
        analytic, numerical: each part, (entries of the output, entries of the input), float64.
    """

    outputs: tuple[At, ...]
    inputs: tuple[At, ...]
    analytic: tuple[Tensor, ...]
    numerical: tuple[Tensor, ...]

    def __len__(self) -> int:
        return self.analytic[0].numel()

    def wrong(self, tolerance: Tolerance) -> Tensor:
        """Which entries are; as ``torch.allclose``, a NaN always is, and equal ones never are."""
        errors, sizes = self.errors, self.numerical[0]
        same = self.analytic[0] == self.numerical[0]
        if len(self.inputs) == 2:
            sizes = torch.hypot(*self.numerical)
            same = same & (self.analytic[1] == self.numerical[1])
        return ~(same | (tolerance.allows(errors, sizes) & errors.isfinite()))

    @cached_property
    def errors(self) -> Tensor:
        """|analytic − numerical|, of complex numbers if there are two parts."""
        apart = [a - n for a, n in zip(self.analytic, self.numerical, strict=True)]
        return torch.hypot(*apart) if len(apart) == 2 else apart[0].abs()


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs of a function.

    Attributes:
        mode: ``backward AD``, ``forward AD``, or ``no gradient``.
        eps: the step.
        tolerance: of each entry.
        pairs: all Jacobians.
        ends: of columns that were looked at again, by input, part and entry: each output a step
            below, and a step above.
    """

    mode: str
    eps: float
    tolerance: Tolerance
    pairs: tuple[Pair, ...]
    ends: Mapping[tuple[int, complex, int], list[tuple[Tensor, Tensor]]] = field(
        default_factory=dict
    )

    @cached_property
    def wrong(self) -> tuple[Tensor, ...]:
        """Of each pair, which entries are."""
        return tuple(pair.wrong(self.tolerance) for pair in self.pairs)

    @cached_property
    def at_fault(self) -> bool:
        """Whether any entry is."""
        return any(bool(wrong.any()) for wrong in self.wrong)

    def confirms(self, other: "Comparison") -> bool:
        """Whether the same entries are wrong."""
        return all(map(torch.equal, self.wrong, other.wrong))


def look_again(subject: Subject, found: Comparison, looks: int, *, graph: bool) -> Comparison:
    """Wrong entries evaluated one by one; what lies on both sides of them is kept.

    Args:
        subject: the function.
        found: what is wrong with it, as computed in batches.
        looks: how many columns, and rows, of each pair at most; those with the largest errors.
        graph: whether evaluations have to record one.
    """
    ends: dict[tuple[int, complex, int], list[tuple[Tensor, Tensor]]] = {}
    pairs = []
    for pair, wrong in zip(found.pairs, found.wrong, strict=True):
        errors = torch.where(wrong, pair.errors.nan_to_num(nan=torch.inf), -1.0)
        numerical = tuple(n.clone() for n in pair.numerical)
        analytic = tuple(a.clone() for a in pair.analytic)
        for n in _largest(errors.amax(dim=0), looks) if len(pair) else ():
            for to, (k, part), (o, of_output) in zip(
                numerical, pair.inputs, pair.outputs, strict=True
            ):
                if (k, part, n) not in ends:
                    ends[k, part, n] = around(subject, k, n, part * found.eps, graph=graph)
                low, high = ends[k, part, n][o]
                to[:, n] = real_part((high - low) / (2 * found.eps), of_output).reshape(-1)
        if found.mode == "backward AD" and len(pair):
            (k, _), (o, of_output) = pair.inputs[0], pair.outputs[0]
            output = real_part(subject.outputs[o], of_output)
            for m in _largest(errors.amax(dim=1), looks):
                (g,) = row(output, [subject.inputs[k]], m)
                for to, (_, part) in zip(analytic, pair.inputs, strict=True):
                    to[m] = real_part(g, part)
        pairs.append(replace(pair, numerical=numerical, analytic=analytic))
    return replace(found, pairs=tuple(pairs), ends=ends)


def real_part(x: Tensor, part: complex) -> Tensor:
    """The real part of a tensor, or for 1j the imaginary one; of a real tensor, itself."""
    if not x.is_complex():
        return x
    return torch.real(x) if part == 1.0 else torch.imag(x)


def _largest(errors: Tensor, count: int) -> list[int]:
    """Where the largest of them are that are not negative."""
    order = errors.argsort(descending=True)[:count]
    return [int(n) for n in order[errors[order] >= 0]]
