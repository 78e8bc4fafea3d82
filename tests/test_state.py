"""What fastgc sees inside a Network: exact differences in NumPy, and what is built on them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from mpmath import mp, mpf

import fastgc
from fastgc.costs.base import as_cost
from fastgc.diagnosis.network import _last
from fastgc.network.cost import state_of
from fastgc.network.layers import ACTIVATIONS, LOSSES, Loss
from fastgc.network.state import rounding_of_gradients
from tests import exact
from tests.bugs import Pass
from tests.cases import NetworkCase, backward, other_backward
from tests.strategies import examples, networks

POINTS = [*np.linspace(-40, 40, 33), -1e-9, 1e-9, 0.3, -0.7, 1e-300]
STEPS = [sign * d for d in (1.0, 0.37, 1e-3, 2.0**-40) for sign in (1, -1)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_changes_of_activations(name: str) -> None:
    with mp.workdps(50):
        for d in STEPS:
            z = np.array([*POINTS, -1.2784645427610738])
            found = ACTIVATIONS[name].change(z, d)
            for at, change in zip(z, found, strict=True):
                activate = exact._ACTIVATIONS[name]
                wanted = activate(mpf(float(at)) + mpf(d)) - activate(mpf(float(at)))
                error = abs(mpf(float(change)) - wanted)
                assert error <= max(1e-13 * abs(wanted), 1e-15 * abs(d)), (at, d)


@pytest.mark.parametrize("loss", LOSSES)
def test_changes_of_losses(loss: str) -> None:
    rng = np.random.default_rng(0)
    n, m = 4, 60
    z = rng.standard_normal((n, m)) * np.repeat([0.3, 3.0, 30.0], m // 3)
    Y: Any = rng.random((n, m))
    if loss == "softmax":
        Y = rng.integers(n, size=m)
    labels = LOSSES[loss].labels(Y if loss == "softmax" else np.array(Y))
    identity = {"W1": np.eye(n), "b1": np.zeros((n, 1))}
    for d in (0.5, -0.5, 1e-7, 2.0**-40, -(2.0**-40)):
        found = LOSSES[loss].change(z, labels, d)
        for s in range(0, m, 7):
            for k in range(n):
                one = fastgc.Network(z[:, [s]], Y[..., [s]], loss=loss)
                with mp.workdps(50):
                    moved = exact.rows({"W1": identity["W1"], "b1": identity["b1"]})
                    before = exact.cost(one, moved)
                    moved["b1"][k][0] += mpf(d)
                    wanted = exact.cost(one, moved) - before
                error = abs(mpf(float(found[k, s])) - wanted)
                assert error <= max(1e-12 * abs(wanted), 3e-15 * abs(d)), (loss, k, s, d)


def test_slopes_at_a_corner_are_those_of_most_backward_passes() -> None:
    assert ACTIVATIONS["relu"].slopes(np.array([0.0, -1.0, 1e-9])).tolist() == [0.0, 0.0, 1.0]
    assert ACTIVATIONS["leaky_relu"].slopes(np.array([0.0, 1.0])) == pytest.approx([0.01, 1.0])


@given(case=networks(max_depth=5))
@examples(80)
def test_sensitivities_are_those_of_backpropagation(case: NetworkCase) -> None:
    net, parameters = case.build()
    state = state_of(as_cost(net, parameters))
    assert state is not None
    right = Pass(net, parameters)
    for D, wanted in zip(state.sensitivities, right.dZ[1:], strict=True):
        np.testing.assert_allclose(D.T, wanted, rtol=1e-9, atol=1e-11 * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("seed", range(40))
def test_two_right_passes_differ_by_no_more_than_rounding(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(2, 6))
    case = NetworkCase(
        "deep", tuple(int(n) for n in rng.integers(1, 9, depth + 1)), 5,
        tuple(str(rng.choice(sorted(ACTIVATIONS))) for _ in range(depth - 1)), scale=scale, seed=seed,
    )  # fmt: skip
    net, parameters = case.build()
    problem = as_cost(net, parameters)
    bound = problem.rounding()
    assert bound is not None
    one, other = backward(net, parameters), other_backward(net, parameters)
    for name, part in problem.layout.tensors():
        apart = np.abs(one[name] - other[name]).ravel()
        size = np.abs(one[name]).max()
        assert (apart <= 2e-7 * size + bound[part]).all()


def test_the_bound_of_rounding_is_no_licence() -> None:
    net, parameters = NetworkCase("plain", (2, 3, 3, 1), 4, "relu", loss="squared").build()
    problem = as_cost(net, parameters)
    bound = problem.rounding()
    assert bound is not None
    right = backward(net, parameters)
    size = max(np.abs(g).max() for g in right.values())
    assert bound.max() < 1e-13 * size


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_loss_says_of_its_backward_pass(loss: str) -> None:
    """dZ_L is A − Y: without the labels it is A, and the size of its terms |A| + |Y|."""
    net, parameters = NetworkCase("plain", (3, 4, 3), 5, "tanh", loss=loss).build()
    state = state_of(as_cost(net, parameters))
    assert state is not None
    Z, dZ = state.values[1][-1].T, state.sensitivities[-1].T
    A = LOSSES[loss].without_labels(Z, net.labels, dZ)
    Y = np.eye(3)[:, net.Y.astype(int)] if net.Y.ndim == 1 else net.Y
    if loss == "huber":  # its slope is held in [−1, 1]
        np.testing.assert_allclose(A, np.clip(Z, -1, 1))
        A = Z
    else:
        np.testing.assert_allclose(A, dZ + Y, rtol=1e-9)
    np.testing.assert_allclose(net.output_size(Z), np.abs(A) + np.abs(Y), rtol=1e-9)
    still = LOSSES[loss].rounding(Z, net.labels, dZ, np.zeros_like(Z))
    assert (still >= 0.99 * np.minimum(net.output_size(Z), 2.0)).all()
    moved = LOSSES[loss].rounding(Z, net.labels, dZ, np.ones_like(Z))
    assert (moved >= still).all()
    assert (moved > still).any()


def test_a_loss_without_rules_is_refused_everywhere() -> None:
    net, parameters = NetworkCase("plain", (3, 4, 3), 5, "tanh", loss="softmax").build()
    state = state_of(as_cost(net, parameters))
    assert state is not None
    assert state.sensitivities  # made while the loss is a known one
    net.loss = "hinge"
    for asked in (
        lambda: net.output_size(state.values[1][-1].T),
        lambda: rounding_of_gradients(state),
        lambda: list(_last(state)),
    ):
        with pytest.raises(KeyError, match="hinge"):
            asked()
    with pytest.raises(TypeError):
        Loss(9, LOSSES["squared"].value, np.atleast_2d, LOSSES["squared"].change)  # type: ignore[call-arg]  # the mistake under test
