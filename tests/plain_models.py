"""Plain costs that are ordinary: smooth models, of which every verdict is a plain one."""

from typing import Any

import numpy as np

from tests.plain_case import Array, PlainCost, number, plain, times

Tensors = dict[str, Array]


def _drawn(rng: np.random.Generator, scale: float = 0.5, **shapes: tuple[int, ...]) -> Tensors:
    return {name: scale * rng.standard_normal(shape) for name, shape in shapes.items()}


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


@plain("a multilayer perceptron", "ordinary")
def perceptron(rng: np.random.Generator) -> PlainCost:
    n, classes = int(rng.integers(3, 9)), 3
    X, y = rng.standard_normal((n, 4)), np.eye(classes)[rng.integers(classes, size=n)]
    p = _drawn(rng, W1=(4, 5), b1=(5,), W2=(5, classes), b2=(classes,))

    def formula(p: Any) -> Any:
        q = _softmax(np.tanh(X @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"])
        return -(y * np.log(q)).sum() / n

    A = np.tanh(X @ p["W1"] + p["b1"])
    d = (_softmax(A @ p["W2"] + p["b2"]) - y) / n
    dZ = (d @ p["W2"].T) * (1 - A**2)
    g = {"W1": X.T @ dZ, "b1": dZ.sum(0), "W2": A.T @ d, "b2": d.sum(0)}
    return PlainCost(
        number(formula), p, (g,), (
            times("dW2 doubled", g, {"W2": 2.0}), times("db1 not averaged", g, {"b1": float(n)}),
            times("one weight's sign", g, {"W1[2, 3]": -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("attention", "ordinary")
def attention(rng: np.random.Generator) -> PlainCost:
    n, k = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    X, target = rng.standard_normal((n, k)), rng.standard_normal((n, k))
    p = _drawn(rng, 0.8, Q=(k, k), K=(k, k), V=(k, k))

    def formula(p: Any) -> Any:
        scores = (X @ p["Q"]) @ (X @ p["K"]).T / np.sqrt(k)
        return ((_softmax(scores) @ (X @ p["V"]) - target) ** 2).sum()

    q, keys, values = X @ p["Q"], X @ p["K"], X @ p["V"]
    weights = _softmax(q @ keys.T / np.sqrt(k))
    d = 2 * (weights @ values - target)
    d_weights = d @ values.T
    d_scores = weights * (d_weights - (d_weights * weights).sum(1, keepdims=True)) / np.sqrt(k)
    g = {"Q": X.T @ (d_scores @ keys), "K": X.T @ (d_scores.T @ q), "V": X.T @ (weights.T @ d)}
    return PlainCost(
        number(formula), p, (g,), (
            times("scores not scaled", g, {"Q": np.sqrt(k), "K": np.sqrt(k)}),
            times("one value's sign", g, {"V[0, 1]": -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("two steps of an LSTM", "ordinary")
def lstm(rng: np.random.Generator) -> PlainCost:
    units, X = 3, rng.standard_normal((2, 2))
    p = _drawn(rng, Wx=(2, 4 * units), Wh=(units, 4 * units), b=(4 * units,))

    def steps(p: Any) -> list[Any]:
        h = c = np.zeros(units)
        kept = []
        for x in X:
            before = h, c
            gates = (x @ p["Wx"] + h @ p["Wh"] + p["b"]).reshape(4, units)
            (i, f, o), u = _sigmoid(gates[:3]), np.tanh(gates[3])
            c = f * c + i * u
            h = o * np.tanh(c)
            kept.append((x, *before, i, f, o, u, c, h))
        return kept

    def formula(p: Any) -> Any:
        return (steps(p)[-1][-1] ** 2).sum()

    g = {name: np.zeros_like(tensor) for name, tensor in p.items()}
    kept = steps(p)
    dh, dc = 2 * kept[-1][-1], np.zeros(units)
    for x, h, c_before, i, f, o, u, c, _ in reversed(kept):
        t = np.tanh(c)
        dc = dc + dh * o * (1 - t**2)
        d = np.concatenate([
            dc * u * i * (1 - i), dc * c_before * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - u**2),
        ])  # fmt: skip
        g["Wx"] += np.outer(x, d)
        g["Wh"] += np.outer(h, d)
        g["b"] += d
        dh, dc = p["Wh"] @ d, dc * f
    return PlainCost(
        number(formula), p, (g,), (
            times("the recurrent weights doubled", g, {"Wh": 2.0}),
            times("one bias 1 % off", g, {"b[0]": 1.01}),
        ), formula=formula,
    )  # fmt: skip


@plain("a convolution by columns", "ordinary")
def convolution(rng: np.random.Generator) -> PlainCost:
    size, filters = int(rng.integers(4, 6)), 2
    image, out = rng.standard_normal((2, size, size)), size - 2
    p = _drawn(rng, F=(filters, 2, 3, 3), b=(filters,))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    columns = windows.transpose(1, 2, 0, 3, 4).reshape(out * out, -1)
    target = rng.standard_normal((out * out, filters))

    def formula(p: Any) -> Any:
        z = columns @ p["F"].reshape(filters, -1).T + p["b"]
        return ((_sigmoid(z) - target) ** 2).mean()

    a = _sigmoid(columns @ p["F"].reshape(filters, -1).T + p["b"])
    d = 2 * (a - target) * a * (1 - a) / target.size
    g = {"F": (d.T @ columns).reshape(p["F"].shape), "b": d.sum(0)}
    return PlainCost(
        number(formula), p, (g,), (
            times("averaged over positions twice", g, {"F": 1 / out**2}),
            times("the biases' sign", g, {"b": -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("a logistic regression", "ordinary")
def logistic(rng: np.random.Generator) -> PlainCost:
    n, k = int(rng.integers(5, 30)), int(rng.integers(2, 6))
    X, y = rng.standard_normal((n, k)), rng.integers(0, 2, n)
    w, penalty = rng.standard_normal(k), rng.uniform(0, 1)

    def formula(w: Any) -> Any:
        return np.log(1 + np.exp(-(2 * y - 1) * (X @ w))).mean() + penalty * (w**2).sum() / 2

    g = X.T @ (_sigmoid(X @ w) - y) / n + penalty * w
    return PlainCost(
        number(formula), w, (g,), (
            times("one entry 0.1 % off", g, {"parameters[1]": 1.001}),
            times("not averaged", g, {"parameters": float(n)}),
        ), formula=formula,
    )  # fmt: skip


@plain("a matrix factorisation", "ordinary")
def factorisation(rng: np.random.Generator) -> PlainCost:
    rows, columns, rank = 5, 4, 2
    R, known = rng.standard_normal((rows, columns)), rng.random((rows, columns)) < 0.7
    known[0] = known[:, 0] = True
    p = _drawn(rng, 1.0, U=(rows, rank), V=(columns, rank))

    def formula(p: Any) -> Any:
        off = known * (p["U"] @ p["V"].T - R)
        return (off**2).sum() + 0.1 * ((p["U"] ** 2).sum() + (p["V"] ** 2).sum())

    off = 2 * known * (p["U"] @ p["V"].T - R)
    g = {"U": off @ p["V"] + 0.2 * p["U"], "V": off.T @ p["U"] + 0.2 * p["V"]}
    return PlainCost(
        number(formula), p, (g,), (
            times("a factor of 1/2 forgotten", g, {"V": 0.5}),
            times("one entry 1 % off", g, {"U[4, 1]": 1.01}),
        ), formula=formula,
    )  # fmt: skip


def _unconjugated_cholesky(S: Any) -> Any:
    """Cholesky's factor by formulas that take complex matrices without conjugating them."""
    lower = np.zeros_like(S)
    for j in range(len(S)):
        lower[j, j] = np.sqrt(S[j, j] - (lower[j, :j] ** 2).sum())
        lower[j + 1 :, j] = (S[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return lower


@plain("a Gaussian process's likelihood", "ordinary")
def gaussian_process(rng: np.random.Generator) -> PlainCost:
    n = int(rng.integers(4, 8))
    t, y = np.sort(rng.uniform(-2, 2, n)), rng.standard_normal(n)
    apart = (t[:, None] - t) ** 2
    p = {
        "log_length": rng.uniform(-1, -0.2),
        "log_height": rng.uniform(-0.5, 0.5),
        "log_noise": rng.uniform(-2, 0),
    }

    def likelihood(p: Any, cholesky: Any) -> Any:
        kernel = np.exp(2 * p["log_height"] - apart / (2 * np.exp(2 * p["log_length"])))
        lower = cholesky(kernel + np.exp(2 * p["log_noise"]) * np.eye(n))
        z = np.linalg.solve(lower, y)
        return (z**2).sum() / 2 + np.log(np.diag(lower)).sum()

    kernel = np.exp(2 * p["log_height"] - apart / (2 * np.exp(2 * p["log_length"])))
    inverse = np.linalg.inv(kernel + np.exp(2 * p["log_noise"]) * np.eye(n))
    d = (inverse - np.outer(inverse @ y, inverse @ y)) / 2
    g = {
        "log_length": (d * kernel * apart).sum() * np.exp(-2 * p["log_length"]),
        "log_height": 2 * (d * kernel).sum(),
        "log_noise": 2 * np.exp(2 * p["log_noise"]) * np.trace(d),
    }  # fmt: skip
    return PlainCost(
        lambda p: float(likelihood(p, np.linalg.cholesky)), p, (g,), (
            times("by the length for its logarithm", g, {"log_length": float(np.exp(-p["log_length"]))}),
            times("the noise's sign", g, {"log_noise": -1.0}),
        ), formula=lambda p: likelihood(p, _unconjugated_cholesky),
    )  # fmt: skip


@plain("a mixture of Gaussians", "ordinary")
def mixture(rng: np.random.Generator) -> PlainCost:
    n, parts = 12, int(rng.integers(2, 4))
    x = rng.standard_normal(n) * 2
    p = _drawn(rng, 1.0, logits=(parts,), mean=(parts,), log_width=(parts,))

    def logs(p: Any) -> Any:
        z = (x[:, None] - p["mean"]) * np.exp(-p["log_width"])
        return np.log(_softmax(p["logits"])) - p["log_width"] - z**2 / 2

    def formula(p: Any) -> Any:
        return -np.log(np.exp(logs(p)).sum(1)).mean()

    share = _softmax(logs(p))
    z = (x[:, None] - p["mean"]) * np.exp(-p["log_width"])
    g = {
        "logits": _softmax(p["logits"]) - share.mean(0),
        "mean": -(share * z).mean(0) * np.exp(-p["log_width"]),
        "log_width": -(share * (z**2 - 1)).mean(0),
    }  # fmt: skip
    return PlainCost(
        number(formula), p, (g,), (
            times("the means not divided", g, {"mean": 1.7}),
            times("one width's sign", g, {"log_width[0]": -1.0}),
        ), formula=formula,
    )  # fmt: skip


@plain("Euler steps of predators and prey", "ordinary")
def predators(rng: np.random.Generator) -> PlainCost:
    steps, dt = int(rng.integers(10, 30)), 0.05
    theta = rng.uniform(0.5, 1.5, 4)
    data = rng.uniform(0.5, 2, (steps, 2))

    def path(theta: Any) -> list[Any]:
        u, v = 1.0, 0.7
        found = [(u, v)]
        for _ in range(steps):
            u, v = u + dt * u * (theta[0] - theta[1] * v), v + dt * v * (theta[2] * u - theta[3])
            found.append((u, v))
        return found

    def formula(theta: Any) -> Any:
        return sum(
            (u - a) ** 2 + (v - b) ** 2
            for (u, v), (a, b) in zip(path(theta)[1:], data, strict=True)
        )

    points, g, du, dv = path(theta), np.zeros(4), 0.0, 0.0
    for k in range(steps, 0, -1):
        du, dv = du + 2 * (points[k][0] - data[k - 1, 0]), dv + 2 * (points[k][1] - data[k - 1, 1])
        u, v = points[k - 1]
        g += dt * np.array([du * u, -du * u * v, dv * u * v, -dv * v])
        du, dv = (
            du * (1 + dt * (theta[0] - theta[1] * v)) + dv * dt * v * theta[2],
            dv * (1 + dt * (theta[2] * u - theta[3])) - du * dt * u * theta[1],
        )
    return PlainCost(
        number(formula), theta, (g,), (
            times("one rate 1 % off", g, {"parameters[1]": 1.01}),
            times("another's sign", g, {"parameters[3]": -1.0}),
        ), formula=formula,
    )  # fmt: skip
