"""How a Report looks: a headline, the figures, a table with a line for each tensor."""

import io
import os
from collections.abc import Iterable
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastgc.report import Report, TensorReport

STYLES = {"correct": "green", "wrong": "bold red", "unresolved": "yellow"}
WORDS = {"correct": "correct", "wrong": "wrong", "unresolved": "cannot tell"}
NAMED = 6  # tensors that a headline names before it only counts


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error: plain where it is no terminal or NO_COLOR is set."""
    # rich drops only colours for NO_COLOR; without a colour system it drops bold and dim as well
    if os.environ.get("NO_COLOR"):
        return Console(stderr=stderr, color_system=None, highlight=False)
    return Console(stderr=stderr, highlight=False)


def show(item: RenderableType, *, style: str = "") -> None:
    """Prints to standard output: styled in a terminal, else as plain lines of any length."""
    out = console()
    if out.is_terminal:
        out.print(item, style=style)
    else:
        print(item)


def plain(report: Report) -> str:
    """The report as text without control codes, as wide as it needs to be."""
    stream = io.StringIO()
    Console(
        file=stream, width=10_000, color_system=None, force_terminal=False, highlight=False
    ).print(renderable(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def renderable(report: Report) -> RenderableType:
    """The report for a rich console."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    columns: tuple[tuple[str, Literal["left", "right"]], ...] = (
        ("tensor", "left"),
        ("shape", "left"),
        ("difference", "left"),
        ("worst entry", "left"),
        ("analytic", "right"),
        ("numerical", "right"),
        ("verdict", "left"),
    )
    for heading, justify in columns:
        table.add_column(heading, justify=justify, overflow="fold")
    for tensor in report.tensors.values():
        table.add_row(
            Text(_shown(tensor.name)),
            Text(str(tensor.shape)),
            Text(f"{tensor.difference:.3e}"),
            Text(_shown(tensor.worst.name)),
            Text(f"{tensor.worst.analytic:.7g}"),
            Text(f"{tensor.worst.numerical:.7g}"),
            Text(_verdict_cell(tensor), style=STYLES[tensor.verdict]),
        )
    return Group(
        Text(headline(report), style=STYLES[report.verdict]),
        Text(_figures(report)),
        Text(),
        table,
    )


def headline(report: Report) -> str:
    """The verdict in one line, with the tensors that it rests on."""
    entries = sum(_size(tensor) for tensor in report.tensors.values())
    if report.verdict == "correct":
        return (
            f"correct: {_entries(entries)} of {_list(report.tensors)} "
            f"{'agrees' if entries == 1 else 'agree'} with the numerical gradient"
        )
    at_fault = [t for t in report.tensors.values() if t.verdict == report.verdict]
    names = _list(tensor.name for tensor in at_fault)
    if report.verdict == "wrong":
        count = sum(t.counts["disagree"] + t.counts["nonfinite"] for t in at_fault)
        return (
            f"wrong: {names} ({count} of {_entries(entries)}) "
            f"{'disagrees' if len(at_fault) == 1 else 'disagree'} with the numerical gradient"
        )
    count = sum(t.counts["unresolved"] for t in at_fault)
    return (
        f"cannot tell: {names} ({count} of {_entries(entries)}) "
        f"{'is' if len(at_fault) == 1 else 'are'} lost in the rounding noise of the cost"
    )


def _figures(report: Report) -> str:
    return (
        f"difference {report.difference:.6g}, tolerance {report.tolerance:g}, "
        f"cost {report.cost:.6g}\n"
        f"method {report.method}, epsilon {report.epsilon:g}, "
        f"{report.evaluations} evaluations in {_duration(report.seconds)}"
    )


def _verdict_cell(tensor: TensorReport) -> str:
    """``correct``, or the verdict with the number of entries it rests on: ``wrong, 4 of 15``."""
    if tensor.verdict == "correct":
        return WORDS[tensor.verdict]
    nonfinite, disagree = tensor.counts["nonfinite"], tensor.counts["disagree"]
    count = nonfinite + disagree if tensor.verdict == "wrong" else tensor.counts["unresolved"]
    cell = f"{WORDS[tensor.verdict]}, {count} of {_size(tensor)}"
    return f"{cell} ({nonfinite} not finite)" if nonfinite else cell


def _shown(name: str) -> str:
    """A name as it is, or with its line breaks and control codes spelt out."""
    return name if name.isprintable() and name else repr(name)


def _size(tensor: TensorReport) -> int:
    return sum(tensor.counts.values())


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


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
