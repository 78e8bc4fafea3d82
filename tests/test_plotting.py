"""Report.plot: what it draws, what it refuses, and that nothing degenerate upsets it."""

import dataclasses
import io
import math
import sys
from typing import Any

import numpy as np
import pytest

import fastgc
from fastgc.core.verdict import (  # fmt: skip
    AGREE,
    DISAGREE,
    ENTRY_VERDICTS,
    KINK,
    UNRESOLVED,
    entry_verdicts,
    root_mean_square,
    verdict_of,
    worst_verdict,
)
from fastgc.report.data import Arrays, TensorReport
from fastgc.report.report import Report
from tests.cases import lab_case
from tests.shown import naming
from tests.strategies import slow

pytest.importorskip("matplotlib", reason="needs the extra plot")

RNG = np.random.default_rng(3)


def _tensor(
    name: str, analytic: Any, numerical: Any, *, codes: Any = None, tolerance: float = 2e-7
) -> TensorReport:
    g, found = np.array(analytic, float), np.array(numerical, float)
    none, flat = np.zeros(0), found.ravel()
    if codes is None:
        typical = root_mean_square(flat)
        codes = entry_verdicts(g.ravel(), flat, np.zeros(g.size), typical, tolerance)
    codes = np.array(codes, dtype=np.uint8).reshape(g.shape)
    arrays = Arrays(
        g.shape, None, g, found, np.zeros(g.shape), codes, np.zeros(0, np.intp), (none, none)
    )
    place = int(np.lexsort((arrays.errors().ravel(), codes.ravel()))[-1])
    counts: dict[str, int] = {
        word: int((codes == code).sum()) for code, word in enumerate(ENTRY_VERDICTS)
    }
    return TensorReport(
        name=name, shape=g.shape, verdict=verdict_of(int(codes.max())), difference=0.1,
        worst=arrays.entry(name, place), counts=counts, at_rounding=0, resolution=1e-9,
        tolerance=tolerance, dtype="float64", arrays=arrays,
    )  # fmt: skip


def _report(*tensors: TensorReport) -> Report:
    return Report(
        verdict=worst_verdict(t.verdict for t in tensors), difference=0.1, tolerance=2e-7,
        epsilon=1e-7, method="loop", cost=1.0, noise=0.0, evaluations=3, seconds=0.1,
        tensors={t.name: t for t in tensors},
    )  # fmt: skip


def _drawn(report: Report, **options: Any) -> Any:
    """The figure, once it was written as a PNG of the right size."""
    figure = report.plot(**options)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=50)
    png = stream.getvalue()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    assert pixels == pytest.approx(figure.get_size_inches() * 50, abs=1)
    return figure


def _titles(figure: Any) -> list[str]:
    """Of the tensors."""
    return [part.get_suptitle() for part in figure.subfigs[:-1]]


def _cells(figure: Any, tensor: int = 0) -> Any:
    return figure.subfigs[tensor].axes[0].images[0].get_array()


def _colour(cell: float) -> Any:
    """That a cell of a heat map has, as RGBA bytes."""
    report = _report(_tensor("w", 2.0, 1.0))
    image = report.plot().subfigs[0].axes[0].images[0]
    return image.to_rgba(np.array(cell), bytes=True)


@pytest.fixture(scope="module")
def wrong() -> Report:
    X, Y, parameters, _, faulty = lab_case()
    return fastgc.check(fastgc.Network(X, Y), parameters, faulty)


def test_those_at_fault_worst_first(wrong: Report) -> None:
    figure = _drawn(wrong)
    assert figure.get_suptitle() == str(wrong).splitlines()[0]
    assert [title.split()[0] for title in _titles(figure)] == ["b1", "W2"]
    assert _titles(figure)[1].startswith("W2 (3, 5): wrong, 4 of 15\n2.000 ×")
    assert [len(part.axes) for part in figure.subfigs] == [2, 2, 1]
    assert _cells(figure, 1).shape == (3, 5)


def test_wrong_before_what_cannot_be_told() -> None:
    unsure = _tensor("unsure", [1.0, 2.0], [1.1, 2.0], codes=[UNRESOLVED, AGREE])
    figure = _report(_tensor("right", 1.0, 1.0), unsure, _tensor("off", 1.0, 2.0)).plot()
    assert [title.split()[0] for title in _titles(figure)] == ["off", "unsure"]


def test_six_at_most_unless_named() -> None:
    right = _report(*[_tensor(f"p{i}", 1.0, 1.0) for i in range(8)])
    assert [title.split()[0] for title in _titles(right.plot())] == [f"p{i}" for i in range(6)]
    names = ["p7", "p0", "p7"]
    assert [t.split()[0] for t in _titles(right.plot(tensors=names))] == ["p7", "p0"]
    assert len(_titles(right.plot(tensors=[f"p{i}" for i in range(8)]))) == 8


