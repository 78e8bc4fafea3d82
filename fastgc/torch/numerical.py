"""Numerical Jacobians of a function of tensors: central differences, batched where they can be."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastgc.core.tree import index_of

Tensors: TypeAlias = tuple[Tensor, ...]

BLOCK = 4 * 2**20  # bytes of inputs and outputs in one batched evaluation
FEW = 16  # entries that cost less than to find out whether they can be batched
CLOSE = 0.1  # of the tolerance: how far apart two ways to the same slope may lie
TRIALS = 2  # random points at which a batched function has to be the plain one


@dataclass(frozen=True, eq=False)
class Subject:
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
        return self.select(self.call(*self.inputs))

    def select(self, found: Any) -> Tensors:
        """The chosen outputs of all that the function returned."""
        every = as_tuple(found)
        return tuple(every[i] for i in self.chosen)

    def with_input(self, k: int, value: Tensor) -> Tensors:
        """The chosen outputs with `value` in the place of input `k`."""
        return self.select(self.call(*self.inputs[:k], value, *self.inputs[k + 1 :]))


@dataclass(frozen=True, eq=False)
class Slopes:
    """Differences along one part, real or imaginary, of one input of n entries.

    Attributes:
        central: (f(x + ε) − f(x − ε)) / 2ε for each output, (n, its entries).
        batched: whether they come from evaluations of many points at once.
    """

    central: list[Tensor]
    batched: bool


@dataclass(frozen=True)
class Tolerance:
    """|analytic − numerical| ≤ atol + rtol · |numerical|."""

    atol: float
    rtol: float

    def allows(self, errors: Tensor, numerical: Tensor, share: float = 1.0) -> Tensor:
        """Which of the errors are within this `share` of it; a NaN never is."""
        return errors <= share * (self.atol + self.rtol * numerical.abs())


def as_tuple(found: Any) -> tuple[Any, ...]:
    """What a function returned, or takes, as a tuple."""
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def parts_of(x: Tensor) -> tuple[complex, ...]:
    """The directions in which each entry can go: 1, and 1j where it is complex."""
    return (1.0, 1j) if x.is_complex() else (1.0,)


@contextmanager
def warned() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of an attempt, which is dropped where there are any: a plain way shows them."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield seen


def quiet(subject: Subject) -> bool:
    """Whether the function computes the same without recording a graph, which is faster."""
    try:
        with torch.no_grad(), warned() as warnings_seen:
            found = subject()
        if warnings_seen:
            return False
        pairs = zip(found, subject.outputs, strict=True)
        return all(torch.equal(a, b.detach()) for a, b in pairs)
    except Exception:  # one that differentiates by itself may not; then it is left to record
        return False


def slopes(
    subject: Subject,
    k: int,
    part: complex,
    eps: float,
    tolerance: Tolerance,
    *,
    graph: bool,
    batch: bool = True,
) -> Slopes:
    """The Jacobian with respect to input `k`.

    Args:
        subject: the function.
        k: which input; written to for the time of an evaluation, and restored to the bit, so that
            a function that holds the tensor instead of using its argument sees it too.
        part: 1 or 1j.
        eps: the step.
        tolerance: of the entries, which says how close a batched evaluation has to be.
        graph: whether evaluations have to record one.
        batch: whether many points may be evaluated at once.
    """
    x: Tensor = subject.inputs[k]
    forward = _one_forward(subject.call)
    narrow = any(torch.finfo(t.dtype).bits < 64 for t in (x, *subject.outputs) if _is_float(t))
    if (
        batch and x.numel() > FEW and not narrow
    ):  # narrow ones to the bit as PyTorch's own differences
        trial = subject if forward is None else replace(subject, call=forward)
        found = _batched(subject, trial, k, part * eps, eps, tolerance)
        if found is not None:
            return Slopes(found, batched=True)
    return Slopes(_one_by_one(subject, k, part, eps, graph=graph), batched=False)


def _one_by_one(
    subject: Subject, k: int, part: complex, eps: float, *, graph: bool
) -> list[Tensor]:
    x: Tensor = subject.inputs[k]
    found = [o.new_zeros((x.numel(), o.numel())) for o in subject.outputs]
    for n in range(x.numel()):
        for to, (low, high) in zip(
            found, around(subject, k, n, part * eps, graph=graph), strict=True
        ):
            to[n] = ((high - low) / (2 * eps)).reshape(-1)
    return found


def around(
    subject: Subject, k: int, n: int, step: complex, *, graph: bool
) -> list[tuple[Tensor, Tensor]]:
    """Each output where entry `n` of input `k` is a step less, and a step more."""
    data: Tensor = subject.inputs[k].data
    entry = data[index_of(tuple(data.shape), n)]
    before = entry.clone()
    with torch.set_grad_enabled(graph):
        try:
            entry.copy_(before - step)
            low = _copies(subject)
            entry.copy_(before + step)
            high = _copies(subject)
        finally:
            entry.copy_(before)
    for a, b, o in zip(low, high, subject.outputs, strict=True):
        if not a.shape == b.shape == o.shape or a.dtype != b.dtype:
            raise AssertionError(
                f"the function returns tensors of shape {tuple(a.shape)}, {a.dtype}, and "
                f"{tuple(b.shape)}, {b.dtype}, where entry {n} of inputs[{k}] is {abs(step):g} "
                "less and more; wanted outputs of one shape and dtype"
            )
    return list(zip(low, high, strict=True))


def _copies(subject: Subject) -> Tensors:
    return tuple(o.detach().clone() for o in subject())


def _batched(
    subject: Subject, trial: Subject, k: int, step: complex, eps: float, tolerance: Tolerance
) -> list[Tensor] | None:
    """Differences from evaluations of many points at once; None where they are not to be had.

    They are not where the function refuses, warns, or is another one than point by point, as one
    that does not look at its argument.
    """
    x: Tensor = subject.inputs[k].detach()
    run = torch.func.vmap(lambda value: trial.with_input(k, value))
    row = x.numel() + sum(o.numel() for o in subject.outputs)
    rows = max(1, min(x.numel(), BLOCK // (2 * row * x.element_size())))
    found = [o.new_zeros((x.numel(), o.numel())) for o in subject.outputs]
    try:
        with torch.no_grad(), warned() as warnings_seen:
            if not _same(subject, run, k, step, eps, tolerance):
                return None
            for start in range(0, x.numel(), rows):
                count = min(rows, x.numel() - start)
                points = x.reshape(-1).repeat(2, count, 1)
                points[0].diagonal(start).sub_(step)
                points[1].diagonal(start).add_(step)
                outputs = run(points.reshape(2 * count, *x.shape))
                subject.spent[0] += 2 * count
                for to, out in zip(found, outputs, strict=True):
                    low, high = out.reshape(2, count, -1)
                    torch.div(high - low, 2 * eps, out=to[start : start + count])
    except Exception:  # whatever it is, the plain evaluations meet it as well if it is the user's
        return None
    return None if warnings_seen else found


def _same(
    subject: Subject,
    run: Callable[[Tensor], Tensors],
    k: int,
    step: complex,
    eps: float,
    tolerance: Tolerance,
) -> bool:
    """Whether a batched function has the plain one's differences, all entries moved at random."""
    x: Tensor = subject.inputs[k]
    generator = torch.Generator().manual_seed(k)
    signs = torch.randint(0, 2, (TRIALS, *x.shape), generator=generator) * 2 - 1
    moves = signs.to(x.device) * step
    points = torch.cat((x.detach() - moves, x.detach() + moves))
    batched = run(points)
    subject.spent[0] += len(points)
    plain = [_at(subject, x, point) for point in points]
    for b, *p in zip(batched, *plain, strict=True):
        b_slopes, p_slopes = (_differences(values, eps) for values in (b, torch.stack(p)))
        if b.shape[1:] != p[0].shape or b.dtype != p[0].dtype:
            return False
        if not tolerance.allows((b_slopes - p_slopes).abs(), p_slopes, CLOSE).all():
            return False
    return True


