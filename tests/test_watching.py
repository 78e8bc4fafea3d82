"""fastgc.watch: when it checks and how, within which share of the time, and what it then says.

Time is that of a clock that moves only where a test moves it.
"""

import logging
import math
import pickle
import re
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastgc
from fastgc import watcher as watcher_module
from tests.cases import NETWORKS, Tensors, backward
from tests.shown import says
from tests.strategies import examples

watching = import_module("fastgc.watch")  # as an attribute of fastgc it is the function

SIZE = 40  # entries of W; P is 42
STEP = 0.1  # seconds of training between two calls
OVERHEAD = watcher_module.OVERHEAD


class Clock:
    """Time that stands still until something takes some of it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Training:
    """A training of W and b, whose cost takes `evaluation` seconds and whose steps take `STEP`."""

    def __init__(self, evaluation: float = 0.01) -> None:
        self.clock, self.evaluation = Clock(), evaluation
        self.evaluations = 0
        rng = np.random.default_rng(3)
        self.parameters: Tensors = {"W": rng.standard_normal((4, 10)), "b": rng.standard_normal(2)}

    def cost(self, p: Any) -> float:
        self.evaluations += 1
        self.clock.now += self.evaluation
        return float(np.sin(p["W"]).sum() + (p["b"] ** 2).sum())

    def gradients(self, *, factor: float = 1.0) -> Tensors:
        return {"W": factor * np.cos(self.parameters["W"]), "b": 2 * self.parameters["b"]}

    def watch(self, **options: Any) -> fastgc.Watcher:
        return fastgc.watch(self.cost, **{"clock": self.clock, **options})

    def run(
        self, watcher: fastgc.Watcher, steps: int, *, wrong_from: float = math.inf
    ) -> dict[int, fastgc.Report]:
        """The reports, by step; W's gradient is doubled from one step on."""
        found = {}
        for _ in range(steps):
            wrong = watcher.step + 1 >= wrong_from
            report = watcher(self.parameters, self.gradients(factor=2.0 if wrong else 1.0))
            if report is not None:
                found[watcher.step] = report
            for name, gradient in self.gradients().items():
                self.parameters[name] = self.parameters[name] - 0.001 * gradient
            self.clock.now += STEP
        return found


def way(report: fastgc.Report) -> tuple[str, int]:
    """Its method, and how many lines or entries it looked along."""
    return report.method, sum(tensor.size for tensor in report.tensors.values())


def expected(report: fastgc.Report) -> int:
    """Evaluations, if nothing needs a second look."""
    return 11 + 2 * way(report)[1]


# when


def test_with_time_enough_it_checks_the_first_step_and_every_so_many() -> None:
    training = Training()
    watcher = training.watch(every=10, budget=1.0)
    reports = training.run(watcher, 35)
    assert list(reports) == [1, 11, 21, 31]
    assert all(report.ok and way(report) == ("loop", 42) for report in reports.values())
    assert (watcher.step, watcher.checks, watcher.report) == (35, 4, reports[31])


def test_a_check_waits_until_it_fits_into_the_budget() -> None:
    training = Training(evaluation=0.05)
    watcher = training.watch(every=1, budget=0.1)
    began = training.clock.now
    reports = training.run(watcher, 1000)
    # the cheapest, one direction through all: 11 evaluations and 2 along it; two are spent before
    first, report = next(iter(reports.items()))
    assert way(report) == ("random", 1)
    spent = OVERHEAD + 15 * training.evaluation
    assert (first - 2) * STEP < spent / watcher.budget - spent < first * STEP
    assert watcher.seconds == pytest.approx(training.evaluations * training.evaluation)
    assert watcher.share == pytest.approx(watcher.seconds / (training.clock.now - began))
    assert 0.08 < watcher.share <= 0.1
    # one is timed for each check, however often it has to wait, and one before the first of all
    looked = sum(report.evaluations for report in reports.values()) + len(reports) + 1
    assert training.evaluations in (looked, looked + 1)


