"""What a caller may pass instead of the right thing: tensors, containers, options, costs."""

import array
import collections
import random
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import fastgc

Array: TypeAlias = NDArray[Any]
HUGE = 10**400
LONG = np.longdouble("1e4000")  # inf where long double is double


class Counted(Iterator[Any]):
    """An iterator that shows how much of it was taken."""

    def __init__(self, values: Any) -> None:
        self.values, self.taken = iter(values), 0

    def __next__(self) -> Any:
        self.taken += 1
        return next(self.values)


class Attached:
    """Refuses to become an array, as a torch tensor that requires grad does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise RuntimeError("call detach() first")


class Kept(np.ndarray):
    """A subclass of array."""


def _one(_: Any) -> float:
    """A function, where none is wanted."""
    return 1.0


def _matrix(a: Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.matrix(a if a.ndim < 3 else a[0])


def _readonly(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


def _poked(value: Any, dtype: Any = float) -> Callable[[Array], Array]:
    def poke(a: Array) -> Array:
        a = a.astype(dtype)
        a.flat[a.size // 2 : a.size // 2 + 1] = value
        return a

    return poke


def _released(a: Array) -> memoryview:
    view = memoryview(a.copy().data)
    view.release()
    return view


def _deep() -> Any:
    value: Any = 1.0
    for _ in range(70):
        value = [value]
    return value


def _cyclic() -> Any:
    value: list[Any] = [1.0]
    value.append(value)
    return value


# the same numbers, or nearly, held in ways that fastgc takes
FORMS: dict[str, Callable[[Array], Any]] = {
    "as it is": lambda a: a,
    "list": lambda a: a.tolist(),
    "Fortran": np.asfortranarray,
    "view of a transpose": lambda a: np.ascontiguousarray(a.T).T,
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "unaligned": lambda a: np.frombuffer(b"x" * 9 + a.tobytes(), offset=1)[1:].reshape(a.shape),
    "read-only": _readonly,
    "broadcast": lambda a: np.broadcast_to(a.flat[0] if a.size else 0.0, a.shape),
    "big-endian": lambda a: a.astype(">f8"),
    "half": lambda a: np.clip(a, -6e4, 6e4).astype(np.float16),
    "single": lambda a: np.clip(a, -1e38, 1e38).astype(np.float32),
    "long double": lambda a: a.astype(np.longdouble),
    "integers": lambda a: np.clip(a, -9, 9).astype(int),
    "int8": lambda a: np.clip(a, -9, 9).astype(np.int8),
    "uint64": lambda a: np.full(a.shape, 2**64 - 1, np.uint64),
    "matrix": _matrix,
    "masked": lambda a: np.ma.masked_array(a, mask=a > 0),
    "memoryview": lambda a: memoryview(a.copy().data),
    "subclass": lambda a: a.view(Kept),
}  # fmt: skip

SPOILT: dict[str, Callable[[Array], Any]] = {
    "nan": _poked(np.nan), "inf": _poked(np.inf), "-inf": _poked(-np.inf),
    "single nan": _poked(np.nan, np.float32), "half inf": _poked(np.inf, np.float16),
    "signalling nan": lambda a: np.full(a.shape, 0x7FA00000, np.uint32).view(np.float32),
    "1e308": _poked(1e308), "all 1e308": lambda a: np.full(a.shape, 1e308),
    "5e-324": _poked(5e-324), "all 5e-324": lambda a: np.full(a.shape, 5e-324),
    "1e200": _poked(-1e200), "zeros": np.zeros_like, "1e4000": lambda a: np.full(a.shape, LONG),
    "transposed": lambda a: a.T, "extra axis": lambda a: a[..., np.newaxis],
    "leading axis": lambda a: a[np.newaxis], "flat": np.ravel, "column": lambda a: a.reshape(-1, 1),
    "scalar": lambda a: np.float64(a.flat[0]) if a.size else 0.0, "number": lambda a: 1.5,
    "one more": lambda a: np.append(a, 1.0), "twice": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "summed": lambda a: a.sum(axis=-1) if a.ndim else a, "empty": lambda a: a[..., :0] if a.ndim else [],
    "no rows": lambda a: np.empty((0, *a.shape)), "no numbers": lambda a: [],
    "complex": lambda a: a + 1j, "bool": lambda a: a > 0, "object": lambda a: a.astype(object),
    "str": lambda a: a.astype(str), "bytes": lambda a: a.astype("S8"), "text": lambda a: "W1",
    "string type": lambda a: np.full(a.shape, "x", np.dtypes.StringDType()),
    "datetime": lambda a: np.zeros(a.shape, "M8[D]"), "timedelta": lambda a: np.zeros(a.shape, "m8[s]"),
    "structured": lambda a: np.zeros(a.shape, "f8,i4"), "record": lambda a: np.zeros(a.shape, "f8,i4").view(np.recarray),
    "void": lambda a: np.zeros(a.shape, "V8"), "None": lambda a: None, "nones": lambda a: [None, 1.0],
    "dict": lambda a: {"x": a}, "set": lambda a: {1.0, 2.0}, "iterator": lambda a: Counted(a.flat),
    "ragged": lambda a: [[1.0], [1.0, 2.0]], "list of arrays": lambda a: [a, a[..., np.newaxis]],
    "deep": lambda a: _deep(), "cyclic": lambda a: _cyclic(), "function": lambda a: _one, "class": lambda a: OwnError,
    "attached": lambda a: Attached(), "all masked": lambda a: np.ma.masked_array(a, mask=True), "masked": lambda a: np.ma.masked,
    "huge integer": lambda a: HUGE, "huge integers": lambda a: [HUGE, 1.0], "Decimal": lambda a: Decimal("0.5"),
    "Fraction": lambda a: [Fraction(1, 3)], "range": lambda a: range(a.size), "deque": lambda a: collections.deque([1.0]),
    "array.array": lambda a: array.array("d", a.ravel()), "released": _released, "chars": lambda a: memoryview(b"ab"),
    "bytearray": lambda a: bytearray(b"ab"), "ellipsis": lambda a: ..., "nan text": lambda a: ["nan", 1.0],
}  # fmt: skip

Pair = collections.namedtuple("Pair", "a b c", defaults=[1.0, 1.0])

MAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict, "OrderedDict": collections.OrderedDict, "UserDict": collections.UserDict,
    "proxy": types.MappingProxyType, "defaultdict": lambda d: collections.defaultdict(list, d),
    "ChainMap": lambda d: collections.ChainMap({}, d),
}  # fmt: skip
SEQUENCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "list": lambda d: list(d.values()), "tuple": lambda d: tuple(d.values()),
    "namedtuple": lambda d: Pair(*d.values()) if 0 < len(d) < 4 else tuple(d.values()),
}  # fmt: skip
ARRAYS: dict[str, Callable[[dict[str, Any]], Any]] = {"array": lambda d: next(iter(d.values()), [])}
WRONG_CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "iterator": lambda d: Counted(d.values()), "items": lambda d: d.items(), "values": lambda d: d.values(),
    "names": list, "set": set, "frozenset": frozenset, "None": lambda d: None, "text": lambda d: "W1",
    "nested": lambda d: {"layer": d}, "list of dict": lambda d: [d], "nested list": lambda d: [list(d.values())],
    "deque": lambda d: collections.deque(d.values()), "pairs": lambda d: list(d.items()),
    "numbered": lambda d: dict(enumerate(d.values())), "bytes keys": lambda d: {k.encode(): v for k, v in d.items()},
    "None key": lambda d: {**d, None: 1.0}, "tuple key": lambda d: {("W", 1): 1.0, **d}, "no keys": lambda d: {},
    "no items": lambda d: [], "no tuple": lambda d: (), "cyclic": lambda d: _cyclic(), "function": lambda d: _one, "class": lambda d: OwnError,
    "object array": lambda d: _objects(d.values()), "attached": lambda d: Attached(),
    "number": lambda d: 2.0, "dataclass": lambda d: Frozen("x"),
    "namespace": lambda d: types.SimpleNamespace(**d),
}  # fmt: skip
KEYS = ("", "W", "b", "dW", "W1", "b1", "dW1", "ddW1", "W0", "w1", "W01", "dZ1", "dA1", "dZ", "cost", "a\nb", "[red]", "\ud800", "W²")  # fmt: skip

NUMBERS: tuple[Any, ...] = (
    0, -0.0, -1e-7, np.nan, np.inf, -np.inf, 1e300, 1e308, 1e-300, 5e-324, 1, 0.5, 1e-5, "auto", "", "1e-7", b"1", True, None,
    1e-7 + 0j, HUGE, -HUGE, Fraction(1, 10**7), Fraction(HUGE), Decimal("1e-7"), np.float16(1e-4), np.float32(1e-7), LONG, 1 / LONG,
    np.longdouble("1e-5"), np.array(1e-7), np.array([1e-7]), [1e-7], {}, np.ma.masked, np.datetime64("2020"), np.int8(1), np.True_, len,
    10**5000, Attached(),
)  # fmt: skip
COUNTS: tuple[Any, ...] = (
    1, 2, 0, -1, 100, 1000, 10**30, HUGE, 10**5000, 1.0, 1e9, np.nan, "1GB", "", None, True, np.int8(100), np.uint8(200), np.int16(3000),
    np.uint64(2**64 - 1), np.int64(-1), np.bool_(True), Fraction(1000), Decimal(1000), np.array(1000), [1000], 1j, len, Attached(),
)  # fmt: skip
FLAGS: tuple[Any, ...] = (True, False, True, False, 1, 0, None, "yes", "", np.True_, np.array(True), [], Attached())  # fmt: skip
METHODS: tuple[Any, ...] = (
    "auto", "loop", "stacked", "incremental", "node", "random", "LOOP", "", None, 1, b"loop", ["loop"], {"loop"}, np.str_("node"),
    "lo\nop", len, np.array("loop"), True, Attached(), "x" * 1000,
)  # fmt: skip
EXECUTORS: tuple[Any, ...] = (None, 0, 4, True, "threads", "", b"", [], {}, np.array(2), ThreadPoolExecutor, Attached())  # fmt: skip
PATHS: tuple[Any, ...] = (
    None, 0, 1.5, True, "", "a\0b", "no/such/folder/run.npz", "x" * 10_000, b"run.npz", ".", Path(), [], {}, np.array("run.npz"),
    Attached(),
)  # fmt: skip
OPTIONS: dict[str, tuple[Any, ...]] = {
    "method": METHODS, "epsilon": NUMBERS, "tolerance": NUMBERS, "memory": COUNTS, "threads": COUNTS,
    "vectorized": FLAGS, "progress": FLAGS, "executor": EXECUTORS, "checkpoint": PATHS, "eps": (1e-7,), "cost": (1.0,),
    "only": (None, "W1", ["W1"], ["*"], ["b", "c"], ("W?",), "", [], ["x"], [3], 3, {"W1"}, b"W1", np.array(["W1"]), Attached(), ["["]),
    "sample": (None, 1, 2, 10**30, *COUNTS), "directions": (1, 3, *COUNTS), "seed": (0, 7, 10**30, -1, *COUNTS), "per_tensor": FLAGS,
}  # fmt: skip
NETWORK_OPTIONS: dict[str, tuple[Any, ...]] = {
    "activation": ("tanh", "ReLU", "", "gelu", None, 3, b"relu", [], (), ["relu"], ["relu", "tanh"], ("relu", None), ["x"], {"relu"},
                   np.array(["relu"]), np.str_("silu"), np.tanh, Attached(), ["sigmoid"] * 9, [["relu"]]),
    "loss": ("softmax", "squared", "mse", "Logistic", "", None, 3, b"squared", ["squared"], np.sum, np.str_("squared"), Attached()),
    "weight_decay": NUMBERS, "bias": (True,),
}  # fmt: skip
LABELS: dict[str, Callable[[Array], Any]] = {
    "outside": lambda y: y + 2.0, "negative": lambda y: y - 1.0, "halves": lambda y: y * 0 + 0.5, "class 99": lambda y: y * 0 + 99,
    "class 1e300": lambda y: y * 0 + 1e300, "row": lambda y: y.reshape(1, -1), "ravelled": np.ravel, "one more": lambda y: np.append(y, 1.0),
    "bool": lambda y: y > 0, "first": lambda y: y.ravel()[:1], "all ones": np.ones_like, "tiny": lambda y: y * 0 + 5e-324,
}  # fmt: skip


class OwnError(Exception):
    """An exception of the caller's own."""


