"""Every option of a check, once: its type, its default, what it has to be, and what it does."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from concurrent.futures import Executor

DIRECTIONS, MOST_DIRECTIONS = 8, 10_000
MEMORY = 256 * 2**20
MOST = 2**62  # of bytes or threads: as good as no limit

Epsilon = float | Literal["auto"] | None


class _Looking(TypedDict, total=False):
    """How a cost is looked at."""

    method: str
    epsilon: Epsilon
    memory: int


class GradientOptions(_Looking, total=False):
    """The options of a numerical gradient, which compares nothing; see `Options`."""

    threads: int | None
    progress: bool
    executor: "Executor | None"
    checkpoint: "str | os.PathLike[str] | None"


class _Comparing(_Looking, total=False):
    """And how gradients are compared with it."""

    tolerance: float
    only: Sequence[str] | None
    directions: int | None
    seed: int


class LossOptions(_Comparing, total=False):
    """The options of a check whose framework has threads of its own; see `Options`."""

    sample: int | None
    per_tensor: bool
    progress: bool
    checkpoint: "str | os.PathLike[str] | None"


class ModuleOptions(LossOptions, total=False):
    """Those of a check whose cost no executor can be sent; see `Options`."""

    threads: int | None


class Options(ModuleOptions, total=False):
    """The options that checks share. Each may be left out.

    Attributes:
        method: ``loop``, ``stacked``, ``incremental``, ``node``, ``random``, or ``auto``, which is
            `select_method`'s choice, and ``loop`` where `memory` is too little for that.
            ``random`` takes 2 `directions` evaluations for each tensor, of any size: it says how
            large the error of each gradient is, and, where one is wrong, finds entries that are.
        epsilon: the step; None for the method's own: 1e-7, and 2⁻⁴⁰ for ``incremental`` and
            ``node``, whose differences do not cancel. ``"auto"`` measures, tensor by tensor, where
            truncation and the noise of the cost balance, as a noisy or single-precision cost
            needs; 12 evaluations for each tensor. ``incremental`` and ``node`` have no noise to
            balance and keep their own.
        tolerance: the relative error that an entry may have and still agree; 2e-7.
        only: names of the tensors to check, or patterns of names, as ``["W1", "b*"]``; None for
            all. The gradients of the others may be left out of a mapping.
        sample: so many entries of each tensor, drawn at random, are checked; None for all.
        directions: how many random directions ``random`` takes through each tensor; None for 8.
        per_tensor: whether each of these goes through one tensor. False takes each through all of
            them: 2 `directions` evaluations in all, and as many again for each tensor only where
            something is wrong.
        seed: of the generator of directions and samples, which is fastgc's own; 0.
        memory: bytes that the method's blocks may take at once, 256 MiB; results of P numbers come
            on top.
        threads: at most this many threads for a `Network` or a compiled cost; None for one per
            core. Any other cost, and one compiled with ``parallel=True``, is called from the
            calling thread alone. Neither `memory` nor `threads` changes a bit of the result.
        progress: whether a check that lasts over a second shows a bar, in a terminal; True.
        executor: a `concurrent.futures.Executor`, of processes, threads, or Dask's
            ``client.get_executor()``, over whose workers ``loop``, ``random``, ``incremental`` and
            ``node`` spread their work. The cost and its data go to each worker once; the result is
            the same to the last bit. Work of a worker that is lost is done here, with a warning.
            What goes to a process has to be importable there, as a function at the top level of a
            module.
        checkpoint: a file that what is done is saved to, every few seconds. A check of the same
            problem that finds it there goes on from it, as after a crash; it stays when all is
            done, so that checking mended gradients evaluates next to nothing anew.

    >>> import fastgc
    >>> options: fastgc.Options = {"method": "loop", "epsilon": 1e-6}
    >>> fastgc.check(lambda t: t**2, 3.0, 6.0, **options).ok
    True
    """

    executor: "Executor | None"


class WatchOptions(_Comparing, total=False):
    """The options of checks in a training. `Options` describes what is not said here.

    Attributes:
        method: ``auto`` for the best that fits; another is taken as it is, as seldom as it has to.
        directions: for method ``random``; None for as many as fit, up to 8.
        per_tensor: for method ``random``; None for whether that fits.
        seed: of the directions of the first check; every other draws others.

    >>> import fastgc
    >>> options: fastgc.WatchOptions = {"method": "random", "directions": 4}
    >>> fastgc.watch(lambda t: t**2, budget=1.0, credit=1.0, **options)(3.0, 6.0).ok
    True
    """

    per_tensor: bool | None
    threads: int | None


#: The options of a comparison, which a numerical gradient has no use for.
COMPARING = ("tolerance", "only", "sample", "directions", "per_tensor", "seed")


@dataclass(frozen=True)
class Choices:
    """Options that can be, each with its default where it was left out; see `Options`."""

    method: str = "auto"
    epsilon: Any = None  # float | Literal["auto"] | None
    tolerance: float = 2e-7
    only: Any = None
    sample: Any = None
    directions: int | None = None
    per_tensor: bool = True
    seed: int = 0
    memory: int = MEMORY
    threads: int | None = None
    progress: bool = True
    executor: Any = None
    checkpoint: Any = None

    @property
    def lines(self) -> int:
        """How many random directions there are through each tensor."""
        return DIRECTIONS if self.directions is None else self.directions


def read(options: Mapping[str, Any], function: str, *, without: Sequence[str] = ()) -> Choices:
    """The options that a caller passed to a function of this name, looked at.

    Args:
        options: by name.
        function: for messages.
        without: those that this function does not take.

    Raises:
        TypeError, ValueError: for options that are unknown or cannot be.
    """
    known = [name for name in Options.__annotations__ if name not in without]
    for name in options:
        if name not in known:
            import difflib  # 4 ms that only a misspelt name should cost

            close = difflib.get_close_matches(name, known, n=1)
            advice = f". Did you mean {close[0]}=?" if close else ""
            raise TypeError(f"{function} has no option {name}={advice}")
    return Choices(**{name: _READ.get(name, _as_it_is)(value) for name, value in options.items()})


def read_watch(options: Mapping[str, Any], function: str) -> tuple[Choices, dict[str, Any]]:
    """The options of checks in a training; and those among them that say which checks to make."""
    given = dict(options)
    per_tensor = given.pop("per_tensor", None)
    if per_tensor is not None:
        require_flag(per_tensor, "per_tensor")
    unlike = ("sample", "progress", "executor", "checkpoint")
    choices = read(given, function, without=unlike)
    ways = {
        "method": choices.method, "directions": choices.directions, "per_tensor": per_tensor,
        "seed": choices.seed,
    }  # fmt: skip
    return choices, ways


def require_epsilon(value: object) -> float | str | None:
    """The step asked for."""
    if value is None:
        return None
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(
                f'epsilon is "{value}"; wanted a positive step such as 1e-7, or "auto"'
            )
        return value
    step = require_number(value, "epsilon")
    if step == 0:
        raise ValueError("epsilon is 0; wanted a positive step such as 1e-7")
    return step


def require_reseed(value: object) -> None:
    """Raises TypeError for what is no ``reseed=``."""
    if value is not None and not callable(value):
        raise TypeError(
            f"reseed is {value!r}; wanted a function without arguments that seeds what the cost "
            "draws from, as lambda: rng.seed(0)"
        )


def require_number(value: object, name: str) -> float:
    """A finite number that is not negative, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; wanted a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {_shown(value)}; wanted a finite number that is not negative")
    return number


