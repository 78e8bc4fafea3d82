"""Verdicts: the rule entry by entry, the headline figure, and drawn gradients right and wrong."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastgc
from fastgc.core.verdict import (
    ENTRY_VERDICTS,
    NONFINITE,
    UNRESOLVED,
    Zeros,
    entry_verdicts,
    relative_difference,
    root_mean_square,
    worst_verdict,
)
from tests.cases import (
    BUGS,
    ENTRYWISE,
    NETWORKS,
    Array,
    Bug,
    NetworkCase,
    backward,
    corner_distance,
)
from tests.strategies import examples, networks

nan, inf = math.nan, math.inf


@pytest.mark.parametrize(
    ("g", "approx", "uncertainty", "typical", "verdict"),
    [
        (1.0, 1.0, 0.0, 0.0, "agree"),
        (1.0, 1.0 + 1.9e-7, 0.0, 0.0, "agree"),
        (1.0, 1.0 + 2.1e-7, 0.0, 0.0, "disagree"),
        (1.0, 1.0 + 2.1e-7, 1e-8, 0.0, "agree"),
        (1.0, 1.001, 0.0, 0.0, "disagree"),
        (1.0, 1.001, 1.1e-3, 0.0, "unresolved"),
        (1.0, 1.0, 1.1e-3, 0.0, "unresolved"),
        (1.0, 1.0, 0.9e-3, 0.0, "agree"),
        (1.0, -1.0, 1e-3, 0.0, "disagree"),
        (0.0, 0.0, 5.0, 0.0, "agree"),
        (0.0, -0.0, inf, 0.0, "unresolved"),
        (0.0, 1e-9, 0.0, 0.0, "disagree"),
        (0.0, 1e-9, 0.0, 1.0, "disagree"),  # large entries do not excuse small ones
        (0.0, 0.9e-12, 0.0, 1.0, "agree"),
        (0.0, 1e-9, 1e-9, 0.0, "unresolved"),
        (1.0, 0.0, inf, 0.0, "unresolved"),
        (nan, 1.0, inf, 1.0, "nonfinite"),
        (1.0, nan, inf, 1.0, "unresolved"),
        (inf, inf, 0.0, 1.0, "nonfinite"),
        (0.0, -inf, 0.0, 1.0, "unresolved"),
        (1.7e308, -1.7e308, 0.0, 1.0, "disagree"),
        (5e-324, 5e-324, 0.0, 0.0, "agree"),
    ],
)
def test_entry_verdict(
    g: float, approx: float, uncertainty: float, typical: float, verdict: str
) -> None:
    columns = [np.array([value]) for value in (g, approx, uncertainty, typical)]
    codes = entry_verdicts(columns[0], columns[1], columns[2], columns[3], tolerance=2e-7)
    assert ENTRY_VERDICTS[codes[0]] == verdict


def test_the_reach_of_the_cost_tells_that_a_gradient_vanishes() -> None:
    zero, uncertainty = np.array([1e-13, 1e-13]), np.array([1e-12, 1e-12])
    codes = entry_verdicts(
        zero, -zero, uncertainty, 0.0, 2e-7, zeros=Zeros(np.array([2e-6, 0.5e-6]))
    )
    assert [ENTRY_VERDICTS[code] for code in codes] == ["agree", "unresolved"]


def test_worst_verdict() -> None:
    assert worst_verdict(["correct", "correct"]) == "correct"
    assert worst_verdict(["correct", "unresolved"]) == "unresolved"
    assert worst_verdict(["unresolved", "wrong", "correct"]) == "wrong"


def test_difference_is_the_labs_formula() -> None:
    rng = np.random.default_rng(0)
    g, a = rng.standard_normal(50), rng.standard_normal(50)
    norm = np.linalg.norm
    wanted = norm(g - a) / (norm(g) + norm(a))
    assert relative_difference(g, a) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e308])
def test_difference_does_not_overflow_or_vanish(scale: float) -> None:
    g, a = np.array([1.0, 0.5]) * scale, np.array([0.5, 0.5]) * scale
    wanted = 0.5 / (math.sqrt(1.25) + math.sqrt(0.5))
    assert relative_difference(g, a) == pytest.approx(wanted, rel=1e-3)
    assert root_mean_square(a) == pytest.approx(0.5 * scale, rel=1e-3)


def test_difference_of_zeros_and_of_nan() -> None:
    zeros = np.zeros(3)
    assert relative_difference(zeros, zeros) == 0.0
    assert relative_difference(np.ones(3), zeros) == 1.0
    assert math.isnan(relative_difference(np.array([nan, 1, 1]), zeros))
    assert math.isnan(relative_difference(zeros, np.array([inf, 1, 1])))


def test_root_mean_square_leaves_out_what_is_not_finite() -> None:
    assert root_mean_square(np.array([3.0, nan, inf, -3.0])) == pytest.approx(3.0)
    assert root_mean_square(np.array([nan])) == 0.0


def test_root_mean_square_of_the_largest_floats() -> None:
    largest = float(np.finfo(float).max)
    for count in range(1, 12):
        assert root_mean_square(np.full(count, largest)) == pytest.approx(largest)


@given(
    hnp.arrays(float, 5, elements=st.floats(allow_nan=True, allow_infinity=True)),
    hnp.arrays(float, 5, elements=st.floats(allow_nan=True, allow_infinity=True)),
)
def test_no_pair_of_vectors_is_beyond_the_rule(g: Array, approx: Array) -> None:
    codes = entry_verdicts(g, approx, np.zeros(5), np.full(5, root_mean_square(approx)), 2e-7)
    finite = np.isfinite(g) & np.isfinite(approx)
    assert ((codes == NONFINITE) == ~np.isfinite(g)).all()
    assert (codes[np.isfinite(g) & ~np.isfinite(approx)] == UNRESOLVED).all()
    difference = relative_difference(g, approx)
    assert math.isnan(difference) or 0 <= difference <= 1 + 1e-15
    assert math.isnan(difference) == (not finite.all())


@pytest.mark.parametrize("method", ENTRYWISE)
@given(case=networks(min_scale=1e-2, max_scale=100.0))
@examples(60)
def test_right_gradients_are_never_called_wrong(method: str, case: NetworkCase) -> None:
    net, parameters = case.build()
    assume(corner_distance(net, parameters) > 1e-5)
    report = fastgc.check(net, parameters, backward(net, parameters), method=method)
    assert report.verdict != "wrong", report


@pytest.mark.parametrize("method", ENTRYWISE)
@given(case=networks(min_scale=0.5), bug=st.sampled_from(BUGS), data=st.data())
@examples(60)
def test_wrong_gradients_are_named(
    method: str, case: NetworkCase, bug: Bug, data: st.DataObject
) -> None:
    net, parameters = case.build()
    gradients = backward(net, parameters)
    name = data.draw(st.sampled_from(sorted(gradients)))
    assume(np.abs(gradients[name]).max() > 1e-3)
    assume(corner_distance(net, parameters) > 1e-5)
    gradients[name] = bug.plant(gradients[name])
    report = fastgc.check(net, parameters, gradients, method=method)
    assert report.verdict == "wrong"
    assert not report
    assert [t for t, found in report.tensors.items() if found.verdict == "wrong"] == [name]


@pytest.mark.parametrize("method", ENTRYWISE)
@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_the_table_of_cases_is_right(method: str, case: NetworkCase) -> None:
    net, parameters = case.build()
    report = fastgc.check(net, parameters, backward(net, parameters), method=method)
    assert report.verdict in ({"saturated": ("correct", "unresolved")}.get(case.name, ("correct",)))


def test_dead_units_have_zero_gradients_that_agree() -> None:
    net, parameters = NetworkCase("dead", (3, 4, 1), 5).build()
    parameters["b1"][:] = -100.0
    report = fastgc.check(net, parameters, backward(net, parameters))
    assert report.ok
    assert report.tensors["W1"].difference == 0.0
    assert report.tensors["W1"].counts["agree"] == 12


def test_a_flat_cost_is_no_pass() -> None:
    X, Y = np.ones((2, 3)), np.array([1.0, 1.0, 1.0])
    parameters = {"W1": np.array([[20.0, 20.0]]), "b1": np.zeros((1, 1))}
    net = fastgc.Network(X, Y)
    wrong = {"W1": np.array([[1e-12, 0.0]]), "b1": np.array([[3e-10]])}
    report = fastgc.check(lambda p: 1.0 + net(p), parameters, wrong)
    assert not report.ok
    # a slope of 3e-10 would show once b1 has moved by 1
    assert report.tensors["b1"].verdict == "wrong"


@pytest.mark.parametrize("seed", [1113, 1271])
def test_a_saturated_output_is_right_to_rounding(seed: int) -> None:
    # A − Y is 0, or rounding, where the exact value is 1e-90: no backward pass does better
    case = NetworkCase("saturated", (3, 2, 4), 1, "silu", loss="softmax", seed=seed)
    net, parameters = case.build()
    y = int(net.Y[0])
    parameters["b2"][y] += 200.0
    gradients = backward(net, parameters)
    assert fastgc.check(net, parameters, gradients).ok
    gradients["W2"] = gradients["W2"] + 1e-13
    report = fastgc.check(net, parameters, gradients)
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["W2"]


def test_a_fit_to_rounding_is_right_to_rounding() -> None:
    # the residual of a perfect fit is the rounding of its terms, 1e7 · 1e-16, in both gradients
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((6, 40)), 1e7 * rng.standard_normal((3, 6))
    net = fastgc.Network(X, W @ X, loss="squared")
    parameters = {"W1": W, "b1": np.zeros((3, 1))}
    gradients = backward(net, parameters)
    rounding = 1e-9 * np.sign(gradients["W1"])
    report = fastgc.check(net, parameters, {**gradients, "W1": gradients["W1"] + rounding})
    assert report.verdict != "wrong"
    wrong = {**gradients, "W1": gradients["W1"] + 1e-3}
    assert fastgc.check(net, parameters, wrong).verdict != "correct"
