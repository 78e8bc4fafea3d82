"""Kinds of mistakes that a Network's structure tells: derivatives, activations, samples."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest

import fastgc
from fastgc.network.layers import ACTIVATIONS, LOSSES
from tests.bugs import Pass
from tests.cases import Array, NetworkCase, Tensors, backward
from tests.shown import says
from tests.strategies import slow

#: The slopes as learners have written them.
FORMULAS: dict[str, dict[str, Callable[[Array, Array], Array]]] = {
    "tanh": {
        "1 − A": lambda a, z: 1 - a,
        "A(1 − A)": lambda a, z: a * (1 - a),
        "1 − Z²": lambda a, z: 1 - z**2,
    },
    "sigmoid": {
        "1 − A": lambda a, z: 1 - a,
        "A": lambda a, z: a,
        "Z(1 − Z)": lambda a, z: z * (1 - z),
    },
}


@pytest.mark.parametrize("l", [1, 2])
@pytest.mark.parametrize(
    ("activation", "formula"), [(name, f) for name, forms in FORMULAS.items() for f in forms]
)
def test_a_derivative_written_wrongly(activation: str, formula: str, l: int) -> None:
    net, parameters = NetworkCase("written", (4, 5, 6, 2), 7, activation).build()
    p = Pass(net, parameters)
    slope = FORMULAS[activation][formula](p.A[l], p.Z[l])
    report = fastgc.check(net, parameters, p.gradients(l, p.dA(l) * slope))
    for name in (f"W{l}", f"b{l}"):
        found = report.tensors[name].diagnosis
        assert found is not None
        assert found.kind == "derivative"
        assert re.sub(r"(?<=[AZ])\d", "", found.text).endswith(f"written as {formula}")
    if l == 2:
        below = report.tensors["W1"].diagnosis
        assert below is not None
        assert says(below, "correct … dZ2 … dZ2 first")


@pytest.mark.parametrize("loss", [loss if loss == "softmax" else slow(loss) for loss in LOSSES])
@pytest.mark.parametrize(
    ("taken", "learners"), list(itertools.permutations(sorted(ACTIVATIONS), 2))
)
def test_the_activation_is_another(taken: str, learners: str, loss: str) -> None:
    widths = (4, 5, 6, 3)
    net, parameters = NetworkCase("taken", widths, 7, taken, loss, 0.2, seed=2).build()
    own, _ = NetworkCase("own", widths, 7, learners, loss, 0.2, seed=2).build()
    report = fastgc.check(net, parameters, backward(own, parameters))
    said = {t.diagnosis for t in report.tensors.values() if not t.ok}
    assert said == {
        fastgc.Diagnosis("activation", f'with activation="{learners}" these gradients are right')
    }
    assert report.origin is None


def test_activations_that_cannot_be_told_apart_are_all_named() -> None:
    net, parameters = NetworkCase("positive", (3, 4, 2), 5, "tanh").build()
    parameters["b1"][:] = 10.0  # where these are the identity
    linear, _ = NetworkCase("positive", (3, 4, 2), 5, "identity").build()
    found = fastgc.check(net, parameters, backward(linear, parameters)).tensors["W2"].diagnosis
    assert found is not None
    fitting = {"relu", "leaky_relu", "gelu", "gelu_tanh", "identity"}
    assert set(re.findall(r'"(\w+)"', found.text)) == fitting


def test_no_activation_is_claimed() -> None:
    net, parameters = NetworkCase("taken", (4, 5, 6, 3), 7, "relu").build()
    own, _ = NetworkCase("own", (4, 5, 6, 3), 7, "tanh").build()
    nearly = backward(own, parameters)
    nearly["W1"][0, 0] *= 1.01
    one_layer, weights = NetworkCase("one", (4, 2), 7).build()
    doubled: Tensors = {name: 2 * g for name, g in backward(one_layer, weights).items()}
    for report in (
        fastgc.check(net, parameters, nearly),
        fastgc.check(one_layer, weights, doubled),
    ):
        kinds = {t.diagnosis.kind for t in report.tensors.values() if t.diagnosis}
        assert kinds
        assert "activation" not in kinds


@pytest.mark.parametrize("m", [3, 8, 20])
def test_samples_are_not_told_by_one_number(m: int) -> None:
    # a single output bias: some choice of samples nearly always gives its number
    for seed in range(10):
        net, parameters = NetworkCase("bias", (3, 4, 1), m, "tanh", seed=seed).build()
        p = Pass(net, parameters)
        for counted in (1, 2, m - 1):
            short = p.dZ[2][:, :counted].sum(axis=1, keepdims=True) / m
            report = fastgc.check(net, parameters, {**p.gradients(), "b2": short})
            found = report.tensors["b2"].diagnosis
            assert found is not None
            assert found.kind != "samples"


def test_a_bias_summed_over_the_units() -> None:
    net, parameters = NetworkCase("square", (3, 5, 5, 2), 5, "tanh").build()
    p = Pass(net, parameters)
    right = p.gradients()
    for name, summed in (
        ("b2", p.dZ[2].sum(axis=0).reshape(-1, 1) / net.m),
        ("b2", np.full((5, 1), p.dZ[2].sum() / net.m)),
        ("b1", np.full((5, 1), p.dZ[1].sum() / net.m)),
    ):
        found = fastgc.check(net, parameters, {**right, name: summed}).tensors[name].diagnosis
        assert found is not None
        assert found.kind == "axis"
