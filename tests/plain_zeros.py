"""Plain costs at a minimum, and with gradients of zero."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from tests.plain_case import (
    Array,
    PlainCost,
    at,
    number,
    plain,
    replaced,
    times,
)  # fmt: skip

# At a minimum


@plain("a valley of Rosenbrock's kind at its end", "minima")
def valley(rng: np.random.Generator) -> PlainCost:
    n, steep, end = (
        int(rng.integers(2, 6)),
        rng.uniform(10, 200),
        float(rng.choice([1.0, rng.uniform(0.5, 1.1)])),
    )
    x = end ** (2.0 ** np.arange(n))

    def formula(x: Any) -> Any:
        ends = end ** (2.0 ** np.arange(n - 1))
        return (steep * (x[1:] - x[:-1] ** 2) ** 2 + (ends - x[:-1]) ** 2).sum()

    def gradient(x: Any) -> Array:
        g, off = np.zeros(n), x[1:] - x[:-1] ** 2
        g[:-1] = -4 * steep * x[:-1] * off - 2 * (end ** (2.0 ** np.arange(n - 1)) - x[:-1])
        g[1:] += 2 * steep * off
        return g

    g = gradient(x)
    return PlainCost(
        number(formula), x, (g, np.zeros(n)), (
            replaced("1e-2 in one entry", g, {at(n - 1): 1e-2}),
            replaced("−1e-3 in one entry", g, {at(0): -1e-3}),
        ), formula=formula, floor=1e-11,
    )  # fmt: skip


@plain("decays fitted perfectly", "minima")
def decays(rng: np.random.Generator) -> PlainCost:
    t = np.linspace(0, 2, 15)
    p = {"height": rng.uniform(0.5, 2, 2), "rate": rng.uniform(0.3, 3, 2)}

    def model(p: Any) -> Any:
        return np.exp(-np.outer(t, p["rate"])) @ p["height"]

    y = model(p)

    def formula(p: Any) -> Any:
        return ((model(p) - y) ** 2).sum()

    g = {name: np.zeros(2) for name in p}
    return PlainCost(
        number(formula), p, (g,), (
            replaced("1e-2 in a rate", g, {"rate[1]": 1e-2}),
            replaced("1e-4 in the heights", g, {"height": 1e-4}),
        ), formula=formula, floor=1e-14,
    )  # fmt: skip


@plain("wells of the second and fourth order at their bottom", "minima")
def quartic(rng: np.random.Generator) -> PlainCost:
    n = int(rng.integers(2, 6))
    bottom, depth = rng.uniform(-3, 3, n), rng.uniform(0.5, 5, n)
    order = rng.choice([2, 4], n)

    def formula(x: Any) -> Any:
        return (depth * (x - bottom) ** order).sum()

    g = np.zeros(n)
    return PlainCost(
        number(formula), bottom.copy(), (g,), (
            replaced("1e-2 in one entry", g, {at(n - 1): 1e-2}),
        ), formula=formula, floor=1e-20,
    )  # fmt: skip


@plain("cosines at their top", "minima")
def cosines(rng: np.random.Generator) -> PlainCost:
    n, height = int(rng.integers(2, 6)), rng.uniform(0.3, 3)

    def formula(x: Any) -> Any:
        return height * np.cos(x).sum() + 1.7

    g = np.zeros(n)
    return PlainCost(
        number(formula), np.zeros(n), (g, -height * np.sin(np.zeros(n))), (
            replaced("1e-3 in one entry", g, {at(0): 1e-3}),
        ), formula=formula,
    )  # fmt: skip


Likelihood = tuple[Callable[[Any], Any], Callable[[Array], Array], Callable[[Array], Array]]


def _fitted(
    rng: np.random.Generator, draw: Callable[[Array], Array], terms: Callable[[Array], Likelihood]
) -> PlainCost:
    """A generalised linear model at its maximum of likelihood, found by Newton's method.

    Args:
        rng: draws the data.
        draw: linear predictor (n,) -> response (n,).
        terms: response -> −log-likelihood of each sample, its slope and its curvature, each a
            function of the linear predictor.
    """
    n, k = 80, int(rng.integers(2, 5))
    X = np.column_stack([np.ones(n), rng.standard_normal((n, k - 1))])
    loss, slope, curvature = terms(draw(X @ rng.uniform(-0.7, 0.7, k)))

    def formula(w: Any) -> Any:
        return loss(X @ w).mean()

    def score(w: Array) -> Array:
        g: Array = X.T @ slope(X @ w) / n
        return g

    w = np.zeros(k)
    for _ in range(40):
        w = w - np.linalg.solve((X.T * curvature(X @ w)) @ X / n, score(w))
    g = score(w)
    return PlainCost(
        number(formula), w, (g, score), (
            replaced("1e-2 in one entry", g, {at(k - 1): 1e-2}),
            replaced("1e-4 in the intercept", g, {at(0): 1e-4}),
        ), formula=formula, floor=1e-13,
    )  # fmt: skip


@plain("a logistic regression at its optimum", "minima")
def logit(rng: np.random.Generator) -> PlainCost:
    def terms(y: Array) -> Likelihood:
        return (
            lambda z: np.log(1 + np.exp(-z)) + (1 - y) * z,
            lambda z: special.expit(z) - y,
            lambda z: special.expit(z) * special.expit(-z),
        )

    return _fitted(rng, lambda z: (rng.random(z.size) < special.expit(z)).astype(float), terms)


@plain("a Poisson regression at its optimum", "minima")
def poisson(rng: np.random.Generator) -> PlainCost:
    def terms(y: Array) -> Likelihood:
        return lambda z: np.exp(z) - y * z, lambda z: np.exp(z) - y, np.exp

    return _fitted(rng, lambda z: rng.poisson(np.exp(z)).astype(float), terms)


@plain("a probit regression at its optimum", "minima")
def probit(rng: np.random.Generator) -> PlainCost:
    def terms(y: Array) -> Likelihood:
        sign = 2 * y - 1

        def mills(z: Array) -> Array:
            t = sign * z
            ratio: Array = np.exp(-(t**2) / 2 - special.log_ndtr(t)) / np.sqrt(2 * np.pi)
            return ratio

        return (
            lambda z: -special.log_ndtr(sign * z),
            lambda z: -sign * mills(z),
            lambda z: mills(z) * (mills(z) + sign * z),
        )

    return _fitted(rng, lambda z: (rng.standard_normal(z.size) < z).astype(float), terms)


# Right gradients of zero


@plain("a bias below a batch normalisation", "zeros")
def batch_normalisation(rng: np.random.Generator) -> PlainCost:
    n, units = int(rng.integers(5, 9)), int(rng.integers(2, 4))
    X, Y = rng.standard_normal((n, 3)), rng.standard_normal((n, units))
    p = {
        "W": rng.standard_normal((3, units)), "b": rng.standard_normal(units) * rng.choice([0, 1]),
        "gamma": rng.uniform(0.5, 2, units),
    }  # fmt: skip

    def normalised(p: Any) -> tuple[Any, Any]:
        a = X @ p["W"] + p["b"]
        centred = a - a.mean(0)
        deviation = np.sqrt((centred**2).mean(0) + 1e-5)
        return centred / deviation, deviation

    def formula(p: Any) -> Any:
        return ((p["gamma"] * normalised(p)[0] - Y) ** 2).mean()

    z, deviation = normalised(p)
    d = 2 * (p["gamma"] * z - Y) / Y.size
    dz = d * p["gamma"]
    da = (dz - dz.mean(0) - z * (dz * z).mean(0)) / deviation
    g = {"W": X.T @ da, "b": da.sum(0), "gamma": (d * z).sum(0)}
    return PlainCost(
        number(formula), p, (g, {**g, "b": np.zeros(units)}), (
            replaced("1e-3 in a bias", g, {"b[0]": 1e-3}),
            replaced("the biases not centred", g, {"b": (dz / deviation).sum(0)}),
            times("W 1 % off", g, {"W": 1.01}),
        ), formula=formula, floor=1e-14,
    )  # fmt: skip


@plain("the shift of a softmax", "zeros")
def shift(rng: np.random.Generator) -> PlainCost:
    n, classes = int(rng.integers(3, 8)), int(rng.integers(2, 5))
    y = rng.integers(classes, size=n)
    p = {"z": rng.standard_normal((n, classes)), "shift": rng.standard_normal(n)}

    def formula(p: Any) -> Any:
        z = p["z"] + p["shift"][:, None]
        return (np.log(np.exp(z).sum(1)) - z[np.arange(n), y]).mean()

    probabilities = special.softmax(p["z"], axis=1)
    probabilities[np.arange(n), y] -= 1
    g = {"z": probabilities / n, "shift": probabilities.sum(1) / n}
    return PlainCost(
        number(formula), p, (g, {**g, "shift": np.zeros(n)}), (
            replaced("1e-3 in a shift", g, {"shift[1]": 1e-3}),
            times("the logits not averaged", g, {"z": float(n)}),
        ), formula=formula, floor=1e-15,
    )  # fmt: skip


@plain("layers of zeros", "zeros")
def zero_layers(rng: np.random.Generator) -> PlainCost:
    n, units = 6, int(rng.integers(2, 5))
    X, y = rng.standard_normal((n, 3)), rng.standard_normal(n)
    p = {"a": np.zeros((3, units)), "c": np.zeros(units), "bias": np.array(rng.standard_normal())}

    def formula(p: Any) -> Any:
        return ((np.tanh(X @ p["a"]) @ p["c"] + p["bias"] - y) ** 2).mean()

    g = {
        "a": np.zeros((3, units)),
        "c": np.zeros(units),
        "bias": np.array(2 * (p["bias"] - y).mean()),
    }
    return PlainCost(
        number(formula), p, (g,), (
            replaced("1e-3 in a layer of zeros", g, {"a[0, 0]": 1e-3}),
            times("the bias 2-fold", g, {"bias": 2.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("parameters that are not used", "zeros")
def unused(rng: np.random.Generator) -> PlainCost:
    p = {
        "w": rng.standard_normal(4),
        "old": rng.standard_normal(3),
        "table": rng.standard_normal((4, 2)),
    }

    def formula(p: Any) -> Any:
        rows = p["table"][[0, 2, 2]]
        return (p["w"] ** 3).sum() + np.exp(rows).sum()

    g = {
        "w": 3 * p["w"] ** 2,
        "old": np.zeros(3),
        "table": np.exp(p["table"]) * np.array([[1], [0], [2], [0]]),
    }
    return PlainCost(
        number(formula), p, (g,), (
            replaced("0.1 in an unused one", g, {"old[1]": 0.1}),
            replaced("a row of the table that is not looked up", g, {"table[1, 0]": 0.5}),
            times("a row counted once", g, {"table[2, 0]": 0.5, "table[2, 1]": 0.5}),
        ), formula=formula,
    )  # fmt: skip


@plain("flat between jumps far off", "zeros")
def plateaus(rng: np.random.Generator) -> PlainCost:
    n = int(rng.integers(5, 30))
    step: Callable[[Any], Any] = [np.sign, np.floor, np.rint][rng.integers(3)]
    x = rng.integers(-3, 3, n) + rng.uniform(0.1, 0.4, n)
    g = np.zeros(n)
    return PlainCost(
        lambda x: float(step(x).sum()), x, (g,), (
            replaced("straight through: 1", g, {"parameters": np.ones(n)}),
            replaced("1e-2 in one entry", g, {at(n // 2): 1e-2}),
        ), formula=lambda x: step(x.real).sum() + 0j,
    )  # fmt: skip


@plain("units that are never active", "zeros")
def dead(rng: np.random.Generator) -> PlainCost:
    n, units = 7, int(rng.integers(3, 6))
    X, y = rng.uniform(-1, 1, (n, 3)), rng.standard_normal(n)
    p = {
        "W": rng.standard_normal((3, units)),
        "b": rng.uniform(0, 0.5, units),
        "v": rng.standard_normal(units),
    }
    p["b"][0], p["b"][1] = -20.0, 20.0

    def formula(p: Any) -> Any:
        return ((np.maximum(X @ p["W"] + p["b"], 0) @ p["v"] - y) ** 2).mean()

    Z = X @ p["W"] + p["b"]
    A = np.maximum(Z, 0)
    d = 2 * (A @ p["v"] - y) / n
    dZ = d[:, None] * p["v"] * (Z > 0)
    g = {"W": X.T @ dZ, "b": dZ.sum(0), "v": A.T @ d}
    return PlainCost(
        number(formula), p, (g,), (
            replaced("1e-2 in a dead unit", g, {"W[1, 0]": 1e-2}),
            replaced("a dead unit's bias without its mask", g, {"b[0]": d.sum() * p["v"][0]}),
            times("a live unit's bias 1 % off", g, {"b[1]": 1.01}),
        ), formula=formula,
    )  # fmt: skip
