"""Where every parameter lives: the caller's container as one flat vector, and back."""

import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    pass

FloatArray: TypeAlias = NDArray[np.float64]
Container: TypeAlias = Mapping[str, Any] | Sequence[Any] | ArrayLike

#: u, the rounding unit of float64.
UNIT_ROUNDOFF = 2.0**-53

PIECE = 8192  # entries; a dozen arrays of so many stay in a second-level cache of 1 MiB


@dataclass(frozen=True, eq=False, repr=False)
class Layout:
    """Names, shapes and order of the tensors of one container.

    Attributes:
        kind: what the caller passed: a mapping name -> array, a sequence of arrays, or one array.
        names: one name per tensor; ``W2``, or ``parameters[0]`` where the caller gave none.
        shapes: one shape per tensor.
        offsets: tensor ``i`` is ``vector[offsets[i]:offsets[i + 1]]``; the last offset is P.
        build: makes the caller's kind of container from a list of arrays; it can be pickled.
        places: where only some entries of the tensors are meant, their flat indices, one array per
            tensor; None where all are. Then the vector has these entries alone.
        output_axes: of Jacobians, how many of each tensor's first axes are those of the output;
            None of tensors that are parameters.
    """

    kind: Literal["mapping", "sequence", "array"]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    build: Callable[[list[FloatArray]], Any]
    places: tuple[NDArray[np.intp], ...] | None = None
    output_axes: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """P, the number of parameters in all; or of those that are meant."""
        return self.offsets[-1]

    def renamed(self, names: Sequence[str]) -> "Layout":
        """The same tensors under other names."""
        return replace(self, names=tuple(names))

    def tensors(self) -> Iterator[tuple[str, slice]]:
        """Each tensor's name and its slice of the flat vector."""
        for name, start, stop in zip(self.names, self.offsets, self.offsets[1:], strict=False):
            yield name, slice(start, stop)

    @cached_property
    def lengths(self) -> NDArray[np.intp]:
        """The number of entries of each tensor that the vector has."""
        return np.diff(self.offsets)

    def pieces(self) -> Iterator[tuple[slice, slice, NDArray[np.intp]]]:
        """The flat vector in parts that fit into a cache, so that steps over one are fast.

        Each with the numbers of the tensors it touches, and how much of each.
        """
        if self.size <= PIECE:  # nearly every layout: its own arrays serve
            yield slice(0, self.size), slice(0, len(self.names)), self.lengths
            return
        for start in range(0, self.size, PIECE):
            stop = min(start + PIECE, self.size)
            first = bisect_right(self.offsets, start) - 1
            last = bisect_left(self.offsets, stop)
            cuts = [start, *self.offsets[first + 1 : last], stop]
            yield slice(start, stop), slice(first, last), np.diff(cuts)

    def per_entry(
        self, values: FloatArray, tensors: slice, lengths: NDArray[np.intp]
    ) -> FloatArray | float:
        """One value for each tensor as one for each entry of a piece; a number where that does."""
        if lengths.size == 1:
            return float(values[tensors.start])
        return np.repeat(values[tensors], lengths)

    def tensor_of(self, entries: NDArray[np.intp]) -> NDArray[np.intp]:
        """The number of the tensor that holds each entry of the flat vector."""
        return np.searchsorted(self.offsets, entries, side="right") - 1

    def views(self, vectors: FloatArray) -> list[FloatArray]:
        """One array per tensor with the leading axes of `vectors` (…, P): views of it."""
        lead = vectors.shape[:-1]
        return [
            vectors[..., part].reshape((*lead, *shape))
            for (_, part), shape in zip(self.tensors(), self.shapes, strict=True)
        ]

    def entry(self, k: int) -> str:
        """The address of entry `k` of the flat vector, as ``W2[3, 7]``."""
        tensor = int(np.searchsorted(self.offsets, k, side="right")) - 1
        return entry_name(self.names[tensor], self.index(tensor, k - self.offsets[tensor]))

    def index(self, tensor: int, number: int) -> tuple[int, ...]:
        """The index in tensor number `tensor` of its entry `number`, counted from its first."""
        flat = number if self.places is None else int(self.places[tensor][number])
        return index_of(self.shapes[tensor], flat)


