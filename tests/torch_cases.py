"""Modules with their losses: right ones, and ones with a planted bug."""

import itertools
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everyone calls it
from torch import nn
from torch.utils.checkpoint import checkpoint

Made = tuple[nn.Module, Any]


@dataclass(frozen=True)
class Case:
    """A module with its loss.

    Attributes:
        name: of the case.
        make: the module and the loss, from a generator that is seeded.
        method: that ``auto`` takes.
        wrong: the tensors whose gradients are wrong.
        absent: parameters that are not reported.
    """

    name: str
    make: Callable[[], Made]
    method: str
    wrong: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * grads[0]


class WrongSquare(Square):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return x * grads[0]


class Mse(torch.autograd.Function):
    """A loss of one's own. What its backward pass makes of its upstream gradient is passed along."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, y: torch.Tensor, of_upstream: Any) -> torch.Tensor:
        ctx.save_for_backward(out, y)
        ctx.of_upstream = of_upstream
        return ((out - y) ** 2).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        out, y = ctx.saved_tensors
        return ctx.of_upstream(grads[0]) * 2 * (out - y) / out.numel(), None, None


class Once(torch.autograd.Function):
    """Right, of a loss that is gone back through once: it writes to what it has kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.slope = x.cos()
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.slope.mul_(grads[0])


