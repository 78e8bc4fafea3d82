"""Plain costs of unlike scales, of a bounded domain, with singular entries, of a short scale."""

from typing import Any

import numpy as np
from scipy import special

from tests.plain_case import (
    NOT_ACCUSED,
    Array,
    Container,
    PlainCost,
    at,
    number,
    plain,
    power_of_ten,
    replaced,
    times,
)  # fmt: skip

# Unlike scales


@plain("slopes of 1e4 beside slopes of 1e-3", "scales")
def slopes(rng: np.random.Generator) -> PlainCost:
    large, small = power_of_ten(rng, 3.5, 4.5), power_of_ten(rng, -3.5, -2.5)
    x, phase = rng.uniform(0.2, 0.8, 4), rng.uniform(-1, 1)
    start = x[0] - phase / large

    def formula(x: Any) -> Any:
        return np.sin(large * (x[0] - start)) + small * np.sin(x[1]) * np.exp(x[2]) + x[3] ** 2

    g = np.array([
        large * np.cos(large * (x[0] - start)), small * np.cos(x[1]) * np.exp(x[2]),
        small * np.sin(x[1]) * np.exp(x[2]), 2 * x[3],
    ])  # fmt: skip
    return PlainCost(
        number(formula), x, (g,), (
            replaced("a small one zero", g, {at(1): 0.0}),
            times("a small one doubled", g, {at(2): 2.0}),
            times("the large one 1 % off", g, {at(0): 1.01}),
        ), formula=formula,
    )  # fmt: skip


