"""Plain costs with noise, and where they saturate."""

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tests.plain_case import (
    NOT_ACCUSED,
    PlainCost,
    at,
    number,
    plain,
    power_of_ten,
    replaced,
    times,
)  # fmt: skip

# Noise


@plain("sums in any order", "noise")
def any_order(rng: np.random.Generator) -> PlainCost:
    terms = rng.standard_normal((int(rng.integers(300, 1500)), 2))
    shuffle = random.Random(int(rng.integers(1000)))
    w = rng.uniform(0.5, 2, 2)

    def cost(w: Any) -> float:
        parts = np.sin(terms * w).ravel().tolist()
        shuffle.shuffle(parts)
        return float(sum(parts)) + 50.0

    g = (terms * np.cos(terms * w)).sum(0)
    return PlainCost(
        cost, w, (g,), (
            times("1 % off", g, {at(0): 1.01}), times("a sign", g, {at(1): -1.0}),
        ), formula=lambda w: np.sin(terms * w).sum() + 50.0, floor=1e-10, options={"tolerance": 1e-5},
    )  # fmt: skip


@plain("a small cost on a large constant", "noise")
def constant(rng: np.random.Generator) -> PlainCost:
    c, x = power_of_ten(rng, 7, 8.5), rng.uniform(0.3, 1.2, 4)

    def formula(x: Any) -> Any:
        return c + np.sin(x[:2]).sum() + np.exp(x[2] * x[3])

    e = np.exp(x[2] * x[3])
    g = np.r_[np.cos(x[:2]), x[3] * e, x[2] * e]
    return PlainCost(
        number(formula), x, (g,), (
            times("10 % off", g, {at(0): 1.1}), replaced("zero", g, {at(2): 0.0}),
        ), formula=formula,
    )  # fmt: skip


def _single(p: Any) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.astype(np.float32) for name, tensor in p.items()}


@plain("single precision inside", "noise")
def single(rng: np.random.Generator) -> PlainCost:
    X, y = (
        rng.standard_normal((20, 3)).astype(np.float32),
        rng.standard_normal(20).astype(np.float32),
    )
    p = {"W": rng.standard_normal((3, 2)), "v": rng.uniform(0.5, 2, 2)}

    def formula(p: Any) -> Any:
        return ((np.tanh(X @ p["W"]) @ p["v"] - y) ** 2).mean()

    A = np.tanh(X @ p["W"])
    d = 2 * (A @ p["v"] - y) / 20
    g = {"W": X.T @ (d[:, None] * p["v"] * (1 - A**2)), "v": A.T @ d}
    return PlainCost(
        lambda p: float(formula(_single(p))), p, (g,), (
            times("doubled", g, {"W": 2.0}), times("a sign", g, {"v": -1.0}),
        ), formula=formula, digits=1e-5,
    )  # fmt: skip


# Where the cost saturates


@plain("logits far on the right side", "saturation")
def saturated_logits(rng: np.random.Generator) -> PlainCost:
    x = np.array([*rng.uniform(-1, 1, 3), rng.uniform(25, 40), rng.uniform(25, 40)])

    def formula(x: Any) -> Any:
        return np.log(1 + np.exp(-x)).mean()

    g = -special.expit(-x) / 5
    return PlainCost(
        lambda x: float(np.logaddexp(0, -x).mean()), x, (g,), (
            times("an ordinary one 1 % off", g, {at(0): 1.01}),
            replaced("a saturated one as if it were not", g, {at(3): -0.1}),
        ), formula=formula, floor=1e-15,
    )  # fmt: skip


@plain("a saturated layer", "saturation")
def saturated_layer(rng: np.random.Generator) -> PlainCost:
    n, X = 6, rng.standard_normal((6, 3))
    X[:, 0] = 1.0
    p = {"W": rng.standard_normal((3, 3)) * 0.5, "v": rng.standard_normal(3)}
    p["W"][0, 1] = 30.0

    def formula(p: Any) -> Any:
        return (np.tanh(X @ p["W"]) @ p["v"]).sum() / n + (p["v"] ** 2).sum()

    A = np.tanh(X @ p["W"])
    g = {"W": X.T @ (p["v"] * (1 - A) * (1 + A)) / n, "v": A.sum(0) / n + 2 * p["v"]}
    return PlainCost(
        number(formula), p, (g,), (
            times("the linear weights' sign", g, {"v": -1.0}),
            times("a live unit doubled", g, {"W[1, 0]": 2.0}),
            replaced("a saturated unit's", g, {"W[0, 1]": 1.0}),
        ), NOT_ACCUSED, formula=formula, floor=1e-14,
    )  # fmt: skip
