"""The analytic gradient as it is handed over: which keys count, and what stands for an array."""

import math
from typing import Any

import numpy as np
import pytest

import fastgc
from tests.cases import NETWORKS, Array, backward
from tests.shown import naming

ROWS = np.array([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]])


def half_square(w: Any) -> float:
    return sum(0.5 * float(np.sum(np.square(part))) for part in w)


@pytest.mark.parametrize("named", ["{}", "d{}"])
def test_what_belongs_to_no_parameter_is_passed_over(named: str) -> None:
    net, parameters = NETWORKS[0].build()
    gradients = {named.format(key): g for key, g in backward(net, parameters).items()}
    beside = {"dZ1": ROWS, "dz1": ROWS, "da0": 0.0, "dX": ROWS, "cost": "1.0", "cache": None}
    assert fastgc.check(net, parameters, beside | gradients).ok
    wrong = gradients | {named.format("b2"): gradients[named.format("b2")] + 0.1}
    report = fastgc.check(net, parameters, beside | wrong)
    assert {name for name, tensor in report.tensors.items() if not tensor.ok} == {"b2"}


@pytest.mark.parametrize("key", ["w2", "dw2", "W2 ", "dW4", "grad_W2"])
def test_a_misspelt_key_leaves_a_parameter_without_its_gradient(key: str) -> None:
    net, parameters = NETWORKS[0].build()
    gradients = backward(net, parameters)
    gradients[key] = gradients.pop("W2")
    with pytest.raises(ValueError, match=f'"W2".*"dW2".*{key}'):
        fastgc.check(net, parameters, gradients)


def test_a_proposal_names_a_dozen_tensors_at_most() -> None:
    parameters = {f"w{i}": np.ones(1) for i in range(40)}
    gradients = {name: np.ones(1) for name in list(parameters)[:30]}
    with pytest.raises(ValueError, match=r'only=\["w0", .*, "w11", …\]'):
        fastgc.check(lambda p: half_square(p.values()), parameters, gradients)


@pytest.mark.parametrize("as_lists", [np.ndarray.tolist, list, tuple])
@pytest.mark.parametrize("theta", [ROWS[0], ROWS[:, :1], ROWS, np.stack([ROWS, 2 * ROWS])])
def test_lists_are_the_gradient_of_an_array(as_lists: Any, theta: Array) -> None:
    assert fastgc.check(half_square, theta, as_lists(theta)).ok
    assert fastgc.check(half_square, theta, lambda _: as_lists(theta)).ok
    assert fastgc.check(half_square, theta, as_lists(1.1 * theta)).verdict == "wrong"
    with pytest.raises(ValueError, match=r"gradients .*\(.*parameters .*\("):
        fastgc.check(half_square, theta, as_lists(theta[:1] if len(theta) > 1 else theta[:0]))


@pytest.mark.parametrize("theta", [ROWS[0].tolist(), ROWS.tolist(), tuple(ROWS), [ROWS, ROWS]])
def test_an_array_is_the_gradient_of_a_list_of_equals(theta: Any) -> None:
    gradients = np.array(theta)
    assert fastgc.check(half_square, theta, gradients).ok
    assert not fastgc.check(half_square, theta, 1.1 * gradients).ok
    narrow = fastgc.check(half_square, theta, gradients.astype(np.float32) * np.float32(1 + 1e-5))
    assert narrow.ok


def test_lists_of_float32_are_held_to_what_it_allows() -> None:
    near = ROWS * (1 + 1e-5)
    assert not fastgc.check(half_square, ROWS, near.tolist()).ok
    assert fastgc.check(half_square, ROWS, list(near.astype(np.float32))).ok


@pytest.mark.parametrize(
    ("parameters", "gradients", "error", "message"),
    [
        (ROWS, [ROWS], TypeError, "gradients … sequence … parameters … array"),
        (ROWS, (ROWS, {"Z": ROWS}), TypeError, "gradients … sequence … parameters … array"),
        (ROWS[0], [ROWS[0], ROWS[0]], TypeError, "gradients … sequence … parameters … array"),
        (ROWS, [[1.0, 2.0], [3.0]], TypeError, "gradients … sequence … parameters … array"),
        (ROWS, ROWS.T.tolist(), ValueError, "gradients … (3, 2) … parameters … (2, 3) … Transpose"),
        (ROWS, [], ValueError, "gradients … (0,) … parameters … (2, 3)"),
        (ROWS[0], [1j, 2.0, 3.0], TypeError, "gradients … complex128"),
        (ROWS[0], ["1", "2", "3"], TypeError, "gradients … <U1"),
        (ROWS[0].tolist(), ROWS[0, :2], TypeError, "gradients … array … parameters … sequence"),
        ([ROWS, ROWS[0]], np.ones(9), TypeError, "gradients … array … parameters … sequence"),
        ([1.0, 2.0], np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, "gradients … masked"),
        ({"w": ROWS[0]}, {"w": [0.5, -1.5]}, ValueError, 'gradients["w"] … (2,) … parameters["w"] … (3,)'),
    ],
)  # fmt: skip
def test_what_stands_for_no_array_is_refused(
    parameters: Any, gradients: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=naming(message)):
        fastgc.check(lambda _: math.nan, parameters, gradients)


def test_a_column_is_what_a_vectorized_cost_may_return() -> None:
    def column(w: Array) -> Array:
        return np.asarray(0.5 * np.sum(w * w, axis=1, keepdims=True))

    assert fastgc.check(column, ROWS[0], ROWS[0], vectorized=True).ok
    assert not fastgc.check(column, ROWS[0], 1.1 * ROWS[0], vectorized=True).ok
