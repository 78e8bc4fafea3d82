"""Whether a backward pass is linear in its upstream gradient, and the same each time.

Where the loss is the last operation its upstream gradient is 1, and a backward pass that leaves it
out has the right gradient all the same: until the loss is scaled, weighted or added to another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.report import Report, also_saying
from fastgc.torch.state import Generators

Gradients: TypeAlias = Mapping[str, torch.Tensor]

#: A pass of the loss, and back from `factor` times it, with generators seeded before it goes back:
#: (factor, seed) -> gradients; None where the loss is another number than the first time.
Pass: TypeAlias = Callable[[float, int], Gradients | None]

# Two passes may differ by this much of the tensor's largest gradient, as threads sum in any order;
# on a GPU atomic operations do so in every kernel, of terms that may be much larger than their sum.
NOISE, NOISE_OF_GPU = 1e-12, 1e-9

# And by this much of the largest gradient of all. A tensor that is smaller than the second is
# rounding of zero, as that of a bias below a batch normalisation.
OF_ALL, VANISHING = 1e-14, 1e-12

UPSTREAM, IRREPRODUCIBLE = "upstream", "irreproducible"  # kinds of diagnoses

#: Where each pass seeds the generators before it goes back: noise in a backward pass is then seen.
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Findings:
    """What backward passes show that gradients at one point do not.

    Attributes:
        diagnoses: of the tensors whose backward pass is wrong.
        limited: tensors whose gradient doubles with the loss no more, though it halves with it.
    """

    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    limited: tuple[str, ...] = ()


class Scaled(TorchFunctionMode):
    """While active, ``loss.backward()`` goes back from `factor` times the loss.

    What draws numbers on the way back finds the generators seeded, and leaves them as they were.

    Attributes:
        gradients: that these passes left, in all, by parameter.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], factor: float, seed: int | None
    ) -> None:
        super().__init__()
        self.gradients: dict[str, torch.Tensor] = {}
        self._parameters = parameters
        self._factor, self._seed = factor, seed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch calls this in the place of `func`."""
        kwargs = kwargs or {}
        if func is not torch.Tensor.backward or kwargs.get("create_graph"):
            return func(*args, **kwargs)
        held = {name: p.grad for name, p in self._parameters.items()}
        generators = Generators.now({p.device for p in self._parameters.values()})
        for p in self._parameters.values():
            p.grad = None
        try:
            if self._seed is not None:
                generators.seed(self._seed)
            root = args[0] if self._factor == 1 else self._factor * args[0]
            return func(root, *args[1:], **kwargs)
        finally:
            generators.restore()
            for name, p in self._parameters.items():
                if p.grad is not None:
                    dense = _dense(p.grad)
                    sums = self.gradients.get(name)
                    self.gradients[name] = dense.clone() if sums is None else sums + dense
                    p.grad = _sum(held[name], p.grad)
                else:
                    p.grad = held[name]


def findings(first: Gradients, run: Pass, tolerance: float) -> Findings:
    """What two, and where these differ, up to four passes show.

    Args:
        first: the gradients of the pass that has been.
        run: another one.
        tolerance: relative: by this much of itself the gradient of 2·loss may be off.
    """
    allowed = _allowed(first)
    doubled = run(2.0, SEEDS[0]) if allowed else None
    if doubled is None:
        return Findings()
    suspects = [name for name in allowed if _apart(first, doubled, 2.0, name) > allowed[name]]
    again = run(1.0, SEEDS[1]) if suspects else None
    if again is None:
        return Findings()
    diagnoses = {}
    for name in suspects:
        apart = _apart(first, again, 1.0, name)
        if apart > allowed[name]:
            diagnoses[name] = _irreproducible(apart / float(_finite(first[name]).max()))
    nonlinear = [
        name for name in suspects
        if name not in diagnoses and _is_off(first, doubled, 2.0, name, tolerance, allowed[name])
    ]  # fmt: skip
    halved = run(0.5, SEEDS[2]) if nonlinear else None
    if halved is None:
        return Findings(diagnoses)
    limited = []
    for name in nonlinear:
        if _is_off(first, halved, 0.5, name, tolerance, allowed[name]):
            diagnoses[name] = _nonlinear(first[name], doubled.get(name))
        else:
            limited.append(name)
    return Findings(diagnoses, tuple(limited))


def told(report: Report, found: Findings) -> Report:
    """The report with what backward passes show: a tensor whose backward pass is wrong is wrong."""
    limited = [name for name in found.limited if name in report.tensors]
    if limited:
        report = also_saying(
            report,
            f"the gradient of 2·loss is not twice that of the loss in {', '.join(limited)}, though "
            "that of loss/2 is half of it: does the backward pass clip?",
        )
    tensors = dict(report.tensors)
    at_fault = [name for name in tensors if name in found.diagnoses]
    if not at_fault:
        return report
    for name in at_fault:
        tensor, said = tensors[name], found.diagnoses[name]
        if said.kind == UPSTREAM and tensor.diagnosis is not None:
            said = replace(said, text=f"{said.text}. As it is: {tensor.diagnosis}")
        tensors[name] = replace(tensor, verdict="wrong", diagnosis=said)
    return replace(report, verdict="wrong", tensors=tensors, origin=None)


def _irreproducible(apart: float) -> Diagnosis:
    return Diagnosis(
        IRREPRODUCIBLE,
        "the backward pass is not reproducible: another one, of the same loss, leaves a gradient "
        f"that is off by {apart:.2g} of its largest entry. Does it draw random numbers, or keep "
        "anything from call to call?",
        apart,
    )


def _nonlinear(first: torch.Tensor, doubled: torch.Tensor | None) -> Diagnosis:
    """What the gradient of 2·loss looks like beside that of the loss."""
    other = torch.zeros_like(first) if doubled is None else doubled
    known = first.isfinite() & other.isfinite()
    g, h = first[known], other[known]
    ratio = float((g * h).sum() / (g * g).sum())
    if torch.allclose(g, h, rtol=1e-9, atol=1e-12 * float(g.abs().max())):
        text = (
            "the backward pass ignores its upstream gradient: that of 2·loss leaves the same "
            "gradient, not twice it. Multiply by grad_output"
        )
    else:
        text = (
            "the backward pass does not scale with its upstream gradient: that of 2·loss leaves "
            f"{ratio:.4g} × the gradient, not twice it. Is everything multiplied by grad_output, "
            "once?"
        )
    return Diagnosis(UPSTREAM, text, ratio)


def _allowed(first: Gradients) -> dict[str, float]:
    """How far two passes may be apart, by tensor; those that are zero, or rounding, left out."""
    largest = {
        name: float(sizes.max()) if (sizes := _finite(g)).numel() else 0.0
        for name, g in first.items()
    }
    top = max(largest.values(), default=0.0)
    return {
        name: (NOISE if first[name].device.type == "cpu" else NOISE_OF_GPU) * size + OF_ALL * top
        for name, size in largest.items()
        if size > VANISHING * top
    }


def _finite(g: torch.Tensor) -> torch.Tensor:
    """The sizes of the entries that are finite."""
    return g[g.isfinite()].abs()


def _differences(
    first: Gradients, other: Gradients, factor: float, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """|other / factor − first| where first is finite, and the larger of the two."""
    g = first[name]
    h = torch.zeros_like(g) if name not in other else other[name] / factor
    known = g.isfinite()
    g, h = g[known], h[known].nan_to_num(nan=torch.inf)
    return (h - g).abs(), torch.maximum(g.abs(), h.abs())


def _apart(first: Gradients, other: Gradients, factor: float, name: str) -> float:
    """The largest difference."""
    return float(_differences(first, other, factor, name)[0].max())


def _is_off(
    first: Gradients, other: Gradients, factor: float, name: str, tolerance: float, noise: float
) -> bool:
    """Whether any entry is further off than the gradient of `factor` times the loss may be."""
    errors, sizes = _differences(first, other, factor, name)
    return not bool((errors <= tolerance * sizes.clamp(max=1e300) + noise).all())


def _dense(grad: torch.Tensor) -> torch.Tensor:
    grad = grad.detach()
    return grad if grad.layout == torch.strided else grad.to_dense()


def _sum(held: torch.Tensor | None, grad: torch.Tensor) -> torch.Tensor:
    return grad if held is None else held + grad