class OwnExit(BaseException):
    """One that is no Exception."""


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818  named as what it is
    """One that takes no notes and no traceback: assigning to it raises."""

    what: str


def _objects(values: Iterable[Any]) -> Any:
    """An object array of them, without asking what they are."""
    held = list(values)
    array = np.empty(len(held), dtype=object)
    for i, value in enumerate(held):
        array[i] = value
    return array


def tensors(p: Any) -> list[Any]:
    """The tensors in any container."""
    if isinstance(p, Mapping):
        return list(p.values())
    return list(p) if isinstance(p, list | tuple) else [p]


def squares(p: Any) -> float:
    """An honest cost: the gradient of Σ x² is 2x."""
    return float(sum(np.sum(t * t) for t in tensors(p)))


def stacked_squares(p: Any) -> Any:
    """`squares` of a stack."""
    return np.asarray(sum((t * t).reshape(len(t), -1).sum(axis=1) for t in tensors(p)))


Twist: TypeAlias = Callable[
    [Any, Any, int], Any
]  # (honest value, parameters, call number) -> value


def _raise(make: Callable[[], BaseException], first: int = 0) -> Twist:
    def twist(value: Any, _: Any, n: int) -> Any:
        if n >= first:
            raise make()
        return value

    return twist


def _writes(value: Any, p: Any, _: int) -> Any:
    tensors(p)[0][...] += 1.0
    return value


