"""What a check changes on its way, and puts back: generators, buffers, attributes, settings."""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

# Fused kernels of attention, which vmap cannot batch; the formula itself serves in their place.
FUSED = (
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)

Attributes: TypeAlias = list[tuple[dict[str, Any], dict[str, Any]]]


@contextmanager
def settings(threads: int | None) -> Iterator[None]:
    """Torch's global settings for a check, and the caller's again afterwards."""
    dtype, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    running, kernels = torch.get_num_threads(), [enabled() for enabled, _ in FUSED]
    with torch.inference_mode(mode=False), _eagerly():
        try:
            torch.set_default_dtype(torch.float64)
            torch.backends.mha.set_fastpath_enabled(False)  # it is off where gradients are taken
            if threads is not None:
                torch.set_num_threads(min(threads, running))
            yield
        finally:
            if torch.get_num_threads() != running:
                torch.set_num_threads(running)
            for (_, enable), had in zip(FUSED, kernels, strict=True):
                enable(had)
            torch.backends.mha.set_fastpath_enabled(fast)
            torch.set_default_dtype(dtype)


def _eagerly() -> AbstractContextManager[Any]:
    """Modules that torch.compile took are run as they are written.

    The compiler knows neither their float64 nor what `InFloat64` does; it would compile them anew.
    """
    stance: Any = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    if stance is None or "torch._dynamo" not in sys.modules:  # nothing has been compiled
        return nullcontext()
    eager: AbstractContextManager[Any] = stance("force_eager")
    return eager


@dataclass(frozen=True, eq=False, repr=False)
class Generators:
    """The states of the global random generators: torch's, NumPy's and Python's.

    Attributes:
        cpu: torch's, of the CPU.
        cuda: torch's, of the GPUs that are used, by number.
        numpy: of the legacy generator.
        python: of the module random.
    """

    cpu: torch.Tensor
    cuda: dict[int, torch.Tensor]
    numpy: Any
    python: Any

    @staticmethod
    def now(tensors: Iterable[torch.Tensor]) -> "Generators":
        """As they are, on the devices of these tensors."""
        devices = {tensor.device for tensor in tensors}
        gpus = sorted({torch.cuda._utils._get_device_index(d) for d in devices if d.type == "cuda"})
        return Generators(
            torch.get_rng_state(),
            {number: torch.cuda.get_rng_state(number) for number in gpus},
            np.random.get_state(),
            random.getstate(),
        )

    def restore(self) -> None:
        """Puts them back."""
        torch.set_rng_state(self.cpu)
        for number, state in self.cuda.items():
            torch.cuda.set_rng_state(state, number)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def seed(self, number: int) -> None:
        """Seeds those whose states these are, until they are put back."""
        torch.default_generator.manual_seed(number)
        for gpu in self.cuda:
            torch.cuda.default_generators[gpu].manual_seed(number)
        np.random.set_state(np.random.RandomState(number).get_state())
        random.seed(number)

    def moved(self) -> bool:
        """Whether anything has been drawn since."""
        return not (
            torch.equal(self.cpu, torch.get_rng_state())
            and all(torch.equal(s, torch.cuda.get_rng_state(n)) for n, s in self.cuda.items())
            and self.python == random.getstate()
            and all(map(np.array_equal, self.numpy, np.random.get_state()))
        )


@contextmanager
def kept_generators(tensors: Iterable[torch.Tensor]) -> Iterator[Generators]:
    """The generators, on the devices of these tensors, which are put back at the end."""
    generators = Generators.now(tensors)
    try:
        yield generators
    finally:
        generators.restore()


class State:
    """Generators, tensors and attributes as an evaluation has to find them.

    After the first evaluations `settle` finds out which of them change; those alone are put back
    before each of the many that follow.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], tensors: Iterable[torch.Tensor]) -> None:
        tensors = list(tensors)
        self._tensors = [
            (part, part.clone()) for tensor in tensors for part in _strided(tensor.data)
        ]
        self._attributes = attributes_of(modules)
        self.generators = Generators.now(tensors)
        self._draws = True

    def settle(self) -> None:
        """Keeps only what has changed by now."""
        self._tensors = [pair for pair in self._tensors if not torch.equal(*pair)]
        self._attributes = [pair for pair in self._attributes if not _same_items(*pair)]
        self._draws = self.generators.moved()

    def changes(self, tensor: torch.Tensor) -> bool:
        """Whether evaluations write to a tensor, as to running statistics."""
        pointers = {part.data_ptr() for part in _strided(tensor.data)}
        return any(data.data_ptr() in pointers for data, _ in self._tensors)

    def restore(self) -> None:
        """Puts back what changes."""
        for data, values in self._tensors:
            data.copy_(values)
        put_back(self._attributes)
        if self._draws:
            self.generators.restore()


def attributes_of(modules: Iterable[torch.nn.Module]) -> Attributes:
    """What the modules hold, by attribute, and a copy of that.

    A scripted module has its parameters, buffers and modules in no dict of Python's.
    """
    return [
        (held, dict(held))
        for module in modules
        for held in (vars(module), module._parameters, module._buffers, module._modules)
        if isinstance(held, dict)
    ]


def put_back(attributes: Attributes) -> None:
    """Makes dicts hold what they held."""
    for held, items in attributes:
        if not _same_items(held, items):
            held.clear()
            held.update(items)


def _strided(data: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that a tensor's values are in: itself, or those of a sparse one."""
    if data.layout == torch.sparse_coo:
        yield from (data._indices(), data._values())
    elif data.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (data.crow_indices(), data.col_indices(), data.values())
    elif data.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (data.ccol_indices(), data.row_indices(), data.values())
    else:
        yield data


def _same_items(held: dict[str, Any], items: dict[str, Any]) -> bool:
    return held.keys() == items.keys() and all(held[key] is items[key] for key in items)
