"""How a Report looks, as text and as HTML: headline, figures, a line for each tensor."""

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, TypeAlias

from fastgc.core.verdict import THRESHOLDS
from fastgc.parallel.progress import console
from fastgc.report.data import Contents, Entry, TensorReport

if TYPE_CHECKING:
    from rich.console import RenderableType

Piece: TypeAlias = tuple[str, str]  # text and style

SHORT = 1e-6  # steps up to this may be too short for a noisy cost
STYLES = {"correct": "green", "wrong": "bold red", "unresolved": "yellow"}
WORDS = {"correct": "correct", "wrong": "wrong", "unresolved": "cannot tell"}
NAMED = 6  # tensors that a headline names before it only counts
LISTED = 12  # tensors that have a line, or a diagnosis, before those that agree are only counted


def show(report: Contents) -> None:
    """Prints the report to standard output: with colours in a terminal, else as plain lines."""
    out = console()
    if out.is_terminal:
        out.print(renderable(report), soft_wrap=True)
    else:
        print(plain(report))


def plain(report: Contents) -> str:
    """The report as text without control codes."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in _lines(report))


def renderable(report: Contents) -> "RenderableType":
    """The report for a rich console; its lines are never folded within a number."""
    from rich.text import Text

    lines = [Text.assemble(*line) for line in _lines(report)]
    text = Text("\n").join(lines)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def _lines(report: Contents) -> list[list[Piece]]:
    style = STYLES[report.verdict]
    lines: list[list[Piece]] = [[(headline(report), style)]]
    if report.verdict == "unresolved":
        lines.append([(_way_out(report), style)])
    ranked = by_fault(report)
    if report.origin:
        lines += [[(line, "")] for line in report.origin.splitlines()]
    said = diagnoses(report)
    for text, names in said[:LISTED]:
        lines.append([(f"  {_list(names)}: ", "bold"), (text, "")])
    if len(said) > LISTED:
        lines.append([(f"  and {len(said) - LISTED} more", "")])
    lines += [[], *_table(ranked), [], *([(line, "")] for line in figures(report))]
    return lines


def by_fault(report: Contents) -> list[TensorReport]:
    """The tensors: wrong before unresolved before correct, worst first."""

    def rank(tensor: TensorReport) -> tuple[int, float]:
        # to the digits that are shown: those that look alike stay in the order of the parameters
        shown = float(f"{tensor.difference:.2e}")
        difference = math.inf if math.isnan(shown) else shown
        order = ("wrong", "unresolved", "correct").index(tensor.verdict)
        return order, 0.0 if tensor.ok else -difference

    return sorted(report.tensors.values(), key=rank)


def diagnoses(report: Contents) -> list[tuple[str, list[str]]]:
    """What is said of the tensors at fault, worst first, each with those it is said of."""
    said: dict[str, list[str]] = {}
    for tensor in by_fault(report):
        if tensor.diagnosis is not None:
            said.setdefault(str(tensor.diagnosis), []).append(tensor.name)
    return list(said.items())


def _table(ranked: list[TensorReport]) -> list[list[Piece]]:
    """A line for each tensor; those that agree are only counted, where there are many."""
    faulty = sum(not tensor.ok for tensor in ranked)
    shown = ranked[: max(LISTED, 1)] if faulty <= LISTED else ranked[:faulty][: 4 * LISTED]
    cells = columns(shown)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines: list[list[Piece]] = []
    for number, row in enumerate(cells):
        line = [
            (f"{text:<{width}}  " if i in (0, 1) else f"{text:>{width}}  ", "bold" * (not number))
            for i, (text, width) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        verdict = "bold" if not number else STYLES[shown[number - 1].verdict]
        lines.append([*line, (row[-1], verdict)])
    hidden = ranked[len(shown) :]
    if hidden:
        wrong = sum(not tensor.ok for tensor in hidden)
        what = "correct" if not wrong else f"of which {wrong} not correct"
        lines.append([(f"and {len(hidden)} more, {what}", "")])
    return lines


def columns(tensors: list[TensorReport]) -> list[list[str]]:
    """The table as text, its heading first; the column of slopes only where they are apart."""
    if any(tensor.estimate for tensor in tensors):
        return _columns_along(tensors)
    heading = ["tensor", "worst entry", "analytic", "numerical", "ratio", "slopes", "difference"]
    rows = [heading]
    for tensor in tensors:
        worst = tensor.worst
        rows.append(
            [
                _shown(tensor.name),
                _shown(worst.name),
                f"{worst.analytic:.7g}",
                f"{worst.numerical:.7g}",
                ratio(worst),
                slopes(worst),
                f"{tensor.difference:.2e}",
            ]
        )
    if not any(row[5] for row in rows[1:]):
        rows = [[*row[:5], *row[6:]] for row in rows]
    verdicts = ["verdict", *(verdict_cell(tensor) for tensor in tensors)]
    return [[*row, verdict] for row, verdict in zip(rows, verdicts, strict=True)]


def _columns_along(tensors: list[TensorReport]) -> list[list[str]]:
    """The table of a check along random directions."""
    heading = ["tensor", "worst", "analytic", "numerical", "error", "95 % interval", "verdict"]
    rows = [heading]
    for tensor in tensors:
        assert tensor.estimate is not None
        estimate, worst = tensor.estimate, tensor.worst
        rows.append(
            [
                _shown(tensor.name),
                _shown(worst.name),
                f"{worst.analytic:.7g}",
                f"{worst.numerical:.7g}",
                f"{estimate.error:.2e}",
                f"{estimate.low:.1e} to {estimate.high:.1e}",
                verdict_cell(tensor),
            ]
        )
    return rows


def ratio(entry: Entry) -> str:
    """Analytic over numerical; nothing where that is 0 / 0 or means nothing."""
    value = entry.ratio
    if math.isnan(value) or entry.verdict == "nonfinite":
        return ""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1e4 else f"{value:.2g}"


def slopes(entry: Entry) -> str:
    """``0 to 0.25``, the one-sided slopes, where they are apart."""
    if entry.slopes is None:
        return ""
    low, high = entry.slopes
    spread = max(abs(low), abs(high), abs(entry.numerical))
    apart = high - low > 1e-3 * spread + 4 * entry.uncertainty
    return f"{low:.4g} to {high:.4g}" if apart else ""


def headline(report: Contents) -> str:
    """The verdict in one line, with the tensors that it rests on."""
    entries = sum(tensor.size for tensor in report.tensors.values())
    what = _counted(report, entries)
    if report.verdict == "correct":
        of = "through" if report.estimate else "of"
        return (
            f"correct: {what} {of} {_list(report.tensors)} "
            f"{'agrees' if entries == 1 else 'agree'} with the numerical gradient{_reach(report)}"
        )
    at_fault = [tensor for tensor in by_fault(report) if tensor.verdict == report.verdict]
    names = _list(tensor.name for tensor in at_fault)
    count = sum(_count(tensor) for tensor in at_fault)
    what = _counted(report, sum(tensor.size for tensor in at_fault))  # of those that are named
    start = f"{WORDS[report.verdict]}: {names} ({count} of {what})"
    if report.verdict == "wrong":
        return _wrong(at_fault, what)
    reasons = {tensor.diagnosis.kind for tensor in at_fault if tensor.diagnosis is not None}
    if reasons == {"cost"}:
        return f"{start} cannot be had: the cost has no value a step away"
    if "unsettled" in reasons:
        verb = "has" if count == 1 else "have"
        return f"{start} {verb} no slope that stays the same as the step shrinks"
    if _resolution(report) > THRESHOLDS.resolution:
        verb = "is" if len(at_fault) == 1 else "are"
        return f"{start} {verb} lost in the rounding noise of the cost"
    verb = "lies" if len(at_fault) == 1 else "lie"
    return f"{start} {verb} at a corner of the cost, or where it bends sharply"


def _wrong(at_fault: list[TensorReport], what: str) -> str:
    """The headline of a wrong gradient; of some tensors the backward pass alone may be wrong."""
    off = [tensor for tensor in at_fault if _count(tensor)]
    others = _list(tensor.name for tensor in at_fault if not _count(tensor))
    count = sum(map(_count, off))
    if not off:
        return (
            f"wrong: the backward pass of {others}, though none of {what} disagrees with the "
            "numerical gradient"
        )
    verb = "disagrees" if len(off) == 1 else "disagree"
    names = _list(tensor.name for tensor in off)
    text = f"wrong: {names} ({count} of {what}) {verb} with the numerical gradient"
    return f"{text}; the backward pass of {others}" if others else text


def _reach(report: Contents) -> str:
    """How far the verdict "correct" reaches, where that is less than was asked for."""
    narrow = max(report.tensors.values(), key=lambda tensor: tensor.tolerance)
    kinks = [
        f"{_part(tensor.counts['kink'], tensor.size)} of {_shown(tensor.name)}"
        for tensor in report.tensors.values()
        if tensor.counts["kink"] > tensor.size / 10 and not report.estimate
    ]
    if kinks:
        return f"; at kinks, where more than one slope is right: {_list(kinks)}"
    noise = _resolution(report)
    if noise > max(report.tolerance, narrow.tolerance):
        return f" to within {noise:.0e}, the rounding noise"
    if narrow.tolerance > report.tolerance:
        return f" to within {narrow.tolerance:.0e}, as {narrow.dtype} allows"
    return ""


def _part(count: int, size: int) -> str:
    """``3 of the 5 entries``, ``all 5 entries``, ``the entry``."""
    if count < size:
        return f"{count} of the {size} entries"
    return f"all {size} entries" if size > 1 else "the entry"


def _way_out(report: Contents) -> str:
    """What to try where the verdict is "cannot tell"."""
    kinds = {t.diagnosis.kind for t in report.tensors.values() if t.diagnosis and not t.ok}
    if kinds == {"cost"}:
        return "move the parameters away from where the cost ends, and check again"
    if _resolution(report) <= THRESHOLDS.resolution or "unsettled" in kinds:
        advice = "move the parameters a little, and check again"
        return f'{advice}; or check entries, with method="loop"' if report.estimate else advice
    if report.epsilon <= SHORT:
        return "longer steps were tried as well; is the cost computed in float64?"
    return "compute the cost in float64; that of a fastgc.Network has no rounding noise to speak of"


def _resolution(report: Contents) -> float:
    """The largest uncertainty relative to the gradient, in the tensors the verdict rests on."""
    return max(t.resolution for t in report.tensors.values() if t.verdict == report.verdict)


def figures(report: Contents) -> list[str]:
    """The lines below the table."""
    cost = "" if report.cost is None else f", cost {report.cost:.6g}"
    lines = [f"difference {report.difference:.6g}{cost}"]
    if report.estimate is not None:
        of = report.estimate
        lines[0] = (
            f"error {of.error:.2g} of the gradient's norm, {of.low:.2g} to {of.high:.2g} with 95 % "
            f"confidence; difference about {report.difference:.2g}{cost}"
        )
    if report.noise:
        largest = max(tensor.resolution for tensor in report.tensors.values())
        lines[0] += f", its noise {report.noise:.1e} (up to {largest:.0e} of a gradient)"
    held: dict[tuple[float, str], list[str]] = {}
    for tensor in report.tensors.values():
        dtype = tensor.dtype if tensor.tolerance > report.tolerance else ""
        held.setdefault((tensor.tolerance, dtype), []).append(tensor.name)
    if len(held) == 1:
        ((tolerance, dtype),) = held
        why = f", as {dtype} allows" if dtype else ""
        each = "direction" if report.estimate else "entry"
        lines.append(f"tolerance {tolerance:g} for each {each}{why}")
    else:
        parts = [
            f"{tolerance:g} for {_list(names)}" + (f", as {dtype} allows" if dtype else "")
            for (tolerance, dtype), names in held.items()
        ]
        lines.append(f"tolerance {'; '.join(parts)}")
    if report.against is not None:
        lines.append(f"the Network and your cost agree to within {report.against:.0e}")
    if report.scope is not None:
        lines += report.scope.split("; ")
    longer = {t.name: t.epsilon for t in report.tensors.values() if t.epsilon is not None}
    if longer:
        lines.append(
            f"steps of up to {max(longer.values()):.2g} in {_list(longer)}, where noise hides what "
            "shorter ones show"
        )
    lines.append(
        f"method {report.method}, epsilon {report.epsilon:g}, "
        f"{report.evaluations} {report.unit} in {_duration(report.seconds)}"
    )
    return lines


def verdict_cell(tensor: TensorReport) -> str:
    """``correct``, or the verdict with the number of entries it rests on: ``wrong, 4 of 15``."""
    if tensor.verdict == "correct":
        kinks = tensor.counts["kink"]
        cell = f"correct, {kinks} at kinks" if kinks else "correct"
        if tensor.zeros:
            cell += f", {tensor.zeros} zero to within {tensor.zero_within:.0e}"
        rounded = tensor.at_rounding - tensor.zeros
        return f"{cell}, {rounded} by rounding" if rounded else cell
    if tensor.verdict == "wrong" and not _count(tensor):
        return "wrong, its backward pass"
    cell = f"{WORDS[tensor.verdict]}, {_count(tensor)} of {tensor.size}"
    nonfinite = tensor.counts["nonfinite"]
    return f"{cell} ({nonfinite} not finite)" if nonfinite else cell


def _count(tensor: TensorReport) -> int:
    """The entries that a tensor's verdict rests on."""
    if tensor.verdict == "wrong":
        return tensor.counts["disagree"] + tensor.counts["nonfinite"]
    return tensor.counts["unresolved"]


