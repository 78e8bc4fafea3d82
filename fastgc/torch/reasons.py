"""Why differences of a function tell nothing of its gradients: it is random, or of few digits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastgc.torch.comparison import Comparison
from fastgc.torch.float64 import WIDE, InFloat64
from fastgc.torch.mismatch import first_line, report_of
from fastgc.torch.numerical import Subject, Tensors, Tolerance, around

#: The comparison of a function again: as another one, with this step and tolerance.
Compare: TypeAlias = Callable[[Subject, float, Tolerance], Comparison]

CALLS = 8  # of the same inputs, before a function is held to be the same each time
SAME = 1e-12  # of the output's largest entry: what threads that sum in any order may do

# Entries moved by the first part of themselves stay the same number in single precision; by one of
# the others they do not. Outputs that depend on them by less than the last cannot tell.
UNMOVED, MOVED, TELLING = 1e-10, (4e-7, 4e-6), 1e-4
COLUMNS = 8  # that are moved so

# A step that single precision leaves digits for, and how close its differences come.
LONG, CLOSE = 4e-3, 2e-2

ALIKE = 0.1  # of the largest entry: how close gradients in float64 have to be to the caller's own


#: What methods of tensors make them.
CASTS = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Reason:
    """What is amiss with a function.

    Attributes:
        text: in a line.
        comparison: of the function in float64; None where nothing can be compared.
        subject: that it compares.
    """

    text: str
    comparison: Comparison | None = None
    subject: Subject | None = None


class _Met(InFloat64):
    """Notes which narrow dtypes there are."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func.__name__ in CASTS:
            self.dtypes.add(CASTS[func.__name__])
        return super().__torch_function__(func, types, args, kwargs)

    def _wide(self, value: Any) -> Any:
        dtype = value.dtype if isinstance(value, Tensor) else value
        if isinstance(dtype, torch.dtype) and dtype in WIDE:
            self.dtypes.add(dtype)
        return super()._wide(value)


def reason_for(subject: Subject, found: Comparison, compare: Compare) -> Reason | None:
    """Why entries are wrong that may be right; None where the function is not to blame.

    Args:
        subject: the function.
        found: what is wrong with it.
        compare: compares another one.
    """
    apart = _apart_from_itself(subject)
    if apart > SAME:
        by = f", by {apart:.2g} of its largest entry" if apart < float("inf") else ""
        return Reason(
            "the function is random, or keeps state: its output differs between two identical "
            f"calls{by}, so that its differences tell nothing. Draw random numbers outside of it, "
            "or seed the generator within"
        )
    try:
        return _in_float64(subject, found, compare) or _in_steps(subject, found, compare)
    except Exception:  # of a function that wants its own dtypes, or to be where it was
        return None


def _apart_from_itself(subject: Subject) -> float:
    """How far outputs of identical calls are apart, of the largest entry; by shape, infinitely."""
    largest = 0.0
    for _ in range(CALLS):
        largest = max(largest, _apart(subject.outputs, subject()))
        if largest > SAME:
            break
    return largest


def _apart(these: Tensors, those: Tensors) -> float:
    """The largest difference of outputs, relative to the largest entry of each."""
    largest = 0.0
    for a, b in zip(these, those, strict=True):
        if a.shape != b.shape:
            return float("inf")
        one, other = _wide(a.detach()), _wide(b.detach())
        known = one.isfinite() & other.isfinite()
        if not torch.equal(one.isfinite(), other.isfinite()):
            return float("inf")
        if known.any():
            error = float((one - other)[known].abs().max())
            size = max(float(x[known].abs().max()) for x in (one, other))
            largest = max(largest, error / size if error else 0.0)
    return largest


def _wide(x: Tensor) -> Tensor:
    return x.to(WIDE.get(x.dtype, x.dtype))


