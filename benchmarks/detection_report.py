"""Writes docs/detection.md: ``python -m benchmarks.detection_report``.

The studies of `benchmarks.detection` and `benchmarks.plain_detection`, and the fuzz of the public
boundary.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import fuzz, plain_detection
from benchmarks.detection import (
    RIGHT,
    Outcome,
    Study,
    misses,
    run,
    seen,
    small_networks,
    study_of_others,
)
from fastgc.methods.registry import METHODS
from tests.bugs import MISTAKES

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "detection.md"
COMMAND = "python -m benchmarks.detection_report"
NETWORKS, RIGHT_ALONE, PLAIN_SEEDS, BAD_INPUTS = 260, 2300, 20, 100_000


def table_of_mistakes(study: Study) -> list[str]:
    """A line for each mistake."""
    of: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in study.outcomes:
        of[outcome.mistake].append(outcome)
    lines = [
        "| mistake | networks | " + " | ".join(METHODS) + " | tensors | called | rightly |",
        "|---|---|" + "---|" * (len(METHODS) + 3),
    ]
    for mistake in MISTAKES:
        visible = [o for o in of[mistake.name] if o.size == "visible"]
        cells = []
        for method in METHODS:
            mine = Counter(o.verdict for o in visible if o.method == method)
            cells.append(f"{mine['wrong']} of {sum(mine.values())}")
        caught = [o for o in visible if o.verdict == "wrong"]
        tensors, kinds = (
            _share(sum(right), len(caught))
            for right in ([o.tensors for o in caught], [o.kind_right for o in caught])
        )
        lines.append(
            f"| {mistake.name} | {len({o.seed for o in of[mistake.name]})} | "
            + " | ".join(cells)
            + f" | {tensors} | {mistake.kind} | {kinds} |"
        )
    return lines


def table_of_methods(study: Study) -> list[str]:
    """A line for each method: right gradients, and mistakes by what can be seen of them."""
    lines = [
        "| method | right | accused | cannot tell | mistakes seen | caught | cannot tell | missed "
        "| within rounding | within tolerance |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [o for o in study.outcomes if o.method == method]
        right = Counter(o.verdict for o in mine if o.mistake == RIGHT)
        seen = Counter(o.verdict for o in mine if o.mistake != RIGHT and o.size == "visible")
        sizes = Counter(o.size for o in mine if o.mistake != RIGHT)
        lines.append(
            f"| `{method}` | {sum(right.values()):,} | {right['wrong']} | {right['unresolved']} | "
            f"{sum(seen.values()):,} | {seen['wrong']:,} | {seen['unresolved']} | "
            f"{seen['correct']} | {sizes['rounding']} | {sizes['tolerance']} |"
        )
    return lines


def table_of_others(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each checker."""
    lines = [
        "| checker | caught | right gradients rejected | time for one, median |",
        "|---|---|---|---|",
    ]
    for checker in dict.fromkeys(o.method for o in outcomes):
        mine = [o for o in outcomes if o.method == checker]
        wrong = [o for o in mine if o.mistake != RIGHT and o.size == "visible"]
        right = [o for o in mine if o.mistake == RIGHT]
        caught = _share(sum(o.verdict == "wrong" for o in wrong), len(wrong))
        accused = _share(sum(o.verdict == "wrong" for o in right), len(right))
        milliseconds = 1e3 * median(o.seconds for o in mine)
        lines.append(f"| {checker} | {caught} | {accused} | {milliseconds:.2g} ms |")
    return lines


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
        "one network in ten at corners throughout. Right gradients come from two backward passes",
        f"that round differently. {len(study.outcomes):,} verdicts in",
        f"{study.seconds / 60:.0f} minutes.",
        "",
        f"- **{_share(sum(o.verdict != 'correct' for o in visible), len(visible))} of the mistakes "
        f"that can be seen do not pass**: {len(caught):,} are wrong, "
        f"{_share(sum(o.tensors for o in caught), len(caught))} of them in the right tensors, "
        f'and {len(visible) - len(caught)} "cannot tell".',
        f"- **{sum(o.verdict == 'wrong' for o in right)} of {len(right):,} right gradients are "
        "accused.**",
        f"- **{_share(sum(o.kind_right for o in known), len(known))} of the diagnoses are right.**",
        "",
        *table_of_methods(study),
        "",
        "*Within tolerance*: no entry is off by more than 2e-7 of itself or of its tensor's size,",
        "as where a mask is left out and every unit is awake. *Within rounding*: none by more than",
        "that and the uncertainty that the report states: the noise of the cost for `loop` and",
        "`stacked`, and what a right backward pass may lose. *Cannot tell* are costs so flat, or",
        "saturated, that a step of 1e-7 does not move them by more than their rounding; and",
        "entries at corners.",
        "",
        *table_of_mistakes(study),
        "",
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
        "",
        "PyTorch lets an error of 0.1 % through by its defaults (rtol=1e-3), and fast_mode looks",
        "at one direction; JAX and HIPS autograd look at one direction through all parameters.",
        "",
    ]
    if fuzzed is not None:
        parts += _fuzz(fuzzed)
    parts += ["## Not as wanted", ""]
    if bad:
        parts += [
            f"{len(bad)} of {len(study.outcomes):,} verdicts.",
            "At a corner a wrong gradient may lie as close to the central difference, which is",
            "half-way between the slopes, as a right one does; its entry then agrees, and its",
            "tensor is not named.",
            "",
        ]
    else:
        parts += ["None.", ""]
    for (mistake, verdict), count in Counter((o.mistake, o.verdict) for o in bad).most_common(20):
        seeds = sorted({o.seed for o in bad if (o.mistake, o.verdict) == (mistake, verdict)})
        parts.append(f"- {mistake}: {verdict}, {count} times, networks {seeds[:8]}")
    return "\n".join(parts).rstrip() + "\n"


def _fuzz(outcome: fuzz.Outcome) -> list[str]:
    counts = sorted(outcome.counts.items(), key=lambda item: -item[1])
    return [
        "## Bad input",
        "",
        f"{outcome.bad:,} bad among {sum(outcome.counts.values()):,} drawn calls of the public",
        "functions, with containers, shapes, dtypes, strides, keys, options and costs of every",
        f"wrong kind (`python -m benchmarks.fuzz`, {outcome.seconds:.0f} s):",
        f"{len(outcome.violations)} ended in anything but a documented error or a report, or",
        f"changed anything of the caller's. {len(outcome.messages)} different messages.",
        "",
        "| outcome | calls |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in counts),
        "",
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


def _share(part: int, whole: int) -> str:
    if part == whole:
        return f"all {whole:,}" if whole else "–"
    return f"{part:,} of {whole:,} ({100 * part / whole:.2f} %)"


def write(
    networks: int = NETWORKS,
    right: int = RIGHT_ALONE,
    bad_inputs: int = BAD_INPUTS,
    plain_seeds: int = PLAIN_SEEDS,
) -> None:
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
    parser.add_argument("--networks", type=int, default=NETWORKS, help="with mistakes")
    parser.add_argument("--right", type=int, default=RIGHT_ALONE, help="with right gradients alone")
    parser.add_argument("--plain-seeds", type=int, default=PLAIN_SEEDS, help="of plain functions")
    parser.add_argument("--bad-inputs", type=int, default=BAD_INPUTS)
    options = parser.parse_args()
    write(options.networks, options.right, options.bad_inputs, options.plain_seeds)
    print(DOCUMENT.read_text())


if __name__ == "__main__":
    main()
