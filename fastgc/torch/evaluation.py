"""The loss of a module as a cost that fastgc can check, and the gradients that autograd leaves."""

import numbers
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap

from fastgc.core.tree import FloatArray, flatten_parameters
from fastgc.costs.base import Batch, Candidate, Noting
from fastgc.costs.function import LEAST_ROWS, FunctionCost
from fastgc.diagnosis.upstream import Findings, findings
from fastgc.torch.float64 import InFloat64, name_of
from fastgc.torch.module_copy import ModuleCopy, leaves_of
from fastgc.torch.state import State
from fastgc.torch.upstream import Scaled, noise_of

Arrays: TypeAlias = Mapping[str, NDArray[np.float64]]

# Activations of the rows that are evaluated together. A small CNN took 0.30 ms a row at 64 rows
# (32 MiB) and 0.47 ms at 256; alone 0.38 ms.
CHUNK_BYTES = 32 * 2**20

# Two ways to evaluate the same loss may round differently; more than this is another loss.
ROUNDING = 1e-9

#: Entries up to which ``auto`` looks at each, two evaluations of the loss; beyond, at directions.
#: A small CNN of 46,196 took 20 s on one thread; a larger one takes minutes.
AFFORDABLE = 50_000

# Fused kernels of attention, which vmap cannot batch; the formula itself serves in their place.
FUSED = (
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)


