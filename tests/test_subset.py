"""Part checks: the tensors and entries that were asked for, and no others."""

import ast
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgc
from tests.cases import ENTRYWISE, NETWORKS, backward, lab_case
from tests.shown import says
from tests.strategies import examples, networks


@pytest.mark.parametrize("method", ENTRYWISE)
def test_only_some_tensors(method: str) -> None:
    X, Y, parameters, right, faulty = lab_case()
    net = fastgc.Network(X, Y)
    for only in (["W1", "b*"], ("b1", "b2", "b3", "W1")):
        report = fastgc.check(net, parameters, right, method=method, only=only)
        assert list(report.tensors) == ["W1", "b1", "b2", "b3"]
        assert report.ok
        assert "not looked at: W2, W3" in str(report)
    whole = fastgc.check(net, parameters, faulty, method=method)
    for name in parameters:
        alone = fastgc.check(net, parameters, faulty, method=method, only=[name])
        a, b = alone.tensors[name], whole.tensors[name]
        assert (a.verdict, a.counts, a.worst) == (b.verdict, b.counts, b.worst)
        assert a.arrays is not None
        assert b.arrays is not None
        assert np.array_equal(a.arrays.numerical, b.arrays.numerical)
        assert a.shape == b.shape
    assert fastgc.check(net, parameters, faulty, method=method, only=["b1"]).verdict == "wrong"
    assert fastgc.check(net, parameters, faulty, method=method, only=["b[23]"]).ok


@pytest.mark.parametrize("method", ENTRYWISE)
@given(case=networks(), data=st.data())
@examples(15)
def test_a_sample_agrees_with_the_whole(method: str, case: Any, data: st.DataObject) -> None:
    net, parameters = case.build()
    gradients = backward(net, parameters)
    sample, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 100))
    whole = fastgc.check(net, parameters, gradients, method=method)
    part = fastgc.check(net, parameters, gradients, method=method, sample=sample, seed=seed)
    assert part.verdict != "wrong"
    for name, tensor in part.tensors.items():
        arrays, every = tensor.arrays, whole.tensors[name].arrays
        assert arrays is not None
        assert every is not None
        size = parameters[name].size
        assert tensor.size == min(sample, size)
        assert tensor.shape == parameters[name].shape
        places = np.arange(size) if arrays.places is None else arrays.places
        assert (np.diff(places) > 0).all()
        first = arrays.analytic.ravel()
        assert np.array_equal(first, gradients[name].ravel()[places])
        if not part.tensors[name].counts["disagree"] and not arrays.looked_at.size:
            found = every.numerical.ravel()[places]
            assert np.allclose(
                arrays.numerical.ravel(), found, rtol=0, atol=1e-5 * abs(found).max() + 1e-300
            )


def test_entries_of_a_sample_have_their_own_addresses() -> None:
    theta = np.arange(1.0, 13.0).reshape(3, 4)
    gradients = 2 * theta
    gradients[2, 1] *= 3
    seen = set()
    for seed in range(40):
        report = fastgc.check(lambda w: float((w**2).sum()), theta, gradients, sample=3, seed=seed)
        tensor = report.tensors["parameters"]
        assert tensor.arrays is not None
        assert tensor.arrays.places is not None
        for place in range(3):
            entry = tensor.arrays.entry("parameters", place)
            assert entry.analytic == gradients[entry.index]
            assert np.ravel_multi_index(entry.index, (3, 4)) == tensor.arrays.places[place]
            seen.add(entry.index)
        drawn = np.ravel_multi_index((2, 1), (3, 4)) in tensor.arrays.places
        assert report.ok is not drawn
        if drawn:
            assert tensor.worst.name == "parameters[2, 1]"
            assert "parameters[2, 1] is 3.000" in str(report)
            assert report.worst(1)[0].name == "parameters[2, 1]"
            assert str(tensor.worst.index) in str(report.tensors["parameters"].worst)
    assert len(seen) == 12


def test_what_a_sample_proves_is_true() -> None:
    """Where a share s of the entries is wrong, no more than 5 % of the samples may all agree."""
    report = fastgc.check(lambda w: w @ w, np.ones(1000), np.full(1000, 2.0), sample=30)
    assert says(report.scope, "30 entries … 0.095 … 95 %")
    assert str(report.scope) in str(report)
    gradients = np.full(1000, 2.0)
    gradients[:95] = 3.0
    passed = sum(
        fastgc.check(lambda w: w @ w, np.ones(1000), gradients, sample=30, seed=seed).ok
        for seed in range(200)
    )
    assert passed <= 20  # of 200, 10 expected


