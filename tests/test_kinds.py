"""Kinds of mistakes in one tensor: planted ones are named, and others are not called by them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgc
from tests.cases import Array
from tests.shown import says
from tests.strategies import slow

Wrong = Callable[[Array], Array]


class Smooth:
    """Σ a sin(x + c) of an array, between 0.2 and 0.8: a cost with nothing regular about it."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.uniform(0.2, 0.8, shape)
        self.a, self.c = rng.standard_normal(shape), rng.uniform(-0.5, 0.5, shape)
        self.right: Array = self.a * np.cos(self.x + self.c)

    def cost(self, p: Any) -> float:
        return float((self.a * np.sin(p["x"] + self.c)).sum())

    def said(self, wrong: Array) -> fastgc.Diagnosis:
        report = fastgc.check(self.cost, {"x": self.x}, {"x": wrong})
        assert report.verdict == "wrong"
        found = report.tensors["x"].diagnosis
        assert found is not None
        assert found.text in str(report)
        return found


def sigmoid(p: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-p)))


#: dθ/dφ of each form θ(φ), in the parameters φ.
CHAINS: dict[str, Wrong] = {
    "exp(φ)": np.exp,
    "softplus(φ)": sigmoid,
    "sigmoid(φ)": lambda p: sigmoid(p) * (1 - sigmoid(p)),
    "logit φ": lambda p: 1 / (p * (1 - p)),
    "tanh(φ)": lambda p: 1 - np.tanh(p) ** 2,
    "φ²": lambda p: 2 * p,
    "√φ": lambda p: 0.5 / np.sqrt(p),
    "1/φ": lambda p: -1 / p**2,
}


@pytest.mark.parametrize("shape", [(2,), (7,), (3, 4)])
@pytest.mark.parametrize("word", ["missing", "superfluous"])
@pytest.mark.parametrize("form", CHAINS)
def test_a_chain_factor(form: str, word: str, shape: tuple[int, ...]) -> None:
    case = Smooth(shape)
    factor = CHAINS[form](case.x)
    found = case.said(case.right / factor if word == "missing" else case.right * factor)
    assert found.kind == "chain"
    assert f"{form} is {word}" in found.text


@pytest.mark.parametrize("power", [1, -1])
def test_a_gradient_by_the_logarithm(power: int) -> None:
    case = Smooth((6,))
    found = case.said(case.right * case.x**power)
    assert found.kind == "chain"
    assert f"exp(φ) is {'superfluous' if power > 0 else 'missing'}" in found.text


def test_a_chain_factor_of_some_parameters_of_a_vector() -> None:
    for count in (2, 4):
        case = Smooth((9,), seed=count)
        wrong = case.right.copy()
        wrong[-count:] *= np.exp(-case.x[-count:])
        found = case.said(wrong)
        assert found.kind == "chain"
        assert f"in the {count} entries" in found.text


def test_no_chain_factor_of_one_number_or_of_one_factor() -> None:
    case = Smooth((5,))
    wrong = case.right.copy()
    wrong[2] *= np.exp(case.x[2])
    assert case.said(wrong).kind != "chain"
    case.x[:] = 0.5
    case.right = case.a * np.cos(case.x + case.c)
    assert case.said(case.right * np.exp(case.x)).kind == "factor"
    one = Smooth((1,))
    assert one.said(one.right * np.exp(one.x)).kind == "factor"


def diagonal(g: Array) -> Array:
    return np.diag(np.diag(g))


SYMMETRIC: dict[str, Wrong] = {
    "sum": lambda g: g + g.T,
    "diagonal once": lambda g: g + g.T - diagonal(g),
    "mean": lambda g: (g + g.T) / 2,
    "lower": lambda g: np.tril(g + g.T - diagonal(g)),
    "upper": lambda g: np.triu(g + g.T - diagonal(g)),
}


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("form", SYMMETRIC)
def test_right_for_a_symmetric_parameter(form: str, n: int) -> None:
    case = Smooth((n, n))
    assert case.said(SYMMETRIC[form](case.right)).kind == "symmetric"


@pytest.mark.parametrize("n", [3, 5])
def test_right_for_one_that_is_not_symmetric(n: int) -> None:
    rng = np.random.default_rng(n)
    C, A = rng.standard_normal((n, n)), rng.standard_normal((n, n))

    def cost(p: Any) -> float:
        return float((C * np.sin(p + p.T)).sum())

    given = C * np.cos(A + A.T)  # by A + Aᵀ, of which A is one half
    found = fastgc.check(cost, A, given).tensors["parameters"].diagnosis
    assert found is not None
    assert found.kind == "symmetric"

    def of_the_lower(p: Any) -> float:  # as Cholesky's reads it
        full = np.tril(p) + np.tril(p, -1).T
        return float((C * np.sin(full)).sum())

    S = A + A.T
    by_S = C * np.cos(S)
    right = np.tril(by_S + by_S.T - diagonal(by_S))
    assert fastgc.check(of_the_lower, S, right)
    found = fastgc.check(of_the_lower, S, (by_S + by_S.T) / 2).tensors["parameters"].diagnosis
    assert found is not None
    assert found.kind == "symmetric"


