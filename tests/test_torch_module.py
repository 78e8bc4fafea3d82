"""fastgc.torch: right modules pass, planted bugs are named, and nothing of the caller's changes."""

# ruff: noqa: E402  what is imported below needs torch

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import torch.nn.functional as F  # noqa: N812  as everyone calls it
from torch import nn

import fastgc
import fastgc.torch.module
from fastgc.torch import assert_module, check_module
from tests.shown import says
from tests.torch_cases import (
    BUGS,
    CASES,
    EVERY,
    Case,
    Through,
    activation,
    closure,
    convolutional,
    counted,
    custom_loss,
    hooked_by,
    ignored,
    ignored_in_part,
    mlp,
    normalised,
    real,
    shaken,
    through,
    x32,
)  # fmt: skip


def made(case: Case, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    module, loss = case.make()
    for p in module.parameters():
        if p.requires_grad:
            p.grad = torch.randn_like(p)
    return module, loss


def bits(tensor: Any) -> Any:
    if tensor is None:
        return None
    if tensor.layout != torch.strided:
        return id(tensor), tensor.dtype, bits(tensor.detach().to_dense())[2:]
    values = tensor.detach().contiguous()
    if values.is_complex():
        values = torch.view_as_real(values)
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return id(tensor), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), raw


def snapshot(module: nn.Module) -> list[Any]:
    """All that a check has to leave alone."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    return [
        [(name, bits(t), bits(t.grad), t.requires_grad) for name, t in named],
        [
            (name, m.training, {k: id(v) for k, v in vars(m).items()}, list(m._forward_hooks))
            for name, m in module.named_modules()
        ],
        [list((p._backward_hooks or {}).items()) for p in module.parameters()],
        bits(torch.get_rng_state())[2:], random.getstate(),
        [np.asarray(part).tolist() for part in np.random.get_state()],
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
        torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.mha.get_fastpath_enabled(), torch.are_deterministic_algorithms_enabled(),
    ]  # fmt: skip


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    before = snapshot(module)
    try:
        yield
    finally:
        after = snapshot(module)
        assert after == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_right_modules_pass(case: Case) -> None:
    module, loss = made(case)
    names = [
        name for name, p in module.named_parameters()
        if p.requires_grad and name not in case.absent
    ]  # fmt: skip
    with unchanged(module):
        report = check_module(module, loss)
    assert report.verdict == "correct", report
    assert list(report.tensors) == names
    assert report.method == case.method
    for name, tensor in report.tensors.items():
        assert tensor.worst.name == f"{name}[{', '.join(map(str, tensor.worst.index))}]".replace(
            "[]", ""
        )
        assert tensor.shape == dict(module.named_parameters())[name].shape
        assert tensor.arrays is not None
        assert tensor.arrays.analytic.shape == tensor.shape


@pytest.mark.parametrize("case", BUGS, ids=lambda case: case.name)
def test_planted_bugs_are_named(case: Case) -> None:
    module, loss = made(case)
    with unchanged(module):
        report = check_module(module, loss)
    assert report.method == case.method
    wrong = tuple(name for name, tensor in report.tensors.items() if tensor.verdict == "wrong")
    assert wrong == case.wrong
    assert fastgc.Report.from_dict(report.to_dict()) == report
    assert not any(symbol in str(report) for symbol in ("W1", "b1", "dZ", "W2", "b2"))


def test_texts_speak_of_the_module() -> None:
    module, loss = made(BUGS[0])
    report = check_module(module, loss)
    lines = str(report).splitlines()
    assert lines[0].startswith("wrong: 0.weight (15 of 15 entries) ")
    assert says(lines[1], "0.bias … the output of layer 0 … the gradient of 0.weight")
    assert says(lines[2], "  0.weight: 3.000 ×")
    assert report.tensors["2.bias"].worst.name in ("2.bias[0]", "2.bias[1]")
    assert report.against is not None


def test_one_linear_module_has_plain_names() -> None:
    net = nn.Linear(3, 2)

    def hook(grad: Any) -> Any:
        return -grad

    net.bias.register_hook(hook)
    report = check_module(net, (F.mse_loss, x32(6, 3), real()), method="node")
    assert [name for name, t in report.tensors.items() if not t.ok] == ["bias"]
    assert says(report.origin, "weight … the output of the module … the gradient of bias")


def test_an_entry_of_a_bias_has_one_index() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    gradients = autograd(net, loss)
    gradients["0.bias"][0] += 1.0
    gradients["0.weight"][2, 1] += 1.0
    report = check_module(net, loss, gradients=gradients)
    assert says(report.tensors["0.bias"].diagnosis, "one entry … 0.bias[0]")
    assert says(report.tensors["0.weight"].diagnosis, "one entry … 0.weight[2, 1]")
    assert report.worst(2)[0].name in ("0.bias[0]", "0.weight[2, 1]")


def test_weight_decay_is_named_as_an_optimizer_counts_it() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    weight = net[0].weight  # type: ignore[index]  # of a Sequential
    gradients = autograd(net, loss)
    gradients["0.weight"] = gradients["0.weight"] + 0.25 * weight.detach().double()
    diagnosis = check_module(net, loss, gradients=gradients).tensors["0.weight"].diagnosis
    assert diagnosis is not None
    assert diagnosis.value == pytest.approx(0.25)
    assert says(diagnosis, "+ 0.25 × the parameters")


def autograd(module: nn.Module, loss: Any, dtype: Any = torch.float64) -> dict[str, Any]:
    """The gradients that PyTorch leaves in a copy of this dtype."""
    import copy

    loss_fn, x, y = loss
    twin = copy.deepcopy(module).to(dtype)
    loss_fn(twin(x.to(dtype)), y.to(dtype) if y.is_floating_point() else y).backward()
    return {name: p.grad for name, p in twin.named_parameters()}


@pytest.mark.parametrize("method", ["loop", "stacked", "incremental", "node", "random"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_methods_agree_on_every_scale(method: str, reduction: Any) -> None:
    torch.manual_seed(1)
    for loss_fn, targets in [
        (nn.MSELoss(reduction=reduction), real),
        (nn.BCEWithLogitsLoss(reduction=reduction), lambda: torch.rand(6, 2)),
        (nn.CrossEntropyLoss(reduction=reduction), lambda: torch.randint(0, 2, (6,))),
    ]:
        net, loss = mlp(loss_fn, targets)
        report = check_module(net, loss, method=method)
        assert (report.method, report.verdict) == (method, "correct")
        assert report.cost == pytest.approx(
            float(loss_fn(net(loss[1]), loss[2]).detach()), rel=1e-6
        )
        gradients = autograd(net, loss)
        if report.estimate is None:
            for name, tensor in report.tensors.items():
                assert tensor.arrays is not None
                found = tensor.arrays.numerical
                np.testing.assert_allclose(found, gradients[name].numpy(), rtol=1e-5, atol=1e-8)


def test_a_method_that_cannot_be_is_refused() -> None:
    net, loss = convolutional()
    with (
        unchanged(net),
        pytest.raises(
            ValueError,
            match=r'"node" .*Conv2d',
        ),
    ):
        check_module(net, loss, method="node")
    net, value = closure()
    with pytest.raises(ValueError, match="its loss is a closure; pass"):
        check_module(net, value, method="incremental")
    net, loss = made(next(case for case in CASES if case.name == "branching"))
    with (
        unchanged(net),
        pytest.raises(
            ValueError,
            match=r'"stacked" .*torch.func.vmap raises Runti',
        ),
    ):
        check_module(net, loss, method="stacked")
    with pytest.raises(ValueError, match='method is "fast"'):
        check_module(net, loss, method="fast")
    with pytest.raises(TypeError, match="method is 3"):
        check_module(net, loss, method=3)  # type: ignore[arg-type]  # the mistake under test


def test_a_network_that_is_none_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `recognise` overlooks costs the speed of a Network, and nothing else."""
    from fastgc.torch import network

    monkeypatch.setitem(network.ACTIVATIONS, nn.ELU, lambda _: "relu")
    net, loss = activation(nn.ELU())
    assert check_module(net, loss).method == "stacked"
    with (
        unchanged(net),
        pytest.raises(ValueError, match="as a Network"),
    ):
        check_module(net, loss, method="node")


