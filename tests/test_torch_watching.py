"""fastgc.torch.watch: a module in training, which trains as if nobody watched."""

# ruff: noqa: E402  what is imported below needs torch

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import fastgc
import fastgc.torch

nn = torch.nn


class Twice(torch.autograd.Function):  # type: ignore[name-defined, misc]  # torch is imported late
    """x², whose backward pass is right by 2x, and wrong by another factor."""

    factor = 2.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return Twice.factor * x * grad


class Squares(nn.Module):  # type: ignore[name-defined, misc]  # torch is imported late
    """A layer before and after the squares, with dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)
        self.drop, self.above = nn.Dropout(0.3), nn.Linear(5, 1)

    def forward(self, x: Any) -> Any:
        return self.above(self.drop(Twice.apply(self.norm(self.below(x)))))


@pytest.fixture(autouse=True)
def _right() -> Any:
    Twice.factor = 2.0
    yield
    Twice.factor = 2.0


def train(
    net: Any,
    steps: int,
    watcher: Callable[..., Any] = lambda *_: None,
    *,
    wrong_from: float = float("inf"),
    zeroed: bool = True,
) -> Any:
    """Trains on batches drawn as it goes; returns what the generator draws next."""
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        Twice.factor = 2.0 if step < wrong_from else 3.0
        x = torch.randn(8, 3)
        y = x.sum(dim=1, keepdim=True) ** 2
        if zeroed:
            optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        watcher(x, y)
        optimizer.step()
    return torch.rand(3)


def watch(net: Any, **options: Any) -> fastgc.Watcher:
    return fastgc.torch.watch(net, nn.MSELoss(), **{"every": 4, "budget": 1.0, **options})


def without_chance(net: Any) -> Any:
    net.drop.p = 0.0
    return net


@pytest.mark.parametrize("method", ["auto", "random"])
def test_it_trains_as_if_nobody_watched(method: str) -> None:
    torch.manual_seed(1)
    net = Squares()
    twin = copy.deepcopy(net)
    torch.manual_seed(2)
    drawn = train(net, 12)
    torch.manual_seed(2)
    watcher = watch(twin, method=method)
    assert torch.equal(drawn, train(twin, 12, watcher))
    assert watcher.checks == 3
    for name, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("method", ["auto", "loop", "random"])
def test_the_first_wrong_backward_pass_raises_with_its_step(method: str) -> None:
    torch.manual_seed(1)
    net = Squares()
    watcher = watch(net, method=method)
    with pytest.raises(fastgc.GradientMismatch, match=r"^step 9: wrong: ") as caught:
        train(net, 20, watcher, wrong_from=7)
    tensors = caught.value.report.tensors
    assert caught.value.step == 9
    # what lies above the function is right
    assert [name for name, tensor in tensors.items() if tensor.ok and "above" in name] == [
        "above.weight",
        "above.bias",
    ]
    assert not tensors["norm.weight"].ok


def test_gradients_that_are_held_are_checked_as_they_are() -> None:
    torch.manual_seed(1)
    net = without_chance(Squares())
    watcher = watch(net, held=True)
    train(net, 5, watcher)
    assert watcher.report is not None
    assert watcher.report.ok
    assert watcher.report.tensors["below.weight"].dtype == "float32"
    # accumulated over steps they are those of no step's loss; a backward pass of its own is right
    accumulated = without_chance(Squares())
    train(accumulated, 8, watch(accumulated), zeroed=False)
    accumulated = without_chance(Squares())
    with pytest.raises(fastgc.GradientMismatch, match=r"^step 5: wrong: "):
        train(accumulated, 8, watch(accumulated, held=True), zeroed=False)


def test_closures_and_triples() -> None:
    net, x = nn.Linear(3, 1), torch.randn(4, 3)
    for loss in (lambda: net(x).exp().mean(), (nn.MSELoss(), x, torch.zeros(4, 1))):
        watcher = fastgc.torch.watch(net, loss, budget=1.0)
        report = watcher()
        assert report is not None
        assert report.ok
        assert list(report.tensors) == ["weight", "bias"]


def test_only_some_and_fixed_directions() -> None:
    torch.manual_seed(1)
    net = Squares()
    watcher = watch(net, only=["below.*"], method="random", directions=2, per_tensor=False)
    train(net, 1, watcher)
    assert watcher.report is not None
    assert list(watcher.report.tensors) == ["all parameters"]
    assert "2 random directions" in str(watcher.report)


def test_a_step_costs_no_evaluation_where_nothing_is_due() -> None:
    calls = []

    def loss() -> Any:
        calls.append(watcher.step)
        return net(x).square().mean()

    net, x = nn.Linear(3, 1), torch.randn(4, 3)
    watcher = fastgc.torch.watch(net, loss, every=5, budget=1.0)
    for _ in range(10):
        watcher()
    assert set(calls) == {1, 6}


def test_the_budget_pays_for_posing_the_module() -> None:
    calls = []
    now = 0.0

    def loss() -> Any:
        calls.append(watcher.step)
        return net(x).square().mean()

    net, x = nn.Linear(3, 1), torch.randn(4, 3)
    watcher = fastgc.torch.watch(net, loss, budget=0.1, clock=lambda: now)
    for _ in range(100):
        watcher()
        now += 0.01
    # so many steps last as long as the eight evaluations of the first look
    assert min(calls) == 80


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"held": 1}, TypeError, r"held is 1"),
        ({"method": "nod"}, ValueError, r'method is "nod"'),
        ({"budget": 2}, ValueError, r"budget is 2"),
        ({"loss": 3}, TypeError, r"loss is a int"),
        ({"module": 3}, TypeError, r"module is a int"),
    ],
)
def test_bad_options_are_refused_at_once(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    given = {"module": nn.Linear(1, 1), "loss": nn.MSELoss(), **options}
    with pytest.raises(kind, match=message):
        fastgc.torch.watch(**given)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (1,),
            r"1 argument\b",
        ),
        ((1, 2, 3), "3 arguments"),
        ((), "MSELoss"),
    ],
)
def test_bad_steps_are_refused_at_the_first(batch: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        watch(nn.Linear(1, 1))(*batch)


@pytest.mark.parametrize("held", [False, True])
def test_a_backward_pass_that_ignores_its_upstream_gradient(held: bool) -> None:
    class Mse(torch.autograd.Function):  # type: ignore[name-defined, misc]  # torch is imported late
        @staticmethod
        def forward(ctx: Any, out: Any, y: Any) -> Any:
            ctx.save_for_backward(out, y)
            return ((out - y) ** 2).mean()

        @staticmethod
        def backward(ctx: Any, _: Any) -> Any:
            out, y = ctx.saved_tensors
            return 2 * (out - y) / out.numel(), None

    net, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8, 1)
    Mse.apply(net(x), y).backward()
    watcher = fastgc.torch.watch(net, Mse.apply, every=1, budget=1.0, credit=60.0, held=held)
    with pytest.raises(fastgc.GradientMismatch, match="ignores its upstream gradient"):
        watcher(x, y)
