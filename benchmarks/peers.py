"""fastgc beside the checkers of PyTorch and of JAX, on functions in their own operations.

``python -m benchmarks.peers torch`` and ``python -m benchmarks.peers jax`` measure, and write their
parts of docs/benchmarks.md. What a checker says is looked at before it is timed.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from benchmarks import checkers, models
from benchmarks.checkers import Checker
from benchmarks.frameworks import Change
from benchmarks.models import Model
from benchmarks.tables import fill, share, table, time_of
from benchmarks.timing import least_time

GRADCHECKS = (checkers.FASTGC_GRADCHECK, checkers.TORCH, checkers.TORCH_FAST)
OF_MODULES = (checkers.FASTGC_MODULE, *GRADCHECKS)
OF_JAX = (checkers.FASTGC_JAX, checkers.JAX, checkers.BY_HAND)
MISTAKES_IN_JAX = {
    "a tensor doubled": models.last_tensor(1.0),
    "a tensor 1 %": models.last_tensor(1e-2),
    "a tensor 10⁻⁴": models.last_tensor(1e-4),
    "an entry 10 %": models.largest_entry(1e-1),
    "an entry 0.1 %": models.largest_entry(1e-3),
}


class Timing(NamedTuple):
    """What a checker says of a model; the seconds of its first check, and the least of others."""

    verdict: str
    first: float
    again: float

    def cell(self, *, with_first: bool) -> str:
        first = f" ({time_of(self.first)})" * with_first
        return time_of(self.again) + first + ", rejects it" * (self.verdict != "correct")


#: A further column of a table: its text, of a model and of what every checker took on it.
Column: TypeAlias = Callable[[Model, Mapping[str, Timing]], str]


def timing(checker: Checker, model: Model) -> Timing:
    began = time.perf_counter()
    run = checker.ready(model)
    verdict = run()
    first = time.perf_counter() - began
    again = least_time(run, rounds=3, seconds=1.0)
    assert run() == verdict
    return Timing(verdict, first, again)


def table_of_times(
    kind: str, columns: Sequence[Checker], every: Sequence[Model], more: Mapping[str, Column],
    *, with_first: bool = False,
) -> list[str]:  # fmt: skip
    """A line for each model of a kind, whose gradients are right."""
    rows = []
    for model in every:
        found = {c.name: timing(c, model) for c in columns if c.takes(model)}
        cells = {name: of.cell(with_first=with_first) for name, of in found.items()}
        rows.append([
            model.name, f"{model.size:,}", *(cells.get(c.name, "–") for c in columns),
            *(column(model, found) for column in more.values()),
        ])  # fmt: skip
    return table([kind, "P", *(c.name for c in columns), *more], rows)


def table_of_mistakes(
    title: str, columns: Sequence[Checker], build: Callable[[Change], list[Model]],
    mistakes: Mapping[str, Change],
) -> list[str]:  # fmt: skip
    """A line for each mistake: of how many models its gradients are rejected."""
    rows = [
        [name, *counts(columns, build(mistake), accepted=False)]
        for name, mistake in mistakes.items()
    ]
    return table([title, *(c.name for c in columns)], rows)


def counts(columns: Sequence[Checker], every: Sequence[Model], *, accepted: bool) -> list[str]:
    """Of how many models each checker accepts the gradients, or does not."""
    said = [[c.ready(model)() == "correct" for model in every] for c in columns]
    return [share(verdicts.count(accepted), len(every)) for verdicts in said]


def by_factor(*factors: float) -> dict[str, Change]:
    return {f"{factor:g}": models.middle_entry(factor) for factor in factors}


def against_slow_mode(_: Model, found: Mapping[str, Timing]) -> str:
    """How many times as fast the first checker is."""
    return f"{found[checkers.TORCH.name].again / next(iter(found.values())).again:.1f} ×"


def method(model: Model, _: Mapping[str, Timing]) -> str:
    check = importlib.import_module("fastgc.torch").check_module
    return f"`{check(*model.forms['module'](), progress=False).method}`"


def evaluations(model: Model, _: Mapping[str, Timing]) -> str:
    check = importlib.import_module("fastgc.jax").check
    return f"{check(*model.forms['jax'](), progress=False).evaluations:,}"


def torch_tables() -> list[str]:
    torch = importlib.import_module("torch")
    threads, ratio = torch.get_num_threads(), {"against slow mode": against_slow_mode}
    torch.set_num_threads(1)
    try:
        return [
            f"PyTorch {torch.__version__.partition('+')[0]}.",
            "",
            *table_of_times(
                "module", OF_MODULES, models.torch_modules(), {"method": method, **ratio}
            ),
            *table_of_mistakes(
                "modules, one entry ×", OF_MODULES, models.torch_modules,
                by_factor(1.001, 1.01, 1.1, 2, -1),
            ),
            *table_of_times("function", GRADCHECKS, models.torch_functions(), ratio),
            *table_of_mistakes(
                "functions, one entry ×", GRADCHECKS, models.torch_functions,
                by_factor(1.005, 1.02, 1.1, 1.5, 2, 0, -1),
            ),
        ]  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def jax_tables() -> list[str]:
    right = {"smooth": models.jax_losses(), "at kinks of ReLU": models.jax_losses_at_kinks()}
    return [
        f"JAX {importlib.import_module('jax').__version__}.",
        "",
        *table_of_times(
            "loss", (*OF_JAX, checkers.BY_HAND_AT_ONCE), right["smooth"],
            {"evaluations of fastgc": evaluations}, with_first=True,
        ),
        *table(
            ["right gradients accepted", *(c.name for c in OF_JAX)],
            [[name, *counts(OF_JAX, every, accepted=True)] for name, every in right.items()],
        ),
        *table_of_mistakes("smooth, an error noticed", OF_JAX, models.jax_losses, MISTAKES_IN_JAX),
    ]  # fmt: skip


TABLES = {"torch": torch_tables, "jax": jax_tables}


def write(*packages: str) -> None:
    """Measures, and writes these parts of docs/benchmarks.md; of packages that are installed."""
    for name in packages or TABLES:
        if importlib.util.find_spec(name):
            fill("docs/benchmarks.md", name, TABLES[name]())


if __name__ == "__main__":
    write(*sys.argv[1:])
