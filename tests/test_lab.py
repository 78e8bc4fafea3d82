"""The lab: its names, its numbers, and its weak spots mended."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastgc
from fastgc import lab
from tests.cases import Tensors, lab_case, plain_forward, plain_loop

YELLOW, GREEN, RESET = "\033[93m", "\033[92m", "\033[0m"
PASSED = f"{GREEN} All tests passed.{RESET}\n"

WRITTEN_BY_STUDENTS = {
    "forward_propagation", "backward_propagation", "gradient_check", "forward_propagation_n",
    "backward_propagation_n", "gradient_check_n",
}  # fmt: skip


def test_the_star_import_is_the_labs_three_helper_modules() -> None:
    names: dict[str, Any] = {}
    exec("from fastgc.lab import *", names)
    assert names.keys() - {"__builtins__"} == {
        "np", "sigmoid", "relu", "dictionary_to_vector", "vector_to_dictionary",
        "gradients_to_vector", "gradient_check_n_test_case", "forward_propagation_test",
        "backward_propagation_test", "gradient_check_test", "gradient_check_n_test",
    }  # fmt: skip
    assert names["np"] is np


@pytest.mark.parametrize("name", [*sorted(WRITTEN_BY_STUDENTS), "faulty_backward_propagation_n"])
def test_what_students_write_is_imported_by_name(name: str) -> None:
    names: dict[str, Any] = {}
    exec(f"from fastgc.lab import {name}", names)
    assert callable(names[name])


def test_numbers_of_the_one_dimensional_check() -> None:
    assert lab.forward_propagation(2, 4) == 8
    assert lab.backward_propagation(3, 4) == 3
    assert lab.gradient_check(2, 4) == pytest.approx(2.919335883291695e-10, rel=1e-9)
    assert lab.gradient_check(3, 4) == pytest.approx(7.814075313343006e-11, rel=1e-9)


def test_numbers_of_the_network_check() -> None:
    X, Y, parameters, right, faulty = lab_case()
    planted = lab.gradient_check_n(parameters, faulty, X, Y)
    mended = lab.gradient_check_n(parameters, right, X, Y)
    assert planted == pytest.approx(0.2850931567761623, rel=1e-9)
    assert mended == pytest.approx(1.1890913024229996e-07, abs=1e-9)


def test_the_check_is_the_plain_loop() -> None:
    X, Y, parameters, right, _ = lab_case()
    grad = lab.gradients_to_vector(right)
    approx = plain_loop(lambda p: plain_forward(X, Y, p), parameters)
    norm = np.linalg.norm
    wanted = norm(grad - approx) / (norm(grad) + norm(approx))
    assert lab.gradient_check_n(parameters, right, X, Y) == pytest.approx(wanted, abs=1e-9)


def test_test_case_is_the_labs_draw() -> None:
    X, Y, parameters = lab.gradient_check_n_test_case()
    drawn = np.random.RandomState(1)
    assert np.array_equal(X, drawn.randn(4, 3))
    assert Y.tolist() == [1, 1, 0]
    for name, shape in lab.TEST_CASE_SHAPES.items():
        assert np.array_equal(parameters[name], drawn.randn(*shape))


def test_global_generator_is_left_alone() -> None:
    np.random.seed(7)
    before = np.random.get_state(legacy=False)
    X, Y, parameters, right, _ = lab_case()
    lab.gradient_check_n(parameters, right, X, Y)
    fastgc.check(fastgc.Network(X, Y), parameters, right)
    fastgc.check(lambda p: lab.forward_propagation_n(X, Y, p)[0], parameters, right)
    after = np.random.get_state(legacy=False)
    assert str(before) == str(after)


def test_gradients_have_the_labs_keys_and_the_planted_bugs() -> None:
    _, _, _, right, faulty = lab_case()
    keys = ["dZ3", "dW3", "db3", "dA2", "dZ2", "dW2", "db2", "dA1", "dZ1", "dW1", "db1"]
    assert list(right) == keys
    assert list(faulty) == keys
    factors = {"dW2": 2, "db1": 4}
    for key in keys:
        np.testing.assert_allclose(faulty[key], factors.get(key, 1) * right[key], rtol=1e-15)


def test_cache_has_the_labs_order() -> None:
    X, Y, parameters = lab.gradient_check_n_test_case()
    _, (Z1, A1, W1, b1, Z2, A2, W2, b2, Z3, A3, W3, b3) = lab.forward_propagation_n(
        X, Y, parameters
    )
    for name, value in zip(parameters, (W1, b1, W2, b2, W3, b3), strict=True):
        assert np.array_equal(value, parameters[name])
    np.testing.assert_array_equal(Z2, W2 @ A1 + b2)
    np.testing.assert_array_equal(A2, np.maximum(Z2, 0))
    np.testing.assert_array_equal(A1, np.maximum(Z1, 0))
    np.testing.assert_allclose(A3, 1 / (1 + np.exp(-Z3)))


def test_vectors_and_dictionaries_are_inverse() -> None:
    _, _, parameters = lab.gradient_check_n_test_case()
    values, keys = lab.dictionary_to_vector(dict(reversed(parameters.items())))
    assert values.shape == (47, 1)
    assert keys == ["W1"] * 20 + ["b1"] * 5 + ["W2"] * 15 + ["b2"] * 3 + ["W3"] * 3 + ["b3"]
    back = lab.vector_to_dictionary(values)
    assert list(back) == list(parameters)
    for name in parameters:
        assert np.array_equal(back[name], parameters[name])
        assert not np.shares_memory(back[name], values)


def _other_network(*widths: int, m: int = 4) -> tuple[Any, Any, Tensors]:
    rng = np.random.default_rng(3)
    parameters = {}
    for l, (below, n) in enumerate(itertools.pairwise(widths), start=1):
        parameters[f"W{l}"] = rng.standard_normal((n, below)) / np.sqrt(below)
        parameters[f"b{l}"] = rng.standard_normal((n, 1))
    return rng.standard_normal((widths[0], m)), rng.integers(2, size=(widths[-1], m)), parameters


@pytest.mark.parametrize("widths", [(2, 1), (3, 4, 1), (3, 2), (4, 7, 5, 3, 2, 1), (2, 3, 4)])
def test_any_widths_and_depth(widths: tuple[int, ...]) -> None:
    X, Y, parameters = _other_network(*widths)
    values, _ = lab.dictionary_to_vector(parameters)
    for name, value in lab.vector_to_dictionary(values, parameters).items():
        assert np.array_equal(value, parameters[name])
    cost, cache = lab.forward_propagation_n(X, Y, parameters)
    assert cost == pytest.approx(fastgc.Network(X, Y)(parameters), rel=1e-12)
    right = lab.backward_propagation_n(X, Y, cache)
    assert lab.gradient_check_n(parameters, right, X, Y) < 2e-7
    faulty = lab.faulty_backward_propagation_n(X, Y, cache)
    assert lab.gradient_check_n(parameters, faulty, X, Y) > 1e-3
    assert fastgc.check(fastgc.Network(X, Y), parameters, right).ok


def test_labels_of_shape_m_and_1_m() -> None:
    X, Y, parameters, right, _ = lab_case()
    row = Y.reshape(1, -1)
    assert (
        lab.forward_propagation_n(X, row, parameters)[0]
        == lab.forward_propagation_n(X, Y, parameters)[0]
    )
    _, cache = lab.forward_propagation_n(X, row, parameters)
    assert np.array_equal(lab.backward_propagation_n(X, row, cache)["dW1"], right["dW1"])
    assert lab.gradient_check_n(parameters, right, X, row) == lab.gradient_check_n(
        parameters, right, X, Y
    )


def test_labels_that_would_broadcast_are_refused() -> None:
    X, Y, parameters = lab.gradient_check_n_test_case()
    with pytest.raises(
        ValueError, match=r"Y has shape \(3, 1\); the output has shape \(1, 3\).* Transpose Y\?"
    ):
        lab.forward_propagation_n(X, Y.reshape(3, 1), parameters)
    with pytest.raises(ValueError, match=r"Y has shape \(1,\); the output has shape \(1, 3\)"):
        lab.forward_propagation_n(X, Y[:1], parameters)


def test_integer_parameters_are_not_truncated() -> None:
    X = np.array([[1, 2, -1], [0, 3, 1]])
    Y = np.array([1, 0, 1])
    parameters = {
        "W1": np.array([[2, -1], [3, 1]]),
        "b1": np.array([[5], [1]]),
        "W2": np.array([[1, -1]]),
        "b2": np.array([[-2]]),
    }
    _, cache = lab.forward_propagation_n(X, Y, parameters)
    right = lab.backward_propagation_n(X, Y, cache)
    assert lab.gradient_check_n(parameters, right, X, Y) < 2e-7
    faulty = lab.faulty_backward_propagation_n(X, Y, cache)
    assert lab.gradient_check_n(parameters, faulty, X, Y) > 0.1
    assert all(value.dtype.kind == "i" for value in parameters.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_difference_that_is_no_number_is_a_mistake(
    bad: float, capsys: pytest.CaptureFixture[str]
) -> None:
    X, Y, parameters, right, _ = lab_case()
    right["dW2"] = right["dW2"].copy()
    right["dW2"][0, 0] = bad
    difference = lab.gradient_check_n(parameters, right, X, Y, print_msg=True)
    assert not math.isfinite(difference)
    assert (
        capsys.readouterr().out
        == f"{YELLOW}There is a mistake in the backward propagation! difference = {difference}{RESET}\n"
    )


def test_nan_parameters_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    X, Y, parameters, right, _ = lab_case()
    parameters["W1"][0, 0] = math.nan
    assert math.isnan(lab.gradient_check_n(parameters, right, X, Y, print_msg=True))
    assert "There is a mistake" in capsys.readouterr().out


def test_a_saturated_output_is_a_mistake_to_the_lab(capsys: pytest.CaptureFixture[str]) -> None:
    X, Y, parameters, right, _ = lab_case()
    parameters["b3"] = np.array([[1000.0]])
    assert math.isnan(lab.gradient_check_n(parameters, right, X, Y, print_msg=True))
    assert "There is a mistake" in capsys.readouterr().out


def test_one_dimensional_nan_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert math.isnan(lab.gradient_check(math.nan, 4, print_msg=True))
    assert capsys.readouterr().out.startswith(f"{YELLOW}There is a mistake")


def test_two_zero_gradients_differ_by_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.gradient_check(0, 4, print_msg=True) == 0.0
    assert (
        capsys.readouterr().out
        == f"{GREEN}Your backward propagation works perfectly fine! difference = 0.0{RESET}\n"
    )
    X, Y, parameters = (
        np.zeros((2, 2)),
        np.array([[0.5, 0.5]]),
        {"W1": np.zeros((1, 2)), "b1": np.zeros((1, 1))},
    )
    gradients = {"dW1": np.zeros((1, 2)), "db1": np.zeros((1, 1))}
    assert lab.gradient_check_n(parameters, gradients, X, Y) == 0.0


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    X, Y, parameters, right, faulty = lab_case()
    wrong = lab.gradient_check_n(parameters, faulty, X, Y, print_msg=True)
    fine = lab.gradient_check_n(parameters, right, X, Y, 1e-7, True)
    one = lab.gradient_check(3, 4, print_msg=True)
    assert capsys.readouterr().out == (
        f"{YELLOW}There is a mistake in the backward propagation! difference = {wrong}{RESET}\n"
        f"{GREEN}Your backward propagation works perfectly fine! difference = {fine}{RESET}\n"
        f"{GREEN}Your backward propagation works perfectly fine! difference = {one}{RESET}\n"
    )


def test_nothing_is_printed_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    X, Y, parameters, right, _ = lab_case()
    lab.gradient_check_n(parameters, right, X, Y)
    lab.gradient_check(3, 4)
    assert capsys.readouterr().out == ""


def test_results_are_plain_floats() -> None:
    X, Y, parameters, right, _ = lab_case()
    assert type(lab.gradient_check_n(parameters, right, X, Y)) is float
    assert type(lab.gradient_check(2, 4)) is float


SELF_TESTS = {
    lab.forward_propagation_test: (lab.forward_propagation, "J = theta"),
    lab.backward_propagation_test: (lab.backward_propagation, "dtheta = x"),
    lab.gradient_check_test: (lab.gradient_check, "norm"),
}

WRONG = [
    lambda x, theta, *_: x + theta,
    lambda *_: None,
    lambda *_: np.zeros((1, 1)),
    lambda *_: math.nan,
    lambda *_: "8",
    lambda *_: True,
]


@pytest.mark.parametrize("self_test", SELF_TESTS)
def test_self_tests_pass_what_is_right(self_test: Any, capsys: pytest.CaptureFixture[str]) -> None:
    self_test(SELF_TESTS[self_test][0])
    assert capsys.readouterr().out == PASSED


@pytest.mark.parametrize("self_test", SELF_TESTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_self_tests_refuse_what_is_wrong(
    self_test: Any, wrong: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        AssertionError, match=f"<lambda>.* returned .*; wanted .*{SELF_TESTS[self_test][1]}"
    ):
        self_test(wrong)
    assert capsys.readouterr().out == ""


def _by_sums(x: float, theta: float) -> float:
    """The difference without `np.linalg.norm`, and with each side halved first."""
    slope = (x * (theta + 1e-7) - x * (theta - 1e-7)) / 1e-7 / 2
    return abs(x - slope) / (abs(x) + abs(slope))


@pytest.mark.parametrize("target", [lab.gradient_check, _by_sums])
@pytest.mark.parametrize("kind", [float, np.float64, np.asarray])
def test_the_difference_of_three_and_four_may_be_passed_too(
    target: Any, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.gradient_check_test(target, kind(target(3, 4)))
    lab.gradient_check_test(target, difference=7.814075313343006e-11 + 0.9e-12)
    assert capsys.readouterr().out == 2 * PASSED


@pytest.mark.parametrize(
    "difference",
    [
        7.814075313343006e-11 + 1.1e-12,
        7.814075313343006e-11 - 1.1e-12,
        lab.gradient_check(2, 4),
        0.0,
        math.nan,
        np.full((1, 1), 7.814075313343006e-11),
        "7.814075313343006e-11",
    ],
)
def test_another_difference_is_refused(difference: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=r"difference is .*; wanted 7\.81408e-11"):
        lab.gradient_check_test(lab.gradient_check, difference)
    assert capsys.readouterr().out == ""


def test_a_right_difference_excuses_no_wrong_function() -> None:
    with pytest.raises(AssertionError, match=r"<lambda>\(3, 4\) returned 7"):
        lab.gradient_check_test(lambda x, theta: x + theta, lab.gradient_check(3, 4))


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("kind", [float, np.float64])
def test_the_self_test_of_n_dimensions_passes_either_number(
    planted: bool, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    X, Y, parameters, *both = lab_case()
    seen: list[Any] = []

    def target(*arguments: Any) -> Any:
        seen.extend(arguments)
        return kind(lab.gradient_check_n(*arguments))

    lab.gradient_check_n_test(target, parameters, both[planted], X, Y)
    assert capsys.readouterr().out == PASSED
    assert all(a is b for a, b in zip(seen, (parameters, both[planted], X, Y), strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        *WRONG[1:],
        lambda *_: np.array(0.2850931567761623),
        lambda *_: np.array([[1.1890913024229996e-07]]),
        lambda *_: 1.4e-7,
        lambda *_: 0.0,
        lambda *_: 0.2851,
        lambda *_: -0.2850931567761623,
    ],
)
def test_the_self_test_of_n_dimensions_refuses_what_is_wrong(
    wrong: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    X, Y, parameters, right, _ = lab_case()
    with pytest.raises(AssertionError, match=r"<lambda>.* returned .*; wanted 0\.285093"):
        lab.gradient_check_n_test(wrong, parameters, right, X, Y)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, g: lab.vector_to_dictionary(np.zeros(40)), "theta holds 40 values; wanted 47"),
        (lambda p, g: lab.dictionary_to_vector({"W1": [[1.0]]}), '"b1" is missing; wanted W1, b1, W2'),
        (lambda p, g: lab.dictionary_to_vector({}), '"W1" is missing'),
        (lambda p, g: lab.gradients_to_vector(p), '"dW1" is missing; wanted dW1, db1'),
        (lambda p, g: lab.gradient_check_n(p, {k: g[k] for k in ("dW1", "db1")}, np.ones((4, 3)), [1, 1, 0]), "gradients hold 25 values; parameters hold 47"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call: Any, message: str) -> None:
    _, _, parameters, right, _ = lab_case()
    with pytest.raises(ValueError, match=message):
        call(parameters, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, p: (X.T, p), r"W1 has shape \(5, 4\); wanted \(n_1, 3\).* transpose X"),
        (lambda X, p: (X, {**p, "W2": p["W2"].T}), r"W2 has shape \(5, 3\); wanted \(n_2, 5\)"),
        (lambda X, p: (X, {**p, "b1": p["b1"].ravel()}), r"b1 has shape \(5,\); wanted \(5, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: Any, message: str) -> None:
    X, Y, parameters, right, _ = lab_case()
    X, parameters = change(X, parameters)
    with pytest.raises(ValueError, match=message):
        lab.forward_propagation_n(X, Y, parameters)
    with pytest.raises(ValueError, match=message):
        lab.gradient_check_n(parameters, right, X, Y)


def test_extreme_sigmoid_and_relu() -> None:
    np.testing.assert_allclose(lab.sigmoid([-1000.0, 0.0, 1000.0]), [0.0, 0.5, 1.0], atol=1e-300)
    assert lab.relu(np.array([-1, 0, 2])).tolist() == [0, 0, 2]
    assert math.isnan(lab.relu(math.nan))


IMPORTS = """
import numpy as np
from fastgc.lab import *
from fastgc.lab import sigmoid, relu, dictionary_to_vector, vector_to_dictionary, gradients_to_vector
"""

DEFINITIONS = """
def forward_propagation(x, theta):
    J = theta * x
    return J

