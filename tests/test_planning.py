"""Plans: the counts are right, the table is readable, nothing is checked."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastgc
from fastgc.costs.base import Cost, as_cost
from fastgc.methods.base import Approximation, Method
from fastgc.methods.loop import LOOP
from fastgc.methods.registry import METHODS
from fastgc.network.flops import forward_flops
from tests.cases import NETWORKS, Array, NetworkCase, backward


def test_every_method_that_can_check_a_network_is_planned() -> None:
    net, parameters = NETWORKS[0].build()
    plan = fastgc.plan(net, parameters)
    assert list(plan.forecasts) == [*METHODS]
    assert plan.size == 47
    assert plan.chosen == fastgc.select_method(net, parameters)
    for name, forecast in plan.forecasts.items():
        counts = {"node": 2 * 3 * 9, "random": 2 * 8 * 6}
        assert forecast.perturbations == counts.get(name, 2 * 47)
        assert forecast.operations is not None
        assert forecast.operations > 0
        assert forecast.memory > 8 * 47
        assert 0 < forecast.seconds < 10


def test_the_perturbations_planned_are_those_made() -> None:
    net, parameters = NETWORKS[0].build()
    zeros = {name: np.zeros_like(value) for name, value in parameters.items()}
    plan = fastgc.plan(net, parameters)
    for method in ("incremental", "node"):
        report = fastgc.check(net, parameters, zeros, method=method)
        assert report.evaluations >= 1 + plan.forecasts[method].perturbations


def test_a_function_is_planned_for_the_loop() -> None:
    calls = []

    def cost(p: dict[str, Array]) -> float:
        calls.append(1)
        return float(p["w"] @ p["w"])

    plan = fastgc.plan(cost, {"w": np.ones(1000)})
    assert list(plan.forecasts) == ["loop", "random"]
    assert plan.forecasts["loop"].operations is None
    assert len(calls) < 10
    stacked = fastgc.plan(lambda p: p["w"].sum(axis=1), {"w": np.ones(10)}, vectorized=True)
    assert (list(stacked.forecasts), stacked.chosen) == (["loop", "stacked", "random"], "stacked")


def test_the_table() -> None:
    plan = fastgc.Plan(
        size=533505,
        chosen="node",
        forecasts={
            "loop": fastgc.Forecast(1067010, 3.7e13, 40 * 2**20, 650.0),
            "node": fastgc.Forecast(49216, 1.2e8, 2 * 2**30, 0.0042),
        },
    )
    assert str(plan).splitlines() == [
        "533,505 parameters; auto takes node. Times of the methods alone, without the report",
        "",
        "method        perturbations  operations    memory      time",
        "loop              1,067,010     3.7e+13  40.0 MiB  10.8 min",
        "node                 49,216     1.2e+08   2.0 GiB    4.2 ms",
    ]


def flops(method: str, cost: Cost) -> float:
    count = METHODS[method].flops(cost)
    assert count is not None
    return count


def test_operations_of_the_loop_are_forward_passes() -> None:
    widths, m = (784, 512, 256, 1), 32
    assert forward_flops(widths, m) == 2 * 32 * (784 * 512 + 512 * 256 + 256)
    cost = as_cost(*NetworkCase("planned", widths, m).build())
    loop, incremental, node = (flops(name, cost) for name in ("loop", "incremental", "node"))
    assert loop == 2 * 533505 * forward_flops(widths, m)
    assert node < 1e-4 * incremental * 512
    assert incremental < 2e-3 * loop


@pytest.mark.parametrize(
    ("widths", "m", "wanted"),
    [
        ((3, 4, 1), 5, "incremental"),
        ((30, 64, 32, 1), 64, "node"),
        ((784, 512, 256, 1), 32, "node"),
        ((64, 256, 256, 10), 128, "node"),
    ],
)
def test_selection_goes_by_the_count(widths: tuple[int, ...], m: int, wanted: str) -> None:
    net, parameters = NetworkCase("planned", widths, m).build()
    assert fastgc.select_method(net, parameters) == wanted
    assert (flops("incremental", as_cost(net, parameters)) <= 1e7) == (wanted == "incremental")


BARE = Method(
    "mirror",
    LOOP.approximate,
    refusal=lambda _: None,
    evaluations=lambda cost, layout, choices: 3 * layout.size,
    least_memory=lambda _: 2**20,
    epsilon=1e-6,
)


def _slow(*arguments: Any) -> Approximation:
    time.sleep(0.01)
    return LOOP.approximate(*arguments)


@pytest.mark.parametrize("of_network", [False, True])
def test_a_new_method_needs_a_line_in_the_registry_and_no_more(
    of_network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "mirror", replace(BARE, approximate=_slow))
    net, parameters = NETWORKS[0].build()
    cost = net if of_network else lambda p: net(p)
    plan = fastgc.plan(cost, parameters)
    forecast = plan.forecasts["mirror"]
    assert (forecast.perturbations, forecast.operations) == (3 * 47, None)
    assert forecast.memory >= 2**20 + 4 * 8 * 47  # θ, gradient, gradapprox and uncertainty
    assert forecast.seconds >= 0.01 * 47 / 8  # as eight entries took, scaled to all
    assert "mirror" in str(plan)
    right = backward(net, parameters)
    assert fastgc.check(cost, parameters, right, method="mirror").ok
    right["W2"] = 1.1 * right["W2"]
    assert fastgc.check(cost, parameters, right, method="mirror").verdict == "wrong"


def test_a_new_method_may_say_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    says = replace(
        BARE, flops=lambda cost: 39.0, vectors=7,
        memory=lambda cost, _: 1000 + cost.layout.size, seconds=lambda *_: 12.5,
    )  # fmt: skip
    monkeypatch.setitem(METHODS, "mirror", says)
    net, parameters = NETWORKS[0].build()
    forecast = fastgc.plan(net, parameters).forecasts["mirror"]
    assert forecast == fastgc.Forecast(3 * 47, 39.0, 7 * 8 * 47 + 1047, 12.5)


def test_a_refusal_and_a_lack_of_memory_keep_a_new_method_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "mirror", BARE)
    monkeypatch.setitem(METHODS, "never", replace(BARE, refusal=lambda _: "it is shy"))
    net, parameters = NETWORKS[0].build()
    assert "mirror" not in fastgc.plan(net, parameters, memory=2**20 - 1).forecasts
    assert "never" not in fastgc.plan(net, parameters).forecasts


@pytest.mark.parametrize("exact", [False, True])
def test_a_new_method_may_be_watched(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "mirror", replace(BARE, exact=exact))
    net, parameters = NETWORKS[0].build()
    watcher = fastgc.watch(net, budget=1.0, credit=100.0, method="mirror")
    report = watcher(parameters, backward(net, parameters))
    assert report is not None
    assert report.method == "mirror"


def test_options_of_a_plan_are_looked_at() -> None:
    net, parameters = NETWORKS[0].build()
    assert list(fastgc.plan(net, parameters, memory=1000).forecasts) == ["loop", "random"]
    with pytest.raises(ValueError, match="threads is 0"):
        fastgc.plan(net, parameters, threads=0)
    with pytest.raises(TypeError, match="memory is 'a'"):
        fastgc.plan(net, parameters, memory="a")  # type: ignore[arg-type]  # the mistake under test
