"""The public boundary: containers, options, costs that misbehave, and what they are told."""

import collections
import copy
import dataclasses
import fractions
import math
import pickle
import re
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastgc
from tests.cases import FUNCTIONS, NETWORKS, FunctionCase, backward, lab_case
from tests.shown import naming


class Pair(NamedTuple):
    a: Any
    b: Any


def quadratic(p: Any) -> float:
    return float(np.sum(p["W"] ** 2) + 3.0 * p["c"])


PARAMETERS: dict[str, Any] = {"W": np.array([[1.0, 2.0], [3.0, -4.0]]), "c": 0.5}
GRADIENTS: dict[str, Any] = {"W": np.array([[2.0, 4.0], [6.0, -8.0]]), "c": 3.0}


@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda case: case.name)
@pytest.mark.parametrize("vectorized", [False, True])
def test_every_container(case: FunctionCase, vectorized: bool) -> None:
    cost = case.stacked if vectorized else case.cost
    assert cost is not None
    assert fastgc.check(cost, case.parameters, case.gradients, vectorized=vectorized).ok
    assert fastgc.check(cost, case.parameters, lambda p: case.gradients, vectorized=vectorized).ok
    found = fastgc.numerical_gradient(cost, case.parameters, vectorized=vectorized)
    if isinstance(case.parameters, dict):
        assert list(found) == list(case.parameters)
        pairs = [(found[name], case.gradients[name]) for name in found]
    elif isinstance(case.parameters, list):
        assert isinstance(found, list)
        pairs = list(zip(found, case.gradients, strict=True))
    else:
        pairs = [(found, case.gradients)]
    for value, wanted in pairs:
        assert value.dtype == np.float64
        assert value.shape == np.shape(wanted)
        np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_containers_keep_their_kind() -> None:
    seen: list[Any] = []

    def cost(p: Any) -> float:
        seen.append(p)
        return float(np.sum(p[0]) * p[1])

    pair: Any = Pair(np.ones(2), 2.0)
    assert isinstance(fastgc.numerical_gradient(cost, pair), Pair)
    assert all(isinstance(p, Pair) for p in seen)
    assert isinstance(fastgc.numerical_gradient(cost, (np.ones(2), 2.0)), tuple)
    assert isinstance(fastgc.numerical_gradient(cost, [np.ones(2), 2.0]), list)
    ordered = collections.OrderedDict(W=np.eye(2), c=1.0)
    assert list(fastgc.numerical_gradient(quadratic, ordered)) == ["W", "c"]


def test_entries_are_named_in_every_container() -> None:
    def worst(parameters: Any, gradients: Any, cost: Any) -> str:
        (tensor,) = (
            t for t in fastgc.check(cost, parameters, gradients).tensors.values() if not t.ok
        )
        return tensor.worst.name

    wrong = np.array([[2.0, 4.0], [6.0, 8.0]])
    assert worst(PARAMETERS, {**GRADIENTS, "W": wrong}, quadratic) == "W[1, 1]"
    assert worst(PARAMETERS, {**GRADIENTS, "c": 4.0}, quadratic) == "c"

    def square(w: Any) -> float:
        return float(np.sum(w**2))

    assert worst(PARAMETERS["W"], wrong, square) == "parameters[1, 1]"
    assert (
        worst([2.0, PARAMETERS["W"]], [4.0, wrong], lambda p: square(p[0]) + square(p[1]))
        == "parameters[1][1, 1]"
    )


def test_gradients_keyed_with_d() -> None:
    assert fastgc.check(quadratic, PARAMETERS, {"dW": GRADIENTS["W"], "dc": 3.0}).ok
    assert fastgc.check(quadratic, PARAMETERS, {"W": GRADIENTS["W"], "dc": 3.0}).ok


