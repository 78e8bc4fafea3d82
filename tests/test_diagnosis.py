"""Diagnosis: planted mistakes are called by their names, and nothing is claimed of others."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastgc
from fastgc import lab
from fastgc.diagnosis.kinds import is_round
from fastgc.diagnosis.origin import origin
from tests.bugs import MISTAKES, Mistake, Pass
from tests.cases import Array, NetworkCase, Tensors, backward, corner_distance, lab_case
from tests.shown import says
from tests.strategies import examples, networks, slow

#: Wide enough that every mistake can be made, and tells on many entries.
CASES = {
    "relu": NetworkCase("relu", (6, 6, 6, 6, 2), 9, "relu", weight_decay=0.3, scale=1.4, seed=3),
    "tanh": NetworkCase("tanh", (5, 7, 7, 3), 8, "tanh", loss="squared", seed=4),
    "softmax": NetworkCase("softmax", (5, 6, 6, 4), 8, "silu", loss="softmax", seed=5),
    "mixed": NetworkCase(
        "mixed", (4, 6, 8, 6, 2), 7, ("leaky_relu", "sigmoid", "softplus"), seed=6
    ),
}


@pytest.mark.parametrize("method", ["node", slow("incremental"), slow("stacked")])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_planted_mistakes_are_named(mistake: Mistake, case: str, method: str) -> None:
    net, parameters = CASES[case].build()
    made = mistake.plant(Pass(net, parameters), np.random.default_rng(1))
    if made is None:
        return  # not in this network; the next test says that each is planted somewhere
    wrong, sources = made
    report = fastgc.check(net, parameters, wrong, method=method)
    if mistake.kind == "precision" and report.verdict != "wrong":
        return  # the noise of a cost may hide what single precision loses
    assert report.verdict == "wrong"
    for name in sources:
        said = report.tensors[name].diagnosis
        if said is None:
            assert mistake.kind == "precision"
            continue
        assert said.kind == mistake.kind, f"{name}: {said}"
        assert said.text in str(report)


def test_every_mistake_is_planted_somewhere() -> None:
    passes = [Pass(*case.build()) for case in CASES.values()]
    for mistake in MISTAKES:
        planted = [mistake.plant(p, np.random.default_rng(1)) is not None for p in passes]
        assert any(planted), mistake.name
    assert len(MISTAKES) >= 30


@given(
    case=networks(min_scale=0.5, max_depth=5),
    mistake=st.sampled_from(MISTAKES),
    seed=st.integers(0, 2**32 - 1),
)
@examples(200)
def test_drawn_networks(case: NetworkCase, mistake: Mistake, seed: int) -> None:
    net, parameters = case.build()
    assume(corner_distance(net, parameters) > 1e-6)
    made = mistake.plant(Pass(net, parameters), np.random.default_rng(seed))
    assume(made is not None)
    assert made is not None
    wrong, sources = made
    report = fastgc.check(net, parameters, wrong)
    right = backward(net, parameters)
    for name, tensor in report.tensors.items():
        assert (tensor.diagnosis is None) == (tensor.verdict != "wrong")
        untouched = np.array_equal(wrong[name], right[name])
        assert not (untouched and tensor.verdict == "wrong"), name
    if mistake.kind == "unknown":  # of six numbers at least, none made up by a kind
        assert {report.tensors[name].diagnosis.kind for name in sources} <= {"unknown"}  # type: ignore[union-attr]  # all are wrong


def on_lab(change: Any) -> fastgc.Report:
    X, Y, parameters, right, _ = lab_case()
    gradients = {name: right[f"d{name}"].copy() for name in parameters}
    change(gradients, parameters)
    return fastgc.check(fastgc.Network(X, Y), parameters, gradients)


def said(report: fastgc.Report, name: str) -> str:
    return str(report.tensors[name].diagnosis)


def kind_of(report: fastgc.Report, name: str) -> str | None:
    found = report.tensors[name].diagnosis
    return None if found is None else found.kind


@pytest.mark.parametrize("method", ["loop", "stacked", "incremental", "node"])
def test_the_labs_planted_bugs(method: str) -> None:
    X, Y, parameters, _, faulty = lab_case()
    for cost in (fastgc.Network(X, Y), lambda p: lab.forward_propagation_n(X, Y, p)[0]):
        if not isinstance(cost, fastgc.Network) and method != "loop":
            continue
        report = fastgc.check(cost, parameters, faulty, method=method)
        assert said(report, "W2").startswith("2.000 ×")
        assert said(report, "b1").startswith("4.000 ×")
        assert says(report.origin, "b2 … dZ2 … dW2 … W1 … dZ1 … db1")


def test_factors_of_the_batch() -> None:
    def more(g: Tensors, _: Tensors) -> None:
        g["W1"] *= 3
        g["W2"] /= 3

    report = on_lab(more)
    assert says(said(report, "W1"), "3.000 × … 3 samples")
    assert says(said(report, "W2"), "1/3 × … 3 samples")
    assert report.tensors["W1"].diagnosis == fastgc.Diagnosis("sum", said(report, "W1"), 3.0)


@pytest.mark.parametrize(
    ("factor", "shown"),
    [
        (1.00001, "1.000010"),
        (0.5, "0.500"),
        (-2.0, "−2.000"),
        (1234.5, "1234.500"),
        (1e-5, "1e-05"),
    ],
)
def test_factors_have_the_digits_they_need(factor: float, shown: str) -> None:
    def scaled(g: Tensors, _: Tensors) -> None:
        g["W1"] *= factor

    assert said(on_lab(scaled), "W1").startswith(f"{shown} ×")


def test_words_of_each_kind() -> None:
    def texts(change: Any, *names: str) -> list[str]:
        report = on_lab(lambda g, p: change(g, p))
        return [said(report, name) for name in names]

    def order(g: Tensors, _: Tensors) -> None:
        g["W1"][[0, 3]] = g["W1"][[3, 0]]

    assert says(texts(order, "W1"), "rows 0 and 3")

    def decay(g: Tensors, p: Tensors) -> None:
        g["W1"] += 0.5 / 3 * p["W1"]

    assert says(texts(decay, "W1"), "weight decay … 0.500 … 0 … weight_decay=0.5")

    def entry(g: Tensors, _: Tensors) -> None:
        g["W1"][3, 2] += 1.0

    assert says(texts(entry, "W1"), "one entry … W1[3, 2] … 15 others")  # 4 are zero

    def clipped(g: Tensors, _: Tensors) -> None:
        np.clip(g["W1"], -0.5, 0.5, out=g["W1"])

    assert texts(clipped, "W1")[0].startswith("clipped at ±0.5, ")


def test_kinds_of_a_cost_that_cannot_be_seen_into() -> None:
    rng = np.random.default_rng(0)
    parameters = {"a": rng.standard_normal((4, 4)), "b": rng.standard_normal(6)}
    A = rng.standard_normal((4, 4))

    def cost(p: Any) -> float:
        return float(np.sum(np.sin(p["a"]) * A) + np.exp(p["b"]).sum())

    right = {"a": np.cos(parameters["a"]) * A, "b": np.exp(parameters["b"])}
    changes: dict[str, tuple[str, Array]] = {
        "factor": ("a", 1.5 * right["a"]),
        "sign": ("a", -right["a"]),
        "zero": ("b", 0 * right["b"]),
        "transposed": ("a", right["a"].T),
        "decay": ("a", right["a"] + 0.01 * parameters["a"]),
        "flipped": ("b", right["b"][::-1]),
        "permuted": ("b", np.roll(right["b"], 1)),
        "entries": ("b", right["b"] + np.array([0, 0, 1.0, 0, 0, 0])),
        "precision": ("a", (right["a"] * (1 + 3e-6 * rng.standard_normal((4, 4)))).astype(np.float32).astype(float)),
        "unknown": ("a", right["a"] * (1 + 0.1 * rng.standard_normal((4, 4)))),
    }  # fmt: skip
    for kind, (name, wrong) in changes.items():
        report = fastgc.check(cost, parameters, {**right, name: wrong})
        found = report.tensors[name].diagnosis
        assert found is not None, kind
        assert found.kind == kind, f"{kind}: {found}"
        if kind == "decay":
            assert says(found, "+ 0.01 × the parameters")
        other = report.tensors["b" if name == "a" else "a"]
        assert other.diagnosis is None
        if name == "a" and kind != "precision":
            assert says(report.origin, "a … wrong … b … right")


def test_nearly_is_not_a_kind() -> None:
    def nearly_doubled(g: Tensors, _: Tensors) -> None:
        g["W1"] *= 2
        g["W1"][0, 0] *= 1.01
        g["W1"][1, 1] *= 0.99

    assert kind_of(on_lab(nearly_doubled), "W1") == "unknown"

    def nearly_another_order(g: Tensors, _: Tensors) -> None:
        g["W1"] = 1.01 * np.roll(g["W1"], 1, axis=1)

    assert kind_of(on_lab(nearly_another_order), "W1") == "unknown"


def test_numbers_that_the_cost_cannot_give() -> None:
    # on no side of parameters[0]; what is wrong is the next
    def cost(w: Array) -> float:
        return float(np.inf if w[0] != 1 else w.sum())

    report = fastgc.check(cost, np.array([1.0, 2.0]), np.array([1.0, 5.0]))
    assert said(report, "parameters").startswith("5.000 ×")
    theta = np.arange(1.0, 6.0)
    report = fastgc.check(cost, theta, np.array([1.0, 1.0, 5.0, 1.0, 1.0]))
    assert says(said(report, "parameters"), "one entry … parameters[2] is 5.000 ×")


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (["W3", "b3", "W2", "b2", "W1", "b1"], "W3 … wrong … dZ3"),
        (["W2", "b2", "W1", "b1"], "W2 … wrong … W3 and b3 … right … dZ2"),
        (["W1", "b1"], "W1 and b1 … wrong … W2, b2, W3 and b3 … right … dZ1"),
        (["W2", "b2"], "W1 and b1 … right … dZ2 … dW2 and db2"),
        (["b3"], "W3 … right … dZ3 … db3"),
        ([], "None"),
    ],
)  # fmt: skip
def test_where_it_starts(faulty: list[str], words: str) -> None:
    names = ["W1", "b1", "W2", "b2", "W3", "b3"]
    proven = set(names) - set(faulty)
    assert says(origin(names, faulty, {}, proven), words)
    assert says(origin(["b3", "W3", "b2", "W2", "b1", "W1"], faulty, {}, proven), words)


@pytest.mark.parametrize(
    ("faulty", "proven", "start", "right"),
    [
        (["b3"], [], ["dZ3", "db3"], []),
        (["b3", "W2", "b2"], ["W3"], ["db3"], ["W3"]),
        (["W2", "b2", "W1", "b1"], [], ["dZ3", "dZ2"], []),
        (["W2", "b2", "W1", "b1"], ["b3"], ["dZ2"], ["b3"]),
        (["W3"], ["b1"], ["dW3"], ["b1"]),
        (["W1"], ["W3"], ["dZ2", "dZ1", "dW1"], ["W3"]),
    ],
)
def test_where_it_starts_is_told_by_what_is_proven(
    faulty: list[str], proven: list[str], start: list[str], right: list[str]
) -> None:
    names = ["W1", "b1", "W2", "b2", "W3", "b3"]
    told = origin(names, faulty, {}, proven)
    assert told is not None
    line = told.splitlines()[0]
    assert re.findall(r"d[WbZ]\d", line.split("look at")[1]) == start
    assert called_right(line) == set(right)


def called_right(text: str) -> set[str]:
    """The tensors that a sentence says are right."""
    parts = re.findall(r"((?:[Wb]\d(?:, | and )?)+)(?:, below,)? (?:is|are) right", text)
    return {name for part in parts for name in re.findall(r"[Wb]\d", part)}


@pytest.mark.parametrize(
    ("method", "seeds"),
    [
        ("node", range(20)), ("loop", range(3)), ("random", range(3)),
        slow("node", range(20, 200)), slow("loop", range(3, 40)), slow("random", range(3, 40)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("widths", "m"), [((2, 5, 2, 1), 4), ((3, 2, 2, 2), 2), ((2, 4, 1), 3)])
def test_a_mistake_at_the_output_is_never_sought_below(
    widths: tuple[int, ...], m: int, method: str, seeds: range
) -> None:
    # with zero biases whole layers are dead, or at their corners: their zeros agree with anything
    misled = 0
    for seed in seeds:
        net, parameters = NetworkCase("dead", widths, m, seed=seed).build()
        parameters = {name: v * (name[0] == "W") for name, v in parameters.items()}
        p = Pass(net, parameters)
        wrong = p.gradients(p.depth, 2 * p.dZ[-1])
        report = fastgc.check(net, parameters, wrong, method=method)
        if report.origin is None:
            continue
        right = {name for name in wrong if not wrong[name].any()}
        assert not called_right(report.origin) & (set(wrong) - right), report.origin
        misled += bool(called_right(report.origin) or f"dZ{p.depth}" not in report.origin)
    assert misled == 0


def test_where_it_starts_among_any_names() -> None:
    assert says(origin(["a", "b", "c"], ["a", "b"], {}, ["c"]), "b … wrong … c … right")
    silent = origin(["a", "b", "c", "d"], ["a", "b"], {}, ["d"])
    assert silent is not None
    assert "d is right" in silent
    assert "c proves nothing" in silent
    assert origin(["a", "b"], ["b"], {}, ["a"]) is None
    assert origin(["W1"], ["W1"], {}, []) is None


def test_round_numbers() -> None:
    assert is_round(1.0)
    assert is_round(0.25)
    assert is_round(5e-3 * (1 + 1e-9))
    assert not is_round(0.251)


def test_noise_is_no_structure() -> None:
    # labels that are the network's own outputs: all that is left is weight decay
    case = NetworkCase("fitted", (3, 4, 1), 5, "relu", loss="squared", weight_decay=0.5)
    net, parameters = case.build()
    hidden = np.maximum(parameters["W1"] @ net.X + parameters["b1"], 0)
    outputs = parameters["W2"] @ hidden + parameters["b2"]
    net = fastgc.Network(net.X, outputs, loss="squared", weight_decay=0.5)
    gradients = backward(net, parameters)
    gradients["W2"][0, 1] *= 1.01
    for method in ("loop", "node"):
        found = fastgc.check(net, parameters, gradients, method=method).tensors["W2"].diagnosis
        assert found is not None
        assert found.kind == "entries", found


def test_whole_numbers_are_of_any_precision() -> None:
    a = np.array([49.9975, 25.0, 3.0])
    report = fastgc.check(lambda p: float(p @ a), np.ones(3), np.array([50.0, 25.0, 3.0]))
    assert kind_of(report, "parameters") == "entries"


def test_zeros_have_no_sign() -> None:
    a = np.array([1.0, 2.0, 3.0])
    report = fastgc.check(lambda p: float(p @ a), np.ones(3), np.array([1.0, -0.0, 3.0]))
    assert says(said(report, "parameters"), "parameters[1] is 0 … 2")


def test_one_factor_of_all_tensors_is_said_once() -> None:
    X, Y, parameters, right, _ = lab_case()
    summed = {name: 3 * right[f"d{name}"] for name in parameters}
    report = fastgc.check(fastgc.Network(X, Y), parameters, summed)
    [text] = {str(t.diagnosis) for t in report.tensors.values() if not t.ok}
    assert says(text, "3.000 × … 3 samples")
    assert says(report.origin, "dZ3 … the same factor")


def test_a_cost_that_does_not_use_its_argument() -> None:
    X, Y, parameters, right, _ = lab_case()
    net = fastgc.Network(X, Y)
    report = fastgc.check(lambda p: net(parameters), parameters, right)
    assert kind_of(report, "W2") == "constant"
    assert report.origin is None


def test_decay_of_a_cost_that_cannot_be_seen_into() -> None:
    w = np.linspace(-1, 2, 6)

    def cost(w: Any) -> float:
        return float(np.sin(w).sum() + 0.05 * (w**2).sum())

    missing = said(fastgc.check(cost, w, np.cos(w)), "parameters")
    assert says(missing, "− 0.1 × the parameters")