@pytest.mark.parametrize("width", [2, 5])
def test_beside_each_other_or_below(wrong: Report, width: float) -> None:
    figure = _drawn(wrong, width=width)
    assert figure.get_figwidth() == width
    errors, points = (axes.get_position() for axes in figure.subfigs[0].axes)
    assert (errors.y0 > points.y1) == (width < 5)
    assert (errors.x1 < points.x0) == (width >= 5)


@pytest.mark.parametrize("width", [3.5, 8.0])
def test_nothing_is_clipped_small_or_overlapping(wrong: Report, width: float) -> None:
    from matplotlib.text import Text

    figure = _drawn(wrong, tensors=["W1", "b1"], width=width)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 8
    boxes = [figure.texts[0].get_window_extent()]
    for part in figure.subfigs:
        boxes.append(part.texts[0].get_window_extent())
        boxes += [axes.get_tightbbox() for axes in part.axes]
        boxes += [legend.get_window_extent() for legend in part.legends]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_shapes() -> None:
    shapes = {
        (): (1, 1), (3,): (3, 1), (1, 3): (1, 3), (4, 3, 5): (4, 15), (2, 1, 1, 1): (2, 1),
        (512, 1): (26, 20), (1, 512): (26, 20), (512,): (26, 20), (300, 40): (150, 40),
    }  # fmt: skip
    tensors = []
    for shape in shapes:
        found = RNG.standard_normal(shape)
        tensors.append(_tensor(str(shape), 2 * found, found))
    report = _report(*tensors)
    figure = report.plot(tensors=list(report.tensors))
    assert [_cells(figure, t).shape for t in range(len(shapes))] == list(shapes.values())
    assert np.ma.count(_cells(figure, 5)) == 512


@pytest.mark.parametrize(
    ("shape", "width"),
    [((1000, 1000), 3.5), slow((1000, 1000), 8), slow((1000000,), 3.5)],
)
def test_a_single_wrong_entry_stays_visible(shape: tuple[int, ...], width: float) -> None:
    found = RNG.standard_normal(shape)
    analytic = found.copy()
    analytic.flat[567890] += 1e-5
    figure: Any = _report(_tensor("W", analytic, found)).plot(width=width)
    cells = _cells(figure)
    assert max(cells.shape) <= 250
    assert (cells >= DISAGREE).sum() == 1
    errors, points = figure.subfigs[0].axes
    assert len(errors.collections[0].get_offsets()) == 1  # ringed
    shown = [len(group.get_offsets()) for group in points.collections]
    assert shown == [1000, 0, 0, 1, 0]
    figure.savefig(stream := io.BytesIO(), format="rgba", dpi=100)
    pixels = np.frombuffer(stream.getvalue(), np.uint8).reshape(-1, 4).astype(int)
    assert (pixels == _colour(cells.max())).all(axis=1).any()


def test_points() -> None:
    codes = [AGREE, KINK, UNRESOLVED, DISAGREE, 4, 4]
    analytic = [1.0, 2.0, 3.0, 9.0, math.nan, -math.inf]
    tensor = _tensor("w", analytic, [1.0, 2.5, 3.5, 4.0, 5.0, 6.0], codes=codes)
    figure = _drawn(_report(tensor))
    points = figure.subfigs[0].axes[1]
    assert points.get_xlim() == points.get_ylim()
    assert [len(group.get_offsets()) for group in points.collections] == [1, 1, 1, 1, 2]
    low, high = points.get_xlim()
    np.testing.assert_allclose(points.collections[4].get_offsets(), [[5, high], [6, low]])
    words = [text.get_text() for text in figure.subfigs[-1].legends[0].get_texts()]
    assert words == [
        "agrees", "at a kink", "cannot tell", "disagrees", "not finite: at the edge",
        "analytic = numerical",
    ]  # fmt: skip


def test_the_same_picture_every_time() -> None:
    found = RNG.standard_normal(5000)
    report = _report(_tensor("w", found * np.where(found > 0, 1, 2), found))
    state = str(np.random.get_state())
    streams = [io.BytesIO(), io.BytesIO()]
    for stream in streams:
        report.plot().savefig(stream, format="png", dpi=50)
    assert streams[0].getvalue() == streams[1].getvalue()
    assert str(np.random.get_state()) == state


def test_tolerances_are_marked() -> None:
    single = _tensor("a", [1.0, 2.0], [1.0, 2.00001], tolerance=1e-4)
    report = _report(single, _tensor("b", 1.0, 2.0), _tensor("c", 1.0, 2.0, tolerance=0.0))
    figure = report.plot(tensors=["a", "b", "c"])
    assert figure.subfigs[-1].get_suptitle() == "relative error; line: tolerance 2e-07, 0.0001"
    exact = _drawn(report, tensors=["c"])
    assert exact.subfigs[-1].get_suptitle() == "relative error"
    for tolerance in (5e-324, 1e308):
        _drawn(_report(_tensor("a", [1.0, 2.0], [1.0, 2.5], tolerance=tolerance)))


