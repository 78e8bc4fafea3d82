"""Whatever is passed: a result, a report, or an error that says what is wrong; see `boundary`."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import fastgc
from tests.boundary import PATIENCE, Call, Recorded, Violation, attempt
from tests.calls import calls
from tests.hostile import squares

THETA = np.array([1.0, 2.0])


@given(calls())
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_whatever_is_passed_the_claims_hold(call: Call) -> None:
    attempt(call)


@pytest.mark.parametrize(
    ("gradients", "options", "outcome"),
    [
        (2 * THETA, {}, "correct"),
        (3 * THETA, {}, "wrong"),
        (2 * THETA, {"epsilon": 1e-16}, "correct"),  # a longer step is taken
        (2 * THETA, {"epsilon": 0}, "refused: ValueError"),
        (None, {}, "refused: TypeError"),
        (2 * THETA, {"eps": 1e-7}, "refused: TypeError"),
    ],
)
def test_the_outcome_is_named(gradients: Any, options: dict[str, Any], outcome: str) -> None:
    for function in (fastgc.check, fastgc.assert_gradients):
        args = (Recorded("cost", squares), THETA, gradients)
        assert attempt(Call(function, None, args, options)) == outcome


def test_a_network_is_called_too() -> None:
    assert attempt(Call(None, ([[1.0, 2.0]], [0, 1], {}), ())) == "result"
    assert attempt(Call(None, ([[1.0, 2.0]], [0, 2], {}), ())) == "refused: ValueError"


def test_the_costs_own_exception_is_told_from_a_refusal() -> None:
    def cost(_: Any) -> float:
        raise ValueError("own")

    call = Call(fastgc.numerical_gradient, None, (Recorded("cost", cost), THETA))
    assert attempt(call) == "cost's own exception"


def _modifies(_: Any, array: Any) -> None:
    array[0] = 7.0


def _locks(_: Any, array: Any) -> None:
    array.flags.writeable = False


def _draws(*_: Any) -> None:
    np.random.rand()


def _sets_errors(*_: Any) -> None:
    np.seterr(over="ignore")


def _warns(*_: Any) -> None:
    warnings.warn("foreign", RuntimeWarning, stacklevel=1)


def _foreign(*_: Any) -> None:
    raise KeyError("W1")


def _not_ours(*_: Any) -> None:
    raise ValueError("not raised by fastgc")


def _silent(*_: Any) -> None:
    raise ValueError


def _swallows_the_note(cost: Any, array: Any) -> None:
    cost(array)


def _accepts_nan(cost: Any, parameters: Any, _gradients: Any) -> fastgc.Report:
    return fastgc.check(cost, parameters, 2 * parameters)


NOTHING = Recorded("cost", squares)


@pytest.mark.parametrize(
    ("function", "args", "claim"),
    [
        (_modifies, (NOTHING, THETA.copy()), "nothing of the caller's is modified"),
        (_locks, (NOTHING, THETA.copy()), "nothing of the caller's is modified"),
        (_draws, (), "no random state is modified"),
        (_sets_errors, (), "NumPy's error state is as it was"),
        (_warns, (), "no exception of another kind\nRuntimeWarning: foreign"),
        (_foreign, (), "no exception of another kind\nKeyError: 'W1'"),
        (_not_ours, (), "fastgc raised it on purpose"),
        (_silent, (), "a message says what is wrong"),
        (_swallows_the_note, (Recorded("cost", lambda _: 1 / 0), THETA), "the cost's exception has one note"),
        (_accepts_nan, (NOTHING, THETA, THETA * np.nan), "no gradient with a NaN is called correct"),
    ],
)  # fmt: skip
def test_a_claim_that_does_not_hold_is_noticed(
    function: Callable[..., Any], args: tuple[Any, ...], claim: str
) -> None:
    with pytest.raises(Violation) as caught:
        attempt(Call(function, None, args))
    assert str(caught.value).startswith(f"not so: {claim}")
    assert "\n" + function.__name__ + ": data=None, args=(" in str(caught.value)


def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs() -> None:
        while True:
            pass

    monkeypatch.setattr("tests.boundary.PATIENCE", PATIENCE / 100)
    with pytest.raises(Violation, match=r"it ends within 0\.1 s"):
        attempt(Call(hangs, None, ()))
