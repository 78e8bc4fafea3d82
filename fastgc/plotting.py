"""The picture of a Report: where the errors of each tensor lie, and analytic against numerical."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgc.layout import FloatArray
from fastgc.rendering import by_fault, headline, verdict_cell
from fastgc.report import Arrays, Report, TensorReport
from fastgc.requirements import require_number
from fastgc.verdict import DISAGREE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SHOWN = 6  # tensors, where the caller names none
NARROW = 5.0  # inches, under which the two pictures of a tensor stand below each other
CELLS = 200  # a side of a heat map, at most
COLUMN = 40  # entries of a vector, at most, before it is wrapped like text
POINTS = 1000  # of each entry verdict, at most
RINGED = 20  # wrong cells, at most; more of them show by themselves
SMALL, TITLE, HEADING = 8.0, 9.0, 11.0  # points
LINE = 1.3 / 72  # inches that a line of text takes, for each point of its size
LINES = 5  # of a title, at most
FRAME = 0.8  # inches around a picture, for its labels
SHADES = 256

# For each entry verdict: words; the shades of its cells, from the least error to the greatest, light
# where entries pass and dark where they fail, so that grey prints tell too; its points' colour
# (after Okabe and Ito) and marker.
LOOKS = (
    ("agrees", "#f1f6fb", "#8fb8d8", "#0072b2", "o"),
    ("at a kink", "#e6f4ea", "#86c79b", "#009e73", "^"),
    ("cannot tell", "#f0cfe4", "#a5588f", "#cc79a7", "D"),
    ("disagrees", "#f29a45", "#7f0d14", "#d55e00", "s"),
    ("not finite", "#000000", "#000000", "#000000", "X"),
)


def plot(report: Report, tensors: Sequence[str] | None, width: float) -> "Figure":
    """The figure that `Report.plot` returns."""
    chosen = _chosen(report, tensors)
    arrays = [tensor.arrays for tensor in chosen if tensor.arrays is not None]
    if len(arrays) < len(chosen):
        raise ValueError(
            "the report was read back and holds no arrays; plot the one that check returned"
        )
    width = require_number(width, "width")
    if not 2 <= width <= 100:
        raise ValueError(f"width is {width:g}; wanted 2 to 100 inches")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'report.plot() needs matplotlib; pip install "fastgc[plot]"', name="matplotlib"
        ) from error

    narrow = width < NARROW
    across, side = (share * width - FRAME for share in ((1, 1) if narrow else (0.58, 0.42)))
    tolerances = sorted({tensor.tolerance for tensor in chosen} - {0.0})
    logs = [math.log10(tolerance) for tolerance in tolerances]
    scale = min([-16, *(math.floor(t - 3) for t in logs)]), max([0, *map(math.ceil, logs)])
    verdicts = sorted({int(v) for a in arrays for v in np.unique(a.verdicts)})
    grids = [_grid(a, scale, min(CELLS, int(60 * side))) for a in arrays]

    head = _wrapped(headline(report), width, HEADING, "bold")
    titles = [_title(tensor, width) for tensor in chosen]
    key = f"; line: tolerance {', '.join(f'{t:g}' for t in tolerances)}" if logs else ""
    titles.append(_wrapped(f"relative error{key}", width, SMALL))
    maps = [min(across * grid.aspect, side, 0.6 * len(grid.cells)) + FRAME for grid in grids]
    heights = [height * narrow + side + FRAME for height in maps]
    columns = max(1, int(width / 1.7))
    heights.append(0.17 * len(verdicts) + 0.4 + 0.2 * math.ceil((len(verdicts) + 2) / columns))
    ratios = [h + LINE * TITLE * len(t) + 0.15 for h, t in zip(heights, titles, strict=True)]
    figure = Figure(figsize=(width, sum(ratios) + LINE * HEADING * len(head) + 0.1))
    figure.set_layout_engine("constrained", h_pad=0.06)
    _head(figure, head, width, HEADING, "bold")
    parts = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False).ravel()
    for part, title in zip(parts, titles, strict=True):
        _head(part, title, width, TITLE if part is not parts[-1] else SMALL)
    for part, height, grid, a in zip(parts, maps, grids, arrays, strict=False):
        if narrow:
            pair = part.subplots(2, 1, height_ratios=(height, side + FRAME))
        else:
            pair = part.subplots(1, 2, width_ratios=(across + FRAME, side + FRAME))
        _draw_grid(pair[0], grid)
        _draw_points(pair[1], a)
    _draw_key(parts[-1].subplots(), scale, verdicts, logs, 2 if width < 3 else 4)
    _draw_legend(parts[-1], verdicts, columns, ringed=any(len(grid.ringed) for grid in grids))
    return figure


def _chosen(report: Report, names: Sequence[str] | None) -> list[TensorReport]:
    """The tensors to draw, in order."""
    if names is None:
        everything = list(report.tensors.values())
        return ([tensor for tensor in by_fault(report) if not tensor.ok] or everything)[:SHOWN]
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"tensors is {names!r}; wanted a sequence of names, or None")
    for name in names:
        if name not in report.tensors:
            known = ", ".join(map(repr, report.tensors))
            raise ValueError(f"tensors holds {name!r}; the report has {known}")
    if not names:
        raise ValueError("tensors is empty; wanted one name or more, or None for those at fault")
    return [report.tensors[name] for name in dict.fromkeys(names)]


def _shown(text: str) -> str:
    """The text with what cannot be printed, or is in no font at hand, spelt out."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=[f]))) for f in FontProperties().get_family()]
    shown = text if text and text.isprintable() else repr(text)
    return "".join(
        c if any(font.get_char_index(ord(c)) for font in fonts) else ascii(c)[1:-1] for c in shown
    )


