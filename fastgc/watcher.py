"""When and how gradients are checked while a network trains, within a share of the time."""

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from fastgc.check import GradientMismatch
from fastgc.methods.registry import RANDOM
from fastgc.options import DIRECTIONS, require_count, require_number
from fastgc.report.report import Report

if TYPE_CHECKING:
    from logging import Logger

OnWrong: TypeAlias = Literal["raise", "log"] | Callable[[GradientMismatch], object]

# What a check is expected to take before one has been timed, rather too much than too little.
FIRST = 11  # evaluations at the parameters: two that must agree, nine for the noise
STEPS = 12  # evaluations for each tensor, of epsilon="auto"
OVERHEAD = 0.002  # seconds around the evaluations

MARGIN = 2.0  # times as long as this time, the next time
SLACK = 1e-9  # relative, for the rounding of times


@dataclass(frozen=True, eq=False, repr=False)
class Moment:
    """The gradients of one step, ready to be checked.

    Attributes:
        tensors: T, those that are checked.
        evaluate: evaluates the cost once, or does what takes as long as several evaluations.
        check: takes the options method, seed, and for "random" directions and per_tensor as well.
        entries: what a check of every entry takes, in evaluations.
        loading: seconds that it takes besides, once in a process.
        spared: evaluations that every check takes before it begins.
        evaluations: how many `evaluate` takes as long as.
        overhead: seconds that every check takes besides.
    """

    tensors: int
    evaluate: Callable[[], object]
    check: Callable[..., Report]
    entries: float
    loading: float = 0.0
    spared: float = FIRST
    evaluations: float = 1.0
    overhead: float = OVERHEAD


