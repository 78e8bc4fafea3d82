"""Why differences of a function tell nothing of its gradients: it is random, or of few digits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastgc.torch.comparison import Comparison, compare
from fastgc.torch.float64 import WIDE, InFloat64, name_of, wide
from fastgc.torch.function import Function, Tensors
from fastgc.torch.mismatch import first_line, report_of
from fastgc.torch.numerical import around

CALLS = 8  # of the same inputs, before a function is held to be the same each time
SAME = 1e-12  # of the output's largest entry: what threads that sum in any order may do

# Entries moved by the first part of themselves stay the same number in single precision; by one of
# the others they do not. Outputs that depend on them by less than the last cannot tell.
UNMOVED, MOVED, TELLING = 1e-10, (4e-7, 4e-6), 1e-4
COLUMNS = 8  # that are moved so

# A step that single precision leaves digits for, and how close its differences come.
LONG, CLOSE = 4e-3, 2e-2

ALIKE = 0.1  # of the largest entry: how close gradients in float64 have to be to the caller's own


@dataclass(frozen=True)
class Reason:
    """What is amiss with a function.

    Attributes:
        text: in a line.
        comparison: of the function in float64; None where nothing can be compared.
        function: that it compares.
    """

    text: str
    comparison: Comparison | None
    function: Function


def reason_for(function: Function, first: Comparison) -> Reason | None:
    """Why entries that are wrong in a first comparison may be right; None for no such reason."""
    apart = (_apart(function.outputs, function()) for _ in range(CALLS))
    largest = next((size for size in apart if size > SAME), None)
    if largest is not None:
        by = f", by {largest:.2g} of its largest entry" if largest < math.inf else ""
        text = (
            "the function is random, or keeps state: its output differs between two identical "
            f"calls{by}, so that its differences tell nothing. Draw random numbers outside of it, "
            "or seed the generator within"
        )
        return Reason(text, None, function)
    try:
        return _in_float64(function, first) or _in_steps(function, first)
    except Exception:  # of a function that wants its own dtypes, or to be where it was
        return None


def _apart(these: Tensors, those: Tensors) -> float:
    """The largest difference of outputs, relative to the largest entry of each; or of shapes."""
    largest = 0.0
    for a, b in zip(these, those, strict=True):
        if a.shape != b.shape:
            return math.inf
        one, other = wide(a.detach()), wide(b.detach())
        known = one.isfinite()
        if not torch.equal(known, other.isfinite()):
            return math.inf
        if known.any():
            error = float((one - other)[known].abs().max())
            size = max(float(x[known].abs().max()) for x in (one, other))
            largest = max(largest, error / size if error else 0.0)
    return largest


def _in_float64(function: Function, first: Comparison) -> Reason | None:
    """The function with all that is narrow in it, or in its inputs, in double precision."""
    mode = InFloat64()

    def call(*inputs: Any) -> Any:
        with mode:
            return function.call(*inputs)

    inputs = tuple(
        wide(x.detach()).requires_grad_() if k in function.wanted and x.dtype in WIDE else x
        for k, x in enumerate(function.inputs)
    )
    narrow = [k for k in function.wanted if function.inputs[k].dtype in WIDE]
    twin = replace(function, call=call, inputs=inputs)
    twin = replace(twin, outputs=twin())
    if not (narrow or (mode.narrowed and _apart(function.outputs, twin.outputs) > SAME)):
        return None
    again = compare(twin, first.mode, first.eps, first.tolerance)
    if not _is_alike(first, again):
        return None
    dtypes = {function.inputs[k].dtype for k in narrow} or mode.narrowed
    precision = _precision(dtypes)
    if again.at_fault:
        line = first_line(report_of(again, twin))
        return Reason(f"{line}; computed in float64 instead of {precision}", again, twin)
    where, advice = f"computes in {precision} inside", "Compute in float64"
    if narrow:
        names = " and ".join(f"inputs[{k}]" for k in narrow)
        where, advice = f"takes {names} in {precision}", "Pass them as float64"
    text = (
        f"the function {where}: differences over a step of {first.eps:g} are lost in its "
        f"rounding. In float64 its gradients are right. {advice}"
    )
    return Reason(text, again, twin)


def _precision(dtypes: set[torch.dtype]) -> str:
    """``single precision (float32)``; of others, half precision or narrow complex ones, all."""
    names = sorted(name_of(dtype) for dtype in dtypes if dtype in WIDE)
    single = any(name in ("float32", "complex64") for name in names)
    return f"{'single' if single else 'half'} precision ({', '.join(names)})"


def _is_alike(first: Comparison, again: Comparison) -> bool:
    """Whether two comparisons are about the same gradients, up to rounding."""
    for one, other in zip(first.pairs, again.pairs, strict=True):
        for j, i in zip(one.jacobians, other.jacobians, strict=True):
            a, b = j.analytic, i.analytic
            errors = (a - b)[a.isfinite() & b.isfinite()].abs()
            if errors.numel() and float(errors.max()) > ALIKE * float(b.nan_to_num().abs().max()):
                return False
    return True


def _in_steps(function: Function, first: Comparison) -> Reason | None:
    """Of what torch does not see, as NumPy's float32: whether it moves in steps as that does."""
    columns = list(_telling(function, first))
    held = sum(_moves_in_steps(function, *column) for column in columns)
    if not columns or 4 * held < 3 * len(columns):
        return None
    size = max(float(o.detach().abs().max()) for o in function.outputs if o.numel())
    tolerance = replace(
        first.tolerance,
        atol=first.tolerance.atol + 8 * torch.finfo(torch.float32).eps * size / LONG,
        rtol=max(first.tolerance.rtol, CLOSE),
    )
    again = compare(function, first.mode, LONG, tolerance)
    text = "the function moves in steps, as one that computes in single precision (float32) inside"
    if again.at_fault:
        text = f"{first_line(report_of(again, function))}, over a step of {LONG:g}; {text}"
    else:
        text += (
            f": differences over a step of {first.eps:g} are lost in its rounding. Over {LONG:g} "
            "its gradients are right. Compute in float64"
        )
    return Reason(text, again, function)


def _telling(function: Function, first: Comparison) -> Iterator[tuple[int, int, int]]:
    """(output, input, entry): of outputs that are wrong, entries that they depend on enough."""
    for pair, wrong in zip(first.pairs, first.wrong, strict=True):
        jacobian = pair.jacobians[0]
        o, (k, part) = jacobian.output[0], jacobian.input
        x, output = function.inputs[k].detach(), function.outputs[o].detach()
        if not wrong.any() or part != 1.0 or x.is_complex() or output.is_complex():
            continue
        sizes = output.double().abs().reshape(-1, 1).clamp(min=1e-300)
        weights = jacobian.numerical.abs() * x.double().abs().reshape(1, -1) / sizes
        weights = weights.amax(dim=0)
        order = weights.nan_to_num().argsort(descending=True)[:COLUMNS]
        yield from ((o, k, int(n)) for n in order if weights[n] > TELLING)


def _moves_in_steps(function: Function, o: int, k: int, n: int) -> bool:
    """Whether an output stays where it is as entry `n` of input `k` moves a little, not by more."""
    size = float(function.inputs[k].detach().reshape(-1)[n].abs())

    def moved(by: float) -> bool:
        ends = around(function, k, n, by * size, graph=True)[o]
        return not all(torch.equal(end, function.outputs[o].detach()) for end in ends)

    return not moved(UNMOVED) and any(map(moved, MOVED))