def large() -> tuple[nn.Sequential, Any]:
    """A module of more entries than are looked at one by one, unless that is asked for."""
    net = nn.Sequential(nn.Linear(300, 200), nn.ELU(), nn.Linear(200, 1))
    return net, (F.mse_loss, x32(2, 300), x32(2, 1))


@pytest.mark.parametrize("frozen", [False, True])
def test_many_entries_are_looked_at_along_directions(frozen: bool) -> None:
    net, loss = large()
    net[0].requires_grad_(not frozen)
    report = check_module(net, loss)
    assert (report.verdict, report.method) == ("correct", "stacked" if frozen else "random")
    assert check_module(net, loss, sample=2).method == "stacked"
    assert check_module(net, loss, only=["2.*"]).method == "stacked"
    assert check_module(net, loss, method="loop", only=["2.bias"]).method == "loop"


def test_a_wrong_entry_of_many_is_located() -> None:
    net, loss = large()

    def hook(grad: Any) -> Any:
        wrong = grad.clone()
        wrong[3, 7] += 1.0
        return wrong

    net[0].weight.register_hook(hook)  # type: ignore[operator]  # of a Sequential
    report = check_module(net, loss)
    assert report.method == "random"
    assert [entry.name for entry in report.tensors["0.weight"].located] == ["0.weight[3, 7]"]


