"""check_module: whether the gradients that a module's backward pass leaves are right."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastgc import pipeline
from fastgc.check import GradientMismatch
from fastgc.core.subset import Subset, subset_of
from fastgc.core.tree import FloatArray
from fastgc.costs.base import as_cost
from fastgc.diagnosis.upstream import with_findings
from fastgc.network.compare import require_same_cost
from fastgc.options import Choices, ModuleOptions, read
from fastgc.report.data import Diagnosis, also_saying
from fastgc.report.report import Report
from fastgc.torch.evaluation import ModuleCost
from fastgc.torch.float64 import tensors_of
from fastgc.torch.module_copy import Loss, borrowed, copied, in_place, require_loss, trained
from fastgc.torch.network import ModuleNetwork, Unknown, recognise, renamed
from fastgc.torch.state import State, kept_generators, settings

Gradients = Mapping[str, NDArray[Any] | None]

NONE = Diagnosis(
    "none", "autograd left no gradient, and the loss depends on it: is it detached on the way?"
)

UNUSED = "the loss uses none of these parameters: is it the loss of this module?"


def check_module(
    module: nn.Module,
    loss: Loss,
    *,
    gradients: Mapping[str, Any] | None = None,
    **options: Unpack[ModuleOptions],
) -> Report:
    """Whether the gradients that autograd leaves in a module are those of its loss.

    Everything is computed in float64: on a copy of the module, or, for a closure, in the module
    itself, which is float64 for the while, as are other modules that a loss holds. A module that
    ``torch.compile`` took is run as it is written. Afterwards parameters, buffers, gradients, modes
    and random generators are what they were, to the bit. Generators and buffers are put back before
    every evaluation too: dropout draws the same each time, and running statistics stay.

    The backward pass of 2·loss has to leave twice the gradients. One that ignores its upstream
    gradient is wrong, even where the loss comes last and that gradient is 1. So is one that is not
    reproducible. `report.tensors[name].diagnosis` says which.

    Args:
        module: in the mode, train or eval, in which it is to be checked. Parameters with
            ``requires_grad=False`` are left alone; a tensor that is shared has its first name.
        loss: ``(loss_fn, inputs, targets)``, for ``loss_fn(module(inputs), targets)``. Inputs are
            one tensor, a tuple (``module(*inputs)``) or a mapping (``module(**inputs)``). Or a
            closure without arguments that returns the loss of `module`; it may take the backward
            pass itself. Data in float32 are converted to float64. A loss has one real number.
        gradients: the caller's own, by parameter name, as
            ``{name: p.grad for name, p in module.named_parameters()}``: tensors or arrays in the
            shapes of the parameters, or None, which counts as zero. Those in float32 are held to
            1e-4, in float16 to 5e-2. By default those that autograd leaves in float64.
        **options: method, epsilon, tolerance, only, sample, directions, per_tensor, seed, memory,
            threads, progress, checkpoint, with the defaults of `fastgc.check`: see
            `fastgc.Options`. Names are the module's, as in ``only=["*.weight"]``. No more than
            `threads` threads of torch's run; by default as many as ran before.

    The methods ``incremental`` and ``node`` take a Sequential of Linear layers and activations,
    under a loss that fastgc knows (see below). ``stacked`` takes what `torch.func.vmap` can batch.
    ``loop`` and ``random`` take every module. ``auto`` is the first of ``incremental`` or ``node``,
    ``stacked`` and ``loop`` that can be; where the last two would evaluate over 50,000 entries it
    is ``random``.

    A Network is made of ``Sequential`` (nested as well), ``Linear``, ``ReLU``, ``LeakyReLU``,
    ``Tanh``, ``Sigmoid``, ``Softplus``, ``SiLU``, ``GELU``, ``Identity``, ``Flatten`` and inactive
    ``Dropout``, without hooks, under ``BCEWithLogitsLoss``, ``BCELoss`` after a ``Sigmoid``,
    ``CrossEntropyLoss``, ``NLLLoss`` after a ``LogSoftmax``, ``MSELoss``, ``HuberLoss`` and
    ``SmoothL1Loss`` that bend at 1, or their functions, with the reduction mean or sum. That it
    computes the module's loss is verified at the parameters and at five random points around them.

    Returns:
        A `fastgc.Report`, true when the gradients are right. Its entries are called
        ``0.weight[3, 7]``. A gradient that autograd leaves out (None) counts as zero.

    Raises:
        TypeError, ValueError: for a module, a loss, gradients or options that cannot be, and for a
            method that cannot check this module. Wrong gradients raise nothing.

    An exception that the module or the loss raises at the parameters as they are passes through.
    One that they raise a step away does not: `fastgc.check` says what is done.

    >>> import torch, fastgc.torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
    >>> report = fastgc.torch.check_module(net, (torch.nn.MSELoss(), x, y))
    >>> report.ok, list(report.tensors)
    (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    >>> handle = net[0].bias.register_hook(lambda grad: 2 * grad)
    >>> report = fastgc.torch.check_module(net, (torch.nn.MSELoss(), x, y))
    >>> [name for name, tensor in report.tensors.items() if not tensor.ok]
    ['0.bias']
    """
    began = time.perf_counter()
    loss = require_loss(loss)
    parameters = trained(module)
    choices = read(options, "check_module", without=("executor",))
    pipeline.require_method(choices.method)
    given = None if gradients is None else _given(gradients, module, parameters)
    with kept_generators(module.parameters()):
        report = None
        if isinstance(loss, tuple):
            with settings(choices.threads):
                report = _on_a_copy(module, loss, given, choices)
        if report is None:
            with settings(choices.threads), in_place(module, loss) as copy:
                cost = ModuleCost(copy, choices.memory, choices.tolerance)
                report = _checked(cost, given, choices)
    return replace(report, seconds=time.perf_counter() - began)


def assert_module(
    module: nn.Module,
    loss: Loss,
    *,
    gradients: Mapping[str, Any] | None = None,
    **options: Unpack[ModuleOptions],
) -> Report:
    """`check_module`, for tests: returns the `Report` of right gradients, raises on any other.

    Takes the arguments and options of `check_module`.

    Raises:
        GradientMismatch: an AssertionError whose text is the report.

    >>> import torch, fastgc.torch
    >>> net, x = torch.nn.Linear(3, 1), torch.randn(8, 3)
    >>> fastgc.torch.assert_module(net, lambda: net(x).exp().mean()).ok
    True
    """
    __tracebackhide__ = True
    report = check_module(module, loss, gradients=gradients, **options)
    if not report.ok:
        raise GradientMismatch(report)
    return report


def _on_a_copy(
    module: nn.Module,
    loss: tuple[Callable[..., Any], Any, Any],
    given: Gradients | None,
    choices: Choices,
) -> Report | None:
    """The report; None where no copy can be made, or the loss does not keep to it."""
    copy = copied(module, loss)
    if copy is None:
        return None
    original = State(list(module.modules()), module.buffers())
    with borrowed(loss[0]) as others:
        tensors = copy.tensors + tensors_of(others)
        copy = replace(copy, modules=copy.modules + others, tensors=tensors)
        try:
            cost = ModuleCost(copy, choices.memory, choices.tolerance)
        finally:
            original.settle()
            original.restore()  # where loss_fn runs the module itself
        ids = {id(p) for p in module.parameters()}
        if any(id(leaf) in ids for leaf in cost.leaves):
            return None  # loss_fn has the module itself in it, as one that adds a penalty
        return _checked(cost, given, choices)


def _checked(cost: ModuleCost, given: Gradients | None, choices: Choices) -> Report:
    """The report on the gradients, by the method named or by the best there is."""
    gradients = cost.derived if given is None else given
    subset = subset_of(cost.layout, choices.only, choices.sample, choices.seed)
    names = subset.layout.names
    for name in names:
        if name not in gradients:
            raise ValueError(
                f'gradients has no "{name}"; its keys are: {", ".join(gradients) or "none"}'
            )
    arrays = {
        name: np.zeros_like(cost.arrays[name]) if (g := gradients[name]) is None else g
        for name in names
    }
    missing = [name for name in names if gradients[name] is None]
    report = None
    if choices.method in ("auto", "incremental", "node"):
        try:
            report = _as_network(cost, arrays, choices, subset)
        except Unknown as reason:
            if choices.method != "auto":
                raise ValueError(
                    f'method "{choices.method}" takes a Sequential of Linear layers and '
                    "activations, under a loss that fastgc knows, and this module is none: "
                    f'{reason}. Pass method="auto"'
                ) from None
    if report is None:
        report = pipeline.check(cost, arrays, choices)
        if report.ok and len(missing) == len(names):
            report = also_saying(report, UNUSED)
    tensors = dict(report.tensors)
    for name in missing:
        if tensors[name].verdict == "wrong":
            tensors[name] = replace(tensors[name], diagnosis=NONE)
    return with_findings(replace(report, tensors=tensors), cost.passes)


def _as_network(
    cost: ModuleCost, gradients: Mapping[str, NDArray[Any]], choices: Choices, subset: Subset
) -> Report:
    """The report on the Network that the module is; `Unknown` is raised where it is none."""
    copy = cost.copy
    if copy.parts is None:
        raise Unknown("its loss is a closure; pass (loss_fn, inputs, targets)")
    network = recognise(copy.module, *copy.parts)
    theta = network.parameters()
    apart, spent = _verified(cost, network, theta, choices.memory)
    analytic = {
        name: gradients[given].reshape(theta[name].shape)
        for name in theta
        if (given := network.of(name)) in gradients
    }
    choices = replace(choices, only=None if len(analytic) == len(theta) else list(analytic))
    report = pipeline.check(as_cost(network.net, theta), analytic, choices)
    return replace(
        renamed(report, network, subset.layout.names),
        against=apart,
        evaluations=report.evaluations + spent,
        scope=subset.scope,
    )


def _verified(
    cost: ModuleCost, network: ModuleNetwork, theta: Mapping[str, FloatArray], memory: int
) -> tuple[float, int]:
    """How far the Network lies from the module's loss, and the evaluations spent on that.

    `Unknown` is raised where it is too far.
    """
    layers = list(network.layers.values())
    lacking = [layer for layer in layers if layer.bias is None]
    for layer in lacking:  # a Network has biases
        layer.bias = nn.Parameter(layer.weight.data.new_zeros(layer.out_features), False)
    handles = [p.data for layer in layers for p in (layer.weight, layer.bias)]

    def move(arrays: Mapping[str, FloatArray]) -> None:
        for name, handle in zip(theta, handles, strict=True):
            handle.copy_(torch.from_numpy(arrays[name]).reshape(handle.shape))

    def loss(arrays: Mapping[str, FloatArray]) -> float:
        move(arrays)
        return cost.now()

    try:
        return require_same_cost(as_cost(network.net, theta), as_cost(loss, theta), memory)
    except ValueError as error:
        raise Unknown(f"as a Network it does not compute the same loss: {error}") from None
    finally:
        move(theta)
        for layer in lacking:
            layer.register_parameter("bias", None)


def _given(
    gradients: object, module: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> Gradients:
    """The caller's gradients as arrays, by name, of parameters that are trained."""
    if not isinstance(gradients, Mapping):
        raise TypeError(
            f"gradients is a {type(gradients).__name__}; wanted a mapping by parameter name, as "
            "{name: p.grad for name, p in module.named_parameters()}"
        )
    known = dict(module.named_parameters(remove_duplicate=False))
    arrays: dict[str, NDArray[Any] | None] = {}
    for name, value in gradients.items():
        if name not in known:
            raise ValueError(
                f"gradients has the key {name!r}, which is no parameter of the module; it has: "
                f"{', '.join(known)}"
            )
        if name not in parameters:
            continue
        label = f'gradients["{name}"]'
        if isinstance(value, torch.Tensor):
            if value.dtype == torch.bfloat16:
                raise TypeError(
                    f"{label} has dtype bfloat16, which NumPy lacks; pass it as .float(), with a "
                    "tolerance= that it can keep, as 0.1"
                )
            value = value.detach()
            value = (value if value.layout == torch.strided else value.to_dense()).cpu().numpy()
        if value is not None:
            value, shape = np.asarray(value), tuple(parameters[name].shape)
            if value.shape != shape:
                raise ValueError(f"{label} has shape {value.shape}; {name} has shape {shape}")
        arrays[name] = value
    return arrays