forward_propagation_test(forward_propagation)

def backward_propagation(x, theta):
    dtheta = x
    return dtheta

backward_propagation_test(backward_propagation)

def gradient_check(x, theta, epsilon=1e-7, print_msg=False):
    theta_plus = theta + epsilon
    theta_minus = theta - epsilon
    gradapprox = (forward_propagation(x, theta_plus) - forward_propagation(x, theta_minus)) / (2 * epsilon)
    grad = backward_propagation(x, theta)
    difference = np.linalg.norm(grad - gradapprox) / (np.linalg.norm(grad) + np.linalg.norm(gradapprox))
    return difference

gradient_check_test(gradient_check)
gradient_check_test(gradient_check, gradient_check(3, 4, print_msg=True))

def forward_propagation_n(X, Y, parameters):
    m = X.shape[1]
    W1, b1, W2, b2, W3, b3 = (parameters[k] for k in ("W1", "b1", "W2", "b2", "W3", "b3"))
    Z1 = np.dot(W1, X) + b1
    A1 = relu(Z1)
    Z2 = np.dot(W2, A1) + b2
    A2 = relu(Z2)
    Z3 = np.dot(W3, A2) + b3
    A3 = sigmoid(Z3)
    log_probs = np.multiply(-np.log(A3), Y) + np.multiply(-np.log(1 - A3), 1 - Y)
    cost = 1. / m * np.sum(log_probs)
    return cost, (Z1, A1, W1, b1, Z2, A2, W2, b2, Z3, A3, W3, b3)