def test_a_parameter_may_be_called_dW() -> None:
    def cost(p: Any) -> float:
        return float(p["W"] + 2 * p["dW"])

    assert fastgc.check(cost, {"W": 1.0, "dW": 1.0}, {"W": 1.0, "dW": 2.0}).ok
    assert fastgc.check(cost, {"W": 1.0, "dW": 1.0}, {"W": 1.0, "ddW": 2.0}).ok
    assert not fastgc.check(cost, {"W": 1.0, "dW": 1.0}, {"W": 2.0, "dW": 1.0}).ok


def test_the_labs_eleven_gradients_are_taken_as_they_are() -> None:
    X, Y, parameters, right, faulty = lab_case()
    net = fastgc.Network(X, Y)
    assert fastgc.check(net, parameters, right).ok
    report = fastgc.check(net, parameters, faulty)
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["b1", "W2"]
    assert report.difference == pytest.approx(0.2850931567761623, rel=1e-7)


def test_a_network_takes_a_sequence_and_names_its_tensors() -> None:
    net, parameters = NETWORKS[0].build()
    right = backward(net, parameters)
    gradients = [right[name] for name in parameters]
    report = fastgc.check(net, list(parameters.values()), gradients)
    assert report.ok
    assert list(report.tensors) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert isinstance(fastgc.numerical_gradient(net, list(parameters.values())), list)


def test_nothing_of_the_callers_changes() -> None:
    kept: list[Any] = []

    def cost(p: Any) -> float:
        kept.append(p["W"])
        return quadratic(p)

    parameters, gradients = copy.deepcopy(PARAMETERS), copy.deepcopy(GRADIENTS)
    for array in (parameters["W"], gradients["W"]):
        array.flags.writeable = False
    fastgc.check(cost, parameters, gradients)
    for mine, theirs in ((parameters, PARAMETERS), (gradients, GRADIENTS)):
        assert np.array_equal(mine["W"], theirs["W"])
    assert not np.shares_memory(kept[0], parameters["W"])
    # what a cost keeps is its own: no later perturbation shows in it
    assert len({id(array) for array in kept}) == len(kept)
    assert all(np.abs(array - PARAMETERS["W"]).max() <= 2e-7 for array in kept[:2] + kept[11:])
    assert np.array_equal(kept[0], PARAMETERS["W"])


def test_gradients_function_gets_copies() -> None:
    parameters: dict[str, Any] = {"W": np.ones((2, 2)), "c": 0.0}

    def gradients(p: Any) -> Any:
        result = {"W": 2 * p["W"].copy(), "c": 3.0}
        p["W"][:] = 7.0
        return result

    assert fastgc.check(quadratic, parameters, gradients).ok
    assert np.array_equal(parameters["W"], np.ones((2, 2)))


def test_integers_and_single_precision_are_converted() -> None:
    def cost(w: Any) -> float:
        assert w.dtype == np.float64
        return float(np.sum(w**2))

    for dtype in (np.int8, np.uint32, np.int64, np.float16, np.float32, np.longdouble):
        w = np.array([1, 2, 3], dtype=dtype)
        assert fastgc.check(cost, w, 2 * w).ok


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24.0).reshape(4, 6)[::2, ::2],
        np.arange(6.0).reshape(3, 2).T,
        np.arange(6.0).reshape(2, 3)[::-1, ::-1],
        np.broadcast_to(1.5, (2, 3)),
        np.arange(6.0).reshape(2, 3).astype(">f8"),
    ],
    ids=["fortran", "strided", "transposed", "reversed", "broadcast", "big-endian"],
)
def test_any_memory_layout(array: Any) -> None:
    weights = np.arange(1.0, 7.0).reshape(2, 3)
    report = fastgc.check(lambda w: float((weights * w**2).sum()), array, 2 * weights * array)
    assert report.ok
    found = fastgc.numerical_gradient(lambda w: float((weights * w**2).sum()), array)
    np.testing.assert_allclose(found, 2 * weights * array, rtol=1e-6, atol=1e-7)


W = np.ones((3, 5))


