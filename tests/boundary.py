"""What has to hold of every call of something public, whatever is passed.

`tests.calls` draws a `Call`; `attempt` performs it and raises `Violation` unless

* it gives a result, a Report, `GradientMismatch`, a ValueError or TypeError that fastgc raised on
  purpose, or the cost's own exception, untouched and with a note of where it was raised; within
  `PATIENCE` seconds and without a warning,
* nothing that was passed has changed, and no global state,
* a report begins with its verdict, and no gradient that holds a NaN is called correct.
"""

import dataclasses
import dis
import functools
import json
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastgc
from tests.hostile import Counted, Twist, squares, tensors

PATIENCE = 10.0
BAD = ("refused: ValueError", "refused: TypeError", "cost's own exception")
_HOME = str(Path(fastgc.__file__).parent)


class Violation(AssertionError):  # noqa: N818  what it is, not what it is made of
    """A claim that does not hold, and the call that showed it."""


class Hang(BaseException):
    """A call that took longer than `PATIENCE`."""


class Recorded:
    """A function of the caller's that remembers what it raised and returned last."""

    def __init__(self, name: str, honest: Callable[[Any], Any], twist: Twist | None = None) -> None:
        self.name, self.honest, self.twist = name, honest, twist
        self.calls = 0
        self.raised: BaseException | None = None
        self.args: tuple[Any, ...] = ()
        self.returned: Any = None

    def __call__(self, parameters: Any) -> Any:
        self.calls += 1
        try:
            with np.errstate(all="ignore"):
                value = self.honest(parameters)
                if self.twist is not None:
                    value = self.twist(value, parameters, self.calls - 1)
        except BaseException as error:
            self.raised, self.args = error, error.args
            raise
        self.returned = value
        return value

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(eq=False)
class Call:
    """A call of something public; right until a strategy spoils it.

    Attributes:
        function: takes a cost, unless it is None: then the call is the making of a Network.
        data: X, Y and options of the Network that is the cost; None for a function.
        args: the arguments after those of the Network.
        options: by keyword.
        strict: whether the caller has NumPy raise on every floating-point signal.
        story: how the arguments were made.
    """

    function: Callable[..., Any] | None
    data: tuple[Any, Any, dict[str, Any]] | None
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    story: tuple[str, ...] = ()

    def perform(self) -> Any:
        """Performs it."""
        if self.data is None:
            assert self.function is not None
            return self.function(*self.args, **self.options)
        X, Y, options = self.data
        net = fastgc.Network(X, Y, **options)
        return net if self.function is None else self.function(net, *self.args, **self.options)

    @property
    def gradients(self) -> tuple[Any, Any]:
        """The parameters and the gradients; of a function, those that it returned last."""
        parameters, gradients = (*self.args, None, None)[self.data is None :][:2]
        return parameters, gradients.returned if isinstance(gradients, Recorded) else gradients

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", "Network")
        longest = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            return (
                f"{name}: data={self.data!r}, args={self.args!r}, options={self.options!r}, "
                f"strict={self.strict}; {', '.join(self.story)}"
            )
        finally:
            sys.set_int_max_str_digits(longest)


def value_of(net: fastgc.Network, *args: Any, **options: Any) -> float:
    """A Network called directly."""
    return net(*args, **options)


def attempt(call: Call) -> str:
    """Performs `call` and holds it to the claims; what came out."""
    return observe(call)[0]


def observe(call: Call) -> tuple[str, str]:
    """`attempt`, with the message of what was raised, if anything."""
    _load()
    before = _fingerprint((call.args, call.data, call.options)), _globals()
    try:
        with (
            _Within(PATIENCE),
            warnings.catch_warnings(),
            np.errstate(all="raise") if call.strict else np.errstate(),
        ):
            warnings.simplefilter("error")
            state = np.geterr()
            try:
                result = call.perform()
                text = str(result)
            finally:
                _claim(np.geterr() == state, "NumPy's error state is as it was", call)
        outcome = _outcome_of_result(call, result, text)
        message = ""
    except Violation:
        raise
    except fastgc.GradientMismatch as mismatch:
        message = str(mismatch)
        _claim(not mismatch.report.ok, "GradientMismatch is not raised for right gradients", call)
        outcome = _outcome_of_result(call, mismatch.report, message)
    except BaseException as error:
        message = str(error)
        outcome = _outcome_of_exception(call, error)
    after = _fingerprint((call.args, call.data, call.options)), _globals()
    _claim(after[0] == before[0], "nothing of the caller's is modified", call)
    _claim(after[1] == before[1], "no random state is modified", call)
    return outcome, message


