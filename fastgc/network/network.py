"""Whether the shapes of a network's layers fit together, and what to do where they do not."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgc.core.tree import Container, FloatArray, Layout, as_real_array, flatten_parameters
from fastgc.network.layers import ACTIVATIONS, LOSSES, Activation, Loss
from fastgc.options import require_number

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


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """Where one layer's W (n, k) and b (n, 1) lie in the flat vector, and what follows them."""

    W: slice
    b: slice
    n: int
    k: int
    activation: str

    def places(self, entries: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Unit and input of those entries of the flat vector that are here; a bias has input k."""
        weights = entries[(entries >= self.W.start) & (entries < self.W.stop)] - self.W.start
        biases = entries[(entries >= self.b.start) & (entries < self.b.stop)] - self.b.start
        return (
            np.concatenate((weights // self.k, biases)),
            np.concatenate((weights % self.k, np.full(biases.size, self.k))),
        )

    @property
    def act(self) -> Activation:
        """What is known of the activation."""
        return ACTIVATIONS[self.activation]


class Forced(NamedTuple):
    """Units at their corners that are held to one slope, whatever their Z.

    Attributes:
        units: which, (n_l, m) for each layer.
        share: of the way from the slope on the left, 0, to that on the right, 1.
    """

    units: Sequence[NDArray[np.bool_]]
    share: float


class Network:
    """A fully connected network with its data: a cost, parameters -> float.

    LINEAR → activation → … → LINEAR → loss, of any depth and widths; those are read off the
    parameters at each call. Columns are samples.

    Args:
        X: the inputs, (n_0, m).
        Y: the labels, (n_L, m) or (m,). Logistic: numbers in [0, 1]. Softmax: one-hot columns
            (n_L, m) or class indices (m,). Squared, Huber: any numbers.
        activation: of the hidden layers: ``relu``, ``leaky_relu`` (slope 0.01), ``tanh``,
            ``sigmoid``, ``softplus``, ``silu``, ``gelu``, ``gelu_tanh`` (its approximation by
            tanh) or ``identity``; one name for all hidden layers, or a sequence with one name for
            each.
        loss: ``logistic`` (sigmoid and cross-entropy, summed over outputs), ``softmax`` (and
            cross-entropy), ``squared`` (½ the squared error of a linear output) or ``huber`` (the
            same up to an error of 1, linear beyond); the cost is its mean over the samples.
        weight_decay: λ; adds λ/(2m) · Σ W² over all weights, no biases.
        divisor: what the sums over the samples, and of weight decay, are divided by; None for m.
            1 makes the cost a sum, m n_L a mean over the outputs as well.

    Raises:
        TypeError: for X, Y that are not real numbers, or a name that is not a string.
        ValueError: for wrong shapes, NaN or inf, labels the loss cannot use, unknown names.

    X and Y are copied: changing them later changes nothing here. `labels` is Y as the loss uses it:
    (n_L, m), or class indices (m,).

    >>> import numpy as np
    >>> net = Network(np.array([[1.0, 2.0]]), [0, 1])
    >>> net({"W1": [[0.0]], "b1": [[0.0]]})          # a coin toss: log 2
    0.6931471805599453
    >>> net
    Network(n_0=1, m=2, activation='relu', loss='logistic', weight_decay=0.0)
    >>> Network(np.array([[1.0, 2.0]]), [0, 1], divisor=1)({"W1": [[0.0]], "b1": [[0.0]]})  # a sum
    1.3862943611198906
    """

    def __init__(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        activation: str | Sequence[str] = "relu",
        loss: str = "logistic",
        weight_decay: float = 0.0,
        divisor: float | None = None,
    ) -> None:
        self.activation = _activation(activation)
        self.loss = _known(loss, LOSSES, "loss")
        self.weight_decay = require_number(weight_decay, "weight_decay")
        self.X, self.Y = _data(X, Y)
        self.divisor = _divisor(divisor, self.m)
        self.labels = self.losses.labels(self.Y)
        for array in (self.X, self.Y, self.labels):
            array.flags.writeable = False

    @property
    def losses(self) -> Loss:
        """What is known of the loss."""
        return LOSSES[self.loss]

    @property
    def m(self) -> int:
        """The number of samples."""
        return int(self.X.shape[1])

    def __repr__(self) -> str:
        divisor = "" if self.divisor == self.m else f", divisor={self.divisor!r}"
        return (
            f"Network(n_0={self.X.shape[0]}, m={self.m}, activation={self.activation!r}, "
            f"loss={self.loss!r}, weight_decay={self.weight_decay!r}{divisor})"
        )

    def is_overridden(self) -> bool:
        """Whether a subclass computes another cost, which fastgc cannot see into."""
        parts = ("__call__", "forward", "sample_losses", "propagate", "mean", "decay", "layers")
        return any(getattr(type(self), part) is not getattr(Network, part) for part in parts)

    def __call__(self, parameters: Container) -> float:
        """The cost at `parameters`: a mapping W1, b1, W2, b2, … or a sequence in that order.

        W_l has shape (n_l, n_{l−1}) and b_l shape (n_l, 1).
        """
        layout, vector = flatten_parameters(parameters)
        layers, _ = self.layers(layout)
        return float(self.forward(layers, vector))

    def forward(self, layers: Sequence[Layer], vectors: FloatArray) -> FloatArray:
        """The costs (…) of flat parameter vectors (…, P), unchecked; `layers` from `layers`.

        Each vector's cost is computed by BLAS calls whose shapes do not depend on how many
        vectors there are, so it is the same to the last bit alone and among others.
        """
        # an underflow is harmless, and what overflows is reported as a cost that is not finite
        with np.errstate(all="ignore"):
            return self.mean(self.sample_losses(layers, vectors), layers, vectors)

    def mean(self, losses: FloatArray, layers: Sequence[Layer], vectors: FloatArray) -> FloatArray:
        """The costs (…) from the loss of each sample (…, m), weight decay included."""
        total: FloatArray = losses.sum(axis=-1)
        if self.weight_decay != 0:
            total = total + self.decay(layers, vectors)
        return np.divide(total, self.divisor)

    def sample_losses(
        self, layers: Sequence[Layer], vectors: FloatArray, forced: Forced | None = None
    ) -> FloatArray:
        """The loss of each sample, (…, m), for flat parameter vectors (…, P)."""
        for _, _, Z in self.propagate(layers, vectors, forced):
            last = Z
        losses: FloatArray = self.losses.value(last, self.labels)
        return losses

    def propagate(
        self, layers: Sequence[Layer], vectors: FloatArray, forced: Forced | None = None
    ) -> Iterator[tuple[Layer, FloatArray, FloatArray]]:
        """Each layer with its A_{l−1} and Z_l, (…, n, m); Z_l is overwritten for the next."""
        lead = vectors.shape[:-1]
        A = self.X
        for l, layer in enumerate(layers):
            Z = vectors[..., layer.W].reshape(*lead, layer.n, layer.k) @ A
            Z += vectors[..., layer.b].reshape(*lead, layer.n, 1)
            yield layer, A, Z
            kink = layer.act.kink
            if forced is None or kink is None or not forced.units[l].any():
                A = layer.act.value(Z)
            else:
                left, right = kink
                line = (left + forced.share * (right - left)) * Z
                A = np.where(forced.units[l], line, layer.act.value(Z))

    def decay(self, layers: Sequence[Layer], vectors: FloatArray) -> FloatArray:
        """λ/2 · Σ W², (…), for flat parameter vectors (…, P)."""
        total = np.zeros(vectors.shape[:-1])
        for layer in layers:
            W = vectors[..., layer.W]
            total = total + 0.5 * self.weight_decay * np.vecdot(W, W)
        return total

    def output_size(self, z: FloatArray) -> FloatArray:
        """|A_L| + |Y| (n_L, m), for the last pre-activations: the terms that dZ_L subtracts."""
        return self.losses.output_size(z, self.labels)

    def layers(self, layout: Layout) -> tuple[tuple[Layer, ...], Layout]:
        """The layers that `layout` describes, and `layout` with the names W1, b1, …

        Raises:
            TypeError: for parameters that are one array.
            ValueError: for missing or unknown keys and for shapes that do not fit together.
        """
        if layout.kind == "array":
            raise TypeError(
                "a Network's parameters are a mapping W1, b1, W2, b2, … or a sequence in that "
                f"order; got one array of shape {layout.shapes[0]}"
            )
        if layout.kind == "sequence":
            if len(layout.names) % 2:
                raise ValueError(
                    f"parameters has {len(layout.names)} arrays; wanted W1, b1, W2, b2, …: "
                    "a weight and a bias for each layer"
                )
            layout = layout.renamed(
                [f"{'Wb'[i % 2]}{i // 2 + 1}" for i in range(len(layout.names))]
            )
        where = {
            name: (shape, part)
            for (name, part), shape in zip(layout.tensors(), layout.shapes, strict=True)
        }
        depth = _depth(list(where))
        pairs = [(where[f"W{l}"], where[f"b{l}"]) for l in range(1, depth + 1)]
        require_chain(self.X.shape, [(W_shape, b_shape) for (W_shape, _), (b_shape, _) in pairs])
        layers = [
            Layer(W=W, b=b, n=shape[0], k=shape[1], activation=name)
            for ((shape, W), (_, b)), name in zip(
                pairs, (*self._hidden(depth), "identity"), strict=True
            )
        ]
        self._check_output(layers[-1].n, f"W{depth}")
        return tuple(layers), layout

    def _hidden(self, depth: int) -> tuple[str, ...]:
        if isinstance(self.activation, str):
            return (self.activation,) * (depth - 1)
        if len(self.activation) != depth - 1:
            raise ValueError(
                f"activation names {len(self.activation)} hidden layers; the parameters have "
                f"{depth - 1} (W1 … W{depth}, the last is the output). Pass one name for all, "
                "or one for each hidden layer"
            )
        return self.activation

    def _check_output(self, outputs: int, last: str) -> None:
        if self.losses.chances is not None and self.Y.ndim == 1:
            if self.labels.max() >= outputs:
                raise ValueError(
                    f"Y holds class {int(self.labels.max())}; {last} has {outputs} rows, so the "
                    f"classes are 0 to {outputs - 1}"
                )
            return
        rows = 1 if self.Y.ndim == 1 else self.Y.shape[0]
        if rows != outputs:
            raise ValueError(
                f"{last} has {outputs} rows; Y has shape {self.Y.shape}, so wanted {rows}: "
                "one output for each row of Y"
            )


def _data(X: object, Y: object) -> tuple[FloatArray, FloatArray]:
    X, Y = _finite(X, "X"), _finite(Y, "Y", kinds="iufb")
    if X.ndim != 2:
        raise ValueError(
            f"X has shape {X.shape}; wanted (n_0, m), a column for each sample. "
            "A single sample is X.reshape(-1, 1)"
        )
    if Y.ndim not in (1, 2):
        raise ValueError(
            f"Y has shape {Y.shape}; wanted (n_L, m) or (m,), a column for each sample"
        )
    m = X.shape[1]
    if Y.shape[-1] != m:
        start = f"X has shape {X.shape} and Y has shape {Y.shape}; wanted as many columns in both, "
        if X.shape[0] == Y.shape[-1]:
            raise ValueError(start + "one for each sample. X has samples in rows: transpose X")
        if Y.shape[0] == m:
            raise ValueError(start + "one for each sample. Y has samples in rows: transpose Y")
        if X.shape[0] == Y.shape[0]:
            raise ValueError(
                start + "one for each sample. Both have samples in rows: transpose X and Y"
            )
        raise ValueError(start + "one for each sample. Check that they belong together")
    return X, Y


def _finite(value: object, label: str, kinds: str = "iuf") -> FloatArray:
    with np.errstate(all="ignore"):  # what is too large becomes inf, and is refused as that
        array = np.array(as_real_array(value, label, kinds), dtype=np.float64, order="C")
    if array.size == 0:
        raise ValueError(f"{label} has shape {array.shape}: it holds no numbers")
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        at = f"{label}[{', '.join(map(str, index))}]" if index else label
        raise ValueError(f"{at} is {array[index]}: {label} must hold finite numbers")
    return array


def _divisor(divisor: float | None, m: int) -> float:
    if divisor is None:
        return float(m)
    value = require_number(divisor, "divisor")
    if value == 0:
        raise ValueError("divisor is 0; wanted a positive number, as 1 for a sum over the samples")
    return value


def _activation(activation: str | Sequence[str]) -> str | tuple[str, ...]:
    if isinstance(activation, str):
        return _known(activation, ACTIVATIONS, "activation")
    if not isinstance(activation, list | tuple):
        raise TypeError(
            f"activation is {activation!r}; wanted a name, or one name for each hidden layer"
        )
    return tuple(_known(name, ACTIVATIONS, "activation") for name in activation)


def _known(name: object, table: Mapping[str, object], what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} is {name!r}; wanted one of the names: {', '.join(table)}")
    if name not in table:
        import difflib  # 4 ms that only a misspelt name should cost

        close = difflib.get_close_matches(name.lower(), table, n=1)
        advice = f' Did you mean "{close[0]}"?' if close else ""
        raise ValueError(f'{what} is "{name}"; known are: {", ".join(table)}.{advice}')
    return name


def _depth(names: list[str]) -> int:
    """L, for names that are exactly W1, b1, …, WL, bL in any order."""
    wanted: list[str] = []
    depth = 0
    while f"W{depth + 1}" in names or f"b{depth + 1}" in names:
        depth += 1
        wanted += [f"W{depth}", f"b{depth}"]
    for name in names:
        if name not in wanted:
            raise ValueError(
                f'parameters has the key "{name}"; a Network has W1, b1, W2, b2, … numbered from 1 '
                "without gaps, and nothing else"
            )
    for name in wanted:
        if name not in names:
            partner = f"{'Wb'[name[0] == 'W']}{name[1:]}"
            advice = f" A layer without a bias has b{name[1:]} = zeros" if name[0] == "b" else ""
            raise ValueError(f'parameters has "{partner}" but no "{name}".{advice}')
    return depth