@pytest.mark.parametrize(
    ("parameters", "gradients", "error", "message"),
    [
        ({"W2": W}, {"dW2": W.T}, ValueError, 'gradients["dW2"] … (5, 3) … parameters["W2"] … (3, 5) … Transpose'),
        ({"b": np.ones((3, 1))}, {"b": np.ones(3)}, ValueError, 'gradients["b"] … (3,) … parameters["b"] … (3, 1) … .reshape((3, 1))'),
        ({"b": np.ones((3, 1))}, {"b": np.ones((3, 7))}, ValueError, 'gradients["b"] … (3, 7) … parameters["b"] … (3, 1) … Sum'),
        ({"W": W}, {"W": np.ones((3, 4))}, ValueError, 'gradients["W"] … (3, 4) … parameters["W"] … (3, 5)'),
        ([W], [W.T], ValueError, "gradients[0] … (5, 3) … parameters[0] … (3, 5) … Transpose"),
        (W, W.T, ValueError, "gradients … (5, 3) … parameters … (3, 5) … Transpose"),
        ({"W": W, "b": 1.0}, {"W": W}, ValueError, 'gradients … "b" … "db" … parameters["b"] … W'),
        ({"W": W}, {}, ValueError, 'gradients … "W" … "dW" … parameters["W"] … none'),
        ({"W": W}, {"W": W, "dW": W}, ValueError, 'gradients … "W" … "dW" … parameters["W"]'),
        ({"W": W, "b": 1.0}, {"W": W, "bias": 1.0}, ValueError, 'gradients … "b" … "db" … parameters["b"] … W, bias … only=["W"]'),
        ({"W": W, "b": 1.0}, {"dW": W, "db": None}, ValueError, 'dW … only=["W"]'),
        ([W, 1.0, W], [W, None, W], ValueError, 'gradients[1] is None … only=["parameters[0]", "parameters[2]"]'),
        ([W, W], [W], ValueError, "gradients … 1 … parameters … 2"),
        ({"W": W}, [W], TypeError, "gradients … sequence … parameters … mapping"),
        (W, {"W": W}, TypeError, "gradients … mapping … parameters … array"),
        (W, None, TypeError, "gradients is None"),
        (None, W, TypeError, "parameters is None"),
        ({1.0, 2.0}, W, TypeError, "parameters is a set"),
        (iter([W]), [W], TypeError, "parameters is a list_iterator"),
        ({}, {}, ValueError, "parameters is empty"),
        ([], [], ValueError, "parameters is empty"),
        (np.empty((0, 3)), W, ValueError, "parameters … (0, 3)"),
        ({"W": W, "b": []}, {"W": W, "b": []}, ValueError, 'parameters["b"] … (0,)'),
        ({1: W}, {1: W}, TypeError, "parameters … 1 … int"),
        ({"W": W}, {b"W": W}, TypeError, "gradients … b'W' … bytes"),
        ({"layer": {"W": W}}, {}, TypeError, 'parameters["layer"] is a dict'),
        ({"W": [[1.0, 2.0], [3.0]]}, {}, TypeError, 'parameters["W"]'),
        ({"W": W.astype(complex)}, {}, TypeError, 'parameters["W"] … complex128'),
        ({"W": W > 0}, {}, TypeError, 'parameters["W"] … bool'),
        ({"W": W.astype(object)}, {}, TypeError, 'parameters["W"] … object'),
        ("weights", W, TypeError, "parameters … <U7"),
        ({"W": None}, {}, TypeError, 'parameters["W"] … object'),
        ({"W": np.array(["2020-01-01"], dtype="datetime64[D]")}, {}, TypeError, 'parameters["W"] … datetime64[D]'),
        (W, W * 1j, TypeError, "gradients … complex128"),
        (W, W > 0, TypeError, "gradients … bool"),
        ({"W": np.where(np.arange(15).reshape(3, 5) == 7, np.nan, W)}, {}, ValueError, "W[1, 2] is nan"),
        ([np.array([1.0, -np.inf])], [W], ValueError, "parameters[0][1] is -inf"),
        (math.nan, 1.0, ValueError, "parameters is nan"),
    ],
)  # fmt: skip
def test_unusable_parameters_and_gradients(
    parameters: Any, gradients: Any, error: type[Exception], message: str
) -> None:
    def never(_: Any) -> float:
        raise AssertionError("wrong input is refused before any work is done")

    with pytest.raises(error, match=naming(message)):
        fastgc.check(never, parameters, gradients)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "stack"}, ValueError, 'method is "stack"'),
        ({"method": None}, TypeError, "method is None"),
        ({"epsilon": 0}, ValueError, "epsilon is 0"),
        ({"epsilon": -1e-7}, ValueError, "epsilon is -1e-07"),
        ({"epsilon": math.nan}, ValueError, "epsilon is nan"),
        ({"epsilon": math.inf}, ValueError, "epsilon is inf"),
        ({"epsilon": "small"}, ValueError, 'epsilon is "small"'),
        ({"epsilon": [1e-7]}, TypeError, "epsilon is [1e-07]"),
        ({"reseed": 3}, TypeError, "reseed is 3"),
        ({"epsilon": True}, TypeError, "epsilon is True"),
        ({"tolerance": -1}, ValueError, "tolerance is -1"),
        ({"tolerance": math.nan}, ValueError, "tolerance is nan"),
        ({"tolerance": None}, TypeError, "tolerance is None"),
        ({"memory": 0}, ValueError, "memory is 0"),
        ({"memory": 1e9}, TypeError, "memory is 1000000000.0"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"threads": 2.0}, TypeError, "threads is 2.0"),
        ({"threads": True}, TypeError, "threads is True"),
        ({"vectorized": 1}, TypeError, "vectorized is 1"),
        ({"progress": "no"}, TypeError, "progress is 'no'"),
    ],
)  # fmt: skip
def test_unusable_options(options: Any, error: type[Exception], message: str) -> None:
    def never(_: Any) -> float:
        raise AssertionError("wrong input is refused before any work is done")

    with pytest.raises(error, match=re.escape(message)):
        fastgc.check(never, W, W, **options)
    if "tolerance" not in options:
        with pytest.raises(error, match=re.escape(message)):
            fastgc.numerical_gradient(never, W, **options)