def test_subset() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    report = check_module(net, loss, only=["*.bias"])
    assert list(report.tensors) == ["0.bias", "2.bias"]
    assert report.scope == "not looked at: 0.weight, 2.weight"
    report = check_module(net, loss, sample=3)
    assert report.scope is not None
    assert report.scope.startswith("3 entries of each ")
    arrays = report.tensors["0.weight"].arrays
    assert arrays is not None
    assert arrays.analytic.shape == (3,)
    with pytest.raises(ValueError, match=r'only .*"W1".* 0.weight, 0.bias'):
        check_module(net, loss, only=["W1"])
    net[0].weight.requires_grad_(False)  # type: ignore[index]  # of a Sequential
    assert check_module(net, loss).scope is None
    assert check_module(net, loss, only=["2.*"]).scope == "not looked at: 0.bias"


def test_the_picture_has_the_names() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    module, loss = made(BUGS[0])
    figure = check_module(module, loss).plot()
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]  # type: ignore[attr-defined]  # of texts
    assert any("0.weight" in text for text in texts)
    assert not any("W1" in text for text in texts)


# what autograd leaves, or the caller has


def test_gradients_of_the_float32_module() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    gradients = autograd(net, loss, torch.float32)
    with unchanged(net):
        report = check_module(net, loss, gradients=gradients)
    assert report.verdict == "correct"
    assert {t.tolerance for t in report.tensors.values()} == {1e-4}
    gradients["2.bias"] = 1.01 * gradients["2.bias"]
    report = check_module(net, loss, gradients=gradients)
    assert [name for name, t in report.tensors.items() if not t.ok] == ["2.bias"]
    net, loss = convolutional(nn.BatchNorm2d(2))
    gradients = autograd(net, loss, torch.float32)
    assert check_module(net, loss, gradients=gradients).ok


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: list(g.values()), TypeError, "gradients is a list"),
        (lambda g: {**g, "w": g["0.bias"]}, ValueError, "the key 'w'"),
        (lambda g: {"0.bias": g["0.bias"]}, ValueError, '"0.weight"'),
        (lambda g: {**g, "0.bias": g["2.bias"]}, ValueError,
         r'gradients\["0.bias"\] .*\(2,\).* 0.bias .*\(5,\)'),
        (lambda g: {**g, "0.bias": g["0.bias"].bfloat16()}, TypeError, "bfloat16"),
    ],
)  # fmt: skip
def test_gradients_that_are_none(change: Any, error: type[Exception], message: str) -> None:
    net, loss = mlp(nn.MSELoss(), real)
    with pytest.raises(error, match=message):
        check_module(net, loss, gradients=change(autograd(net, loss)))


def test_no_gradient_at_all_is_said() -> None:
    net, loss = through(lambda x: x.tanh().detach())
    report = check_module(net, loss)
    diagnosis = report.tensors["a.weight"].diagnosis
    assert diagnosis is not None
    assert diagnosis.kind == "none"
    assert "no gradient" in str(report)
    assert report.tensors["b.weight"].diagnosis is None


def test_a_tied_tensor_has_the_sum() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    loss = (F.mse_loss, x32(6, 3), x32(6, 3))
    report = check_module(net, loss)
    assert list(report.tensors) == ["0.weight", "0.bias", "2.bias"]
    assert (report.verdict, report.method) == ("correct", "stacked")


