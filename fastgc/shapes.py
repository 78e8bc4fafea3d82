"""Whether the shapes of a network's layers fit together, and what to do where they do not."""

import math
from collections.abc import Sequence

Shape = tuple[int, ...]


def require_chain(X: Shape, layers: Sequence[tuple[Shape, Shape]]) -> None:
    """Raises ValueError unless W_l has shape (n_l, n_{l−1}) and b_l (n_l, 1), from X (n_0, m) up.

    Args:
        X: the shape of X.
        layers: the shapes of W_l and b_l, l = 1 … L.
    """
    below = X[0]
    for l, (W, b) in enumerate(layers, start=1):
        if len(W) != 2 or W[1] != below:
            raise ValueError(
                f"W{l} has shape {W}; wanted (n_{l}, {below}), " + _weight_advice(X, W, l, below)
            )
        if b != (W[0], 1):
            fits = math.prod(b) == W[0]
            raise ValueError(
                f"b{l} has shape {b}; wanted ({W[0]}, 1), a column with one bias for each row of "
                f"W{l}. "
                + (f"Reshape it: b{l}.reshape(-1, 1)" if fits else "Check how it was made")
            )
        below = W[0]


def _weight_advice(X: Shape, W: Shape, l: int, below: int) -> str:
    transposed = len(W) == 2 and W[0] == below
    if l > 1:
        advice = "Transpose it?" if transposed else f"Check the width of layer {l - 1}"
        return f"since W{l - 1} has {below} rows. {advice}"
    reason = f"since X has shape {X} and its columns are samples. "
    if len(W) == 2 and W[1] == X[-1]:
        return reason + "X seems to have samples in rows: transpose X"
    return reason + ("Transpose it?" if transposed else "Check the width of the input")