def test_a_random_cost_can_be_frozen() -> None:
    rng = np.random.RandomState(0)

    def dropout(w: Any) -> float:
        mask = rng.random_sample(w.shape) < 0.5
        return float((mask * w**2).sum())

    def gradients(w: Any) -> Any:
        return 2 * w * (rng.random_sample(w.shape) < 0.5)

    with pytest.raises(
        ValueError,
        match=r"the cost differs by .*reseed=",
    ):
        fastgc.check(dropout, W, gradients)
    report = fastgc.check(dropout, W, gradients, reseed=lambda: rng.seed(3))
    assert report.ok
    assert not fastgc.check(dropout, W, 2 * W, reseed=lambda: rng.seed(3)).ok
    rng.seed(3)
    frozen = gradients(W)
    found = fastgc.numerical_gradient(dropout, W, reseed=lambda: rng.seed(3))
    np.testing.assert_allclose(found, frozen, rtol=1e-6)


def test_a_random_vectorized_cost_can_be_frozen() -> None:
    rng = np.random.RandomState(0)

    def dropout(w: Any) -> Any:
        return (w**2 * (rng.random_sample(w.shape[1:]) < 0.5)).sum(axis=(1, 2))

    rng.seed(3)
    right = 2 * W * (rng.random_sample(W.shape) < 0.5)
    assert fastgc.check(dropout, W, right, vectorized=True, reseed=lambda: rng.seed(3)).ok


def test_a_reseed_of_another_generator_is_told_so() -> None:
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match="reseed= was called"):
        fastgc.check(
            lambda w: float(w.sum() + rng.random_sample()), W, W, reseed=lambda: np.ones(1)
        )


def test_a_cost_that_resizes_its_parameters() -> None:
    def cost(w: Any) -> Any:
        w.resize(7, refcheck=False)
        return np.zeros(1)

    with pytest.raises(ValueError, match=naming("the cost … parameters … 15 … 7")):
        fastgc.check(cost, W, W, vectorized=True)


