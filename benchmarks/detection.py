"""How well mistakes are found and named: the study behind docs/detection.md.

Drawn networks, every mistake of tests/bugs.py in each of them, and right gradients by two backward
passes, for every method; the checkers of other libraries on a fixed part of the cases. gradapprox
is computed once for each network, method and step, and serves all mistakes. Plain functions follow
in `benchmarks.plain_detection`.
``python -m benchmarks.detection_report`` runs it and writes it up; ``python -m benchmarks.detection
[NETWORKS [RIGHT]]`` runs a small one, with every plain function once.
"""

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

import fastgc
from benchmarks import plain_detection
from benchmarks.other_checkers import CHECKERS
from fastgc.core.gradients import analytic_gradient
from fastgc.core.subset import Subset
from fastgc.core.tree import exact_steps
from fastgc.core.verdict import KINK, THRESHOLDS, entry_scale, verdict_of
from fastgc.costs.base import Base, Cost, as_cost, base_cost
from fastgc.costs.noise import noise_of_cost
from fastgc.diagnosis.diagnose import diagnose
from fastgc.methods.base import Approximation
from fastgc.methods.registry import METHODS
from fastgc.network.cost import state_of
from fastgc.network.layers import ACTIVATIONS, LOSSES
from fastgc.parallel.chunks import Resources
from fastgc.report.data import Diagnosis
from fastgc.verdicts.record import Check, Findings
from fastgc.verdicts.second_look import second_look
from tests.bugs import MISTAKES, Mistake, Pass
from tests.cases import Array, NetworkCase, Tensors, backward, other_backward

TOLERANCE = 2e-7
MEMORY = 2**28
SMALL = 500  # parameters up to which other checkers take part
CASES_OF_OTHERS = 1000, 10  # in all, and of each network: two right ones, the rest wrong
RIGHT = "right"


def drawn(seed: int) -> tuple[fastgc.Network, Tensors]:
    """A network: 1 to 6 layers, widths 1 to 64, 1 to 128 samples, nearly flat to saturated.

    One in ten lies at corners: zero biases and samples, or small integers throughout.
    """
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 7))
    widths = tuple(int(64 ** rng.random() + 0.5) for _ in range(depth + 1))
    if rng.random() < 0.3:
        widths = (widths[0], *[widths[1]] * (depth - 1), widths[-1])
    loss = str(rng.choice(sorted(LOSSES)))
    if loss == "softmax":
        widths = (*widths[:-1], max(2, widths[-1]))
    names = sorted(ACTIVATIONS)
    one = str(rng.choice(names))
    mixed = tuple(str(rng.choice(names)) for _ in range(depth - 1))
    case = NetworkCase(
        name=f"drawn {seed}",
        widths=widths,
        m=int(128 ** rng.random() + 0.5),
        activation=one if rng.random() < 0.5 else mixed,
        loss=loss,
        weight_decay=float(rng.choice([0.0, 0.3])),
        scale=float(10 ** (rng.uniform(-1, 1.3) if rng.random() < 0.8 else rng.uniform(-3, 2))),
        seed=seed,
    )  # fmt: skip
    net, parameters = case.build()
    if rng.random() < 0.1:
        X = net.X.copy()
        if rng.random() < 0.5:
            X[:, ::2] = 0.0
            parameters = {k: v * (k[0] == "W") for k, v in parameters.items()}
        else:
            X = np.rint(X)
            parameters = {k: np.rint(2 * v / np.abs(v).max()) for k, v in parameters.items()}
        net = fastgc.Network(
            X, net.Y, activation=net.activation, loss=net.loss, weight_decay=net.weight_decay
        )
    return net, parameters


