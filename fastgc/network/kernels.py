"""The response: how the loss of a sample changes with one pre-activation, without cancellation.

A *column* is one perturbed pre-activation: unit i of layer l, sample s, by δ. Its change is carried
upwards as a change, Δa = φ(z + δ) − φ(z), by formulas that subtract nothing nearly equal, and ends
as r, the change of the sample's loss. Columns of one sample are worked on together: row j of a
buffer holds the change of unit j in each of them, so that z is one number for the whole row.

The sums of a column run over the units in their order, however many columns there are beside it.
So threads and memory change no result. Nothing is validated here: `propagate` does what is to be
done. `respond` is one long function since it is compiled as one: its loops share their buffers.
"""

from typing import Any

import numpy as np

from fastgc.core.jit import compiled, entry
from fastgc.core.tree import FloatArray
from fastgc.network.exact_changes import RELU, change_at, change_loss, change_row
from fastgc.network.state import KernelArguments


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
