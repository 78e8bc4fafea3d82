"""The picture of a Report: where the errors of each tensor lie, and analytic against numerical."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastgc.layout import FloatArray
from fastgc.rendering import WORDS, headline
from fastgc.report import Arrays, Report, TensorReport
from fastgc.requirements import require_number
from fastgc.verdict import DISAGREE, ENTRY_VERDICTS

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
FRAME = 0.75  # inches around a picture, for its labels
SHADES = 256

# Of the heat map: light where entries pass, dark where they fail, so that grey prints tell too.
RAMPS = (("#f1f6fb", "#8fb8d8"), ("#f0cfe4", "#a5588f"), ("#f29a45", "#7f0d14"), ("#000000",) * 2)
STRIPS = ("agrees", "cannot tell", "disagrees", "not finite")
RANKS = np.array([0, 0, 1, 2, 3])  # of each entry verdict: the ramp that it is drawn from
# Of the points: colour (after Okabe and Ito), marker and words of each entry verdict.
MARKS = (
    ("#0072b2", "o", "agrees"),
    ("#009e73", "^", "at a kink"),
    ("#cc79a7", "D", "cannot tell"),
    ("#d55e00", "s", "disagrees"),
    ("#000000", "X", "not finite: at the edge"),
)


def plot(report: Report, tensors: Sequence[str] | None, width: float) -> "Figure":
    """The figure that `Report.plot` returns."""
    chosen = _chosen(report, tensors)
    if not 2 <= require_number(width, "width") <= 100:
        raise ValueError(f"width is {width}; wanted 2 to 100 inches")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'report.plot() needs matplotlib; pip install "fastgc[plot]"', name="matplotlib"
        ) from error

    width = float(width)
    narrow = width < NARROW
    side = (width if narrow else width / 2) - FRAME  # of a picture
    scale = _scale(chosen)
    grids = [_grid(tensor, scale, min(CELLS, int(50 * side))) for tensor in chosen]
    titles = [_title(tensor, width) for tensor in chosen]
    heading = _wrapped(headline(report), width, HEADING, "bold")
    verdicts = [v for v, name in enumerate(ENTRY_VERDICTS) if any(t.counts[name] for t in chosen)]
    ranks = sorted({int(RANKS[v]) for v in verdicts})
    columns = 2 if narrow else 3
    below = 0.17 * len(ranks) + 0.65 + 1.4 * LINE * SMALL * math.ceil((len(verdicts) + 2) / columns)

    maps = [side * min(grid.aspect, 1.0) + FRAME for grid in grids]
    heights = [
        (height + side + FRAME if narrow else side + FRAME) + LINE * TITLE * len(title) + 0.1
        for height, title in zip(maps, titles, strict=True)
    ]
    total = sum(heights) + below + LINE * HEADING * len(heading) + 0.1
    figure = Figure(figsize=(width, total), layout="constrained")
    _head(figure, heading, width, HEADING, "bold")
    parts = figure.subfigures(
        len(chosen) + 1, 1, height_ratios=[*heights, below], squeeze=False
    ).ravel()
    for part, title, height, grid, tensor in zip(parts, titles, maps, grids, chosen, strict=False):
        _head(part, title, width, TITLE, "normal")
        if narrow:
            pair = part.subplots(2, 1, height_ratios=(height, side + FRAME))
        else:
            pair = part.subplots(1, 2)
        _draw_grid(pair[0], grid)
        _draw_points(pair[1], tensor)
    _draw_scale(parts[-1].subplots(), scale, ranks, sorted({t.tolerance for t in chosen}))
    _draw_legend(parts[-1], verdicts, columns, ringed=any(len(grid.ringed) for grid in grids))
    return figure


def _chosen(report: Report, names: Sequence[str] | None) -> list[TensorReport]:
    """The tensors to draw, in order."""
    if names is None:
        at_fault = [tensor for tensor in report.tensors.values() if not tensor.ok]
        at_fault.sort(key=_badness, reverse=True)
        chosen = (at_fault or list(report.tensors.values()))[:SHOWN]
    elif isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"tensors is {names!r}; wanted a sequence of names, or None")
    elif unknown := [name for name in names if name not in report.tensors]:
        known = ", ".join(map(repr, report.tensors))
        raise ValueError(f"tensors holds {unknown[0]!r}; the report has {known}")
    else:
        chosen = [report.tensors[name] for name in dict.fromkeys(names)]
    if not chosen:
        raise ValueError("tensors is empty; wanted one name or more, or None for those at fault")
    if any(tensor.arrays is None for tensor in chosen):
        raise ValueError(
            "the report was read back and holds no arrays; plot the one that check returned"
        )
    return chosen


def _badness(tensor: TensorReport) -> tuple[int, float]:
    """The verdict on its worst entry, then how far that is off."""
    error = float(tensor.arrays.errors()[tensor.worst.index]) if tensor.arrays else 0.0
    return ENTRY_VERDICTS.index(tensor.worst.verdict), error


def _arrays(tensor: TensorReport) -> Arrays:
    assert tensor.arrays is not None  # `_chosen` saw to that
    return tensor.arrays


def _shown(text: str) -> str:
    """The text with what cannot be printed, or is in no font at hand, spelt out."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in FontProperties().get_family()]
    shown = text if text and text.isprintable() else repr(text)
    return "".join(
        c if any(font.get_char_index(ord(c)) for font in fonts) else ascii(c)[1:-1] for c in shown
    )