class Examination:
    """A network under one method: verdicts on as many gradients as wanted."""

    def __init__(self, problem: Cost, method: str) -> None:
        self.problem, self.exact = problem, METHODS[method].exact
        self.part = Subset(problem.layout)
        self.resources = Resources(MEMORY, 1, lambda _: None)
        cost, _ = base_cost(problem)
        self.base = Base(cost, 0.0) if self.exact else noise_of_cost(problem, cost, MEMORY)[0]
        self.method = METHODS[method]
        epsilon = self.method.epsilon
        self.step = epsilon if self.exact else exact_steps(problem.theta, epsilon)
        self.kept: dict[tuple[int, float], Array] = {}
        with np.errstate(all="ignore"):
            rounding = problem.rounding()
        assert rounding is not None
        self.uncertainty = self.look(None, self.step).uncertainty + rounding

    def look(self, entries: Any, step: Any) -> Approximation:
        """As the method has it; what was looked at once is kept for the next gradient."""
        size = self.problem.layout.size
        some = np.arange(size) if entries is None else entries
        steps = np.broadcast_to(step, size)
        new = np.array([k for k in some.tolist() if (k, steps[k]) not in self.kept], dtype=np.intp)
        if new.size:
            if self.exact:  # which looks at all in the same time
                new = np.arange(size)
            found = self.method.approximate(self.problem, new, self.base, step, self.resources)
            rows = np.stack((found.gradapprox, found.uncertainty, *found.slopes()), axis=1)
            self.kept |= {(k, steps[k]): row for k, row in zip(new.tolist(), rows, strict=True)}
        kept = np.array([self.kept[k, steps[k]] for k in some.tolist()]).reshape(-1, 4)
        gradapprox, uncertainty, low, high = kept.T.copy()
        return Approximation(gradapprox, uncertainty, lambda: (low, high), 0)

    def examine(self, gradients: Tensors) -> tuple[Findings, dict[str, Diagnosis]]:
        with np.errstate(all="ignore"):
            analytic = analytic_gradient(self.problem.layout, gradients, TOLERANCE)
            check = Check(
                cost=self.problem, base=self.base, subset=self.part, analytic=analytic,
                method=self.look, epsilon=self.step, exact=self.exact,
            )  # fmt: skip
            findings = second_look(check, self.look(None, self.step))
            return findings, diagnose(check, findings)[0]


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        seed: of the network.
        mistake: its name, or "right".
        method: or another checker's name.
        verdict: ``correct``, ``wrong`` or ``unresolved``.
        size: of the mistake: ``visible``; ``rounding``, where no entry is off by more than the
            tolerance and the uncertainty of gradapprox or of a right backward pass; ``tolerance``,
            by more than the tolerance alone. What lies between the slopes at a corner is not off.
        tensors: whether the tensors at fault were named, or at their corners left open, and no
            other was.
        kind: what the diagnosis called it, of the tensors where the mistake was made.
        kind_right: whether that is right.
    """

    seed: int
    mistake: str
    method: str
    verdict: str
    size: str = "visible"
    tensors: bool = True
    kind: str = ""
    kind_right: bool = True
    seconds: float = 0.0


@dataclass
class Study:
    """All outcomes; `seconds` in all."""

    outcomes: list[Outcome] = field(default_factory=list)
    networks: int = 0
    seconds: float = 0.0


def planted(net: fastgc.Network, parameters: Tensors, seed: int) -> dict[str, Any]:
    """name -> (mistake, wrong gradients, tensors where it was made), of those that can be made."""
    p = Pass(net, parameters)
    found = {}
    with np.errstate(all="ignore"):
        for mistake in MISTAKES:
            made = mistake.plant(p, np.random.default_rng(seed))
            if made is not None:
                found[mistake.name] = (mistake, *made)
    return found


def coincide(a: Tensors, b: Tensors) -> bool:
    """Whether two mistakes make the same gradients, so that nobody could tell them apart."""
    return all(
        np.allclose(
            a[name], b[name], rtol=1e-7, atol=1e-7 * float(np.nan_to_num(np.abs(a[name])).max()),
            equal_nan=True,
        )
        for name in a
    )  # fmt: skip


def study_network(seed: int, *, bugs: bool) -> list[Outcome]:
    """Every case of one network, for every method."""
    net, parameters = drawn(seed)
    problem = as_cost(net, parameters)
    right = backward(net, parameters)
    if not all(np.isfinite(g).all() for g in right.values()):
        return []
    wrongs = planted(net, parameters, seed) if bugs else {}
    alike = {
        name: {
            other.kind
            for other, theirs, _ in wrongs.values()
            if other is mistake or coincide(wrong, theirs)
        }
        for name, (mistake, wrong, _) in wrongs.items()
    }
    outcomes = []
    for method in METHODS:
        under = Examination(problem, method)
        for gradients in (right, other_backward(net, parameters)):
            findings, _ = under.examine(gradients)
            outcomes.append(Outcome(seed, RIGHT, method, _verdict(findings)))
        for name, (mistake, wrong, sources) in wrongs.items():
            findings, said = under.examine(wrong)
            outcomes.append(
                _judged(
                    Outcome(seed, name, method, _verdict(findings)),
                    under, findings, said, right, mistake, sources, alike[name],
                )
            )  # fmt: skip
    return outcomes


FACTORS = {"factor", "sign", "sum", "twice averaged"}


def plainly(findings: Findings, problem: Cost, right: Tensors, sources: list[str]) -> set[str]:
    """What describes the wrong gradients as well, however they were made: a factor, or zero."""
    found: set[str] = set()
    parts = dict(problem.layout.tensors())
    state = state_of(problem)
    assert state is not None
    decay = state.net.weight_decay / state.net.m
    for name in sources:
        g, truth = findings.grad[parts[name]], right[name].ravel()
        fixed = decay * problem.theta[parts[name]] if name[0] == "W" else 0.0 * g
        for wrong, wanted in ((g, truth), (g - fixed, truth - fixed)):
            size = np.abs(wrong).max()
            if size <= 1e-7 * np.abs(truth).max():
                found.add("zero")
            elif np.isfinite(size) and wanted.any():
                c = (wrong @ wanted) / (wanted @ wanted)
                if np.abs(wrong - c * wanted).max() <= 1e-7 * size:
                    found |= FACTORS
    return found


def _verdict(findings: Findings) -> str:
    return verdict_of(max(findings.summary.worst))


def sizes_of(
    under: Examination, findings: Findings, right: Tensors
) -> tuple[str, set[str], set[str]]:
    """How large a mistake is, the tensors it moves beyond the tolerance, and visibly so."""
    exceeds, visible = set(), set()
    for name, part in under.problem.layout.tensors():
        g, truth, uncertainty = findings.grad[part], right[name].ravel(), under.uncertainty[part]
        allowed = TOLERANCE * entry_scale(g, truth, 0.0)
        allowed += THRESHOLDS.floor * float(np.sqrt(np.mean(truth**2)))
        # between the slopes at a corner nothing is wrong
        off = np.where(findings.codes[part] == KINK, 0.0, np.abs(g - truth))
        if not (off <= 0.9 * allowed).all():
            exceeds.add(name)
        if not (off <= 1.1 * allowed + 2 * uncertainty).all():
            visible.add(name)
    size = "visible" if visible else "rounding" if exceeds else "tolerance"
    return size, exceeds, visible


def _judged(
    outcome: Outcome, under: Examination, findings: Findings, said: dict[str, Diagnosis],
    right: Tensors, mistake: Mistake, sources: list[str], kinds: set[str],
) -> Outcome:  # fmt: skip
    """The outcome with what is right about it."""
    problem = under.problem
    size, exceeds, visible = sizes_of(under, findings, right)
    verdicts = {
        name: verdict_of(worst)
        for (name, _), worst in zip(problem.layout.tensors(), findings.summary.worst, strict=True)
    }
    faulty = {name for name, verdict in verdicts.items() if verdict == "wrong"}
    open_ = {name for name, verdict in verdicts.items() if verdict == "unresolved"}
    named = [said[name].kind for name in sources if name in said]
    kinds = kinds | plainly(findings, problem, right, sources)
    # of one entry there is only a ratio
    parts = dict(problem.layout.tensors())
    one = all(
        np.count_nonzero(np.abs(right[name].ravel()) > under.uncertainty[parts[name]]) <= 1
        for name in sources
    )
    good = bool(named) and all(kind in kinds for kind in named)
    if one and mistake.kind != "unknown":
        good = good or all(kind != "unknown" for kind in named)
    one_column = all(right[name].shape[1] == 1 for name in sources)
    if one_column and kinds & {"rows", "entries"}:
        good = good or all(kind in ("rows", "entries") for kind in named)
    if mistake.kind == "unknown":  # where the others are zero, that these alone are wrong is true
        good = good or all(kind in ("rows", "columns", "entries", "unknown") for kind in named)
    return Outcome(
        outcome.seed, outcome.mistake, outcome.method, outcome.verdict, size,
        visible <= faulty | open_ and faulty <= exceeds, "/".join(sorted(set(named))), good,
    )  # fmt: skip


def study_of_others(seeds: Sequence[int]) -> list[Outcome]:
    """What fastgc and other checkers say of the same cases of small networks, and how fast."""
    checkers = {"fastgc": ("fastgc", _fastgc), **CHECKERS}
    checkers = {k: v for k, v in checkers.items() if importlib.util.find_spec(v[0]) is not None}
    outcomes: list[Outcome] = []
    for seed in seeds:
        net, parameters = drawn(seed)
        right = backward(net, parameters)
        wrongs = planted(net, parameters, seed)
        chosen = np.random.default_rng(seed).permutation(sorted(wrongs))[: CASES_OF_OTHERS[1] - 2]
        cases = [(RIGHT, right), (RIGHT, other_backward(net, parameters))]
        cases += [(str(name), wrongs[name][1]) for name in chosen]
        under = Examination(as_cost(net, parameters), "incremental")
        for label, (_, checker) in checkers.items():
            checker(net, parameters, right)  # what is compiled for this network is compiled
            for name, gradients in cases:
                began = time.perf_counter()
                accepts = checker(net, parameters, gradients)
                seconds = time.perf_counter() - began
                verdict = "correct" if accepts else "wrong"
                size = "visible" if name == RIGHT else _size(under, right, gradients)
                outcomes.append(Outcome(seed, name, label, verdict, size, seconds=seconds))
    return outcomes


def _size(under: Examination, right: Tensors, wrong: Tensors) -> str:
    findings, _ = under.examine(wrong)
    return sizes_of(under, findings, right)[0]


def _fastgc(net: fastgc.Network, parameters: Tensors, gradients: Tensors) -> bool:
    return bool(fastgc.check(net, parameters, gradients))


def small_networks() -> list[int]:
    """Seeds of the networks for `study_of_others`."""
    wanted, found, seed = CASES_OF_OTHERS[0] // CASES_OF_OTHERS[1], list[int](), 0
    while len(found) < wanted:
        net, parameters = drawn(seed)
        few = sum(v.size for v in parameters.values()) <= SMALL
        if few and len(planted(net, parameters, seed)) >= CASES_OF_OTHERS[1] - 2:
            found.append(seed)
        seed += 1
    return found


def _with_bugs(seed: int) -> list[Outcome]:
    return study_network(seed, bugs=True)


def _right_only(seed: int) -> list[Outcome]:
    return study_network(seed, bugs=False)


def run(networks: int, right: int, processes: int = 2) -> Study:
    """The study: so many networks with every mistake, so many more with right gradients alone."""
    began = time.perf_counter()
    study = Study(networks=networks)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [
            pool.map(_with_bugs, range(networks), chunksize=4),
            pool.map(_right_only, range(networks, networks + right), chunksize=8),
        ]
        for job in jobs:
            for outcomes in job:
                study.outcomes += outcomes
    study.seconds = time.perf_counter() - began
    return study


def seen(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The mistakes that are large enough to be seen."""
    return [o for o in outcomes if o.mistake != RIGHT and o.size == "visible"]