def _eagerly() -> AbstractContextManager[Any]:
    """Modules that torch.compile took are run as they are written.

    The compiler knows neither their float64 nor what `InFloat64` does; it would compile them anew.
    """
    stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    if stance is None or "torch._dynamo" not in sys.modules:  # nothing has been compiled
        return nullcontext()
    found: AbstractContextManager[Any] = stance("force_eager")
    return found


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
        gradients: that autograd leaves; None where it leaves none.
        leaves: the tensors that a backward pass leaves gradients in.
        findings: what further backward passes show.
    """

    affordable, noun = AFFORDABLE, "module"

    def __init__(self, copy: ModuleCopy, memory: int, tolerance: float | None = None) -> None:
        self.module_copy = copy
        self.state = State(copy.modules, copy.tensors)
        self._handles = {name: p.data for name, p in copy.parameters.items()}
        self.arrays = {
            name: data.detach().cpu().numpy().copy() for name, data in self._handles.items()
        }
        super().__init__(self._at, *flatten_parameters(self.arrays), None, dict(np.geterr()))
        self.row_bytes = 8 * self.theta.size
        self._memory = memory
        self._float64: InFloat64 | None = InFloat64()
        self._tracked = False
        self.leaves: list[torch.Tensor] = []
        self._holder = _Holder(copy)
        value, self.gradients, passed = self._backward()
        self.findings = Findings()
        if tolerance is not None:
            self.findings = self._further(value, passed, tolerance)
        for _, enable in FUSED:
            enable(False)
        assert self._float64 is not None
        try:
            found = self._at(self.arrays)
        except Exception:
            self._tracked = True  # it differentiates on its own, as with respect to its inputs
            found = self._at(self.arrays)
        if not self._tracked and abs(found - value) > ROUNDING * max(abs(found), abs(value)):
            self._tracked = True  # what is differentiated is the loss with gradients recorded
            found = self._at(self.arrays)
            if abs(found - value) > ROUNDING * max(abs(found), abs(value)):
                raise ValueError(
                    f"the loss is {value!r} in the backward pass and {found!r} when it is "
                    "evaluated again, at the same parameters: it keeps state, or draws from a "
                    "generator of its own. torch's, NumPy's and Python's global ones are put back"
                )
        self._require_unmoved()
        self.state.settle()
        self._bytes = max(1, self._float64.bytes // 2)
        if not self._float64.narrowed:
            self._float64 = None
        if self._tracked:
            self.unbatched = 'the loss is evaluated with gradients recorded. Pass method="loop"'
        else:
            batch = Batch(least=LEAST_ROWS, together=True)
            self.candidate = Candidate(batch, "torch.func.vmap", ROUNDING, apart=True)

    def _at(self, arrays: Arrays) -> float:
        """The loss at these parameters."""
        self._move(arrays)
        return self.now()

    def now(self) -> float:
        """The loss at the parameters that the copy has now."""
        with self._recording(), self._float64 or nullcontext():
            return _value(_number(self.module_copy.loss(), self._tracked))

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

    def largest_gradient(self) -> float:
        """Of all that autograd leaves."""
        sizes = [np.abs(g[np.isfinite(g)]) for g in self.gradients.values() if g is not None]
        return max((float(size.max(initial=0.0)) for size in sizes), default=0.0)

    def _together(self, rows: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
        """The losses where some parameters have a leading axis and the others are as set."""
        count = len(next(iter(rows.values())))
        buffers = {
            f"module.{name}": buffer.expand(count, *buffer.shape).clone()
            for name, buffer in self.module_copy.module.named_buffers()
            if self.state.changes(buffer)
        }
        batch = {f"module.{name}": row for name, row in rows.items()} | buffers

        def one(values: dict[str, torch.Tensor]) -> Any:
            return functional_call(self._holder, values, ())

        with self._recording(), self._float64 or nullcontext():
            found = vmap(one, randomness="same")(batch)
            return np.asarray(found.detach().to("cpu", torch.float64).numpy())

    def _backward(
        self, factor: float = 1.0, seed: int | None = None
    ) -> tuple[float, dict[str, NDArray[np.float64] | None], dict[str, NDArray[np.float64]]]:
        """The loss, the gradients it leaves, and those that ``backward()`` left within that.

        The two differ where a closure does more with its gradients. It goes back from `factor`
        times the loss.
        """
        parameters = self.module_copy.parameters
        self._tracked = True
        others: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        scaled = Scaled(parameters, factor, seed)
        try:
            with self._recording(), self._float64 or nullcontext(), scaled:
                loss = self.module_copy.loss()
                value = _value(_number(loss, self._closed()))
                if isinstance(loss, torch.Tensor) and loss.requires_grad and not self._closed():
                    own = {id(p) for p in parameters.values()}
                    self.leaves = leaves_of(loss)
                    others = [(x, x.grad) for x in self.leaves if id(x) not in own]
                    for leaf, _ in others:
                        leaf.grad = None
                    loss.backward()
            found = {name: _as_array(p.grad) for name, p in parameters.items()}
        finally:
            self._tracked = False
            for leaf, grad in others:
                leaf.grad = grad
            for p in parameters.values():
                p.grad = None
        return value, found, {name: _dense(g) for name, g in scaled.gradients.items()}

    def _further(
        self, value: float, passed: dict[str, NDArray[np.float64]], tolerance: float
    ) -> Findings:
        """What further backward passes show; nothing where the loss cannot be had again."""
        assert self._float64 is not None
        leaves, count = self.leaves, self._float64.bytes

        def again(factor: float, seed: int) -> dict[str, NDArray[np.float64]] | None:
            found, _, gradients = self._backward(factor, seed)
            return gradients if abs(found - value) <= ROUNDING * abs(value) else None

        try:
            return findings(passed, again, tolerance, noise_of(self.module_copy.parameters))
        except Exception:  # as of a graph that was made before the loss, and is gone by now
            return Findings()
        finally:
            self.leaves, self._float64.bytes = leaves, count

    def _closed(self) -> bool:
        """Whether the loss has taken the backward pass by itself, as closures for LBFGS do."""
        return any(p.grad is not None for p in self.module_copy.parameters.values())

    def _move(self, arrays: Arrays) -> None:
        for name, handle in self._handles.items():
            handle.copy_(torch.from_numpy(arrays[name]))

    def _recording(self) -> torch.no_grad | torch.enable_grad:
        """Whether gradients are recorded; all that an evaluation changes is put back first."""
        self.state.restore()
        if self._tracked:
            for p in self.module_copy.parameters.values():
                p.grad = None
            return torch.enable_grad()
        return torch.no_grad()

    def _require_unmoved(self) -> None:
        for name, p in self.module_copy.parameters.items():
            handle = self._handles[name]
            same = np.array_equal(handle.cpu().numpy(), self.arrays[name])
            if p.data_ptr() != handle.data_ptr() or not same:
                raise ValueError(
                    f"the loss changes the parameter {name} while it is evaluated. Does it take "
                    "an optimizer's step, or has an Embedding max_norm? Leave that out of it"
                )


class _Holder(nn.Module):
    """Lets `functional_call` put tensors into the module for the whole of a loss."""

    def __init__(self, copy: ModuleCopy) -> None:
        super().__init__()
        self.module = copy.module
        self.loss = copy.loss

    def forward(self) -> torch.Tensor:
        """The loss."""
        found = _number(self.loss(), returned=False)
        assert isinstance(found, torch.Tensor)
        return found.reshape(())


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


def _as_array(grad: torch.Tensor | None) -> NDArray[np.float64] | None:
    return None if grad is None else _dense(grad)


def _dense(grad: torch.Tensor) -> NDArray[np.float64]:
    dense = grad.detach().to_dense() if grad.layout != torch.strided else grad.detach()
    return np.array(dense.to("cpu", torch.float64).numpy())
