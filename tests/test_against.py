"""against=: whether a Network computes the caller's own cost."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import fastgc
from fastgc import lab
from fastgc.network.layers import ACTIVATIONS
from tests.cases import NetworkCase, Tensors, backward, lab_case, plain_cost, plain_forward
from tests.strategies import examples, networks


def test_the_labs_cost_is_the_networks() -> None:
    X, Y, parameters, right, faulty = lab_case()
    calls = 0

    def own(p: Any) -> float:
        nonlocal calls
        calls += 1
        return float(lab.forward_propagation_n(X, Y, p)[0])

    report = fastgc.check(fastgc.Network(X, Y), parameters, right, against=own)
    assert report.ok
    assert report.against is not None
    assert report.against < 1e-12
    assert re.search(r"agree to within \de-1\d\n", str(report))
    plain = fastgc.check(fastgc.Network(X, Y), parameters, right)
    assert report.evaluations == plain.evaluations + calls
    assert plain.against is None
    # a wrong gradient is told as before
    assert not fastgc.check(fastgc.Network(X, Y), parameters, faulty, against=own).ok


@given(case=networks(min_scale=0.3))
@examples(40)
def test_a_network_is_like_itself(case: NetworkCase) -> None:
    net, parameters = case.build()
    gradients = backward(net, parameters)
    report = fastgc.check(net, parameters, gradients, against=lambda p: net(p))
    assert report.against == 0.0


def _decayed(X: Any, Y: Any, p: Tensors) -> float:
    return plain_forward(X, Y, p) + 1e-5 * float((p["W1"] ** 2).sum())


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            lambda X, Y, p: X.shape[1] * plain_forward(X, Y, p),
            "2.407",
        ),
        (lambda X, Y, p: plain_forward(X, Y, p) + 1e-4, "0.0001"),
        (
            _decayed,
            "weight decay",
        ),
        (
            lambda X, Y, p: plain_forward(X, 1 - Y, p),
            "against=",
        ),
        (
            lambda X, Y, p: 3 * plain_forward(X, Y, p),
            "3 times",
        ),
    ],
    ids=["sum", "offset", "decay", "labels", "factor"],
)
def test_another_cost_is_refused(own: Any, words: str) -> None:
    X, Y, parameters, right, _ = lab_case()
    with pytest.raises(ValueError, match=re.escape(words)):
        fastgc.check(fastgc.Network(X, Y), parameters, right, against=lambda p: own(X, Y, p))


def test_a_difference_away_from_the_parameters_is_found() -> None:
    # leaky and plain ReLU agree where no unit is silent
    X, Y = np.ones((2, 3)), np.array([1.0, 0.0, 1.0])
    parameters = {
        "W1": np.full((3, 2), 0.1), "b1": np.full((3, 1), -0.1),
        "W2": np.ones((1, 3)), "b2": np.zeros((1, 1)),
    }  # fmt: skip
    net = fastgc.Network(X, Y, activation="leaky_relu")
    assert net(parameters) == pytest.approx(plain_cost(X, Y, parameters))
    with pytest.raises(
        ValueError,
        match=r'near .*activation="relu"',
    ):
        fastgc.check(
            net, parameters, backward(net, parameters), against=lambda p: plain_cost(X, Y, p)
        )


@pytest.mark.parametrize("widths", [(3, 4, 1), (3, 5, 4, 2)])
@pytest.mark.parametrize("learners", sorted(ACTIVATIONS))
@pytest.mark.parametrize("taken", ["relu", "tanh", "silu"])
def test_the_learners_activation_is_named(taken: str, learners: str, widths: Any) -> None:
    net, parameters = NetworkCase("taken", widths, 6, taken, seed=3).build()
    own, _ = NetworkCase("own", widths, 6, learners, seed=3).build()
    calls = 0

    def cost(p: Any) -> float:
        nonlocal calls
        calls += 1
        return own(p)

    gradients = backward(own, parameters)
    if learners == taken:
        assert fastgc.check(net, parameters, gradients, against=cost).ok
        return
    with pytest.raises(ValueError, match=f'activation="{learners}"'):
        fastgc.check(net, parameters, gradients, against=cost)
    assert calls < 30  # asked once at each point, and for its noise


def test_no_activation_is_named_where_none_fits() -> None:
    net, parameters = NetworkCase("one", (3, 4, 1), 5, "tanh").build()
    with pytest.raises(ValueError, match="does not compute") as caught:
        fastgc.check(net, parameters, backward(net, parameters), against=lambda p: net(p) + 1.0)
    assert "activation=" not in str(caught.value)
    # some layers with one, some with another: none fits all
    mixed, parameters = NetworkCase("mix", (3, 4, 4, 1), 5, ("tanh", "silu")).build()
    net, _ = NetworkCase("mix", (3, 4, 4, 1), 5, "relu").build()
    with pytest.raises(ValueError, match="does not compute") as caught:
        fastgc.check(net, parameters, backward(net, parameters), against=lambda p: mixed(p))
    assert "activation=" not in str(caught.value)


def test_a_cost_that_ends_away_from_the_parameters_is_compared_closer_by() -> None:
    net, parameters = NetworkCase("one", (3, 1), 5).build()

    def own(p: Any) -> float:
        if any(np.abs(p[name] - parameters[name]).max() > 0.02 for name in p):
            raise ZeroDivisionError
        return net(p)

    report = fastgc.check(net, parameters, backward(net, parameters), against=own)
    assert report.against == 0.0


def test_what_cannot_be_compared() -> None:
    net, parameters = NetworkCase("one", (3, 1), 5).build()
    gradients = backward(net, parameters)
    with pytest.raises(ValueError, match=r"against= .*fastgc\.Network"):
        fastgc.check(lambda p: net(p), parameters, gradients, against=net)
    with pytest.raises(TypeError, match="against is a int"):
        fastgc.check(net, parameters, gradients, against=3)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="the cost returned None"):
        fastgc.check(net, parameters, gradients, against=lambda p: None)

    class OwnError(Exception):
        pass

    def raises(_: Any) -> float:
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine") as caught:
        fastgc.check(net, parameters, gradients, against=raises)
    assert [note.startswith("fastgc: ") for note in caught.value.__notes__] == [True]