@dataclass(frozen=True)
class Way:
    """A way to check one step's gradients; method, directions and per_tensor as for `check`."""

    method: str
    directions: int | None = None
    per_tensor: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options for `check`."""
        if self.directions is None:
            return {"method": self.method}
        return {
            "method": self.method, "directions": self.directions, "per_tensor": self.per_tensor
        }  # fmt: skip

    def price(self, moment: Moment) -> float:
        """The evaluations that it takes where nothing is wrong."""
        if self.directions is None:
            return moment.entries
        lines = self.directions * (moment.tensors if self.per_tensor else 1)
        return moment.spared + 2 * lines


def ways(method: str, directions: int | None, per_tensor: bool | None) -> Iterator[Way]:
    """What a watcher may choose from, best first."""
    if method != RANDOM:
        yield Way(method)
    if method not in ("auto", RANDOM):
        return
    if per_tensor is not False:
        yield Way(RANDOM, directions or DIRECTIONS, per_tensor=True)
    if per_tensor is not True:
        for count in [directions] if directions else range(DIRECTIONS, 0, -1):
            yield Way(RANDOM, count, per_tensor=False)


class Watcher:
    """What `fastgc.watch` returns: called with each step of a training, it checks when due.

    Calling it returns the `Report` where it checked, else None. In a ``with`` statement, or with
    `close`, it says at the end if no gradient was checked.

    Attributes:
        step: the number of calls so far. It may be set, to go on counting from an earlier run.
        checks: how many checks were made.
        seconds: that they took, with all that was needed to prepare them.
        report: the latest `Report`; None before the first check.
        every, budget, credit: as passed to `watch`.

    >>> import fastgc
    >>> watcher = fastgc.watch(lambda t: t**2, every=2, budget=1.0, credit=1.0)
    >>> [watcher(t, 2 * t) is not None for t in (3.0, 2.0, 1.0)]
    [True, False, True]
    >>> watcher.step, watcher.checks, watcher.report.verdict
    (3, 2, 'correct')
    """

    def __init__(
        self,
        moment: Callable[..., Moment],
        *,
        every: int,
        budget: float,
        credit: float,
        on_wrong: OnWrong,
        method: str,
        directions: int | None,
        per_tensor: bool | None,
        seed: int,
        clock: Callable[[], float],
    ) -> None:
        self.every = require_count(every, "every", "a number of steps")
        self.budget = require_number(budget, "budget")
        if not 0 < self.budget <= 1:
            raise ValueError(
                f"budget is {budget}; wanted a share of the time above 0 and up to 1, such as 0.01"
            )
        self.credit = require_number(credit, "credit")
        if not callable(on_wrong) and on_wrong not in ("raise", "log"):
            raise ValueError(
                f'on_wrong is {on_wrong!r}; wanted "raise", "log" or a function of a '
                "GradientMismatch"
            )
        if method != RANDOM and (directions is not None or per_tensor is not None):
            raise ValueError(
                "directions= and per_tensor= are about random directions, and method is "
                f'"{method}"; pass method="random" as well'
            )
        self._ways = tuple(ways(method, directions, per_tensor))
        if self._ways[-1].directions is not None:
            importlib.import_module("scipy.special")  # what these need, before the run begins
        self._seed = seed
        self._moment, self._on_wrong, self._clock = moment, on_wrong, clock
        self.step, self.checks, self.seconds = 0, 0, 0.0
        self.report: Report | None = None
        self._began: float | None = None
        self._closed: float | None = None
        self._due: float = 0  # the step of the next look
        self._ready = -math.inf  # and the time before which nothing fits
        self._cheapest: float | None = None  # expected seconds of the cheapest check
        self._evaluation: float | None = None  # seconds of one, as last timed
        self._fresh = True  # whether the next look is the first for its check, and times one
        self._took: dict[Way, float] = {}
        self._overhead = 0.0  # seconds of the last check that were not its evaluations'
        self._doubted = False

    def __call__(self, *of_step: Any) -> Report | None:
        """Notes a step, whose gradients are checked where that is due."""
        __tracebackhide__ = True
        self.step += 1
        if self.step < self._due:
            return None
        now = self._clock()
        if now < self._ready:
            return None
        try:
            report = self._look(of_step, now)
        except Exception as error:
            with contextlib.suppress(Exception):
                error.add_note(f"fastgc: this was step {self.step}, of which gradients are watched")
            raise
        finally:
            self.seconds += self._clock() - now
        if report is not None:
            self._judge(report)
        return report

    def _look(self, of_step: tuple[Any, ...], now: float) -> Report | None:
        """Checks what was given, in the best way that fits; None where none does."""
        moment = self._moment(*of_step)
        posed = self._clock() - now
        if self._began is None:
            self._began = now
            # `credit` pays for the first look, or so many steps do, if each is an evaluation long
            if not self.credit and self.budget < 1:
                self._due = self.step + math.ceil(2 * moment.evaluations / self.budget) - 1
                return None
        if self._evaluation is None:
            moment.evaluate()  # as it may compile or load something, only the second one is timed
        if self._evaluation is None or self._fresh:
            before = self._clock()
            moment.evaluate()
            self._evaluation = (self._clock() - before) / moment.evaluations
        report = None
        for way in self._ways:
            expected = self._expected(way, moment, self._evaluation)
            if self._over(expected, now) <= SLACK * expected:
                report = self._check(way, moment, self._evaluation)
                if way.directions is None:
                    moment = replace(moment, loading=0.0)  # that is done
                break
        self._fresh = report is not None
        self._cheapest = self._expected(self._ways[-1], moment, self._evaluation)
        over = self._over(self._cheapest + MARGIN * posed, now)
        self._ready = self._clock() + max(0.0, over) / self.budget
        return report

    def _check(self, way: Way, moment: Moment, evaluation: float) -> Report:
        began = self._clock()
        report = moment.check(**way.options, seed=self._seed + self.checks)
        took = self._clock() - began
        if way.directions is not None or not moment.loading:
            self._took[way] = took
            self._overhead = took - report.evaluations * evaluation
        self.report = report
        self.checks += 1
        self._due = self.step + self.every
        return report

    def _expected(self, way: Way, moment: Moment, evaluation: float) -> float:
        """Seconds: as the last time, or as many as its evaluations take and what came on top."""
        if way in self._took:
            return self._took[way]
        loading = moment.loading if way.directions is None else 0.0
        overhead = max(moment.overhead, self._overhead)
        return overhead + way.price(moment) * evaluation + loading

    def _over(self, expected: float, now: float) -> float:
        """Seconds that checks would have taken beyond what they may, after one more."""
        assert self._began is not None
        then = self._clock() + expected
        return self.seconds + (then - now) - self.credit - self.budget * (then - self._began)

    def _judge(self, report: Report) -> None:
        __tracebackhide__ = True
        if report.ok:
            return
        mismatch = GradientMismatch(report, self.step)
        if report.verdict == "unresolved":
            if not self._doubted:
                _logger().warning("%s", mismatch)
            self._doubted = True
            return
        self._due = math.inf  # what is wrong was found
        if callable(self._on_wrong):
            self._on_wrong(mismatch)
        elif self._on_wrong == "log":
            _logger().error("%s", mismatch)
        else:
            raise mismatch

    @property
    def share(self) -> float:
        """`seconds` as a share of the time from the first call until now, or until `close`."""
        lasted = self._lasted()
        return self.seconds / lasted if lasted else 0.0

    def _lasted(self) -> float:
        if self._began is None:
            return 0.0
        return (self._clock() if self._closed is None else self._closed) - self._began

    def close(self) -> None:
        """Ends the watch; logs a warning if it checked nothing."""
        if self._closed is not None:
            return
        self._closed = self._clock()
        self._due = math.inf
        if self.checks or not self.step:
            return
        what = "" if self._cheapest is None else f", and a check takes about {self._cheapest:.2g} s"
        _logger().warning(
            "no gradient was checked in %d steps, %.2g s, of which checks may take %.2g s%s; "
            "pass a larger budget=, or credit= in seconds, which may be spent at the first step",
            self.step, self._lasted(), self.credit + self.budget * self._lasted(), what,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self.close()

    def __repr__(self) -> str:
        verdict = None if self.report is None else self.report.verdict
        return (
            f"Watcher(step={self.step}, checks={self.checks}, seconds={self.seconds:.3g}, "
            f"share={self.share:.2%}, verdict={verdict!r})"
        )


def _logger() -> "Logger":
    import logging  # which `import fastgc` does without

    return logging.getLogger("fastgc")