def _counted(report: Contents, count: int) -> str:
    if report.estimate:
        return f"{count} random direction{'s' * (count != 1)}"
    return "1 entry" if count == 1 else f"{count} entries"


def _list(names: Iterable[str]) -> str:
    """``W1, b1 and W2``; a long list ends in ``and 7 more``; nothing for none."""
    names = [_shown(name) for name in names]
    if not names:
        return ""
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _shown(name: str) -> str:
    """A name as it is, or with its line breaks and control codes spelt out."""
    return name if name.isprintable() and name else repr(name)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


COLOURS = {"correct": "#0b6e4f", "wrong": "#b0413e", "unresolved": "#8a6d00"}
MOST = 50  # lines of the table


def html(report: Contents) -> str:
    """The report as a fragment of HTML: headline, diagnoses, a table; the figures below it."""
    ranked = by_fault(report)
    parts = [
        f'<div><p style="color:{COLOURS[report.verdict]}"><b>{escape(headline(report))}</b></p>'
    ]
    if report.origin:
        parts.append(f"<p>{'<br>'.join(map(escape, report.origin.splitlines()))}</p>")
    said = diagnoses(report)
    if said:
        items = (
            f"<li><b>{escape(', '.join(names))}</b>: {escape(text)}</li>"
            for text, names in said[:MOST]
        )
        parts.append(f"<ul>{''.join(items)}</ul>")
    heading, *rows = columns(ranked[:MOST])
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    parts.append(f"<table><thead><tr>{cells}</tr></thead><tbody>")
    for tensor, row in zip(ranked, rows, strict=False):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[:-1])
        colour = COLOURS[tensor.verdict]
        parts.append(f'<tr>{cells}<td style="color:{colour}">{escape(row[-1])}</td></tr>')
    parts.append("</tbody></table>")
    if len(ranked) > MOST:
        parts.append(f"<p>and {len(ranked) - MOST} more</p>")
    parts.append(f"<p><small>{'<br>'.join(map(escape, figures(report)))}</small></p></div>")
    return "".join(parts)
