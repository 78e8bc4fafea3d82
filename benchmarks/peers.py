"""fastgc beside the checkers of PyTorch and of JAX, on functions in their own operations.

``python -m benchmarks.peers torch`` and ``python -m benchmarks.peers jax`` measure and print their
sections of docs/benchmarks.md. What a checker says is looked at before it is timed.
"""

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from benchmarks.checkers import (
    BY_HAND,
    BY_HAND_AT_ONCE,
    FASTGC_GRADCHECK,
    FASTGC_JAX,
    FASTGC_MODULE,
    JAX,
    TORCH,
    TORCH_FAST,
    Checker,
)
from benchmarks.frameworks import Change
from benchmarks.models import (
    Model,
    first_tensor,
    jax_losses,
    jax_losses_at_kinks,
    largest_entry,
    middle_entry,
    torch_functions,
    torch_modules,
)
from benchmarks.tables import share, table, time_of
from benchmarks.timing import least_time

COMMAND = "python -m benchmarks.peers"
GRADCHECKS = (FASTGC_GRADCHECK, TORCH, TORCH_FAST)
OF_MODULES = (FASTGC_MODULE, *GRADCHECKS)
OF_JAX = (FASTGC_JAX, JAX, BY_HAND, BY_HAND_AT_ONCE)
MISTAKES_IN_JAX = {
    "a tensor doubled": first_tensor(1.0),
    "a tensor 1 %": first_tensor(1e-2),
    "a tensor 10⁻⁴": first_tensor(1e-4),
    "an entry 10 %": largest_entry(1e-1),
    "an entry 0.1 %": largest_entry(1e-3),
}

#: The models of a table, with right gradients or changed ones.
Models: TypeAlias = Callable[[Change], list[Model]]


class Timing(NamedTuple):
    """What a checker says of a model; the seconds of its first check, and the least of others."""

    verdict: str
    first: float
    again: float


def timing(checker: Checker, model: Model) -> Timing:
    began = time.perf_counter()
    run = checker.ready(model)
    verdict = run()
    first = time.perf_counter() - began
    again = least_time(run, rounds=3, seconds=1.0)
    assert run() == verdict
    return Timing(verdict, first, again)


def table_of_times(
    kind: str,
    checkers: Sequence[Checker],
    models: Sequence[Model],
    more: Mapping[str, Callable[[Model, Mapping[str, Timing]], str]],
    *,
    firsts: bool = False,
) -> list[str]:
    """A line for each model.

    Args:
        kind: of the models.
        checkers: a column for each.
        models: whose gradients are right.
        more: further columns, of a model and its timings.
        firsts: whether the first check is shown too.
    """
    rows = []
    for model in models:
        found = {c.name: timing(c, model) for c in checkers if c.takes(model)}
        cells = {
            name: time_of(of.again)
            + f" ({time_of(of.first)})" * firsts
            + ", rejects it" * (of.verdict != "correct")
            for name, of in found.items()
        }
        rows.append([
            model.name, f"{model.size:,}", *(cells.get(c.name, "–") for c in checkers),
            *(column(model, found) for column in more.values()),
        ])  # fmt: skip
    return table([kind, "P", *(c.name for c in checkers), *more], rows)


def table_of_mistakes(
    title: str, checkers: Sequence[Checker], models: Models, mistakes: Mapping[str, Change]
) -> list[str]:
    """A line for each mistake: of how many models its gradients are rejected."""
    rows = [
        [name, *counts(checkers, models(mistake), accepted=False)]
        for name, mistake in mistakes.items()
    ]
    return table([title, *(c.name for c in checkers)], rows)


def counts(checkers: Sequence[Checker], models: Sequence[Model], *, accepted: bool) -> list[str]:
    said = [[c.ready(model)() == "correct" for model in models] for c in checkers]
    return [share(verdicts.count(accepted), len(models)) for verdicts in said]


def by_factor(*factors: float) -> dict[str, Change]:
    return {f"{factor:g}": middle_entry(factor) for factor in factors}


def against_slow_mode(_: Model, found: Mapping[str, Timing]) -> str:
    """How many times as fast the first checker is."""
    return f"{found[TORCH.name].again / next(iter(found.values())).again:.1f} ×"


def method_of(model: Model, _: Mapping[str, Timing]) -> str:
    check = importlib.import_module("fastgc.torch").check_module
    return f"`{check(*model.forms['module'](), progress=False).method}`"


def evaluations_of(model: Model, _: Mapping[str, Timing]) -> str:
    check = importlib.import_module("fastgc.jax").check
    return f"{check(*model.forms['jax'](), progress=False).evaluations:,}"


def torch_section() -> list[str]:
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            f"## PyTorch: modules and functions (`{COMMAND} torch`)",
            "",
            f"PyTorch {torch.__version__.partition('+')[0]}, one thread, double precision; the",
            "least of several runs after a first. Modules with their losses: all gradients by",
            "name, or, for a gradcheck, those of the loss as a function of the parameters:",
            "",
            *table_of_times(
                "module", OF_MODULES, torch_modules(),
                {"method": method_of, "against slow mode": against_slow_mode},
            ),
            "One entry of the first weight's gradient is off by a factor: the modules where that",
            "is noticed. An error of 0.1 % lies within the default tolerance of PyTorch's",
            "gradcheck, and so of the drop-in.",
            "",
            *table_of_mistakes(
                "one entry times", OF_MODULES, torch_modules, by_factor(1.001, 1.01, 1.1, 2, -1)
            ),
            "Functions of tensors, all P entries of their Jacobians:",
            "",
            *table_of_times(
                "function", GRADCHECKS, torch_functions(), {"against slow mode": against_slow_mode}
            ),
            *table_of_mistakes(
                "one entry times", GRADCHECKS, torch_functions,
                by_factor(1.005, 1.02, 1.1, 1.5, 2, 0, -1),
            ),
        ]  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def jax_section() -> list[str]:
    jax = importlib.import_module("jax")
    checkers = tuple(checker for checker in OF_JAX if checker is not BY_HAND_AT_ONCE)
    return [
        f"## JAX (`{COMMAND} jax`)",
        "",
        f"JAX {jax.__version__}, in double precision. The least time of several checks of a loss",
        "that is compiled (`jax.jit`), in brackets that of the first, tracing and compiling",
        "included. check_grads looks along one direction, with 2 evaluations of the loss. What is",
        "done by hand takes 2P, and says yes or no by the lab's rule.",
        "",
        *table_of_times(
            "loss", OF_JAX, jax_losses(), {"evaluations of fastgc": evaluations_of}, firsts=True
        ),
        "Of these losses, and of five ReLU networks at kinks, how many have their right gradients",
        "accepted:",
        "",
        *table(
            ["", *(c.name for c in checkers)],
            [
                [name, *counts(checkers, models, accepted=True)]
                for name, models in (
                    ("smooth", jax_losses()), ("at kinks of ReLU", jax_losses_at_kinks())
                )
            ],
        ),
        "Of how many an error is noticed:",
        "",
        *table_of_mistakes("planted", checkers, jax_losses, MISTAKES_IN_JAX),
    ]  # fmt: skip


SECTIONS = {"torch": torch_section, "jax": jax_section}


def main() -> None:
    for name in sys.argv[1:] or SECTIONS:
        print("\n".join(SECTIONS[name]()))


if __name__ == "__main__":
    main()
