"""Whatever is passed: a result, a report, or an error that says what is wrong.

Calls of everything public are drawn, right but for up to three hostile parts; `attempt` raises
`Violation` where a call does not keep a claim. `--hypothesis-profile=long` draws a hundred times
as many, `--hypothesis-seed=7` others.
"""

import array
import collections
import dis
import json
import random
import signal
import types
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import fastgc
from fastgc.options import Options
from tests.cases import Frozen, NetworkCase, backward
from tests.strategies import examples, networks

HOME = str(Path(fastgc.__file__).parent)
COMPARING = (fastgc.check, fastgc.assert_gradients)  # those that take gradients
PUBLIC = (*COMPARING * 5, *[fastgc.numerical_gradient] * 2, fastgc.select_method, fastgc.plan)
HUGE, LONG = 10**400, np.longdouble("1e4000")  # LONG is inf where long double is double
Makes = tuple[Callable[..., Any], ...]


class Attached:
    """Refuses to become an array, as a torch tensor that requires grad does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("call detach() first")


def cyclic() -> list[Any]:
    value: list[Any] = [1.0]
    value.append(value)
    return value


#: What may stand anywhere: for an option, a tensor, a container, or what a cost returns.
JUNK: Makes = (
    *(partial(lambda value: value, value) for value in (
        None, True, np.True_, 0, -1, 2, 10**30, HUGE, -HUGE, np.int8(100), np.uint64(2**64 - 1), -0.0, 1.5, np.nan,
        np.inf, -np.inf, 1e308, 5e-324, 1j, np.float16(1e-4), np.float32(1e-7), LONG, Fraction(1, 3), Fraction(HUGE),
        Decimal("0.5"), np.ma.masked, np.datetime64("2020"), ..., "", "W1", "1e-7", "a\0b", "lo\nop", "\ud800",
        "x" * 10_000, b"ab", np.str_("node"), Path("no/such/folder"), (), range(3), frozenset("W"), lambda *_: 1.0,
        types.SimpleNamespace(W=1.0), Frozen("x"), Attached(),
    )),
    dict, list, set, lambda: {"x": 1.0}, lambda: ["W1"], lambda: [None, 1.0], lambda: [HUGE, 1.0],
    lambda: ["nan", 1.0], lambda: [[1.0], [1.0, 2.0]], cyclic, lambda: json.loads("[" * 70 + "1" + "]" * 70),
    lambda: collections.deque([1.0]), lambda: iter([1.0]), lambda: array.array("d", [1.0]), lambda: np.array("loop"),
    lambda: np.array([1e-7]), lambda: np.array([1.0, None], dtype=object), lambda: np.zeros(2, "M8[D]"),
    lambda: np.full(2, "x", np.dtypes.StringDType()), lambda: np.zeros(2, "f8,i4").view(np.recarray),
    lambda: np.zeros(2, "V8"), lambda: np.ma.masked_array([1.0], mask=True),
)  # fmt: skip
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
#: A tensor held in another way, or spoilt.
RECAST: Makes = (
    lambda a: a.tolist(), lambda a: np.ascontiguousarray(a.T).T, lambda a: np.flip(np.flip(a).copy()), np.ravel,
    lambda a: np.broadcast_to(a, a.shape), lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    lambda a: np.frombuffer(b"x" * 9 + a.tobytes(), offset=1)[1:].reshape(a.shape),  # unaligned
    lambda a: np.full(a.shape, 2**64 - 1, np.uint64), lambda a: memoryview(a.copy().data), lambda a: a[np.newaxis],
    *(partial(lambda dtype, a: np.clip(a, -9, 9).astype(dtype), dtype)
      for dtype in (">f8", np.float32, np.float16, np.longdouble, np.int8, bool, complex, object, str)),
    *(partial(lambda v, a: np.where(np.arange(a.size).reshape(a.shape) == a.size // 2, v, a), v)
      for v in (np.nan, np.inf, -np.inf, 1e308, 5e-324, -1e200, np.float32(np.nan))),
    *(partial(lambda v, a: np.full(a.shape, v), v) for v in (1e308, 5e-324, 0.0, 0.5, 99.0, LONG)),
    lambda a: a.T, lambda a: a[..., np.newaxis], lambda a: a.reshape(1, -1), lambda a: np.append(a, 1.0),
    lambda a: a.sum(), lambda a: np.broadcast_to(a, (2, *a.shape)), lambda a: a[..., :0] if a.ndim else [],
    lambda a: a + 2.0, lambda a: a * 1e150, lambda a: np.ma.masked_array(a, mask=a > 0), lambda a: [a, a[..., np.newaxis]],
)  # fmt: skip
GOOD: Makes = (
    dict, collections.OrderedDict, collections.UserDict, types.MappingProxyType, lambda d: collections.ChainMap({}, d),
    lambda d: list(d.values()), lambda d: tuple(d.values()),
    lambda d: collections.namedtuple("Named", [f"f{i}" for i in range(len(d))])(*d.values()),
)  # fmt: skip
CONTAINERS: Makes = (
    *GOOD, lambda d: next(iter(d.values())), lambda d: iter(d.values()), dict.items, list, lambda d: [d], lambda d: {"layer": d},
    lambda d: [list(d.values())], lambda d: collections.deque(d.values()), lambda d: dict(enumerate(d.values())),
    lambda d: {repr(k).encode(): v for k, v in d.items()}, lambda d: {**d, None: 1.0}, lambda d: {("W", 1): 1.0, **d},
)  # fmt: skip
KEYS = (
    *["", "W", "b", "dW", "W1", "b1", "dW1", "ddW1", "W0", "w1", "dZ1", "[red]", "W²"],
    "a\nb",
    "\ud800",
)
#: Options that are nearly right; any may be JUNK as well.
OPTIONS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((*Options.__annotations__, "vectorized", "reseed", "against", "eps"), (None,)),
    "method": ("loop", "stacked", "incremental", "node", "random", "LOOP"), "vectorized": (True, True),
    "epsilon": ("auto", 1e-5, 1e-300, 1, np.longdouble("1e-5")), "memory": (1000, "1GB"), "directions": (1, 3),
    "only": (["W1"], ["*"], ["b", "c"], ("W?",), ["x"], ["["]), "executor": ("threads", ThreadPoolExecutor),
}  # fmt: skip
NETWORKS: dict[str, tuple[Any, ...]] = {
    "activation": ("tanh", "ReLU", ["relu"], ["relu", "tanh"], ("relu", None), ["sigmoid"] * 9, [["relu"]]),
    "loss": ("softmax", "squared", "mse", ["squared"]), "weight_decay": (0.5, 1e300), "divisor": (2,), "eps": (1,),
}  # fmt: skip


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


class Recorded:
    """A function of the caller's that remembers what it raised and returned last.

    After `first` calls it returns what `twist` makes of the call's number, the honest value and
    the parameters; or raises that, where it is an exception.
    """

    def __init__(self, honest: Callable[[Any], Any], twist: Any = None, first: int = 0) -> None:
        self.honest, self.twist, self.first, self.calls = honest, twist, first, 0
        self.raised: BaseException | None = None

    def __call__(self, parameters: Any) -> Any:
        self.calls += 1
        try:
            with np.errstate(all="ignore"):
                value = self.honest(parameters)
                if self.twist is not None and self.calls > self.first:
                    value = self.twist(self.calls, value, parameters)
                if isinstance(value, BaseException):
                    raise value
        except BaseException as error:
            self.raised, self.args = error, error.args
            raise
        self.returned = value
        return value


TWISTS: Makes = (
    *(partial(lambda make, n, v, p: make(), make) for make in (
        *JUNK, *2 * (ValueError, lambda: TypeError("own"), lambda: KeyError("W9"), lambda: StopIteration(3), MemoryError,
        RecursionError, FloatingPointError, AssertionError, lambda: SystemExit(3), KeyboardInterrupt, GeneratorExit,
        lambda: ExceptionGroup("own", [IndexError(2)])),
    )),
    lambda n, v, p: v * np.nan, lambda n, v, p: v + np.inf, lambda n, v, p: v + 1j, lambda n, v, p: np.equal(v, v),
    lambda n, v, p: (v, p), lambda n, v, p: np.array([v, v]), lambda n, v, p: np.ravel(v)[1:], lambda n, v, p: p,
    lambda n, v, p: np.reshape(v, (-1, 1)), lambda n, v, p: np.array(v, dtype=object), lambda n, v, p: v + LONG,
    lambda n, v, p: tensors(p)[0].T, lambda n, v, p: np.asarray(v, np.float16), lambda n, v, p: [HUGE] * np.size(v),
    lambda n, v, p: v * 0 + (1e308 if n % 2 else -1e308), lambda n, v, p: v * 0 + 5e-324 * (n % 2), lambda n, v, p: v + n,
    lambda n, v, p: v + 1e12, lambda n, v, p: np.round(v, 3), lambda n, v, p: v + random.Random(n).random(),
    *(partial(lambda act, n, v, p: (act(p), v)[1], act) for act in 3 * (
        lambda p: p.clear(), lambda p: tensors(p)[0].__iadd__(1.0), lambda p: warnings.warn("own", stacklevel=1),
        lambda p: tensors(p)[0].resize(7, refcheck=False), lambda p: setattr(tensors(p)[0], "shape", -1),
        lambda p: tensors(p)[0].setflags(write=False), lambda p: fastgc.check(lambda t: t * t, 3.0, 6.0),
    )),
)  # fmt: skip


@dataclass(eq=False)
class Call:
    """A call of something public, by a caller who has NumPy raise on every signal, if `strict`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    strict: bool = False