def require_count(value: object, name: str, wanted: str) -> int:
    """A whole number, 1 or more, as an int of no more than `MOST`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; wanted {wanted}")
    if int(value) < 1:
        raise ValueError(f"{name} is {_shown(value)}; wanted {wanted}, 1 or more")
    return min(int(value), MOST)


def require_directions(value: object) -> int | None:
    """How many random directions to take; None where that was left open."""
    if value is None:
        return None
    count = require_count(value, "directions", "a number of directions for each tensor")
    if count > MOST_DIRECTIONS:
        raise ValueError(
            f"directions is {count}; wanted {MOST_DIRECTIONS} or fewer: more cost more than "
            "looking at entries, with sample= or another method, and tell less"
        )
    return count


def require_seed(value: object) -> int:
    """A whole number that is not negative, as an int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"seed is {value!r}; wanted a whole number, 0 or more")
    if int(value) < 0:
        raise ValueError(f"seed is {_shown(value)}; wanted a whole number, 0 or more")
    return int(value)


def require_flag(value: object, name: str) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; wanted True or False")


def _shown(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no integers of over 4,300 digits
        return "a number of thousands of digits"


def _threads(value: object) -> int | None:
    if value is None:
        return None
    return require_count(value, "threads", "a number of threads, or None for one per core")


def _flag(name: str) -> Callable[[object], bool]:
    def read_flag(value: object) -> bool:
        require_flag(value, name)
        return bool(value)

    return read_flag


def _as_it_is(value: Any) -> Any:
    """What the cost or the method has to be known for is looked at later."""
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "epsilon": require_epsilon,
    "tolerance": lambda value: require_number(value, "tolerance"),
    "directions": require_directions,
    "per_tensor": _flag("per_tensor"),
    "seed": require_seed,
    "memory": lambda value: require_count(value, "memory", "a number of bytes"),
    "threads": _threads,
    "progress": _flag("progress"),
}