def test_a_bias_below_a_normalisation() -> None:
    net, loss = normalised(train=True)
    report = check_module(net, loss)
    assert "the loss does not depend on 0.bias" in str(report.scope)

    def hook(grad: Any) -> Any:
        return grad + 1e-3

    dict(net.named_parameters())["0.bias"].register_hook(hook)
    assert check_module(net, loss).tensors["0.bias"].verdict == "wrong"


def test_a_loss_of_another_module_is_told() -> None:
    net, other, x = nn.Linear(3, 1), nn.Linear(3, 1), x32(4, 3)
    report = check_module(net, lambda: other(x).square().mean())
    assert report.ok
    assert says(report.scope, "the loss uses none of these parameters")
    both = nn.ModuleList([net, other])
    assert check_module(both, lambda: other(x).square().mean()).scope is None


def test_corners_raise_no_alarm() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.MaxPool1d(1), nn.Linear(3, 1))
    for p in net.parameters():
        nn.init.constant_(p, 0.0)
    nn.init.constant_(net[3].weight, 1.0)  # type: ignore[arg-type]  # of a Linear
    assert check_module(net, (F.mse_loss, x32(4, 2), x32(4, 1))).verdict != "wrong"


# what further backward passes show


@pytest.mark.parametrize("form", ["loss_fn", "closure", "lbfgs"])
@pytest.mark.parametrize(
    ("of_upstream", "kind", "value"),
    [
        (ignored, "upstream", 1.0),
        (torch.sign, "upstream", 1.0),
        (torch.square, "upstream", 4.0),
        (lambda g: (g + 1) / 2, "upstream", 1.5),
        (lambda g: 3 * ignored(g), "upstream", 1.0),  # wrong in its numbers as well
        (functools.partial(shaken, by=1e-2), "irreproducible", None),
        (functools.partial(shaken, by=1e-10), "irreproducible", None),
        (counted(), "irreproducible", None),
    ],
)
def test_what_is_wrong_with_a_backward_pass(
    form: str, of_upstream: Any, kind: str, value: float | None
) -> None:
    net, loss = custom_loss(of_upstream, form)
    with unchanged(net):
        report = check_module(net, loss)
    assert report.verdict == "wrong"
    assert report.origin is None
    for tensor in report.tensors.values():
        assert tensor.verdict == "wrong"
        assert tensor.diagnosis is not None
        assert tensor.diagnosis.kind == kind
        assert value is None or tensor.diagnosis.value == pytest.approx(value)
    assert ("ignores" in str(report)) is (value == 1.0)
    assert ("not reproducible" in str(report)) is (kind == "irreproducible")


def test_how_far_noise_goes_is_told() -> None:
    net, loss = custom_loss(functools.partial(shaken, by=1e-3))
    diagnosis = check_module(net, loss).tensors["2.bias"].diagnosis
    assert diagnosis is not None
    assert diagnosis.value is not None
    assert 1e-5 < diagnosis.value < 1e-2


def test_numbers_that_agree_are_not_said_to_disagree() -> None:
    net, loss = custom_loss(ignored)
    report = check_module(net, loss)
    assert {tensor.counts["disagree"] for tensor in report.tensors.values()} == {0}
    assert "none of 26 entries disagrees" in str(report).splitlines()[0]
    net, loss = custom_loss(ignored)
    net[0].bias.register_hook(lambda g: 2 * g)  # type: ignore[index]  # of a Sequential
    report = check_module(net, loss)
    assert str(report).startswith("wrong: 0.bias (4 of 26 entries)")
    assert "2.000 ×" in str(report.tensors["0.bias"].diagnosis)
    assert "2.000 ×" not in str(report.tensors["0.weight"].diagnosis)


@pytest.mark.parametrize("method", ["loop", "random"])
def test_any_method_tells_of_the_backward_pass(method: str) -> None:
    report = check_module(*custom_loss(ignored), method=method)
    assert tuple(name for name, t in report.tensors.items() if t.verdict == "wrong") == EVERY
    assert fastgc.Report.from_dict(report.to_dict()) == report
    report = check_module(*hooked_by(torch.sign), method="node")
    assert [name for name, t in report.tensors.items() if not t.ok] == ["0.weight"]
    report = check_module(*ignored_in_part(), only=["b.*", "a.bias"], method=method)
    assert report.ok