def test_no_symmetric_parameter() -> None:
    case = Smooth((4, 4))
    case.x = (case.x + case.x.T) / 2
    case.a, case.c = case.a + case.a.T, case.c + case.c.T
    case.right = case.a * np.cos(case.x + case.c)
    assert case.said(case.right + case.right.T).kind == "factor"
    case = Smooth((4, 4))
    assert case.said(case.right + 1.01 * case.right.T).kind == "unknown"
    assert case.said(case.right.T.copy()).kind == "transposed"


AXES = [((4,), 0), ((3, 4), 0), ((3, 4), 1), ((3, 4), (0, 1)), ((2, 3, 4), 1), ((5, 1), 0)]


@pytest.mark.parametrize("reduced", [np.sum, np.mean])
@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_the_wrong_axis(shape: tuple[int, ...], axis: Any, reduced: Any) -> None:
    case = Smooth(shape)
    wrong = np.broadcast_to(reduced(case.right, axis=axis, keepdims=True), shape).copy()
    found = case.said(wrong)
    assert found.kind == "axis"
    assert reduced.__name__ in found.text


def test_not_the_wrong_axis() -> None:
    case = Smooth((3, 4))
    wrong = np.broadcast_to(case.right.sum(axis=0), (3, 4))
    assert case.said(1.1 * wrong).kind == "unknown"
    assert case.said(np.full((3, 4), 0.3)).kind == "unknown"
    one = Smooth((1,))
    assert one.said(2 * one.right).kind == "factor"


