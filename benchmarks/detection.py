"""How well mistakes are found and named: the study behind docs/detection.md.

Drawn networks, every mistake of tests/bugs.py in each of them, and right gradients by two backward
passes, for every method; the checkers of other libraries on a fixed part of the cases. Plain
functions follow in `benchmarks.plain_detection`.
``python -m benchmarks.detection_report`` runs it and writes it up; ``python -m benchmarks.detection
[NETWORKS [RIGHT]]`` runs a small one, with every plain function once.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

import fastgc
from benchmarks import plain_detection
from benchmarks.checkers import AUTOGRAD, FASTGC, JAX, LAB_RULE, TORCH, TORCH_FAST
from benchmarks.models import network
from fastgc.core.verdict import KINK, THRESHOLDS
from fastgc.costs.base import as_cost
from fastgc.methods.base import Approximation, Method
from fastgc.methods.registry import METHODS as REGISTRY
from fastgc.network.layers import ACTIVATIONS, LOSSES
from tests.bugs import MISTAKES, Mistake, Pass
from tests.cases import Array, NetworkCase, Tensors, backward, other_backward

METHODS = ("loop", "stacked", "incremental", "node")
TOLERANCE = 2e-7
SMALL = 500  # parameters up to which other checkers take part
CASES_OF_OTHERS = 1000, 10  # in all, and of each network: two right ones, the rest wrong
RIGHT = "right"


def drawn(seed: int) -> tuple[fastgc.Network, Tensors]:
    """A network: 1 to 6 layers, widths 1 to 64, 1 to 128 samples, nearly flat to saturated.

    One in ten lies at kinks: zero biases and samples, or small integers throughout.
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


