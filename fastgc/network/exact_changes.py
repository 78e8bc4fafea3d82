"""The changes of activations and of losses, compiled: φ(z + δ) − φ(z), without cancellation.

The formulas subtract nothing nearly equal, so that a change is good to a few rounding units however
short the step. Each is held to 50 digits in the tests. What is not known here is NaN.
"""

import math

from fastgc.core.jit import compiled
from fastgc.core.tree import FloatArray
from fastgc.network.layers import (
    ACTIVATIONS,
    GELU_CUBE,
    GELU_RATE,
    LEAKY_SLOPE,
    LOSSES,
    NODES,
    WEIGHTS,
)  # fmt: skip

RELU, LEAKY_RELU = ACTIVATIONS["relu"].code, ACTIVATIONS["leaky_relu"].code
TANH, SIGMOID, SILU = (ACTIVATIONS[name].code for name in ("tanh", "sigmoid", "silu"))
SOFTPLUS, IDENTITY = ACTIVATIONS["softplus"].code, ACTIVATIONS["identity"].code
GELU, GELU_TANH = ACTIVATIONS["gelu"].code, ACTIVATIONS["gelu_tanh"].code
LOGISTIC, SOFTMAX = LOSSES["logistic"].code, LOSSES["softmax"].code
SQUARED, HUBER = LOSSES["squared"].code, LOSSES["huber"].code
DENSITY = 1.0 / math.sqrt(math.tau)  # of the normal distribution at 0
SMALL = 2.0**-16  # up to here the series below are good to a rounding unit


@compiled
def small_expm1(x: float) -> float:
    """exp(x) − 1 for |x| ≤ SMALL, in a form that a loop can vectorise."""
    return x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24))))


@compiled
def small_log1p(x: float) -> float:
    """log(1 + x) for |x| ≤ SMALL, in a form that a loop can vectorise."""
    return x * (1.0 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4))))


@compiled
def sigma(z: float) -> float:
    """1 / (1 + e^−z), relatively accurate at both ends."""
    decay = math.exp(-abs(z))
    return (1.0 if z >= 0 else decay) / (1.0 + decay)


@compiled
def change_sigma(z: float, d: float) -> float:
    """σ(z + δ) − σ(z)."""
    return sigma_between(z, z + d, d)


@compiled
def sigma_between(z: float, y: float, d: float) -> float:
    """σ(y) − σ(z), where y − z is known to be δ."""
    if abs(d) <= 1:
        x = sigma(z) * math.expm1(d)
        return sigma(-z) * x / (1.0 + x)
    if d > 0:
        return sigma(y) * sigma(-z) * -math.expm1(-d)
    return sigma(z) * sigma(-y) * math.expm1(d)


@compiled
def change_rectifier(slope: float, z: float, d: float) -> float:
    """The change of a ReLU whose slope left of 0 is `slope`; a NaN stays one."""
    if z > 0:
        return slope * (z + d) - z if d < -z else d
    return slope * d if z + d < 0 else z + d - slope * z


@compiled
def change_softplus(z: float, d: float) -> float:
    """The change of log(1 + e^z), whose part beside the corner at 0 is log(1 + e^−|z|)."""
    if abs(d) <= 1:
        return math.log1p(sigma(z) * math.expm1(d))
    tails = math.log1p(math.exp(-abs(z + d))) - math.log1p(math.exp(-abs(z)))
    return change_rectifier(0.0, z, d) + tails


@compiled
def normal(z: float) -> float:
    """Φ(z)."""
    return 0.5 * math.erfc(-math.sqrt(0.5) * z)


@compiled
def change_normal(z: float, d: float) -> float:
    """Φ(z + δ) − Φ(z): an integral, or where the density changes much a difference of tails."""
    if abs(d) * (abs(z) + 0.5 * abs(d)) <= 1:
        total = 0.0
        for k in range(NODES.size):
            x = z + NODES[k] * d
            total += WEIGHTS[k] * math.exp(-0.5 * x * x)
        return DENSITY * d * total
    if z + d > -z:
        return normal(-z) - normal(-z - d)
    return normal(z + d) - normal(z)


