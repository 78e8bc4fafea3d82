"""Random directions beside those of other checkers: ``python -m benchmarks.directions``.

On the same costs, each in its framework's own operations: how many evaluations, how long, and which
mistakes are caught at equal evaluations. fastgc gets a plain function, which it cannot see into.
"""

import contextlib
import importlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

import fastgc
from benchmarks import checkers
from benchmarks.checkers import Checker, along_directions, repeated_autograd
from benchmarks.detection import RIGHT, drawn, planted, size_of, small_networks
from benchmarks.frameworks import Cost
from benchmarks.models import Model, network
from benchmarks.tables import fill, share, table, time_of
from benchmarks.timing import least_time
from fastgc.parallel.threads import one_blas_thread
from tests.bugs import MISTAKES
from tests.cases import NETWORKS, TIMED_NETWORKS, NetworkCase, Tensors, backward, other_backward

SEEDS = 20
OF_KINDS = 4  # mistakes of tests/bugs.py in each network
TIMED: tuple[NetworkCase, ...] = (NETWORKS[0], *TIMED_NETWORKS[:2])
FIRST = 12  # evaluations of fastgc besides those along directions: three at θ, nine for the noise

PLANTED = "a mistake in the pass"
#: A tensor or an entry that is off: by what part of itself.
GRADED = {
    "a tensor 1 %": 1e-2,
    "a tensor 0.1 %": 1e-3,
    "a tensor 10⁻⁴": 1e-4,
    "a tensor 10⁻⁵": 1e-5,
    "an entry 10 %": 1e-1,
    "an entry 1 %": 1e-2,
    "an entry 0.1 %": 1e-3,
}


def through_all(count: int) -> Checker:
    name = f"fastgc, `per_tensor=False, directions={count}`"
    return along_directions(name, lambda _: count, per_tensor=False)