class Through(nn.Module):
    """Linear layers a and b with something between."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], n: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, n), nn.Linear(n, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.between(self.a(x)))
        return out


def x32(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def sequential(*layers: nn.Module, loss_fn: Any, targets: Any, n: int = 3, m: int = 6) -> Made:
    return nn.Sequential(*layers), (loss_fn, x32(m, n), targets)


def through(between: Callable[[torch.Tensor], torch.Tensor]) -> Made:
    return Through(between), (F.mse_loss, x32(6, 3), x32(6, 2))


def mlp(loss_fn: Any, make_targets: Callable[[], torch.Tensor], outputs: int = 2) -> Made:
    return sequential(
        nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, outputs), loss_fn=loss_fn, targets=make_targets()
    )


def labels() -> torch.Tensor:
    return torch.rand(6, 2)


def classes() -> torch.Tensor:
    return torch.randint(0, 2, (6,))


def real() -> torch.Tensor:
    return x32(6, 2)


def activation(layer: nn.Module) -> Made:
    return sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2), loss_fn=nn.MSELoss(), targets=real())


def with_frozen() -> Made:
    net, loss = mlp(nn.MSELoss(), real)
    net[0].weight.requires_grad_(False)  # type: ignore[index]  # of a Sequential
    return net, loss


def convolutional(*extra: nn.Module) -> Made:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), *extra, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    return net, (nn.CrossEntropyLoss(), x32(4, 1, 6, 6), torch.randint(0, 3, (4,)))


def normalised(*, train: bool) -> Made:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).train(train)
    return net, (nn.MSELoss(), x32(6, 3), x32(6, 2))


def any_layer(layer: nn.Module, *shape: int) -> Made:
    return layer, (lambda out, _: (out.sin() * out).mean(), x32(*shape), None)


def embedding(*, sparse: bool) -> Made:
    net = nn.Sequential(nn.Embedding(7, 3, sparse=sparse), nn.Flatten(), nn.Linear(6, 2))
    return net, (F.mse_loss, torch.tensor([[0, 3], [3, 3], [1, 6]]), x32(3, 2))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attend(q, q, q, key_padding_mask=mask)[0]
        return out


def attention() -> Made:
    mask = torch.tensor([[False, False, True], [False, False, False]])
    return Attention(), (F.mse_loss, {"q": x32(2, 3, 4), "mask": mask}, x32(2, 3, 4))


def encoder(*, train: bool) -> Made:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True).train(train)
    return layer, (F.mse_loss, x32(2, 3, 4), x32(2, 3, 4))


def recurrent(kind: Callable[..., nn.Module]) -> Made:
    return kind(2, 3, batch_first=True), (
        lambda out, y: F.mse_loss(out[0], y), x32(2, 4, 2), x32(2, 4, 3),
    )  # fmt: skip


def packed() -> Made:
    sequence = nn.utils.rnn.pack_padded_sequence(x32(2, 4, 2), [4, 2], batch_first=True)
    return nn.GRU(2, 3, batch_first=True), (lambda out, _: (out[0].data ** 2).sum(), sequence, None)


class Tied(nn.Module):
    def __init__(self, *, storage: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        if storage:
            self.b.weight.data = self.a.weight.data
        else:
            self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(torch.tanh(self.a(x)))
        return out


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ws = nn.ParameterList([torch.randn(3), torch.randn(())])
        self.none = nn.Parameter(torch.empty(0, 3))
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (x @ self.ws[0]) * self.ws[1].exp()
        return out


class Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8))
        self.register_buffer("filter", torch.fft.rfft(torch.randn(8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.fft.irfft(torch.fft.rfft(x * self.w) * self.filter)
        return out


class Stateful(nn.Module):
    """Counts its calls, keeps what it computed, and holds tensors that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.calls = 0
        self.last: torch.Tensor | None = None
        self.scales = [torch.ones(3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out: torch.Tensor = self.linear(x @ torch.diag(self.scales[0]))
        if self.last is not None:
            out = out + self.last
        self.last = out.detach()
        return out


class Uncopyable(Through):
    def __init__(self) -> None:
        super().__init__(torch.tanh)
        self.lock = threading.Lock()


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        found: torch.Tensor = out.exp() if out.sum().item() > 0 else out**2
        return found


def noisy(x: torch.Tensor) -> torch.Tensor:
    rng = np.random.mtrand._rand  # NumPy's global generator
    return torch.tanh(x) * torch.from_numpy(rng.standard_normal(4))


def physics() -> Made:
    """A loss that differentiates with respect to the inputs."""
    net, x = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), torch.rand(5, 1)

    def loss() -> torch.Tensor:
        points = x.clone().requires_grad_()
        u = net(points)
        (slope,) = torch.autograd.grad(u.sum(), points, create_graph=True)
        found: torch.Tensor = ((slope - u) ** 2).mean()
        return found

    return net, loss


def closure() -> Made:
    net, x, y = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x32(6, 3), x32(6, 2)
    return net, lambda: F.mse_loss(net(x), y)


def lbfgs(*, careful: bool = False, number: bool = False) -> Made:
    net, x, y = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x32(6, 3), x32(6, 2)
    optimizer = torch.optim.LBFGS(net.parameters())

    def loss() -> Any:
        if not careful or torch.is_grad_enabled():
            optimizer.zero_grad()
        value = F.mse_loss(net(x), y)
        if not careful or value.requires_grad:
            value.backward()
        return value.item() if number else value

    return net, loss


def direct() -> Made:
    """A closure that uses the parameters by themselves."""
    net, x = nn.Linear(3, 2), x32(6, 3)
    return net, lambda: F.linear(x, net.weight).pow(2).sum() + net.bias.exp().sum()


def penalised() -> Made:
    """A loss_fn that refers to the module itself."""
    first = nn.Linear(3, 4)
    net = nn.Sequential(first, nn.ELU(), nn.Linear(4, 2))
    return net, (
        lambda out, y: F.mse_loss(out, y) + 0.1 * first.weight.square().sum(),
        x32(6, 3), x32(6, 2),
    )  # fmt: skip


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.scale * (out - y).pow(2).mean()


def two_inputs() -> Made:
    net = nn.Bilinear(2, 3, 2)
    return net, (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), (x32(4, 2), x32(4, 3)),
                 torch.tensor([0, 1, 1, 0]))  # fmt: skip


def old_weight_norm() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.utils.weight_norm(nn.Linear(3, 2))
    return net, (F.mse_loss, x32(6, 3), x32(6, 2))


def narrow(dtype: torch.dtype) -> Made:
    net, (loss_fn, x, y) = mlp(nn.MSELoss(), real)
    return net.to(dtype), (loss_fn, x.to(dtype), y.to(dtype))


def inplace() -> Made:
    """A ReLU that overwrites the inputs."""
    return sequential(nn.ReLU(inplace=True), nn.Linear(3, 2), loss_fn=F.mse_loss, targets=x32(6, 2))


def casting(x: torch.Tensor) -> torch.Tensor:
    ones = torch.ones(4, dtype=torch.float32)
    return torch.tanh(x.float() @ torch.diag(ones))