def test_gradients_with_a_cache_are_recognised() -> None:
    with pytest.raises(TypeError, match=naming("gradients … sequence … first element")):
        fastgc.check(quadratic, PARAMETERS, lambda p: (GRADIENTS, "cache"))


def test_an_exception_of_reseed_passes() -> None:
    def fails() -> None:
        raise LookupError("no generator")

    with pytest.raises(LookupError, match="no generator"):
        fastgc.check(lambda w: float(w.sum()), W, W, reseed=fails)


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="takes 3 positional arguments but 4 were given"):
        fastgc.check(np.sum, W, W, "loop")  # type: ignore[call-arg, arg-type]  # the mistake under test


def test_a_cost_that_is_no_function() -> None:
    swapped: Any = {"W": W}
    with pytest.raises(
        TypeError,
        match=r"cost is a dict",
    ):
        fastgc.check(swapped, W, W)


def _random_cost() -> Any:
    rng = np.random.default_rng(0)
    return lambda w: float(np.sum(w) + rng.standard_normal())


def _writes(w: Any) -> float:
    w *= 2.0
    return float(w.sum())


def _writes_a_stack(w: Any) -> Any:
    w[..., 0] += 1.0
    return w.sum(axis=(1, 2))


@pytest.mark.parametrize(
    ("cost", "vectorized", "error", "message"),
    [
        (lambda w: w.sum(axis=1), False, TypeError, "the cost … (3,)"),
        (lambda w: w[:0, 0], False, TypeError, "the cost … (0,)"),
        (lambda w: None, False, TypeError, "the cost … None"),
        (lambda w: complex(w.sum()), False, TypeError, "the cost … complex"),
        (lambda w: "1.0", False, TypeError, "the cost … str"),
        (lambda w: True, False, TypeError, "the cost … bool"),
        (lambda w: {"loss": 1.0}, False, TypeError, "the cost … dict"),
        (lambda w: (w.sum(), w), False, TypeError, "the cost … tuple"),
        (lambda w: math.nan, False, ValueError, "the cost is nan"),
        (lambda w: -math.inf, False, ValueError, "the cost is -inf"),
        (_random_cost(), False, ValueError, "between two identical calls"),
        (_writes, False, ValueError, "the cost … parameters[0, 0] … 1.0 … 2.0"),
        (_writes_a_stack, True, ValueError, "the cost … parameters[0, 0] … 1.0"),
        (lambda w: float(w.sum()), True, TypeError, "the vectorized cost … () … (1,)"),
        (lambda w: w.sum(axis=1), True, TypeError, "the vectorized cost … (1, 5) … (1,)"),
        (lambda w: None, True, TypeError, "the cost … None … (1,)"),
        (lambda w: w.sum(axis=(1, 2)) > 0, True, TypeError, "the cost … bool … (1,)"),
        (lambda w: np.full(len(w), np.nan), True, ValueError, "the cost is nan"),
    ],
)  # fmt: skip
def test_costs_that_misbehave(
    cost: Any, vectorized: bool, error: type[Exception], message: str
) -> None:
    mine = W.copy()
    with pytest.raises(error, match=naming(message)):
        fastgc.check(cost, mine, W, vectorized=vectorized)
    assert np.array_equal(mine, W)


@pytest.mark.parametrize(
    "cost",
    [
        lambda w: np.sum(w),
        lambda w: np.asarray(np.sum(w)),
        lambda w: np.float32(np.sum(w)),
        lambda w: int(np.sum(w)),
        lambda w: fractions.Fraction(float(np.sum(w))),
        lambda w: np.sum(w).reshape(1),
        lambda w: np.sum(w, keepdims=True),
        lambda w: np.sum(w, keepdims=True, dtype=np.float32),
        lambda w: [np.sum(w)],
    ],
    ids=[
        "float64",
        "0-d",
        "float32",
        "int",
        "fraction",
        "(1,)",
        "(1, 1)",
        "float32 (1, 1)",
        "list",
    ],
)
def test_any_real_scalar_is_a_cost(cost: Any) -> None:
    assert fastgc.check(cost, W, np.ones_like(W)).verdict in ("correct", "unresolved", "wrong")