def test_a_part_of_a_function_and_of_a_sequence() -> None:
    theta = [np.array([1.0, 2.0]), 3.0, np.ones((2, 2))]

    def cost(p: Any) -> float:
        return float((p[0] ** 2).sum() * p[1] + p[2].sum())

    gradients = [np.array([6.0, 12.0]), 5.0, np.ones((2, 2))]
    report = fastgc.check(cost, theta, gradients, only=["parameters[2]", "parameters[0]"])
    assert list(report.tensors) == ["parameters[0]", "parameters[2]"]
    assert report.evaluations == 2 + 9 + 12 + 2 + 1  # all at once, and at the parameters last
    assert (
        fastgc.check(cost, theta, gradients, only="parameters[1]").evaluations == 2 + 9 + 2 + 2 + 1
    )
    assert list(fastgc.check(cost, theta, gradients, only="parameters[*]").tensors) == [
        f"parameters[{i}]" for i in range(3)
    ]
    gradients[1] = 7.0
    assert fastgc.check(cost, theta, gradients, only="parameters[[][02]]").ok


def test_gradients_of_other_tensors_may_be_left_out() -> None:
    net, parameters = NETWORKS[0].build()
    gradients = backward(net, parameters)
    some = {"dW1": gradients["W1"], "dZ1": 0, "b1": gradients["b1"]}
    assert fastgc.check(net, parameters, some, only=["?1"]).ok
    assert fastgc.check(net, parameters, {**some, "W2": gradients["W2"]}, only=["?1"]).ok
    assert fastgc.check(net, parameters, {**some, "extra": 1.0}, only=["?1"]).ok
    with pytest.raises(ValueError, match=r'"W2" .*"dW2".* only=\["W1"\]'):
        fastgc.check(net, parameters, some, only=["W*"])
    with pytest.raises(ValueError, match=r'"W2" .* only=\["W1", "b1"\]') as error:
        fastgc.check(net, parameters, some)
    proposed = re.search(r"only=(\[.*\])", str(error.value))
    assert proposed
    assert fastgc.check(net, parameters, some, only=ast.literal_eval(proposed[1])).ok


def test_sample_and_only_together() -> None:
    net, parameters = NETWORKS[0].build()
    report = fastgc.check(net, parameters, backward(net, parameters), only="W?", sample=2)
    assert {name: tensor.size for name, tensor in report.tensors.items()} == {
        "W1": 2,
        "W2": 2,
        "W3": 2,
    }
    assert "not looked at: b1, b2, b3" in str(report)
    assert says(report, "2 entries of each")
    data = fastgc.Report.from_dict(report.to_dict())
    assert data == report
    large = fastgc.check(net, parameters, backward(net, parameters), sample=10**9)
    assert large.scope is None


def test_random_directions_through_some_tensors() -> None:
    X, Y, parameters, _, faulty = lab_case()
    net = fastgc.Network(X, Y)
    report = fastgc.check(net, parameters, faulty, method="random", only=["b*", "W3"])
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["b1"]
    assert list(report.tensors) == ["b1", "b2", "W3", "b3"]
    assert report.tensors["b1"].worst.name.startswith("b1[")


@pytest.mark.parametrize("method", ["loop", "stacked", "incremental", "node"])
def test_kinks_and_corners_of_a_part(method: str) -> None:
    X = np.array([[1.0, -1.0, 2.0], [0.0, 1.0, 1.0]])
    parameters = {
        "W1": np.array([[1.0, 1.0], [0.5, -1.0]]), "b1": np.array([[0.0], [0.0]]),
        "W2": np.array([[1.0, -2.0]]), "b2": np.array([[0.1]]),
    }  # fmt: skip
    net = fastgc.Network(X, [1, 0, 1])
    gradients = backward(net, parameters)
    assert fastgc.check(net, parameters, gradients, method=method).verdict != "wrong"
    for name in parameters:
        assert fastgc.check(net, parameters, gradients, method=method, only=name).verdict != "wrong"
    for seed in range(5):
        report = fastgc.check(net, parameters, gradients, method=method, sample=1, seed=seed)
        assert report.verdict != "wrong"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"only": ["W9"]}, ValueError, r'only .*"W9".* W1, b1'),
        ({"only": []}, ValueError, r"only is empty"),
        ({"only": [1]}, TypeError, r"only is \[1\]"),
        ({"only": 3}, TypeError, r"only is 3"),
        ({"sample": 0}, ValueError, r"sample is 0"),
        ({"sample": "5"}, TypeError, r"sample is '5'"),
    ],
)  # fmt: skip
def test_bad_parts(options: dict[str, Any], error: type[Exception], message: str) -> None:
    net, parameters = NETWORKS[0].build()
    with pytest.raises(error, match=message):
        fastgc.check(net, parameters, backward(net, parameters), **options)


def test_a_sample_says_how_many_may_be_wrong() -> None:
    theta = np.ones((100, 10))
    gradients = 2 * theta
    gradients[7] = 0.0
    report = fastgc.check(lambda w: float((w * w).sum()), theta, gradients, sample=300, seed=1)
    said = str(report.tensors["parameters"].diagnosis)
    assert says(said, " of the 300 entries … parameters[7, … 95 %")
