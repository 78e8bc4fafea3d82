"""Random directions: the interval covers, right gradients pass, wrong tensors are named."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from fastgc.core.statistics import estimate_of, minimum_detectable_error
from fastgc.directions.draw import Directions
from tests.bugs import MISTAKES, Mistake, Pass
from tests.cases import (
    BUGS,
    FUNCTIONS,
    NETWORKS,
    Array,
    Bug,
    FunctionCase,
    NetworkCase,
    backward,
    lab_case,
)
from tests.shown import says
from tests.strategies import examples, networks, slow


@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda case: case.name)
@pytest.mark.parametrize("vectorized", [False, True])
def test_closed_forms(case: FunctionCase, vectorized: bool) -> None:
    cost = case.stacked if vectorized else case.cost
    assert cost is not None
    report = fastgc.check(
        cost, case.parameters, case.gradients, method="random", vectorized=vectorized
    )
    assert report.verdict == "correct"
    assert report.method == "random"
    # nine for the noise along a line, or two more lines where a polynomial shows none
    assert report.evaluations - 2 - 2 * 8 * len(report.tensors) - 1 in (9, 27)
    for tensor in report.tensors.values():
        assert tensor.counts == {
            "agree": 8,
            "kink": 0,
            "unresolved": 0,
            "disagree": 0,
            "nonfinite": 0,
        }
        assert tensor.estimate is not None
        assert tensor.estimate.low == 0.0
        assert tensor.estimate.error <= tensor.estimate.high < tensor.estimate.caught < 1e-5


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_direction_is_the_slope_of_the_cost_along_it(vectorized: bool) -> None:
    theta = np.array([0.3, -1.0, 2.0])
    cost = (lambda w: np.exp(w).sum(axis=1)) if vectorized else lambda w: np.exp(w).sum()
    wrong = np.exp(theta) + np.array([0.0, 0.5, -0.25])
    report = fastgc.check(
        cost, theta, wrong, method="random", vectorized=vectorized, directions=5, seed=7
    )
    directions = Directions(theta, (slice(0, 3),), 5, 7, 1e-7, 2**20)
    residuals = directions.along(np.array([0.0, 0.5, -0.25]))
    error = math.sqrt(float(np.mean(residuals**2))) / float(np.linalg.norm(wrong))
    assert report.estimate is not None
    assert report.estimate.error == pytest.approx(error, rel=1e-6)
    assert report.estimate == report.tensors["parameters"].estimate


def test_directions_are_normal_and_their_steps_exact() -> None:
    theta = np.random.default_rng(0).standard_normal(40_000) * 10.0 ** np.arange(-2, 2).repeat(
        10_000
    )
    directions = Directions(theta, (slice(0, 40_000),), 2, 0, 1e-7, 0)
    for d in range(2):
        v = directions.vector(d)
        assert v.mean() == pytest.approx(0.0, abs=0.02)
        assert v.std() == pytest.approx(1.0, abs=0.015)
        for step in (1e-7, 1e-7 / 8, 1e-7 / 512):
            plus, minus = theta + step * v, theta - step * v
            assert np.abs((plus - minus) - 2 * step * v).max() < 1e-22
    assert not np.array_equal(directions.vector(0), directions.vector(1))


def test_seeds_repeat_and_differ_and_leave_the_global_generator_alone() -> None:
    np.random.seed(3)
    before = repr(np.random.get_state())
    theta, wrong = np.ones(20), np.full(20, 2.2)
    found = [
        fastgc.check(lambda w: w @ w, theta, wrong, method="random", seed=seed).to_dict()
        for seed in (0, 0, 1)
    ]
    assert repr(np.random.get_state()) == before
    for report in found:
        report["seconds"] = 0
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("costs", [100, slow(2000)])
def test_the_interval_covers_what_it_says(costs: int) -> None:
    """Drawn costs of one to four tensors, with errors of all sizes, dense and sparse."""
    rng = np.random.default_rng(11)
    covered = np.zeros((2, 2), int)
    for number in range(costs):
        sizes = rng.integers(1, 12, rng.integers(1, 5))
        theta = [rng.standard_normal(size) for size in sizes]
        right = [np.cos(part) + 2 * part for part in theta]
        scale = 10.0 ** rng.uniform(-4, 0.5)
        wrong = []
        for g in right:
            e = rng.standard_normal(g.size) * (rng.random(g.size) < rng.choice([0.2, 1.0]))
            wrong.append(g + scale * e)
        directions = int(rng.choice([1, 2, 4, 8, 16]))
        report = fastgc.check(
            lambda p: math.fsum(float((np.sin(w) + w * w).sum()) for w in p),
            theta, wrong, method="random", seed=number, directions=directions, epsilon=1e-6,
        )  # fmt: skip
        parts = [(report.estimate, np.concatenate(wrong), np.concatenate(right))]
        last = report.tensors[f"parameters[{len(theta) - 1}]"]
        parts.append((last.estimate, wrong[-1], right[-1]))
        for i, (estimate, g, found) in enumerate(parts):
            assert estimate is not None
            error = float(np.linalg.norm(g - found) / np.linalg.norm(g))
            if error > 0:
                covered[i] += estimate.low <= error <= estimate.high, 1
    assert covered[0, 1] > 0.95 * costs
    for right_, of in covered.tolist():
        assert abs(right_ / of - 0.95) <= 0.89 / math.sqrt(costs)  # four standard deviations


@pytest.mark.parametrize(("seeds", "allowed"), [(50, 1), slow(500, 4)])  # 0.05 and 0.5 expected
def test_what_is_said_to_be_caught_is(seeds: int, allowed: int) -> None:
    rng = np.random.default_rng(12)
    theta = rng.standard_normal(30)
    right = 2 * theta
    for directions in (2, 8):
        passed = 0
        for seed in range(seeds):
            options: dict[str, Any] = {"method": "random", "directions": directions, "seed": seed}
            clean = fastgc.check(lambda w: w @ w, theta, right, **options).estimate
            assert clean is not None
            e = rng.standard_normal(30)
            e *= clean.caught * np.linalg.norm(right) / np.linalg.norm(e)
            passed += fastgc.check(lambda w: w @ w, theta, right + e, **options).ok
        assert passed <= allowed


def test_the_quantiles() -> None:
    from scipy import stats

    residuals = np.array([3.0, -4.0, 1.0])
    size = np.abs(residuals)
    found = estimate_of(residuals, size, size, minimum_detectable_error(np.full(3, 0.1)), norm=2.0)
    total = float(residuals @ residuals)
    assert found.directions == 3
    assert found.error == pytest.approx(math.sqrt(total / 3) / 2)
    assert found.low == pytest.approx(math.sqrt(total / stats.chi2.ppf(0.975, 3)) / 2)
    assert found.high == pytest.approx(math.sqrt(total / stats.chi2.ppf(0.025, 3)) / 2)
    passes = (2 * stats.norm.cdf(1.1 * 0.1 / (found.caught * 2)) - 1) ** 3
    assert passes == pytest.approx(0.001)
    widened = estimate_of(residuals, size - 0.5, size + 0.5, 1.0, norm=2.0)
    assert widened.low < found.low < found.high < widened.high
    nothing = estimate_of(np.zeros(2), np.zeros(2), np.zeros(2), 0.0, norm=0.0)
    assert (nothing.error, nothing.low, nothing.high, nothing.caught) == (0, 0, 0, 0)
    lost = estimate_of(np.array([np.nan]), np.ones(1), np.ones(1), 1.0, norm=1.0)
    assert math.isnan(lost.error)


@given(case=networks(max_scale=10.0))
@examples(60)
def test_right_gradients_raise_no_alarm(case: NetworkCase) -> None:
    net, parameters = case.build()
    gradients = backward(net, parameters)
    for cost in (net, lambda p: net(p)):
        assert fastgc.check(cost, parameters, gradients, method="random").verdict != "wrong"


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_corners_dead_layers_and_zero_gradients_raise_no_alarm(case: NetworkCase) -> None:
    net, parameters = case.build()
    for name in parameters:
        if name[0] == "b":
            parameters[name][:] = 0.0
    parameters["W1"][0] = 0.0  # a unit at its corner in every sample
    parameters["b1"][-1] = -1e3  # and one that is dead
    report = fastgc.check(net, parameters, backward(net, parameters), method="random")
    assert report.verdict != "wrong"


def half_at_corners(w: Array) -> float:
    return float(np.maximum(w, 0.0).sum())


def test_a_gradient_between_the_slopes_of_a_corner_is_neither_accepted_nor_accused() -> None:
    theta = np.r_[np.zeros(5), np.ones(5)]
    right = np.where(theta > 0, 1.0, 0.0)
    wrong = right.copy()
    wrong[9] = 1.5
    for seed in range(20):
        for gradients in (right, wrong):
            report = fastgc.check(half_at_corners, theta, gradients, method="random", seed=seed)
            assert report.verdict == "unresolved"
            assert report.estimate is not None
            error = np.linalg.norm(gradients - right) / np.linalg.norm(gradients)
            assert report.estimate.low <= error <= report.estimate.high
    assert says(report, 'parameters … method="loop"')


def test_one_corner_among_many_entries_hides_no_large_error() -> None:
    theta = np.random.default_rng(0).standard_normal(1000)
    theta[17] = 0.0
    right = np.where(theta > 0, 1.0, 0.0)
    for seed in range(5):
        assert (
            fastgc.check(half_at_corners, theta, right, method="random", seed=seed).verdict
            != "wrong"
        )
        wrong = fastgc.check(half_at_corners, theta, 3 * right, method="random", seed=seed)
        assert wrong.verdict == "wrong"


def test_a_corner_close_together_is_accepted() -> None:
    theta = np.r_[0.0, np.ones(50)]
    gradients = np.r_[0.3e-4, np.full(50, 2.0)]
    report = fastgc.check(
        lambda w: 1e-4 * abs(w[0]) + float(w[1:] @ w[1:]), theta, gradients, method="random"
    )
    assert report.verdict == "correct"
    assert report.tensors["parameters"].counts["kink"] > 0


def test_an_entry_is_named_only_after_a_second_look() -> None:
    rng = np.random.default_rng(3)
    theta = rng.standard_normal(20)
    theta[4] = 3e-8  # a step of 1e-7 crosses its corner
    wrong = np.where(theta > 0, 1.0, 0.0)
    wrong[7] += 0.5
    report = fastgc.check(half_at_corners, theta, wrong, method="random")
    assert [entry.index for entry in report.tensors["parameters"].located] == [(7,)]


@pytest.mark.parametrize("seeds", [range(10), slow(range(60))])
def test_what_all_tensors_together_would_have_shown_holds_for_errors_in_many(seeds: range) -> None:
    rng = np.random.default_rng(1)
    parameters = {f"t{i}": rng.standard_normal(4) for i in range(12)}
    right = {name: rng.standard_normal(4) for name in parameters}

    def cost(p: Any) -> float:
        return 3000.0 + float(sum(right[name] @ p[name] for name in right))

    norm = float(np.linalg.norm(np.concatenate(list(right.values()))))
    passed = 0
    for seed in seeds:
        options: dict[str, Any] = {"method": "random", "seed": seed}
        clean = fastgc.check(cost, parameters, right, **options).estimate
        assert clean is not None
        wrong = {}
        for name, g in right.items():
            e = rng.standard_normal(4)
            wrong[name] = g + e / np.linalg.norm(e) * clean.caught * norm / math.sqrt(12)
        passed += fastgc.check(cost, parameters, wrong, **options).ok
    assert passed <= 1


def test_the_length_of_the_step_is_no_error() -> None:
    theta = np.random.default_rng(0).standard_normal(100)
    right = 1e3 * np.cos(1e3 * theta)
    for seed in range(10):
        report = fastgc.check(
            lambda w: float(np.sin(1e3 * w).sum()), theta, right, method="random", seed=seed
        )
        assert report.verdict == "correct"
        assert report.estimate is not None
        assert report.estimate.low == 0.0


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e6])
def test_a_step_of_its_own_choice_goes_by_the_scale_of_the_parameters(scale: float) -> None:
    theta = scale * np.random.default_rng(0).standard_normal(30)

    def cost(w: Array) -> float:
        return float(np.sin(w / scale).sum())

    right = np.cos(theta / scale) / scale
    for seed in range(5):
        options: dict[str, Any] = {"method": "random", "epsilon": "auto", "seed": seed}
        assert fastgc.check(cost, theta, right, **options).verdict == "correct"
        assert fastgc.check(cost, theta, 1.01 * right, **options).verdict == "wrong"


def test_subnormal_numbers_of_narrow_gradients_are_no_mistake() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        slopes = rng.uniform(0.5, 2, 400) * 1e-7
        report = fastgc.check(
            lambda w, c=slopes: float(c @ w),
            np.ones(400),
            slopes.astype(np.float16),
            method="random",
        )
        assert report.verdict != "wrong"


def test_one_narrow_tensor_loosens_no_other() -> None:
    parameters = {"W": np.ones(100), "b": np.ones(3)}
    gradients = {"W": np.full(100, 2.0 * (1 + 3e-5)), "b": np.full(3, 2.0, dtype=np.float32)}

    def cost(p: Any) -> float:
        return float(p["W"] @ p["W"] + p["b"] @ p["b"])

    for per_tensor in (True, False):
        report = fastgc.check(cost, parameters, gradients, method="random", per_tensor=per_tensor)
        assert report.verdict == "wrong"
        assert not report.tensors["W"].ok
        assert report.tensors["b"].ok


def test_a_tensor_may_have_any_name() -> None:
    gradients = np.full(50, 2.0)
    gradients[3] = 9.0
    report = fastgc.check(
        lambda p: float((p["all parameters"] ** 2).sum()), {"all parameters": np.ones(50)},
        {"all parameters": gradients}, method="random",
    )  # fmt: skip
    assert report.tensors["all parameters"].worst.index == (3,)


def test_a_search_of_many_tensors_ends() -> None:
    rng = np.random.default_rng(0)
    parameters = {f"t{i}": rng.standard_normal(200) for i in range(40)}
    gradients = {
        name: 2 * value + 0.1 * rng.standard_normal(200) for name, value in parameters.items()
    }
    report = fastgc.check(
        lambda p: float(sum((value**2).sum() for value in p.values())), parameters, gradients,
        method="random",
    )  # fmt: skip
    assert report.evaluations < 2 * 2 * 8 * 40 + 40 + 1500
    assert "not searched, as so many tensors are wrong" in str(report.tensors["t39"].diagnosis)
    assert len(report.tensors["t0"].located) > 1


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.parametrize("per_tensor", [True, False])
def test_planted_bugs_are_named(bug: Bug, per_tensor: bool) -> None:
    X, Y, parameters, right, _ = lab_case()
    net = fastgc.Network(X, Y)
    for name in parameters:
        wrong = {**right, f"d{name}": bug.plant(right[f"d{name}"])}
        if np.array_equal(wrong[f"d{name}"], right[f"d{name}"]):
            continue
        report = fastgc.check(net, parameters, wrong, method="random", per_tensor=per_tensor)
        assert report.verdict == "wrong"
        assert [n for n, tensor in report.tensors.items() if not tensor.ok] == [name]
        tensor = report.tensors[name]
        assert tensor.located
        assert tensor.worst == tensor.located[0]
        assert tensor.worst.name.startswith(f"{name}[")
        assert str(report).startswith(f"wrong: {name} (")


def test_kinds_of_mistake_are_named() -> None:
    X, Y, parameters, right, faulty = lab_case()
    report = fastgc.check(fastgc.Network(X, Y), parameters, faulty, method="random")
    said = {name: t.diagnosis.value for name, t in report.tensors.items() if t.diagnosis}
    assert said == pytest.approx({"W2": 2.0, "b1": 4.0})
    flipped = {**right, "dW3": -right["dW3"]}
    report = fastgc.check(fastgc.Network(X, Y), parameters, flipped, method="random")
    assert report.tensors["W3"].diagnosis is not None
    assert report.tensors["W3"].diagnosis.kind == "sign"
    summed = {**right, "db2": 3 * right["db2"]}
    report = fastgc.check(fastgc.Network(X, Y), parameters, summed, method="random")
    assert "3 samples" in str(report.tensors["b2"].diagnosis)
    assert says(report.origin, "W2 … dZ2 … db2")


@pytest.mark.parametrize("cases", [NETWORKS[:2], slow(NETWORKS[2:])], ids=["two", "others"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_no_mistake_that_shows_passes(mistake: Mistake, cases: list[NetworkCase]) -> None:
    for case in cases:
        net, parameters = case.build()
        made = Pass(net, parameters)
        right = made.gradients()
        planted = mistake.plant(made, np.random.default_rng(0))
        if planted is None:
            continue
        gradients, _ = planted
        report = fastgc.check(net, parameters, gradients, method="random")
        for name, tensor in report.tensors.items():
            assert tensor.estimate is not None
            norm = float(np.linalg.norm(gradients[name]))
            error = float(np.linalg.norm(gradients[name] - right[name]))
            if tensor.ok and norm > 0:
                assert error <= 2 * max(tensor.estimate.caught, tensor.estimate.high) * norm


def test_directions_through_all_parameters_at_once() -> None:
    X, Y, parameters, right, faulty = lab_case()
    net = fastgc.Network(X, Y)
    report = fastgc.check(net, parameters, right, method="random", per_tensor=False, directions=3)
    assert report.verdict == "correct"
    assert list(report.tensors) == ["all parameters"]
    assert report.evaluations == 1 + 9 + 6
    assert "3 random directions through all parameters" in str(report)
    report = fastgc.check(net, parameters, faulty, method="random", per_tensor=False)
    assert {name for name, tensor in report.tensors.items() if not tensor.ok} == {"W2", "b1"}
    some = fastgc.check(
        net, parameters, right, method="random", per_tensor=False, only=["W1", "b3"]
    )
    assert some.ok
    assert some.tensors["all parameters"].shape == (21,)
    assert "b1, W2, b2, W3" in str(some)


def test_narrow_gradients_are_held_to_what_they_allow() -> None:
    net, parameters = NETWORKS[0].build()
    narrow = {name: g.astype(np.float32) for name, g in backward(net, parameters).items()}
    report = fastgc.check(net, parameters, narrow, method="random")
    assert report.ok
    assert says(report, "1e-04 … float32")
    assert fastgc.check(net, parameters, narrow, method="random", per_tensor=False).ok
    narrow["W1"].flat[np.argmax(np.abs(narrow["W1"]))] *= np.float32(1.01)
    assert not fastgc.check(net, parameters, narrow, method="random").ok


def test_a_noisy_cost_is_not_resolved_until_its_step_is_chosen() -> None:
    X, Y, parameters, right, faulty = lab_case()
    net = fastgc.Network(X, Y)

    def single(p: Any) -> Any:
        return np.float32(net(p))

    for epsilon in (None, "auto"):
        report = fastgc.check(single, parameters, right, method="random", epsilon=epsilon)
        assert report.verdict == "correct"
        assert max(report.epsilon, *(t.epsilon or 0.0 for t in report.tensors.values())) > 1e-3
        wrong = fastgc.check(single, parameters, faulty, method="random", epsilon=epsilon)
        assert {name for name, tensor in wrong.tensors.items() if not tensor.ok} == {"W2", "b1"}
        assert wrong.tensors["W2"].worst.ratio == pytest.approx(2.0, rel=1e-3)


def test_steps_that_the_size_of_the_parameters_swallows_resolve_nothing() -> None:
    theta = 1e11 * np.arange(1, 50.0)
    report = fastgc.check(
        lambda w: np.sin(w / 1e11).sum(), theta, np.cos(theta / 1e11) / 1e11, method="random"
    )
    assert report.verdict == "unresolved"
    assert str(report).startswith("cannot tell: parameters (8 of 8 random directions)")
    large = 1e3 * np.arange(1, 50.0)
    for seed in range(20):
        assert fastgc.check(
            lambda w: np.sin(w / 1e3).sum(), large, np.cos(large / 1e3) / 1e3,
            method="random", seed=seed,
        ).ok  # fmt: skip


def test_values_that_are_not_finite_never_pass() -> None:
    theta = np.ones(50)
    gradients = np.full(50, 2.0)
    gradients[7] = np.nan
    report = fastgc.check(lambda w: w @ w, theta, gradients, method="random")
    assert report.verdict == "wrong"
    assert "parameters[7] is nan" in str(report.tensors["parameters"].diagnosis)
    assert report.tensors["parameters"].worst.name == "parameters[7]"
    assert fastgc.Report.from_dict(report.to_dict()).verdict == "wrong"

    def cost(w: Array) -> float:
        return float(w.sum()) if w[3] <= 1.0 else math.inf

    # along every direction one side exists
    assert fastgc.check(cost, theta, np.ones(50), method="random").ok
    assert fastgc.check(cost, theta, np.full(50, 1.5), method="random").verdict == "wrong"


def test_the_report_says_what_it_proves() -> None:
    net, parameters = NETWORKS[0].build()
    report = fastgc.check(net, parameters, backward(net, parameters), method="random")
    text = str(report)
    assert text.startswith("correct: 48 random directions through W1, b1, W2, b2, W3 and b3 ")
    assert says(text, "8 random directions through each tensor … 99.9 %")
    assert says(text, "95 % confidence; difference")
    assert report.scope is not None
    assert report.scope in text
    assert "95 %" in report._repr_html_()
    again = fastgc.Report.from_dict(report.to_dict())
    assert again == report
    assert str(again) == text
    assert [entry.name for entry in report.worst(2)] != []
    assert report.worst(1)[0].name.split(" along v")[0] in parameters


def test_a_report_without_the_keys_of_directions_is_read() -> None:
    data = fastgc.check(lambda t: t**2, 3.0, 6.0).to_dict()
    for tensor in data["tensors"].values():
        del tensor["estimate"], tensor["located"]
    del data["scope"], data["estimate"]
    report = fastgc.Report.from_dict(data)
    assert report.estimate is None
    assert report.tensors["parameters"].located == ()


def test_there_is_no_picture_of_directions() -> None:
    report = fastgc.check(lambda t: t**2, 3.0, 6.0, method="random")
    with pytest.raises(ValueError, match="random directions"):
        report.plot()


def test_it_returns_no_gradient() -> None:
    with pytest.raises(ValueError, match='"random"'):
        fastgc.numerical_gradient(lambda t: t**2, 3.0, method="random")


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("directions", 0, ValueError, "directions is 0"),
        ("directions", 2.0, TypeError, "directions is 2.0"),
        ("directions", 10_001, ValueError, "directions is 10001"),
        ("seed", -1, ValueError, "seed is -1"),
        ("seed", None, TypeError, "seed is None"),
        ("per_tensor", 1, TypeError, "per_tensor is 1"),
        ("sample", 5, ValueError, 'sample= .*"random"'),
    ],
)
def test_bad_options(option: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastgc.check(
            lambda w: w @ w, np.ones(9), 2 * np.ones(9), method="random", **{option: value}
        )


def test_what_was_met_names_the_tensor_that_was_moved() -> None:
    def cost(p: Any) -> float:
        if not np.array_equal(p["b"], np.ones(3)) and np.array_equal(p["a"], np.ones(2)):
            raise ArithmeticError("no")
        return float(p["a"].sum() + p["b"].sum())

    theta = {"a": np.ones(2), "b": np.ones(3)}
    report = fastgc.check(cost, theta, theta, method="random")
    assert (report.tensors["a"].verdict, report.tensors["b"].verdict) == ("correct", "unresolved")
    said = report.tensors["b"].diagnosis
    assert said is not None
    assert said.kind == "cost"
    assert "ArithmeticError" in said.text
    assert "b along v0" in said.text


@given(seed=st.integers(0, 2**70), directions=st.integers(1, 20))
@examples(20)
def test_any_seed_and_number_of_directions(seed: int, directions: int) -> None:
    theta = {"a": np.array([0.5, 2.0]), "b": 3.0}
    report = fastgc.check(
        lambda p: float((p["a"] ** 2).sum() * p["b"]), theta, {"a": [3.0, 12.0], "b": 4.25},
        method="random", seed=seed, directions=directions,
    )  # fmt: skip
    assert report.ok
    assert report.tensors["a"].size == directions


def test_directions_are_no_ones_numbers() -> None:
    """Parameters, and errors, are often drawn from `default_rng(0)`: directions must not be these."""
    W = np.random.default_rng(0).standard_normal((100, 100))
    gradients = np.cos(W) + 1e-3 * W
    for seed in range(3):
        report = fastgc.check(
            lambda w: float(np.sin(w).sum()), W, gradients, method="random", seed=seed
        )
        assert report.estimate is not None
        error = float(np.linalg.norm(1e-3 * W) / np.linalg.norm(gradients))
        assert 0.3 * error < report.estimate.error < 3 * error
        assert report.tensors["parameters"].diagnosis is not None
        assert report.tensors["parameters"].diagnosis.kind == "decay"


def test_options_of_directions_want_directions() -> None:
    options: tuple[dict[str, Any], ...] = ({"directions": 8}, {"per_tensor": False})
    for chosen in options:
        with pytest.raises(ValueError, match=r'random directions.*"loop"'):
            fastgc.check(lambda t: t**2, 3.0, 6.0, **chosen)


def test_a_corner_that_one_step_crosses_costs_no_certainty() -> None:
    theta = np.random.default_rng(1).standard_normal(2000)
    theta[5] = 2e-9  # between a step and an eighth of it, of some directions
    right = np.where(theta > 0, 1.0, 0.0)
    for seed in range(10):
        report = fastgc.check(half_at_corners, theta, right, method="random", seed=seed)
        assert report.verdict != "wrong"
        assert report.estimate is not None
        assert report.verdict == "unresolved" or report.estimate.caught < 1e-3