def test_an_exception_a_step_away_is_no_fault_of_the_gradient() -> None:
    class OwnError(Exception):
        pass

    def cost(p: Any) -> float:
        if p["W"][1, 2] < 1.0:
            raise OwnError("negative")
        return float((p["W"] ** 2).sum())

    found = fastgc.numerical_gradient(cost, {"W": W})
    np.testing.assert_allclose(found["W"], 2 * W, rtol=1e-6)
    assert fastgc.check(cost, {"W": W}, {"W": 2 * W}).ok
    wrong = 2 * W
    wrong[1, 2] = 2.1
    report = fastgc.check(cost, {"W": W}, {"W": wrong})
    assert report.verdict == "wrong"
    assert report.worst(1)[0].name == "W[1, 2]"


def test_what_was_met_is_said_where_no_side_exists() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818  named as what it is; and it allows no notes
        code: int

    calls = 0

    def cost(w: Any) -> float:
        nonlocal calls
        calls += 1
        if w[0, 1] != W[0, 1]:
            raise Frozen(7)
        return float(w.sum())

    report = fastgc.check(cost, W, np.ones_like(W))
    assert report.evaluations == calls
    assert report.verdict == "unresolved"
    assert report.tensors["parameters"].counts["unresolved"] == 1
    said = report.tensors["parameters"].diagnosis
    assert said is not None
    assert said.kind == "cost"
    assert "Frozen" in said.text
    assert "parameters[0, 1]" in said.text
    assert np.isnan(fastgc.numerical_gradient(cost, W)[0, 1])


def test_an_exception_at_the_parameters_and_in_a_stack() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        fastgc.check(lambda w: 1 / 0, W, W)
    assert caught.value.__notes__ == ["fastgc: the cost raised this at the parameters as given"]

    def stacked(w: Any) -> Any:
        if len(w) > 9:
            raise ZeroDivisionError
        return w.sum(axis=(1, 2))

    with pytest.raises(ZeroDivisionError) as caught:
        fastgc.check(stacked, W, W, vectorized=True)
    assert caught.value.__notes__ == [
        "fastgc: the cost raised this in the stack from parameters[0, 0] +1e-07 "
        "to parameters[2, 4] -1e-07"
    ]

    def distant(w: Any) -> float:
        if np.abs(w - 1).max() > 0 and np.count_nonzero(w - 1) > 1:
            raise ZeroDivisionError
        return float(w.sum())

    assert fastgc.check(distant, W, np.ones_like(W)).ok


