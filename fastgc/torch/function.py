"""A function and its inputs made ready for a check, and what is required beside its Jacobian."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastgc.torch.numerical import Subject, as_tuple
from fastgc.torch.state import Generators


def are_plain(arguments: tuple[Any, ...]) -> bool:
    """Whether PyTorch's gradcheck has nothing to say of these inputs: no warning and no error."""
    wanted = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    return bool(wanted) and all(
        x.dtype in (torch.float64, torch.complex128)
        and all(stride > 0 or size <= 1 for stride, size in zip(x.stride(), x.shape, strict=True))
        for x in wanted
    )


def posed(func: Callable[..., Any], arguments: tuple[Any, ...]) -> Subject:
    """The function at its inputs, with the outputs that can be differentiated; or, of none, all."""
    found = as_tuple(func(*arguments))
    floats = [i for i, o in enumerate(found) if o.is_floating_point() or o.is_complex()]
    chosen = [i for i in floats if found[i].requires_grad] or floats
    return Subject(
        call=func,
        inputs=arguments,
        wanted=tuple(
            i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad
        ),
        chosen=tuple(chosen),
        outputs=tuple(found[i] for i in chosen),
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


def meets(subject: Subject, *, check_undefined_grad: bool) -> bool:
    """Whether zeros, and undefined gradients, flow back as nothing; else PyTorch's own says why."""
    outputs = [o for o in subject.outputs if o.requires_grad]
    if not outputs:
        return True
    wanted = [subject.inputs[k] for k in subject.wanted]
    tries = [[o] for o in outputs] if len(outputs) > 1 else []
    try:
        if not _is_nothing(outputs, wanted):
            return False
        for undefined in [outputs, *tries] if check_undefined_grad else []:
            which = [any(o is u for u in undefined) for o in outputs]
            found = [
                _Undefined.apply(o) if is_undefined else o
                for o, is_undefined in zip(subject(), which, strict=True)
            ]
            if not _is_nothing(found, wanted):
                return False
    except RuntimeError:
        return False
    return True


def _is_nothing(outputs: list[Tensor], wanted: list[Tensor]) -> bool:
    """Whether zeros at the outputs are zeros, or nothing, at the inputs."""
    zeros = [torch.zeros_like(o, memory_format=torch.legacy_contiguous_format) for o in outputs]
    found = torch.autograd.grad(outputs, wanted, zeros, retain_graph=True, allow_unused=True)
    return all(
        g is None
        or (
            g.layout == x.layout
            and (g.dtype, g.device, g.size()) == (x.dtype, x.device, x.size())
            and bool(g.eq(0).all())
        )
        for g, x in zip(found, wanted, strict=True)
    )


@contextmanager
def unchanged_random_state(arguments: tuple[Any, ...]) -> Iterator[None]:
    """Puts the generators of PyTorch, NumPy and Python back to where they were."""
    generators = Generators.now({x.device for x in arguments if isinstance(x, Tensor)})
    try:
        yield
    finally:
        generators.restore()
