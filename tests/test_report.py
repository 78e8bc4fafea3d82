"""Report: what it says, how it prints, and what a program gets of it."""

import dataclasses
import io
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fastgc
from tests.cases import lab_case
from tests.shown import says


@pytest.fixture
def reports() -> tuple[fastgc.Report, fastgc.Report]:
    X, Y, parameters, right, faulty = lab_case()
    net = fastgc.Network(X, Y)
    return fastgc.check(net, parameters, faulty), fastgc.check(net, parameters, right)


def test_a_wrong_report(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    wrong, _ = reports
    assert wrong.verdict == "wrong"
    assert not wrong.ok
    assert not wrong
    W2 = wrong.tensors["W2"]
    assert W2.shape == (3, 5)
    assert W2.verdict == "wrong"
    assert not W2.ok
    assert W2.difference == pytest.approx(1 / 3, rel=1e-6)
    assert W2.worst.name == f"W2[{W2.worst.index[0]}, {W2.worst.index[1]}]"
    assert W2.worst.analytic == pytest.approx(2 * W2.worst.numerical, rel=1e-6)
    assert W2.worst.verdict == "disagree"
    assert sum(W2.counts.values()) == 15
    assert wrong.tensors["b1"].difference == pytest.approx(3 / 5, rel=1e-6)


def test_the_worst_entry_is_the_worst() -> None:
    w = np.zeros((2, 3))
    gradients = np.ones((2, 3))
    gradients[0, 1], gradients[1, 2] = 1.5, 3.0
    worst = fastgc.check(lambda w: float(w.sum()), w, gradients).tensors["parameters"].worst
    assert (worst.name, worst.index, worst.analytic) == ("parameters[1, 2]", (1, 2), 3.0)
    gradients[0, 0] = math.nan
    worst = fastgc.check(lambda w: float(w.sum()), w, gradients).tensors["parameters"].worst
    assert (worst.name, worst.verdict) == ("parameters[0, 0]", "nonfinite")


def test_text_of_a_wrong_report(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    lines = str(reports[0]).splitlines()
    wanted = ("wrong: b1 and W2 (8 of 20 entries) ", "b2 … dZ2 … dW2", "W1 … dZ1 … db1",
              "  b1: 4.000 ×", "  W2: 2.000 ×")  # fmt: skip
    assert all(map(says, lines, wanted))
    assert lines[6].split() == [
        "tensor", "worst", "entry", "analytic", "numerical", "ratio", "difference", "verdict"
    ]  # fmt: skip
    # the tensors at fault first, worst first
    assert [line.split()[0] for line in lines[7:13]] == ["b1", "W2", "W1", "b2", "W3", "b3"]
    assert re.fullmatch(r"W2 +W2\[.*  2\.0000 +3\.33e-01  wrong, 4 of 15", lines[8])
    assert lines[9].endswith("correct")
    assert lines[14] == "difference 0.285093, cost 2.40783"
    assert lines[15] == "tolerance 2e-07 for each entry"
    assert lines[16].startswith("method incremental, epsilon 9.09495e-13, 112 evaluations in ")
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)


def test_text_of_a_correct_report(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    first = str(reports[1]).splitlines()[0]
    assert first.startswith("correct: 47 entries of W1, b1, W2, b2, W3 and b3 agree")


def test_text_of_one_entry_and_of_many_tensors() -> None:
    one = fastgc.check(lambda t: t**2, 3.0, 6.0)
    assert str(one).startswith("correct: 1 entry of parameters agrees")
    names = [f"p{i}" for i in range(9)]
    many = fastgc.check(
        lambda p: sum(p.values()), dict.fromkeys(names, 1.0), dict.fromkeys(names, 2.0)
    )
    names_shown = "p0, p1, p2, p3, p4, p5 and 3 more"
    assert says(many, f"wrong: {names_shown} (9 of 9 entries) … \n  {names_shown}: 2.000 ×")


def test_text_of_nonfinite_gradients() -> None:
    report = fastgc.check(lambda w: float(w.sum()), np.ones(3), np.array([1.0, math.nan, 2.0]))
    assert "wrong, 2 of 3 (1 not finite)\n" in str(report)
    assert says(report, "\n  parameters: … parameters[1] is nan\n")
    assert math.isnan(report.difference)


def test_names_with_brackets_are_no_markup() -> None:
    report = fastgc.check(
        lambda p: p["[red]x[/red]"] * 2, {"[red]x[/red]": 1.0}, {"[red]x[/red]": 2.0}
    )
    assert "[red]x[/red]" in str(report).splitlines()[3]


def test_names_with_control_codes_are_spelt_out() -> None:
    for name, shown in (("a\nb", "'a\\nb'"), ("\x1b[31m", "'\\x1b[31m'"), ("", "''")):
        report = fastgc.check(lambda p: sum(p.values()) * 2.0, {name: 1.0}, {name: 2.0})
        assert str(report).startswith(f"correct: 1 entry of {shown} agrees")
        assert len(str(report).splitlines()) == 8


def test_text_has_no_control_codes(
    reports: tuple[fastgc.Report, fastgc.Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "20")):
        monkeypatch.setenv(name, value)
    assert "\x1b" not in str(reports[0])
    assert len(str(reports[0]).splitlines()) == 17


def test_a_terminal_gets_colour_and_every_digit(
    reports: tuple[fastgc.Report, fastgc.Report],
) -> None:
    for width in (40, 60, 80, 120):
        stream = io.StringIO()
        Console(file=stream, force_terminal=True, width=width, color_system="standard").print(
            reports[0]
        )
        text = stream.getvalue()
        assert "\x1b[1;31mwrong" in text
        assert "…" not in text


def test_reports_are_frozen(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="verdict"):
        reports[0].verdict = "correct"  # type: ignore[misc]  # the mistake under test


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(k) is str and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return type(value) in (str, int, float, bool, type(None))


def test_to_dict_is_plain_json(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    for report in reports:
        data = report.to_dict()
        assert _is_plain(data)
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["ok"] is report.ok
        assert list(data["tensors"]) == list(report.tensors)
        assert data["tensors"]["W2"]["shape"] == [3, 5]
        assert data["tensors"]["W2"]["worst"]["index"] == list(report.tensors["W2"].worst.index)


def test_to_dict_spells_out_what_json_lacks() -> None:
    report = fastgc.check(
        lambda w: float(w[1:].sum()),
        np.array([1e17, 1.0, 1.0]),
        np.array([0.0, math.inf, 1.0]),
    )
    data = report.to_dict()
    assert _is_plain(data)
    json.dumps(data, allow_nan=False)
    assert data["difference"] == "nan"
    assert data["tensors"]["parameters"]["worst"]["analytic"] == "inf"


def test_scalar_types_of_a_report(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    for field, kind in (
        ("difference", float), ("tolerance", float), ("epsilon", float), ("cost", float),
        ("evaluations", int), ("seconds", float), ("method", str), ("verdict", str),
    ):  # fmt: skip
        assert type(getattr(reports[0], field)) is kind
    assert reports[0].method == "incremental"
    assert reports[0].epsilon == 2.0**-40
    assert reports[0].tolerance == 2e-7
    assert reports[0].seconds > 0


def test_resolution_is_relative_to_the_gradient() -> None:
    def cost(w: Any) -> float:
        return float(1e5 + (w**2).sum())

    w = np.array([0.35, 0.82])
    report = fastgc.check(cost, w, 2 * w * 1.0001)
    assert report.ok
    assert 1e-5 < report.tensors["parameters"].resolution < 1e-3
    assert re.match(r"correct: 2 entries of parameters .* to within \de-04\b", str(report))
    strict = fastgc.check(lambda w: float((w**2).sum()), w, 2 * w, tolerance=0.0)
    assert re.search(r" to within \de-\d\d\b", str(strict))


def test_cannot_tell_says_what_to_try() -> None:
    def cost(w: Any) -> float:
        return float(np.sum(np.sin(w.astype(np.float32))))

    w = np.linspace(0.1, 1, 20)
    text = str(fastgc.check(cost, w, np.cos(w)))  # the longer steps have been taken
    assert "epsilon=" not in text
    assert re.search(r"\nsteps of up to 0\.\d+ in parameters", text)
    hopeless = fastgc.check(lambda w: 1.0 + 1e-30 * float(w), 1.0, 1e-30)
    assert hopeless.verdict == "unresolved"
    assert "float64?" in str(hopeless)
    hopeless = fastgc.check(lambda w: 1.0 + 1e-30 * float(w), 1.0, 1e-30, epsilon=1e-3)
    assert "\ncompute the cost in float64; that of a fastgc.Network has no" in str(hopeless)


def test_kinks_are_counted_and_shown() -> None:
    w = np.array([0.0, 1.0, -1.0])
    report = fastgc.check(lambda w: float(np.maximum(w, 0).sum()), w, (w > 0) * 1.0)
    assert report.ok
    assert report.tensors["parameters"].counts["kink"] == 1
    assert "correct, 1 at kinks\n" in str(report)


def test_the_worst_entries(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    worst = reports[0].worst(8)
    assert all(entry.verdict == "disagree" for entry in worst)
    assert {entry.name.split("[")[0] for entry in worst} == {"b1", "W2"}
    assert worst[0].name.startswith("b1[")  # 4 × is further off than 2 ×
    assert worst[0].ratio == pytest.approx(4.0)
    assert reports[0].worst(9)[8].verdict == "agree"
    assert len(reports[0].worst(1000)) == 47
    assert len(reports[0].worst()) == 10
    with pytest.raises(ValueError, match="n is 0"):
        reports[0].worst(0)
    with pytest.raises(TypeError, match=r"n is 2\.5"):
        reports[0].worst(2.5)  # type: ignore[arg-type]  # the mistake under test


def test_ratios() -> None:
    def ratio(analytic: float, numerical: float) -> float:
        return fastgc.Entry("w", (), analytic, numerical, 0.0, "disagree").ratio

    assert ratio(3.0, -1.5) == -2.0
    assert ratio(-2.0, 0.0) == -math.inf
    assert math.isnan(ratio(0.0, 0.0))


def test_slopes_of_entries_in_dispute(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    w = np.array([0.0, 1.0])
    report = fastgc.check(lambda w: float(np.abs(w).sum()), w, np.array([2.0, 1.0]))
    assert report.verdict == "wrong"
    entry = report.worst(1)[0]
    assert entry.slopes is not None
    assert entry.slopes == pytest.approx((-1.0, 1.0), abs=1e-6)
    table = str(report).splitlines()[3:5]
    assert "slopes" in table[0].split()
    assert "-1 to 1" in table[1]
    assert "slopes" not in str(reports[0])  # nowhere apart
    assert report.tensors["parameters"].arrays is not None
    assert report.tensors["parameters"].arrays.entry("parameters", 1).slopes is None


def test_a_report_comes_back_from_a_dict(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    nan = fastgc.check(lambda w: float(w.sum()), np.ones(3), np.array([1.0, math.nan, 1.0]))
    kink = fastgc.check(lambda w: float(np.abs(w).sum()), np.zeros(2), np.zeros(2))
    for report in (*reports, kink):
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        again = fastgc.Report.from_dict(data)
        assert again == report
        assert str(again) == str(report)
        assert again.to_dict() == data
    again = fastgc.Report.from_dict(nan.to_dict())
    assert again.to_dict() == nan.to_dict()  # NaN equals nothing, in a report too
    assert str(again) == str(nan)
    assert [e.name for e in again.worst(3)] == ["parameters[1]"]


def test_keys_in_order(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    data = reports[0].to_dict()
    assert list(data)[:4] == ["schema", "verdict", "ok", "difference"]
    assert list(data)[-1] == "tensors"
    assert list(data["tensors"]["W2"]) == [
        "shape", "verdict", "ok", "difference", "worst", "counts", "at_rounding", "resolution",
        "tolerance", "dtype", "diagnosis", "estimate", "located", "epsilon", "zeros", "zero_within",
    ]  # fmt: skip
    assert list(data["tensors"]["W2"]["worst"]) == [
        "name", "index", "analytic", "numerical", "uncertainty", "verdict", "slopes"
    ]  # fmt: skip


def test_reports_of_before_some_keys_are_read(
    reports: tuple[fastgc.Report, fastgc.Report],
) -> None:
    data = reports[1].to_dict()
    for key in ("scope", "estimate", "unit"):
        del data[key]
    for tensor in data["tensors"].values():
        for key in ("estimate", "located", "epsilon", "zeros", "zero_within"):
            del tensor[key]
    again = fastgc.Report.from_dict(data)
    assert (again.scope, again.estimate, again.unit) == (None, None, "evaluations")
    tensor = again.tensors["W1"]
    assert (tensor.estimate, tensor.located, tensor.epsilon) == (None, (), None)
    assert (tensor.zeros, tensor.zero_within) == (0, 0.0)


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: value for k, value in data.items() if k != key}


def in_W1(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**data, "tensors": {**data["tensors"], "W1": {**data["tensors"]["W1"], **changes}}}


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (lambda d: [], TypeError, "the report is a list"),
        (lambda d: {**d, "schema": 99}, ValueError, "schema 99"),
        (lambda d: without(d, "schema"), ValueError, '"schema"'),
        (lambda d: without(d, "method"), ValueError, '"method"'),
        (lambda d: without(d, "epsilon"), ValueError, '"epsilon"'),
        (lambda d: {**d, "verdict": "fine"}, ValueError, "\"verdict\": 'fine'"),
        (lambda d: {**d, "difference": "much"}, ValueError, "\"difference\": 'much'"),
        (lambda d: {**d, "evaluations": math.nan}, ValueError, '"evaluations": nan'),
        (lambda d: {**d, "method": 3}, ValueError, '"method": 3'),
        (lambda d: {**d, "estimate": {"low": 1}}, ValueError, 'the report.estimate has no "directions"'),
        (lambda d: {**d, "tensors": []}, ValueError, '"tensors": []'),
        (lambda d: {**d, "tensors": {"W1": 3}}, TypeError, 'tensors["W1"]'),
        (lambda d: in_W1(d, worst={}), ValueError, 'tensors["W1"].worst has no "name"'),
        (lambda d: in_W1(d, shape=["3"]), ValueError, 'tensors["W1"] has "shape"'),
        (lambda d: in_W1(d, counts={"agree": None}), ValueError, 'tensors["W1"] has "counts"'),
        (lambda d: in_W1(d, located=[None]), TypeError, 'tensors["W1"].located'),
        (lambda d: in_W1(d, diagnosis={"kind": "sign"}), ValueError, 'tensors["W1"].diagnosis has no "text"'),
        (lambda d: in_W1(d, worst={**d["tensors"]["W1"]["worst"], "verdict": "correct"}), ValueError, "\"verdict\": 'correct'"),
        (lambda d: in_W1(d, worst={**d["tensors"]["W1"]["worst"], "slopes": [1.0]}), ValueError, '"slopes": [1.0]'),
    ],
)  # fmt: skip
def test_what_is_no_report(
    reports: tuple[fastgc.Report, fastgc.Report], change: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=re.escape(named)):
        fastgc.Report.from_dict(change(reports[0].to_dict()))


def test_a_notebook_gets_a_table(reports: tuple[fastgc.Report, fastgc.Report]) -> None:
    text = reports[0]._repr_html_()
    assert text.count("<tr>") == 7
    assert "<b>b1</b>: 4.000 ×" in text
    assert "look at how dW2 is formed" in text
    hostile = fastgc.check(lambda p: p["<script>"] * 2, {"<script>": 1.0}, {"<script>": 3.0})
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()
    many = fastgc.check(
        lambda p: sum(p.values()),
        {f"p{i}": 1.0 for i in range(60)},
        {f"p{i}": 1.0 for i in range(60)},
    )
    assert "and 10 more" in many._repr_html_()


def test_what_agrees_is_hidden_where_there_is_much() -> None:
    names = [f"p{i}" for i in range(40)]
    gradients = {**dict.fromkeys(names, 1.0), "p7": 3.0}
    text = str(fastgc.check(lambda p: sum(p.values()), dict.fromkeys(names, 1.0), gradients))
    lines = text.splitlines()[1:]
    assert lines[4].startswith("p7 "), text
    assert sum(line.endswith("  correct") for line in lines) == 11
    assert "and 28 more, correct" in lines
    everything = str(
        fastgc.check(
            lambda p: sum(p.values()), {f"p{i}": 1.0 for i in range(90)},
            {f"p{i}": 2.0 + i for i in range(90)},
        )
    )  # fmt: skip
    assert "and 42 more, of which 42 not correct" in everything
    assert "  and 78 more" in everything


def test_evaluations_of_node_are_of_samples() -> None:
    X, Y, parameters, right, _ = lab_case()
    report = fastgc.check(fastgc.Network(X, Y), parameters, right, method="node")
    assert f", {report.evaluations} losses of a sample in " in str(report)


def test_the_noise_is_shown() -> None:
    w = np.linspace(0.1, 1, 5)
    report = fastgc.check(lambda w: float(np.sin(w).sum()), w, np.cos(w))
    assert 0 <= report.noise < 1e-14
    noisy = fastgc.check(lambda w: float(1e5 + np.sin(w).sum()), w, np.cos(w))
    assert re.search(r", its noise \d\.\de-1\d \(up to \de-0\d of a gradient\)\n", str(noisy))