def backward_propagation_n(X, Y, cache):
    m = X.shape[1]
    (Z1, A1, W1, b1, Z2, A2, W2, b2, Z3, A3, W3, b3) = cache
    dZ3 = A3 - Y
    dW3, db3 = 1. / m * np.dot(dZ3, A2.T), 1. / m * np.sum(dZ3, axis=1, keepdims=True)
    dA2 = np.dot(W3.T, dZ3)
    dZ2 = np.multiply(dA2, np.int64(A2 > 0))
    dW2, db2 = FACTOR_W2 / m * np.dot(dZ2, A1.T), 1. / m * np.sum(dZ2, axis=1, keepdims=True)
    dA1 = np.dot(W2.T, dZ2)
    dZ1 = np.multiply(dA1, np.int64(A1 > 0))
    dW1, db1 = 1. / m * np.dot(dZ1, X.T), FACTOR_b1 / m * np.sum(dZ1, axis=1, keepdims=True)
    return {"dZ3": dZ3, "dW3": dW3, "db3": db3, "dA2": dA2, "dZ2": dZ2, "dW2": dW2, "db2": db2,
            "dA1": dA1, "dZ1": dZ1, "dW1": dW1, "db1": db1}

def gradient_check_n(parameters, gradients, X, Y, epsilon=1e-7, print_msg=False):
    parameters_values, _ = dictionary_to_vector(parameters)
    grad = gradients_to_vector(gradients)
    num_parameters = parameters_values.shape[0]
    J_plus = np.zeros((num_parameters, 1))
    J_minus = np.zeros((num_parameters, 1))
    for i in range(num_parameters):
        theta_plus = np.copy(parameters_values)
        theta_plus[i] = theta_plus[i] + epsilon
        J_plus[i], _ = forward_propagation_n(X, Y, vector_to_dictionary(theta_plus))
        theta_minus = np.copy(parameters_values)
        theta_minus[i] = theta_minus[i] - epsilon
        J_minus[i], _ = forward_propagation_n(X, Y, vector_to_dictionary(theta_minus))
    gradapprox = (J_plus - J_minus) / (2 * epsilon)
    numerator = np.linalg.norm(grad - gradapprox)
    return numerator / (np.linalg.norm(grad) + np.linalg.norm(gradapprox))