def index_of(shape: tuple[int, ...], flat: int) -> tuple[int, ...]:
    """The index of entry number `flat` of an array; 0.5 µs, of NumPy's function 1.9."""
    found = []
    for length in reversed(shape):
        flat, i = divmod(flat, length)
        found.append(i)
    return tuple(reversed(found))


def entry_name(tensor: str, index: tuple[int, ...], output_axes: int = 0) -> str:
    """``W2[3, 7]``; a scalar has its tensor's name. Of a Jacobian, ``output[2]/W2[3, 7]``.

    The tensor of a Jacobian is ``outputs[1]/W2``, or ``W2`` where there is but one output.
    """
    if output_axes:
        output, _, tensor = tensor.rpartition("/")
        row = entry_name(output or "output", index[:output_axes])
        return f"{row}/{entry_name(tensor, index[output_axes:])}"
    return f"{tensor}[{', '.join(map(str, index))}]" if index else tensor


def flatten_parameters(parameters: Container) -> tuple[Layout, FloatArray]:
    """The layout of `parameters` and their values as a new float64 vector (P,).

    Raises:
        TypeError: for anything but real numbers in a mapping, a sequence or an array.
        ValueError: for no parameters, empty tensors, NaN or inf.
    """
    layout, vector = flatten(parameters)
    if not np.isfinite(vector).all():
        k = int(np.argmin(np.isfinite(vector)))
        raise ValueError(
            f"{layout.entry(k)} is {vector[k]}: the parameters must be finite numbers. "
            "Check the training step that produced them"
        )
    return layout, vector


def flatten(parameters: Container) -> tuple[Layout, FloatArray]:
    """`flatten_parameters`, with NaN and inf let through."""
    kind, items = items_of(parameters, "parameters")
    if not items:
        raise ValueError("parameters is empty: there is nothing to check")
    labels = [label for label, _ in items]
    arrays = [as_real_array(value, label) for label, value in items]
    for label, array in zip(labels, arrays, strict=True):
        if array.size == 0:
            raise ValueError(
                f"{label} has shape {array.shape}: it holds no numbers. Leave it out, "
                "or check how it was made"
            )
    offsets = [0]
    for array in arrays:
        offsets.append(offsets[-1] + array.size)
    vector = joined(arrays)
    layout = Layout(
        kind=kind,
        names=tuple(parameters) if isinstance(parameters, Mapping) else tuple(labels),
        shapes=tuple(array.shape for array in arrays),
        offsets=tuple(offsets),
        build=_builder(parameters),
    )
    return layout, vector


def joined(arrays: list[NDArray[Any]]) -> FloatArray:
    """One flat float64 vector of them all; what is too large for it becomes inf."""
    with np.errstate(all="ignore"):
        return np.concatenate([array.ravel() for array in arrays], dtype=np.float64)


