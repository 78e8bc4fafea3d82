"""Writes docs/detection.md: ``python -m benchmarks.detection_report``.

The studies of `benchmarks.detection` and `benchmarks.plain_detection`, and the fuzz of the public
boundary.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import fuzz, plain_detection
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
from benchmarks.tables import percentage, share, table
from tests.bugs import MISTAKES

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "detection.md"
COMMAND = "python -m benchmarks.detection_report"
#: Networks with mistakes, others with right gradients alone, bad calls, seeds of plain functions.
SIZES = {"networks": 260, "right": 2300, "bad_inputs": 100_000, "plain_seeds": 20}


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


def write_up(
    study: Study,
    plain: plain_detection.PlainStudy,
    others: Sequence[Outcome],
    fuzzed: fuzz.Outcome | None,
) -> str:
    visible = seen(study.outcomes)
    caught = [o for o in visible if o.verdict == "wrong"]
    known = [o for o in caught if o.kind != "unknown"]
    right = [o for o in study.outcomes if o.mistake == RIGHT]
    bad = misses(study.outcomes)
    parts = [
        "# Detection",
        "",
        f"Written by `{COMMAND}` (needs the extra `bench`).",
        f"{len(MISTAKES)} kinds of mistake were",
        f"planted in {study.networks} drawn networks, one at a time: 1 to 6 layers, widths 1 to",
        "64, all activations and losses, 1 to 128 samples, weights from nearly flat to saturated,",
        "one network in ten at kinks throughout. Right gradients come from two backward passes",
        f"that round differently. {len(study.outcomes):,} verdicts in",
        f"{study.seconds / 60:.0f} minutes.",
        "",
        f"- **{percentage([o.verdict != 'correct' for o in visible])} of the mistakes "
        f"that can be seen do not pass**: {len(caught):,} are wrong, "
        f"{percentage([o.tensors for o in caught])} of them in the right tensors, "
        f'and {len(visible) - len(caught)} "cannot tell".',
        f"- **{sum(o.verdict == 'wrong' for o in right)} of {len(right):,} right gradients are "
        "accused.**",
        f"- **{percentage([o.kind_right for o in known])} of the diagnoses are right.**",
        "",
        *table_of_methods(study),
        "*Within tolerance*: no entry is off by more than 2e-7 of itself or of its tensor's size,",
        "as where a mask is left out and every unit is awake. *Within rounding*: none by more than",
        "that and the uncertainty that the report states: the noise of the cost for `loop` and",
        "`stacked`, and what a right backward pass may lose. *Cannot tell* are costs so flat, or",
        "saturated, that a step of 1e-7 does not move them by more than their rounding; and",
        "entries at kinks.",
        "",
        *table_of_mistakes(study),
        "*Called* is the diagnosis wanted of the tensors where the mistake was made, *rightly* its",
        "share. Mistakes that come to the same gradients in a network (as any that leaves a",
        "multiple of the right gradient) may be called by each other's names, and of a single",
        "entry that is not zero any ratio is a right description. `unknown` are gradients that no",
        "kind may claim.",
        "",
        *plain_detection.section(plain),
        "## Other checkers",
        "",
        f"The same {sum(o.method == 'fastgc' for o in others):,} cases for each, in networks of at",
        "most 500 parameters, at its own defaults (HIPS autograd and JAX in reverse mode, first",
        "order; JAX in float64). What is compiled for a network is compiled before it is timed.",
        'fastgc is a whole `check` with `method="auto"`.',
        "",
        *table_of_others(others),
        "PyTorch lets an error of 0.1 % through by its defaults (rtol=1e-3), and fast_mode looks",
        "at one direction; JAX and HIPS autograd look at one direction through all parameters.",
        "",
    ]
    if fuzzed is not None:
        parts += _fuzz(fuzzed)
    parts += ["## Not as wanted", "", "None." * (not bad)]
    if bad:
        parts += [
            f"{len(bad)} of {len(study.outcomes):,} verdicts.",
            "At a kink a wrong gradient may lie as close to the central difference, which is",
            "half-way between the slopes, as a right one does; its entry then agrees, and its",
            "tensor is not named.",
            "",
        ]
    for (mistake, verdict), count in Counter((o.mistake, o.verdict) for o in bad).most_common(20):
        seeds = sorted({o.seed for o in bad if (o.mistake, o.verdict) == (mistake, verdict)})
        parts.append(f"- {mistake}: {verdict}, {count} times, networks {seeds[:8]}")
    return "\n".join(parts).rstrip() + "\n"


def _fuzz(outcome: fuzz.Outcome) -> list[str]:
    counts = sorted(outcome.counts.items(), key=lambda item: -item[1])
    return [
        "## Bad input",
        "",
        f"{outcome.bad:,} bad among {outcome.counts.total():,} drawn calls of the public",
        "functions, with containers, shapes, dtypes, strides, keys, options and costs of every",
        f"wrong kind (`python -m benchmarks.fuzz`, {outcome.seconds:.0f} s):",
        f"{len(outcome.violations)} ended in anything but a documented error or a report, or",
        "changed anything of the caller's.",
        "",
        *table(["outcome", "calls"], [[name, f"{count:,}"] for name, count in counts]),
    ]


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


def write(networks: int, right: int, bad_inputs: int, plain_seeds: int) -> None:
    """Runs everything, and writes docs/detection.md and the README's line."""
    study = run(networks, right)
    plain = plain_detection.run(plain_seeds)
    others = study_of_others(small_networks())
    fuzzed = fuzz.run(bad_inputs) if bad_inputs else None
    DOCUMENT.write_text(write_up(study, plain, others, fuzzed))
    into_readme("detection", line_for_readme(study, plain))


def into_readme(part: str, text: str) -> None:
    """Puts `text` between the README's comments that begin with `part` and "end of" it."""
    readme = ROOT / "README.md"
    readme.write_text(
        re.sub(
            rf"(<!-- {part}, .*? -->\n).*?(<!-- end of {part} -->)",
            lambda found: found[1] + text + "\n" + found[2],
            readme.read_text(),
            flags=re.DOTALL,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    write(**vars(parser.parse_args()))
    print(DOCUMENT.read_text())


if __name__ == "__main__":
    main()
