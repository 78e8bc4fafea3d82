"""The response: exact differences against 50 digits, and what the methods make of them."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mpmath import mp, mpf

import fastgc
from fastgc.core.verdict import THRESHOLDS
from fastgc.costs.base import Base, Cost, as_cost
from fastgc.methods.base import Approximation
from fastgc.methods.registry import METHODS
from fastgc.network import exact_changes
from fastgc.network.layers import ACTIVATIONS, LOSSES
from fastgc.parallel.chunks import Resources
from tests import exact
from tests.cases import Array, NetworkCase, backward, corner_distance
from tests.strategies import examples, networks

EXACT = [name for name, method in METHODS.items() if method.exact]
RESOURCES = Resources(2**28, 2, lambda _: None)

# z from −40 to 40, near 0 and near silu's minimum; δ from 1e-12 to 1, and beyond
POINTS = [*np.linspace(-40, 40, 21), -1e-9, 1e-9, 0.3, -0.7, -1.2784645427610738, -1.25]
STEPS = [*np.logspace(-12, 0, 13), 3e-6, 0.37, 2.5, 39.0, 250.0]
GRID = [(z, sign * d) for z in POINTS for d in STEPS for sign in (1, -1)]


@numba.njit
def each_change(code: int, z: Any, d: Any, alone: Any, in_row: Any) -> None:
    row = np.empty(1)
    for i in range(z.size):
        alone[i] = exact_changes.change_at(code, z[i], d[i])
        row[0] = d[i]
        exact_changes.change_row(code, z[i], row, 1)
        in_row[i] = row[0]


@numba.njit
def loss_change(loss: int, Z: Any, labels: Any, chances: Any, D: Any, r: Any) -> None:
    exact_changes.change_loss(loss, Z, 0, labels, chances, D, r.size, r)


def within(found: float, wanted: Any, d: float) -> bool:
    """The accuracy wanted: 1e-13 relative, or 1e-15 · |δ| where the difference passes through 0."""
    return bool(abs(mpf(found) - wanted) <= max(1e-13 * abs(wanted), 1e-15 * abs(d)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_changes_of_activations(name: str) -> None:
    z, d = np.array(GRID).T.copy()
    alone, in_row = np.empty((2, z.size))
    each_change(ACTIVATIONS[name].code, z, d, alone, in_row)
    activate: Callable[[Any], Any] = exact._ACTIVATIONS[name]
    with mp.workdps(50):
        for i in range(z.size):
            wanted = activate(mpf(z[i]) + mpf(d[i])) - activate(mpf(z[i]))
            assert within(alone[i], wanted, d[i]), (z[i], d[i], alone[i], wanted)
            assert within(in_row[i], wanted, d[i]), (z[i], d[i], in_row[i], wanted)


@pytest.mark.parametrize("y", [0.0, 1.0, 0.3])
def test_changes_of_the_logistic_loss(y: float) -> None:
    with mp.workdps(50):
        for z, d in GRID:
            found = np.empty(1)
            labels, at = np.array([y]), np.array([z])
            loss_change(LOSSES["logistic"].code, at, labels, labels, np.array([[d]]), found)
            a, b = mpf(z), mpf(z) + mpf(d)
            wanted = mpf(y) * (mp.log1p(mp.exp(-b)) - mp.log1p(mp.exp(-a)))
            wanted += (1 - mpf(y)) * (mp.log1p(mp.exp(b)) - mp.log1p(mp.exp(a)))
            assert within(found[0], wanted, d), (z, d, found[0], wanted)


def test_changes_of_the_squared_loss() -> None:
    with mp.workdps(50):
        for z, d in GRID:
            found = np.empty(1)
            at, labels = np.array([z]), np.array([1.7])
            loss_change(LOSSES["squared"].code, at, labels, labels, np.array([[d]]), found)
            a, b = mpf(z) - mpf(1.7), mpf(z) + mpf(d) - mpf(1.7)
            wanted = (b * b - a * a) / 2
            # z − y is rounded once, as in any evaluation of the loss
            assert abs(found[0] - wanted) <= 1e-13 * abs(wanted) + 1e-15 * abs(
                d * (abs(z) + abs(d))
            )


def test_changes_of_the_huber_loss() -> None:
    steps = [*GRID, *((r, d) for r, _ in GRID for d in (-2.5, -1.0, 1.0, 2.5))]

    def huber(r: Any) -> Any:
        return r * r / 2 if abs(r) <= 1 else abs(r) - mpf(0.5)

    with mp.workdps(50):
        for r, d in steps:
            found = np.empty(1)
            loss_change(
                LOSSES["huber"].code,
                np.array([r]),
                np.zeros(1),
                np.zeros(1),
                np.array([[d]]),
                found,
            )
            wanted = huber(mpf(r) + mpf(d)) - huber(mpf(r))
            assert within(found[0], wanted, d), (r, d, found[0], wanted)


@given(
    n=st.integers(2, 6),
    scale=st.sampled_from([0.3, 3.0, 40.0]),
    step=st.sampled_from([1e-12, 1e-7, 1e-3, 0.3, 1.0, 20.0, 900.0]),
    seed=st.integers(0, 2**32 - 1),
)
@examples(200)
def test_changes_of_the_softmax_loss(n: int, scale: float, step: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, d = scale * rng.standard_normal(n), step * rng.standard_normal((n, 1))
    y = int(rng.integers(n))
    chances = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    found = np.empty(1)
    loss_change(LOSSES["softmax"].code, z, np.array([float(y)]), chances, d, found)
    with mp.workdps(50):
        after = mp.log(mp.fsum(mp.exp(mpf(a) + mpf(b[0])) for a, b in zip(z, d, strict=True)))
        before = mp.log(mp.fsum(mp.exp(mpf(a)) for a in z))
        wanted = (after - mpf(d[y, 0])) - before
        widest = float(np.abs(d - d[y]).max())
    assert abs(found[0] - wanted) <= max(1e-13 * abs(wanted), 2e-15 * widest)


def approximate(method: str, problem: Cost, epsilon: float = 2.0**-40) -> Approximation:
    with np.errstate(all="ignore"):
        return METHODS[method].approximate(problem, None, Base(0.0, 0.0), epsilon, RESOURCES)


@pytest.mark.parametrize("method", EXACT)
@given(case=networks(max_scale=1.0), data=st.data())
@examples(60)
def test_agreement_with_mpmath(method: str, case: NetworkCase, data: st.DataObject) -> None:
    net, parameters = case.build()
    assume(corner_distance(net, parameters) > 1e-9)
    problem = as_cost(net, parameters)
    found = approximate(method, problem)
    k = data.draw(st.integers(0, problem.theta.size - 1))
    t = int(problem.layout.tensor_of(np.array([k]))[0])
    index = problem.layout.index(t, k - problem.layout.offsets[t])
    name = problem.layout.names[t]
    wanted = exact.central_difference(net, parameters, name, (index[0], index[1]), 2.0**-40)
    gross = found.uncertainty[k] / THRESHOLDS.safety
    assert abs(found.gradapprox[k] - wanted) <= 1e-12 * gross


@given(case=networks(max_depth=5), epsilon=st.sampled_from([1e-3, 0.5, 3.0]))
@examples(80)
def test_long_steps_are_those_of_the_loop(case: NetworkCase, epsilon: float) -> None:
    # steps that wake and silence units all over the network, beyond the range of the series
    net, parameters = case.build()
    problem = as_cost(net, parameters)
    reference = METHODS["loop"].approximate(
        problem, None, Base(problem.value(problem.theta), 1e-16), epsilon, RESOURCES
    )
    found = approximate("incremental", problem, epsilon)
    size = abs(problem.value(problem.theta)) / epsilon + np.abs(reference.gradapprox).max()
    assert np.abs(found.gradapprox - reference.gradapprox).max() <= 1e-11 * (size + 1.0)
    # sample by sample the interval is no shorter, but for the bend of the weight decay
    low, high = (
        ours - theirs for ours, theirs in zip(found.slopes(), reference.slopes(), strict=True)
    )
    uncertainty = 1e-9 * (size + 1.0) + 0.5 * epsilon * net.weight_decay / net.m
    assert low.max() <= uncertainty
    assert high.min() >= -uncertainty


@pytest.mark.parametrize("method", EXACT)
@given(case=networks(max_depth=5, max_scale=1.0))
@examples(100)
def test_right_gradients_differ_by_rounding_alone(method: str, case: NetworkCase) -> None:
    net, parameters = case.build()
    assume(corner_distance(net, parameters) > 1e-9)
    gradients = backward(net, parameters)
    size = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assume(size > 1e-3)  # saturated otherwise: A − Y has few digits
    assert fastgc.check(net, parameters, gradients, method=method).difference <= 1e-13


@pytest.mark.parametrize("method", EXACT)
def test_a_network_of_one_layer(method: str) -> None:
    X, Y = np.array([[1.0, -2.0, 0.0]]), np.array([1.0, 0.0, 1.0])
    parameters = {"W1": np.array([[0.5]]), "b1": np.array([[0.25]])}
    gradient = fastgc.numerical_gradient(fastgc.Network(X, Y), parameters, method=method)
    a = 1 / (1 + np.exp(-(0.5 * X + 0.25)))
    assert gradient["W1"][0, 0] == pytest.approx(((a - Y) * X).mean(), rel=1e-14)
    assert gradient["b1"][0, 0] == pytest.approx((a - Y).mean(), rel=1e-14)


@pytest.mark.parametrize("method", EXACT)
def test_dead_layers_and_zero_inputs_have_gradients_of_exactly_zero(method: str) -> None:
    net, parameters = NetworkCase("dead", (3, 4, 5, 2, 1), 6).build()
    parameters["b2"] = parameters["b2"] - 100.0  # layer 2 is silent: nothing below it matters
    parameters["b3"] = np.ones((2, 1))
    found = fastgc.numerical_gradient(net, parameters, method=method)
    for name in ("W1", "b1", "W2", "b2", "W3"):
        assert (found[name] == 0).all()
    assert (found["b3"] != 0).any()


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("width", [64, 65, 130, 257])
def test_layers_wider_than_a_block(method: str, width: int) -> None:
    net, parameters = NetworkCase("wide", (width, width, 3, width, 2), 2, "tanh").build()
    report = fastgc.check(net, parameters, backward(net, parameters), method=method)
    assert report.ok
    assert report.difference < 1e-14


@pytest.mark.parametrize("method", EXACT)
def test_zero_biases_and_zero_samples_are_kinks_not_mistakes(method: str) -> None:
    net, parameters = NetworkCase("corners", (4, 6, 5, 1), 7).build()
    X = net.X.copy()
    X[:, ::2] = 0.0
    net = fastgc.Network(X, net.Y)
    parameters = {k: v * (k[0] == "W") for k, v in parameters.items()}
    gradients = backward(net, parameters)
    report = fastgc.check(net, parameters, gradients, method=method)
    assert report.ok
    assert sum(tensor.counts["kink"] for tensor in report.tensors.values()) > 0
    gradients["b1"] = gradients["b1"] + 1.0
    assert not fastgc.check(net, parameters, gradients, method=method).ok


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("activation", ["relu", "softplus", "silu", "tanh"])
@pytest.mark.parametrize("size", [1e4, 1e13, 1e16, 1e18])
def test_inputs_of_any_size(method: str, activation: str, size: float) -> None:
    # steps of ε A far beyond 1, as with a time in nanoseconds
    case = NetworkCase("huge", (2, 4, 1), 5, activation)
    net, parameters = case.build()
    net = fastgc.Network(net.X * size, net.Y, activation=activation)
    assert (
        fastgc.check(net, parameters, backward(net, parameters), method=method).verdict != "wrong"
    )


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("seed", range(8))
def test_corners_that_rounding_hides(method: str, seed: int) -> None:
    # inputs of one decimal: some z is 0 or 1e-17, depending on the order of its sum
    rng = np.random.default_rng(seed)
    widths = (4, 6, 5, 1)
    parameters = {}
    for l, (k, n) in enumerate(pairwise(widths), start=1):
        parameters[f"W{l}"] = rng.integers(-5, 6, (n, k)) / 10
        parameters[f"b{l}"] = np.zeros((n, 1))
    net = fastgc.Network(rng.integers(-5, 6, (4, 6)) / 10, rng.integers(2, size=6))
    order = rng.permutation(4)
    shuffled = {**parameters, "W1": parameters["W1"][:, order]}
    gradients = backward(fastgc.Network(net.X[order], net.Y), shuffled)
    gradients["W1"] = gradients["W1"][:, np.argsort(order)]
    assert fastgc.check(net, parameters, gradients, method=method).verdict != "wrong"


@pytest.mark.parametrize("method", EXACT)
def test_a_gross_mistake_at_a_corner_is_wrong(method: str) -> None:
    net = fastgc.Network([[1.0, 1.0]], [[1.0, 2.0]], loss="squared")
    parameters = {"W1": [[0.0]], "b1": [[0.0]], "W2": [[1.0]], "b2": [[0.0]]}
    for slope, verdict in ((0.0, "correct"), (-1.5, "correct"), (-0.75, "correct"), (1e6, "wrong")):
        gradients = {"W1": [[slope]], "b1": [[slope]], "W2": [[0.0]], "b2": [[-1.5]]}
        assert fastgc.check(net, parameters, gradients, method=method).verdict == verdict


@pytest.mark.parametrize("method", EXACT)
def test_decay_of_tiny_weights(method: str) -> None:
    net = fastgc.Network([[0.0]], [0.0], loss="squared", weight_decay=1.0)
    tiny = {"W1": [[1e-27]], "b1": [[0.0]]}
    assert fastgc.check(net, tiny, tiny, method=method).ok


@pytest.mark.parametrize("part", ["forward", "sample_losses", "__call__"])
def test_a_network_that_computes_another_cost_is_not_seen_into(part: str) -> None:
    net, parameters = NetworkCase("other", (3, 4, 1), 5).build()
    whole = getattr(fastgc.Network, part)
    twice = type("Twice", (fastgc.Network,), {part: lambda self, *a: 2 * whole(self, *a)})
    gradients = {name: 2 * g for name, g in backward(net, parameters).items()}
    report = fastgc.check(twice(net.X, net.Y), parameters, gradients)
    assert (report.verdict, report.method) == ("correct", "loop")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_is_steeper_than_its_table_says(name: str) -> None:
    activation = ACTIVATIONS[name]
    measured = float(np.abs(activation.slopes(np.linspace(-30, 30, 600_001))).max())
    assert 0.99 * activation.steepest <= measured <= activation.steepest
    # over a long step it is no steeper
    z = np.linspace(-30, 30, 601)
    change = np.diff(activation.value(z.copy())) / np.diff(z)
    assert np.abs(change).max() <= activation.steepest


@pytest.mark.parametrize("method", EXACT)
def test_a_relu_that_a_steep_activation_wakes_is_not_left_out(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers up, a step wakes a ReLU that the slope of 1.0998 reaches and that of 1 does not."""
    h, steep = 2.0**-40, 2.3994  # where silu is steepest
    silu = ACTIVATIONS["silu"]
    rise = float(silu.change(np.array([steep]), h)[0])
    top = float(silu.value(np.array([steep]))[0])
    net = fastgc.Network([[1.0]], [0.0], activation=["identity", "silu", "relu"], loss="squared")
    one = np.ones((1, 1))
    parameters = {
        "W1": one, "b1": 0 * one, "W2": steep * one, "b2": 0 * one,
        "W3": one, "b3": -(top + 0.97 * steep * rise) * one, "W4": one, "b4": one,
    }  # fmt: skip
    woken = fastgc.numerical_gradient(net, parameters, method=method)
    assert abs(woken["W1"].item()) > 1e-3
    monkeypatch.setitem(ACTIVATIONS, "silu", replace(silu, steepest=0.9))
    asleep = fastgc.numerical_gradient(net, parameters, method=method)
    assert asleep["W1"].item() == 0


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("table", ["activation", "loss"])
def test_what_the_kernels_do_not_know_is_no_number(
    method: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activation or a loss that was added to its table and not to the kernels."""
    net, parameters = NetworkCase("new", (3, 4, 4, 2), 5, "tanh").build()
    if table == "activation":
        monkeypatch.setitem(ACTIVATIONS, "tanh", replace(ACTIVATIONS["tanh"], code=99))
    else:
        monkeypatch.setitem(LOSSES, "logistic", replace(LOSSES["logistic"], code=99))
    found = fastgc.numerical_gradient(net, parameters, method=method)
    assert np.isnan(found["W1"]).all()


@pytest.mark.parametrize("method", EXACT)
def test_a_function_is_refused(method: str) -> None:
    with pytest.raises(
        ValueError,
        match=f'"{method}" .*fastgc.Network.*method="loop"',
    ):
        fastgc.check(lambda t: t**2, 3.0, 6.0, method=method)


@pytest.mark.parametrize("method", EXACT)
def test_a_nan_on_the_way_stays_one(method: str) -> None:
    # finite at θ, infinite after the step: no fault of the gradient, and never right
    net = fastgc.Network([[1e308]], [0.0], loss="squared", activation="identity")
    parameters = {
        "W1": np.array([[0.0]]), "b1": np.array([[0.0]]),
        "W2": np.array([[1e308]]), "b2": np.array([[0.0]]),
    }  # fmt: skip
    gradients: dict[str, Array] = {name: np.zeros((1, 1)) for name in parameters}
    report = fastgc.check(net, parameters, gradients, method=method)
    assert report.verdict == "unresolved"