@plain("a slope of 1e8 beside slopes of 1", "scales")
def hundred_million(rng: np.random.Generator) -> PlainCost:
    large = power_of_ten(rng, 7.5, 8.5)
    x = np.array([rng.uniform(-1, 1) / 1e3, *rng.uniform(-1, 1, 3)])

    def formula(x: Any) -> Any:
        return large * x[0] + np.sin(x[1]) * x[2] + np.exp(x[3])

    g = np.array([large, np.cos(x[1]) * x[2], np.sin(x[1]), np.exp(x[3])])
    return PlainCost(
        number(formula), x, (g,), (
            times("a small one 10 % off", g, {at(3): 1.1}),
            replaced("the small ones zero", g, {at(1): 0.0, at(2): 0.0, at(3): 0.0}),
            times("the large one's sign", g, {at(0): -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("a plate in SI units", "scales")
def plate(rng: np.random.Generator) -> PlainCost:
    stiffness, thickness = rng.uniform(5e10, 4e11, 2), rng.uniform(3e-6, 3e-4, 2)
    p: Container = {"E": stiffness, "t": thickness, "nu": rng.uniform(0.1, 0.4)}
    scale = 1 / (stiffness * thickness**3)
    kappa = scale * rng.uniform(0.5, 2, 2)

    def formula(p: Any) -> Any:
        return (kappa * p["E"] * p["t"] ** 3).sum() / (12 * (1 - p["nu"] ** 2))

    under = 12 * (1 - p["nu"] ** 2)
    g = {
        "E": kappa * thickness**3 / under, "t": 3 * kappa * stiffness * thickness**2 / under,
        "nu": 24 * p["nu"] * formula(p) / under,
    }  # fmt: skip
    return PlainCost(
        number(formula), p, (g,), (
            times("Young's modulus doubled", g, {"E": 2.0}),
            times("t squared for t cubed", g, {"t": 2 / 3}),
            times("the sign of Poisson's ratio", g, {"nu": -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("micrometres beside radians in one vector", "scales")
def micrometres(rng: np.random.Generator) -> PlainCost:
    x = np.array([*(rng.uniform(0.2, 3, 3) * 1e-6), *rng.uniform(-1, 1, 2)])

    def formula(x: Any) -> Any:
        return (np.cos(x[:3] / 1e-6) * np.array([1.0, 0.5, 2.0])).sum() + np.sin(x[3]) * x[4]

    g = np.r_[-np.sin(x[:3] / 1e-6) * [1e6, 5e5, 2e6], np.cos(x[3]) * x[4], np.sin(x[3])]
    return PlainCost(
        number(formula), x, (g,), (
            times("a length 10 % off", g, {at(1): 1.1}),
            times("an angle's sign", g, {at(3): -1.0}),
            replaced("an angle's slope zero", g, {at(4): 0.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("a rate of 1e-10 beside numbers of 1", "scales")
def diffusion(rng: np.random.Generator) -> PlainCost:
    rate = power_of_ten(rng, -10.5, -9)
    x = np.array([rate * rng.uniform(0.5, 2), *rng.uniform(0.5, 2, 2)])
    depths = rng.uniform(0.3, 1.5, 5)

    def formula(x: Any) -> Any:
        return x[1] * np.exp(-depths * x[0] / rate).sum() + np.log(x[2]) * np.sqrt(x[0] / rate)

    decay = np.exp(-depths * x[0] / rate)
    g = np.array([
        -x[1] * (depths * decay).sum() / rate + np.log(x[2]) / (2 * np.sqrt(x[0] * rate)),
        decay.sum(), np.sqrt(x[0] / rate) / x[2],
    ])  # fmt: skip
    return PlainCost(
        number(formula), x, (g,), (
            times("the rate's doubled", g, {at(0): 2.0}),
            times("an ordinary one doubled", g, {at(1): 2.0}),
            replaced("the rate's zero", g, {at(0): 0.0}),
        ), formula=formula,
    )  # fmt: skip


# Where the cost cannot be had a step away


def _quiet(formula: Any) -> Any:
    """The cost that is NaN, without a warning, where NumPy says so."""

    def cost(x: Any) -> float:
        with np.errstate(all="ignore"):
            return float(formula(x))

    return cost


@plain("square roots of numbers below a step", "domains")
def roots(rng: np.random.Generator) -> PlainCost:
    x = np.array([power_of_ten(rng, -10, -8), *rng.uniform(0.5, 2, 3)])
    c = rng.uniform(0.5, 2, 4)

    def formula(x: Any) -> Any:
        return (c * np.sqrt(x)).sum()

    g = c / (2 * np.sqrt(x))
    return PlainCost(
        _quiet(formula), x, (g,), (
            times("the one at the border doubled", g, {at(0): 2.0}),
            times("an inner one 1 % off", g, {at(2): 1.01}),
        ), formula=formula,
    )  # fmt: skip


@plain("powers of 1.5 and 2.5 at 0", "domains")
def powers(rng: np.random.Generator) -> PlainCost:
    x = np.array([0.0, *rng.uniform(0.5, 2, 3), 0.0])
    q = rng.choice([1.5, 2.5], 5)

    def formula(x: Any) -> Any:
        return (x**q).sum()

    g = q * x ** (q - 1)
    return PlainCost(
        _quiet(formula), x, (g,), (
            times("an inner one 5 % off", g, {at(1): 1.05}),
            # one-sided slopes fall only as the root of the step: how far is not known
            replaced("1 at the border", g, {at(0): 1.0}, "open"),
        ), NOT_ACCUSED, formula=formula, floor=1e-20,
    )  # fmt: skip


@plain("an arcsine close to 1", "domains")
def arcsine(rng: np.random.Generator) -> PlainCost:
    x = np.array([1 - power_of_ten(rng, -10, -8), *rng.uniform(-0.8, 0.8, 2), -0.999])

    def formula(x: Any) -> Any:
        return (np.arcsin(x) ** 2).sum()

    g = 2 * np.arcsin(x) / np.sqrt((1 - x) * (1 + x))
    return PlainCost(
        _quiet(formula), x, (g,), (
            times("an inner one's sign", g, {at(1): -1.0}),
            times("the one at the border doubled", g, {at(0): 2.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("a squared arccosine at 1", "domains")
def arccosine(rng: np.random.Generator) -> PlainCost:
    x = np.array([1.0, *rng.uniform(-0.8, 0.8, 3)])

    def formula(x: Any) -> Any:
        # its first power alone has no derivative at 1
        near = 2 * (1 - x[0]) + (1 - x[0]) ** 2 / 3
        return near + (np.arccos(x[1:]) ** 2).sum()

    g = np.r_[-2.0, -2 * np.arccos(x[1:]) / np.sqrt(1 - x[1:] ** 2)]
    return PlainCost(
        _quiet(lambda x: (np.arccos(x) ** 2).sum()), x, (g,), (
            times("an inner one 2 % off", g, {at(2): 1.02}),
            times("half at the border", g, {at(0): 0.5}),
        ), NOT_ACCUSED, formula=formula,
    )  # fmt: skip


@plain("a logarithm that is NaN beyond 0", "domains")
def logarithm(rng: np.random.Generator) -> PlainCost:
    A, y = rng.uniform(0.2, 1, (5, 3)), rng.integers(1, 9, 5).astype(float)
    p: Container = {"w": rng.uniform(0.5, 1, 3), "floor": power_of_ten(rng, -9, -8)}

    def formula(p: Any) -> Any:
        rate = A @ p["w"]
        return (rate - y * np.log(rate)).sum() + p["floor"] * (np.log(p["floor"]) - 1)

    rate = A @ p["w"]
    g = {"w": A.T @ (1 - y / rate), "floor": np.log(p["floor"])}
    return PlainCost(
        _quiet(formula), p, (g,), (
            times("the one at the border doubled", g, {"floor": 2.0}),
            times("the weights 1 % off", g, {"w": 1.01}),
        ), formula=formula,
    )  # fmt: skip


@plain("a cost that raises on one side", "domains")
def raises(rng: np.random.Generator) -> PlainCost:
    x = np.array([0.0, *rng.uniform(0.5, 2, 3)])
    c = rng.uniform(0.5, 2, 4)
    error = [ValueError, ArithmeticError, np.linalg.LinAlgError, KeyError][rng.integers(4)]

    def formula(x: Any) -> Any:
        return (c * np.exp(x)).sum() + x[1] * x[2]

    def cost(x: Any) -> float:
        if (x < 0).any():
            raise error("a negative concentration")
        return float(formula(x))

    g = c * np.exp(x)
    g[1:3] += x[2], x[1]
    return PlainCost(
        cost, x, (g,), (
            times("the one at the border 1.5-fold", g, {at(0): 1.5}),
            times("an inner one 1 % off", g, {at(2): 1.01}),
        ), NOT_ACCUSED, formula=formula,
    )  # fmt: skip


@plain("a matrix that has to be positive definite", "domains")
def definite(rng: np.random.Generator) -> PlainCost:
    gap = power_of_ten(rng, -8.3, -7.6)
    x = np.array([rng.uniform(1, 2), 1.0, rng.uniform(0.5, 1)])
    x[1] = x[2] ** 2 / x[0] + gap  # [[x0, x2], [x2, x1]] has the determinant x0·gap

    def formula(x: Any) -> Any:
        return np.sqrt(x[0] * x[1] - x[2] ** 2) * 1e3 + x[0] * np.exp(x[1])

    def cost(x: Any) -> float:
        lower = np.linalg.cholesky(np.array([[x[0], x[2]], [x[2], x[1]]]))
        return float(np.diag(lower).prod() * 1e3 + x[0] * np.exp(x[1]))

    half = 1e3 / (2 * np.sqrt(x[0] * x[1] - x[2] ** 2))
    g = np.array([half * x[1] + np.exp(x[1]), half * x[0] + x[0] * np.exp(x[1]), -2 * half * x[2]])
    # cancellation leaves the determinant eight digits, and a right gradient no more
    return PlainCost(
        cost, x, (g,), (
            times("a sign", g, {at(2): -1.0}), times("another doubled", g, {at(1): 2.0}),
        ), NOT_ACCUSED, formula=formula, digits=1e-5, options={"tolerance": 1e-5},
    )  # fmt: skip


@plain("a simplex that is guarded", "domains")
def simplex(rng: np.random.Generator) -> PlainCost:
    q = rng.dirichlet(np.ones(4))
    w = rng.standard_normal(3)
    p = {"q": q, "w": w}

    def formula(p: Any) -> Any:
        return (p["q"] * np.log(p["q"])).sum() + (np.tanh(p["w"]) * p["q"][:3]).sum()

    def cost(p: Any) -> float:
        if abs(p["q"].sum() - 1) > 1e-12:
            raise ValueError("the probabilities do not add up to 1")
        return float(formula(p))

    g = {"q": np.log(q) + 1, "w": q[:3] * (1 - np.tanh(w) ** 2)}
    g["q"][:3] += np.tanh(w)
    return PlainCost(
        cost, p, (g,), (
            # J is known on the simplex alone
            times("the probabilities' doubled", g, {"q": 2.0}, "open"),
            times("a weight 1 % off", g, {"w[1]": 1.01}),
        ), NOT_ACCUSED, formula=formula,
    )  # fmt: skip


# One singular entry


@plain("−log p with one p near 0", "singular")
def surprise(rng: np.random.Generator) -> PlainCost:
    p = np.array([*rng.uniform(0.2, 0.8, 3), power_of_ten(rng, -10, -8)])[rng.permutation(4)]
    k, ordinary = int(p.argmin()), int(p.argmax())
    g = -1 / p
    return PlainCost(
        _quiet(lambda p: -np.log(p).sum()), p, (g,), (
            times("the singular one's sign", g, {at(k): -1.0}),
            times("the singular one 10 % off", g, {at(k): 1.1}),
            times("an ordinary one doubled", g, {at(ordinary): 2.0}),
        ), formula=lambda p: -np.log(p).sum(),
    )  # fmt: skip


@plain("1 / x near 0", "singular")
def inverse(rng: np.random.Generator) -> PlainCost:
    x = np.array([power_of_ten(rng, -4.5, -3.5), *rng.uniform(0.5, 2, 3)])

    def formula(x: Any) -> Any:
        return (1 / x).sum() + x[1] * x[2]

    g: Array = -1 / x**2
    g[1:3] += x[2], x[1]
    return PlainCost(
        number(formula), x, (g,), (
            times("the singular one's sign", g, {at(0): -1.0}),
            replaced("an ordinary one doubled", g, {at(3): 2 * g[3]}),
        ), formula=formula,
    )  # fmt: skip


@plain("a gamma function near its pole", "singular")
def gamma(rng: np.random.Generator) -> PlainCost:
    x = np.array([*rng.uniform(0.5, 4, 3), power_of_ten(rng, -8, -6)])
    g = special.digamma(x)
    return PlainCost(
        lambda x: float(special.gammaln(x).sum()), x, (g,), (
            times("the singular one's sign", g, {at(3): -1.0}),
            replaced("an ordinary one 0.3 off", g, {at(1): g[1] + 0.3}),
        ), formula=lambda x: special.loggamma(x).sum(),
    )  # fmt: skip


# A scale as short as a step


@plain("a period near the step", "short scale")
def period(rng: np.random.Generator) -> PlainCost:
    length = float(rng.choice([1e-7, 2e-7, power_of_ten(rng, -7.3, -6), power_of_ten(rng, -7, -6)]))
    x = np.array([*(length * rng.uniform(1.1, 1.2, 2)), *rng.uniform(-1, 1, 2)])

    def formula(x: Any) -> Any:
        return np.sin(2 * np.pi * x[:2] / length).sum() + x[2] * np.exp(x[3])

    g = np.r_[
        2 * np.pi / length * np.cos(2 * np.pi * x[:2] / length),
        np.exp(x[3]), x[2] * np.exp(x[3]),
    ]  # fmt: skip
    return PlainCost(
        number(formula), x, (g,), (
            times("10 % off", g, {at(0): 1.1}),
            times("an ordinary one's sign", g, {at(3): -1.0}),
            # at a period of one step nothing moves, wherever else nothing is looked at
            replaced("zero", g, {at(1): 0.0}, "open"),
        ), formula=formula,
    )  # fmt: skip


@plain("a bump narrower than a step", "short scale")
def bump(rng: np.random.Generator) -> PlainCost:
    width = power_of_ten(rng, -8, -7)
    x = np.array([width * rng.uniform(0.3, 0.9), *rng.uniform(-1, 1, 2)])

    def formula(x: Any) -> Any:
        return 1 / (1 + (x[0] / width) ** 2) + np.sin(x[1]) * x[2]

    t = x[0] / width
    g = np.array([-2 * t / width / (1 + t**2) ** 2, np.cos(x[1]) * x[2], np.sin(x[1])])
    return PlainCost(
        number(formula), x, (g,), (
            times("the narrow one 10 % off", g, {at(0): 0.9}),
            times("the narrow one's sign", g, {at(0): -1.0}),
            times("an ordinary one 10 % off", g, {at(1): 1.1}),
        ), formula=formula,
    )  # fmt: skip
