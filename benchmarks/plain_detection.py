"""How well mistakes are found in plain functions: the part of the detection study without networks.

Every cost of tests/plain_costs.py is drawn from several seeds, which are none of the tests', and
checked as its users would: with its right gradients, and with each of its planted mistakes.
``python -m benchmarks.plain_detection [SEEDS]`` runs this part alone.
"""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import fastgc
from tests.plain_case import PlainCost
from tests.plain_costs import PLAIN_COSTS

FIRST_SEED = 1000  # the tests take smaller ones
RIGHT = "right"
REFUSED = "refused"
ACCUSED = ("disagree", "nonfinite")


@dataclass(frozen=True)
class PlainOutcome:
    """What became of one gradient of one cost.

    Attributes:
        cost: its name.
        kind: of the cost.
        seed: it was drawn from.
        mistake: its name, or "right".
        verdict: ``correct``, ``wrong`` or ``unresolved``; ``refused`` where the check raised.
        named: whether nothing but entries at fault was accused.
        detail: of a refusal, the name of the exception.
    """

    cost: str
    kind: str
    seed: int
    mistake: str
    verdict: str
    named: bool = True
    detail: str = ""


@dataclass
class PlainStudy:
    """All outcomes; `seconds` in all."""

    outcomes: list[PlainOutcome] = field(default_factory=list)
    seconds: float = 0.0


def run(seeds: int, processes: int = 2) -> PlainStudy:
    """The study of every plain cost, drawn from so many seeds."""
    began = time.perf_counter()
    cases = [(name, FIRST_SEED + seed) for name in PLAIN_COSTS for seed in range(seeds)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(study_cost, cases, chunksize=max(1, seeds // 2))
        outcomes = [outcome for result in results for outcome in result]
    return PlainStudy(outcomes, time.perf_counter() - began)


def study_cost(case: tuple[str, int]) -> list[PlainOutcome]:
    """The verdicts on all gradients of the cost of this name and seed."""
    name, seed = case
    factory = PLAIN_COSTS[name]
    cost = factory.build(seed)
    outcomes = [
        _outcome((name, factory.kind, seed, RIGHT), cost, right, ()) for right in cost.right
    ]
    outcomes += [
        _outcome((name, factory.kind, seed, wrong.name), cost, wrong.gradients, wrong.entries)
        for wrong in cost.wrong
    ]
    return outcomes


def _outcome(
    case: tuple[str, str, int, str], cost: PlainCost, gradients: Any, entries: Sequence[str]
) -> PlainOutcome:
    """The verdict on one gradient, of which the `entries` are wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as of a logarithm a step beyond its domain
            report = fastgc.check(
                cost.cost, cost.parameters, gradients, progress=False, **cost.options
            )
    except Exception as error:
        return PlainOutcome(*case, REFUSED, detail=type(error).__name__)
    worst = report.worst(sum(tensor.size for tensor in report.tensors.values()))
    accused = {entry.name for entry in worst if entry.verdict in ACCUSED}
    return PlainOutcome(*case, report.verdict, named=accused <= set(entries))


def misses(outcomes: Sequence[PlainOutcome]) -> list[PlainOutcome]:
    """What must not be: right and accused, wrong and passed, another entry accused, a refusal."""
    return [o for o in outcomes if _missed(o)]


def _missed(outcome: PlainOutcome) -> bool:
    if outcome.verdict == REFUSED or not outcome.named:
        return True
    return outcome.verdict == ("wrong" if outcome.mistake == RIGHT else "correct")


def table_of_costs(outcomes: Sequence[PlainOutcome]) -> list[str]:
    """A line for each cost, and one for all."""
    lines = [
        "| kind | cost | right | accused | cannot tell | wrong | found | cannot tell | passed "
        "| raised |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(o.cost for o in outcomes):
        own = [o for o in outcomes if o.cost == name]
        lines.append(f"| {own[0].kind} | {name} | {_counts(own)} |")
    return [*lines, f"| **all** | {len(lines) - 2} | {_counts(outcomes)} |"]


def _counts(outcomes: Sequence[PlainOutcome]) -> str:
    right = Counter(o.verdict for o in outcomes if o.mistake == RIGHT)
    wrong = Counter(o.verdict for o in outcomes if o.mistake != RIGHT)
    numbers = (
        right.total(), right["wrong"], right["unresolved"],
        wrong.total(), wrong["wrong"], wrong["unresolved"], wrong["correct"],
        right[REFUSED] + wrong[REFUSED],
    )  # fmt: skip
    return " | ".join(f"{number:,}" for number in numbers)


def section(study: PlainStudy) -> list[str]:
    """The lines of docs/detection.md on plain functions."""
    outcomes = study.outcomes
    right = [o for o in outcomes if o.mistake == RIGHT]
    wrong = [o for o in outcomes if o.mistake != RIGHT]
    of_right = Counter(o.verdict for o in right)
    of_wrong = Counter(o.verdict for o in wrong)
    found = [o for o in wrong if o.verdict == "wrong"]
    lines = [
        "## Plain functions",
        "",
        f"{len({o.cost for o in outcomes})} costs that are functions of NumPy arrays, each drawn",
        f"from {len({o.seed for o in outcomes})} seeds, and checked as it is with `fastgc.check`",
        f"(`python -m benchmarks.plain_detection`, {study.seconds:.0f} s). Right gradients come",
        "from backward passes written by hand, which the tests hold against complex steps; at",
        "kinks they are several valid choices.",
        "",
        f"- **{of_wrong['correct']:,} of {len(wrong):,} wrong gradients pass**: {len(found):,} are "
        f"wrong, {sum(o.named for o in found):,} of them in the entries at fault alone, and "
        f'{of_wrong["unresolved"]:,} "cannot tell".',
        f"- **{of_right['wrong']:,} of {len(right):,} right gradients are accused**, and "
        f'{of_right["unresolved"]:,} "cannot tell".',
        f"- {of_right[REFUSED] + of_wrong[REFUSED]:,} of {len(outcomes):,} checks raised.",
        "",
        *table_of_costs(outcomes),
        "",
        "*Cannot tell* are right gradients where values of the cost do not tell, as at the border",
        "of its domain, and choices at kinks that only a look at each operation proves wrong.",
        "",
    ]  # fmt: skip
    bad = Counter((o.cost, o.mistake, o.verdict) for o in misses(outcomes))
    lines += ["Not as wanted: " + ("as follows." if bad else "none."), ""]
    lines += [f"- {cost}, {mistake}: {said}, {n} times" for (cost, mistake, said), n in bad.items()]
    return [*lines, ""] if bad else lines


def report_misses(study: PlainStudy) -> int:
    """Prints what is missed, and returns the number of it."""
    bad = misses(study.outcomes)
    for outcome in bad:
        print("missed:", outcome)
    print(f"{len(study.outcomes):,} verdicts on plain functions, {len(bad)} missed")
    return len(bad)


def main() -> None:
    """The study, its table, and what is missed; status 1 if anything is."""
    study = run(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    print("\n".join(section(study)))
    sys.exit(1 if report_misses(study) else 0)


if __name__ == "__main__":
    main()