class Draft:
    """A right call; spoilt by `spoil`, and put together by `finish`."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.function = self.pick(*PUBLIC, *[fastgc.Network] * 4, fastgc.Network.__call__)
        self.known, self.options = OPTIONS, {}
        self.net: fastgc.Network | None = None
        if self.function in PUBLIC and self.pick(True, True, False):
            values = np.random.default_rng(self.pick(*range(64))).standard_normal(6)
            shapes = self.pick((), (3,), (2, 3)), self.pick((3, 1), (2, 1, 2), (0,)), (2,)
            names = zip(self.pick("W", "Wb", "Wbc"), shapes, strict=False)
            parameters = {name: np.resize(values, shape) for name, shape in names}
            right = {name: 2 * value for name, value in parameters.items()}
            self.options = {"vectorized": True} if self.pick(True, False, False) else {}
        else:
            case = draw(networks(max_depth=3, max_width=3, max_samples=3))
            self.net, parameters = case.build()
            right = {name: backward(self.net, parameters)[name] for name in parameters}
        self.places = [parameters, right] if self.function in COMPARING else [parameters]
        if self.function is fastgc.Network and self.net is not None:
            self.places, self.known = [{"X": self.net.X, "Y": self.net.Y}], NETWORKS
            self.options = {n: getattr(case, n) for n in ("activation", "loss", "weight_decay")}
        alone = (lambda d: next(iter(d.values())),) * 4 * (len(parameters) == 1)
        self.containers = [self.pick(*GOOD, *alone)] * 2
        self.computed = self.pick(False, False, True)  # whether the gradients are a function
        self.twists: list[tuple[Any, int]] = [(None, 0), (None, 0)]  # of the cost, of the gradients
        self.arrange: Callable[[list[Any]], list[Any]] = list

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def spoil(self) -> None:
        """Spoils the container, the value of a function, the arguments, an option, or a tensor."""
        junk = self.draw(ANYTHING) if self.pick(*[False] * 9, True) else self.pick(*JUNK)()
        how = self.pick(*"tttttcccckkoooovvvva")
        which = self.pick(*range(len(self.places)))
        if self.net is not None and ((how == "v" and which == 0) or self.function not in PUBLIC):
            how = self.pick("t", "o") if self.known is NETWORKS else "t"
        if how == "c":
            self.containers[which] = self.pick(*CONTAINERS, *[lambda _: junk] * 6)
        elif how == "v":
            self.twists[which] = self.pick(*TWISTS), self.pick(0, 0, 4, 14)
            self.computed |= bool(which)
        elif how == "a":
            self.arrange = self.pick(
                lambda args: [*args[:-1], junk], lambda args: [junk, *args[1:]],
                lambda args: args[::-1], lambda args: [*args, junk], lambda args: args[:-1],
            )  # fmt: skip
        elif how == "o":
            name = self.pick(*self.known)
            value = self.pick(*self.known[name], junk, junk, junk)
            if name == "checkpoint" and isinstance(value, str):
                value = f"no/such/folder/{value}"  # else a file, which the next call would find
            self.options[name] = value
        else:
            place = self.places[which]
            name = self.pick(*place)
            if how == "k":
                place[self.pick(*KEYS)] = place.pop(name) if self.pick(True, False) else place[name]
            elif type(place[name]) is np.ndarray and place[name].dtype == float:
                with np.errstate(all="ignore"):
                    place[name] = self.pick(*RECAST, *[lambda _: junk] * 20)(place[name])

    def finish(self) -> Call:
        """The call."""
        if self.known is NETWORKS:
            return Call(self.function, tuple(self.places[0].values()), self.options)
        args = [make(held) for make, held in zip(self.containers, self.places, strict=False)]
        if self.computed and len(args) == 2:
            args[1] = Recorded(partial(lambda given, _: given, args[1]), *self.twists[1])
        honest = stacked_squares if self.options.get("vectorized") is True else squares
        args.insert(0, Recorded(honest, *self.twists[0]) if self.net is None else self.net)
        strict = self.pick(False, False, False, True)
        return Call(self.function, tuple(self.arrange(args)), self.options, strict)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    draft = Draft(draw)
    for _ in range(draft.pick(0, 1, 1, 1, 1, 2, 2, 3)):
        draft.spoil()
    return draft.finish()


class Violation(AssertionError):  # noqa: N818  what it is, not what it is made of
    """A claim that does not hold, and the call that showed it."""


class Hang(BaseException):
    """A call that took too long."""


def attempt(call: Call, patience: float = 10.0) -> str:
    """Performs `call` and holds it to the claims; what came out."""

    def claim(holds: bool, what: str, error: BaseException | None = None) -> None:
        if not holds:
            raise Violation(f"not so: {what}\n{error!r}\n{call}") from error

    def ring(*_: object) -> None:
        raise Hang

    before, earlier = snapshot(call), signal.signal(signal.SIGALRM, ring)
    error: BaseException | None = None
    with warnings.catch_warnings(), np.errstate(all="raise" if call.strict else None):
        warnings.simplefilter("error")
        state = np.geterr()
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            result = call.function(*call.args, **call.options)
            text = str(result)
        except BaseException as raised:
            error = raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, earlier)
        claim(np.geterr() == state, "NumPy's error state is as it was")
    claim(snapshot(call) == before, "nothing of the caller's is modified, nor any random state")
    if isinstance(error, fastgc.GradientMismatch):
        claim(not error.report.ok, "GradientMismatch is not raised for right gradients")
        result, text = error.report, str(error)
    elif error is not None:
        return of_exception(call, error, claim)
    return of_result(call, result, text, claim)


def of_result(call: Call, result: Any, text: str, claim: Callable[..., None]) -> str:
    if not isinstance(result, fastgc.Report):
        return "result"
    outcome = {"unresolved": "cannot tell"}.get(result.verdict, result.verdict)
    claim(text.startswith(f"{outcome}: "), "a report begins with its verdict")
    json.dumps(result.to_dict(), allow_nan=False)
    if outcome != "correct" or "only" in call.options:
        return outcome
    parameters, g = call.args[-2:]
    g = g.returned if isinstance(g, Recorded) else g
    if isinstance(g, Mapping):
        g = [g[key] for name in parameters for key in (name, f"d{name}") if key in g]
    with np.errstate(all="ignore"):
        nan = any(np.isnan(np.asarray(tensor, float)).any() for tensor in tensors(g))
    claim(not nan, "no gradient with a NaN is called correct")
    return outcome


def of_exception(call: Call, error: BaseException, claim: Callable[..., None]) -> str:
    claim(not isinstance(error, Hang), "it ends in time")
    functions = [value for value in call.args if isinstance(value, Recorded)]
    for function in functions:
        if error is function.raised:
            claim(error.args == function.args, "the cost's exception is untouched", error)
            takes_notes = isinstance(error, Exception) and not isinstance(error, Frozen)
            if function is call.args[0] and takes_notes:
                noted = [note.startswith("fastgc: ") for note in getattr(error, "__notes__", [])]
                claim(noted == [True], "the cost's exception has one note", error)
            return "cost's own exception"
    claim(type(error) in (ValueError, TypeError), "no exception of another kind", error)
    claim(str(error).strip() != "", "a message says what is wrong", error)
    claim(on_purpose(error), "fastgc raised it on purpose", error)
    claim(all(f.twist or f.calls <= 2 for f in functions), "it is refused before any work", error)
    return f"refused: {type(error).__name__}"


def on_purpose(error: BaseException) -> bool:
    """Whether a raise statement of fastgc raised it, or Python, for arguments of the wrong names."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if not code.co_filename.startswith(HOME) or code.co_name == "assert_gradients":
        return " argument" in str(error)
    return bool(code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"])


def snapshot(value: Any, depth: int = 0) -> Any:
    """All bits of `value`, and how they are held; of a call, with the state of what is global."""
    if isinstance(value, Call):
        drawn: Any = np.random.get_state()
        held = snapshot((value.args, value.options))
        return held, drawn[1].tobytes(), drawn[2:], random.getstate()
    if isinstance(value, fastgc.Network):
        return snapshot((value.X, value.Y))
    if depth > 8 or callable(value):
        return id(value)
    if isinstance(value, np.ndarray):
        bits = repr(value) if value.dtype.kind == "T" else np.asarray(value).tobytes()
        mask = np.ma.getmaskarray(value).tobytes() if isinstance(value, np.ma.MaskedArray) else b""
        return id(value), str(value.dtype), value.shape, value.strides, value.flags.num, bits, mask
    if isinstance(value, Mapping):
        return type(value), [(key, snapshot(inner, depth + 1)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [snapshot(inner, depth + 1) for inner in value]
    return value.tobytes() if isinstance(value, memoryview) else repr(value)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The kernels, which may have to be compiled: that takes longer than a call may."""
    fastgc.numerical_gradient(*NetworkCase("any", (1, 1), 1).build())


@given(calls())
@settings(examples(1000), suppress_health_check=list(HealthCheck))
def test_whatever_is_passed_the_claims_hold(call: Call) -> None:
    attempt(call)


OUTCOMES = ("correct", "wrong", "refused: TypeError", "refused: ValueError", "cost's own exception")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_is_drawn(outcome: str) -> None:
    drawn = settings(max_examples=2000, derandomize=True, database=None, phases=[Phase.generate])
    find(calls(), lambda call: attempt(call) == outcome, settings=drawn)


THETA = np.array([1.0, 2.0])


def raises(error: Exception) -> Any:
    raise error


def late(cost: Any) -> Any:
    return fastgc.check(cost, [cost(THETA) for _ in range(3)], [], epsilon=0)


@pytest.mark.parametrize(
    ("function", "args", "claim"),
    [
        (lambda a: a.fill(7.0), (np.ones(2),), "nothing of the caller's is modified"),
        (lambda a: a.setflags(write=False), (np.ones(2),), "nothing of the caller's is modified"),
        (np.random.rand, (), "nothing of the caller's is modified, nor any random state"),
        (partial(np.seterr, over="ignore"), (), "NumPy's error state is as it was"),
        (lambda: warnings.warn("foreign", stacklevel=1), (), "no exception of another kind"),
        (lambda: raises(ValueError("not of fastgc")), (), "fastgc raised it on purpose"),
        (lambda: raises(ValueError()), (), "a message says what is wrong"),
        (lambda cost: cost(THETA), (Recorded(lambda _: 1 / 0),), "the cost's exception has one note"),
        (lambda p, _: fastgc.check(squares, p, 2 * p), (THETA, THETA * np.nan), "no gradient with a NaN"),
        (late, (Recorded(squares),), "it is refused before any work"),
        (lambda: [None for _ in iter(int, 1)], (), "it ends in time"),
    ],
)  # fmt: skip
def test_a_claim_that_does_not_hold_is_noticed(function: Any, args: Any, claim: str) -> None:
    with pytest.raises(Violation, match=f"^not so: {claim}"):
        attempt(Call(function, args), patience=0.3)
