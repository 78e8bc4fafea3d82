"""Analytic and numerical Jacobians side by side, and a second look at the entries that differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from fastgc.torch import analytical
from fastgc.torch.function import Component, Function, is_quiet, parts_of, real_part
from fastgc.torch.numerical import Tolerance, around, slopes

LOOKS = 64  # columns, and rows, that are looked at again one by one before they are called wrong


@dataclass(frozen=True, eq=False)
class Jacobian:
    """The real Jacobian of one component of an output with respect to one of an input.

    Attributes:
        output, input: the components.
        analytic, numerical: (entries of the output, entries of the input), float64.
    """

    output: Component
    input: Component
    analytic: Tensor
    numerical: Tensor


@dataclass(frozen=True, eq=False)
class Pair:
    """The Jacobian of one output with respect to one input; of complex ones, both real parts."""

    jacobians: tuple[Jacobian, ...]

    def __len__(self) -> int:
        return self.jacobians[0].analytic.numel()

    @cached_property
    def errors(self) -> Tensor:
        """|analytic − numerical|, of complex numbers if there are two parts."""
        return _size([j.analytic - j.numerical for j in self.jacobians])

    @cached_property
    def sizes(self) -> Tensor:
        """|numerical|, likewise."""
        return _size([j.numerical for j in self.jacobians])

    def wrong(self, tolerance: Tolerance) -> Tensor:
        """Which entries are; as ``torch.allclose``, a NaN always is, and equal ones never are."""
        same = torch.stack([j.analytic == j.numerical for j in self.jacobians]).all(dim=0)
        return ~(same | (tolerance.allows(self.errors, self.sizes) & self.errors.isfinite()))


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs of a function.

    Attributes:
        mode: ``backward AD``, ``forward AD``, or ``no gradient``.
        eps: the step.
        tolerance: of each entry.
        pairs: all Jacobians.
        ends: of columns that were looked at again, by component of the input and entry: each output
            a step below, and a step above.
    """

    mode: str
    eps: float
    tolerance: Tolerance
    pairs: tuple[Pair, ...]
    ends: Mapping[tuple[Component, int], list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @cached_property
    def wrong(self) -> tuple[Tensor, ...]:
        """Of each pair, which entries are."""
        return tuple(pair.wrong(self.tolerance) for pair in self.pairs)

    @cached_property
    def at_fault(self) -> bool:
        """Whether any entry is."""
        return any(bool(wrong.any()) for wrong in self.wrong)


def compare(function: Function, mode: str, eps: float, tolerance: Tolerance) -> Comparison:
    """Analytic against numerical; what is wrong as computed in batches is looked at again.

    Raises:
        analytical.Refused: for a derivative that has no Jacobian.
    """
    graph = not is_quiet(function)
    bounds = replace(tolerance, atol=0.0, rtol=0.0) if mode == "no gradient" else tolerance
    for batch in (True, False):
        numerical = {
            (k, part): slopes(function, k, part * eps, tolerance, graph=graph, batch=batch)
            for k, part in function.components()
        }
        pairs = _pairs(function, mode, numerical, tolerance.nondet, batch)
        comparison = Comparison(mode, eps, bounds, tuple(pairs))
        if not comparison.at_fault:
            return comparison
        again = _second_look(function, comparison, graph=graph)
        if not batch:
            return replace(comparison, ends=again.ends)
        if all(map(torch.equal, again.wrong, comparison.wrong)):
            return again
    raise AssertionError("the second time nothing is batched")


def _pairs(
    function: Function,
    mode: str,
    numerical: Mapping[Component, list[Tensor]],
    nondet_tol: float,
    batch: bool,
) -> Iterator[Pair]:
    """The Jacobians of automatic differentiation beside the numerical ones."""

    def jacobian(output: Component, component: Component, analytic: Tensor) -> Jacobian:
        o, of_output = output
        return Jacobian(output, component, analytic, _real(numerical[component][o], of_output).T)

    if mode == "backward AD":
        wanted = [function.inputs[k] for k in function.wanted]
        for o, output in enumerate(function.outputs):
            for of_output in parts_of(output):
                derivative = analytical.backward(real_part(output, of_output), wanted, nondet_tol)
                matrices = derivative.jacobian(batch=batch)
                for k, x, J in zip(function.wanted, wanted, matrices, strict=True):
                    yield Pair(
                        tuple(
                            jacobian((o, of_output), (k, part), _real(J, part))
                            for part in parts_of(x)
                        )
                    )
        return
    for k, part in function.components():
        forward = mode == "forward AD"
        if forward:
            matrices = analytical.forward(function, (k, part)).jacobian(batch=batch)
        else:  # outputs have no gradient, which says that it is zero
            n = function.inputs[k].numel()
            matrices = [o.new_zeros((n, o.numel())) for o in function.outputs]
        for o, (output, J) in enumerate(zip(function.outputs, matrices, strict=True)):
            jacobians = tuple(
                jacobian((o, of_output), (k, part), _real(J, of_output).T)
                for of_output in parts_of(output)
            )
            yield from [Pair(jacobians)] if forward else (Pair((j,)) for j in jacobians)


def _second_look(function: Function, first: Comparison, *, graph: bool) -> Comparison:
    """Wrong entries evaluated one by one; what lies on both sides of them is kept.

    Of each pair that is `LOOKS` columns, and rows, at most: those with the largest errors.
    """
    ends: dict[tuple[Component, int], list[tuple[Tensor, Tensor]]] = {}
    pairs = []
    for pair, wrong in zip(first.pairs, first.wrong, strict=True):
        if not bool(wrong.any()):
            pairs.append(pair)
            continue
        errors = torch.where(wrong, pair.errors.nan_to_num(nan=torch.inf), -1.0)
        jacobians = tuple(
            replace(j, analytic=j.analytic.clone(), numerical=j.numerical.clone())
            for j in pair.jacobians
        )
        for n in _largest(errors.amax(dim=0)):
            for j in jacobians:
                k, part = j.input
                if (j.input, n) not in ends:
                    ends[j.input, n] = around(function, k, n, part * first.eps, graph=graph)
                low, high = ends[j.input, n][j.output[0]]
                slope = real_part((high - low) / (2 * first.eps), j.output[1])
                j.numerical[:, n] = slope.reshape(-1)
        if first.mode == "backward AD":
            (o, of_output), (k, _) = jacobians[0].output, jacobians[0].input
            output = real_part(function.outputs[o], of_output)
            derivative = analytical.backward(output, [function.inputs[k]], first.tolerance.nondet)
            for m in _largest(errors.amax(dim=1)):
                (gradient,) = derivative.row(m)
                for j in jacobians:
                    j.analytic[m] = real_part(gradient, j.input[1])
        pairs.append(Pair(jacobians))
    return replace(first, pairs=tuple(pairs), ends=ends)


def _size(parts: list[Tensor]) -> Tensor:
    return torch.hypot(*parts) if len(parts) == 2 else parts[0].abs()


def _real(x: Tensor, part: complex) -> Tensor:
    return real_part(x, part).to(torch.float64)


def _largest(errors: Tensor) -> list[int]:
    """Where the largest of them are that are not negative."""
    order = errors.argsort(descending=True)[:LOOKS]
    return [int(n) for n in order[errors[order] >= 0]]
