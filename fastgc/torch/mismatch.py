"""What gradcheck found, as a Report whose tensors are Jacobians."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastgc.core.gradients import AnalyticGradient
from fastgc.core.tree import FloatArray, Layout
from fastgc.core.verdict import AGREE, DISAGREE, NONFINITE, worst_verdict
from fastgc.diagnosis import kinds
from fastgc.diagnosis.evidence import Evidence
from fastgc.report.data import Diagnosis
from fastgc.report.report import Report
from fastgc.report.text import by_fault
from fastgc.torch.comparison import At, Comparison, real_part
from fastgc.torch.numerical import Subject
from fastgc.verdicts.outcome import tensor_reports
from fastgc.verdicts.record import Findings
from fastgc.verdicts.summary import summarise, tensor_means


class _Jacobian(NamedTuple):
    """One real Jacobian, flat: (entries of the output · entries of the input,)."""

    name: str
    shape: tuple[int, ...]
    output_axes: int
    grad: FloatArray
    gradapprox: FloatArray
    codes: NDArray[np.uint8]
    rounding: float
    dtype: str
    parameters: FloatArray
    looked_at: NDArray[np.intp]
    slopes: tuple[FloatArray, FloatArray]


def report_of(comparison: Comparison, subject: Subject, seconds: float) -> Report:
    """The Report on a comparison that has any entries."""
    found = list(_jacobians(comparison, subject))
    offsets = np.cumsum([0, *(j.grad.size for j in found)]).tolist()
    layout = Layout(
        kind="sequence",
        names=tuple(j.name for j in found),
        shapes=tuple(j.shape for j in found),
        offsets=tuple(offsets),
        build=list,
        output_axes=tuple(j.output_axes for j in found),
    )
    T, rtol = len(found), comparison.tolerance.rtol
    analytic = AnalyticGradient(
        grad=np.concatenate([j.grad for j in found]),
        tolerances=np.full(T, rtol),
        units=np.ones(T),
        least=np.zeros(T),
        dtypes=tuple(j.dtype for j in found),
        in_float64=True,
    )
    gradapprox = np.concatenate([j.gradapprox for j in found])
    uncertainty = np.repeat([j.rounding for j in found], layout.lengths)
    codes = np.concatenate([j.codes for j in found])
    means = tensor_means(layout, gradapprox)
    counted = summarise(layout, analytic, gradapprox, uncertainty, means, codes)
    findings = Findings(
        grad=analytic.grad,
        gradapprox=gradapprox,
        uncertainty=uncertainty,
        codes=codes,
        at_rounding=np.empty(0, np.intp),
        disputed=np.concatenate(
            [j.looked_at + at for j, at in zip(found, offsets[:-1], strict=True)]
        ),
        slopes=(
            np.concatenate([j.slopes[0] for j in found]),
            np.concatenate([j.slopes[1] for j in found]),
        ),
        summary=counted,
        evaluations=subject.spent[0],
    )
    tensors = tensor_reports(layout, analytic, findings, _diagnoses(found, rtol))
    only = subject.outputs[0] if len(subject.outputs) == 1 else None
    is_number = only is not None and only.numel() == 1 and not only.is_complex()
    return Report(
        verdict=worst_verdict(tensor.verdict for tensor in tensors.values()),
        difference=counted.difference,
        tolerance=rtol,
        epsilon=comparison.eps,
        method=f"gradcheck, {comparison.mode}",
        cost=float(only.detach()) if is_number and only is not None else None,
        noise=0.0,
        evaluations=findings.evaluations,
        seconds=seconds,
        tensors=tensors,
        scope=_scope(comparison),
    )


def first_line(report: Report) -> str:
    """Which entry is wrong, and how."""
    tensor = by_fault(report)[0]
    worst = tensor.worst
    said = f"; {tensor.diagnosis}" if tensor.diagnosis is not None else ""
    count = tensor.counts["disagree"] + tensor.counts["nonfinite"]
    return (
        f"{worst.name}: the gradient is {worst.analytic:.7g}, numerically "
        f"{worst.numerical:.7g}; {count} of {tensor.size} entries of {tensor.name} "
        f"{'is' if count == 1 else 'are'} wrong{said}"
    )


def _scope(comparison: Comparison) -> str:
    atol, rtol = comparison.tolerance.atol, comparison.tolerance.rtol
    if comparison.mode == "no gradient":
        return "the outputs have no gradient, so that all slopes should be zero"
    return f"an entry agrees where |analytic − numerical| ≤ {atol:g} + {rtol:g} · |numerical|"


def _name(subject: Subject, output: At, wanted: At) -> str:
    (o, of_output), (k, part) = output, wanted
    is_complex = subject.inputs[k].is_complex()
    name = f"inputs[{k}]" + (_of(part) if is_complex else "")
    if subject.outputs[o].is_complex():
        only = "output" if len(subject.outputs) == 1 else f"outputs[{subject.chosen[o]}]"
        return f"{only}{_of(of_output)}/{name}"
    return name if len(subject.outputs) == 1 else f"outputs[{subject.chosen[o]}]/{name}"


def _of(part: complex) -> str:
    return ".real" if part == 1.0 else ".imag"


def _jacobians(comparison: Comparison, subject: Subject) -> Iterator[_Jacobian]:
    for pair, wrong in zip(comparison.pairs, comparison.wrong, strict=True):
        if not len(pair):
            continue
        allowed = comparison.tolerance.atol + comparison.tolerance.rtol * _size(pair.numerical)
        share = 1.0 if len(pair.inputs) == 1 else math.sqrt(0.5)
        for output, wanted, g, found in zip(
            pair.outputs, pair.inputs, pair.analytic, pair.numerical, strict=True
        ):
            o, (k, part) = output[0], wanted
            out, x = subject.outputs[o].detach(), subject.inputs[k].detach()
            # of a complex entry that is wrong, one part at least is this far off
            finite = g.isfinite() & found.isfinite()
            at_fault = wrong & ~(finite & ((g - found).abs() <= share * allowed))
            codes = torch.where(at_fault, torch.where(finite, DISAGREE, NONFINITE), AGREE)
            columns = sorted(n for i, p, n in comparison.ends if (i, p) == (k, part))
            looked_at = np.add.outer(np.arange(out.numel()) * x.numel(), np.array(columns, int))
            size = float(out.abs().max())
            yield _Jacobian(
                name=_name(subject, output, wanted),
                shape=(*out.shape, *x.shape),
                output_axes=out.dim(),
                grad=_flat(g),
                gradapprox=_flat(found),
                codes=codes.cpu().numpy().astype(np.uint8).ravel(),
                rounding=torch.finfo(out.dtype).eps * (size if math.isfinite(size) else 0.0)
                / comparison.eps,
                dtype=str(x.dtype).removeprefix("torch."),
                parameters=_flat(real_part(x, part))
                if out.numel() == 1
                else np.zeros(g.numel()),
                looked_at=looked_at.ravel(),
                slopes=_slopes(comparison, output, wanted, out, columns),
            )  # fmt: skip


def _size(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.hypot(*parts) if len(parts) == 2 else parts[0].abs()


def _flat(x: torch.Tensor) -> FloatArray:
    flat: FloatArray = x.detach().cpu().to(torch.float64).reshape(-1).numpy()
    return flat


def _slopes(
    comparison: Comparison, output: At, wanted: At, at: torch.Tensor, columns: list[int]
) -> tuple[FloatArray, FloatArray]:
    """The lesser and the greater one-sided slope in these columns, (entries · columns,) each."""
    if not columns:
        return np.empty(0), np.empty(0)
    sides = []
    for n in columns:
        low, high = comparison.ends[(*wanted, n)][output[0]]
        pair = (at - low) / comparison.eps, (high - at) / comparison.eps
        sides.append([_flat(real_part(side, output[1])) for side in pair])
    down, up = np.array(sides).transpose(1, 2, 0).reshape(2, -1)
    return np.minimum(down, up), np.maximum(down, up)


def _diagnoses(found: list[_Jacobian], rtol: float) -> dict[str, Diagnosis]:
    every = {j.name: _evidence(j, rtol) for j in found}
    around = kinds.Surroundings(m=None, divisor=None, weight_decay=0.0, tensors=every)
    said = {}
    for j in found:
        if every[j.name].at_fault:
            known = (*kinds.PLAIN, *kinds.SECOND, *kinds.LAST)
            said[j.name] = (
                _at_kinks(j, every[j.name])
                or kinds.first(known, every[j.name], around)
                or kinds.UNKNOWN
            )
    return said


def _evidence(j: _Jacobian, rtol: float) -> Evidence:
    return Evidence(
        name=j.name,
        shape=j.shape,
        g=j.grad,
        found=j.gradapprox,
        uncertainty=np.full(j.grad.size, j.rounding),
        wrong=j.codes >= DISAGREE,
        known=np.ones(j.grad.size, dtype=np.bool_),
        theta=j.parameters,
        fixed=np.zeros(j.grad.size),
        tolerance=rtol,
        output_axes=j.output_axes,
    )


def _at_kinks(j: _Jacobian, evidence: Evidence) -> Diagnosis | None:
    """Wrong entries that all lie at corners, each between its one-sided slopes."""
    wrong = np.flatnonzero(j.codes >= DISAGREE)
    order = np.argsort(j.looked_at)
    at = np.searchsorted(j.looked_at[order], wrong)
    if (at >= order.size).any() or (j.looked_at[order][at] != wrong).any():
        return None  # some were not looked at
    low, high, g = j.slopes[0][order][at], j.slopes[1][order][at], j.grad[wrong]
    spread = np.maximum(np.abs(low), np.abs(high))
    allowance = 1e-3 * spread + 8 * j.rounding
    if not ((high - low > 10 * allowance) & (low - allowance <= g) & (g <= high + allowance)).all():
        return None
    others = f", and so are the other {wrong.size - 1}" if wrong.size > 1 else ""
    text = (
        f"{evidence.address(int(wrong[0]))} is at a corner of the function, with slopes of "
        f"{low[0]:.4g} and {high[0]:.4g} on its two sides, and the gradient among them{others}. "
        "Move the inputs a little"
    )
    return Diagnosis("kink", text)
