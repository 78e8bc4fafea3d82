"""fastgc.torch.watch: the gradients of a module in training, checked now and then."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Unpack

from torch import nn

from fastgc.core.subset import subset_of
from fastgc.core.tree import flatten
from fastgc.costs.base import as_cost
from fastgc.methods.registry import method_for
from fastgc.options import DIRECTIONS, Choices, WatchOptions, read_watch, require_flag
from fastgc.pipeline import require_method
from fastgc.torch.evaluation import AFFORDABLE, ModuleCost
from fastgc.torch.float64 import as_array
from fastgc.torch.module import check_module
from fastgc.torch.module_copy import Loss, in_place, require_loss, trained
from fastgc.torch.network import Unknown, recognise
from fastgc.torch.state import kept_generators, settings
from fastgc.watch import price_of_entries
from fastgc.watcher import FIRST, STEPS, Moment, OnWrong, Watcher

# What a check is expected to take before one has been timed, rather too much than too little.
MADE = 4.0  # evaluations that making a cost of a module takes: one, and a backward pass
DOUBLED = 3.0  # evaluations, for the loss and the backward pass of twice it
COMPARED = 12  # evaluations, to see that a Network computes the same loss
BATCHED = 6  # evaluations for each tensor, to see whether torch can batch them
OVERHEAD = 0.05  # seconds


def watch(
    module: nn.Module,
    loss: Loss | Callable[..., Any],
    *,
    every: int = 500,
    budget: float = 0.01,
    credit: float = 0.0,
    on_wrong: OnWrong = "raise",
    held: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    **options: Unpack[WatchOptions],
) -> Watcher:
    """Watches a module in training: `fastgc.watch` with `check_module` for its checks.

    Call what it returns with every step, before the optimizer's: ``watcher(inputs, targets)``, for
    the loss ``loss(module(inputs), targets)``, or ``watcher()`` where `loss` is a closure. A step
    with no check due takes a fraction of a microsecond. A check leaves parameters, buffers,
    gradients and the random generators as they were, to the bit, so that the training is the same.

    Args:
        module: as for `check_module`.
        loss: a function of the module's output and the targets, as ``nn.BCEWithLogitsLoss()``; or
            a closure without arguments, or a tuple (loss_fn, inputs, targets).
        every, budget, credit, on_wrong: as for `fastgc.watch`.
        held: whether the gradients that the parameters hold in ``.grad`` are checked, in the
            precision that they have: then they have to be those of the step's loss alone, not
            clipped nor accumulated, of a module that draws nothing at random. Else those that a
            backward pass in float64 leaves.
        clock: as for `fastgc.watch`.
        **options: method, epsilon, tolerance, only, directions, per_tensor, seed, memory, threads:
            see `fastgc.WatchOptions`. Names are the module's.

    Returns:
        A `fastgc.Watcher`. Its `report` is that of the last check.

    Raises:
        TypeError, ValueError: for options that cannot be, at once; for a loss that cannot be
            checked, at the first step or where it is.

    >>> import torch, fastgc.torch
    >>> net, loss_fn = torch.nn.Linear(3, 1), torch.nn.MSELoss()
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with fastgc.torch.watch(net, loss_fn, every=10, budget=1.0) as watcher:
    ...     for _ in range(20):
    ...         x, y = torch.randn(8, 3), torch.randn(8, 1)
    ...         optimizer.zero_grad()
    ...         loss_fn(net(x), y).backward()
    ...         _ = watcher(x, y)
    ...         optimizer.step()
    >>> watcher.checks, watcher.report.ok
    (2, True)
    """
    trained(module)
    if not isinstance(loss, tuple) and not callable(loss):
        require_loss(loss)
    require_flag(held, "held")
    choices, ways = read_watch(options, "watch")
    require_method(choices.method)

    def moment(*batch: Any) -> Moment:
        if len(batch) not in (0, 2):
            raise TypeError(
                f"the watcher got {len(batch)} argument{'s' * (len(batch) != 1)}; wanted "
                "watcher(inputs, targets), or watcher() for a loss without arguments. Several "
                "inputs are one tuple"
            )
        return _moment(module, require_loss((loss, *batch) if batch else loss), held, choices)

    return Watcher(
        moment, every=every, budget=budget, credit=credit, on_wrong=on_wrong, clock=clock, **ways
    )


def _moment(module: nn.Module, loss: Loss, held: bool, choices: Choices) -> Moment:
    """The gradients of one step."""
    parameters = trained(module)
    arrays = {name: as_array(p) for name, p in parameters.items()}
    subset = subset_of(flatten(arrays)[0], choices.only, None, 0)
    size, tensors = subset.layout.size, len(subset.layout.names)
    spared = FIRST + MADE + DOUBLED + BATCHED * tensors
    if choices.epsilon == "auto":
        spared += STEPS * tensors
    lines = DIRECTIONS * tensors if size > AFFORDABLE else size
    entries, loading = spared + 2 * lines, 0.0
    if isinstance(loss, tuple) and choices.method in ("auto", "incremental", "node"):
        with contextlib.suppress(Unknown):
            network = recognise(module, *loss)
            cost = as_cost(network.net, network.parameters())
            chosen = method_for(cost) if choices.method == "auto" else choices.method
            kernels = price_of_entries(cost, chosen)
            if kernels is not None:
                entries, loading = MADE + DOUBLED + COMPARED + kernels[0], kernels[1]

    def evaluate() -> None:
        with (
            kept_generators(module.parameters()),
            settings(choices.threads),
            in_place(module, loss) as copy,
        ):
            ModuleCost(copy, choices.memory)

    def check(**way: Any) -> Any:
        gradients = {name: p.grad for name, p in parameters.items()} if held else None
        return check_module(
            module, loss, gradients=gradients, progress=False, epsilon=choices.epsilon,
            tolerance=choices.tolerance, only=choices.only, memory=choices.memory,
            threads=choices.threads, **way,
        )  # fmt: skip

    return Moment(
        tensors=tensors,
        evaluate=evaluate,
        check=check,
        entries=entries,
        loading=loading,
        spared=spared,
        evaluations=MADE,
        overhead=OVERHEAD,
    )
