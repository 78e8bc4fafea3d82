"""A Report in a notebook."""

from html import escape

from fastgc.rendering import by_fault, columns, diagnoses, figures, headline
from fastgc.report import Report

COLOURS = {"correct": "#0b6e4f", "wrong": "#b0413e", "unresolved": "#8a6d00"}
MOST = 50  # lines of the table


def html(report: Report) -> str:
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