@example(evaluation=0.0625, budget=0.125, every=1, credit=0.0)
@examples(25)
@given(
    evaluation=st.floats(1e-4, 0.1),
    budget=st.floats(0.005, 0.9),
    every=st.integers(1, 300),
    credit=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
)
def test_it_never_takes_more_than_its_share(
    evaluation: float, budget: float, every: int, credit: float
) -> None:
    training = Training(evaluation)
    watcher = training.watch(every=every, budget=budget, credit=credit)
    began, last, extra = training.clock.now, -math.inf, 0.0
    for _ in range(600):
        for step, report in training.run(watcher, 1).items():
            assert step - last >= every
            last, extra = step, max(extra, report.evaluations - expected(report))
        elapsed = training.clock.now - began
        allowed = credit + budget * elapsed + extra * evaluation  # second looks, rarely a few
        assert watcher.seconds <= allowed * (1 + 1e-9)
    assert extra <= 12


def test_the_first_evaluation_is_paid_for_as_well() -> None:
    training = Training(evaluation=STEP)  # as long as a step, which is all it is taken to be
    watcher = training.watch(budget=0.01)
    training.run(watcher, 199)
    assert (training.evaluations, watcher.seconds) == (0, 0.0)
    training.run(watcher, 1)
    assert (
        training.evaluations == 2
    )  # one that may have to compile something, and one that is timed
    training.run(watcher, 500)
    assert training.evaluations == 2
    assert watcher.checks == 0


def test_credit_checks_the_first_step_and_is_paid_back() -> None:
    training = Training()
    watcher = training.watch(every=1, budget=0.1, credit=0.5)
    reports = training.run(watcher, 100)
    assert next(iter(reports)) == 1
    assert way(reports[1]) == ("random", 16)  # 0.43 s; every entry would take 0.95
    extra = max(report.evaluations - expected(report) for report in reports.values())
    assert watcher.seconds <= 0.5 + 0.1 * (training.clock.now - 1000.0) + extra * 0.01
    assert watcher.seconds > 0.9


def test_a_check_that_took_longer_than_expected_is_made_up_for() -> None:
    training = Training(evaluation=1e-3)

    def cost(p: Any) -> float:
        value = training.cost(p)
        if training.evaluations == 2:
            training.evaluation = 0.1  # all but the one that is timed, and one before it
        return value

    watcher = fastgc.watch(cost, every=1, budget=0.1, clock=training.clock)
    reports = training.run(watcher, 2000)
    (first, report), (second, _), *_ = reports.items()
    assert (first, report.method) == (20, "loop")  # which takes 1 ms each, by the one
    assert (second - first) * STEP > 9 * 0.1 * report.evaluations


def test_what_a_check_took_is_what_the_next_will_take() -> None:
    training = Training(evaluation=1e-6)
    watcher = training.watch(every=1, budget=0.1)

    def gradients(_: Any) -> Tensors:
        training.clock.now += 2.0  # a backward pass of its own, which no evaluation foretells
        return training.gradients()

    steps = []
    for _ in range(1000):
        if watcher(training.parameters, gradients) is not None:
            steps.append(watcher.step)
            assert watcher.share <= 0.1 or len(steps) == 1
        training.clock.now += STEP
    assert len(steps) >= 4
    assert min(np.diff(steps)[1:]) * STEP > 17.9  # 2 s of 20


def test_time_before_the_first_step_does_not_count() -> None:
    training = Training()
    watcher = training.watch(budget=0.01)
    training.clock.now += 1e6  # data are loaded
    training.run(watcher, 2)
    assert watcher.checks == 0
    assert watcher.share == 0.0