def _wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """The text in lines that fit into a figure so many inches wide."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    rest, lines = _shown(text), []
    while rest and len(lines) < LINES:
        lengths = range(1, min(len(rest), int(20 * width)) + 1)
        line = rest[: lengths[-1]]
        inches = [
            text_to_path.get_text_width_height_descent(line[:n], font, False)[0] / 72
            for n in lengths
        ]
        end = max(1, bisect_right(inches, width - 0.25))
        if end < len(rest) and (space := rest.rfind(" ", 1, end + 1)) > 0:
            end = space
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*lines[:-1], lines[-1][:-2] + "…"] if rest else lines


def _title(tensor: TensorReport, width: float) -> list[str]:
    """Name, shape and verdict; below them the diagnosis."""
    name = f"{_shown(tensor.name)} {tensor.shape}: {verdict_cell(tensor)}"
    said = [] if tensor.diagnosis is None else _wrapped(str(tensor.diagnosis), width, TITLE)
    return _wrapped(name, width, TITLE) + said


def _head(
    figure: "Figure | SubFigure",
    lines: list[str],
    width: float,
    size: float,
    weight: str = "normal",
) -> None:
    figure.suptitle(
        "\n".join(lines), x=0.1 / width, ha="left", fontsize=size, weight=weight,
        parse_math=False, usetex=False,
    )  # fmt: skip


class _Grid(NamedTuple):
    """A heat map.

    Attributes:
        cells: verdict + place on the scale of errors, below 1; NaN where there is no entry.
        steps: entries from a cell to the one on its right, and to the one below.
        labels: of the axes from left to right, and from top to bottom.
        note: what a cell is the worst of.
    """

    cells: FloatArray
    steps: tuple[int, int]
    labels: tuple[str, str]
    note: str

    @property
    def aspect(self) -> float:
        """Height over width: square cells, unless that makes the picture thin."""
        return min(max(self.cells.shape[0] / self.cells.shape[1], 1 / 3), 3.0)

    @property
    def ringed(self) -> FloatArray:
        """The wrong cells, (n, 2), column and row, where they are few among many."""
        wrong = np.argwhere(self.cells >= DISAGREE)[:, ::-1] * np.array(self.steps, float)
        return wrong if len(wrong) <= RINGED and max(self.cells.shape) > 25 else wrong[:0]


def _grid(arrays: Arrays, scale: tuple[int, int], most: int) -> _Grid:
    """The tensor as cells, about `most` a side or fewer."""
    shape, size = arrays.verdicts.shape, arrays.verdicts.size
    with np.errstate(divide="ignore"):
        places = (np.log10(arrays.errors()) - scale[0]) / (scale[1] - scale[0])
    # one number, so that a maximum is the worst verdict and, among those, the greatest error
    values = arrays.verdicts + np.clip(places, 0.0, 1 - 1 / SHADES)
    matrix = values.reshape(shape[0] if shape else 1, -1)
    if min(matrix.shape) > 1 or size <= COLUMN:
        down, across = (math.ceil(length / most) for length in matrix.shape)
        cells, block = _reduced(matrix, down, across), f"{down} × {across}"
        labels = {1: ("", "index"), 2: ("column", "row")}.get(
            len(shape), ("other indices, flat", "first index")
        )
    else:
        across = math.ceil(2 * size / most**2)
        row, block = _reduced(matrix.reshape(1, -1), 1, across)[0], str(across)
        # round, so that the labels of columns and rows are easily added
        columns = next(
            n for k in range(12) for n in (10**k, 2 * 10**k, 5 * 10**k) if 2 * n * n >= row.size
        )
        cells = np.full((math.ceil(row.size / columns), columns), np.nan)
        cells.ravel()[: row.size] = row
        down, labels = across * columns, ("+ offset", "index")
    note = f", the worst of {block} a cell" if np.count_nonzero(cells == cells) < size else ""
    return _Grid(cells, (across, down), labels, note)


def _reduced(matrix: FloatArray, down: int, across: int) -> FloatArray:
    """The maximum over blocks."""
    rows = np.maximum.reduceat(matrix, np.arange(0, matrix.shape[0], down), axis=0)
    return np.asarray(np.maximum.reduceat(rows, np.arange(0, matrix.shape[1], across), axis=1))


def _show(axes: "Axes", cells: FloatArray, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    at = np.linspace(0, 1, SHADES)
    shades = [LinearSegmentedColormap.from_list("", look[1:3])(at) for look in LOOKS]
    axes.imshow(
        cells, ListedColormap(np.concatenate(shades)), vmin=0, vmax=len(LOOKS), aspect="auto",
        interpolation="nearest", extent=extent,
    )  # fmt: skip
    axes.tick_params(labelsize=SMALL)


def _draw_grid(axes: "Axes", grid: _Grid) -> None:
    from matplotlib.ticker import MaxNLocator

    (rows, columns), (across, down) = grid.cells.shape, grid.steps
    extent = -0.5 * across, (columns - 0.5) * across, (rows - 0.5) * down, -0.5 * down
    _show(axes, grid.cells, extent)
    if len(grid.ringed):
        axes.scatter(*grid.ringed.T, s=90, facecolors="none", edgecolors="black", clip_on=False)
    axes.set_box_aspect(grid.aspect)
    axes.set_anchor("N")
    axes.set_title(f"relative error{grid.note}", fontsize=SMALL)
    both = (axes.xaxis, axes.yaxis)
    for axis, label, count in zip(both, grid.labels, (columns, rows), strict=True):
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
        axis.set_label_text(label, fontsize=SMALL)
        axis.set_visible(count > 1)


def _draw_points(axes: "Axes", arrays: Arrays) -> None:
    from matplotlib.ticker import MaxNLocator

    random, verdicts = np.random.default_rng(0), arrays.verdicts.ravel()
    groups = [np.flatnonzero(verdicts == v) for v in range(len(LOOKS))]
    groups = [g if g.size <= POINTS else random.choice(g, POINTS, replace=False) for g in groups]
    shown = np.concatenate(groups)
    pairs = np.stack((arrays.numerical.ravel()[shown], arrays.analytic.ravel()[shown]))
    largest = float(np.abs(pairs[np.isfinite(pairs)]).max(initial=0.0))
    power = math.floor(math.log10(largest)) if largest and not 0.01 <= largest < 1e4 else 0
    # matplotlib draws neither the largest floats nor the least; in two steps as 1e324 is no float
    pairs = pairs / 10.0 ** (power // 2) / 10.0 ** (power - power // 2)
    finite = pairs[np.isfinite(pairs)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    half = 0.54 * max(high - low, 0.1 * max(-low, high)) or 1.0
    low, high = (low + high) / 2 - half, (low + high) / 2 + half
    pairs = np.nan_to_num(pairs, nan=high, posinf=high, neginf=low)
    axes.plot((low, high), (low, high), color="#888888", lw=0.8, zorder=1)
    ends = np.cumsum([group.size for group in groups])[:-1]
    for (*_, colour, marker), at in zip(LOOKS, np.split(pairs, ends, axis=1), strict=True):
        axes.scatter(*at, s=26, c=colour, marker=marker, lw=0, alpha=0.8, clip_on=False, zorder=2.5)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_box_aspect(1)
    part = f"{shown.size} of {verdicts.size}" if shown.size < verdicts.size else "all"
    axes.set_title(f"{part} entries", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    for axis, label in ((axes.xaxis, "numerical"), (axes.yaxis, "analytic")):
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axis.set_label_text(f"{label} / 1e{power}" if power else label, fontsize=SMALL)


def _draw_key(
    axes: "Axes", scale: tuple[int, int], verdicts: list[int], lines: list[float], parts: int
) -> None:
    """The shades of the heat maps: a strip for each verdict, along one scale of errors."""
    strips = np.add.outer(verdicts, np.arange(SHADES) / SHADES)
    _show(axes, strips, (*scale, len(verdicts) - 0.5, -0.5))
    axes.set_yticks(range(len(verdicts)), [LOOKS[v][0] for v in verdicts])
    ticks = range(scale[0], scale[1] + 1, math.ceil((scale[1] - scale[0]) / parts))
    labels = [f"1e{tick}" if tick else "1" for tick in ticks]
    axes.set_xticks(ticks, [f"≤ {labels[0]}", *labels[1:]])
    for line in lines:
        axes.axvline(line, color="black", lw=1.2)


def _draw_legend(part: "SubFigure", verdicts: list[int], columns: int, *, ringed: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", markeredgewidth=0, label=words)
        for words, _, _, colour, marker in (LOOKS[v] for v in verdicts)
    ]
    handles.append(Line2D([], [], color="#888888", lw=0.8, label="analytic = numerical"))
    if ringed:
        ring = Line2D([], [], color="black", marker="o", mfc="none", ms=9, ls="")
        ring.set_label("wrong cell")
        handles.append(ring)
    part.legend(
        handles=handles, ncols=columns, fontsize=SMALL, frameon=False, loc="outside lower center"
    )
