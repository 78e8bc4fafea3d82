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
from multiprocessing import get_context
from typing import Any, NamedTuple

import fastgc
from benchmarks.tables import table
from tests.plain_case import PlainCost
from tests.plain_costs import PLAIN_COSTS

FIRST_SEED = 1000  # the tests take smaller ones
RIGHT = "right"
REFUSED = "refused"
ACCUSED = ("disagree", "nonfinite")


class PlainOutcome(NamedTuple):
    """What became of one gradient of one cost."""

    cost: str
    seed: int
    mistake: str  # or `RIGHT`
    verdict: str  # of the report; or `REFUSED`, where the check raised
    named: bool  # whether nothing but entries at fault was accused

    @property
    def missed(self) -> bool:
        """Right and accused, wrong and passed, another entry accused, or a refusal."""
        if self.verdict == REFUSED or not self.named:
            return True
        return self.verdict == ("wrong" if self.mistake == RIGHT else "correct")


class PlainStudy(NamedTuple):
    """All outcomes; `seconds` in all."""

    outcomes: list[PlainOutcome]
    seconds: float


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
    cost = PLAIN_COSTS[name].build(seed)
    gradients: list[tuple[str, Any, Sequence[str]]] = [(RIGHT, right, ()) for right in cost.right]
    gradients += [(wrong.name, wrong.gradients, wrong.entries) for wrong in cost.wrong]
    return [
        PlainOutcome(name, seed, mistake, *verdict_on(cost, claimed, entries))
        for mistake, claimed, entries in gradients
    ]


def verdict_on(cost: PlainCost, gradients: Any, entries: Sequence[str]) -> tuple[str, bool]:
    """The verdict on one gradient; whether no other than these wrong entries is accused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as of a logarithm a step beyond its domain
            report = fastgc.check(
                cost.cost, cost.parameters, gradients, progress=False, **cost.options
            )
    except Exception:
        return REFUSED, True
    worst = report.worst(sum(tensor.size for tensor in report.tensors.values()))
    accused = {entry.name for entry in worst if entry.verdict in ACCUSED}
    return report.verdict, accused <= set(entries)


def table_of_costs(outcomes: Sequence[PlainOutcome]) -> list[str]:
    """A line for each cost, and one for all."""
    names = list(dict.fromkeys(o.cost for o in outcomes))
    rows = [
        [PLAIN_COSTS[name].kind, name, *_counts([o for o in outcomes if o.cost == name])]
        for name in names
    ]
    header = ["kind", "cost", "right", "accused", "cannot tell", "wrong", "found", "cannot tell",
              "passed", "raised"]  # fmt: skip
    return table(header, [*rows, ["**all**", len(names), *_counts(outcomes)]])


def _counts(outcomes: Sequence[PlainOutcome]) -> list[str]:
    right = Counter(o.verdict for o in outcomes if o.mistake == RIGHT)
    wrong = Counter(o.verdict for o in outcomes if o.mistake != RIGHT)
    numbers = (
        right.total(), right["wrong"], right["unresolved"],
        wrong.total(), wrong["wrong"], wrong["unresolved"], wrong["correct"],
        right[REFUSED] + wrong[REFUSED],
    )  # fmt: skip
    return [f"{number:,}" for number in numbers]


def facts(study: PlainStudy) -> list[str]:
    """What docs/detection.md says of plain functions, with `table_of_costs`."""
    outcomes = study.outcomes
    right = Counter(o.verdict for o in outcomes if o.mistake == RIGHT)
    wrong = Counter(o.verdict for o in outcomes if o.mistake != RIGHT)
    named = sum(o.named for o in outcomes if o.mistake != RIGHT and o.verdict == "wrong")
    bad = Counter((o.cost, o.mistake, o.verdict) for o in outcomes if o.missed)
    costs, seeds = {o.cost for o in outcomes}, {o.seed for o in outcomes}
    return [
        f"{len(costs)} costs from {len(seeds)} seeds each, {study.seconds:.0f} s.",
        "",
        f"- **{wrong['correct']:,} of {wrong.total():,} wrong gradients pass**: {wrong['wrong']:,} "
        f"are wrong, {named:,} of them in the entries at fault alone, and "
        f'{wrong["unresolved"]:,} "cannot tell".',
        f"- **{right['wrong']:,} of {right.total():,} right gradients are accused**, and "
        f'{right["unresolved"]:,} "cannot tell".',
        f"- {right[REFUSED] + wrong[REFUSED]:,} of {len(outcomes):,} checks raised.",
        *(f"- Not as wanted: {cost}, {mistake}: {verdict}, {n} times"
          for (cost, mistake, verdict), n in bad.items()),
        "",
        *table_of_costs(outcomes),
    ]  # fmt: skip


def report_misses(study: PlainStudy) -> int:
    """Prints what is missed, and returns the number of it."""
    bad = [outcome for outcome in study.outcomes if outcome.missed]
    for outcome in bad:
        print("missed:", outcome)
    print(f"{len(study.outcomes):,} verdicts on plain functions, {len(bad)} missed")
    return len(bad)


def main() -> None:
    """The study, its table, and what is missed; status 1 if anything is."""
    study = run(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    print("\n".join(facts(study)))
    sys.exit(1 if report_misses(study) else 0)


if __name__ == "__main__":
    main()
