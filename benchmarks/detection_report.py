"""Writes the tables of docs/detection.md: ``python -m benchmarks.detection_report``.

The studies of `benchmarks.detection` and `benchmarks.plain_detection`.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from statistics import median

from benchmarks import plain_detection
from benchmarks.detection import (
    METHODS,
    RIGHT,
    Outcome,
    Study,
    misses,
    run,
    seen,
    small_networks,
    study_of_others,
)
from benchmarks.tables import fill, percentage, share, table
from tests.bugs import MISTAKES

#: Networks with mistakes, others with right gradients alone, seeds of plain functions.
SIZES = {"networks": 260, "right": 2300, "plain_seeds": 20}


def table_of_mistakes(study: Study) -> list[str]:
    """A line for each mistake."""
    rows = []
    for mistake in MISTAKES:
        mine = [o for o in study.outcomes if o.mistake == mistake.name]
        visible = [o for o in mine if o.size == "visible"]
        caught = [o for o in visible if o.verdict == "wrong"]
        methods = [[o.verdict for o in visible if o.method == method] for method in METHODS]
        rows.append([
            mistake.name, len({o.seed for o in mine}),
            *(share(verdicts.count("wrong"), len(verdicts)) for verdicts in methods),
            percentage([o.tensors for o in caught]), mistake.kind,
            percentage([o.kind_right for o in caught]),
        ])  # fmt: skip
    return table(["mistake", "networks", *METHODS, "tensors", "called", "rightly"], rows)


def table_of_methods(study: Study) -> list[str]:
    """A line for each method: right gradients, and mistakes by what can be seen of them."""
    rows = []
    for method in METHODS:
        mine = [o for o in study.outcomes if o.method == method]
        right = Counter(o.verdict for o in mine if o.mistake == RIGHT)
        visible = Counter(o.verdict for o in seen(mine))
        sizes = Counter(o.size for o in mine if o.mistake != RIGHT)
        numbers = (
            right.total(), right["wrong"], right["unresolved"],
            visible.total(), visible["wrong"], visible["unresolved"], visible["correct"],
            sizes["rounding"], sizes["tolerance"],
        )  # fmt: skip
        rows.append([f"`{method}`", *(f"{number:,}" for number in numbers)])
    header = ["method", "right", "accused", "cannot tell", "mistakes seen", "caught",
              "cannot tell", "missed", "within rounding", "within tolerance"]  # fmt: skip
    return table(header, rows)


def table_of_others(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each checker."""
    rows = []
    for checker in dict.fromkeys(o.method for o in outcomes):
        mine = [o for o in outcomes if o.method == checker]
        wrong = [o.verdict != "correct" for o in seen(mine)]
        right = [o.verdict != "correct" for o in mine if o.mistake == RIGHT]
        milliseconds = 1e3 * median(o.seconds for o in mine)
        rows.append([
            checker, percentage(wrong), percentage(right), f"{milliseconds:.2g} ms"
        ])  # fmt: skip
    return table(["checker", "caught", "right gradients rejected", "time for one, median"], rows)


def facts(study: Study) -> list[str]:
    visible = seen(study.outcomes)
    caught = [o for o in visible if o.verdict == "wrong"]
    known = [o for o in caught if o.kind != "unknown"]
    right = [o.verdict for o in study.outcomes if o.mistake == RIGHT]
    return [
        f"{len(MISTAKES)} kinds of mistake in {study.networks} networks: "
        f"{len(study.outcomes):,} verdicts in {study.seconds / 60:.0f} minutes.",
        "",
        f"- **{percentage([o.verdict != 'correct' for o in visible])} of the mistakes "
        f"that can be seen do not pass**: {len(caught):,} are wrong, "
        f"{percentage([o.tensors for o in caught])} of them in the right tensors, "
        f'and {len(visible) - len(caught)} "cannot tell".',
        f"- **{right.count('wrong')} of {len(right):,} right gradients are accused.**",
        f"- **{percentage([o.kind_right for o in known])} of the diagnoses are right.**",
        "",
    ]


def unwanted(study: Study) -> list[str]:
    bad = misses(study.outcomes)
    lines = [f"{len(bad)} of {len(study.outcomes):,} verdicts.", ""]
    for (mistake, verdict), count in Counter((o.mistake, o.verdict) for o in bad).most_common(20):
        seeds = sorted({o.seed for o in bad if (o.mistake, o.verdict) == (mistake, verdict)})
        lines.append(f"- {mistake}: {verdict}, {count} times, networks {seeds[:8]}")
    return lines


def line_for_readme(study: Study, plain: plain_detection.PlainStudy) -> str:
    visible = seen(study.outcomes)
    right = [o for o in study.outcomes if o.mistake == RIGHT]
    passed = sum(o.verdict == "correct" for o in visible)
    functions = {o.cost for o in plain.outcomes}
    wrong = [o for o in plain.outcomes if o.mistake != plain_detection.RIGHT]
    passing = sum(o.verdict == "correct" for o in wrong)
    return (
        f"- **{passed} of {len(visible):,} visible mistakes passed**, of "
        f"{len(MISTAKES)} kinds in {study.networks} drawn networks; "
        f"{sum(o.verdict == 'wrong' for o in right)} of {len(right):,} right gradients accused. "
        f"Of {len(functions)} plain functions, {passing} of {len(wrong):,} wrong gradients passed "
        "([docs/detection.md](docs/detection.md))."
    )


def write(networks: int, right: int, plain_seeds: int) -> None:
    """Runs everything, and fills docs/detection.md and the README's line."""
    study, plain = run(networks, right), plain_detection.run(plain_seeds)
    parts = {
        "networks": [*facts(study), *table_of_methods(study), *table_of_mistakes(study)],
        "plain functions": plain_detection.facts(plain),
        "other checkers": table_of_others(study_of_others(small_networks())),
        "not as wanted": unwanted(study),
    }
    for part, lines in parts.items():
        fill("docs/detection.md", part, lines)
    fill("README.md", "detection", [line_for_readme(study, plain)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    write(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