# how


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.98, ("loop", 42)),        # 11 + 2 · 42 evaluations of 10 ms, two looks, 2 ms around them
        (0.96, ("random", 16)),      # 11 + 2 · 8 · 2
        (0.46, ("random", 16)),
        (0.44, ("random", 8)),       # 11 + 2 · 8
        (0.28, ("random", 7)),
        (0.16, ("random", 1)),
        (0.14, None),
    ],
)  # fmt: skip
def test_it_takes_the_best_way_that_fits(seconds: float, wanted: tuple[str, int] | None) -> None:
    training = Training()
    report = training.run(training.watch(budget=1e-9, credit=seconds), 1).get(1)
    assert (report and way(report)) == wanted


def test_what_is_left_out_is_not_paid_for() -> None:
    training = Training()
    report = training.run(training.watch(budget=1e-9, credit=0.18, only=["b"]), 1)[1]
    assert way(report) == ("loop", 2)
    # and what a step of its own choice takes is: 12 evaluations for each tensor
    watcher = training.watch(budget=1e-9, credit=0.4, epsilon="auto", method="random")
    assert way(training.run(watcher, 1)[1]) == ("random", 1)


class Loading:
    """A check whose entries take a second, and `seconds` to load the first time, if at all."""

    def __init__(self, *, entries: float, seconds: float = 0.0, evaluations: float = 1.0) -> None:
        self.clock, self.entries = Clock(), entries
        self.loading, self.evaluations = seconds, evaluations
        self.right = fastgc.check(lambda t: t * t, 3.0, 6.0)
        self.methods: list[str] = []

    def evaluate(self) -> None:
        self.clock.now += 0.4

    def check(self, method: str, **_: Any) -> fastgc.Report:
        self.methods.append(method)
        self.clock.now += 1.0 + self.loading
        self.loading = 0.0
        return self.right

    def moment(self) -> watcher_module.Moment:
        return watcher_module.Moment(
            tensors=1, evaluate=self.evaluate, check=self.check, entries=self.entries,
            loading=self.loading, evaluations=self.evaluations,
        )  # fmt: skip

    def checked(self, steps: int, **options: Any) -> list[float]:
        """When checks were made, seconds from the first step."""
        given = {
            "every": 1, "budget": 0.1, "credit": 0.0, "on_wrong": "raise", "method": "loop",
            "directions": None, "per_tensor": None, "seed": 0, "clock": self.clock, **options,
        }  # fmt: skip
        watcher, began, found = fastgc.Watcher(self.moment, **given), self.clock.now, []
        for _ in range(steps):
            now = self.clock.now - began
            if watcher() is not None:
                found.append(now)
            self.clock.now += STEP
        return found


@pytest.mark.parametrize(("evaluations", "checks"), [(1.0, 0), (4.0, 1)])
def test_an_evaluation_may_come_with_others(evaluations: float, checks: int) -> None:
    case = Loading(entries=10.0, evaluations=evaluations)  # which are 4 s, or 1
    assert len(case.checked(1, budget=1e-9, credit=2.0)) == checks


def test_a_check_that_took_less_than_expected_is_made_again() -> None:
    case = Loading(entries=100.0)  # which are 40 s, and take one
    assert len(case.checked(1000, method="auto", credit=42.0)) > 30
    assert set(case.methods) == {"auto"}


def test_what_loads_once_is_not_expected_again() -> None:
    first, second, third, *_ = Loading(entries=2.0, seconds=30.0).checked(6000)
    assert first > 270
    assert second - first < 50
    assert third - second < 30


def test_a_method_that_was_named_is_taken_as_it_is_and_waits() -> None:
    training = Training()
    watcher = training.watch(budget=0.05, every=1, method="loop")
    reports = training.run(watcher, 500)
    assert {way(report) for report in reports.values()} == {("loop", 42)}
    assert 1 <= len(reports) <= 500 * STEP * 0.05 / (95 * 0.01) + 1
    assert (min(reports) - 1) * STEP + 95 * 0.01 > 95 * 0.01 / 0.05
    training = Training()
    options: dict[str, Any] = {"directions": 3, "per_tensor": False}
    watcher = training.watch(budget=1.0, method="random", **options)
    assert way(training.run(watcher, 1)[1]) == ("random", 3)
    watcher = training.watch(budget=1.0, method="random", directions=3)
    assert way(training.run(watcher, 1)[1]) == ("random", 6)
    watcher = training.watch(budget=1.0, method="random")
    assert way(training.run(watcher, 1)[1]) == ("random", 16)