@compiled
def change_gelu_tanh(z: float, d: float) -> float:
    """The change of z σ(w), where w is a cubic."""
    y, middle = z + d, z + 0.5 * d
    before = GELU_RATE * z * (1.0 + GELU_CUBE * z * z)
    after = GELU_RATE * y * (1.0 + GELU_CUBE * y * y)
    rise = GELU_RATE * d * (1.0 + GELU_CUBE * (3.0 * middle * middle + 0.25 * d * d))
    change = sigma_between(before, after, rise)
    return z * change + d * (sigma(before) + change)


@compiled
def change_at(code: int, z: float, d: float) -> float:
    """φ(z + δ) − φ(z)."""
    if code == RELU:
        return change_rectifier(0.0, z, d)
    if code == LEAKY_RELU:
        return change_rectifier(LEAKY_SLOPE, z, d)
    if code == TANH:
        return 2.0 * change_sigma(2.0 * z, 2.0 * d)
    if code == SIGMOID:
        return change_sigma(z, d)
    if code == IDENTITY:
        return d
    if code == SOFTPLUS:
        return change_softplus(z, d)
    if code == SILU:
        change = change_sigma(z, d)
        return z * change + d * (sigma(z) + change)
    if code == GELU:
        change = change_normal(z, d)
        return z * change + d * (normal(z) + change)
    if code == GELU_TANH:
        return change_gelu_tanh(z, d)
    return math.nan  # whoever adds an activation and forgets it here is told at once


@compiled
def change_row(code: int, z: float, row: FloatArray, C: int) -> None:
    """Replaces each δ of row[:C] by φ(z + δ) − φ(z)."""
    if code == IDENTITY:
        return
    if code in (RELU, LEAKY_RELU):
        slope = 0.0 if code == RELU else LEAKY_SLOPE
        for c in range(C):
            row[c] = change_rectifier(slope, z, row[c])
        return
    # nearly every row is of short steps: the same formulas, in loops that vectorise
    wide = code in (GELU, GELU_TANH) and not abs(z) <= 20
    for c in range(C):
        wide = wide or abs(row[c]) > SMALL / 2
    if not wide and code in (SIGMOID, TANH, SILU):
        change_small_sigmas(code, z, row, C)
    elif not wide and code == SOFTPLUS:
        for c in range(C):
            row[c] = small_log1p(sigma(z) * small_expm1(row[c]))
    elif not wide and code == GELU:
        level, density = normal(z), DENSITY * math.exp(-0.5 * z * z)
        for c in range(C):
            d = row[c]
            x, square = -z * d, d * d
            # the mean of exp(xs − ½δ²s²) over s from 0 to 1, by Hermite's polynomials
            mean = 1.0 + x / 2 + (x * x - square) / 6 + x * (x * x - 3.0 * square) / 24
            change = density * d * mean
            row[c] = z * change + d * (level + change)
    elif not wide and code == GELU_TANH:
        w = GELU_RATE * z * (1.0 + GELU_CUBE * z * z)
        p, q = sigma(w), sigma(-w)
        for c in range(C):
            d, middle = row[c], z + 0.5 * row[c]
            rise = GELU_RATE * d * (1.0 + GELU_CUBE * (3.0 * middle * middle + 0.25 * d * d))
            change = small_change_sigma(p, q, rise)
            row[c] = z * change + d * (p + change)
    else:
        for c in range(C):
            row[c] = change_at(code, z, row[c])


@compiled
def small_change_sigma(p: float, q: float, d: float) -> float:
    """σ(z + δ) − σ(z) for |δ| ≤ SMALL, from p = σ(z) and q = σ(−z)."""
    x = p * small_expm1(d)
    # 1/(1 + x) as a series: a division would take longer than all the rest
    return q * x * (1.0 - x * (1.0 - x * (1.0 - x)))