def test_gradients_of_such_a_backward_pass_are_wrong() -> None:
    net, loss = custom_loss(ignored)
    loss_fn, x, y = loss
    loss_fn(net(x), y).backward()
    report = check_module(net, loss, gradients={n: p.grad for n, p in net.named_parameters()})
    assert {t.diagnosis.kind for t in report.tensors.values() if t.diagnosis} == {"upstream"}


@pytest.mark.parametrize("form", ["loss_fn", "hook"])
def test_a_limit_that_is_not_reached_is_no_mistake(form: str) -> None:
    """Clipped at just above what the gradient is: right, and told."""
    if form == "loss_fn":
        net, loss = custom_loss(lambda g: g.clamp(max=1.5))
    else:
        limit: list[Any] = []

        def clip(grad: Any) -> Any:
            limit.append(1.5 * float(grad.abs().max()))
            return grad.clamp(-limit[0], limit[0])

        net, loss = hooked_by(clip)
    report = check_module(net, loss)
    assert report.verdict == "correct"
    assert report.scope is not None
    assert "does the backward pass clip?" in report.scope


def test_how_many_passes_it_takes() -> None:
    def passes(of_upstream: Any) -> int:
        calls: list[int] = []

        def counting(g: Any) -> Any:
            calls.append(1)
            return of_upstream(g)

        check_module(*custom_loss(counting))
        return len(calls)

    assert passes(lambda g: g) == 2
    assert passes(ignored) == 4
    assert passes(shaken) == 3


def test_what_the_way_back_draws_moves_no_generator() -> None:
    net, loss = custom_loss(shaken)
    with unchanged(net):
        check_module(net, loss)
    assert not assert_module(*custom_loss(lambda g: g)).tensors["0.weight"].diagnosis


# what goes wrong on the way


class Stop(Exception):  # noqa: N818  named as what it is
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 2, 20])
@pytest.mark.parametrize("form", ["closure", "copy", "module itself"])
def test_exceptions_pass_and_leave_all_as_it_was(
    error: type[BaseException], after: int, form: str
) -> None:
    calls = []

    def between(x: Any) -> Any:
        calls.append(x.dtype)
        if len(calls) > after:
            raise error("no more")
        np.random.mtrand._rand.standard_normal()
        return F.dropout(x.relu() if x.sum().item() > 0 else x)

    net, x = nn.Sequential(Through(between), nn.BatchNorm1d(2)), x32(6, 3)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    loss: Any = (F.mse_loss, x, real())
    if form == "closure":
        loss = lambda: net(x).square().sum()  # noqa: E731  in a table of losses
    if form == "module itself":
        net[0].lock = __import__("threading").Lock()
    with unchanged(net), pytest.raises(error, match="no more"):
        check_module(net, loss)
    assert set(calls) == {torch.float64}


def test_where_it_was_raised_is_noted() -> None:
    calls = []

    def between(x: Any) -> Any:
        calls.append(x)
        if len(calls) > 40:
            raise Stop
        return x.exp() if x.sum().item() > 0 else x.square()

    net, loss = through(between)
    with pytest.raises(Stop) as caught:
        check_module(net, loss)
    assert "fastgc: the cost raised this at " in "".join(caught.value.__notes__)


def complex_module() -> Any:
    net = nn.Module()
    net.w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    return net