def test_every_check_draws_directions_of_its_own() -> None:
    training = Training()
    training.parameters = {name: value.copy() for name, value in training.parameters.items()}
    watcher = training.watch(every=1, budget=1.0, method="random", seed=7)
    still = {name: value.copy() for name, value in training.parameters.items()}
    gradients = training.gradients()
    seen = [watcher(still, gradients) for _ in range(3)]
    slopes = [report.tensors["W"].worst.numerical for report in seen if report]
    assert len(set(slopes)) == 3
    again = fastgc.check(training.cost, still, gradients, method="random", seed=7)
    assert again.tensors["W"].worst.numerical == slopes[0]


def test_options_of_check_are_passed_on() -> None:
    training = Training()
    watcher = training.watch(budget=1.0, only=["b"], tolerance=1e-5, epsilon=1e-5)
    report = training.run(watcher, 1)[1]
    assert list(report.tensors) == ["b"]
    assert (report.tolerance, report.epsilon) == (1e-5, 1e-5)
    noisy = training.watch(budget=1.0, epsilon="auto", method="random")
    assert training.run(noisy, 1)[1].ok


def test_a_cost_that_draws_is_seeded() -> None:
    training, rng = Training(), np.random.RandomState(0)

    def noisy(p: Any) -> float:
        return training.cost(p) * float(1 + rng.random())

    watcher = fastgc.watch(noisy, budget=1.0, clock=training.clock)
    with pytest.raises(ValueError, match="the cost differs by"):
        training.run(watcher, 1)
    rng.seed(5)
    factor = 1 + rng.random()
    watcher = fastgc.watch(noisy, budget=1.0, clock=training.clock, reseed=lambda: rng.seed(5))
    right = {name: factor * value for name, value in training.gradients().items()}
    report = watcher(training.parameters, right)
    assert report is not None
    assert report.ok


def test_it_takes_directions_until_there_is_time_to_load_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, parameters = NETWORKS[0].build()
    gradients, clock, ready = backward(net, parameters), Clock(), False
    monkeypatch.setattr(watching, "kernels_are_loaded", lambda: ready)
    assert watching.loading_time() in (watching.KEPT, watching.COMPILED)
    monkeypatch.setattr(watching, "loading_time", lambda: 0.0 if ready else 5.0)

    def loading(*arguments: Any, **options: Any) -> fastgc.Report:
        report = fastgc.check(*arguments, **options)
        if report.method == "incremental" and not ready:
            clock.now += 5.0
        return report

    monkeypatch.setattr(watching, "check", loading)
    watcher = fastgc.watch(net, every=1, budget=0.1, clock=clock)
    methods = {}
    for _ in range(700):
        report = watcher(parameters, gradients)
        clock.now += STEP
        if report is not None:
            methods[watcher.step] = report.method
            ready = ready or report.method == "incremental"
    found = list(methods.values())
    loaded = found.index("incremental")
    assert set(found[:loaded]) == {"random"}
    assert set(found[loaded:]) == {"incremental"}
    assert list(methods)[loaded] * STEP + 5.0 > 5.0 / 0.1
    assert len(found) > loaded + 100  # it is loaded once, and the next check takes no 5 s
    assert watcher.share <= 0.1


