"""Costs that are plain functions: the corpus is proven, and then every verdict on it is held."""

import contextlib
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

import fastgc
from tests.plain_case import (
    Array,
    PlainCost,
    Wrong,
    entry_names,
    filled,
    flat,
    slope_by_complex_steps,
    tensors_of,
)
from tests.plain_costs import PLAIN_COSTS
from tests.strategies import slow

SEEDS, QUICK = 5, 1  # of each kind; the others are slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Draws each kind of cost from some seeds: the first, or others where --variants asks."""
    if {"name", "seed"} <= set(metafunc.fixturenames):
        first = SEEDS * metafunc.config.getoption("--variants")
        metafunc.parametrize(
            ("name", "seed"),
            [
                pytest.param(
                    name,
                    first + i,
                    id=f"{name}-{first + i}",
                    marks=[pytest.mark.slow] * (i >= QUICK),
                )
                for name in sorted(PLAIN_COSTS)
                for i in range(SEEDS)
            ],
        )


kinds = pytest.mark.parametrize("name", sorted(PLAIN_COSTS))


def _vector(case: PlainCost, gradients: Any) -> Array:
    """Gradients, or the function that returns them, as one vector (P,)."""
    return flat(gradients(case.parameters) if callable(gradients) else gradients)


def _check(case: PlainCost, gradients: Any, cost: Callable[[Any], Any] | None = None) -> Any:
    return fastgc.check(
        cost or case.cost, case.parameters, gradients, progress=False, **case.options
    )


# The corpus is right


def test_right_gradients_are_proven(name: str, seed: int) -> None:
    case = PLAIN_COSTS[name].build(seed)
    if case.formula is not None and not case.limit:
        proof = slope_by_complex_steps(case.formula, case.parameters)
        for right in case.right:
            _assert_close(_vector(case, right), proof, case.floor)
    elif case.limit:
        assert all(_is_mean_of_limits(case, _vector(case, right)) for right in case.right)
    else:
        assert case.blocks
        assert all(_is_subgradient(case, _vector(case, right)) for right in case.right)


def test_wrong_gradients_are_proven_wrong(name: str, seed: int) -> None:
    case = PLAIN_COSTS[name].build(seed)
    for wrong in case.wrong:
        assert wrong.entries, wrong.name
        if case.blocks:
            assert not _is_subgradient(case, flat(wrong.gradients)), wrong.name
        elif case.limit:
            assert not _is_mean_of_limits(case, flat(wrong.gradients)), wrong.name
        else:
            assert _differs(wrong.gradients, case.right[0]), wrong.name


def test_the_formula_is_the_cost(name: str, seed: int) -> None:
    case = PLAIN_COSTS[name].build(seed)
    if case.formula is None:
        return
    theta = filled(case.parameters, flat(case.parameters).astype(complex))
    value = complex(np.asarray(case.formula(theta)).item()).real
    assert case.cost(case.parameters) == pytest.approx(value, rel=case.digits, abs=1e-12)


def _differs(wrong: Any, right: Any) -> bool:
    """By 0.1 %, and by more than 1e-12 of a tensor's size, which a verdict may pass over."""
    pairs = zip(tensors_of(wrong).values(), tensors_of(right).values(), strict=True)
    return any(
        (np.abs(w - r) > np.maximum(9e-4 * np.maximum(abs(w), abs(r)), 5e-12 * abs(r).max())).any()
        for w, r in pairs
    )


def _assert_close(g: Array, proof: Array, floor: float) -> None:
    np.testing.assert_array_less(
        np.abs(g - proof), 1e-9 * np.maximum(np.abs(g), np.abs(proof)) + floor + 1e-300
    )


def _is_mean_of_limits(case: PlainCost, g: Array) -> bool:
    """Whether it is a weighted mean of J's gradients at points close by: Clarke's definition."""
    assert case.formula is not None
    theta, rng = flat(case.parameters), np.random.default_rng(0)
    points = [theta + 1e-11 * rng.standard_normal(theta.size) for _ in range(200)]
    slopes = [slope_by_complex_steps(case.formula, filled(case.parameters, p)) for p in points]
    limits = np.unique(np.round(slopes, 7), axis=0)
    _, distance = nnls(np.c_[limits, np.ones(len(limits))].T, np.r_[g, 1.0])
    return bool(distance < 1e-5)


def _is_subgradient(case: PlainCost, g: Array) -> bool:
    """Whether no line of this slope crosses J, in any block where J is convex or concave."""
    theta = flat(case.parameters)
    J = case.cost(case.parameters)
    rng = np.random.default_rng(0)
    for entries, sign in case.blocks:
        vectors = [rng.standard_normal(entries.size) for _ in range(200)]
        vectors += [s * axis for axis in np.eye(entries.size) for s in (1.0, -1.0)]
        vectors += [s * np.ones(entries.size) for s in (1.0, -1.0)]
        for vector in vectors:
            step = np.zeros(theta.size)
            step[entries] = 1e-4 * vector
            above = sign * (case.cost(filled(case.parameters, theta + step)) - J - g @ step)
            if above < -1e-10:
                return False
    return True


# Verdicts


