"""The module that is evaluated: a float64 copy of the caller's, or that itself for a while."""

import contextlib
import copy
import functools
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from fastgc.torch.float64 import name_of, tensors_in, tensors_of, widen, widened
from fastgc.torch.state import attributes_of, put_back

Loss: TypeAlias = Callable[[], Any] | tuple[Callable[..., Any], Any, Any]

#: Devices on which nothing can be evaluated in double precision: why, and how to leave them.
NOWHERE = {
    "mps": ("has no float64", 'to("cpu")'),
    "meta": ("holds no numbers", "to_empty(device='cpu')"),
}


@dataclass(frozen=True, eq=False, repr=False)
class ModuleCopy:
    """A module in float64 whose parameters may be moved.

    Attributes:
        module: the module.
        parameters: those that are trained, by name; a tensor that is shared has its first name.
        loss: evaluates the loss.
        modules: all that the evaluation is known to pass through.
        tensors: all that it may change, parameters that are trained left out.
        parts: the copies of loss_fn, inputs and targets; None for a closure.
    """

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    loss: Callable[[], Any]
    modules: list[nn.Module]
    tensors: list[torch.Tensor]
    parts: tuple[Any, Any, Any] | None = None


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a check is about: trained, with entries; by name.

    Raises:
        TypeError, ValueError: for a module that cannot be checked.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module is a {type(module).__name__}; wanted a torch.nn.Module. The order of the "
            "arguments is module, loss"
        )
    parameters = {}
    for name, p in module.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"{name} has no shape yet: the module is lazy. Run it once on its inputs"
            )
        if p.device.type in NOWHERE:
            lack, advice = NOWHERE[p.device.type]
            raise ValueError(
                f'{name} is on the device "{p.device}", which {lack}. Check the module on a CPU: '
                f"module.{advice}"
            )
        if not p.requires_grad or p.numel() == 0:
            continue
        if p.is_complex():
            raise TypeError(
                f"{name} has dtype {name_of(p.dtype)}; wanted real parameters. Let the module hold "
                "the real and the imaginary part as parameters of their own"
            )
        parameters[name] = p
    if not parameters:
        raise ValueError(
            "the module has no parameters with requires_grad=True: there is nothing to check"
        )
    return parameters


def require_loss(loss: object) -> Loss:
    """`loss` as a closure or a triple; TypeError says what it was."""
    wanted = "wanted a function without arguments, or a tuple (loss_fn, inputs, targets)"
    if isinstance(loss, tuple):
        if len(loss) != 3:
            raise TypeError(f"loss is a tuple of {len(loss)}; {wanted}")
        if not callable(loss[0]):
            raise TypeError(f"loss[0] is a {type(loss[0]).__name__}; {wanted}")
        return loss
    if isinstance(loss, nn.Module):
        raise TypeError(
            f"loss is a {type(loss).__name__} alone; {wanted}, as "
            f"({type(loss).__name__}(), inputs, targets)"
        )
    if not callable(loss):
        raise TypeError(f"loss is a {type(loss).__name__}; {wanted}")
    return loss


def captured(function: object) -> tuple[list[nn.Module], list[torch.Tensor]]:
    """The modules, and the leaf tensors, that a function holds or names.

    These are in its closure, among the globals it names, the arguments of a partial, and what a
    method is bound to; the functions there are looked into as well.
    """
    modules: dict[int, nn.Module] = {}
    tensors: dict[int, torch.Tensor] = {}
    visited: set[int] = set()
    waiting = [function]
    while waiting:
        item = waiting.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, nn.Module):
            modules |= {id(m): m for m in item.modules()}
        elif isinstance(item, torch.Tensor):
            if item.is_leaf and not item.is_inference():
                tensors[id(item)] = item
        elif isinstance(item, functools.partial):
            waiting += [item.func, *item.args, *item.keywords.values()]
        elif isinstance(item, types.MethodType):
            held = getattr(item.__self__, "__dict__", {})
            waiting += [item.__func__, item.__self__, *held.values()]
        elif isinstance(item, types.FunctionType):
            if (item.__module__ or "").startswith("torch."):
                continue
            for cell in item.__closure__ or ():
                with contextlib.suppress(ValueError):  # of a cell that is empty
                    waiting.append(cell.cell_contents)
            names = _names(item.__code__)
            waiting += [item.__globals__[name] for name in names if name in item.__globals__]
    return list(modules.values()), list(tensors.values())