FLIPS = [
    ((5,), 0), ((3, 4), 0), ((3, 4), (0, 1)), ((2, 3, 3), (1, 2)), ((2, 3, 4, 5), (2, 3)),
    ((2, 2, 3, 3, 3), (2, 3, 4)), ((2, 3, 4), 2), ((2, 3, 4), 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axes"), FLIPS)
def test_a_flipped_kernel(shape: tuple[int, ...], axes: Any) -> None:
    case = Smooth(shape)
    assert case.said(np.flip(case.right, axes).copy()).kind == "flipped"


def test_not_flipped() -> None:
    case = Smooth((3, 4))
    assert case.said(np.roll(case.right, 1, axis=1)).kind == "permuted"
    assert case.said(1.01 * np.flip(case.right, 1)).kind == "unknown"
    case = Smooth((3, 3, 2))
    assert case.said(case.right.transpose(1, 0, 2).copy()).kind == "transposed"


#: Shape, the wrong part, and what names it.
PLACES: list[tuple[tuple[int, ...], Callable[..., Any], str]] = [
    ((3, 4, 7), lambda i, j, t: t != 6, "all but x[…, 6]"),
    ((3, 4, 7), lambda i, j, t: t == 6, "x[…, 6] alone"),
    ((5, 4, 3), lambda t, i, j: t == 0, "x[0, …] alone"),
    ((5, 4, 3), lambda t, i, j: t != 4, "all but x[4, …]"),
    ((3, 5, 4), lambda i, t, j: t == 2, "x[:, 2, …] alone"),
    ((4, 7), lambda i, t: t != 6, "all but x[…, 6]"),
    ((6, 4), lambda t, i: t != 0, "all but x[0, …]"),
    ((9,), lambda i: i != 8, "all but x[8]"),
    ((12,), lambda i: i < 5, "x[:5] alone"),
    ((12,), lambda i: i >= 5, "x[5:] alone"),
    ((12,), lambda i: i % 2 == 1, "x[1::2] alone"),
    ((3, 4, 9), lambda i, j, t: t >= 3, "x[…, 3:] alone"),
    ((2, 6, 5), lambda c, i, j: (i == 0) | (i == 5), "the first and the last along axis 1 alone"),
    ((2, 3, 5, 6), lambda n, c, i, j: (i % 4 == 0) | (j % 5 == 0), "the border along axes 2 and 3 alone"),
    ((2, 3, 5, 6), lambda n, c, i, j: (i % 4 != 0) & (j % 5 != 0), "all but the border along axes 2 and 3"),
    ((2, 6, 7, 3), lambda n, i, j, c: (i % 5 == 0) | (j % 6 == 0), "the border along axes 1 and 2 alone"),
    ((2, 6, 8), lambda c, i, j: (i % 2 == 0) & (j % 2 == 0), "place ::2, ::2 of axes 1 and 2 alone"),
    ((2, 6, 8), lambda c, i, j: (i % 2 == 1) | (j % 2 == 1), "all but every place ::2, ::2"),
    ((5, 5), lambda i, j: i < j, "the upper triangle"),
    ((5, 5), lambda i, j: i > j, "the lower triangle"),
    ((6, 6), lambda i, j: i == j, "the diagonal alone"),
    ((6, 6), lambda i, j: i != j, "all but the diagonal"),
]  # fmt: skip

PARTS: dict[str, Wrong] = {
    "all zero": lambda g: 0 * g,
    "1.500 ×": lambda g: 1.5 * g,
    "wrong": lambda g: g + np.sin(1 + np.arange(g.size)).reshape(g.shape),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("shape", "inside", "text"), PLACES, ids=[text for *_, text in PLACES])
def test_where_the_wrong_ones_lie(
    shape: tuple[int, ...], inside: Callable[..., Any], text: str, part: str
) -> None:
    case = Smooth(shape)
    wrong = np.where(inside(*np.indices(shape)), PARTS[part](case.right), case.right)
    found = case.said(wrong)
    assert found.kind == "places"
    assert text in found.text
    assert part in found.text


def test_zeros_prove_nothing_of_where() -> None:
    # a part that is zero on both sides is right whatever happened
    case = Smooth((3, 4, 6))
    case.a[..., 2:] = 0.0
    case.right = case.a * np.cos(case.x + case.c)
    assert case.said(case.right * (1 + case.x)).kind == "unknown"
    assert case.said(2 * case.right).kind == "factor"


@pytest.mark.parametrize("seeds", [range(4), slow(range(4, 20))])
@pytest.mark.parametrize("shape", [(40,), (6, 7), (3, 4, 5), (2, 3, 4, 5), (6, 6)])
def test_nothing_regular(shape: tuple[int, ...], seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        case = Smooth(shape, seed)
        chosen = rng.random(shape) < 0.5
        wrong = np.where(chosen, rng.standard_normal(shape), case.right)
        assert case.said(wrong).kind == "unknown"
        everywhere = case.right * (1 + 0.1 * rng.standard_normal(shape))
        assert case.said(everywhere).kind == "unknown"
        assert case.said(rng.standard_normal(shape)).kind == "unknown"


@pytest.mark.parametrize("word", ["missing", "superfluous"])
@pytest.mark.parametrize("axis", [None, 1, 0])
def test_the_derivative_of_a_norm(axis: int | None, word: str) -> None:
    rng = np.random.default_rng(1)
    W, A = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))

    def unit(p: Any) -> Any:
        return p / np.sqrt((p * p).sum(axis=axis, keepdims=True))

    def of_unit(p: Any) -> float:
        return float(np.sin(A * unit(p)).sum())

    def plain(p: Any) -> float:
        return float(np.sin(A * p).sum())

    size = np.sqrt((W * W).sum(axis=axis, keepdims=True))
    if word == "missing":
        cost, wrong = of_unit, A * np.cos(A * unit(W)) / size
    else:
        cost, g = plain, A * np.cos(A * W)
        wrong = g - (g * unit(W)).sum(axis=axis, keepdims=True) * unit(W)
    found = fastgc.check(cost, W, wrong).tensors["parameters"].diagnosis
    assert found is not None
    assert found.kind == ("decay" if axis is None else "projection")
    assert "norm" in found.text
    if axis is None:
        assert "weight decay" in found.text
        along = fastgc.check(cost, W, wrong, method="random").tensors["parameters"].diagnosis
        assert along is not None
        assert says(along, "weight decay … norm")
    else:
        assert f"is {word}" in found.text


def test_weight_decay_is_no_projection() -> None:
    case = Smooth((4, 5))
    found = case.said(case.right + 0.1 * case.x)
    assert found.kind == "decay"
    assert "norm" not in found.text
    assert found.value == pytest.approx(0.1)


def test_no_weight_decay_of_one_number() -> None:
    case = Smooth((2,))
    case.x[1] = 1e-12  # tells nothing of a multiple
    case.right = case.a * np.cos(case.x + case.c)
    assert case.said(case.right + 0.1 * case.x).kind != "decay"


@pytest.mark.parametrize(
    "cost",
    [lambda w: float(w @ w), lambda w: float((w @ w) ** 2), lambda w: float((w**4).sum())],
)
def test_a_cost_at_its_bottom_moves(cost: Any) -> None:
    for gradients in (np.ones(3), np.array([1.0, -2.0, 3.0])):
        found = fastgc.check(cost, np.zeros(3), gradients).tensors["parameters"].diagnosis
        assert found is not None
        assert found.kind != "constant"


def test_a_cost_that_stands_still() -> None:
    calls = []

    def cost(w: Any) -> float:
        calls.append(w.copy())
        return 3.25

    report = fastgc.check(cost, np.ones(3), np.ones(3))
    found = report.tensors["parameters"].diagnosis
    assert found is not None
    assert found.kind == "constant"
    assert report.evaluations == len(calls)
    assert (calls[-1] == 1.0).all()