def test_right_gradients_are_not_accused(name: str, seed: int) -> None:
    case = PLAIN_COSTS[name].build(seed)
    for k, right in enumerate(case.right):
        report = _check(case, right)
        assert report.verdict in case.allowed, (k, str(report))


def test_wrong_gradients_are_named(name: str, seed: int) -> None:
    case = PLAIN_COSTS[name].build(seed)
    for wrong in case.wrong:
        report = _check(case, wrong.gradients)
        assert report.verdict in _verdicts_allowed(wrong, report.method), (wrong.name, str(report))
        if report.verdict == "wrong":
            accused = [
                e.name for e in report.worst(10**6) if e.verdict in ("disagree", "nonfinite")
            ]
            assert set(accused) <= set(wrong.entries), (wrong.name, str(report))
            assert report.worst(1)[0].name in wrong.entries, (wrong.name, str(report))


def _verdicts_allowed(wrong: Wrong, method: str) -> tuple[str, ...]:
    if wrong.demand == "wrong" or (wrong.demand == "seen" and method == "traced"):
        return ("wrong",)
    return "wrong", "unresolved"


# What the cost and the caller are left with

CALLS: dict[str, Callable[..., object]] = {
    "check": fastgc.check,
    "the balanced step": partial(fastgc.check, epsilon="auto"),
    "directions": partial(fastgc.check, method="random"),
    "a sample": partial(fastgc.check, sample=1),
    "assert_gradients": fastgc.assert_gradients,
    "numerical_gradient": lambda cost, p, g, **options: fastgc.numerical_gradient(cost, p, **options),
}  # fmt: skip


class Recorded:
    """A cost that keeps what it saw last, and raises `error` once, at a perturbed point.

    Args:
        case: its cost and parameters.
        error: what is raised.
        first: the number of the call from which on that is done.
    """

    def __init__(self, case: PlainCost, error: BaseException | None = None, first: int = 0) -> None:
        self.case, self.error, self.first = case, error, first
        self.theta, self.last, self.calls = flat(case.parameters), np.empty(0), 0

    def __call__(self, parameters: Any) -> float:
        self.last, self.calls = flat(parameters).copy(), self.calls + 1
        perturbed = not np.array_equal(self.last, self.theta)
        if self.error is not None and self.calls > self.first and perturbed:
            error, self.error = self.error, None
            raise error
        return float(self.case.cost(parameters))

    @property
    def left_at_theta(self) -> bool:
        return self.last.tobytes() == self.theta.tobytes()


@kinds
@pytest.mark.parametrize("right", [True, False])
def test_the_cost_sees_the_unperturbed_parameters_last(name: str, right: bool) -> None:
    case = PLAIN_COSTS[name].build(0)
    cost = Recorded(case)
    _check(case, case.right[0] if right else case.wrong[0].gradients, cost)
    assert cost.left_at_theta


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("right", [True, False])
def test_a_model_whose_weights_the_cost_sets_is_left_as_it_was(
    call: Callable[..., object], right: bool
) -> None:
    case = PLAIN_COSTS["a multilayer perceptron"].build(0)
    model: dict[str, Array] = {}

    def cost(parameters: Any) -> float:
        model.update(parameters)
        return float(case.cost(model))

    gradients = case.right[0] if right else case.wrong[0].gradients
    with contextlib.suppress(fastgc.GradientMismatch):
        call(cost, case.parameters, gradients, progress=False)
    assert flat(model).tobytes() == flat(case.parameters).tobytes()


@kinds
@pytest.mark.parametrize(
    ("error", "first"),
    [
        (KeyError("theirs"), 5), (KeyboardInterrupt(), 0),
        slow(KeyError("theirs"), 0), slow(KeyboardInterrupt(), 5),
    ],
    ids=["error later", "Ctrl-C", "error", "Ctrl-C later"],
)  # fmt: skip
def test_also_after_an_exception(name: str, error: BaseException, first: int) -> None:
    case = PLAIN_COSTS[name].build(0)
    cost = Recorded(case, copy.copy(error), first)
    with contextlib.suppress(type(error)):
        _check(case, case.right[0], cost)
    assert cost.error is None or cost.calls <= first
    assert cost.left_at_theta


@kinds
def test_nothing_of_the_callers_is_changed(name: str) -> None:
    case = PLAIN_COSTS[name].build(1)
    given = [case.parameters, *(g for g in case.right if not callable(g)), case.wrong[0].gradients]
    before = [[(k, t.tobytes(), t.shape) for k, t in tensors_of(c).items()] for c in given]
    settings, state = np.geterr(), repr(np.random.get_state())
    for gradients in (case.right[0], case.wrong[0].gradients):
        _check(case, gradients)
    assert before == [[(k, t.tobytes(), t.shape) for k, t in tensors_of(c).items()] for c in given]
    assert (settings, state) == (np.geterr(), repr(np.random.get_state()))


def test_every_entry_is_named_as_in_a_report() -> None:
    for factory in PLAIN_COSTS.values():
        case = factory.build(0)
        report = _check(case, case.wrong[0].gradients)
        assert {entry.name for entry in report.worst(10**6)} == set(entry_names(case.parameters))
