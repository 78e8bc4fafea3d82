"""The response: how the loss of a sample changes with one pre-activation, without cancellation.

A *column* is one perturbed pre-activation: unit i of layer l, sample s, by δ. Its change is carried
upwards as a change, Δa = φ(z + δ) − φ(z), by formulas that subtract nothing nearly equal, and ends
as r, the change of the sample's loss. Columns of one sample are worked on together: row j of a
buffer holds the change of unit j in each of them, so that z is one number for the whole row.

The sums of a column run over the units in their order, however many columns there are beside it.
So threads and memory change no result. All that is compiled is in this file, since Numba's cache on
disk notices no change in another. Nothing is validated here: `response` does what is to be done.
"""

import math
from typing import Any

import numpy as np

from fastgc.core.jit import compiled, entry
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
from fastgc.network.state import KernelArguments

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


@compiled
def multiply_four(
    theta: FloatArray, W_at: int, stride: int, rows: Any, r: int, columns: Any, k: int,
    D: FloatArray, C: int, panel: FloatArray, out: FloatArray,
) -> None:  # fmt: skip
    """out[r : r + 4, :C] = W[rows[r : r + 4]][:, columns[:k]] @ D[:k, :C].

    40 to 50 GFLOP/s on one core where OpenBLAS reaches 46 to 51; BLAS sums in an order that depends
    on the shapes, this does not. A row number below 0 stands for zeros; D has three rows to spare.
    """
    padded = (k + 3) // 4 * 4
    for t in range(4):
        row = rows[r + t]
        for j in range(padded):
            panel[t, j] = theta[W_at + row * stride + columns[j]] if row >= 0 and j < k else 0.0
    for j in range(k, padded):
        for c in range(C):
            D[j, c] = 0.0
    o0, o1, o2, o3 = out[r], out[r + 1], out[r + 2], out[r + 3]
    for c in range(C):
        o0[c] = o1[c] = o2[c] = o3[c] = 0.0
    for j in range(0, padded, 4):
        d0, d1, d2, d3 = D[j], D[j + 1], D[j + 2], D[j + 3]
        w00, w01, w02 = panel[0, j], panel[0, j + 1], panel[0, j + 2]
        w10, w11, w12 = panel[1, j], panel[1, j + 1], panel[1, j + 2]
        w20, w21, w22 = panel[2, j], panel[2, j + 1], panel[2, j + 2]
        w30, w31, w32 = panel[3, j], panel[3, j + 1], panel[3, j + 2]
        w03, w13 = panel[0, j + 3], panel[1, j + 3]
        w23, w33 = panel[2, j + 3], panel[3, j + 3]
        if rows[r + 1] < 0:  # a single output
            for c in range(C):
                o0[c] = o0[c] + w00 * d0[c] + w01 * d1[c] + w02 * d2[c] + w03 * d3[c]
            continue
        for c in range(C):
            x0, x1, x2, x3 = d0[c], d1[c], d2[c], d3[c]
            o0[c] = o0[c] + w00 * x0 + w01 * x1 + w02 * x2 + w03 * x3
            o1[c] = o1[c] + w10 * x0 + w11 * x1 + w12 * x2 + w13 * x3
            o2[c] = o2[c] + w20 * x0 + w21 * x1 + w22 * x2 + w23 * x3
            o3[c] = o3[c] + w30 * x0 + w31 * x1 + w32 * x2 + w33 * x3


@compiled
def add_relus(
    theta: FloatArray, W_at: int, stride: int, w_at: int, rows: Any, n: int, first: int, unit: int,
    changes: FloatArray, C: int, Z: FloatArray, z_at: int, out: FloatArray,
) -> None:  # fmt: skip
    """From Δa through a layer of ReLUs to the only output, in one pass: 3 times as fast."""
    for c in range(C):
        out[c] = 0.0
    # φ(z + δ) − φ(z) is max(δ + a, b), with a = min(z, 0), b = −max(z, 0)
    if unit < 0:
        half = C // 2
        for r in range(n):
            z, w = Z[z_at + rows[r]], theta[w_at + rows[r]]
            a, b = min(z, 0.0), -max(z, 0.0)
            at = W_at + stride * rows[r] + first
            weights = theta[at : at + half]
            for c in range(half):
                d = weights[c] * changes[c] + a
                out[c] += w * (b if d < b else d)
            for c in range(half):
                d = weights[c] * changes[half + c] + a
                out[half + c] += w * (b if d < b else d)
        return
    for r in range(0, n, 4):
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
        v0 = v1 = v2 = v3 = w0 = w1 = w2 = w3 = 0.0
        for q in range(r, min(r + 4, n)):  # in at the end, out at the front
            a0, a1, a2 = a1, a2, a3
            b0, b1, b2 = b1, b2, b3
            v0, v1, v2 = v1, v2, v3
            w0, w1, w2 = w1, w2, w3
            z, w3 = Z[z_at + rows[q]], theta[w_at + rows[q]]
            a3, b3, v3 = min(z, 0.0), -max(z, 0.0), theta[W_at + stride * rows[q] + unit]
        for c in range(C):
            x = changes[c]
            d0, d1 = v0 * x + a0, v1 * x + a1
            d2, d3 = v2 * x + a2, v3 * x + a3
            d0, d1 = b0 if d0 < b0 else d0, b1 if d1 < b1 else d1
            d2, d3 = b2 if d2 < b2 else d2, b3 if d3 < b3 else d3
            out[c] = out[c] + w0 * d0 + w1 * d1 + w2 * d2 + w3 * d3


