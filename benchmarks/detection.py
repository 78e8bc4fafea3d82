"""How well mistakes are found and named: ``python -m benchmarks.detection [--quick]``.

Drawn networks, every mistake of tests/bugs.py in each of them, and right gradients by two backward
passes, for every method; the checkers of other libraries on a fixed part of the cases. gradapprox
is computed once for each network, method and step, and serves all mistakes.
"""

import argparse
import importlib.util
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

import fastgc
from benchmarks.other_checkers import CHECKERS
from fastgc.activations import ACTIVATIONS
from fastgc.claim import claim_of
from fastgc.diagnosis import Diagnosis, diagnose
from fastgc.disputes import Findings, settle
from fastgc.losses import LOSSES
from fastgc.methods import METHODS, Approximation, Base, Resources
from fastgc.noise import noise_of_cost
from fastgc.problem import Problem, base_cost, pose
from fastgc.rounding import rounding_of_gradients
from fastgc.verdict import KINK, entry_scale, verdict_of
from tests.bugs import MISTAKES, Mistake, Pass
from tests.cases import Array, NetworkCase, Tensors, backward, other_backward

TOLERANCE = 2e-7
MEMORY = 2**28
SMALL = 500  # parameters up to which other checkers take part
RIGHT = "right"


def drawn(seed: int) -> tuple[fastgc.Network, Tensors]:
    """A network: 1 to 6 layers, widths 1 to 64, 1 to 128 samples, nearly flat to saturated.

    One in ten lies at corners: zero biases and samples, or small integers throughout.
    """
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 7))
    widths = tuple(int(64 ** rng.random() + 0.5) for _ in range(depth + 1))
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
        weight_decay=float(rng.choice([0.0, 0.0, 0.3])),
        scale=float(10 ** rng.uniform(-1, 1.3)) if rng.random() < 0.8 else float(10 ** rng.uniform(-3, 2)),
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

    def __init__(self, problem: Problem, method: str) -> None:
        self.problem, self.exact = problem, METHODS[method].exact
        self.epsilon = METHODS[method].epsilon
        self.resources = Resources(MEMORY, 1, lambda _: None)
        cost, _ = base_cost(problem)
        noise = noise_of_cost(problem, cost, MEMORY)
        self.base = Base(cost, 0.0) if self.exact else Base(cost, noise.sigma, noise.coarse)
        self.method = METHODS[method]
        self.kept: dict[Any, tuple[Approximation, Any]] = {}

    def look(self, entries: Any, step: Any) -> Approximation:
        if step not in self.kept:
            every = self.method.approximate(
                self.problem, None, self.base, step, self.resources
            )
            self.kept[step] = every, None
        every, slopes = self.kept[step]

        def of_entries() -> tuple[Array, Array]:
            nonlocal slopes
            if slopes is None:
                slopes = every.slopes()
                self.kept[step] = every, slopes
            low, high = slopes
            return (low, high) if entries is None else (low[entries], high[entries])

        if entries is None:
            return Approximation(every.gradapprox, every.uncertainty, of_entries, 0)
        return Approximation(
            every.gradapprox[entries], every.uncertainty[entries], of_entries, 0
        )

    def examine(self, gradients: Tensors) -> tuple[Findings, dict[str, Diagnosis]]:
        with np.errstate(all="ignore"):
            claim = claim_of(self.problem.layout, gradients, TOLERANCE)
            findings = settle(
                self.problem, self.base, self.look, self.epsilon, claim,
                self.look(None, self.epsilon), exact=self.exact,
            )  # fmt: skip
            return findings, diagnose(self.problem, claim, findings)


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
            by more than the tolerance alone.
        tensors: whether the tensors at fault were named and no other.
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
    problem = pose(net, parameters)
    right = backward(net, parameters)
    if not all(np.isfinite(g).all() for g in right.values()):
        return []
    with np.errstate(all="ignore"):
        assert problem.inside is not None
        rounding = rounding_of_gradients(problem.inside)
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
        uncertainty = under.look(None, under.epsilon).uncertainty
        for name, (mistake, wrong, sources) in wrongs.items():
            findings, said = under.examine(wrong)
            outcomes.append(
                _judged(
                    Outcome(seed, name, method, _verdict(findings)),
                    problem, findings, said, right, mistake, sources, alike[name],
                    uncertainty + rounding,
                )
            )  # fmt: skip
    return outcomes


FACTORS = {"factor", "sign", "sum", "twice averaged"}


def plainly(
    findings: Findings, problem: Problem, right: Tensors, sources: list[str]
) -> set[str]:
    """What describes the wrong gradients as well, however they were made: a factor, or zero."""
    found: set[str] = set()
    parts = dict(problem.layout.tensors())
    assert problem.inside is not None
    decay = problem.inside.net.weight_decay / problem.inside.net.m
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
    return verdict_of(max(findings.tally.worst))


