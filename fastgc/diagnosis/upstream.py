"""Whether a backward pass is linear in its upstream gradient, and the same each time.

Where the loss is the last operation its upstream gradient is 1, and a backward pass that leaves it
out has the right gradient all the same: until the loss is scaled, weighted or added to another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from fastgc.core.tree import FloatArray
from fastgc.report.data import Diagnosis, also_saying
from fastgc.report.report import Report

Gradients: TypeAlias = Mapping[str, FloatArray]

#: Another backward pass, from so many times the loss; the number is another one for each pass, for
#: what it draws at random to differ. None where it cannot be had.
Pass: TypeAlias = Callable[[float, int], Gradients | None]

#: Two passes may differ by this much of the tensor's largest gradient, as threads sum in any order.
#: On a GPU atomic operations do so, within every kernel, with terms that may be much larger than
#: their sum. The last is for gradients that are made of float32 numbers.
NOISE, NOISE_OF_GPU, NOISE_OF_SINGLE = 1e-12, 1e-9, 1e-5

# And by this much of the largest gradient of all. A tensor that is smaller than the second is
# rounding of zero, as that of a bias below a batch normalisation.
OF_ALL, VANISHING = 1e-14, 1e-12

UPSTREAM, IRREPRODUCIBLE = "upstream", "irreproducible"  # kinds of diagnoses


@dataclass(frozen=True)
class Findings:
    """What backward passes show that gradients at one point do not.

    Attributes:
        diagnoses: of the tensors whose backward pass is wrong.
        limited: tensors whose gradient doubles with the loss no more, though it halves with it.
    """

    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    limited: tuple[str, ...] = ()


def findings(
    first: Gradients, run: Pass, tolerance: float, *, on_cpu: bool, single: bool = False
) -> Findings:
    """What two, and where these differ, up to four passes show; nothing where one raises.

    One does of a graph that was made before the loss and is gone by now, or of a callback that
    serves once.

    Args:
        first: the gradients of the pass that has been, in float64.
        run: another one.
        tolerance: relative: by this much of itself the gradient of 2·loss may be off.
        on_cpu: whether nothing is computed on another device.
        single: whether gradients are made of float32 numbers.
    """
    noise = NOISE if on_cpu else NOISE_OF_GPU
    try:
        return _findings(first, run, tolerance, NOISE_OF_SINGLE if single else noise)
    except Exception:
        return Findings()


def _findings(first: Gradients, run: Pass, tolerance: float, noise: float) -> Findings:
    allowed = _allowed(first, noise)
    doubled = run(2.0, 1) if allowed else None
    if doubled is None:
        return Findings()
    suspects = [name for name in allowed if _apart(first, doubled, 2.0, name) > allowed[name]]
    again = run(1.0, 2) if suspects else None
    if again is None:
        return Findings()
    diagnoses = {}
    for name in suspects:
        apart = _apart(first, again, 1.0, name)
        if apart > allowed[name]:
            diagnoses[name] = _irreproducible(apart / _largest(first[name]))
    nonlinear = [
        name for name in suspects
        if name not in diagnoses and _is_off(first, doubled, 2.0, name, tolerance, allowed[name])
    ]  # fmt: skip
    halved = run(0.5, 3) if nonlinear else None
    if halved is None:
        return Findings(diagnoses)
    limited = []
    for name in nonlinear:
        if _is_off(first, halved, 0.5, name, tolerance, allowed[name]):
            diagnoses[name] = _nonlinear(first[name], doubled.get(name))
        else:
            limited.append(name)
    return Findings(diagnoses, tuple(limited))


def with_findings(report: Report, passes: Findings) -> Report:
    """The report with what backward passes show: a tensor whose backward pass is wrong is wrong."""
    limited = [name for name in passes.limited if name in report.tensors]
    if limited:
        report = also_saying(
            report,
            f"the gradient of 2·loss is not twice that of the loss in {', '.join(limited)}, though "
            "that of loss/2 is half of it: does the backward pass clip?",
        )
    tensors = dict(report.tensors)
    at_fault = [name for name in tensors if name in passes.diagnoses]
    if not at_fault:
        return report
    for name in at_fault:
        tensor, diagnosis = tensors[name], passes.diagnoses[name]
        if diagnosis.kind == UPSTREAM and tensor.diagnosis is not None:
            diagnosis = replace(diagnosis, text=f"{diagnosis.text}. As it is: {tensor.diagnosis}")
        tensors[name] = replace(tensor, verdict="wrong", diagnosis=diagnosis)
    return replace(report, verdict="wrong", tensors=tensors, origin=None)


def _irreproducible(apart: float) -> Diagnosis:
    return Diagnosis(
        IRREPRODUCIBLE,
        "the backward pass is not reproducible: another one, of the same loss, leaves a gradient "
        f"that is off by {apart:.2g} of its largest entry. Does it draw random numbers, or keep "
        "anything from call to call?",
        apart,
    )


def _nonlinear(first: FloatArray, doubled: FloatArray | None) -> Diagnosis:
    """What the gradient of 2·loss looks like beside that of the loss."""
    other = np.zeros_like(first) if doubled is None else doubled
    known = np.isfinite(first) & np.isfinite(other)
    g, h = first[known], other[known]
    ratio = float((g * h).sum() / np.square(g).sum())
    if np.allclose(g, h, rtol=1e-9, atol=1e-12 * _largest(g)):
        text = (
            "the backward pass ignores its upstream gradient: that of 2·loss leaves the same "
            "gradient, not twice it. Multiply by what comes in, grad_output"
        )
    else:
        text = (
            "the backward pass does not scale with its upstream gradient: that of 2·loss leaves "
            f"{ratio:.4g} × the gradient, not twice it. Is all of it multiplied, once, by what "
            "comes in, grad_output?"
        )
    return Diagnosis(UPSTREAM, text, ratio)


def _allowed(first: Gradients, noise: float) -> dict[str, float]:
    """How far two passes may be apart, by tensor; those that are zero, or rounding, left out."""
    largest = {name: _largest(g) for name, g in first.items()}
    top = max(largest.values(), default=0.0)
    return {
        name: noise * size + OF_ALL * top
        for name, size in largest.items()
        if size > VANISHING * top
    }


def _largest(g: FloatArray) -> float:
    """Of the entries that are finite, in size; 0 of none."""
    return float(np.abs(g[np.isfinite(g)]).max(initial=0.0))


def _differences(
    first: Gradients, other: Gradients, factor: float, name: str
) -> tuple[FloatArray, FloatArray]:
    """|other / factor − first| where first is finite, and the larger of the two."""
    g = first[name]
    h = other[name] / factor if name in other else np.zeros_like(g)
    known = np.isfinite(g)
    g, h = g[known], np.where(np.isnan(h[known]), np.inf, h[known])
    return np.abs(h - g), np.maximum(np.abs(g), np.abs(h))


def _apart(first: Gradients, other: Gradients, factor: float, name: str) -> float:
    """The largest difference."""
    return float(_differences(first, other, factor, name)[0].max())


def _is_off(
    first: Gradients, other: Gradients, factor: float, name: str, tolerance: float, noise: float
) -> bool:
    """Whether any entry is further off than the gradient of `factor` times the loss may be."""
    errors, sizes = _differences(first, other, factor, name)
    return not bool((errors <= tolerance * np.minimum(sizes, 1e300) + noise).all())