@compiled
def change_small_sigmas(code: int, z: float, row: FloatArray, C: int) -> None:
    """`change_row` of what is made of σ, for |δ| ≤ SMALL / 2."""
    # scale · Δσ(rate z, rate δ) + δ · (level + on · Δσ)
    rate = 2.0 if code == TANH else 1.0
    scale, level, on = (z, sigma(z), 1.0) if code == SILU else (rate, 0.0, 0.0)
    p, q = sigma(rate * z), sigma(-rate * z)
    for c in range(C):
        change = small_change_sigma(p, q, rate * row[c])
        row[c] = scale * change + row[c] * (level + on * change)


@compiled
def change_huber(r: float, d: float) -> float:
    """The change of Huber's loss of a residual: r + t, held in [−1, 1], over t from 0 to δ."""
    if r < 0:
        r, d = -r, -d
    s = r + d
    if r <= 1 and abs(s) <= 1:
        return d * (r + 0.5 * d)
    if r <= 1 and s > 1:
        return d - 0.5 * (1.0 - r) * (1.0 - r)
    if r > 1 and s >= 1:
        return d
    if r > 1 and s >= -1:
        return d + 0.5 * (1.0 - s) * (1.0 - s)
    return 0.5 * (1.0 - r) * (1.0 + r) - (s + 1.0) if r <= 1 else -(r + s)


@compiled
def change_loss(
    loss: int, Z: FloatArray, at: int, labels: FloatArray, chances: FloatArray, D: FloatArray,
    C: int, r: FloatArray,
) -> None:  # fmt: skip
    """r[:C], the change of a sample's loss where its Z_L, Z[at : at + n_L], changes by D[:, :C]."""
    n = chances.size
    for c in range(C):
        r[c] = 0.0
    if loss == SOFTMAX:
        y, wide = int(labels[0]), 0
        own = D[y]
        for k in range(n):
            row, p = D[k], chances[k] if k != y else 0.0
            for c in range(C):
                e = row[c] - own[c]
                wide += abs(e) > SMALL / 2
                r[c] += p * small_expm1(e)
        for c in range(C):
            r[c] = small_log1p(r[c])
        # the loss is softplus(T), T = log Σ exp(z_k − z_y) over the other classes
        T, top = 0.0, -math.inf
        for k in range(n if wide else 0):
            top = max(top, Z[at + k] - Z[at + y]) if k != y else top
        for k in range(n if wide else 0):
            T += math.exp(Z[at + k] - Z[at + y] - top) if k != y else 0.0
        T = top + math.log(T) if wide else 0.0
        for c in range(C if wide else 0):
            most, least, near, far = -math.inf, math.inf, 0.0, 0.0
            for k in range(n):
                if k != y:
                    most, least = max(most, D[k, c] - own[c]), min(least, D[k, c] - own[c])
            for k in range(n):
                e, share = D[k, c] - own[c], math.exp(Z[at + k] - Z[at + y] - T)
                if k != y:
                    near += share * math.expm1(min(e, 1.0))
                    far += share * math.exp(e - most)
            short = least >= -1 and most <= 1
            r[c] = change_softplus(T, math.log1p(near) if short else most + math.log(far))
        return
    for k in range(n):
        z, label, row = Z[at + k], labels[k], D[k]
        p, q, wide = sigma(z), sigma(-z), 0
        for c in range(C):
            wide += abs(row[c]) > SMALL / 2
        if loss == SQUARED:
            for c in range(C):
                r[c] += row[c] * ((z - label) + 0.5 * row[c])
        elif loss == HUBER:
            for c in range(C):
                r[c] += change_huber(z - label, row[c])
        elif loss != LOGISTIC:
            for c in range(C):
                r[c] = math.nan
        elif wide:
            for c in range(C):
                r[c] += label * change_softplus(-z, -row[c])
                r[c] += (1.0 - label) * change_softplus(z, row[c])
        else:
            for c in range(C):
                up, down = small_expm1(row[c]), small_expm1(-row[c])
                r[c] += label * small_log1p(q * down) + (1.0 - label) * small_log1p(p * up)