def _judged(
    outcome: Outcome, problem: Problem, findings: Findings, said: dict[str, Diagnosis],
    right: Tensors, mistake: Mistake, sources: list[str], kinds: set[str], slack: Array,
) -> Outcome:  # fmt: skip
    """The outcome with what is right about it."""
    exceeds, visible = set(), set()
    slack_of = {name: slack[part].reshape(right[name].shape) for name, part in problem.layout.tensors()}
    for name, part in problem.layout.tensors():
        g, truth = findings.grad[part], right[name].ravel()
        scale = entry_scale(g, truth, float(np.sqrt(np.mean(truth**2))))
        # between the slopes at a corner nothing is wrong
        off = np.where(findings.codes[part] == KINK, 0.0, np.abs(g - truth))
        if not (off <= 0.9 * TOLERANCE * scale).all():
            exceeds.add(name)
        if not (off <= 1.1 * TOLERANCE * scale + 2 * slack[part]).all():
            visible.add(name)
    faulty = {
        name
        for (name, _), worst in zip(problem.layout.tensors(), findings.tally.worst, strict=True)
        if verdict_of(worst) == "wrong"
    }
    size = "visible" if visible else "rounding" if exceeds else "tolerance"
    named = [said[name].kind for name in sources if name in said]
    kinds = kinds | plainly(findings, problem, right, sources)
    # of one entry there is only a ratio
    one = all(np.count_nonzero(np.abs(right[name]) > slack_of[name]) <= 1 for name in sources)
    good = bool(named) and all(kind in kinds for kind in named)
    if one and mistake.kind != "unknown":
        good = good or all(kind != "unknown" for kind in named)
    one_column = all(right[name].shape[1] == 1 for name in sources)
    if one_column and kinds & {"rows", "entries"}:
        good = good or all(kind in ("rows", "entries") for kind in named)
    return Outcome(
        outcome.seed, outcome.mistake, outcome.method, outcome.verdict, size,
        visible <= faulty <= exceeds, "/".join(sorted(set(named))), good,
    )  # fmt: skip


def others(seeds: Sequence[int]) -> list[Outcome]:
    """What other checkers say of the cases of these small networks, and of right gradients."""
    outcomes = []
    for seed in seeds:
        net, parameters = drawn(seed)
        right = backward(net, parameters)
        wrongs = planted(net, parameters, seed)
        cases = {RIGHT: right, **{name: wrong for name, (_, wrong, _) in wrongs.items()}}
        for label, (package, checker) in CHECKERS.items():
            if importlib.util.find_spec(package) is None:
                continue
            for name, gradients in cases.items():
                began = time.perf_counter()
                accepts = checker(net, parameters, gradients)
                seconds = time.perf_counter() - began
                verdict = "correct" if accepts else "wrong"
                outcomes.append(Outcome(seed, name, label, verdict, seconds=seconds))
    return outcomes


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
        jobs = [pool.map(_with_bugs, range(networks), chunksize=4)]
        jobs.append(pool.map(_right_only, range(networks, networks + right), chunksize=8))
        for job in jobs:
            for outcomes in job:
                study.outcomes += outcomes
    study.seconds = time.perf_counter() - began
    return study


def misses(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """What is not as it should be: visible and not caught, wrong tensors, right and accused."""
    return [
        o for o in outcomes
        if (o.mistake == RIGHT and o.verdict == "wrong")
        or (o.mistake != RIGHT and o.size == "visible" and (o.verdict == "correct" or
            (o.verdict == "wrong" and not o.tensors)))
    ]  # fmt: skip


def table(study: Study) -> list[str]:
    """A line for each mistake."""
    of: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in study.outcomes:
        of[outcome.mistake].append(outcome)
    lines = [
        "| mistake | kind | cases | " + " | ".join(METHODS) + " | tensors | kind named |",
        "|---|---|---|" + "---|" * (len(METHODS) + 2),
    ]
    for mistake in MISTAKES:
        visible = [o for o in of[mistake.name] if o.size == "visible"]
        cells = []
        for method in METHODS:
            mine = Counter(o.verdict for o in visible if o.method == method)
            cells.append(f"{mine['wrong']}/{sum(mine.values())}")
        caught = [o for o in visible if o.verdict == "wrong"]
        tensors = sum(o.tensors for o in caught), len(caught)
        kinds = sum(o.kind_right for o in caught), len(caught)
        lines.append(
            f"| {mistake.name} | {mistake.kind} | {len(of[mistake.name])} | "
            + " | ".join(cells)
            + f" | {tensors[0]}/{tensors[1]} | {kinds[0]}/{kinds[1]} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=240)
    parser.add_argument("--right", type=int, default=2500)
    options = parser.parse_args()
    study = run(options.networks, options.right)
    print("\n".join(table(study)))
    for method in METHODS:
        rights = Counter(
            o.verdict for o in study.outcomes if o.method == method and o.mistake == RIGHT
        )
        sizes = Counter(
            (o.size, o.verdict) for o in study.outcomes if o.method == method and o.mistake != RIGHT
        )
        print(method, dict(rights), dict(sizes))
    bad = misses(study.outcomes)
    for o in bad[:60]:
        print(o)
    wrong_kinds = [
        o for o in study.outcomes
        if o.mistake != RIGHT and o.size == "visible" and o.verdict == "wrong" and not o.kind_right
    ]  # fmt: skip
    for (mistake, kind), count in Counter((o.mistake, o.kind) for o in wrong_kinds).most_common(50):
        seeds = sorted({o.seed for o in wrong_kinds if (o.mistake, o.kind) == (mistake, kind)})[:6]
        print(count, mistake, "->", kind, seeds)
    print(f"{len(study.outcomes)} cases, {len(bad)} misses, {study.seconds:.0f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