def for_what_torch_spends(T: int) -> int:
    """Directions through all for a direction for each tensor, and twice at θ."""
    return max(1, (2 * T + 2 - FIRST) // 2)


TORCH, JAX, AUTOGRAD = checkers.TORCH_FAST, checkers.JAX, checkers.AUTOGRAD
DEFAULT = along_directions('fastgc, `method="random"`', lambda _: 8, per_tensor=True)
SINGLE = along_directions("fastgc, `directions=1`", lambda _: 1, per_tensor=True)
IN_TIME = (DEFAULT, SINGLE, through_all(1), through_all(8), TORCH, JAX, AUTOGRAD)
AT_EQUAL = (
    DEFAULT,
    repeated_autograd("HIPS autograd, as fastgc's default spends", lambda T: (FIRST + 16 * T) // 4),
    SINGLE,
    TORCH,
    along_directions(
        "fastgc, through all, as torch spends in all", for_what_torch_spends, per_tensor=False
    ),
    through_all(2),
    through_all(1),
    repeated_autograd("HIPS autograd, 3 runs", lambda _: 3),
    JAX,
    AUTOGRAD,
)
SAME_EVERY_RUN = (TORCH, JAX)


class Calls:
    """Of a cost: how many, and what it returned, but where JAX traces it."""

    def __init__(self) -> None:
        self.count, self.values = 0, list[float]()

    def of(self, cost: Cost) -> Cost:
        def counted(*arguments: Any) -> Any:
            self.count += 1
            value = cost(*arguments)
            plain: Any = getattr(value, "_value", value)  # of autograd's boxes
            with contextlib.suppress(TypeError):  # a tracer
                self.values.append(float(plain))
            return value

        return counted


def looked_at(checker: Checker, model: Model, seed: int = 0) -> tuple[str, Calls]:
    """What a checker says, and the calls that it made."""
    calls = Calls()
    return checker.ready(model, seed, calls.of)(), calls


def require_same_points(model: Model) -> None:
    """That running `SAME_EVERY_RUN` again finds nothing new, and `AUTOGRAD` with a seed does."""
    for checker in (*SAME_EVERY_RUN, AUTOGRAD):
        first, second = (looked_at(checker, model, seed)[1].values for seed in range(2))
        assert first, checker.name
        assert (first == second) == (checker in SAME_EVERY_RUN), checker.name


def require_counted(net: fastgc.Network, parameters: Tensors, gradients: Tensors) -> None:
    """That fastgc's reports count their evaluations as `Calls` does, `FIRST` among them."""
    calls = Calls()
    cost = calls.of(lambda p: net(p))
    report = fastgc.check(cost, parameters, gradients, method="random", directions=1)
    assert report.evaluations == calls.count == FIRST + 2 * len(parameters)


def table_of_times(case: NetworkCase) -> list[str]:
    """A line for each checker, with right gradients."""
    net, parameters = case.build()
    gradients, T = backward(net, parameters), len(parameters)
    require_counted(net, parameters, gradients)
    model = network(net, parameters, gradients)
    require_same_points(model)
    rows = []
    for checker in IN_TIME:
        seeds = 1 if checker in SAME_EVERY_RUN else SEEDS
        verdicts = Counter(checker.ready(model, seed)() for seed in range(seeds))
        accepts = ("yes" if verdicts["correct"] else "no") + ", in every run"
        if seeds > 1:
            accepts = f"with {verdicts['correct']} of {seeds} seeds"
        if verdicts["unresolved"]:
            accepts += f", {verdicts['unresolved']} cannot tell"
        calls = looked_at(checker, model)[1].count
        run = checker.ready(model)
        run()
        seconds = least_time(run, 7, 1.0)
        rows.append([checker.name, f"{calls:,}", checker.along(T), time_of(seconds), accepts])
    header = ["", "evaluations", "along directions", "time", "accepts these right gradients"]
    return [
        f"### {case.name} (P = {model.size:,}, {T} tensors)",
        "",
        *table(header, rows),
    ]


def off(name: str, right: Tensors, rng: np.random.Generator) -> Tensors:
    """A mistake of `GRADED` in a tensor drawn at random."""
    tensor = str(rng.choice([name for name, g in right.items() if g.any()]))
    wrong = right[tensor].copy()
    entries: Any = ...
    if "entry" in name:
        entries = rng.choice(np.flatnonzero(np.abs(wrong) > 1e-2 * np.abs(wrong).max()))
    wrong.reshape(-1)[entries] *= 1 + GRADED[name]
    return {**right, tensor: wrong}


class Outcome(NamedTuple):
    """What a checker said of one case: `PLANTED`, one of `GRADED`, or `RIGHT`."""

    checker: str
    mistake: str
    verdict: str
    along: int  # evaluations along directions, of a right gradient
    evaluations: int  # in all


def study_network(job: tuple[int, tuple[str, ...]]) -> list[Outcome]:
    """Every checker on one drawn network: right gradients, and visible mistakes."""
    importlib.import_module("torch").set_num_threads(1)  # one of two processes
    seed, names = job
    net, parameters = drawn(seed)
    right = backward(net, parameters)
    wrongs = planted(net, parameters, seed)
    rng = np.random.default_rng([seed, 1])
    cases = [(PLANTED, wrongs[name][1]) for name in names]
    if any(g.any() for g in right.values()):
        cases += [(name, off(name, right, rng)) for name in GRADED]
    cases = [case for case in cases if size_of(net, parameters, case[1], right) == "visible"]
    cases += [(RIGHT, right), (RIGHT, other_backward(net, parameters))]
    outcomes = []
    for checker in AT_EQUAL:
        along = checker.along(len(parameters))
        for name, gradients in cases:
            verdict, calls = looked_at(checker, network(net, parameters, gradients))
            outcomes.append(Outcome(checker.name, name, verdict, along, calls.count))
    return outcomes


def jobs(networks: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Networks, and the mistakes in each: the kinds that were planted least so far."""
    used: Counter[str] = Counter()
    for seed in small_networks()[:networks]:
        possible = planted(*drawn(seed), seed)
        kinds = [mistake.name for mistake in MISTAKES if mistake.name in possible]
        chosen = tuple(sorted(kinds, key=used.__getitem__)[:OF_KINDS])
        used.update(chosen)
        yield seed, chosen


def study(networks: int) -> list[Outcome]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return [o for found in pool.map(study_network, list(jobs(networks))) for o in found]


def table_of_mistakes(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each checker, with equal ones beside each other."""
    groups = (PLANTED, *GRADED)
    rows = []
    for checker in AT_EQUAL:
        mine = [o for o in outcomes if o.checker == checker.name]
        right = [o for o in mine if o.mistake == RIGHT]
        wrong = [o for o in mine if o.mistake != RIGHT]
        verdicts = [[o.verdict for o in wrong if o.mistake == group] for group in groups]
        rows.append([
            checker.name,
            f"{fmean(o.along for o in right):.0f}",
            f"{fmean(o.evaluations for o in right):.0f}",
            f"{fmean(o.evaluations for o in wrong):.0f}",
            *(share(sum(v != "correct" for v in group), len(group)) for group in verdicts),
            sum(o.verdict == "unresolved" for o in wrong),
            share(sum(o.verdict == "wrong" for o in right), len(right)),
            sum(o.verdict == "unresolved" for o in right),
        ])  # fmt: skip
    header = ["", "along directions", "in all, right", "wrong", *groups]
    return table([*header, "cannot tell", "right rejected", "cannot tell"], rows)


def write(networks: int = 100) -> None:
    """Measures, and writes its parts of docs/benchmarks.md."""
    importlib.import_module("torch").set_num_threads(1)
    with one_blas_thread():
        times = [line for case in TIMED for line in table_of_times(case)]
    fill("docs/benchmarks.md", "times of directions", times)
    began = time.perf_counter()
    outcomes = study(networks)
    facts = (
        f"{networks} networks, {len(MISTAKES)} kinds of mistake; "
        f"{len(outcomes) // len(AT_EQUAL):,} cases for each checker, "
        f"{time.perf_counter() - began:.0f} s on two cores."
    )
    fill("docs/benchmarks.md", "mistakes of directions", [facts, "", *table_of_mistakes(outcomes)])


if __name__ == "__main__":
    write()