def _outcome_of_result(call: Call, result: Any, text: str) -> str:
    if not isinstance(result, fastgc.Report):
        return "result"
    outcome = {"unresolved": "cannot tell"}.get(result.verdict, result.verdict)
    _claim(outcome in ("correct", "wrong", "cannot tell"), "a verdict is one of three", call)
    _claim(text.startswith(f"{outcome}: "), "a report begins with its verdict", call)
    json.dumps(result.to_dict(), allow_nan=False)
    if outcome == "correct":
        _claim(not _holds_nan(*call.gradients), "no gradient with a NaN is called correct", call)
    return outcome


def _outcome_of_exception(call: Call, error: BaseException) -> str:
    _claim(not isinstance(error, Hang), f"it ends within {PATIENCE:g} s", call, error)
    for place, passed in enumerate(call.args):
        if isinstance(passed, Recorded) and error is passed.raised:
            _claim(error.args == passed.args, "the cost's exception is untouched", call, error)
            notes = getattr(error, "__notes__", [])
            takes_notes = isinstance(error, Exception) and not dataclasses.is_dataclass(error)
            if place == 0 and takes_notes:  # another place is the gradients'
                noted = len(notes) == 1 and notes[0].startswith("fastgc: the cost raised this ")
                _claim(noted, "the cost's exception has one note", call, error)
            return "cost's own exception"
    if isinstance(error, KeyboardInterrupt):
        raise error
    _claim(type(error) in (ValueError, TypeError), "no exception of another kind", call, error)
    _claim(str(error).strip() != "", "a message says what is wrong", call, error)
    _claim(_on_purpose(error), "fastgc raised it on purpose", call, error)
    return f"refused: {type(error).__name__}"


def _claim(holds: bool, claim: str, call: Call, error: BaseException | None = None) -> None:
    if not holds:
        what = "" if error is None else f"\n{type(error).__name__}: {error}"
        raise Violation(f"not so: {claim}{what}\n{call!r}") from error


def _on_purpose(error: BaseException) -> bool:
    """Whether a raise statement of fastgc raised it, or Python, for arguments of the wrong names."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if not code.co_filename.startswith(_HOME) or code.co_name == "assert_gradients":
        return " argument" in str(error)
    return code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _holds_nan(parameters: Any, gradients: Any) -> bool:
    if isinstance(gradients, Mapping):
        names = {f"{d}{name}" for name in parameters for d in ("", "d")}
        gradients = [value for name, value in gradients.items() if name in names]
    return any(np.isnan(np.asarray(t, dtype=float)).any() for t in tensors(gradients))


@functools.cache
def _load() -> None:
    """Compiles the kernels, which takes longer than a call may."""
    net = fastgc.Network([[1.0]], [1.0])
    fastgc.check(net, {"W1": [[0.5]], "b1": [[0.0]]}, {"W1": [[1.0]], "b1": [[1.0]]})
    str(fastgc.check(squares, 1.0, 2.0))


class _Within:
    """Raises `Hang` in what takes longer.

    A class, since contextlib sets the traceback of what passes through, which not every exception
    allows.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.earlier = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self.earlier)

    def _ring(self, _: int, __: types.FrameType | None) -> None:
        raise Hang


def _globals() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    return state[1].tobytes(), state[2:], random.getstate()


def _fingerprint(value: Any, depth: int = 0) -> Any:
    """All bits of `value`, and how they are held."""
    if depth > 8:
        return id(value)
    if isinstance(value, np.ndarray):
        held = (
            type(value),
            id(value),
            str(value.dtype),
            value.shape,
            value.strides,
            value.flags.num,
        )
        mask = np.ma.getmaskarray(value).tobytes() if isinstance(value, np.ma.MaskedArray) else b""
        bits = repr(value) if value.dtype.kind == "T" else np.asarray(value).tobytes()
        return (*held, bits, mask)
    if isinstance(value, Mapping):
        return type(value), [(key, _fingerprint(inner, depth + 1)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [_fingerprint(inner, depth + 1) for inner in value]
    if isinstance(value, Counted):
        return value.taken
    if isinstance(value, memoryview):
        return repr(value) if "released" in repr(value) else value.tobytes()
    if isinstance(value, int):  # too long for repr, perhaps
        return value
    return id(value) if callable(value) else repr(value)