def test_ctrl_c_passes_without_a_note() -> None:
    def cost(_: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fastgc.check(cost, W, W)
    assert not hasattr(caught.value, "__notes__")


def test_evaluations_are_counted() -> None:
    for vectorized in (False, True):
        calls = 0

        def cost(w: Any, vectorized: bool = vectorized) -> Any:
            nonlocal calls
            calls += len(w) if vectorized else 1
            return np.sin(w).sum(axis=-1)

        report = fastgc.check(cost, np.ones(7), np.cos(np.ones(7)), vectorized=vectorized)
        assert report.ok
        assert report.evaluations == calls
        calls = 0
        fastgc.numerical_gradient(cost, np.ones(7), vectorized=vectorized)
        assert calls == 2 + 2 * 7 + 1  # the last at the parameters


def test_epsilon_and_tolerance_are_used() -> None:
    def cost(t: Any) -> float:
        return float(t**3)

    assert fastgc.numerical_gradient(cost, 2.0, epsilon=0.5) == pytest.approx(12.25)
    assert fastgc.check(cost, 2.0, 12.25).verdict == "wrong"
    assert fastgc.check(cost, 2.0, 12.25, epsilon=0.5).verdict == "wrong"  # no step excuses it
    assert fastgc.check(cost, 2.0, 12.25, tolerance=0.1).ok
    assert fastgc.check(cost, 2.0, 12.0, epsilon=1e-5).epsilon == 1e-5


def test_single_precision_costs_are_not_accused() -> None:
    def cost(w: Any) -> float:
        return float(np.sum(np.sin(w.astype(np.float32))))

    w = np.linspace(0.1, 1, 20)
    assert fastgc.check(cost, w, np.cos(w)).ok
    assert fastgc.check(cost, w, np.cos(w), epsilon=1e-2, tolerance=1e-3).ok
    assert fastgc.check(cost, w, -np.cos(w), epsilon=1e-2, tolerance=1e-3).verdict == "wrong"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_step_too_short_for_the_precision_proves_no_zero(dtype: Any) -> None:
    def cost(w: Any) -> float:
        return float(np.sum(w.astype(dtype) ** 2, dtype=dtype))

    # no step of 1e-7 changes this cost, and all-zero gradients would match that
    assert fastgc.check(cost, np.full(3, 0.3), np.zeros(3)).verdict == "wrong"


@pytest.mark.parametrize(
    "cost",
    [
        lambda w: float(1e12 + w.sum()),
        lambda w: round(float((w**2).sum()), 4),
        lambda w: float(np.float32(100) + np.sum(np.sin(w.astype(np.float32)))),
    ],
    ids=["offset", "rounded", "single"],
)
def test_forgotten_gradients_of_a_coarse_cost_do_not_pass(cost: Any) -> None:
    assert not fastgc.check(cost, np.full(3, 0.3), np.zeros(3)).ok


def test_a_subclass_of_network_is_checked_as_what_it_computes() -> None:
    class Penalised(fastgc.Network):
        def __call__(self, parameters: Any) -> float:
            return super().__call__(parameters) + float((parameters["W1"] ** 2).sum())

    net, parameters = NETWORKS[0].build()
    penalised = Penalised(net.X, net.Y)
    gradients = backward(net, parameters)
    assert not fastgc.check(penalised, parameters, gradients).ok
    gradients["W1"] = gradients["W1"] + 2 * parameters["W1"]
    assert fastgc.check(penalised, parameters, gradients).ok


def test_numbers_beyond_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="tolerance is 1000"):
        fastgc.check(lambda w: float(w.sum()), W, W, tolerance=10**400)
    with pytest.raises(ValueError, match="the cost is inf"):
        fastgc.check(lambda w: 10**400, W, W)


def test_a_network_whose_rows_do_not_fit_is_looped() -> None:
    net, parameters = NETWORKS[0].build()
    report = fastgc.check(net, parameters, backward(net, parameters), memory=1000)
    assert (report.verdict, report.method) == ("correct", "loop")


def test_strict_floating_point_settings_are_no_obstacle() -> None:
    net = fastgc.Network([[1.0, 2.0]], [1, 0])
    parameters = {"W1": np.array([[400.0]]), "b1": np.array([[0.0]])}
    with np.errstate(all="raise"):
        assert fastgc.check(net, parameters, backward(net, parameters)).verdict != "wrong"


def test_assert_gradients() -> None:
    assert fastgc.assert_gradients(quadratic, PARAMETERS, GRADIENTS).ok
    wrong = {**GRADIENTS, "c": 4.0}
    with pytest.raises(
        fastgc.GradientMismatch,
        match=r"^wrong: c \(1 of 1 entry\)",
    ) as caught:
        fastgc.assert_gradients(quadratic, PARAMETERS, wrong)
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value) == str(caught.value.report)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.report == caught.value.report
    with pytest.raises(
        fastgc.GradientMismatch,
        match=r"^cannot tell: parameters \(1 of 1 entry\)",
    ):
        fastgc.assert_gradients(lambda t: 1.0 + 1e-12 * t, 1.0, 1e-12)
    with pytest.raises(TypeError, match="no option eps="):
        fastgc.assert_gradients(quadratic, PARAMETERS, GRADIENTS, eps=1)  # type: ignore[call-arg]