def misses(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What must not be: right and accused, seen and called correct, wrong in other tensors."""
    accused = [o for o in outcomes if o.mistake == RIGHT and o.verdict == "wrong"]
    passed = [o for o in seen(outcomes) if o.verdict == "correct"]
    elsewhere = [o for o in seen(outcomes) if o.verdict == "wrong" and not o.tensors]
    return accused + passed + elsewhere


def main() -> None:
    """A small study: what is missed, what is called by another name; status 1 if any is missed."""
    numbers = [int(text) for text in sys.argv[1:]]
    study = run(*(numbers + [12, 40][len(numbers) :]))
    bad = misses(study.outcomes)
    for outcome in bad:
        print("missed:", outcome)
    caught = [o for o in seen(study.outcomes) if o.verdict == "wrong"]
    misnamed = [o for o in caught if not o.kind_right]
    for (mistake, kind), count in Counter((o.mistake, o.kind) for o in misnamed).most_common():
        where = sorted({o.seed for o in misnamed if (o.mistake, o.kind) == (mistake, kind)})
        print(f"{count} times {mistake} was called {kind}, networks {where[:6]}")
    print(
        f"{len(study.outcomes):,} verdicts, {len(bad)} missed; {len(misnamed)} of {len(caught):,} "
        f"misnamed; {study.seconds:.0f} s"
    )
    missed = plain_detection.report_misses(plain_detection.run(1))
    sys.exit(1 if bad or missed else 0)


if __name__ == "__main__":
    main()