def test_vectorized_and_compiled_costs_and_single_arrays() -> None:
    w = np.array([3.0, 4.0])
    watcher = fastgc.watch(lambda w: (w**2).sum(axis=-1), vectorized=True, budget=1.0)
    report = watcher(w, 2 * w)
    assert report is not None
    assert (report.ok, report.method) == (True, "stacked")
    watcher = fastgc.watch(lambda p: float(p[0] @ p[0]), budget=1.0)
    assert watcher([w], [2 * w])
    watcher = fastgc.watch(lambda w: float(w @ w), budget=1.0)
    assert watcher(w, lambda w: 2 * w)


# batches


def test_the_cost_of_a_step_is_made_of_its_batch_only_when_due() -> None:
    net, parameters = NETWORKS[0].build()
    made = []

    def cost(X: Any, Y: Any) -> fastgc.Network:
        made.append(watcher.step)
        return fastgc.Network(X, Y)

    watcher = fastgc.watch(cost, every=4, budget=1.0)
    rng = np.random.default_rng(0)
    for _ in range(9):
        batch = fastgc.Network(rng.standard_normal((4, 6)), rng.integers(2, size=6))
        report = watcher(parameters, backward(batch, parameters), batch.X, batch.Y)
        assert report is None or report.ok
    assert made == [1, 5, 9]
    assert watcher.checks == 3
    # the gradients of another batch are wrong here
    watcher = fastgc.watch(fastgc.Network, budget=1.0)
    with pytest.raises(fastgc.GradientMismatch, match=r"^step 1: wrong: "):
        watcher(parameters, backward(net, parameters), batch.X, batch.Y)


def test_nothing_is_kept_of_a_step() -> None:
    training = Training()
    watcher = training.watch(every=3, budget=1.0)

    class Own(dict[str, Any]):
        pass

    for _ in range(5):
        parameters, gradients = Own(training.parameters), Own(training.gradients())
        before = {name: value.copy() for name, value in parameters.items()}
        watcher(parameters, gradients)
        for name, value in before.items():
            np.testing.assert_array_equal(parameters[name], value)
        gone = [weakref.ref(parameters), weakref.ref(gradients)]
        del parameters, gradients
        assert [ref() for ref in gone] == [None, None]


# what is wrong


def test_the_first_wrong_gradient_raises_with_its_step() -> None:
    training = Training()
    watcher = training.watch(every=10, budget=1.0)
    with pytest.raises(
        fastgc.GradientMismatch,
        match=r"^step 31: wrong: W \(40 of 40 entries\)",
    ) as caught:
        training.run(watcher, 100, wrong_from=22)
    mismatch = caught.value
    assert (mismatch.step, watcher.step) == (31, 31)
    assert mismatch.report is watcher.report
    assert mismatch.report.tensors["b"].ok
    assert "W: 2.000 ×" in str(mismatch)
    again = pickle.loads(pickle.dumps(fastgc.GradientMismatch(mismatch.report, 31)))
    assert (again.step, str(again)) == (31, str(mismatch))
    assert training.run(watcher, 100) == {}  # what is wrong was found


@pytest.mark.parametrize("credit", [0.16, 0.3, 0.5])  # one direction, eight, and eight each
def test_directions_find_it_too(credit: float) -> None:
    training = Training()
    watcher = training.watch(budget=1e-9, credit=credit)
    with pytest.raises(
        fastgc.GradientMismatch, match=r"^step 1: wrong: W \(\d+ of \d+ random directions?\)"
    ) as caught:
        training.run(watcher, 1, wrong_from=1)
    assert caught.value.report.method == "random"


def test_gradients_that_are_not_finite_are_wrong() -> None:
    training = Training()
    gradients = training.gradients()
    gradients["b"][1] = np.nan
    watcher = training.watch(budget=1.0)
    with pytest.raises(fastgc.GradientMismatch, match=r"^step 1: wrong: b \(1 of 2 entries\)"):
        watcher(training.parameters, gradients)


