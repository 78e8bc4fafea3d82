"""What an evaluation may change besides its result: random generators, buffers, attributes."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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
    def now(devices: Iterable[torch.device]) -> "Generators":
        """As they are."""
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
            and _same(self.numpy, np.random.get_state())
        )


def _same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


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
        self.generators = Generators.now({tensor.device for tensor in tensors})
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
        for held, items in self._attributes:
            if not _same_items(held, items):
                held.clear()
                held.update(items)
        if self._draws:
            self.generators.restore()


def attributes_of(
    modules: Iterable[torch.nn.Module],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the modules hold, by attribute, and a copy of that.

    A scripted module has its parameters, buffers and modules in no dict of Python's.
    """
    return [
        (held, dict(held))
        for module in modules
        for held in (vars(module), module._parameters, module._buffers, module._modules)
        if isinstance(held, dict)
    ]


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
