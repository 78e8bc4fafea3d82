"""How the tables of docs/ are written."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def fill(page: str, part: str, lines: Iterable[str]) -> None:
    """Puts lines between the comments of a page that begin with `part` and "end of" it."""
    path, text = ROOT / page, "\n".join(lines).strip()
    pattern = rf"(<!-- {part}, .*? -->\n).*?(\n<!-- end of {part} -->)"
    page_text, count = re.subn(
        pattern, lambda found: found[1] + text + found[2], path.read_text(), flags=re.DOTALL
    )
    assert count == 1, (page, part)
    path.write_text(page_text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    lines = [_line(header), "|" + "---|" * len(header)]
    return [*lines, *(_line(row) for row in rows), ""]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def time_of(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def bytes_of(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def percentage(truths: Sequence[bool]) -> str:
    part, whole = sum(truths), len(truths)
    if part == whole:
        return f"all {whole:,}" if whole else "–"
    return f"{part:,} of {whole:,} ({100 * part / whole:.2f} %)"
