"""Network: its cost against 50 digits, its shapes, and what it says of wrong input."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from mpmath import mp, mpf

import fastgc
from fastgc.core.tree import flatten_parameters
from fastgc.network.layers import ACTIVATIONS, LOSSES
from tests import exact
from tests.cases import NETWORKS, NetworkCase, Tensors, backward
from tests.shown import naming
from tests.strategies import examples, networks

U = 2.0**-53


@given(networks())
@examples(60)
def test_cost_agrees_with_mpmath(case: NetworkCase) -> None:
    net, parameters = case.build()
    wanted = exact.cost(net, exact.rows(parameters))
    got = net(parameters)
    # z is a sum of rounded products: its error is absolute, and the losses pass it on
    assert abs(got - float(wanted)) <= 200 * U * (1.0 + abs(float(wanted)))


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_backward_of_the_cases_agrees_with_mpmath(case: NetworkCase) -> None:
    net, parameters = case.build()
    for name, gradient in backward(net, parameters).items():
        for index in {(0, 0), (gradient.shape[0] - 1, gradient.shape[1] - 1)}:
            wanted = float(exact.central_difference(net, parameters, name, index, 1e-12))
            assert gradient[index] == pytest.approx(wanted, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("z", [-800.0, -40.0, -1.3, -1e-9, 0.0, 1e-9, 0.7, 40.0, 800.0])
def test_activation_agrees_with_mpmath(name: str, z: float) -> None:
    with mp.workdps(50):
        wanted = float(exact._ACTIVATIONS[name](mpf(z)))
    got = ACTIVATIONS[name].value(np.array([z]))[0]
    assert got == pytest.approx(wanted, rel=4 * U, abs=1e-300)


@pytest.mark.parametrize("z", [-800.0, -40.0, -0.3, 0.0, 0.5, 40.0, 800.0])
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_logistic_loss_is_accurate_at_saturation(z: float, y: float) -> None:
    net = fastgc.Network([[1.0]], [y])
    got = net({"W1": [[z]], "b1": [[0.0]]})
    with mp.workdps(500):
        wanted = y * mp.log(1 + mp.exp(-z)) + (1 - y) * mp.log(1 + mp.exp(z))
        assert got == pytest.approx(float(wanted), rel=8 * U)


@pytest.mark.parametrize("gap", [0.0, 1.0, 40.0, 700.0])
@pytest.mark.parametrize("label", [0, 1])
def test_softmax_loss_is_accurate_at_saturation(gap: float, label: int) -> None:
    net = fastgc.Network([[1.0]], [label], loss="softmax")
    got = net({"W1": [[gap], [0.0], [0.0]], "b1": np.zeros((3, 1))})
    with mp.workdps(500):
        wanted = mp.log(mp.exp(gap) + 2) - (gap if label == 0 else 0)
        assert got == pytest.approx(float(wanted), rel=8 * U)


def test_softmax_takes_class_indices_and_one_hot_columns() -> None:
    X = np.array([[1.0, 2.0, -1.0]])
    parameters = {"W1": [[0.3], [0.1], [-0.2]], "b1": np.zeros((3, 1))}
    by_index = fastgc.Network(X, [2, 0, 1], loss="softmax")
    one_hot = fastgc.Network(X, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], loss="softmax")
    assert by_index(parameters) == one_hot(parameters)


def test_labels_of_one_row_or_none() -> None:
    X = np.array([[1.0, 2.0, -1.0]])
    parameters = {"W1": [[0.3]], "b1": [[0.1]]}
    assert fastgc.Network(X, [1, 0, 1])(parameters) == fastgc.Network(X, [[1, 0, 1]])(parameters)


def test_labels_may_be_truth_values() -> None:
    X, parameters = np.array([[1.0, 2.0]]), {"W1": [[0.3]], "b1": [[0.1]]}
    labels: Any = np.array([True, False])
    assert fastgc.Network(X, labels)(parameters) == fastgc.Network(X, [1, 0])(parameters)


def test_squared_loss_is_half_the_mean_over_samples() -> None:
    net = fastgc.Network([[1.0, 2.0]], [[0.0, 0.0]], loss="squared")
    assert net({"W1": [[2.0]], "b1": [[0.0]]}) == (2.0**2 + 4.0**2) / 2 / 2


def test_weight_decay_counts_weights_and_no_biases() -> None:
    X, Y = np.zeros((2, 4)), np.zeros(4)
    parameters = {"W1": np.array([[1.0, 2.0]]), "b1": [[3.0]]}
    plain = fastgc.Network(X, Y)(parameters)
    decayed = fastgc.Network(X, Y, weight_decay=0.8)(parameters)
    assert decayed - plain == pytest.approx(0.8 / (2 * 4) * 5.0)


def test_parameters_as_a_sequence() -> None:
    net, parameters = NETWORKS[3].build()
    assert net(list(parameters.values())) == net(parameters)
    assert net(tuple(parameters.values())) == net(parameters)


def test_order_of_the_keys_does_not_matter() -> None:
    net, parameters = NETWORKS[3].build()
    assert net(dict(sorted(parameters.items()))) == net(parameters)


def test_a_vectors_cost_is_the_same_alone_and_in_a_stack() -> None:
    for case in NETWORKS:
        net, parameters = case.build()
        layout, theta = flatten_parameters(parameters)
        layers, _ = net.layers(layout)
        stack = theta + np.linspace(0, 1, 37)[:, np.newaxis]
        together = net.forward(layers, stack)
        alone = [float(net.forward(layers, row)) for row in stack]
        in_pairs = [net.forward(layers, stack[i : i + 2])[0] for i in range(36)]
        assert together.tolist() == alone
        assert together[:36].tolist() == in_pairs


def test_data_are_copied() -> None:
    X, Y = np.array([[1.0, 2.0]]), np.array([0.0, 1.0])
    net = fastgc.Network(X, Y)
    before = net({"W1": [[1.0]], "b1": [[0.0]]})
    X[:], Y[:] = 9.0, 1.0
    assert net({"W1": [[1.0]], "b1": [[0.0]]}) == before
    with pytest.raises(ValueError, match="read-only"):
        net.X[0, 0] = 3.0


def test_survives_pickling() -> None:
    net, parameters = NETWORKS[4].build()
    assert pickle.loads(pickle.dumps(net))(parameters) == net(parameters)


X32 = np.arange(6.0).reshape(3, 2)
Y2 = np.array([0, 1])
GOOD: Tensors = {
    "W1": np.ones((4, 3)),
    "b1": np.ones((4, 1)),
    "W2": np.ones((1, 4)),
    "b2": np.ones((1, 1)),
}


@pytest.mark.parametrize(
    ("X", "Y", "options", "error", "message"),
    [
        (X32.T, Y2[[0, 1, 0]][:2], {}, ValueError, "transpose X$"),
        (X32, Y2.reshape(2, 1), {}, ValueError, "transpose Y$"),
        (np.ones((5, 3)), np.ones((5, 1)), {}, ValueError, "transpose X and Y$"),
        (X32, [0, 1, 0, 1], {}, ValueError, r"X .*\(3, 2\).* Y .*\(4,\)"),
        (X32[0], Y2, {}, ValueError, r"X .*\(2,\).*reshape\(-1, 1\)"),
        (X32, np.ones((1, 1, 2)), {}, ValueError, r"Y .*\(1, 1, 2\)"),
        (X32, 1.0, {}, ValueError, r"Y .*\(\)"),
        (np.empty((3, 0)), [], {}, ValueError, r"X .*\(3, 0\)"),
        (np.where(X32 == 3, np.nan, X32), Y2, {}, ValueError, r"X\[1, 1\] is nan"),
        (X32, [0, np.inf], {}, ValueError, r"Y\[1\] is inf"),
        (X32, [0, 2], {}, ValueError, r"Y .* 2\b.*logistic.*\[0, 1\]"),
        (X32, [-1, 1], {}, ValueError, "Y .* -1.*logistic"),
        (X32, [0, 0.5], {"loss": "softmax"}, ValueError, "Y .* 0.5.*softmax"),
        (X32, [0, -1], {"loss": "softmax"}, ValueError, "Y .* -1.*softmax"),
        (X32, [[0, 1], [0, 0]], {"loss": "softmax"}, ValueError, "Y .*one-hot"),
        (X32, [[0, 2]], {"loss": "softmax"}, ValueError, r"Y.ravel\(\)"),
        (X32, Y2, {"loss": "hinge"}, ValueError, 'loss is "hinge"'),
        (X32, Y2, {"activation": "ReLU"}, ValueError, 'activation is "ReLU".*"relu"'),
        (X32, Y2, {"activation": ["relu", "elu"]}, ValueError, 'activation is "elu"'),
        (X32, Y2, {"activation": np.tanh}, TypeError, "activation is <ufunc 'tanh'>"),
        (X32, Y2, {"activation": [None]}, TypeError, "activation is None"),
        (X32, Y2, {"loss": None}, TypeError, "loss is None"),
        (X32, Y2, {"weight_decay": -1}, ValueError, "weight_decay is -1"),
        (X32, Y2, {"weight_decay": np.nan}, ValueError, "weight_decay is nan"),
        (X32, Y2, {"weight_decay": "0.1"}, TypeError, "weight_decay is '0.1'"),
        (X32.astype(complex), Y2, {}, TypeError, "X .*complex128"),
        ([["a"]], [1], {}, TypeError, "X .*<U1"),
        ([[1, 2], [3]], [1, 0], {}, TypeError, "^X "),
    ],
)  # fmt: skip
def test_unusable_data(X: Any, Y: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastgc.Network(X, Y, **options)


def _with(**changes: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {**GOOD, **changes}
    return {name: value for name, value in parameters.items() if value is not None}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (_with(W2=np.ones((4, 1))), "W2 … (4, 1) … (n_2, 4) … W1 … Transpose"),
        (_with(W2=np.ones((1, 7))), "W2 … (1, 7) … (n_2, 4) … W1 … width"),
        (_with(W1=np.ones((4, 2))), "W1 … (4, 2) … transpose X"),
        (_with(W1=np.ones((3, 4))), "W1 … (3, 4) … Transpose"),
        (_with(W1=np.ones((4, 9))), "W1 … (4, 9) … width"),
        (_with(W1=np.ones(4)), "W1 … (4,) … (n_1, 3)"),
        (_with(b1=np.ones(4)), "b1 … (4,) … (4, 1) … b1.reshape(-1, 1)"),
        (_with(b1=np.ones((5, 1))), "b1 … (5, 1) … (4, 1)"),
        (_with(b2=None), '"W2" … no "b2" … b2 = zeros'),
        (_with(W2=None), '"b2" … no "W2"'),
        (_with(W4=np.ones((1, 1))), '"W4" … W1, b1, W2, b2'),
        (_with(gamma=1.0), '"gamma"'),
        (_with(W2=np.ones((2, 4)), b2=np.ones((2, 1))), "W2 … 2 … Y … (2,) … 1"),
        (_with(W1=np.full((4, 3), np.inf)), "W1[0, 0] is inf"),
        (_with(b2=np.empty((0, 1))), 'parameters["b2"] … (0, 1)'),
        ([np.ones((1, 3))], "1 … W1, b1, W2, b2"),
        ({}, "parameters is empty"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit(parameters: Any, message: str) -> None:
    with pytest.raises(ValueError, match=naming(message)):
        fastgc.Network(X32, Y2)(parameters)


def test_one_array_is_no_network() -> None:
    with pytest.raises(TypeError, match=r"\(3,\)"):
        fastgc.Network(X32, Y2)(np.ones(3))


def test_a_class_beyond_the_outputs() -> None:
    net = fastgc.Network(X32, [0, 5], loss="softmax")
    with pytest.raises(ValueError, match=naming("Y … 5 … W1 … 2 … 0 to 1")):
        net({"W1": np.ones((2, 3)), "b1": np.ones((2, 1))})


def test_activations_are_counted() -> None:
    net = fastgc.Network(X32, Y2, activation=["relu", "tanh"])
    with pytest.raises(ValueError, match=naming("activation … 2 … 1")):
        net(GOOD)


def test_every_loss_and_activation_is_in_the_table() -> None:
    used = {case.loss for case in NETWORKS}
    hidden = {case.activation for case in NETWORKS if isinstance(case.activation, str)}
    hidden |= {
        name
        for case in NETWORKS
        if not isinstance(case.activation, str)
        for name in case.activation
    }
    assert used == set(LOSSES)
    assert hidden == set(ACTIVATIONS)


@pytest.mark.parametrize("divisor", [1, 10.0])
@pytest.mark.parametrize("method", ["loop", "stacked", "incremental", "node"])
def test_divisor_stands_where_m_does(divisor: float, method: str) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((3, 5)), rng.integers(0, 2, (2, 5))
    theta = {
        "W1": rng.standard_normal((4, 3)), "b1": rng.standard_normal((4, 1)),
        "W2": rng.standard_normal((2, 4)), "b2": rng.standard_normal((2, 1)),
    }  # fmt: skip
    mean = fastgc.Network(X, Y, activation="tanh", weight_decay=0.5)
    net = fastgc.Network(X, Y, activation="tanh", weight_decay=0.5, divisor=divisor)
    share = 5 / divisor
    assert net(theta) == pytest.approx(share * mean(theta), rel=1e-15)
    gradients = {
        name: share * value
        for name, value in fastgc.numerical_gradient(mean, theta, method="node").items()
    }
    assert fastgc.check(net, theta, gradients, method=method)
    gradients["W1"] = gradients["W1"] + 0.3 * theta["W1"]
    report = fastgc.check(net, theta, gradients, method=method)
    assert report.verdict == "wrong"
    diagnosis = report.tensors["W1"].diagnosis
    assert diagnosis is not None
    assert diagnosis.value == pytest.approx(0.3 * divisor)


@pytest.mark.parametrize(
    ("divisor", "error", "message"),
    [
        (0, ValueError, "divisor is 0"),
        (-1.0, ValueError, "divisor is -1.0"),
        ("m", TypeError, "divisor is 'm'"),
    ],
)
def test_divisors_that_are_none(divisor: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastgc.Network([[1.0]], [1.0], divisor=divisor)
