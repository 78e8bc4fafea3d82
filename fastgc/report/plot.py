"""The picture of a Report: where the errors of each tensor lie, and analytic against numerical."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgc.core.tree import FloatArray
from fastgc.core.verdict import DISAGREE
from fastgc.options import require_number
from fastgc.report.data import Arrays, Contents, TensorReport
from fastgc.report.text import by_fault, headline, verdict_cell

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

# Of each entry verdict: words; shades of a cell, from the least error to the greatest, light where
# it passes and dark where it fails, so that grey prints tell too; a point's colour and marker.
LOOKS = (
    ("agrees", "#e6eff8", "#8fb8d8", "#0072b2", "o"),
    ("at a kink", "#e6f4ea", "#86c79b", "#009e73", "^"),
    ("cannot tell", "#f0cfe4", "#a5588f", "#cc79a7", "D"),
    ("disagrees", "#f29a45", "#7f0d14", "#d55e00", "s"),
    ("not finite", "#000000", "#000000", "#000000", "X"),
)


def plot(report: Contents, tensors: Sequence[str] | None, width: float) -> "Figure":
    """The figure that `Report.plot` returns."""
    chosen = _chosen(report, tensors)
    arrays = [tensor.arrays for tensor in chosen if tensor.arrays is not None]
    if report.estimate is not None:
        raise ValueError(
            'random directions leave no entries to draw; check with another method, or "only" or '
            "sample= of a few"
        )
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
        advice = 'report.plot() needs matplotlib; pip install "fastgc[plot]"'
        raise ModuleNotFoundError(advice, name="matplotlib") from error

    narrow = width < NARROW
    across, side = (share * width - FRAME for share in ((1, 1) if narrow else (0.58, 0.42)))
    tolerances = sorted({tensor.tolerance for tensor in chosen} - {0.0})
    logs = [math.log10(tolerance) for tolerance in tolerances]
    scale = min([-16, *(math.floor(t - 3) for t in logs)]), max([0, *map(math.ceil, logs)])
    grids = [_grid(a, scale, min(CELLS, int(60 * side))) for a in arrays]
    verdicts = sorted({int(v) for a in arrays for v in np.unique(a.verdicts)})

    head = _wrapped([headline(report)], width, HEADING, "bold")
    titles = []
    for tensor in chosen:
        texts = [f"{_shown(tensor.name)} {tensor.shape}: {verdict_cell(tensor)}"]
        texts += [str(tensor.diagnosis)] if tensor.diagnosis else []
        titles.append(_wrapped(texts, width, TITLE))
    lines = f"; line: tolerance {', '.join(f'{t:g}' for t in tolerances)}" if logs else ""
    titles.append(_wrapped([f"relative error{lines}"], width, TITLE))
    columns = max(1, int(width / 1.7))  # of the legend
    maps = [min(across * grid.aspect, side, 0.6 * len(grid.cells)) + FRAME for grid in grids]
    heights = [height * narrow + side + FRAME for height in maps]
    heights.append(0.17 * len(verdicts) + 0.55 + 0.2 * math.ceil((len(verdicts) + 2) / columns))
    heights = [h + LINE * TITLE * len(t) + 0.15 for h, t in zip(heights, titles, strict=True)]

    figure = Figure(figsize=(width, sum(heights) + LINE * HEADING * len(head) + 0.1))
    figure.set_layout_engine("constrained", h_pad=0.06, hspace=0.04)
    text = {"x": 0.1 / width, "ha": "left", "parse_math": False, "usetex": False}
    figure.suptitle("\n".join(head), fontsize=HEADING, weight="bold", **text)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    for part, title in zip(parts, titles, strict=True):
        part.suptitle("\n".join(title), fontsize=TITLE, **text)
    ringed = False
    for part, height, grid, a in zip(parts, maps, grids, arrays, strict=False):
        sizes = (height if narrow else across + FRAME, side + FRAME)
        ratios = {"height_ratios" if narrow else "width_ratios": sizes}
        left, right = part.subplots(1 + narrow, 2 - narrow, **ratios)
        ringed |= _draw_grid(left, grid)
        _draw_points(right, a)
    _draw_scale(parts[-1].subplots(), scale, verdicts, logs, 2 if width < 3 else 4)
    _draw_legend(parts[-1], verdicts, columns, ringed=ringed)
    return figure


def _chosen(report: Contents, names: Sequence[str] | None) -> list[TensorReport]:
    """The tensors to draw, in order."""
    if names is None:
        at_fault = [tensor for tensor in by_fault(report) if not tensor.ok]
        return (at_fault or list(report.tensors.values()))[:SHOWN]
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
    known = {c for c in set(shown) if any(font.get_char_index(ord(c)) for font in fonts)}
    return "".join(c if c in known else ascii(c)[1:-1] for c in shown)


def _wrapped(texts: Sequence[str], width: float, size: float, weight: str = "normal") -> list[str]:
    """Each text in lines that fit into a figure so many inches wide."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font, lines = FontProperties(size=size, weight=weight), list[str]()

    def inches(line: str) -> float:
        return float(text_to_path.get_text_width_height_descent(line, font, False)[0]) / 72

    for rest in map(_shown, texts):
        for more in reversed(range(LINES)):
            starts = [rest[:n] for n in range(1, min(len(rest), int(20 * width)) + 1)]
            end = max(1, bisect_right(starts, width - 0.25, key=inches))
            if end == len(rest):
                lines.append(rest)
                break
            end = max(rest.rfind(" ", 1, end + 1), 0) or end
            lines.append(rest[:end] if more else rest[: end - 2] + "…")
            rest = rest[end:].lstrip()
    return lines