NET = nn.Linear(3, 2)
BAD: list[tuple[Any, Any, type[Exception], str]] = [
    (3, lambda: 0, TypeError, "module is a int"),
    (NET, 3, TypeError, "loss is a int"),
    (NET, nn.MSELoss(), TypeError, r"loss is a MSELoss alone"),
    (NET, (F.mse_loss, x32(6, 3)), TypeError, "loss is a tuple of 2"),
    (NET, (x32(1), x32(6, 3), real()), TypeError, r"loss\[0\] is a Tensor"),
    (NET, lambda: None, TypeError, "the loss is None"),
    (NET, lambda: 1.0, TypeError, "the loss is a float"),
    (NET, lambda: NET(x32(6, 3)), ValueError, r"the loss .*\(6, 2\)"),
    (NET, lambda: torch.tensor(1), TypeError, "the loss .*int64"),
    (NET, lambda: NET.weight.sum() * 1j, TypeError, "the loss .*complex128"),
    (NET, lambda: NET.weight.sum() * np.nan, ValueError, "the cost is nan"),
    (nn.LazyLinear(2), lambda: 0, ValueError, "weight .*lazy"),
    (nn.Linear(3, 2, device="meta"), lambda: 0, ValueError, 'weight .*"meta"'),
    (nn.ReLU(), lambda: 0, ValueError, "requires_grad=True"),
    (complex_module(), lambda: 0, TypeError, "w .*complex64"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(("module", "loss", "error", "message"), BAD)
def test_what_cannot_be_checked(
    module: Any, loss: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_module(module, loss)


def test_numbers_that_are_not_finite_are_named() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    with torch.no_grad():
        net[0].weight[1, 2] = torch.nan  # type: ignore[index]  # of a Sequential
    with pytest.raises(ValueError, match=r"0.weight\[1, 2\] is nan"):
        check_module(net, loss)


def test_a_step_in_the_loss_is_refused() -> None:
    net, x = nn.Linear(3, 2), x32(6, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def loss() -> Any:
        optimizer.zero_grad()
        value = net(x).square().mean()
        value.backward()
        optimizer.step()
        return value

    with (
        unchanged(net),
        pytest.raises(ValueError, match=r"the parameter weight .* step"),
    ):
        check_module(net, loss)


def test_a_loss_that_keeps_state_is_refused() -> None:
    net, x, count = nn.Linear(3, 2), x32(6, 3), [0]

    def loss() -> Any:
        count[0] += 1
        return net(x).square().mean() * count[0]

    with unchanged(net), pytest.raises(ValueError, match="keeps state"):
        check_module(net, loss)


def test_assert_module() -> None:
    net, loss = mlp(nn.MSELoss(), real)
    assert assert_module(net, loss, only=["0.*"]).ok
    module, loss = made(BUGS[0])
    with pytest.raises(fastgc.GradientMismatch, match=r"^wrong: 0\.weight") as caught:
        assert_module(module, loss)
    assert caught.value.report.tensors["0.weight"].verdict == "wrong"


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_mode_it_is_called_in(around: Any) -> None:
    net, loss = activation(nn.ELU())
    net2, loss2 = closure()
    with around():
        assert check_module(net, loss).ok
        assert check_module(net2, loss2).ok


def test_inputs_are_left_alone() -> None:
    """As they are: a loss may write to them, or leave gradients in them."""
    x = x32(6, 3).requires_grad_()
    y = x32(6, 3)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    before = bits(x), bits(y)
    check_module(net, (lambda out, t: (t.mul_(1.5) * out).sum(), x, y))
    check_module(net, lambda: net(x).square().sum())
    assert (bits(x), bits(y)) == before
    assert x.grad is None


def test_a_check_does_not_break_a_graph_that_waits() -> None:
    """A backward pass may still follow a check, as in the middle of a training step."""
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), x32(6, 3)
    loss = net(x).square().mean()
    versions = [p._version for p in net.parameters()]
    wanted = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    check_module(net, lambda: net(x).square().mean())
    assert [p._version for p in net.parameters()] == versions
    loss.backward()
    for p, grad in zip(net.parameters(), wanted, strict=True):
        assert torch.equal(p.grad, grad)


@pytest.mark.parametrize(
    "narrowed",
    [
        lambda x: x.float(),
        lambda x: x.to(torch.float32),
        lambda x: x.to(dtype=torch.bfloat16),
        lambda x: torch.zeros_like(x, dtype=torch.float16) + x.half(),
        lambda x: torch.cat([x[:, :1], x[:, 1:].type(torch.float32)], 1),
    ],
)
def test_float32_is_not_in_the_way_of_precision(narrowed: Any) -> None:
    """Explicit casts on the way are to float64 as well: the noise of the loss is that of double."""
    net, loss = through(lambda x: narrowed(x).tanh())
    report = check_module(net, loss)
    assert report.noise < 1e-14
    assert report.ok


def test_a_tensor_that_a_closure_writes_to_is_put_back() -> None:
    net, x, log = nn.Linear(3, 2), x32(6, 3), torch.zeros(())

    def loss() -> Any:
        value = net(x).square().mean()
        log.add_(value.detach())
        return value

    assert check_module(net, loss).ok
    assert log == 0
    assert log.dtype == torch.float32


def test_a_loss_that_runs_the_module_again() -> None:
    net, x, y = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()), x32(6, 3), x32(6, 4)
    loss = (lambda out, y: F.mse_loss(out, y) + net(x).exp().mean(), x32(6, 3), y)
    with unchanged(net):
        report = check_module(net, loss)
    assert report.ok


@pytest.mark.parametrize("form", ["closure", "loss_fn", "method", "partial", "global"])
def test_other_modules_of_a_loss_are_left_alone(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a generator, or a network that a loss compares features with."""
    net, other, x = nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)), x32(6, 3)
    other[1].weight.grad = torch.ones(1, 4)
    monkeypatch.setitem(globals(), "OTHER", other)

    def over(critic: Any) -> Any:
        return critic(net(x).tanh()).square().mean()

    class Trainer:
        def __init__(self) -> None:
            self.other = other

        def loss(self) -> Any:
            return over(self.other)

    loss: Any = {
        "closure": lambda: over(other),
        "loss_fn": (lambda out, _: other(out.tanh()).square().mean(), x, None),
        "method": Trainer().loss,
        "partial": functools.partial(over, other),
        "global": lambda: over(OTHER),  # type: ignore[name-defined]  # noqa: F821  it is put there for the test
    }[form]
    with unchanged(net), unchanged(other):
        report = check_module(net, loss)
    assert report.ok
    assert report.noise < 1e-14
    with unchanged(other), pytest.raises(ZeroDivisionError):
        check_module(net, lambda: over(other) / (1 // 0))


def test_an_embedding_that_is_renormalised_is_refused() -> None:
    net = nn.Sequential(nn.Embedding(5, 3, max_norm=0.1), nn.Linear(3, 2))
    loss = (F.mse_loss, torch.tensor([0, 1, 1]), x32(3, 2))
    with (
        unchanged(net),
        pytest.raises(ValueError, match=r"the parameter 0\.weight .*max_norm"),
    ):
        check_module(net, loss)


def test_what_warns_under_vmap_alone_is_not_stacked() -> None:
    net, loss = activation(nn.PReLU(4))
    with pytest.raises(ValueError, match=r'"stacked" .*torch.func.vmap warns: An o'):
        check_module(net, loss, method="stacked")


def test_steps_that_the_backward_pass_takes_are_left_out() -> None:
    net, x = nn.Linear(3, 2), x32(6, 3)
    stepped: list[Any] = []
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(stepped.append)
    assert check_module(net, (F.mse_loss, x, real())).ok
    assert check_module(net, lambda: net(x).exp().mean()).ok
    assert not stepped
    net(x).exp().mean().backward()
    assert len(stepped) == 2


def test_flags_are_put_back() -> None:
    net, x = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), x32(6, 3)

    def loss() -> Any:
        net.train(not net.training)
        net[0].requires_grad_(False)
        return net(x).exp().mean()

    with unchanged(net):
        report = check_module(net, loss)
    assert [name for name, t in report.tensors.items() if not t.ok] == ["0.weight", "0.bias"]


def test_threads_are_put_back() -> None:
    running = torch.get_num_threads()
    seen = []

    def between(x: Any) -> Any:
        seen.append(torch.get_num_threads())
        return x.tanh()

    net, loss = through(between)
    check_module(net, loss, threads=1)
    assert set(seen) == {1}
    assert torch.get_num_threads() == running


def test_a_checkpoint_is_gone_on_from(tmp_path: Any) -> None:
    net, loss = convolutional()
    path = tmp_path / "run.npz"
    first = check_module(net, loss, checkpoint=path)
    again = check_module(net, loss, checkpoint=path)
    assert first.tensors == again.tensors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_on_a_gpu(case: Case) -> None:
    module, loss = made(case)
    if not isinstance(loss, tuple):
        pytest.skip("no case for a GPU: its data are on the CPU")

    def on_gpu(value: Any) -> Any:
        return value.cuda() if isinstance(value, torch.Tensor | nn.Module) else value

    loss_fn, inputs, targets = loss
    inputs = {k: on_gpu(v) for k, v in inputs.items()} if isinstance(inputs, dict) else inputs
    if type(inputs) is tuple:
        inputs = tuple(map(on_gpu, inputs))
    report = check_module(on_gpu(module), (on_gpu(loss_fn), on_gpu(inputs), on_gpu(targets)))
    assert report.verdict == "correct"
    assert all(p.device.type == "cuda" for p in module.parameters())
