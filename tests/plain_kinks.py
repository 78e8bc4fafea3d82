"""Plain costs that jump, bend steeply close by, or have kinks in one or in several entries."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.plain_case import (
    CORRECT,
    NOT_ACCUSED,
    Array,
    Demand,
    Formula,
    PlainCost,
    at,
    at_kinks,
    number,
    plain,
    power_of_ten,
    replaced,
    times,
)  # fmt: skip

# What lies within a step and no further: a jump, a wall


@plain("a step function close by", "jump")
def jump(rng: np.random.Generator) -> PlainCost:
    height, side = power_of_ten(rng, -3, 1) * rng.choice([-1, 1]), int(rng.choice([-1, 1]))
    edge, slope = rng.uniform(0.5, 2), rng.uniform(0.3, 2)
    x = np.array([edge - side * rng.uniform(2e-8, 8e-8), *rng.uniform(-1, 1, 3)])

    def formula(x: Any) -> Any:
        return (
            height * np.where(side * (x[0] - edge) > 0, 1.0, 0.0)
            + slope * x[0]
            + np.sin(x[1:]).sum()
            + x[1] * x[2]
        )

    g = np.array([slope, *np.cos(x[1:])])
    g[1:3] += x[2], x[1]
    return PlainCost(
        number(formula), x, (g,), (
            times("another entry 2 % off", g, {at(1): 1.02}),
            times("another entry's sign", g, {at(3): -1.0}),
            times("the entry beside the jump 10 % off", g, {at(0): 1.1}),
        ), formula=formula,
    )  # fmt: skip


@plain("a table looked up between its edges", "jump")
def table(rng: np.random.Generator) -> PlainCost:
    levels, w = rng.standard_normal(40), rng.standard_normal(3)
    x = np.array([rng.integers(1, 15) + rng.choice([-1, 1]) * rng.uniform(2e-8, 8e-8), *w])
    data = rng.standard_normal((7, 3))

    def formula(x: Any) -> Any:
        return 0.2 * levels[int(np.floor(np.real(x[0])))] + (np.tanh(data @ x[1:]) ** 2).mean()

    A = np.tanh(data @ w)
    g = np.array([0.0, *(data.T @ (2 * A * (1 - A**2)) / 7)])
    return PlainCost(
        number(formula), x, (g,), (
            times("the weights 5 % off", g, {at(1): 1.05, at(2): 1.05, at(3): 1.05}),
            replaced("a slope of the table", g, {at(0): 0.5}),
        ), formula=formula,
    )  # fmt: skip


@plain("a steep wall close by", "jump")
def wall(rng: np.random.Generator) -> PlainCost:
    steepness, (square, in_numpy) = power_of_ten(rng, 5, 8), rng.random(2) < 0.5
    edge, slope = rng.uniform(0.5, 2), rng.uniform(0.3, 2)
    x = np.array([edge - rng.uniform(2e-8, 8e-8), *rng.uniform(-1, 1, 2)])

    def formula(x: Any) -> Any:
        over = np.maximum(x[0] - edge, 0) if in_numpy else max(x[0] - edge, 0 * x[0])
        return (1e7 * steepness * over**2 if square else steepness * over) + (
            slope * x[0] + np.exp(x[1]) * x[2]
        )

    g = np.array([slope, np.exp(x[1]) * x[2], np.exp(x[1])])
    return PlainCost(
        number(formula), x, (g,), (
            times("another entry's sign", g, {at(1): -1.0}),
            times("another entry 20 % off", g, {at(2): 0.8}),
        ), formula=formula,
    )  # fmt: skip


# Kinks in several entries at once, and in one


@plain("the largest of tied numbers", "kinks")
def tied(rng: np.random.Generator) -> PlainCost:
    n, ties, c = int(rng.integers(5, 9)), int(rng.integers(2, 5)), rng.uniform(0.5, 3)
    x = rng.uniform(-1, 0.5, n)
    where = np.sort(rng.permutation(n)[:ties])
    x[where] = 0.9
    first, last, shared = np.zeros(n), np.zeros(n), np.zeros(n)
    first[where[0]], last[where[-1]], shared[where] = c, c, c / ties
    full = np.where(x == 0.9, c, 0.0)
    untied = int(np.flatnonzero(x < 0.9)[0])
    largest: Formula = max if rng.random() < 0.5 else np.max  # Python's takes branches
    return PlainCost(
        lambda x: float(c * largest(x)), x, (first, last, shared), (
            at_kinks("to all in full", full, where),
            at_kinks("to none", 0 * full, where),
            at_kinks("1.5 to the first", 1.5 * first, where),
            replaced("twenty times to the first", first, {at(int(where[0])): 20 * c}),
            replaced("to one that is not tied", first, {at(untied): c}),
        ), blocks=((np.arange(n), 1),),
    )  # fmt: skip


@plain("maxout of equal units", "kinks")
def maxout(rng: np.random.Generator) -> PlainCost:
    n, inputs, units = int(rng.integers(4, 9)), int(rng.integers(2, 4)), int(rng.integers(2, 4))
    X = rng.uniform(0.1, 1, (n, inputs))
    V = np.repeat(rng.standard_normal((inputs, 1)), units, axis=1)

    def cost(p: Any) -> float:
        return float((X @ p["V"]).max(axis=1).mean() + (p["c"] ** 2).sum())

    c = rng.standard_normal(2)
    first, shared = np.zeros((inputs, units)), np.tile(X.mean(0)[:, None] / units, (1, units))
    first[:, 0] = X.mean(0)
    every = np.tile(X.mean(0)[:, None], (1, units))
    kinked = np.arange(inputs * units)
    right = {"V": first, "c": 2 * c}
    return PlainCost(
        cost, {"V": V, "c": c}, (right, {"V": shared, "c": 2 * c}), (
            at_kinks("to all units in full", {"V": every, "c": 2 * c}, kinked),
            at_kinks("to none", {"V": 0 * every, "c": 2 * c}, kinked),
            at_kinks("doubled", {"V": 2 * first, "c": 2 * c}, kinked),
            times("a smooth entry 1 % off", right, {"c[1]": 1.01}),
        ), blocks=((np.arange(inputs * units + 2), 1),),
    )  # fmt: skip


@plain("max pooling of an image with ties", "kinks")
def pooling(rng: np.random.Generator) -> PlainCost:
    rows, columns = 2 * int(rng.integers(1, 4)), 2 * int(rng.integers(2, 4))
    image = rng.integers(0, 3, (rows, columns)).astype(float)
    image[:2, :2], image[:2, 2:4] = [[4, 4], [1, 0]], [[1, 0], [2, 5]]
    signs = rng.choice([-1.0, 1.0], (rows // 2, columns // 2))
    weights = rng.uniform(0.5, 2, signs.shape) * signs

    def windows(image: Any) -> Any:
        split = image.reshape(rows // 2, 2, columns // 2, 2)
        return split.transpose(0, 2, 1, 3).reshape(rows // 2, columns // 2, 4)

    def back(g: Array) -> Array:
        split = g.reshape(rows // 2, columns // 2, 2, 2).transpose(0, 2, 1, 3)
        return split.reshape(rows, columns)

    # where J bends up in one window and down in another, the slopes of J along a line need not
    # hold those of a right choice
    pixels = windows(image)
    largest = pixels == pixels.max(-1, keepdims=True)
    one = np.eye(4)[pixels.argmax(-1)] * weights[..., None]
    shared = largest / largest.sum(-1, keepdims=True) * weights[..., None]
    kinked = np.flatnonzero(back(largest & (largest.sum(-1, keepdims=True) > 1)))
    more = one.copy()
    more[0, 0] *= 1.5
    numbered = windows(np.arange(image.size).reshape(image.shape)).reshape(-1, 4)
    right = {"image": back(one)}
    return PlainCost(
        lambda p: float((windows(p["image"]).max(-1) * weights).sum()),
        {"image": image}, (right, {"image": back(shared)}), (
            at_kinks("x == max", {"image": back(largest * weights[..., None])}, kinked),
            at_kinks("1.5 at a tie", {"image": back(more)}, kinked),
            at_kinks("nothing at ties", {"image": back(one * (largest.sum(-1) < 2)[..., None])}, kinked),
            times("one pixel doubled", right, {"image[1, 3]": 2.0}),
        ), CORRECT if (signs == signs[0, 0]).all() else NOT_ACCUSED, blocks=tuple((w, int(s)) for w, s in zip(numbered, signs.ravel(), strict=True)),
    )  # fmt: skip


@plain("hinge loss on the margin", "kinks")
def hinge(rng: np.random.Generator) -> PlainCost:
    n, k = 12, int(rng.integers(2, 4))
    w = rng.integers(-1, 2, k).astype(float)
    w[0] = 1.0
    X = rng.integers(-2, 3, (n, k)).astype(float)
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    X[0], y[0] = np.eye(k)[0], 1.0  # exactly on the margin
    smooth = rng.standard_normal(2)

    def cost(p: Any) -> float:
        loss = np.maximum(0.0, 1 - y * (X @ p["w"])).mean()
        return float(loss + 0.5 * (p["w"] @ p["w"]) + np.exp(p["a"]).sum())

    margin = 1 - y * (X @ w)

    def gradients(active: NDArray[Any]) -> dict[str, Array]:
        return {"w": -(X.T @ (active * y)) / n + w, "a": np.exp(smooth)}

    right, closed, half = (
        gradients(a) for a in (margin > 0, margin >= 0, (margin > 0) + 0.5 * (margin == 0))
    )
    everything = gradients(np.ones(n))
    everything["w"] = everything["w"] + 20.0
    return PlainCost(
        cost, {"w": w, "a": smooth}, (right, closed, half), (
            at_kinks("far outside every choice", everything, np.arange(k), "wrong"),
            times("a smooth tensor's sign", right, {"a": -1.0}),
        ), blocks=((np.arange(k + 2), 1),),
    )  # fmt: skip


@plain("quantile loss at residuals of zero", "kinks")
def quantile(rng: np.random.Generator) -> PlainCost:
    q, n = float(rng.choice([0.1, 0.25, 0.5, 0.9])), int(rng.integers(5, 9))
    zero = np.arange(n) < rng.integers(2, 4)
    x = rng.integers(-3, 4, n).astype(float)
    y = x + np.where(zero, 0.0, rng.choice([-1, 1], n) * rng.uniform(0.5, 2, n))
    below, over = np.where(y > x, -q, 1 - q), np.where(y >= x, -q, 1 - q)
    outside = np.where(zero, 2 * (1 - q) + 2 * q, below)
    return PlainCost(
        lambda x: float(np.maximum(q * (y - x), (q - 1) * (y - x)).sum()),
        x, (over, below, np.where(zero, 0.0, below)), (
            at_kinks("out of range at the kinks", outside, np.flatnonzero(zero)),
            times("a residual's sign", over, {at(n - 1): -1.0}),
        ), blocks=((np.arange(n), 1),),
    )  # fmt: skip


@plain("a lasso with coefficients of zero", "kinks")
def lasso(rng: np.random.Generator) -> PlainCost:
    n, penalty = int(rng.integers(4, 8)), rng.uniform(0.5, 2)
    X, w = rng.standard_normal((9, n)), rng.standard_normal(n)
    w[::2] = 0.0
    y = X @ w + 0.3 * rng.standard_normal(9)
    smooth = X.T @ (X @ w - y)
    zero = np.where(w == 0, 1.0, 0.0)
    right = smooth + penalty * np.sign(w)
    sides = tuple(right + s * penalty * zero for s in (1.0, -1.0, 0.5))
    return PlainCost(
        lambda w: float(0.5 * ((X @ w - y) ** 2).sum() + penalty * np.abs(w).sum()),
        w, (right, *sides), (
            at_kinks("five times the penalty at a zero", right + 5 * penalty * np.eye(n)[2], [2], "wrong"),
            at_kinks("thirty times the penalty at a zero", right - 30 * penalty * np.eye(n)[2], [2], "wrong"),
            replaced("without the penalty", right, {at(1): smooth[1]}),
            times("a coefficient's sign", right, {at(3): -1.0}),
        ), blocks=((np.arange(n), 1),),
    )  # fmt: skip


@plain("numbers clipped at their bounds", "kinks")
def clipped(rng: np.random.Generator) -> PlainCost:
    n = int(rng.integers(5, 9))
    x, y = rng.uniform(-0.8, 0.8, n), rng.choice([-3.0, 3.0], n) * rng.uniform(0.8, 1.2, n)
    x[:4] = -1.0, 1.0, -1.7, 1.3  # on both bounds, and beyond both

    def formula(x: Any) -> Any:
        return ((np.clip(x, -1, 1) - y) ** 2).sum()

    # J may bend up at one bound and down at the other, as with max pooling above
    inner, state = 2 * (np.clip(x, -1, 1) - y), np.abs(x) < 1
    at_bound = np.abs(x) == 1
    right = inner * state
    return PlainCost(
        number(formula), x, (right, inner * (state | at_bound), inner * (state + 0.5 * at_bound)), (
            at_kinks("twenty times at a bound", right + 20 * inner * np.eye(n)[0], [0], "wrong"),
            at_kinks("the other sign at a bound", right - inner * np.eye(n)[1], [1]),
            replaced("without its mask", right, {at(2): inner[2]}),
            times("an inner one 1 % off", right, {at(4): 1.01}),
        ), NOT_ACCUSED, formula=formula, limit=True,
    )  # fmt: skip


@plain("numbers weighted by rank, with ties", "kinks")
def ranks(rng: np.random.Generator) -> PlainCost:
    n = int(rng.integers(6, 9))
    c, x = np.sort(rng.uniform(-1, 2, n)), rng.uniform(-1, 1, n)
    x[2], x[4] = x[0], x[0]
    g, reverse = np.zeros(n), np.zeros(n)
    g[np.argsort(x, kind="stable")] = c
    reverse[n - 1 - np.argsort(x[::-1], kind="stable")] = c
    kinked = np.array([0, 2, 4])
    shared = g.copy()
    shared[kinked] = g[kinked].mean()
    more = g.copy()
    more[kinked] = g[kinked].max() + 0.2
    return PlainCost(
        lambda x: float(np.sort(x) @ c), x, (g, reverse, shared), (
            at_kinks("the largest weight to all that tie", more, kinked),
            replaced("the weight of another rank", g, {at(1): g[1] + 0.5}),
            replaced("an untied weight 0.1 off", g, {at(5): g[5] - 0.1}),
        ), blocks=((np.arange(n), 1),),
    )  # fmt: skip


def _median(rng: np.random.Generator, ties: int, demand: Demand) -> PlainCost:
    """The median of an odd number of numbers, of which so many tie in the middle."""
    below = int(rng.integers(1, 4))
    above = below + ties - 1 if ties % 2 == 0 else below
    middle: Array = np.zeros(ties) + rng.uniform(-2, 2)
    apart = np.r_[np.arange(1.0, above + 1), -np.arange(1.0, below + 1)]
    x = rng.permutation(np.concatenate([middle, middle[0] + apart]))
    tie = x == np.median(x)
    kinked, rest = np.flatnonzero(tie), int(np.flatnonzero(~tie)[0])
    one, other, shared = np.zeros(x.size), np.zeros(x.size), tie / ties
    one[kinked[0]], other[kinked[-1]] = 1, 1
    return PlainCost(
        lambda x: float(np.median(x)), x, (one, other, shared), (
            at_kinks("to all that tie", np.where(tie, 1.0, 0.0), kinked),
            replaced("to another", one, {at(rest): 1.0}, demand),
        ), CORRECT if demand == "wrong" else NOT_ACCUSED,
        formula=lambda x: x[np.argsort(x, kind="stable")[x.size // 2]], limit=True,
    )  # fmt: skip


@plain("a median at a tie of two", "kinks")
def median_of_two(rng: np.random.Generator) -> PlainCost:
    return _median(rng, 2, "wrong")


@plain("a median at a tie of three", "kinks")
def median_of_three(rng: np.random.Generator) -> PlainCost:
    # along each of the three J is flat on both sides, as along the others: only steps in several
    # entries at once show that it bends there
    return _median(rng, 3, "seen")


@plain("a ReLU network with samples of zero", "kinks")
def relu_network(rng: np.random.Generator) -> PlainCost:
    units, inputs, n = int(rng.integers(2, 5)), 3, 6
    X, Y = rng.standard_normal((n, inputs)), rng.standard_normal(n)
    X[: int(rng.integers(1, 3))] = 0.0
    p = {
        "W": rng.standard_normal((inputs, units)),
        "b": np.zeros(units),
        "v": rng.standard_normal(units),
    }

    def formula(p: Any) -> Any:
        return ((np.maximum(X @ p["W"] + p["b"], 0) @ p["v"] - Y) ** 2).mean()

    def backward(slope: float) -> dict[str, Array]:
        Z = X @ p["W"] + p["b"]
        A = np.maximum(Z, 0)
        d = 2 * (A @ p["v"] - Y) / n
        dZ = d[:, None] * p["v"] * np.where(Z == 0, slope, Z > 0)
        return {"W": X.T @ dZ, "b": dZ.sum(0), "v": A.T @ d}

    right = backward(0.0)
    # the units' kinks meet in b, and values of J do not tell them apart
    return PlainCost(
        number(formula), p, (right, backward(1.0)), (
            times("W doubled", right, {"W": 2.0}),
            times("an output weight's sign", right, {f"v[{np.abs(right['v']).argmax()}]": -1.0}),
        ), NOT_ACCUSED, formula=formula, limit=True,
    )  # fmt: skip