def as_real_array(value: object, label: str, kinds: str = "iuf") -> NDArray[Any]:
    """`value` as an array of a dtype of these `kinds`; TypeError says what it was."""
    if isinstance(value, Mapping):
        raise TypeError(
            f"{label} is a {type(value).__name__}: containers may not be nested. "
            "Flatten it to one mapping name -> array"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{label} is a masked array; wanted plain numbers, as its .filled(0.0)")
    try:
        if isinstance(value, np.ndarray):
            array = np.asarray(value)
        else:
            with warnings.catch_warnings(action="error"):  # a masked value in a list only warns
                array = np.asarray(value)
    except Exception as error:  # __array__ may raise anything, as that of a tensor that has a graph
        raise TypeError(
            f"{label} cannot be made an array of numbers: {str(error).rstrip('.')}. "
            "Pass each tensor as an array of its own"
        ) from error
    # NumPy has no kind for bfloat16, which PyTorch and JAX bring along
    if array.dtype.kind not in kinds and array.dtype.name != "bfloat16":
        raise TypeError(
            f"{label} has dtype {array.dtype}; wanted real numbers (float or integer). "
            f"{_dtype_advice(array.dtype.kind, label)}"
        )
    return array


def items_of(container: object, what: str) -> tuple[Any, list[tuple[str, object]]]:
    """The kind of `container`, and each value with the expression that reaches it."""
    if isinstance(container, Mapping):
        for key in container:
            if not isinstance(key, str):
                raise TypeError(
                    f"{what} has the key {key!r} of type {type(key).__name__}; "
                    'wanted names such as "W1"'
                )
        return "mapping", [(f'{what}["{key}"]', value) for key, value in container.items()]
    if isinstance(container, list | tuple):
        return "sequence", [(f"{what}[{i}]", value) for i, value in enumerate(container)]
    if container is None or isinstance(container, set | frozenset | Iterator):
        raise TypeError(
            f"{what} is {_type_of(container)}; wanted a mapping name -> array, "
            "a sequence of arrays, or one array"
        )
    return "array", [(what, container)]


def _builder(parameters: object) -> Callable[[list[FloatArray]], Any]:
    if isinstance(parameters, Mapping):
        return partial(_mapping, tuple(parameters))
    if isinstance(parameters, tuple):
        make: Callable[[list[FloatArray]], Any] = getattr(type(parameters), "_make", tuple)
        return make  # a namedtuple stays one
    if isinstance(parameters, list):
        return list
    return _first


def _mapping(keys: tuple[str, ...], arrays: list[FloatArray]) -> dict[str, FloatArray]:
    return dict(zip(keys, arrays, strict=True))


def _first(arrays: list[FloatArray]) -> FloatArray:
    return arrays[0]


def _dtype_advice(kind: str, label: str) -> str:
    if kind == "c":
        return "Check the real and imaginary parts as parameters of their own"
    if kind == "b":
        return f"Convert it: np.asarray({label}, dtype=float)"
    return "Check how it was made"


def _type_of(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


# A tensor whose entries span more than this holds quantities of several units, as a flat vector of
# all parameters does; then each entry has a scale of its own.
SPAN = 1e3


def scale_of(theta: FloatArray) -> FloatArray:
    """The scale of each parameter of a tensor, (n,): |θ_k|, or the tensor's size where it is small.

    The size is the root mean square. Where entries span more than 10³ it is that of no entry: then
    the scale is |θ_k| itself, and the median of these where θ_k is 0. Where all are 0, it is 1.
    """
    values = np.abs(theta)
    largest = float(values.max())
    if largest == 0:
        return np.ones(theta.size)
    others = values[values > 0]
    if largest > SPAN * float(others.min()):
        return np.where(values > 0, values, float(np.median(others)))
    typical = float(np.sqrt(np.mean(np.square(values / largest)))) * largest
    return np.maximum(values, typical)


def scales(layout: Layout, theta: FloatArray) -> FloatArray:
    """`scale_of` each tensor of a flat vector, (P,)."""
    found = np.empty(theta.size)
    for _, part in layout.tensors():
        found[part] = scale_of(theta[part])
    return found


def exact_steps(theta: FloatArray, steps: FloatArray | float) -> FloatArray:
    """Steps close to `steps` for which θ + ε and θ − ε are free of rounding, (P,).

    Where ε is larger than |θ|, θ ± ε is rounded still, by u·ε. A step lost beside θ stays as it is.

    >>> import numpy as np
    >>> step = exact_steps(np.array([1.0]), 1e-7)
    >>> bool((1.0 + step) - 1.0 == 1.0 - (1.0 - step)), bool(abs(step / 1e-7 - 1) < 1e-8)
    (True, True)
    """
    size = np.abs(theta)
    with np.errstate(over="ignore", invalid="ignore"):
        found = (size + steps) - size
    return np.where((found > 0) & np.isfinite(found), found, steps)


Entries: TypeAlias = NDArray[np.intp]

#: ε, one for all or one for each of the P parameters; methods that are exact take one for all.
Step: TypeAlias = float | FloatArray