def test_it_logs_once_where_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    training = Training()
    watcher = training.watch(every=5, budget=1.0, on_wrong="log")
    reports = training.run(watcher, 30, wrong_from=8)
    assert [report.verdict for report in reports.values()] == ["correct", "correct", "wrong"]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("fastgc", logging.ERROR)
    assert record.getMessage().startswith("step 11: wrong: W (40 of 40 entries)")
    assert repr(watcher).endswith("verdict='wrong')")


def test_it_calls_what_it_was_given() -> None:
    training = Training()
    told: list[fastgc.GradientMismatch] = []
    watcher = training.watch(every=5, budget=1.0, on_wrong=told.append)
    training.run(watcher, 30, wrong_from=8)
    assert [(mismatch.step, mismatch.report) for mismatch in told] == [(11, watcher.report)]


def test_what_it_cannot_tell_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    def large(w: Any) -> float:
        return float(1e20 + w**2)

    watcher = fastgc.watch(large, every=2, budget=1.0)
    reports = [watcher(3.0, 6.0) for _ in range(6)]
    assert [None if report is None else report.verdict for report in reports] == [
        "unresolved",
        None,
    ] * 3
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("step 1: cannot tell: ")
    assert "lost in the rounding noise" in record.getMessage()


def test_float32_gradients_are_held_to_what_they_can() -> None:
    training = Training()
    narrow = {name: np.float32(value) for name, value in training.gradients().items()}
    report = training.watch(budget=1.0)(training.parameters, narrow)
    assert report is not None
    assert report.ok
    assert report.tensors["W"].tolerance == 1e-4


# what went on


def test_it_shows_what_it_did() -> None:
    training = Training()
    watcher = training.watch(every=10, budget=1.0)
    assert repr(watcher) == "Watcher(step=0, checks=0, seconds=0, share=0.00%, verdict=None)"
    training.run(watcher, 20)
    shown = "Watcher(step=20, checks=2, seconds=1.99, share=49.87%, verdict='correct')"
    assert repr(watcher) == shown
    assert watcher.share == pytest.approx(1.99 / 3.99)
    watcher.close()
    share = watcher.share
    training.clock.now += 1e6
    assert watcher.share == share


def test_steps_go_on_from_an_earlier_run() -> None:
    training = Training()
    watcher = training.watch(every=10, budget=1.0)
    watcher.step = 5000
    assert list(training.run(watcher, 15)) == [5001, 5011]


def test_a_run_too_short_for_a_check_says_so(caplog: pytest.LogCaptureFixture) -> None:
    training = Training(evaluation=0.02)
    with training.watch() as watcher:
        training.run(watcher, 220)
    watcher.close()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert says(record.getMessage(), "220 steps … 22 s … 0.22 s … 0.26 s … budget= … credit=")
    assert training.run(watcher, 500) == {}  # it is closed


def test_a_run_with_checks_or_errors_ends_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    training = Training()
    with training.watch(budget=1.0) as watcher:
        training.run(watcher, 3)

    def fails() -> None:
        with training.watch() as watcher:
            training.run(watcher, 3)
            raise IndexError

    with pytest.raises(IndexError):
        fails()
    with training.watch():
        pass  # nothing was watched
    assert caplog.records == []


# what cannot be