def _pops(value: Any, p: Any, _: int) -> Any:
    if hasattr(p, "clear"):
        p.clear()
    return value


def _resizes(value: Any, p: Any, _: int) -> Any:
    for t in tensors(p):
        t.resize(7, refcheck=False)
    return value


def _reshapes(value: Any, p: Any, _: int) -> Any:
    for t in tensors(p):
        t.shape = (-1,)
    return value


def _locks(value: Any, p: Any, _: int) -> Any:
    for t in tensors(p):
        t.flags.writeable = False
    return value


def _keeps() -> Twist:
    kept: list[Any] = []

    def twist(value: Any, p: Any, _: int) -> Any:
        for old in kept:  # what earlier calls got is the cost's own by now
            old[...] = np.nan
        kept[:] = tensors(p)
        return value

    return twist


def _asks_again(value: Any, _: Any, __: int) -> Any:
    fastgc.check(lambda t: t * t, 3.0, 6.0, progress=False)
    return value


def _random() -> Twist:
    source = random.Random(0)
    return lambda value, p, n: value + source.random()


def _warns(value: Any, _: Any, __: int) -> Any:
    warnings.warn("the cost's own", UserWarning, stacklevel=1)
    return value


TWISTS: dict[str, Callable[[], Twist]] = {
    name: (lambda twist=twist: twist)
    for name, twist in {
        "None": lambda v, p, n: None, "text": lambda v, p, n: "1.0", "nan": lambda v, p, n: v * np.nan, "inf": lambda v, p, n: v + np.inf,
        "-inf": lambda v, p, n: v - np.inf, "complex": lambda v, p, n: v + 1j, "bool": lambda v, p, n: True, "bools": lambda v, p, n: np.equal(v, v),
        "pair": lambda v, p, n: (v, p), "dict": lambda v, p, n: {"loss": v}, "list": lambda v, p, n: [v], "vector": lambda v, p, n: np.array([v, v]),
        "column": lambda v, p, n: np.reshape(v, (-1, 1)), "shorter": lambda v, p, n: np.ravel(v)[1:], "longer": lambda v, p, n: np.append(v, 1.0),
        "sum": lambda v, p, n: float(np.sum(v)), "huge": lambda v, p, n: HUGE, "-huge": lambda v, p, n: -HUGE, "object": lambda v, p, n: np.array(v, dtype=object),
        "huge object": lambda v, p, n: [HUGE] * np.size(v), "long": lambda v, p, n: v + LONG, "long double": lambda v, p, n: v + np.longdouble(0),
        "Fraction": lambda v, p, n: Fraction(1, 3), "Decimal": lambda v, p, n: Decimal("0.5"), "half": lambda v, p, n: np.float16(1.5) + np.asarray(v, np.float16),
        "single": lambda v, p, n: np.asarray(v, np.float32)[()], "masked": lambda v, p, n: np.ma.masked, "all masked": lambda v, p, n: np.ma.masked_array(v, mask=True),
        "ragged": lambda v, p, n: [[1.0], [1.0, 2.0]], "itself": lambda v, p, n: p, "a view": lambda v, p, n: tensors(p)[0].T, "attached": lambda v, p, n: Attached(),
        "function": lambda v, p, n: len, "generator": lambda v, p, n: (x for x in [v]), "datetime": lambda v, p, n: np.datetime64("2020"),
        "constant": lambda v, p, n: v * 0 + 1.0, "integer": lambda v, p, n: 3, "1e308": lambda v, p, n: v * 0 + (1e308 if n < 3 else -1e308 if n % 2 else 1e308),
        "5e-324": lambda v, p, n: v * 0 + 5e-324 * (n % 2), "offset": lambda v, p, n: v + 1e12, "rounded": lambda v, p, n: np.round(v, 3), "scaled": lambda v, p, n: v * 1e300,
        "counts": lambda v, p, n: v + n, "None later": lambda v, p, n: v if n < 4 else None, "nan later": lambda v, p, n: v if n < 4 else v * np.nan,
        "inf later": lambda v, p, n: v if n < 14 else v + np.inf, "nan at the end": lambda v, p, n: v if n < 14 else v * np.nan, "text later": lambda v, p, n: v if n < 14 else "x",
        "corner": lambda v, p, n: v + np.abs(np.ravel(tensors(p)[0])[:1]).sum(), "writes": _writes, "pops": _pops, "resizes": _resizes, "reshapes": _reshapes,
        "locks": _locks, "asks again": _asks_again, "warns": _warns, "raises ValueError": _raise(lambda: ValueError("own")), "raises bare": _raise(ValueError),
        "raises TypeError": _raise(lambda: TypeError("own")), "raises OwnError": _raise(lambda: OwnError("a", 2)), "raises later": _raise(lambda: OwnError("later"), 4),
        "raises late": _raise(lambda: OwnError("late"), 14), "raises KeyError": _raise(lambda: KeyError("W9")), "raises StopIteration": _raise(lambda: StopIteration(3)),
        "raises MemoryError": _raise(MemoryError), "raises RecursionError": _raise(RecursionError), "raises OverflowError": _raise(OverflowError, 4),
        "raises FloatingPointError": _raise(lambda: FloatingPointError("own"), 2), "raises AssertionError": _raise(AssertionError),
        "raises mismatch": _raise(lambda: IndexError(2)), "exits": _raise(lambda: SystemExit(3)), "interrupts": _raise(KeyboardInterrupt), "leaves": _raise(OwnExit, 3),
        "closes": _raise(GeneratorExit), "raises frozen": _raise(lambda: Frozen("own")), "raises a group": _raise(lambda: ExceptionGroup("own", [OwnError()])),
    }.items()
} | {"keeps": _keeps, "random": _random}  # fmt: skip