class _Grid(NamedTuple):
    """A heat map."""

    cells: FloatArray  # verdict + place on the scale of errors, below 1; NaN for no entry
    steps: tuple[int, int]  # entries from a cell to the one on its right, and to the one below
    labels: tuple[str, str]  # of the axes from left to right, and from top to bottom
    title: str
    aspect: float  # height over width: square cells, unless that makes the picture thin


def _grid(arrays: Arrays, scale: tuple[int, int], most: int) -> _Grid:
    """The tensor as cells, about `most` a side or fewer."""
    shape, size = arrays.verdicts.shape, arrays.verdicts.size
    with np.errstate(divide="ignore"):
        places = (np.log10(arrays.errors()) - scale[0]) / (scale[1] - scale[0])
    # one number, so that a maximum is the worst verdict and, among those, the greatest error
    values = np.clip(places, 0.0, 1 - 1 / SHADES) + arrays.verdicts.astype(np.float64)
    matrix = values.reshape(shape[0] if shape else 1, -1)
    if min(matrix.shape) > 1 or size <= COLUMN:
        down, across = (math.ceil(length / most) for length in matrix.shape)
        cells, block = _reduced(matrix, down, across), f"{down} × {across}"
        labels = ("column", "row" if len(shape) == 2 else "index")
        labels = labels if len(shape) < 3 else ("other indices, flat", "first index")
    else:
        across = math.ceil(2 * size / most**2)
        row, block = _reduced(matrix.reshape(1, -1), 1, across)[0], str(across)
        # round, so that the labels of columns and rows are easily added
        round_numbers = (n * 10**k for k in range(12) for n in (1, 2, 5))
        columns = next(n for n in round_numbers if 2 * n * n >= row.size)
        cells = np.full((math.ceil(row.size / columns), columns), np.nan)
        cells.ravel()[: row.size] = row
        down, labels = across * columns, ("+ offset", "index")
    note = f", the worst of {block} a cell" if np.isfinite(cells).sum() < size else ""
    aspect = min(max(cells.shape[0] / cells.shape[1], 1 / 3), 3.0)
    return _Grid(cells, (across, down), labels, f"relative error{note}", aspect)