def _in_float64(subject: Subject, found: Comparison, compare: Compare) -> Reason | None:
    """The function with all that is narrow in it, or in its inputs, in double precision."""
    met = _Met()

    def call(*inputs: Any) -> Any:
        with met:
            return subject.call(*inputs)

    inputs = tuple(
        _wide(x.detach()).requires_grad_() if k in subject.wanted and x.dtype in WIDE else x
        for k, x in enumerate(subject.inputs)
    )
    narrow = [f"inputs[{k}]" for k in subject.wanted if subject.inputs[k].dtype in WIDE]
    twin = replace(subject, call=call, inputs=inputs)
    twin = replace(twin, outputs=twin())
    if not (narrow or (met.dtypes and _apart(subject.outputs, twin.outputs) > SAME)):
        return None
    again = compare(twin, found.eps, found.tolerance)
    if not _is_alike(found, again):
        return None
    what = _named({subject.inputs[k].dtype for k in subject.wanted} if narrow else met.dtypes)
    if again.at_fault:
        report = report_of(again, twin, 0.0)
        return Reason(f"{first_line(report)}; computed in float64 instead of {what}", again, twin)
    if narrow:
        where, advice = f"takes {' and '.join(narrow)} in {what}", "Pass them as float64"
    else:
        where, advice = f"computes in {what} inside", "Compute in float64"
    return Reason(
        f"the function {where}: differences over a step of {found.eps:g} are lost in its "
        f"rounding. In float64 its gradients are right. {advice}",
        again,
        twin,
    )


def _named(dtypes: set[torch.dtype]) -> str:
    """``single precision (float32)``; of others, half precision or narrow complex ones, all."""
    names = sorted(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype in WIDE)
    single = any(name in ("float32", "complex64") for name in names)
    return f"{'single' if single else 'half'} precision ({', '.join(names)})"


def _is_alike(found: Comparison, again: Comparison) -> bool:
    """Whether two comparisons are about the same gradients, up to rounding."""
    for one, other in zip(found.pairs, again.pairs, strict=True):
        for a, b in zip(one.analytic, other.analytic, strict=True):
            errors = (a - b)[a.isfinite() & b.isfinite()].abs()
            if errors.numel() and float(errors.max()) > ALIKE * float(b.nan_to_num().abs().max()):
                return False
    return True


def _in_steps(subject: Subject, found: Comparison, compare: Compare) -> Reason | None:
    """Of what torch does not see, as NumPy's float32: whether it moves in steps as that does."""
    columns = list(_telling(subject, found))
    held = sum(_moves_in_steps(subject, *column) for column in columns)
    if not columns or 4 * held < 3 * len(columns):
        return None
    size = max(float(o.detach().abs().max()) for o in subject.outputs if o.numel())
    rounding = 8 * torch.finfo(torch.float32).eps * size / LONG
    tolerance = Tolerance(found.tolerance.atol + rounding, max(found.tolerance.rtol, CLOSE))
    again = compare(subject, LONG, tolerance)
    text = "the function moves in steps, as one that computes in single precision (float32) inside"
    if again.at_fault:
        return Reason(
            f"{first_line(report_of(again, subject, 0.0))}, over a step of {LONG:g}; {text}",
            again,
            subject,
        )
    return Reason(
        f"{text}: differences over a step of {found.eps:g} are lost in its rounding. Over {LONG:g} "
        "its gradients are right. Compute in float64",
        again,
        subject,
    )


def _telling(subject: Subject, found: Comparison) -> Iterator[tuple[int, int, int]]:
    """(output, input, entry): of outputs that are wrong, entries that they depend on enough."""
    for pair, wrong in zip(found.pairs, found.wrong, strict=True):
        (o, _), (k, part) = pair.outputs[0], pair.inputs[0]
        x, output = subject.inputs[k].detach(), subject.outputs[o].detach()
        if not wrong.any() or part != 1.0 or x.is_complex() or output.is_complex():
            continue
        sizes = output.double().abs().reshape(-1, 1).clamp(min=1e-300)
        weights = (pair.numerical[0].abs() * x.double().abs().reshape(1, -1) / sizes).amax(dim=0)
        order = weights.nan_to_num().argsort(descending=True)[:COLUMNS]
        yield from ((o, k, int(n)) for n in order if weights[n] > TELLING)


def _moves_in_steps(subject: Subject, o: int, k: int, n: int) -> bool:
    """Whether an output stays where it is as entry `n` of input `k` moves a little, not by more."""
    size = float(subject.inputs[k].detach().reshape(-1)[n].abs())

    def moved(by: float) -> bool:
        ends = around(subject, k, n, by * size, graph=True)[o]
        return not all(torch.equal(end, subject.outputs[o].detach()) for end in ends)

    return not moved(UNMOVED) and any(map(moved, MOVED))
