"""What gradcheck found, as a Report whose tensors are Jacobians."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastgc.core.gradients import analytic_gradient
from fastgc.core.tree import FloatArray, flatten
from fastgc.core.verdict import AGREE, DISAGREE, NONFINITE, worst_verdict
from fastgc.diagnosis import kinds
from fastgc.diagnosis.evidence import Evidence
from fastgc.report.data import Diagnosis
from fastgc.report.report import Report
from fastgc.report.text import by_fault
from fastgc.torch.comparison import Comparison, Jacobian, Pair
from fastgc.torch.float64 import as_array, name_of
from fastgc.torch.function import Component, Function, real_part
from fastgc.verdicts.outcome import tensor_reports
from fastgc.verdicts.record import Findings
from fastgc.verdicts.summary import summarise, tensor_means


class _Tensor(NamedTuple):
    """One real Jacobian as a tensor of the report, flat; with its columns that had a second look.

    Attributes:
        evidence: of it.
        codes: the verdicts on its entries.
        dtype: of the input.
        looked_at: the entries in those columns, in order.
        slopes: the lesser and the greater one-sided slope there.
    """

    evidence: Evidence
    codes: NDArray[np.uint8]
    dtype: str
    looked_at: NDArray[np.intp]
    slopes: tuple[FloatArray, FloatArray]


def report_of(comparison: Comparison, function: Function, seconds: float = 0.0) -> Report:
    """The Report on a comparison that has any entries."""
    tensors = [
        _tensor(comparison, function, pair, jacobian, wrong)
        for pair, wrong in zip(comparison.pairs, comparison.wrong, strict=True)
        for jacobian in pair.jacobians
        if len(pair)
    ]
    evidence = [tensor.evidence for tensor in tensors]
    rtol = comparison.tolerance.rtol
    layout, gradapprox = flatten({e.name: e.found.reshape(e.shape) for e in evidence})
    layout = replace(layout, output_axes=tuple(e.output_axes for e in evidence))
    analytic = replace(
        analytic_gradient(layout, {e.name: e.g.reshape(e.shape) for e in evidence}, rtol),
        dtypes=tuple(tensor.dtype for tensor in tensors),
    )
    uncertainty = np.concatenate([e.uncertainty for e in evidence])
    codes = np.concatenate([tensor.codes for tensor in tensors])
    means = tensor_means(layout, gradapprox)
    low, high = (np.concatenate([tensor.slopes[side] for tensor in tensors]) for side in (0, 1))
    starts = zip(tensors, layout.offsets, strict=False)
    findings = Findings(
        grad=analytic.grad,
        gradapprox=gradapprox,
        uncertainty=uncertainty,
        codes=codes,
        at_rounding=np.empty(0, np.intp),
        disputed=np.concatenate([tensor.looked_at + start for tensor, start in starts]),
        slopes=(low, high),
        summary=summarise(layout, analytic, gradapprox, uncertainty, means, codes),
    )
    reports = tensor_reports(layout, analytic, findings, _diagnoses(tensors))
    return Report(
        verdict=worst_verdict(report.verdict for report in reports.values()),
        difference=findings.summary.difference,
        tolerance=rtol,
        epsilon=comparison.eps,
        method=f"gradcheck, {comparison.mode}",
        cost=_cost(function),
        noise=0.0,
        evaluations=function.spent[0],
        seconds=seconds,
        tensors=reports,
        scope=_scope(comparison),
    )


def first_line(report: Report) -> str:
    """Which entry is wrong, and how."""
    tensor = by_fault(report)[0]
    worst = tensor.worst
    count = tensor.counts["disagree"] + tensor.counts["nonfinite"]
    return (
        f"{worst.name}: the gradient is {worst.analytic:.7g}, numerically "
        f"{worst.numerical:.7g}; {count} of {tensor.size} entries of {tensor.name} "
        f"{'is' if count == 1 else 'are'} wrong"
        + ("" if tensor.diagnosis is None else f"; {tensor.diagnosis}")
    )


def _cost(function: Function) -> float | None:
    """The value of a function that returns one real number."""
    output = function.outputs[0]
    if len(function.outputs) > 1 or output.numel() != 1 or output.is_complex():
        return None
    return float(output.detach())


def _scope(comparison: Comparison) -> str:
    atol, rtol = comparison.tolerance.atol, comparison.tolerance.rtol
    if comparison.mode == "no gradient":
        return "the outputs have no gradient, so that all slopes should be zero"
    return f"an entry agrees where |analytic − numerical| ≤ {atol:g} + {rtol:g} · |numerical|"


def _name(function: Function, jacobian: Jacobian) -> str:
    (o, of_output), (k, part) = jacobian.output, jacobian.input
    output, several = function.outputs[o], len(function.outputs) > 1
    name = f"inputs[{k}]{_suffix(function.inputs[k], part)}"
    if not (several or output.is_complex()):
        return name
    of = f"outputs[{function.chosen[o]}]" if several else "output"
    return f"{of}{_suffix(output, of_output)}/{name}"


def _suffix(x: torch.Tensor, part: complex) -> str:
    if not x.is_complex():
        return ""
    return ".real" if part == 1.0 else ".imag"


def _tensor(
    comparison: Comparison, function: Function, pair: Pair, jacobian: Jacobian, wrong: torch.Tensor
) -> _Tensor:
    o, (k, part) = jacobian.output[0], jacobian.input
    output, x = function.outputs[o].detach(), function.inputs[k].detach()
    g, numerical = jacobian.analytic, jacobian.numerical
    # of a complex entry that is wrong, one part at least is this far off
    share = math.sqrt(1 / len(pair.jacobians))
    finite = g.isfinite() & numerical.isfinite()
    within = finite & comparison.tolerance.allows((g - numerical).abs(), pair.sizes, share)
    verdicts = torch.where(wrong & ~within, torch.where(finite, DISAGREE, NONFINITE), AGREE)
    codes = verdicts.cpu().numpy().astype(np.uint8).ravel()
    columns = sorted(n for component, n in comparison.ends if component == jacobian.input)
    looked_at = np.add.outer(np.arange(output.numel()) * x.numel(), np.array(columns, int))
    size = float(output.abs().max())
    rounding = torch.finfo(output.dtype).eps * (size if math.isfinite(size) else 0.0)
    evidence = Evidence(
        name=_name(function, jacobian),
        shape=(*output.shape, *x.shape),
        g=as_array(g).ravel(),
        found=as_array(numerical).ravel(),
        uncertainty=np.full(codes.size, rounding / comparison.eps),
        wrong=codes >= DISAGREE,
        known=np.ones(codes.size, dtype=np.bool_),
        theta=as_array(real_part(x, part)).ravel() if output.numel() == 1 else np.zeros(codes.size),
        fixed=np.zeros(codes.size),
        tolerance=comparison.tolerance.rtol,
        output_axes=output.dim(),
    )
    slopes = _slopes(comparison, jacobian.output, jacobian.input, output, columns)
    return _Tensor(evidence, codes, name_of(x.dtype), looked_at.ravel(), slopes)


def _slopes(
    comparison: Comparison,
    output: Component,
    component: Component,
    middle: torch.Tensor,
    columns: list[int],
) -> tuple[FloatArray, FloatArray]:
    """The lesser and the greater one-sided slope in these columns, (entries · columns,) each."""
    if not columns:
        return np.empty(0), np.empty(0)
    sides = []
    for n in columns:
        low, high = comparison.ends[component, n][output[0]]
        pair = (middle - low) / comparison.eps, (high - middle) / comparison.eps
        sides.append([as_array(real_part(side, output[1])).ravel() for side in pair])
    down, up = np.array(sides).transpose(1, 2, 0).reshape(2, -1)
    return np.minimum(down, up), np.maximum(down, up)


def _diagnoses(tensors: list[_Tensor]) -> dict[str, Diagnosis]:
    evidence = {tensor.evidence.name: tensor.evidence for tensor in tensors}
    around = kinds.Surroundings(m=None, divisor=None, weight_decay=0.0, tensors=evidence)
    known = (*kinds.PLAIN, *kinds.SECOND, *kinds.LAST)
    return {
        tensor.evidence.name: _at_kinks(tensor)
        or kinds.first(known, tensor.evidence, around)
        or kinds.UNKNOWN
        for tensor in tensors
        if tensor.evidence.at_fault
    }


def _at_kinks(tensor: _Tensor) -> Diagnosis | None:
    """Wrong entries that all lie at corners, each between its one-sided slopes."""
    wrong = np.flatnonzero(tensor.evidence.wrong)
    if not np.isin(wrong, tensor.looked_at).all():
        return None
    at = np.searchsorted(tensor.looked_at, wrong)
    low, high, g = tensor.slopes[0][at], tensor.slopes[1][at], tensor.evidence.g[wrong]
    allowance = 1e-3 * np.maximum(np.abs(low), np.abs(high)) + 8 * tensor.evidence.uncertainty[0]
    if not ((high - low > 10 * allowance) & (low - allowance <= g) & (g <= high + allowance)).all():
        return None
    others = f", and so are the other {wrong.size - 1}" if wrong.size > 1 else ""
    text = (
        f"{tensor.evidence.address(int(wrong[0]))} is at a corner of the function, with slopes of "
        f"{low[0]:.4g} and {high[0]:.4g} on its two sides, and the gradient among them{others}. "
        "Move the inputs a little"
    )
    return Diagnosis("kink", text)