def _differences(values: Tensor, eps: float) -> Tensor:
    return (values[TRIALS:] - values[:TRIALS]) / (2 * eps)


def _at(subject: Subject, x: Tensor, point: Tensor) -> Tensors:
    """The outputs with all of an input moved."""
    with moved(x.data, point):
        return _copies(subject)


@contextmanager
def moved(data: Tensor, point: Tensor) -> Iterator[None]:
    """`data` holds other values for a while."""
    before = data.clone()
    try:
        data.copy_(point)
        yield
    finally:
        data.copy_(before)


class _Context:
    """Takes what a forward pass leaves for its backward pass, and drops it."""

    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *_: Any) -> None:
        """Nothing is saved."""

    save_for_forward = mark_dirty = mark_non_differentiable = save_for_backward

    def set_materialize_grads(self, _: bool) -> None:
        """There are none."""


def _one_forward(call: Callable[..., Any]) -> Callable[..., Any] | None:
    """The forward pass alone where the function is an ``autograd.Function``'s ``apply``.

    One without rules of its own for vmap can still be batched in its values.
    """
    owner = getattr(call, "__self__", None)
    apply: Any = torch.autograd.Function.apply  # its stub knows no __func__
    is_apply = getattr(call, "__func__", None) is apply.__func__
    if not (is_apply and isinstance(owner, type) and issubclass(owner, torch.autograd.Function)):
        return None
    if owner.setup_context is not torch.autograd.Function.setup_context:
        return owner.forward
    return lambda *inputs: owner.forward(_Context(), *inputs)


def _is_float(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()