def _names(code: types.CodeType) -> set[str]:
    """What a function, and those inside it, may name of their globals."""
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*inner)


def copied(module: nn.Module, loss: tuple[Callable[..., Any], Any, Any]) -> ModuleCopy | None:
    """A float64 copy with its own loss and data; None for a module that cannot be copied."""
    loss_fn, inputs, targets = loss
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what copying says is nothing that the caller can use
            twin, twin_loss = copy.deepcopy((module, loss_fn))
    except Exception:  # __deepcopy__ may raise anything; the module itself serves then
        return None
    if not all(q.is_leaf for q in twin.parameters()):
        return None  # as of a scripted module
    for p, q in zip(module.parameters(), twin.parameters(), strict=True):
        for hook in (p._backward_hooks or {}).values():  # which copying leaves behind
            q.register_hook(hook)
    modules = list(twin.modules())
    if isinstance(twin_loss, nn.Module):
        modules += [m for m in twin_loss.modules() if m not in modules]
    widen(tensors_of(modules))
    return _module_copy(twin, modules, (twin_loss, widened(inputs), widened(targets)))


@contextlib.contextmanager
def in_place(module: nn.Module, loss: Loss) -> Iterator[ModuleCopy]:
    """The module itself, made float64; it is put back to the bit, come what may.

    So are other modules that the loss holds, and its tensors.
    """
    with borrowed(loss[0] if isinstance(loss, tuple) else loss, module) as modules:
        if isinstance(loss, tuple):
            loss = loss[0], widened(loss[1]), widened(loss[2])
        yield _module_copy(module, modules, loss)


@contextlib.contextmanager
def borrowed(function: object, module: nn.Module | None = None) -> Iterator[list[nn.Module]]:
    """The modules that a function holds, and one more, made float64, and put back to the bit."""
    modules = [] if module is None else list(module.modules())
    others, data = captured(function)
    modules += [m for m in others if m not in modules]
    attributes = attributes_of(modules)
    tensors = {id(tensor): tensor for tensor in [*tensors_of(modules), *data]}.values()
    before = [(tensor, tensor.data, tensor.requires_grad) for tensor in tensors]
    grads = [(tensor, tensor.grad) for tensor in tensors if tensor.is_leaf]
    hooks = [leaf._post_accumulate_grad_hooks or {} for leaf, _ in grads]
    steps = [dict(of_leaf) for of_leaf in hooks]
    try:
        for leaf, _ in grads:
            leaf.grad = None
        for of_leaf in hooks:  # they are for a step of the optimizer, most often
            of_leaf.clear()
        widen(tensors)
        yield modules
    finally:
        put_back(attributes)
        for leaf, _ in grads:
            leaf.grad = None
        for tensor, values, flag in before:
            tensor.data = values
            if tensor.is_leaf and tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
        for leaf, grad in grads:
            leaf.grad = grad
        for of_leaf, items in zip(hooks, steps, strict=True):
            of_leaf.update(items)


def _module_copy(module: nn.Module, modules: list[nn.Module], loss: Loss) -> ModuleCopy:
    """A float64 module as it is evaluated, with a loss on it."""
    parameters = trained(module)
    moved = {id(p) for p in parameters.values()}
    parts = loss if isinstance(loss, tuple) else None
    tensors = [*tensors_of(modules), *tensors_in(parts)]
    others = {id(tensor): tensor for tensor in tensors if id(tensor) not in moved}
    call = _call(module, *loss) if isinstance(loss, tuple) else loss
    return ModuleCopy(module, parameters, call, modules, list(others.values()), parts)


def _call(
    module: nn.Module, loss_fn: Callable[..., Any], inputs: Any, targets: Any
) -> Callable[[], Any]:
    """loss_fn(module(inputs), targets): inputs a tuple, a mapping of keywords, or one argument."""
    if isinstance(inputs, Mapping):
        return lambda: loss_fn(module(**inputs), targets)
    if type(inputs) is tuple:
        return lambda: loss_fn(module(*inputs), targets)
    return lambda: loss_fn(module(inputs), targets)


def leaves_of(loss: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a backward pass from `loss` would leave gradients in."""
    leaves, visited, waiting = [], set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor):
            leaves.append(leaf)
        waiting += [above for above, _ in node.next_functions]
    return leaves