def _wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """The text in lines that fit into a figure so many inches wide."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    text, lines = _shown(text), []
    while text and len(lines) < LINES:

        def length(end: int, text: str = text) -> float:
            return text_to_path.get_text_width_height_descent(text[:end], font, False)[0] / 72

        most = range(1, min(len(text), int(20 * width)) + 1)
        end = max(1, bisect_right(most, width - 0.25, key=length))
        if end < len(text) and (space := text.rfind(" ", 1, end + 1)) > 0:
            end = space
        lines.append(text[:end])
        text = text[end:].lstrip()
    if text:
        lines[-1] = lines[-1][:-2] + "…"
    return lines


def _title(tensor: TensorReport, width: float) -> list[str]:
    """Name, shape and verdict; below them the diagnosis."""
    counts = tensor.counts
    bad = counts["disagree"] + counts["nonfinite"] or counts["unresolved"]
    verdict = WORDS[tensor.verdict] if tensor.ok else f"{WORDS[tensor.verdict]}, {bad} of {tensor.size}"
    lines = _wrapped(f"{_shown(tensor.name)} {tensor.shape}: {verdict}", width, TITLE)
    return lines + (_wrapped(str(tensor.diagnosis), width, TITLE) if tensor.diagnosis else [])


def _head(
    figure: "Figure | SubFigure", lines: list[str], width: float, size: float, weight: str
) -> None:
    figure.suptitle(
        "\n".join(lines), x=0.1 / width, ha="left", fontsize=size, weight=weight,
        parse_math=False, usetex=False,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class _Grid:
    """The cells of a heat map.

    Attributes:
        cells: rank + place on the scale of errors, below 1; NaN where there is no entry.
        steps: entries from a cell to the one on its right, and to the one below.
        labels: of the axes from left to right, and from top to bottom.
        block: what a cell is the worst of; empty where it is one entry.
    """

    cells: FloatArray
    steps: tuple[int, int]
    labels: tuple[str, str]
    block: str

    @property
    def aspect(self) -> float:
        """Height over width: square cells, unless that makes the picture thin."""
        rows, columns = self.cells.shape
        return min(max(rows / columns, 1 / 3), 3.0)

    @property
    def ringed(self) -> FloatArray:
        """The wrong cells, (n, 2), column and row, where they are few among many."""
        wrong = np.argwhere(self.cells >= RANKS[DISAGREE])[:, ::-1] * np.array(self.steps, float)
        few = len(wrong) <= RINGED and max(self.cells.shape) > 25
        return wrong if few else wrong[:0]


def _scale(tensors: Sequence[TensorReport]) -> tuple[int, int]:
    """Log10 of the least and of the greatest error that have shades of their own."""
    tolerances = [math.log10(t.tolerance) for t in tensors if t.tolerance > 0]
    return min([-16, *(math.floor(t - 3) for t in tolerances)]), max(
        [0, *(math.ceil(t + 1) for t in tolerances)]
    )


def _grid(tensor: TensorReport, scale: tuple[int, int], most: int) -> _Grid:
    """The tensor as cells, about `most` a side or fewer."""
    arrays, shape = _arrays(tensor), tensor.shape
    with np.errstate(divide="ignore"):
        places = (np.log10(arrays.errors().ravel()) - scale[0]) / (scale[1] - scale[0])
    # one number, so that a maximum is the worst verdict and, among those, the greatest error
    values = RANKS[arrays.verdicts.ravel()] + np.clip(places, 0.0, 1 - 1 / SHADES)
    matrix = values.reshape(shape[0] if shape else 1, -1)
    if min(matrix.shape) > 1 or values.size <= COLUMN:
        down, across = (math.ceil(length / most) for length in matrix.shape)
        cells, block = _reduced(matrix, down, across), f"{down} × {across}"
        labels = ("column", "row") if len(shape) == 2 else ("other indices, flat", "first index")
    else:
        across = math.ceil(2 * values.size / most**2)
        row, block = _reduced(values[None], 1, across)[0], str(across)
        # round, so that the labels of columns and rows are easily added
        columns = next(
            n for k in range(12) for n in (10**k, 2 * 10**k, 5 * 10**k) if 2 * n * n >= row.size
        )
        down = across * columns
        cells = np.full((math.ceil(row.size / columns), columns), np.nan)
        cells.ravel()[: row.size] = row
        labels = ("plus", "entry")
    reduced = cells.size < values.size
    return _Grid(cells, (across, down), labels, block if reduced else "")


def _reduced(matrix: FloatArray, down: int, across: int) -> FloatArray:
    """The maximum over blocks."""
    rows = np.maximum.reduceat(matrix, np.arange(0, matrix.shape[0], down), axis=0)
    return np.asarray(np.maximum.reduceat(rows, np.arange(0, matrix.shape[1], across), axis=1))


def _show(axes: "Axes", cells: FloatArray, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    at = np.linspace(0, 1, SHADES)
    shades = [LinearSegmentedColormap.from_list("", ramp)(at) for ramp in RAMPS]
    axes.imshow(
        cells, ListedColormap(np.concatenate(shades)), vmin=0, vmax=len(RAMPS), aspect="auto",
        interpolation="nearest", extent=extent,
    )  # fmt: skip
    axes.tick_params(labelsize=SMALL)


def _draw_grid(axes: "Axes", grid: _Grid) -> None:
    from matplotlib.ticker import MaxNLocator

    (rows, columns), (across, down) = grid.cells.shape, grid.steps
    right, bottom = (columns - 0.5) * across, (rows - 0.5) * down
    _show(axes, grid.cells, (-0.5 * across, right, bottom, -0.5 * down))
    if len(grid.ringed):
        axes.scatter(*grid.ringed.T, s=90, facecolors="none", edgecolors="black", clip_on=False)
    axes.set_box_aspect(grid.aspect)
    for axis, label, count in zip(
        (axes.xaxis, axes.yaxis), grid.labels, (columns, rows), strict=True
    ):
        axis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axis.set_label_text(label, fontsize=SMALL)
        axis.set_visible(count > 1)
    worst = f", the worst of {grid.block} a cell" if grid.block else ""
    axes.set_title(f"relative error{worst}", fontsize=SMALL)


def _draw_points(axes: "Axes", tensor: TensorReport) -> None:
    from matplotlib.ticker import MaxNLocator

    arrays, random = _arrays(tensor), np.random.default_rng(0)
    codes = arrays.verdicts.ravel()
    taken = []
    for verdict in range(len(MARKS)):
        at = np.flatnonzero(codes == verdict)
        taken.append(at if at.size <= POINTS else random.choice(at, POINTS, replace=False))
    chosen = np.concatenate(taken)
    pairs = np.stack((arrays.numerical.ravel()[chosen], arrays.analytic.ravel()[chosen]))
    finite = np.abs(pairs[np.isfinite(pairs)])
    largest = float(finite.max(initial=0.0))
    power = math.floor(math.log10(largest)) if largest else 0
    power = 0 if -2 <= power <= 3 else power
    # in two steps: 10^324 is no float; nor does matplotlib draw the largest or the least floats
    pairs = pairs / 10.0 ** (power // 2) / 10.0 ** (power - power // 2)
    values = pairs[np.isfinite(pairs)]
    low, high = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    middle, half = (low + high) / 2, (high - low) / 2
    half = 1.08 * max(half, 0.05 * max(-low, high)) or 1.0
    low, high = middle - half, middle + half
    pairs = np.nan_to_num(pairs, nan=high, posinf=high, neginf=low)
    axes.plot((low, high), (low, high), color="#888888", lw=0.8, zorder=1)
    for (colour, marker, _), at in zip(MARKS, np.split(pairs, np.cumsum([t.size for t in taken])[:-1], axis=1), strict=True):
        axes.scatter(*at, s=22, c=colour, marker=marker, lw=0, alpha=0.8, clip_on=False, zorder=2.5)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_box_aspect(1)
    for axis, label in ((axes.xaxis, "numerical"), (axes.yaxis, "analytic")):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_label_text(label + (f" × 1e{-power}" if power else ""), fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    shown = f"{chosen.size} of {codes.size} entries" if chosen.size < codes.size else "every entry"
    axes.set_title(shown, fontsize=SMALL)


def _draw_scale(
    axes: "Axes", scale: tuple[int, int], ranks: list[int], tolerances: list[float]
) -> None:
    """The shades of the heat maps: a strip for each rank, along one scale of errors."""
    low, high = scale
    _show(
        axes, np.add.outer(ranks, np.arange(SHADES) / SHADES), (low, high, len(ranks) - 0.5, -0.5)
    )
    axes.set_yticks(range(len(ranks)), [STRIPS[rank] for rank in ranks])
    ticks = range(low, high + 1, math.ceil((high - low) / 4))
    axes.set_xticks(ticks, [f"1e{tick}" if tick else "1" for tick in ticks])
    for tolerance in tolerances:
        if tolerance > 0:
            axes.axvline(math.log10(tolerance), color="black", lw=1.2)
    words = "tolerance" if len(tolerances) == 1 else "tolerances"
    axes.set_title(
        f"relative error; line: {words} {', '.join(f'{t:g}' for t in tolerances)}", fontsize=SMALL
    )


def _draw_legend(
    part: "SubFigure", verdicts: Sequence[int], columns: int, *, ringed: bool
) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", markeredgewidth=0, label=words)
        for colour, marker, words in (MARKS[v] for v in verdicts)
    ]
    handles.append(Line2D([], [], color="#888888", lw=0.8, label="analytic = numerical"))
    if ringed:
        handles.append(
            Line2D([], [], color="black", marker="o", mfc="none", ms=9, ls="", label="wrong cell")
        )
    part.legend(
        handles=handles, ncols=columns, fontsize=SMALL, frameon=False, loc="outside lower center"
    )
