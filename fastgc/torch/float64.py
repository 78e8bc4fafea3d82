"""Tensors brought to float64, and calls of torch that would mix them with narrow ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

#: Dtypes that are too narrow to take differences in, and what takes their place.
WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}

# Methods that take a tensor to a narrow dtype; `InFloat64` leaves it in double precision.
NARROWING = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}

# Operators that write to their first argument; methods that do end in one underscore.
IN_PLACE = {"__setitem__"} | {
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}


def name_of(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")


def as_array(tensor: torch.Tensor) -> NDArray[np.float64]:
    """A copy on the host, dense, in float64."""
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return np.array(dense.to("cpu", torch.float64).numpy())


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors of nested lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)


def tensors_of(modules: Iterable[torch.nn.Module]) -> list[torch.Tensor]:
    """Parameters, buffers and tensors in plain attributes of the modules, each once."""
    tensors: dict[int, torch.Tensor] = {}
    for module in modules:
        attributes = (vars(module), [*module.parameters(False), *module.buffers(False)])
        tensors |= {id(tensor): tensor for tensor in tensors_in(attributes)}
    return list(tensors.values())


def wide(tensor: torch.Tensor, *, copy: bool = False) -> torch.Tensor:
    """A tensor in double precision, if it is of a dtype that is narrower."""
    return tensor.to(WIDE.get(tensor.dtype, tensor.dtype), copy=copy)


def widen(tensors: Iterable[torch.Tensor]) -> None:
    """Gives each of them values of its own, in double precision.

    They stay the same objects, with their hooks.
    """
    for tensor in tensors:
        tensor.data = wide(tensor.data, copy=True)


def widened(value: Any) -> Any:
    """A copy of nested containers whose tensors are new, and in double precision."""
    if isinstance(value, torch.Tensor):
        return wide(value.detach(), copy=True).requires_grad_(value.requires_grad)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a namedtuple, a PackedSequence
        return type(value)(*map(widened, value))
    if type(value) in (list, tuple):
        return type(value)(map(widened, value))
    if type(value) is dict:
        return {key: widened(item) for key, item in value.items()}
    return value


class InFloat64(TorchFunctionMode):
    """While active, narrow tensors and dtypes that a call of torch is given are made float64.

    That is for what the float64 module meets on its way: data that a closure captured, a tensor
    made with ``dtype=torch.float32``, ``x.float()``.

    Attributes:
        narrowed: the narrow dtypes that there were.
        bytes: of the tensors that calls returned, in all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.narrowed: set[torch.dtype] = set()
        self.bytes = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch calls this in the place of `func`."""
        kwargs = kwargs or {}
        if not _keeps(func):
            writes = _writes(func)
            first = args[:1] if writes else ()  # what is written to stays the tensor it is
            args = (*first, *map(self._wide, args[len(first) :]))
            kwargs = {k: v if k == "out" else self._wide(v) for k, v in kwargs.items()}
            if func.__name__ in NARROWING and isinstance(args[0], torch.Tensor):
                self.narrowed.add(NARROWING[func.__name__])
                return args[0].to(torch.float64)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self.bytes += result.numel() * result.element_size()
        return result

    def _wide(self, value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(map(self._wide, value))
        dtype = value.dtype if isinstance(value, torch.Tensor) else value
        if not (isinstance(dtype, torch.dtype) and dtype in WIDE):
            return value
        self.narrowed.add(dtype)
        return WIDE[dtype] if value is dtype else wide(value)


def _keeps(func: Callable[..., Any]) -> bool:
    """Whether a call is about the very tensors it is given: attributes, hooks, autograd."""
    name = func.__name__
    return (
        name in ("__get__", "__set__", "__delete__", "backward", "requires_grad_", "retain_grad")
        or name.startswith("register_")
        or (getattr(func, "__module__", None) or "").startswith("torch.autograd")
    )


def _writes(func: Callable[..., Any]) -> bool:
    """Whether a call writes to its first argument."""
    name = func.__name__
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
