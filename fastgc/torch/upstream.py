"""Backward passes of a multiple of the loss, whoever takes them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastgc.diagnosis.upstream import NOISE, NOISE_OF_GPU
from fastgc.torch.state import Generators


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
                    self._take(name, p.grad)
                p.grad = _sum(held[name], p.grad)

    def _take(self, name: str, grad: torch.Tensor) -> None:
        grad = grad.detach()
        dense = grad.clone() if grad.layout == torch.strided else grad.to_dense()
        self.gradients[name] = dense + self.gradients[name] if name in self.gradients else dense


def noise_of(parameters: Mapping[str, torch.nn.Parameter]) -> float:
    """How far two backward passes may be apart, of the tensor's largest gradient."""
    on_cpu = all(p.device.type == "cpu" for p in parameters.values())
    return NOISE if on_cpu else NOISE_OF_GPU


def _sum(held: torch.Tensor | None, grad: torch.Tensor | None) -> torch.Tensor | None:
    if held is None or grad is None:
        return held if grad is None else grad
    return held + grad