def recomputed() -> Made:
    net, x = nn.Linear(3, 2), x32(6, 3)
    return net, lambda: checkpointed(net, x)


def checkpointed(net: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone().requires_grad_()
    return checkpoint(net, y, use_reentrant=True).pow(2).mean()


def scripted(*, form: str) -> Made:
    """A module that runs outside of Python."""
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x32(6, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script: Any = torch.jit.script
        trace: Any = torch.jit.trace
        twin = trace(net, x) if form == "traced" else script(net)
    return twin, (lambda: twin(x).exp().mean()) if form == "closure" else (F.mse_loss, x, real())


def compiled(*, closed: bool) -> Made:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x32(6, 3)
    twin: Any = torch.compile(net, backend="eager")
    return twin, (lambda: twin(x).exp().mean()) if closed else (F.mse_loss, x, real())


class Graph(nn.Module):
    """Buffers of unusual layouts: sparse, and with entries that share memory."""

    edges: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("edges", torch.eye(6).roll(1, 0).to_sparse())
        self.register_buffer("scale", torch.tensor([0.5]).expand(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(torch.sparse.mm(self.edges, x * self.scale))
        return out


def graph(*, closed: bool) -> Made:
    net, x = Graph(), x32(6, 3)
    return net, (lambda: net(x).exp().mean()) if closed else (F.mse_loss, x, real())


def sparse_targets() -> Made:
    def loss_fn(out: torch.Tensor, edges: torch.Tensor) -> Any:
        return torch.sparse.mm(edges, out).square().mean()

    return activation(nn.ELU())[0], (loss_fn, x32(6, 3), torch.eye(6).to_sparse())


def leaf_outside(*, inner: bool) -> Made:
    """The inputs that a loss differentiates by are float32 tensors of the caller's."""
    net, x = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), torch.rand(5, 1)
    x.requires_grad_(not inner)

    def slopes() -> torch.Tensor:
        found: torch.Tensor = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
        return found

    def total(point: torch.Tensor) -> Any:
        return net(point).sum()

    def batched() -> torch.Tensor:
        found: torch.Tensor = torch.func.vmap(torch.func.grad(total))(x)
        return found

    return net, lambda: (batched() if inner else slopes()).square().mean()


def hooked(*, where: str) -> Made:
    net, loss = mlp(nn.MSELoss(), real)

    def hook(grad: Any) -> Any:
        return 3 * grad

    dict(net.named_parameters())[where].register_hook(hook)
    return net, loss


def hooked_closure() -> Made:
    net, loss = closure()

    def hook(grad: Any) -> Any:
        return 3 * grad

    dict(net.named_parameters())["2.bias"].register_hook(hook)
    return net, loss


def hooked_module() -> Made:
    net, loss = mlp(nn.MSELoss(), real)
    net[0].register_full_backward_hook(lambda *_: None)  # type: ignore[index]  # of a Sequential
    net[1].register_forward_hook(lambda _, __, out: out.detach())  # type: ignore[index]  # of a Sequential
    return net, loss


def custom_loss(of_upstream: Callable[[torch.Tensor], Any], form: str = "loss_fn") -> Made:
    """A loss whose last operation is `Mse`; as a closure, or one that goes back by itself."""
    net, (_, x, y) = activation(nn.Tanh())

    def loss_fn(out: torch.Tensor, y: torch.Tensor) -> Any:
        return Mse.apply(out, y, of_upstream)

    def loss() -> Any:
        net.zero_grad()
        value = loss_fn(net(x), y)
        if form == "lbfgs":
            value.backward()
        return value

    return net, (loss_fn, x, y) if form == "loss_fn" else loss


def ignored(upstream: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(upstream)


def counted() -> Callable[[torch.Tensor], torch.Tensor]:
    """Something else at each call."""
    calls = itertools.count()
    return lambda upstream: upstream * (1 + 1e-6 * next(calls))


def shaken(upstream: torch.Tensor, by: float = 1e-9) -> torch.Tensor:
    return upstream * (1 + by * torch.randn_like(upstream))


def shaken_by_numpy(upstream: torch.Tensor) -> torch.Tensor:
    return upstream * (1 + float(np.random.mtrand._rand.standard_normal()))


def in_single(upstream: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(upstream.cpu().numpy().astype(np.float32)).to(upstream)


def ignored_in_part() -> Made:
    """A penalty whose backward pass ignores its upstream gradient, beside a loss that is right."""
    net = Through(torch.tanh)

    def loss_fn(out: torch.Tensor, y: torch.Tensor) -> Any:
        return F.mse_loss(out, y) + Mse.apply(net.a.weight, torch.zeros(4, 3), ignored)

    return net, (loss_fn, x32(6, 3), real())


def hooked_by(hook: Callable[[torch.Tensor], torch.Tensor]) -> Made:
    """A Network, and a hook on the gradient of one of its tensors."""
    net, loss = activation(nn.Tanh())
    dict(net.named_parameters())["0.weight"].register_hook(hook)
    return net, loss


def first_kept() -> Callable[[torch.Tensor], torch.Tensor]:
    """Whatever comes after the first gradient, that is passed on."""
    kept: list[torch.Tensor] = []

    def hook(grad: torch.Tensor) -> torch.Tensor:
        kept.append(grad.clone())
        return kept[0]

    return hook


def going_back(form: str) -> Made:
    """Closures that go back by themselves, and that are right."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.4), nn.Tanh(), nn.Linear(4, 2))
    x, y, parameters = x32(6, 3), x32(6, 2), list(net.parameters())

    def loss() -> Any:
        net.zero_grad()
        value = F.mse_loss(net(x), y)
        if form == "retained":
            value.backward(retain_graph=True)
        elif form == "torch.autograd.backward":
            torch.autograd.backward(value)
        elif form == "torch.autograd.grad":
            for p, grad in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
                p.grad = grad
        elif form == "upstream":
            value.backward(torch.ones_like(value))
        elif form == "in parts":
            value.backward()
            second = net(x).exp().mean()
            second.backward()
            value = value + second
        elif form == "with a gradient made by hand":
            value.backward()
            value = value + 0.05 * sum(p.square().sum() for p in parameters)
            for p in parameters:
                p.grad = 0.1 * p.detach() + (0.0 if p.grad is None else p.grad)
        elif form == "slopes kept":
            point = x.clone().requires_grad_()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a cycle that is made
                net(point).sum().backward(create_graph=True, inputs=[point])
            assert point.grad is not None
            value = F.mse_loss(net(x), y) + point.grad.square().mean()
            value.backward()
        return value

    return net, loss


def graph_from_before() -> Made:
    """What the loss starts from has a graph of its own, which lasts for one backward pass."""
    net, (loss_fn, x, y) = activation(nn.Tanh())
    before = (x.double().requires_grad_() * 2).sin()
    return net, lambda: loss_fn(net(before), y)


def dropping_lstm() -> Made:
    net, x = nn.LSTM(2, 3, num_layers=2, dropout=0.4), x32(4, 2, 2)
    return net, lambda: net(x)[0].square().mean()


def dropped_and_recomputed(*, reentrant: bool) -> Made:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.4), nn.Tanh(), nn.Linear(4, 2))
    x = x32(6, 3)

    def loss() -> Any:
        y = x.clone().requires_grad_()
        return checkpoint(net, y, use_reentrant=reentrant).pow(2).mean()

    return net, loss


def loss_fn_detached(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((out - y) * (out - y).detach()).mean()


CASES = [
    Case("mse", partial(mlp, nn.MSELoss(), real), "incremental"),
    Case(
        "mse of one layer",
        lambda: (nn.Linear(3, 2), (F.mse_loss, x32(6, 3), real())),
        "incremental",
    ),
    Case("mse, a sum", partial(mlp, nn.MSELoss(reduction="sum"), real), "incremental"),
    Case(
        "mse, a function", partial(mlp, partial(F.mse_loss, reduction="sum"), real), "incremental"
    ),
    Case("logits", partial(mlp, nn.BCEWithLogitsLoss(), labels), "incremental"),
    Case(
        "logits, a function",
        partial(mlp, F.binary_cross_entropy_with_logits, labels),
        "incremental",
    ),
    Case(
        "logits, a sum", partial(mlp, nn.BCEWithLogitsLoss(reduction="sum"), labels), "incremental"
    ),
    Case(
        "logits, weighted",
        partial(mlp, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0)), labels),
        "stacked",
    ),
    Case("classes", partial(mlp, nn.CrossEntropyLoss(), classes), "incremental"),
    Case(
        "classes, a sum", partial(mlp, nn.CrossEntropyLoss(reduction="sum"), classes), "incremental"
    ),
    Case(
        "classes, one-hot",
        partial(mlp, F.cross_entropy, lambda: torch.eye(2)[classes()]),
        "incremental",
    ),
    Case("classes, soft", partial(mlp, F.cross_entropy, lambda: labels().softmax(1)), "stacked"),
    Case(
        "classes, smoothed",
        partial(mlp, nn.CrossEntropyLoss(label_smoothing=0.1), classes),
        "stacked",
    ),
    Case("classes, ignored", partial(mlp, nn.CrossEntropyLoss(ignore_index=1), classes), "stacked"),
    Case(
        "classes, some ignored",
        partial(mlp, nn.CrossEntropyLoss(), lambda: torch.tensor([0, 1, -100, 1, 0, 1])),
        "stacked",
    ),
    Case(
        "probabilities",
        lambda: sequential(
            nn.Linear(3, 4),
            nn.Tanh(),
            nn.Linear(4, 2),
            nn.Sigmoid(),
            loss_fn=nn.BCELoss(),
            targets=labels(),
        ),
        "incremental",
    ),
    Case(
        "log-probabilities",
        lambda: sequential(
            nn.Linear(3, 2), nn.LogSoftmax(dim=1), loss_fn=nn.NLLLoss(), targets=classes()
        ),
        "incremental",
    ),
    Case("smooth L1", partial(mlp, nn.SmoothL1Loss(), real), "incremental"),
    Case("smooth L1, beta ½", partial(mlp, nn.SmoothL1Loss(beta=0.5), real), "stacked"),
    Case("huber", partial(mlp, nn.HuberLoss(reduction="sum"), real), "incremental"),
    Case("huber, delta 2", partial(mlp, nn.HuberLoss(delta=2.0), real), "stacked"),
    Case("leaky", lambda: activation(nn.LeakyReLU()), "incremental"),
    Case("leakier", lambda: activation(nn.LeakyReLU(0.2)), "stacked"),
    Case("tanh", lambda: activation(nn.Tanh()), "incremental"),
    Case("sigmoid", lambda: activation(nn.Sigmoid()), "incremental"),
    Case("softplus", lambda: activation(nn.Softplus()), "incremental"),
    Case("softplus, beta 2", lambda: activation(nn.Softplus(beta=2)), "stacked"),
    Case("silu", lambda: activation(nn.SiLU()), "incremental"),
    Case("identity", lambda: activation(nn.Identity()), "incremental"),
    Case("gelu", lambda: activation(nn.GELU()), "incremental"),
    Case("gelu by tanh", lambda: activation(nn.GELU(approximate="tanh")), "incremental"),
    Case("elu", lambda: activation(nn.ELU()), "stacked"),
    Case(
        "dropout, inactive",
        lambda: activation(nn.Sequential(nn.Dropout(0.5).eval(), nn.ReLU(), nn.Dropout(0.0))),
        "incremental",
    ),
    Case("dropout", lambda: activation(nn.Dropout(0.5)), "stacked"),
    Case("alpha dropout", lambda: activation(nn.AlphaDropout(0.5)), "stacked"),
    Case(
        "nested",
        lambda: sequential(
            nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
            nn.Sequential(nn.Linear(4, 2, bias=False)),
            loss_fn=nn.MSELoss(),
            targets=real(),
        ),
        "incremental",
    ),
    Case(
        "flattened",
        lambda: (
            nn.Sequential(nn.Flatten(), nn.Linear(6, 2)),
            (nn.MSELoss(), x32(5, 2, 3), x32(5, 2)),
        ),
        "incremental",
    ),
    Case("frozen", with_frozen, "incremental", absent=("0.weight",)),
    Case(
        "broadcast targets",
        partial(mlp, lambda out, y: F.mse_loss(out, y), lambda: x32(6, 2), 2),
        "stacked",
    ),
    Case("float64", partial(narrow, torch.float64), "incremental"),
    Case("float16", partial(narrow, torch.float16), "incremental"),
    Case("bfloat16", partial(narrow, torch.bfloat16), "incremental"),
    Case("conv", convolutional, "stacked"),
    Case("conv, normalised", lambda: convolutional(nn.BatchNorm2d(2)), "stacked"),
    Case("conv1d", lambda: any_layer(nn.Conv1d(2, 3, 2), 2, 2, 5), "stacked"),
    Case("batch norm, train", partial(normalised, train=True), "stacked"),
    Case("batch norm, eval", partial(normalised, train=False), "stacked"),
    Case("layer norm", lambda: any_layer(nn.LayerNorm(4), 3, 4), "stacked"),
    Case("group norm", lambda: any_layer(nn.GroupNorm(2, 4), 3, 4, 2), "stacked"),
    Case("embedding", partial(embedding, sparse=False), "stacked"),
    Case("embedding, sparse", partial(embedding, sparse=True), "stacked"),
    Case("attention", attention, "stacked"),
    Case("encoder, train", partial(encoder, train=True), "loop"),
    Case("encoder, eval", partial(encoder, train=False), "stacked"),
    Case("lstm", partial(recurrent, nn.LSTM), "loop"),
    Case("gru", partial(recurrent, nn.GRU), "loop"),
    Case("packed", packed, "loop"),
    Case("tied", lambda: (Tied(), (F.mse_loss, x32(6, 3), x32(6, 3))), "stacked"),
    Case(
        "tied storage", lambda: (Tied(storage=True), (F.mse_loss, x32(6, 3), x32(6, 3))), "stacked"
    ),
    Case(
        "listed", lambda: (Listed(), (F.mse_loss, x32(6, 3), x32(6))), "stacked", absent=("none",)
    ),
    Case("fourier", lambda: any_layer(Fourier(), 2, 8), "stacked"),
    Case("stateful", lambda: (Stateful(), (F.mse_loss, x32(6, 3), real())), "stacked"),
    Case("uncopyable", lambda: (Uncopyable(), (F.mse_loss, x32(6, 3), real())), "stacked"),
    Case("branching", lambda: (Branching(), (F.mse_loss, x32(6, 3), real())), "loop"),
    Case("numpy's generator", lambda: through(noisy), "stacked"),
    Case("custom function", lambda: through(Square.apply), "loop"),
    Case(
        "another loss without gradients",
        lambda: through(lambda x: x.tanh() if torch.is_grad_enabled() else x),
        "loop",
    ),
    Case("casting", lambda: through(casting), "stacked"),
    Case("inplace", inplace, "stacked"),
    Case("physics", physics, "loop"),
    Case("closure", closure, "stacked"),
    Case("lbfgs", lbfgs, "loop"),
    Case("lbfgs, careful", partial(lbfgs, careful=True), "stacked"),
    Case("lbfgs, a number", partial(lbfgs, number=True), "loop"),
    Case("direct", direct, "stacked"),
    Case("penalised", penalised, "stacked"),
    Case("loss with a parameter", partial(mlp, Weighted(), real), "stacked"),
    Case("two inputs", two_inputs, "loop"),
    Case(
        "weight norm",
        lambda: any_layer(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), 4, 3),
        "loop",
    ),
    Case("weight norm, old", old_weight_norm, "loop"),
    Case(
        "spectral norm",
        lambda: any_layer(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval(), 4, 3),
        "stacked",
    ),
    Case("checkpointed", recomputed, "loop"),
    Case("scripted", partial(scripted, form="copied"), "stacked"),
    Case("traced", partial(scripted, form="traced"), "stacked"),
    Case("scripted, closure", partial(scripted, form="closure"), "stacked"),
    Case("compiled", partial(compiled, closed=False), "stacked"),
    Case("compiled, closure", partial(compiled, closed=True), "stacked"),
    Case("graph", partial(graph, closed=False), "stacked"),
    Case("graph, closure", partial(graph, closed=True), "stacked"),
    Case("sparse targets", sparse_targets, "loop"),
    Case("leaf outside", partial(leaf_outside, inner=False), "loop"),
    Case("torch.func", partial(leaf_outside, inner=True), "stacked"),
    Case("custom loss", partial(custom_loss, lambda g: g), "loop"),
    Case(
        "custom loss, in single precision on its way back", partial(custom_loss, in_single), "loop"
    ),
    Case(
        "custom loss, its last bits at random",
        partial(custom_loss, partial(shaken, by=1e-14)),
        "loop",
    ),
    Case("custom loss, lbfgs", partial(custom_loss, lambda g: g, "lbfgs"), "loop"),
    Case("back through it once", lambda: through(Once.apply), "loop"),
    Case("retained", partial(going_back, "retained"), "loop"),
    Case("torch.autograd.backward", partial(going_back, "torch.autograd.backward"), "loop"),
    Case("torch.autograd.grad", partial(going_back, "torch.autograd.grad"), "loop"),
    Case("upstream of its own", partial(going_back, "upstream"), "loop"),
    Case("in parts", partial(going_back, "in parts"), "loop"),
    Case("a gradient made by hand", partial(going_back, "with a gradient made by hand"), "loop"),
    Case("slopes kept", partial(going_back, "slopes kept"), "loop"),
    Case("graph from before", graph_from_before, "stacked"),
    Case("dropout recomputed", partial(dropped_and_recomputed, reentrant=False), "loop"),
    Case("dropout recomputed, reentrant", partial(dropped_and_recomputed, reentrant=True), "loop"),
    Case("lstm with dropout", dropping_lstm, "loop"),
    Case("clipped far off", partial(hooked_by, lambda g: g.clamp(-100, 100)), "incremental"),
    Case("warns under vmap", lambda: activation(nn.PReLU(4)), "loop"),
]

EVERY = ("0.weight", "0.bias", "2.weight", "2.bias")

BUGS = [
    Case(
        "hook on a Network", partial(hooked, where="0.weight"), "incremental", wrong=("0.weight",)
    ),
    Case("hook on a bias", partial(hooked, where="2.bias"), "incremental", wrong=("2.bias",)),
    Case("hook, closure", hooked_closure, "stacked", wrong=("2.bias",)),
    Case("detached by a hook", hooked_module, "stacked", wrong=("0.weight", "0.bias")),
    Case(
        "custom function", lambda: through(WrongSquare.apply), "loop", wrong=("a.weight", "a.bias")
    ),
    Case(
        "detached",
        lambda: through(lambda x: x.tanh().detach()),
        "stacked",
        wrong=("a.weight", "a.bias"),
    ),
    Case(
        "half detached",
        partial(mlp, loss_fn_detached, real),
        "stacked",
        wrong=("0.weight", "0.bias", "2.weight", "2.bias"),
    ),
    Case(
        "no_grad",
        lambda: (Through(torch.tanh), (torch.no_grad()(F.mse_loss), x32(6, 3), real())),
        "stacked",
        wrong=("a.weight", "a.bias", "b.weight", "b.bias"),
    ),
    Case("upstream ignored", partial(custom_loss, ignored), "loop", wrong=EVERY),
    Case(
        "upstream ignored, closure", partial(custom_loss, ignored, "closure"), "loop", wrong=EVERY
    ),
    Case("upstream ignored, lbfgs", partial(custom_loss, ignored, "lbfgs"), "loop", wrong=EVERY),
    Case("upstream ignored in part", ignored_in_part, "loop", wrong=("a.weight",)),
    Case("upstream squared", partial(custom_loss, torch.square), "loop", wrong=EVERY),
    Case("upstream's sign", partial(custom_loss, torch.sign), "loop", wrong=EVERY),
    Case("added to upstream", partial(custom_loss, lambda g: (g + 1) / 2), "loop", wrong=EVERY),
    Case(
        "the first gradient kept",
        lambda: hooked_by(first_kept()),
        "incremental",
        wrong=("0.weight",),
    ),
    Case("noise on its way back", partial(custom_loss, shaken), "loop", wrong=EVERY),
    Case(
        "noise on its way back, lbfgs", partial(custom_loss, shaken, "lbfgs"), "loop", wrong=EVERY
    ),
    Case(
        "NumPy's noise on its way back", partial(custom_loss, shaken_by_numpy), "loop", wrong=EVERY
    ),
    Case("calls counted on its way back", lambda: custom_loss(counted()), "loop", wrong=EVERY),
    Case("noise by a hook", partial(hooked_by, shaken), "incremental", wrong=("0.weight",)),
]