class Remembering:
    """A method that keeps what it computes of a network, as it is asked for every mistake anew."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.kept: dict[tuple[int, float], Array] = {}

    def approximate(
        self, cost: Any, entries: Any, base: Any, epsilon: Any, resources: Any
    ) -> Approximation:
        size = cost.theta.size
        asked = np.arange(size) if entries is None else entries
        steps = np.broadcast_to(epsilon, size)
        new = np.array([k for k in asked.tolist() if (k, steps[k]) not in self.kept], dtype=np.intp)
        if new.size:
            found = self.method.approximate(cost, new, base, epsilon, resources)
            rows = np.stack((found.gradapprox, found.uncertainty, *found.slopes()), axis=1)
            self.kept |= {(k, steps[k]): row for k, row in zip(new.tolist(), rows, strict=True)}
        kept = np.array([self.kept[k, steps[k]] for k in asked.tolist()]).reshape(-1, 4)
        gradapprox, uncertainty, low, high = kept.T.copy()
        return Approximation(gradapprox, uncertainty, lambda: (low, high), 0)


@contextmanager
def remembering() -> Iterator[None]:
    """The methods of plain differences compute each of one network only once."""
    plain = {name: REGISTRY[name] for name in ("loop", "stacked")}
    for name, method in plain.items():
        REGISTRY[name] = replace(method, approximate=Remembering(method).approximate)
    try:
        yield
    finally:
        REGISTRY.update(plain)


class Outcome(NamedTuple):
    """What became of one case.

    The size of a mistake is ``visible``; ``rounding``, where no entry is off by more than the
    tolerance and the uncertainty of gradapprox or of a right backward pass; ``tolerance``, by more
    than the tolerance alone. What lies between the slopes at a kink is not off.
    """

    seed: int  # of the network
    mistake: str  # or `RIGHT`
    method: str  # or another checker
    verdict: str
    size: str = "visible"
    tensors: bool = True  # whether those at fault, and no others, were named, or left open at kinks
    kind: str = ""  # what the diagnosis called it, of the tensors where the mistake was made
    kind_right: bool = True
    seconds: float = 0.0


class Study(NamedTuple):
    """All outcomes, of so many networks with mistakes; `seconds` in all."""

    outcomes: list[Outcome]
    networks: int
    seconds: float


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
    sizes = {name: float(np.nan_to_num(np.abs(g)).max()) for name, g in a.items()}
    return all(
        np.allclose(a[name], b[name], rtol=1e-7, atol=1e-7 * size, equal_nan=True)
        for name, size in sizes.items()
    )


def study_network(seed: int, *, bugs: bool) -> list[Outcome]:
    """Every case of one network, for every method."""
    net, parameters = drawn(seed)
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
    with remembering():
        for method in METHODS:
            check = partial(fastgc.check, net, parameters, method=method, progress=False)
            reports = [check(gradients) for gradients in (right, other_backward(net, parameters))]
            outcomes += [Outcome(seed, RIGHT, method, report.verdict) for report in reports]
            uncertainty = uncertainty_of(net, parameters, reports[0])
            for name, (mistake, wrong, sources) in wrongs.items():
                case = Case(net, parameters, right, uncertainty, wrong, check(wrong))
                outcomes.append(case.outcome(seed, mistake, sources, alike[name]))
    return outcomes


def uncertainty_of(net: fastgc.Network, parameters: Tensors, report: fastgc.Report) -> Tensors:
    """Of the differences in a report, and of a right backward pass by its rounding."""
    cost, found = as_cost(net, parameters), {}
    with np.errstate(all="ignore"):
        rounding = cost.rounding()
    assert rounding is not None
    for name, part in cost.layout.tensors():
        arrays = report.tensors[name].arrays
        assert arrays is not None
        found[name] = arrays.uncertainty + rounding[part].reshape(arrays.shape)
    return found


FACTORS = {"factor", "sign", "sum", "twice averaged"}


class Case(NamedTuple):
    """A wrong gradient of a network, and the report on it.

    `uncertainty` is that of differences and of a right backward pass, whatever gradient is checked.
    """

    net: fastgc.Network
    parameters: Tensors
    right: Tensors
    uncertainty: Tensors
    wrong: Tensors
    report: fastgc.Report

    def size(self) -> tuple[str, set[str], set[str]]:
        """How large the mistake is, the tensors it moves beyond the tolerance, and visibly so."""
        exceeds, visible = set(), set()
        for name, truth in self.right.items():
            arrays, g = self.report.tensors[name].arrays, self.wrong[name]
            assert arrays is not None
            with np.errstate(all="ignore"):
                allowed = TOLERANCE * np.maximum(np.abs(g), np.abs(truth))
                allowed += THRESHOLDS.floor * float(np.sqrt(np.mean(truth**2)))
                # between the slopes at a kink nothing is wrong
                off = np.where(arrays.verdicts == KINK, 0.0, np.abs(g - truth))
                if not (off <= 0.9 * allowed).all():
                    exceeds.add(name)
                if not (off <= 1.1 * allowed + 2 * self.uncertainty[name]).all():
                    visible.add(name)
        size = "visible" if visible else "rounding" if exceeds else "tolerance"
        return size, exceeds, visible

    def plain_kinds(self, sources: list[str]) -> set[str]:
        """What describes the wrong gradients as well, however made: a factor, or zero."""
        found: set[str] = set()
        decay = self.net.weight_decay / self.net.m
        for name in sources:
            g, truth = self.wrong[name].ravel(), self.right[name].ravel()
            fixed = decay * self.parameters[name].ravel() if name[0] == "W" else 0.0 * g
            for wrong, wanted in ((g, truth), (g - fixed, truth - fixed)):
                size = np.abs(wrong).max()
                if size <= 1e-7 * np.abs(truth).max():
                    found.add("zero")
                elif np.isfinite(size) and wanted.any():
                    c = (wrong @ wanted) / (wanted @ wanted)
                    if np.abs(wrong - c * wanted).max() <= 1e-7 * size:
                        found |= FACTORS
        return found

    def named_rightly(self, named: list[str], mistake: Mistake, sources: list[str]) -> bool:
        """Whether of a tensor with one entry, or one column, it is called what can be told."""
        one = all(
            np.count_nonzero(np.abs(self.right[name]) > self.uncertainty[name]) <= 1
            for name in sources
        )
        if one and mistake.kind != "unknown" and "unknown" not in named:
            return True  # of one entry there is only a ratio
        # where the others are zero, that these alone are wrong is true
        partial_kinds = ("rows", "columns", "entries", "unknown")
        return mistake.kind == "unknown" and all(kind in partial_kinds for kind in named)

    def outcome(self, seed: int, mistake: Mistake, sources: list[str], kinds: set[str]) -> Outcome:
        """What became of it; `kinds` are those of the mistakes that make the same gradients."""
        size, exceeds, visible = self.size()
        tensors = self.report.tensors
        faulty = {name for name, tensor in tensors.items() if tensor.verdict == "wrong"}
        open_ = {name for name, tensor in tensors.items() if tensor.verdict == "unresolved"}
        diagnoses = [tensors[name].diagnosis for name in sources]
        named = [diagnosis.kind for diagnosis in diagnoses if diagnosis is not None]
        kinds = kinds | self.plain_kinds(sources)
        if kinds & {"rows", "entries"} and all(self.right[n].shape[1] == 1 for n in sources):
            kinds |= {"rows", "entries"}  # of one column
        good = bool(named) and all(kind in kinds for kind in named)
        return Outcome(
            seed, mistake.name, self.report.method, self.report.verdict, size,
            visible <= faulty | open_ and faulty <= exceeds, "/".join(sorted(set(named))),
            good or self.named_rightly(named, mistake, sources),
        )  # fmt: skip


def size_of(net: fastgc.Network, parameters: Tensors, wrong: Tensors, right: Tensors) -> str:
    """How large a mistake is, by the differences that are exact: as `Outcome.size`."""
    check = partial(fastgc.check, net, parameters, method="incremental", progress=False)
    uncertainty = uncertainty_of(net, parameters, check(right))
    return Case(net, parameters, right, uncertainty, wrong, check(wrong)).size()[0]


def study_of_others(seeds: Sequence[int]) -> list[Outcome]:
    """What fastgc and other checkers say of the same cases of small networks, and how fast."""
    outcomes: list[Outcome] = []
    for seed in seeds:
        net, parameters = drawn(seed)
        right = backward(net, parameters)
        wrongs = planted(net, parameters, seed)
        chosen = np.random.default_rng(seed).permutation(sorted(wrongs))[: CASES_OF_OTHERS[1] - 2]
        cases = [(RIGHT, right, "visible"), (RIGHT, other_backward(net, parameters), "visible")]
        for name in map(str, chosen):
            wrong = wrongs[name][1]
            cases.append((name, wrong, size_of(net, parameters, wrong, right)))
        for checker in (FASTGC, LAB_RULE, TORCH, TORCH_FAST, JAX, AUTOGRAD):
            model = network(net, parameters, right)
            if not checker.takes(model):
                continue
            checker.ready(model)()  # what is compiled for this network is compiled
            for name, gradients, size in cases:
                began = time.perf_counter()
                verdict = checker.ready(network(net, parameters, gradients))()
                seconds = time.perf_counter() - began
                outcomes.append(Outcome(seed, name, checker.name, verdict, size, seconds=seconds))
    return outcomes


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


def run(networks: int, right: int) -> Study:
    """The study: so many networks with every mistake, so many more with right gradients alone."""
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for bugs, seeds in ((True, range(networks)), (False, range(networks, networks + right))):
            for found in pool.map(partial(study_network, bugs=bugs), seeds, chunksize=4):
                outcomes += found
    return Study(outcomes, networks, time.perf_counter() - began)


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