def test_an_exception_of_the_cost_passes_through_with_the_step() -> None:
    training = Training()

    def cost(p: Any) -> float:
        if training.clock.now > 1001:
            raise KeyError("batch")
        return training.cost(p)

    watcher = fastgc.watch(cost, every=5, budget=1.0, clock=training.clock)
    with pytest.raises(KeyError, match="batch") as caught:
        training.run(watcher, 100)
    raised, at = caught.value.__notes__
    assert raised.startswith("fastgc: the cost raised this")
    assert at.startswith(f"fastgc: this was step {watcher.step},")
    assert watcher.step == 6
    assert watcher.seconds > 0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"every": 0}, ValueError, r"every is 0"),
        ({"every": 1.5}, TypeError, r"every is 1\.5"),
        ({"budget": 0}, ValueError, r"budget is 0"),
        ({"budget": 1.5}, ValueError, r"budget is 1\.5"),
        ({"budget": math.nan}, ValueError, r"budget is nan"),
        ({"budget": "1%"}, TypeError, r"budget is '1%'"),
        ({"credit": -1}, ValueError, r"credit is -1"),
        ({"on_wrong": "print"}, ValueError, r"on_wrong is 'print'"),
        ({"method": "nod"}, ValueError, r'method is "nod"'),
        ({"method": None}, TypeError, r"method is None"),
        ({"epsilon": 0}, ValueError, r"epsilon is 0"),
        ({"tolerance": -1}, ValueError, r"tolerance is -1"),
        ({"vectorized": 1}, TypeError, r"vectorized is 1"),
        ({"reseed": 1}, TypeError, r"reseed is 1"),
        ({"against": 1}, TypeError, r"against is a int"),
        ({"directions": 4}, ValueError, r'directions= .*"auto".*method="random"'),
        ({"per_tensor": False, "method": "loop"}, ValueError, r'"loop".*method="random"'),
        ({"directions": 0, "method": "random"}, ValueError, r"directions is 0"),
        ({"per_tensor": 1, "method": "random"}, TypeError, r"per_tensor is 1"),
        ({"seed": -1}, ValueError, r"seed is -1"),
        ({"threads": 0}, ValueError, r"threads is 0"),
        ({"memory": "1"}, TypeError, r"memory is '1'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_at_once(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        fastgc.watch(lambda p: p, **options)


def test_a_cost_that_is_none() -> None:
    with pytest.raises(TypeError, match="cost is a float"):
        fastgc.watch(3.0)  # type: ignore[arg-type]  # the mistake under test


NET, PARAMETERS = NETWORKS[0].build()


@pytest.mark.parametrize(
    ("cost", "step", "options", "kind", "message"),
    [
        (NET, (), {}, TypeError, r"0 arguments"),
        (NET, (PARAMETERS,), {}, TypeError, r"1 argument\b"),
        (fastgc.Network, (PARAMETERS, PARAMETERS), {}, TypeError, r"class Network.*watcher\(parameters, gradients, X, Y\)"),
        (lambda X: 3.0, (1.0, 1.0, 2.0), {}, TypeError, r"a batch, .* is a float"),
        (NET, (PARAMETERS, {}), {}, ValueError, r'"W1" .*"dW1"'),
        (NET, (PARAMETERS, {**PARAMETERS, "W1": np.ones(3)}), {}, ValueError, r'gradients\["W1"\] .*\(3,\)'),
        (NET, ({"W1": np.nan}, {"W1": 1.0}), {}, ValueError, r"W1 is nan"),
        (math.sin, (1.0, 1.0), {"method": "node"}, ValueError, r'"node"'),
        (math.sin, (1.0, 1.0), {"only": ["W1"]}, ValueError, r'only'),
    ],
)  # fmt: skip
def test_bad_steps_are_refused_at_the_first(
    cost: Callable[..., Any],
    step: tuple[Any, ...],
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    watcher = fastgc.watch(cost, **options)
    with pytest.raises(kind, match=message) as caught:
        watcher(*step)
    assert caught.value.__notes__[-1].startswith("fastgc: this was step 1,")


def test_pytest_shows_no_frame_of_the_watcher(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
import fastgc

def test_training():
    watcher = fastgc.watch(lambda t: t * t, budget=1.0)
    watcher(3.0, 7.0)
"""
    )
    fastgc.check(lambda t: t * t, 3.0, 6.0)
    shown = pytester.runpytest("-p", "no:cacheprovider").stdout.str()
    assert "E       fastgc.check.GradientMismatch: step 1: wrong: parameters" in shown
    assert re.findall(r"^(\S+\.py):\d+", shown, re.MULTILINE) == ["test_it.py"]