@entry
def respond(
    net: KernelArguments, step: float, width: int, by_unit: bool, tasks: Any, found: FloatArray
) -> None:
    """The responses to blocks of perturbations.

    Args:
        net: the network at its parameters.
        step: of each perturbation, up and down; two columns of the `width` of a block.
        by_unit: perturb pre-activations, else parameters.
        tasks: (n, 3), blocks: layer, sample and first unit; or, of parameters, layer, unit and
            first input in all samples, where the bias follows the last input.
        found: for pre-activations (3, size of net.Z), laid out as net.Z: r(step), r(−step), and per
            step what a backward pass subtracts. For parameters (3, P), sums over the samples of
            (r(step) − r(−step)) / 2 step, of its size and what a backward pass subtracts, and of
            half the gap between the one-sided slopes.
    """
    theta, Z, A = net.theta, net.Z, net.A
    widths, activations, largest = net.widths, net.activations, net.largest
    weights_at, biases_at, units_at = net.weights_at, net.biases_at, net.units_at
    sizes, labels, chances = net.sizes, net.labels, net.chances
    loss, L, m = net.loss, widths.size - 1, labels.shape[0]
    outputs, half, none = widths[L], width // 2, 0 * m  # a literal 0 would have a type of its own
    spare = outputs + 7
    for l in range(1, L):
        spare = max(spare, widths[l] + 7)
    here, there = np.empty((spare, width)), np.empty((spare, width))
    panel, buffers = np.empty((4, spare)), np.empty((4, width))
    changes, r, gross = buffers[0], buffers[1], buffers[2]
    columns, rows = np.empty(spare, np.int64), np.empty(spare, np.int64)
    targets = np.empty(half, np.int64)
    for b in range(tasks.shape[0]):
        l, item, first = tasks[b, 0], tasks[b, 1], tasks[b, 2]
        code, n_l, k = activations[l], widths[l], widths[l - 1]
        fused = l == L - 2 and activations[L - 1] == RELU and outputs == 1
        unit = -1 if by_unit else item
        for s in range(item if by_unit else none, item + 1 if by_unit else m):
            # the columns: Δa of layer l, or δ itself in the last layer
            n, z_at = none, m * units_at[l] + s * n_l
            if by_unit:
                for i in range(first, min(first + half, n_l)):
                    up = change_at(code, Z[z_at + i], step)  # IDENTITY in the last layer
                    down = change_at(code, Z[z_at + i], -step)
                    if up != 0 or down != 0 or fused:
                        changes[n], buffers[3, n], targets[n] = up, down, i
                        n += 1
                for c in range(n):
                    changes[n + c] = buffers[3, c]
            else:
                longest, x_at = 0.0, m * units_at[l - 1] + s * k
                for j in range(first, min(first + half, k + 1)):
                    d = step * A[x_at + j] if j < k else step
                    if d != 0:
                        changes[n], longest = d, max(longest, abs(d))
                        targets[n] = weights_at[l] + unit * k + j if j < k else biases_at[l] + unit
                        n += 1
                if code == RELU and Z[z_at + unit] < -longest:
                    n = none
                for c in range(n):
                    changes[n + c] = -changes[c]
                change_row(code, Z[z_at + unit], changes, 2 * n)
            if n == 0:
                continue
            C, live, bound = 2 * n, none, 0.0
            for c in range(C):
                bound = abs(changes[c]) if not abs(changes[c]) <= bound else bound
            if l == L:
                for i in range(outputs):
                    for c in range(C):
                        own = targets[c % n] if by_unit else unit
                        here[i, c] = changes[c] if i == own else 0.0
            for t in range(l + 1, L + 1):
                # ΔZ_t from ΔA_{t−1}, then ΔA_t. A ReLU that no column can wake is left out: its
                # change is exactly zero; 1.001 is more than the rounding of any sum
                code_t, at, z_at = activations[t], weights_at[t], m * units_at[t] + s * widths[t]
                bound *= 1.001 * (largest[t, 0] if t == l + 1 else largest[t, 1])
                awake = none
                for j in range(widths[t]):
                    if code_t != RELU or not Z[z_at + j] < -bound:
                        rows[awake] = j
                        awake += 1
                for j in range(awake, awake + 3):
                    rows[j] = -1
                if fused:
                    add_relus(
                        theta, at, n_l, weights_at[L], rows, awake, first, unit, changes, C, Z,
                        z_at, here[0],
                    )  # fmt: skip
                    break
                for q in range(awake):
                    if t == l + 1:
                        row, w_at = there[q], at + rows[q] * n_l
                        for c in range(n):
                            row[c] = theta[w_at + (targets[c] if by_unit else unit)]
                        for c in range(n):
                            w = row[c]
                            row[c], row[n + c] = w * changes[c], w * changes[n + c]
                    elif q % 4 == 0:
                        multiply_four(
                            theta, at, widths[t - 1], rows, q, columns, live, here, C, panel, there
                        )
                for q in range(awake):
                    change_row(code_t, Z[z_at + rows[q]], there[q], C)
                here, there = there, here
                columns, rows, live = rows, columns, awake
            # ΔZ_L is here
            for c in range(C):
                gross[c] = 0.0
            for i in range(outputs):
                for c in range(C):
                    gross[c] += sizes[s, i] * abs(here[i, c])
            z_at = m * units_at[L] + s * outputs
            change_loss(loss, Z, z_at, labels[s], chances[s], here, C, r)
            for c in range(n):
                to, size = targets[c], 0.5 * (gross[c] + gross[n + c]) / step
                if by_unit:
                    to += m * units_at[l] + s * n_l
                    found[0, to], found[1, to], found[2, to] = r[c], r[n + c], size
                else:
                    above, below = r[c] / step, -r[n + c] / step
                    found[0, to] += 0.5 * (above + below)
                    found[1, to] += 0.5 * abs(above + below) + size
                    found[2, to] += 0.5 * abs(above - below)
