"""Where every parameter lives: the caller's container as one flat vector, and back."""

import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Container: TypeAlias = Mapping[str, Any] | Sequence[Any] | ArrayLike

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
    kind, items = _items(parameters, "parameters")
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
    vector = _joined(arrays)
    layout = Layout(
        kind=kind,
        names=tuple(parameters) if isinstance(parameters, Mapping) else tuple(labels),
        shapes=tuple(array.shape for array in arrays),
        offsets=tuple(offsets),
        build=_builder(parameters),
    )
    return layout, vector


def flatten_gradients(
    layout: Layout, gradients: object, tensors: Sequence[int] | None = None
) -> tuple[FloatArray, list[str]]:
    """The values of `gradients` as a new float64 vector in the order of `layout`, and their dtypes.

    A mapping may be keyed ``W1`` or ``dW1``; the activations' gradients ``dZ1``, ``dA1`` … that a
    backward pass returns beside them are passed over. Of some `tensors` alone, by number, a mapping
    need not hold the others.

    Raises:
        TypeError: for another kind of container, or values that are not real numbers.
        ValueError: for missing, unknown or ambiguous keys and for wrong shapes.
    """
    kind, items = _items(gradients, "gradients")
    if kind != layout.kind:
        raise TypeError(
            f"gradients is {_a(kind)} and parameters is {_a(layout.kind)}; "
            "wanted the same kind of container for both"
            + (". Its first element alone?" if _led_by(gradients, layout.kind) else "")
        )
    tensors = range(len(layout.names)) if tensors is None else tensors
    if kind == "mapping":
        assert isinstance(gradients, Mapping)
        items = _match_keys(layout, gradients, tensors)
    elif len(items) != len(layout.names):
        raise ValueError(
            f"gradients has {len(items)} arrays and parameters has {len(layout.names)}; "
            "wanted one gradient for each parameter, in the same order"
        )
    else:
        items = [items[t] for t in tensors]
    arrays = []
    for (label, value), t in zip(items, tensors, strict=True):
        name, shape = layout.names[t], layout.shapes[t]
        array = as_real_array(value, label)
        if array.shape != shape:
            wanted = (
                f'parameters["{name}"]'
                if kind == "mapping"
                else label.replace("gradients", "parameters", 1)
            )
            raise ValueError(
                f"{label} has shape {array.shape}; {wanted} has shape {shape}. "
                + _reshape_advice(array.shape, shape)
            )
        arrays.append(array)
    return _joined(arrays), [_name_of(array.dtype) for array in arrays]


@lru_cache(maxsize=32)
def _name_of(dtype: np.dtype[Any]) -> str:
    """Its name, which NumPy takes 2.6 µs to compose."""
    return dtype.name


def _joined(arrays: list[NDArray[Any]]) -> FloatArray:
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


def _items(container: object, what: str) -> tuple[Any, list[tuple[str, object]]]:
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
    return _only


def _mapping(keys: tuple[str, ...], arrays: list[FloatArray]) -> dict[str, FloatArray]:
    return dict(zip(keys, arrays, strict=True))


def _only(arrays: list[FloatArray]) -> FloatArray:
    return arrays[0]


def _match_keys(
    layout: Layout, gradients: Mapping[str, object], tensors: Sequence[int]
) -> list[tuple[str, object]]:
    matched = []
    used = set()
    if len(tensors) < len(layout.names):
        used = {key for name in layout.names for key in (name, f"d{name}")}
    for name in (layout.names[t] for t in tensors):
        prefixed = f"d{name}"
        if name in gradients and prefixed in gradients and prefixed not in layout.names:
            raise ValueError(
                f'gradients has both "{name}" and "{prefixed}" for parameters["{name}"]; keep one'
            )
        key = name if name in gradients else prefixed
        if key not in gradients:
            present = ", ".join(gradients) or "none"
            raise ValueError(
                f'gradients has no "{name}" and no "{prefixed}", for parameters["{name}"]; '
                f"its keys are: {present}"
            )
        used.add(key)
        matched.append((f'gradients["{key}"]', gradients[key]))
    for key in gradients:
        if key not in used and not (key[:2] in ("dZ", "dA") and key[2:].isdigit()):
            raise ValueError(
                f'gradients has the key "{key}", which belongs to no parameter; '
                f"parameters has: {', '.join(layout.names)}. Mend the name, or leave it out"
            )
    return matched


def _reshape_advice(got: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(got) > 1 and got[::-1] == wanted:
        return "Transpose it?"
    if math.prod(got) == math.prod(wanted):
        return f"Reshape it: .reshape({wanted})"
    if len(got) == len(wanted) and all(g == w or w == 1 for g, w in zip(got, wanted, strict=True)):
        return "Sum it over the samples: .sum(axis=1, keepdims=True)?"
    return "A gradient has the shape of its parameter"


def _dtype_advice(kind: str, label: str) -> str:
    if kind == "c":
        return "Check the real and imaginary parts as parameters of their own"
    if kind == "b":
        return f"Convert it: np.asarray({label}, dtype=float)"
    return "Check how it was made"


def _led_by(gradients: object, kind: str) -> bool:
    """Whether it is a tuple, as gradients and a cache, that begins with a container of a kind."""
    return (
        isinstance(gradients, tuple)
        and len(gradients) > 0
        and kind == "mapping"
        and isinstance(gradients[0], Mapping)
    )


def _a(kind: str) -> str:
    return {"mapping": "a mapping", "sequence": "a sequence", "array": "an array"}[kind]


def _type_of(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
