"""The loss of a module as a cost that fastgc can check, and the gradients that autograd leaves."""

import numbers
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from fastgc.core.tree import FloatArray, flatten_parameters
from fastgc.costs.base import Batch, Candidate, Noting, differ
from fastgc.costs.function import LEAST_ROWS, FunctionCost
from fastgc.diagnosis.upstream import Findings, Pass, findings
from fastgc.torch.float64 import InFloat64, as_array, name_of
from fastgc.torch.module_copy import ModuleCopy, leaves_of
from fastgc.torch.state import FUSED, State, kept_generators

Arrays: TypeAlias = Mapping[str, NDArray[np.float64]]

# Activations of the rows that are evaluated together. A small CNN took 0.30 ms a row at 64 rows
# (32 MiB) and 0.47 ms at 256; alone 0.38 ms.
CHUNK_BYTES = 32 * 2**20

# Two ways to evaluate the same loss may round differently; more than this is another loss.
ROUNDING = 1e-9

#: Entries up to which ``auto`` looks at each, two evaluations of the loss; beyond, at directions.
#: A small CNN of 46,196 took 20 s on one thread; a larger one takes minutes.
AFFORDABLE = 50_000


class ModuleCost(FunctionCost):
    """The loss of a module: at any parameters, at many, and with its gradients.

    Every evaluation finds generators, buffers and attributes as they were when this was made.

    Args:
        copy: the module, in float64, with its loss.
        memory: bytes that evaluations together may take.
        tolerance: relative, of the gradient of 2·loss; None where the backward pass is not looked
            at further.

    Raises:
        TypeError, ValueError: for a loss that is no number, or that changes the parameters.

    Attributes:
        arrays: the parameters as given, float64, by name.
        derived: the gradients that autograd leaves; None where it leaves none.
        leaves: the tensors that a backward pass leaves gradients in.
        passes: what further backward passes show.
    """

    affordable, noun = AFFORDABLE, "module"

    def __init__(self, copy: ModuleCopy, memory: int, tolerance: float | None = None) -> None:
        self.copy, self._memory = copy, memory
        self.state = State(copy.modules, copy.tensors)
        self._handles = {name: p.data for name, p in copy.parameters.items()}
        self.arrays = {name: as_array(data) for name, data in self._handles.items()}
        super().__init__(self._at, *flatten_parameters(self.arrays), None, dict(np.geterr()))
        self.row_bytes = 8 * self.theta.size
        self._tracked = False  # whether an evaluation records gradients
        self.leaves: list[torch.Tensor] = []
        self._holder = _Holder(copy)
        mode = InFloat64()
        self._mode: AbstractContextManager[Any] = mode
        value, gradients, passed = self._backward()
        self.derived: dict[str, NDArray[np.float64] | None] = gradients
        self.passes = Findings()
        if tolerance is not None:
            leaves, count = self.leaves, mode.bytes
            on_cpu = all(p.device.type == "cpu" for p in copy.parameters.values())
            self.passes = findings(passed, self._passes_of(value), tolerance, on_cpu=on_cpu)
            self.leaves, mode.bytes = leaves, count
        for _, enable in FUSED:
            enable(False)
        self._find_way(value)
        self._require_unmoved()
        self.state.settle()
        self._bytes = max(1, mode.bytes // 2)
        if not mode.narrowed:
            self._mode = nullcontext()
        if self._tracked:
            self.unbatched = 'the loss is evaluated with gradients recorded. Pass method="loop"'
        else:
            batch = Batch(least=LEAST_ROWS, together=True)
            self.candidate = Candidate(batch, "torch.func.vmap", ROUNDING, apart=True)

    def now(self) -> float:
        """The loss at the parameters that the copy has now."""
        with self._evaluating():
            return _value(_number(self.copy.loss(), self._tracked))

    def values(self, rows: FloatArray) -> FloatArray:
        """The losses (K,) at K sets of parameters (K, P), in as few calls as memory allows."""
        arrays = dict(zip(self.layout.names, self.layout.views(rows), strict=True))
        first = {name: np.asarray(array[0]) for name, array in arrays.items()}
        moving = [name for name, array in arrays.items() if (array != array[:1]).any()]
        with Noting(self, rows[0], rows[-1]), np.errstate(**self._settings):
            if not moving:
                return np.full(len(rows), self._at(first))
            self._move(first)
            each = max(1, min(CHUNK_BYTES, self._memory // 2) // self._bytes)
            losses = np.empty(len(rows))
            for start in range(0, len(rows), each):
                part = slice(start, start + each)
                batch = {
                    name: torch.from_numpy(arrays[name][part].copy()).to(self._handles[name].device)
                    for name in moving
                }
                losses[part] = self._together(batch)
            return losses

    def _at(self, arrays: Arrays) -> float:
        """The loss at these parameters."""
        self._move(arrays)
        return self.now()

    def _move(self, arrays: Arrays) -> None:
        for name, handle in self._handles.items():
            handle.copy_(torch.from_numpy(arrays[name]))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """All that an evaluation changes is put back before it."""
        self.state.restore()
        if self._tracked:
            self._clear()
        with torch.set_grad_enabled(self._tracked), self._mode:
            yield

    def _clear(self) -> None:
        for p in self.copy.parameters.values():
            p.grad = None

    def _closed(self) -> bool:
        """Whether the loss has taken the backward pass by itself, as closures for LBFGS do."""
        return any(p.grad is not None for p in self.copy.parameters.values())

    def _together(self, rows: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
        """The losses where some parameters have a leading axis and the others are as set."""
        count = len(next(iter(rows.values())))
        buffers = {
            f"module.{name}": buffer.expand(count, *buffer.shape).clone()
            for name, buffer in self.copy.module.named_buffers()
            if self.state.changes(buffer)
        }
        batch = {f"module.{name}": row for name, row in rows.items()} | buffers

        def one(values: dict[str, torch.Tensor]) -> Any:
            return functional_call(self._holder, values, ())

        with self._evaluating():
            return as_array(vmap(one, randomness="same")(batch))

    def _backward(
        self, factor: float = 1.0, seed: int | None = None
    ) -> tuple[float, dict[str, NDArray[np.float64] | None], dict[str, NDArray[np.float64]]]:
        """The loss, the gradients it leaves, and those that ``backward()`` left within that.

        The two differ where a closure does more with its gradients. It goes back from `factor`
        times the loss.
        """
        parameters = self.copy.parameters
        self._tracked = True
        others: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        scaled = Scaled(parameters, factor, seed)
        try:
            with self._evaluating(), scaled:
                loss = self.copy.loss()
                value = _value(_number(loss, self._closed()))
                if isinstance(loss, torch.Tensor) and loss.requires_grad and not self._closed():
                    self.leaves = leaves_of(loss)
                    trained = set(map(id, parameters.values()))
                    others = [(x, x.grad) for x in self.leaves if id(x) not in trained]
                    for leaf, _ in others:
                        leaf.grad = None
                    loss.backward()
            gradients = {
                name: None if p.grad is None else as_array(p.grad) for name, p in parameters.items()
            }
        finally:
            self._tracked = False
            for leaf, grad in others:
                leaf.grad = grad
            self._clear()
        return value, gradients, scaled.gradients

    def _passes_of(self, value: float) -> Pass:
        """Backward passes from multiples of a loss of this value; None where it is another."""

        def run(factor: float, seed: int) -> Arrays | None:
            again, _, gradients = self._backward(factor, seed)
            return None if differ(again, value, ROUNDING) else gradients

        return run

    def _find_way(self, value: float) -> None:
        """Records gradients in evaluations where the loss without them is not `value`, or none."""
        try:
            again = self._at(self.arrays)
        except Exception:
            self._tracked = True  # it differentiates on its own, as with respect to its inputs
            self._at(self.arrays)
            return
        if differ(again, value, ROUNDING):
            self._tracked = True  # what is differentiated is the loss with gradients recorded
            again = self._at(self.arrays)
        if differ(again, value, ROUNDING):
            raise ValueError(
                f"the loss is {value!r} in the backward pass and {again!r} when it is evaluated "
                "again, at the same parameters: it keeps state, or draws from a generator of its "
                "own. torch's, NumPy's and Python's global ones are put back"
            )

    def _require_unmoved(self) -> None:
        for name, p in self.copy.parameters.items():
            handle = self._handles[name]
            same = np.array_equal(handle.cpu().numpy(), self.arrays[name])
            if p.data_ptr() != handle.data_ptr() or not same:
                raise ValueError(
                    f"the loss changes the parameter {name} while it is evaluated. Does it take "
                    "an optimizer's step, or has an Embedding max_norm? Leave that out of it"
                )


class Scaled(TorchFunctionMode):
    """While active, ``loss.backward()`` goes back from `factor` times the loss.

    What draws numbers on the way back finds the generators seeded, and leaves them as they were.

    Attributes:
        gradients: that these passes left, in all, by parameter.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], factor: float, seed: int | None
    ) -> None:
        super().__init__()
        self.gradients: dict[str, NDArray[np.float64]] = {}
        self._parameters, self._factor, self._seed = parameters, factor, seed

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
        before = {name: p.grad for name, p in self._parameters.items()}
        for p in self._parameters.values():
            p.grad = None
        try:
            with kept_generators(self._parameters.values()) as generators:
                if self._seed is not None:
                    generators.seed(self._seed)
                root = args[0] if self._factor == 1 else self._factor * args[0]
                return func(root, *args[1:], **kwargs)
        finally:
            for name, p in self._parameters.items():
                if p.grad is not None:
                    self.gradients[name] = _sum(self.gradients.get(name), as_array(p.grad))
                p.grad = _sum(before[name], p.grad)


def _sum(one: Any, other: Any) -> Any:
    """Of two gradients; None counts as zero."""
    if one is None or other is None:
        return one if other is None else other
    return one + other


class _Holder(nn.Module):
    """Lets `functional_call` put tensors into the module for the whole of a loss."""

    def __init__(self, copy: ModuleCopy) -> None:
        super().__init__()
        self.module, self.loss = copy.module, copy.loss

    def forward(self) -> torch.Tensor:
        """The loss."""
        loss = _number(self.loss(), returned=False)
        assert isinstance(loss, torch.Tensor)
        return loss.reshape(())


def _number(loss: Any, returned: bool) -> torch.Tensor | float:
    """The loss as one number; a float will do where it has been differentiated already."""
    if isinstance(loss, torch.Tensor):
        if loss.is_complex() or not loss.is_floating_point():
            raise TypeError(f"the loss has dtype {name_of(loss.dtype)}; wanted one real number")
        if loss.numel() != 1:
            raise ValueError(
                f"the loss has shape {tuple(loss.shape)}; wanted one number. "
                "Take its .mean() or .sum()"
            )
        return loss
    if returned and isinstance(loss, numbers.Real):
        return float(loss)
    kind = "None" if loss is None else f"a {type(loss).__name__}"
    advice = "Does it end in a return?" if loss is None else "Return the loss itself, no .item()"
    raise TypeError(f"the loss is {kind}; wanted a tensor of one number. {advice}")


def _value(loss: torch.Tensor | float) -> float:
    return loss if isinstance(loss, float) else float(loss.detach().item())