NAMES = {
    r"$\alpha_{1}$": r"$\alpha_{1}$", "a_b^$": "a_b^$",
    "a\nb": r"'a\nb'", "\x1b[31m": r"'\x1b[31m'", "": "''", "权重": r"\u6743\u91cd",
    "\ud800": r"'\ud800'", "θ": "θ",
}  # fmt: skip


def test_names_are_shown_literally() -> None:
    from matplotlib.text import Text

    report = _report(*[_tensor(name, 2.0, 1.0) for name in NAMES])
    figure = _drawn(report, tensors=list(NAMES))
    assert _titles(figure) == [f"{name} (): wrong, 1 of 1" for name in NAMES.values()]
    named = [text for text in figure.findobj(Text) if "wrong" in text.get_text()]
    assert len(named) == len(NAMES) + 1
    assert not any(text.get_parse_math() for text in named)


@pytest.mark.parametrize("name", ["layer_" * 200, "a word " * 200])
def test_long_names_are_wrapped(name: str) -> None:
    figure = _drawn(_report(_tensor(name, 2.0, 1.0)), width=3.5)
    lines = _titles(figure)[0].splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("…")
    assert figure.get_suptitle().count("\n") == 4


NAN, INF, LARGEST = math.nan, math.inf, sys.float_info.max
DEGENERATE = {
    "all zero": ([0.0, 0.0], [0.0, 0.0]), "all NaN": ([NAN] * 3, [NAN] * 3), "one zero": (0.0, 0.0),
    "one": (3.0, 3.0), "one NaN": (NAN, 1.0), "the same": ([2.0] * 4, [2.0] * 4),
    "huge": ([1e300, -LARGEST], [1e300, LARGEST]), "tiny": ([1e-300, 5e-324], [2e-300, 5e-324]),
    "all sizes": ([1e300, 1e-300, 0.0], [1e300, 0.0, 1.0]),
    "inf": ([INF, -INF, 1.0], [1.0, NAN, -INF]),
    "close": ([1.0, 1.0 + 1e-15], [1.0, 1.0]), "negative": ([-1e-7], [-3e-7]),
}  # fmt: skip


def test_degenerate_tensors() -> None:
    report = _report(*[_tensor(name, *pair) for name, pair in DEGENERATE.items()])
    figure = _drawn(report, tensors=list(DEGENERATE))
    for part in figure.subfigs[:-1]:
        points = part.axes[1]
        low, high = points.get_xlim()
        assert low < high
        assert points.get_ylim() == (low, high)
        for group in points.collections:
            offsets = np.asarray(group.get_offsets())
            assert ((low <= offsets) & (offsets <= high)).all()


@pytest.mark.parametrize("name", ["all zero", "all NaN", "one"])
def test_degenerate_reports(name: str) -> None:
    _drawn(_report(_tensor(name, *DEGENERATE[name])), width=3.5)


def test_no_global_state(wrong: Report) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    _drawn(wrong, tensors=["W3"])
    assert (dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tensors": ["W9"]}, ValueError, "tensors … 'W9' … 'W1', 'b1', 'W2', 'b2'"),
        ({"tensors": []}, ValueError, "tensors is empty"),
        ({"tensors": "W1"}, TypeError, "tensors is 'W1'"),
        ({"tensors": 3}, TypeError, "tensors is 3"),
        ({"width": 0}, ValueError, "width is 0"),
        ({"width": 1e9}, ValueError, "width is 1e+09"),
        ({"width": -1}, ValueError, "width is -1"),
        ({"width": math.nan}, ValueError, "width is nan"),
        ({"width": math.inf}, ValueError, "width is inf"),
        ({"width": "8"}, TypeError, "width is '8'"),
        ({"width": None}, TypeError, "width is None"),
        ({"width": True}, TypeError, "width is True"),
    ],
)  # fmt: skip
def test_what_is_refused(
    wrong: Report, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=naming(message)):
        wrong.plot(**options)


def test_a_report_read_back_is_refused(wrong: Report) -> None:
    tensors = {name: dataclasses.replace(t, arrays=None) for name, t in wrong.tensors.items()}
    back = dataclasses.replace(wrong, tensors=tensors)
    for names in (None, ["W1"]):
        with pytest.raises(ValueError, match="read back"):
            back.plot(tensors=names)


def test_without_matplotlib(wrong: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        wrong.plot()


def test_a_sample_is_drawn() -> None:
    theta = np.ones((30, 40))
    gradients = 2 * theta
    gradients[3] = 1.0
    report = fastgc.check(lambda w: float((w**2).sum()), theta, gradients, sample=100)
    assert any("cannot" not in title and "wrong" in title for title in _titles(_drawn(report)))