def _reduced(matrix: FloatArray, down: int, across: int) -> FloatArray:
    """The maximum over blocks."""
    rows = np.maximum.reduceat(matrix, np.arange(0, matrix.shape[0], down), axis=0)
    return np.asarray(np.maximum.reduceat(rows, np.arange(0, matrix.shape[1], across), axis=1))


def _show(axes: "Axes", cells: FloatArray, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    at = np.linspace(0, 1, SHADES)
    shades = [LinearSegmentedColormap.from_list("", look[1:3])(at) for look in LOOKS]
    colours = ListedColormap(np.concatenate(shades))
    image = axes.imshow(cells, colours, aspect="auto", interpolation="nearest", extent=extent)
    image.set_clim(0, len(LOOKS))


def _label(axes: "Axes", x: str, y: str, title: str, *, integer: bool) -> None:
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.set_title(title, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.locator_params(nbins=6, steps=(1, 2, 5, 10), integer=integer, min_n_ticks=1)


def _draw_grid(axes: "Axes", grid: _Grid) -> bool:
    """Whether wrong cells were ringed, as they are where they are few among many."""
    (rows, columns), (across, down) = grid.cells.shape, grid.steps
    right, bottom = (columns - 0.5) * across, (rows - 0.5) * down
    _show(axes, grid.cells, (-0.5 * across, right, bottom, -0.5 * down))
    y, x = np.nonzero(grid.cells >= DISAGREE)
    ringed = 0 < x.size <= RINGED and max(rows, columns) > 25
    if ringed:
        axes.scatter(x * across, y * down, s=90, fc="none", ec="black", clip_on=False)
    axes.set(box_aspect=grid.aspect, anchor="N")
    _label(axes, *grid.labels, grid.title, integer=True)
    axes.xaxis.set_visible(columns > 1)
    axes.yaxis.set_visible(rows > 1)
    return ringed


def _draw_points(axes: "Axes", arrays: Arrays) -> None:
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
    for (*_, c, marker), (x, y) in zip(LOOKS, np.split(pairs, ends, axis=1), strict=True):
        axes.scatter(x, y, 26, c, marker=marker, lw=0, alpha=0.8, clip_on=False, zorder=2.5)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    unit = f" / 1e{power}" if power else ""
    some = f"{shown.size} of {verdicts.size}" if shown.size < verdicts.size else "all"
    _label(axes, f"numerical{unit}", f"analytic{unit}", f"{some} entries", integer=False)


def _draw_scale(
    axes: "Axes", scale: tuple[int, int], verdicts: list[int], lines: list[float], parts: int
) -> None:
    """A strip of shades for each verdict, along one scale of errors."""
    strips = np.add.outer(verdicts, np.arange(SHADES) / SHADES)
    _show(axes, strips, (*scale, len(verdicts) - 0.5, -0.5))
    axes.set_yticks(range(len(verdicts)), [LOOKS[v][0] for v in verdicts])
    ticks = range(scale[0], scale[1] + 1, math.ceil((scale[1] - scale[0]) / parts))
    labels = [f"1e{tick}" if tick else "1" for tick in ticks]
    axes.set_xticks(ticks, [f"≤ {labels[0]}", *labels[1:]])
    axes.tick_params(labelsize=SMALL)
    axes.vlines(lines, -0.5, len(verdicts) - 0.5, color="black", lw=1.2)


def _draw_legend(part: "SubFigure", verdicts: list[int], columns: int, *, ringed: bool) -> None:
    from matplotlib.lines import Line2D

    lines = []
    for words, _, _, colour, marker in (LOOKS[v] for v in verdicts):
        label = f"{words}: at the edge" if marker == "X" else words
        lines.append(Line2D([], [], c=colour, marker=marker, ls="", mew=0, label=label))
    lines.append(Line2D([], [], c="#888888", lw=0.8, label="analytic = numerical"))
    if ringed:
        lines.append(Line2D([], [], c="k", marker="o", mfc="none", ms=9, ls="", label="wrong cell"))
    style = {"ncols": columns, "fontsize": SMALL, "frameon": False}
    part.legend(handles=lines, loc="outside lower center", **style)
