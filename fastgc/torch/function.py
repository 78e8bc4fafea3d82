"""A function of tensors at its inputs, and what is required of it beside its Jacobian."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]
T = TypeVar("T")

#: A real component: the number of an input or an output, and its part, 1 or 1j.
Component: TypeAlias = tuple[int, complex]


@dataclass(frozen=True, eq=False)
class Function:
    """A function at the point where its Jacobian is checked.

    Attributes:
        call: the function, as the caller passed it.
        inputs: all its arguments.
        wanted: numbers of the inputs that the Jacobian is about.
        chosen: numbers of the outputs that it is about.
        outputs: these, at the point, with their graph.
        spent: evaluations so far, in its one element.
    """

    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    wanted: tuple[int, ...]
    chosen: tuple[int, ...]
    outputs: Tensors
    spent: list[int] = field(default_factory=lambda: [0])

    def __call__(self) -> Tensors:
        """The chosen outputs at the inputs as they are now."""
        self.spent[0] += 1
        return self.outputs_of(self.inputs)

    def outputs_of(self, inputs: tuple[Any, ...]) -> Tensors:
        """The chosen outputs at other inputs."""
        returned = as_tuple(self.call(*inputs))
        return tuple(returned[i] for i in self.chosen)

    def with_input(self, k: int, value: Tensor) -> Tensors:
        """The chosen outputs with `value` in the place of input `k`."""
        return self.outputs_of((*self.inputs[:k], value, *self.inputs[k + 1 :]))

    def moved(self, data: Tensor, point: Tensor) -> Tensors:
        """The chosen outputs while `data`, which is part of an input, holds `point`.

        The tensor itself is written to, and restored to the bit, so that a function that holds it
        instead of using its argument sees it too.
        """
        before = data.clone()
        try:
            data.copy_(point)
            return tuple(o.detach().clone() for o in self())
        finally:
            data.copy_(before)

    def components(self) -> list[Component]:
        """Those of the inputs that the Jacobian is about."""
        return [(k, part) for k in self.wanted for part in parts_of(self.inputs[k])]


def function_at(call: Callable[..., Any], inputs: tuple[Any, ...]) -> Function:
    """The function at its inputs, with the outputs that can be differentiated; or, of none, all."""
    outputs = as_tuple(call(*inputs))
    floats = [i for i, o in enumerate(outputs) if is_float(o)]
    chosen = [i for i in floats if outputs[i].requires_grad] or floats
    wanted = (i for i, x in enumerate(inputs) if is_differentiated(x))
    return Function(call, inputs, tuple(wanted), tuple(chosen), tuple(outputs[i] for i in chosen))


def as_tuple(values: Any) -> tuple[Any, ...]:
    """What a function returned, or takes, as a tuple."""
    return tuple(values) if isinstance(values, tuple | list) else (values,)


def is_float(x: Tensor) -> bool:
    """Whether a tensor is of real or complex numbers."""
    return x.is_floating_point() or x.is_complex()


def is_differentiated(x: object) -> bool:
    """Whether an argument is a tensor that requires a gradient."""
    return isinstance(x, Tensor) and x.requires_grad


def parts_of(x: Tensor) -> tuple[complex, ...]:
    """The directions in which each entry can go: 1, and 1j where it is complex."""
    return (1.0, 1j) if x.is_complex() else (1.0,)


def real_part(x: Tensor, part: complex) -> Tensor:
    """The real part of a tensor, or for 1j the imaginary one; of a real tensor, itself."""
    if not x.is_complex():
        return x
    return torch.real(x) if part == 1.0 else torch.imag(x)


def attempt(run: Callable[[], T]) -> T | None:
    """What a faster way returns; None where it raises or warns.

    The plain way is taken then. It shows the same, if it is of the caller's making.
    """
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        try:
            result = run()
        except Exception:
            return None
    return None if shown else result


def is_quiet(function: Function) -> bool:
    """Whether the function computes the same without recording a graph, which is faster."""

    def same() -> bool:
        pairs = zip(function(), function.outputs, strict=True)
        return all(torch.equal(a, b.detach()) for a, b in pairs)

    with torch.no_grad():
        return bool(attempt(same))


def are_plain(arguments: tuple[Any, ...]) -> bool:
    """Whether PyTorch's gradcheck has nothing to say of these inputs: no warning and no error."""
    wanted = [x for x in arguments if is_differentiated(x)]
    return bool(wanted) and all(
        x.dtype in (torch.float64, torch.complex128)
        and all(stride > 0 or size <= 1 for stride, size in zip(x.stride(), x.shape, strict=True))
        for x in wanted
    )


class _Undefined(torch.autograd.Function):
    """Its input, into which no gradient flows back."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """The input."""
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, *__: Any) -> None:
        """An undefined gradient."""


def passes_nothing_back(function: Function, *, check_undefined_grad: bool) -> bool:
    """Whether zeros, and undefined gradients, flow back as nothing; else PyTorch's own says why."""
    outputs = [o for o in function.outputs if o.requires_grad]
    if not outputs:
        return True
    wanted = [function.inputs[k] for k in function.wanted]
    try:
        if not _is_nothing(outputs, wanted):
            return False
        single = [[o] for o in outputs] if len(outputs) > 1 else []
        for undefined in [outputs, *single] if check_undefined_grad else []:
            marks = [any(o is u for u in undefined) for o in outputs]
            marked = [
                _Undefined.apply(o) if mark else o
                for o, mark in zip(function(), marks, strict=True)
            ]
            if not _is_nothing(marked, wanted):
                return False
    except RuntimeError:
        return False
    return True


def _is_nothing(outputs: list[Tensor], wanted: list[Tensor]) -> bool:
    """Whether zeros at the outputs are zeros, or nothing, at the inputs."""
    zeros = [torch.zeros_like(o, memory_format=torch.legacy_contiguous_format) for o in outputs]
    gradients = torch.autograd.grad(outputs, wanted, zeros, retain_graph=True, allow_unused=True)
    return all(
        g is None
        or (
            (g.layout, g.dtype, g.device, g.size()) == (x.layout, x.dtype, x.device, x.size())
            and bool(g.eq(0).all())
        )
        for g, x in zip(gradients, wanted, strict=True)
    )
