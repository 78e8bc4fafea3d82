"""Gradients in less than double precision: held to what their dtype allows, and said so."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from tests.cases import ENTRYWISE, NETWORKS, NetworkCase, Tensors, backward
from tests.shown import says
from tests.strategies import examples, networks


def single_pass(net: fastgc.Network, parameters: Tensors) -> Any:
    """A backward pass in float32 throughout, of a network of ReLUs and one logistic output."""
    f = np.float32
    X, Y = net.X.astype(f), net.Y.astype(f)
    p = {name: value.astype(f) for name, value in parameters.items()}
    depth = len(p) // 2
    A, Z = [X], []
    for l in range(1, depth + 1):
        Z.append(p[f"W{l}"] @ A[-1] + p[f"b{l}"])
        A.append(np.maximum(Z[-1], f(0)))
    dZ = f(1) / (f(1) + np.exp(-np.clip(Z[-1], -80, 80))) - Y
    found = {}
    for l in range(depth, 0, -1):
        found[f"W{l}"] = dZ @ A[l - 1].T / f(net.m)
        found[f"b{l}"] = dZ.mean(axis=1, keepdims=True)
        if l > 1:
            dZ = (p[f"W{l}"].T @ dZ) * (Z[l - 2] > 0)
    return {name: found[name] for name in parameters}


@pytest.mark.parametrize("method", ENTRYWISE)
@given(
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    m=st.integers(1, 30),
    scale=st.sampled_from([0.3, 1.0, 4.0]),
    seed=st.integers(0, 10**6),
)
@examples(60)
def test_right_gradients_of_single_precision_are_not_accused(
    method: str, widths: list[int], m: int, scale: float, seed: int
) -> None:
    net, parameters = NetworkCase("single", (*widths, 1), m, scale=scale, seed=seed).build()
    # as a network that is kept in float32 has them
    parameters = {name: v.astype(np.float32).astype(np.float64) for name, v in parameters.items()}
    net = fastgc.Network(net.X.astype(np.float32), net.Y)
    gradients = single_pass(net, parameters)
    assert all(g.dtype == np.float32 for g in gradients.values())
    report = fastgc.check(net, parameters, gradients, method=method)
    assert report.verdict != "wrong", str(report)
    gradients["W1"] = gradients["W1"] * np.float32(1.01)
    if np.abs(gradients["W1"]).max() > 0.05:  # else saturated: in float32 few of its digits count
        assert not fastgc.check(net, parameters, gradients, method=method).ok


def test_the_report_says_so() -> None:
    net, parameters = NETWORKS[0].build()
    gradients: Any = backward(net, parameters)
    for name in ("W1", "b1"):
        gradients[name] = gradients[name].astype(np.float32)
    report = fastgc.check(net, parameters, gradients)
    assert report.ok
    assert says(report, "1e-04, as float32")
    assert says(report, "tolerance 0.0001 for W1 and b1 … float32 … 2e-07 for W2, b2, W3 and b3\n")
    every = fastgc.check(net, parameters, {k: g.astype(np.float32) for k, g in gradients.items()})
    assert says(every, "tolerance 0.0001 for each entry … float32")
    assert (report.tensors["W1"].dtype, report.tensors["W1"].tolerance) == ("float32", 1e-4)
    assert (report.tensors["W2"].dtype, report.tensors["W2"].tolerance) == ("float64", 2e-7)
    assert "float32" in report._repr_html_()


def test_half_precision() -> None:
    def cost(w: Any) -> float:
        return float(np.sin(w).sum())

    w = np.linspace(0.1, 1, 5)
    assert fastgc.check(cost, w, np.cos(w).astype(np.float16)).ok
    assert fastgc.check(cost, w, (1.2 * np.cos(w)).astype(np.float16)).verdict == "wrong"


def test_a_tolerance_asked_for_is_never_tightened() -> None:
    def cost(w: Any) -> float:
        return float(np.sin(w).sum())

    w = np.linspace(0.1, 1, 5)
    report = fastgc.check(cost, w, (1.01 * np.cos(w)).astype(np.float32), tolerance=0.1)
    assert report.ok
    assert report.tensors["parameters"].tolerance == 0.1


def test_integers_are_exact() -> None:
    report = fastgc.check(lambda w: float((w**2).sum()), np.array([1, 2, 3]), np.array([2, 4, 6]))
    assert report.tensors["parameters"].tolerance == 2e-7


@given(case=networks(max_depth=3))
@examples(40)
def test_rounded_gradients_pass(case: NetworkCase) -> None:
    net, parameters = case.build()
    gradients: Any = {k: g.astype(np.float32) for k, g in backward(net, parameters).items()}
    assert fastgc.check(net, parameters, gradients).verdict != "wrong"
