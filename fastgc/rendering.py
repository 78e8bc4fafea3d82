"""How a Report looks: a headline, the figures, a table with a line for each tensor."""

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from fastgc.report import Report, TensorReport
from fastgc.verdict import RESOLUTION

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Piece: TypeAlias = tuple[str, str]  # text and style

COLUMNS = (
    ("tensor", "<"),
    ("shape", "<"),
    ("difference", "<"),
    ("worst entry", "<"),
    ("analytic", ">"),
    ("numerical", ">"),
    ("verdict", "<"),
)
LONGEST_STEP = 1e-2  # that is still proposed
STYLES = {"correct": "green", "wrong": "bold red", "unresolved": "yellow"}
WORDS = {"correct": "correct", "wrong": "wrong", "unresolved": "cannot tell"}
NAMED = 6  # tensors that a headline names before it only counts


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output or error: plain where it is no terminal or NO_COLOR is set."""
    from rich.console import Console

    # rich drops only colours for NO_COLOR; without a colour system it drops bold and dim as well
    if os.environ.get("NO_COLOR"):
        return Console(stderr=stderr, color_system=None, highlight=False)
    return Console(stderr=stderr, highlight=False)


def show(report: Report) -> None:
    """Prints the report to standard output: with colours in a terminal, else as plain lines."""
    out = console()
    if out.is_terminal:
        out.print(renderable(report), soft_wrap=True)
    else:
        print(plain(report))


def plain(report: Report) -> str:
    """The report as text without control codes."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in _lines(report))


def renderable(report: Report) -> "RenderableType":
    """The report for a rich console; its lines are never folded within a number."""
    from rich.text import Text

    lines = [Text.assemble(*line) for line in _lines(report)]
    text = Text("\n").join(lines)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def _lines(report: Report) -> list[list[Piece]]:
    style = STYLES[report.verdict]
    lines: list[list[Piece]] = [[(headline(report), style)]]
    if report.verdict == "unresolved":
        lines.append([(_way_out(report), style)])
    lines += [[(line, "")] for line in _figures(report)] + [[]]
    cells = [[(heading, "bold") for heading, _ in COLUMNS]]
    cells += [_row(tensor) for tensor in report.tensors.values()]
    widths = [max(len(row[i][0]) + 2 for row in cells) for i in range(len(COLUMNS))]
    widths[-1] = 0
    for row in cells:
        line = []
        for (text, text_style), (_, aligned), width in zip(row, COLUMNS, widths, strict=True):
            padded = f"{text:>{width - 2}}  " if aligned == ">" else f"{text:<{width}}"
            line.append((padded, text_style))
        lines.append(line)
    return lines


def _row(tensor: TensorReport) -> list[Piece]:
    worst = tensor.worst
    return [
        (_shown(tensor.name), ""),
        (str(tensor.shape), ""),
        (f"{tensor.difference:.3e}", ""),
        (_shown(worst.name), ""),
        (f"{worst.analytic:.7g}", ""),
        (f"{worst.numerical:.7g}", ""),
        (_verdict_cell(tensor), STYLES[tensor.verdict]),
    ]


def headline(report: Report) -> str:
    """The verdict in one line, with the tensors that it rests on."""
    entries = sum(_size(tensor) for tensor in report.tensors.values())
    if report.verdict == "correct":
        noise = _noise(report)
        within = f" to within {noise:.0e}, the rounding noise" if noise > report.tolerance else ""
        return (
            f"correct: {_entries(entries)} of {_list(report.tensors)} "
            f"{'agrees' if entries == 1 else 'agree'} with the numerical gradient{within}"
        )
    at_fault = [t for t in report.tensors.values() if t.verdict == report.verdict]
    names = _list(tensor.name for tensor in at_fault)
    count = sum(_count(tensor) for tensor in at_fault)
    start = f"{WORDS[report.verdict]}: {names} ({count} of {_entries(entries)})"
    if report.verdict == "wrong":
        verb = "disagrees" if len(at_fault) == 1 else "disagree"
        return f"{start} {verb} with the numerical gradient"
    if _noise(report) > RESOLUTION:
        verb = "is" if len(at_fault) == 1 else "are"
        return f"{start} {verb} lost in the rounding noise of the cost"
    verb = "lies" if len(at_fault) == 1 else "lie"
    return f"{start} {verb} at a corner of the cost, or where it bends sharply"


def _way_out(report: Report) -> str:
    """What to try where the verdict is "cannot tell"."""
    noise = _noise(report)
    if noise <= RESOLUTION:
        return "move the parameters a little, and check again"
    if math.isfinite(noise):
        # ten times what it takes: the gradapprox that the noise was set against is noisy too
        step = 10.0 ** math.ceil(math.log10(10 * report.epsilon * noise / RESOLUTION))
        if report.epsilon < step <= LONGEST_STEP:
            return f"try a longer step, epsilon={step:.0e}; is the cost computed in float64?"
    return "scale the parameters or the cost, and compute the cost in float64"


def _noise(report: Report) -> float:
    """The largest uncertainty relative to the gradient, in the tensors the verdict rests on."""
    return max(t.resolution for t in report.tensors.values() if t.verdict == report.verdict)


def _figures(report: Report) -> list[str]:
    return [
        f"difference {report.difference:.6g}, cost {report.cost:.6g}, "
        f"tolerance {report.tolerance:g} for each entry",
        f"method {report.method}, epsilon {report.epsilon:g}, "
        f"{report.evaluations} evaluations in {_duration(report.seconds)}",
    ]


def _verdict_cell(tensor: TensorReport) -> str:
    """``correct``, or the verdict with the number of entries it rests on: ``wrong, 4 of 15``."""
    if tensor.verdict == "correct":
        kinks = tensor.counts["kink"]
        return f"correct, {kinks} at kinks" if kinks else "correct"
    cell = f"{WORDS[tensor.verdict]}, {_count(tensor)} of {_size(tensor)}"
    nonfinite = tensor.counts["nonfinite"]
    return f"{cell} ({nonfinite} not finite)" if nonfinite else cell


def _count(tensor: TensorReport) -> int:
    """The entries that a tensor's verdict rests on."""
    if tensor.verdict == "wrong":
        return tensor.counts["disagree"] + tensor.counts["nonfinite"]
    return tensor.counts["unresolved"]


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _list(names: Iterable[str]) -> str:
    """``W1, b1 and W2``; a long list ends in ``and 7 more``."""
    names = [_shown(name) for name in names]
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _shown(name: str) -> str:
    """A name as it is, or with its line breaks and control codes spelt out."""
    return name if name.isprintable() and name else repr(name)


def _size(tensor: TensorReport) -> int:
    return sum(tensor.counts.values())


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
