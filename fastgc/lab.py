"""The course's gradient-checking lab, under its own names and with its own numbers.

``from fastgc.lab import *`` replaces the lab's three helper modules: it imports what those export,
NumPy as ``np`` too. The functions that a student writes are imported by name alone, as ``from
fastgc.lab import gradient_check_n``, so that the star import, run again, never replaces the
student's own.

The 1-D cost is J = θx; the network is LINEAR → RELU → LINEAR → RELU → LINEAR → SIGMOID with the
cross-entropy cost, of any depth and widths; columns are samples.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgc.core.tree import FloatArray, Layout, flatten
from fastgc.core.verdict import relative_difference
from fastgc.costs.base import Batch, Cost
from fastgc.lab_self_tests import (
    GREEN,
    RESET,
    backward_propagation_test,
    forward_propagation_test,
    gradient_check_n_test,
    gradient_check_test,
)
from fastgc.methods.stacked import perturbed_costs
from fastgc.network.network import require_chain
from fastgc.parallel.chunks import Resources
from fastgc.parallel.threads import one_blas_thread

# What the lab's helper modules export, and nothing that a student writes.
__all__ = [
    "backward_propagation_test",
    "dictionary_to_vector",
    "forward_propagation_test",
    "gradient_check_n_test",
    "gradient_check_n_test_case",
    "gradient_check_test",
    "gradients_to_vector",
    "np",
    "relu",
    "sigmoid",
    "vector_to_dictionary",
]

THRESHOLD = 2e-7
YELLOW = "\033[93m"
TEST_CASE_SHAPES = {
    "W1": (5, 4), "b1": (5, 1), "W2": (3, 5), "b2": (3, 1), "W3": (1, 3), "b3": (1, 1),
}  # fmt: skip


def sigmoid(x: ArrayLike) -> FloatArray:
    """1 / (1 + e⁻ˣ), elementwise.

    >>> float(sigmoid(0.0))
    0.5
    """
    # Where e⁻ˣ would overflow the value is below 1e-307: the bound keeps numpy from warning.
    value: FloatArray = 1.0 / (1.0 + np.exp(-np.maximum(x, -709.0)))
    return value


def relu(x: ArrayLike) -> NDArray[Any]:
    """max(0, x), elementwise.

    >>> relu([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    value: NDArray[Any] = np.maximum(0, x)
    return value


def forward_propagation(x: Any, theta: Any) -> Any:
    """J = θx.

    >>> forward_propagation(2, 4)
    8
    """
    return theta * x


def backward_propagation(x: Any, theta: Any) -> Any:  # noqa: ARG001  the lab's signature
    """dJ/dθ = x.

    >>> backward_propagation(3, 4)
    3
    """
    return x


def gradient_check(x: Any, theta: Any, epsilon: float = 1e-7, print_msg: bool = False) -> float:
    """The difference between the 1-D gradient and its central difference.

    >>> f"{gradient_check(2, 4):.6e}"
    '2.919336e-10'
    """
    J_plus = forward_propagation(x, theta + epsilon)
    J_minus = forward_propagation(x, theta - epsilon)
    gradapprox = (J_plus - J_minus) / (2 * epsilon)
    difference = relative_difference(
        np.ravel(np.asarray(backward_propagation(x, theta), dtype=np.float64)),
        np.ravel(np.asarray(gradapprox, dtype=np.float64)),
    )
    return _tell(difference, print_msg)


def forward_propagation_n(
    X: ArrayLike, Y: ArrayLike, parameters: Mapping[str, ArrayLike]
) -> tuple[Any, tuple[Any, ...]]:
    """The cost −(1/m) Σ [Y log A_L + (1 − Y) log(1 − A_L)], and the cache Z1, A1, W1, b1, Z2, ….

    Args:
        X: (n_0, m).
        Y: (n_L, m), or (m,) for one output.
        parameters: W1, b1, …, WL, bL.

    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> cost, cache = forward_propagation_n(X, Y, parameters)
    >>> f"{cost:.6f}", len(cache)
    ('2.407833', 12)
    """
    A: Any = np.asarray(X)
    layers = _layers(A, parameters)
    cache: tuple[Any, ...] = ()
    for W, b in layers:
        Z = W @ A + b
        A = sigmoid(Z) if W is layers[-1][0] else relu(Z)
        cache += (Z, A, W, b)
    return _cross_entropy(A, Y), cache


def backward_propagation_n(
    X: ArrayLike, Y: ArrayLike, cache: tuple[Any, ...]
) -> dict[str, NDArray[Any]]:
    """The gradients dZ3, dW3, db3, dA2, dZ2, …, db1 of `forward_propagation_n`'s cost; right.

    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> gradients = backward_propagation_n(X, Y, forward_propagation_n(X, Y, parameters)[1])
    >>> list(gradients)
    ['dZ3', 'dW3', 'db3', 'dA2', 'dZ2', 'dW2', 'db2', 'dA1', 'dZ1', 'dW1', 'db1']
    """
    X = np.asarray(X)
    m = X.shape[1]
    depth = len(cache) // 4
    gradients: dict[str, NDArray[Any]] = {}
    for l in range(depth, 0, -1):
        _, A, W, _ = cache[4 * l - 4 : 4 * l]
        below = cache[4 * l - 7] if l > 1 else X
        dZ = A - _labels(Y, A) if l == depth else np.multiply(gradients[f"dA{l}"], A > 0)
        gradients[f"dZ{l}"] = dZ
        gradients[f"dW{l}"] = 1.0 / m * (dZ @ below.T)
        gradients[f"db{l}"] = 1.0 / m * np.sum(dZ, axis=1, keepdims=True)
        if l > 1:
            gradients[f"dA{l - 1}"] = W.T @ dZ
    return gradients


def faulty_backward_propagation_n(
    X: ArrayLike, Y: ArrayLike, cache: tuple[Any, ...]
) -> dict[str, NDArray[Any]]:
    """`backward_propagation_n` with the lab's planted bugs: dW2 doubled, db1 with 4/m for 1/m.

    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> cost, cache = forward_propagation_n(X, Y, parameters)
    >>> gradients = faulty_backward_propagation_n(X, Y, cache)
    >>> f"{gradient_check_n(parameters, gradients, X, Y):.6f}"
    '0.285093'
    """
    gradients = backward_propagation_n(X, Y, cache)
    if "dW2" in gradients:
        gradients["dW2"] = gradients["dW2"] * 2
    gradients["db1"] = gradients["db1"] * 4
    return gradients


def dictionary_to_vector(parameters: Mapping[str, ArrayLike]) -> tuple[FloatArray, list[str]]:
    """All parameters as one column (P, 1) of floats, in the order W1, b1, W2, …, and the name of
    the tensor that each came from.

    >>> values, keys = dictionary_to_vector({"W1": [[1, 2]], "b1": [[3]]})
    >>> values.ravel().tolist(), keys
    ([1.0, 2.0, 3.0], ['W1', 'W1', 'b1'])
    """
    columns = {key: _column(parameters[key]) for key in _keys(parameters)}
    keys = [key for key, column in columns.items() for _ in range(column.size)]
    return np.concatenate(list(columns.values())), keys


def vector_to_dictionary(
    theta: ArrayLike, parameters: Mapping[str, ArrayLike] | None = None
) -> dict[str, FloatArray]:
    """The inverse of `dictionary_to_vector`: new arrays in the shapes of `parameters`.

    Args:
        theta: (P, 1) or (P,).
        parameters: where to take names and shapes from; None for the lab's 4-5-3-1.

    >>> {key: W.shape for key, W in vector_to_dictionary(np.zeros((47, 1))).items()}
    {'W1': (5, 4), 'b1': (5, 1), 'W2': (3, 5), 'b2': (3, 1), 'W3': (1, 3), 'b3': (1, 1)}
    """
    shapes: Mapping[str, tuple[int, ...]] = TEST_CASE_SHAPES
    if parameters is not None:
        shapes = {key: np.shape(parameters[key]) for key in _keys(parameters)}
    values = _column(theta).ravel()
    wanted = sum(math.prod(shape) for shape in shapes.values())
    if values.size != wanted:
        raise ValueError(
            f"theta holds {values.size} values; wanted {wanted}, for {shapes}. "
            "For another network pass its parameters: vector_to_dictionary(theta, parameters)"
        )
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(values.copy(), ends[:-1])
    return {
        key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)
    }


def gradients_to_vector(gradients: Mapping[str, ArrayLike]) -> FloatArray:
    """dW1, db1, dW2, … as one column (P, 1) of floats; dZ and dA are left out.

    >>> gradients_to_vector({"dZ1": [[9.0]], "dW1": [[1.0, 2.0]], "db1": [[3.0]]}).ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    return np.concatenate([_column(gradients[key]) for key in _keys(gradients, prefix="d")])


def gradient_check_n(
    parameters: Mapping[str, ArrayLike],
    gradients: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    epsilon: float = 1e-7,
    print_msg: bool = False,
) -> float:
    """The difference between the network's gradients and their central differences.

    Evaluates the lab's own cost, log(1 − A_L) and its rounding included, for all parameters in a
    few stacked passes. `fastgc.check` on a `fastgc.Network` says more, and says which is wrong.

    Args:
        parameters: W1, b1, …, WL, bL.
        gradients: dW1, db1, …; further keys are passed over.
        X: (n_0, m).
        Y: (n_L, m), or (m,) for one output.
        epsilon: the step.
        print_msg: whether to print the lab's coloured verdict, at the threshold 2e-7.

    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> cost, cache = forward_propagation_n(X, Y, parameters)
    >>> gradients = backward_propagation_n(X, Y, cache)
    >>> gradient_check_n(parameters, gradients, X, Y) < 2e-7
    True
    """
    _layers(np.asarray(X), parameters)
    layout, theta = flatten({key: parameters[key] for key in _keys(parameters)})
    grad = gradients_to_vector(gradients).ravel()
    if grad.size != theta.size:
        raise ValueError(
            f"gradients hold {grad.size} values; parameters hold {theta.size}. "
            "Each dW and db has the shape of its W and b"
        )

    cost = _LabCost(layout, theta, np.asarray(X), Y)
    # Where A_L is exactly 0 or 1 the lab's cost is inf or NaN; the verdict says so, numpy need not.
    with one_blas_thread(), np.errstate(divide="ignore", invalid="ignore"):
        J_plus, J_minus = perturbed_costs(cost, np.arange(theta.size), epsilon, _RESOURCES)
        gradapprox = (J_plus - J_minus) / (2 * epsilon)
    return _tell(relative_difference(grad, gradapprox), print_msg)


def gradient_check_n_test_case() -> tuple[FloatArray, NDArray[np.int64], dict[str, FloatArray]]:
    """X (4, 3), Y (3,) and the parameters of a 4-5-3-1 network, as the lab draws them.

    The draw is that of ``np.random.seed(1)``, from a private generator: the global one is left
    alone.

    >>> X, Y, parameters = gradient_check_n_test_case()
    >>> X.shape, Y.tolist(), list(parameters)
    ((4, 3), [1, 1, 0], ['W1', 'b1', 'W2', 'b2', 'W3', 'b3'])
    """
    generator = np.random.RandomState(1)
    X = generator.randn(4, 3)
    parameters = {key: generator.randn(*shape) for key, shape in TEST_CASE_SHAPES.items()}
    return X, np.array([1, 1, 0]), parameters


class _LabCost(Cost):
    """The lab's cost of a network, of many sets of parameters in one pass."""

    batch = Batch()

    def __init__(self, layout: Layout, theta: FloatArray, X: NDArray[Any], Y: ArrayLike) -> None:
        self.layout, self.theta, self._X, self._Y = layout, theta, X, Y
        self.row_bytes = 4 * 8 * max(shape[0] for shape in layout.shapes) * X.shape[1]

    def value(self, vector: FloatArray) -> float:
        """The cost at a vector (P,)."""
        return float(self.values(vector))

    def values(self, rows: FloatArray) -> FloatArray:
        """The costs (K,) of rows (K, P).

        `forward_propagation_n` without a cache, in place: its temporaries took four times as long.
        """
        A: Any = self._X
        views = self.layout.views(rows)
        for l, (W, b) in enumerate(zip(views[0::2], views[1::2], strict=True)):
            A = W @ (np.maximum(0, A, out=A) if l else A)
            A += b
        costs: FloatArray = _cross_entropy(sigmoid(A), self._Y)
        return costs


_RESOURCES = Resources(memory=256 * 2**20, threads=1, advance=lambda _: None)


def _tell(difference: float, print_msg: bool) -> float:
    if print_msg:
        wrong = not difference <= THRESHOLD  # a NaN is no proof of anything
        message = (
            "There is a mistake in the backward propagation!"
            if wrong
            else "Your backward propagation works perfectly fine!"
        )
        print(f"{YELLOW if wrong else GREEN}{message} difference = {difference}{RESET}")
    return difference


def _cross_entropy(A: FloatArray, Y: ArrayLike) -> Any:
    """−(1/m) Σ [Y log A + (1 − Y) log(1 − A)] over the last two axes of A (…, n_L, m)."""
    Y = _labels(Y, A)
    log_probs = np.multiply(-np.log(A), Y) + np.multiply(-np.log(1 - A), 1 - Y)
    return 1.0 / A.shape[-1] * np.sum(log_probs, axis=(-2, -1))


def _labels(Y: ArrayLike, A: FloatArray) -> NDArray[Any]:
    """Y as an array that subtracts from A (…, n_L, m) without broadcasting to another shape."""
    Y = np.asarray(Y)
    if np.atleast_2d(Y).shape != A.shape[-2:]:
        raise ValueError(
            f"Y has shape {Y.shape}; the output has shape {A.shape[-2:]}, a column for each "
            "sample" + (". Transpose Y?" if Y.T.shape == A.shape[-2:] else "")
        )
    return Y


def _column(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


def _layers(X: NDArray[Any], parameters: Mapping[str, ArrayLike]) -> list[Any]:
    """W_l, b_l as arrays that fit together."""
    arrays = [np.asarray(parameters[key]) for key in _keys(parameters)]
    layers = list(zip(arrays[0::2], arrays[1::2], strict=True))
    require_chain(X.shape, [(W.shape, b.shape) for W, b in layers])
    return layers


def _keys(tensors: Mapping[str, object], prefix: str = "") -> list[str]:
    """W1, b1, W2, b2, … as far as `tensors` has them, each with `prefix`."""
    keys: list[str] = []
    l = 1
    while f"{prefix}W{l}" in tensors:
        keys += [f"{prefix}W{l}", f"{prefix}b{l}"]
        l += 1
    missing = [key for key in keys if key not in tensors]
    if missing or not keys:
        raise ValueError(
            f'"{missing[0] if missing else prefix + "W1"}" is missing; wanted '
            f"{prefix}W1, {prefix}b1, {prefix}W2, {prefix}b2, … for every layer"
        )
    return keys