"""

CALLS = """
X, Y, parameters = gradient_check_n_test_case()
cost, cache = forward_propagation_n(X, Y, parameters)
gradients = backward_propagation_n(X, Y, cache)
difference = gradient_check_n(parameters, gradients, X, Y, 1e-7, True)
expected_values = [0.2850931567761623, 1.1890913024229996e-07]
assert not(type(difference) == np.ndarray)
assert np.any(np.isclose(difference, expected_values))
gradient_check_n_test(gradient_check_n, parameters, gradients, X, Y)
"""


@pytest.mark.parametrize("again", [False, True], ids=["once", "with the import cell run again"])
@pytest.mark.parametrize(
    ("factors", "wanted"), [((2.0, 4.0), 0.2850931567761623), ((1.0, 1.0), 1.1890913e-07)]
)
def test_a_course_notebook_runs_with_its_imports_pointed_here(
    factors: tuple[float, float],
    wanted: float,
    again: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells: dict[str, Any] = {"FACTOR_W2": factors[0], "FACTOR_b1": factors[1]}
    for cell in (IMPORTS, DEFINITIONS, *([IMPORTS] if again else []), CALLS):
        exec(cell, cells)
    assert cells["difference"] == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert capsys.readouterr().out == PASSED * 5
    assert all(cells[name] is not getattr(lab, name) for name in WRITTEN_BY_STUDENTS)
