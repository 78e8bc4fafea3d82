"""Functions for gradcheck, right and wrong, after PyTorch's documentation and its own tests."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.autograd import Function


@dataclass(frozen=True)
class Case:
    """A call of gradcheck.

    Attributes:
        name: of the case.
        make: -> func and inputs, anew for each call.
        right: what gradcheck says; None where it raises something else than a GradcheckError.
        options: of gradcheck.
        warns: of the warning that it gives.
    """

    name: str
    make: Callable[[], tuple[Callable[..., Any], Any]]
    right: bool | None
    options: dict[str, Any] = field(default_factory=dict)
    raises: type[Exception] | None = None
    says: str = ""
    warns: str = ""


def draw(*shape: int, dtype: Any = None, seed: int = 0, grad: bool = True) -> Any:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype or torch.float64)
    return x.requires_grad_(grad)


class Scaled(Function):
    """x → x², whose gradient is `factor` times the right one."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x**2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return ctx.factor * 2 * x * g, None


class Narrow(Function):
    """x → sin x by way of float32, by torch or by NumPy; its gradient is `factor` times right."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float, by: str) -> Any:
        ctx.save_for_backward(x)
        ctx.factor = factor
        if by == "torch":
            return x.float().sin().double()
        return torch.from_numpy(np.sin(x.detach().numpy().astype(np.float32)).astype(np.float64))

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return ctx.factor * x.cos() * g, None, None


class OneEntry(Function):
    """x → x², where the gradient of one entry is off."""

    @staticmethod
    def forward(ctx: Any, x: Any, at: int, factor: float) -> Any:
        ctx.save_for_backward(x)
        ctx.at, ctx.factor = at, factor
        return x**2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        factors = torch.ones_like(x)
        factors.view(-1)[ctx.at] = ctx.factor
        return factors * 2 * x * g, None, None


class Cubed(Function):
    """x³; `factor` is that of its second derivative alone."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        fixed = x.detach()
        return (3 * fixed**2 + ctx.factor * 6 * fixed * (x - fixed)) * g, None


class Shifted(Function):
    """A backward pass that adds a number instead of multiplying with what comes in."""

    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return x * 1.0

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return g + 1e-7


class Restless(Function):
    """A backward pass that gives something else each time."""

    noise = 1e-7
    count = itertools.count()

    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return x * 3.0

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return 3.0 * g + g.abs() * Restless.noise * (next(Restless.count) % 7)


class Undefined(Function):
    """A backward pass that takes no undefined gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        return x * 2.0, x * 3.0

    @staticmethod
    def backward(_: Any, g: Any, h: Any) -> Any:
        if g is None or h is None:
            raise RuntimeError("an undefined gradient")
        return 2.0 * g + 3.0 * h


class NotAtAll(Function):
    """As `Undefined`, of one output."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        return x * 2.0

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        if g is None:
            raise RuntimeError("an undefined gradient")
        return 2.0 * g


class OnesForUndefined(Function):
    """A backward pass that takes an undefined gradient for ones."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return torch.ones_like(ctx.saved_tensors[0]) if g is None else 2.0 * g


class WrongShape(Function):
    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return x * 2.0

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return g.reshape(-1)[:2]


class Nothing(Function):
    """A backward pass that returns None for an input that matters."""

    @staticmethod
    def forward(_: Any, x: Any, y: Any) -> Any:
        return x + y

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return g, None


class Unbatched(Function):
    """A backward pass that vmap cannot go through."""

    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return torch.from_numpy(g.detach().numpy().copy()) if g.sum() != 0.3 else g


class WrongUnderVmap(Function):
    """Right, but for the vmap rule of its backward pass."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 2.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return _TwiceThrice.apply(g)


class _TwiceThrice(Function):
    @staticmethod
    def forward(g: Any) -> Any:
        return g * 2.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return g * 2.0

    @staticmethod
    def vmap(_: Any, in_dims: Any, g: Any) -> Any:
        return g * 3.0, in_dims[0]


class RightUnderVmapAlone(Function):
    """Wrong, but for the vmap rule of its backward pass, which makes up for it."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 3.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return _TwiceThrice.apply(g)


class Forward(Function):
    """x → x², with forward AD that is `factor` times right."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.factor = factor
        return x**2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 2.0 * ctx.saved_tensors[0] * g, None

    @staticmethod
    def jvp(ctx: Any, t: Any, _: Any) -> Any:
        return ctx.factor * 2.0 * ctx.saved_tensors[0] * t


class Conjugated(Function):
    """z → z², whose gradient lacks the conjugate that PyTorch's convention wants."""

    @staticmethod
    def forward(ctx: Any, z: Any) -> Any:
        ctx.save_for_backward(z)
        return z**2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2 * ctx.saved_tensors[0]


class MyClip(Function):
    """Straight through: the gradient that a rounding does not have."""

    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return torch.round(x)

    @staticmethod
    def backward(_: Any, g: Any) -> Any:
        return g


def held(x: Any) -> tuple[Callable[..., Any], Any]:
    """A function that uses the tensor that it holds, not its argument."""
    return lambda _: (x**2).sum(0), (x,)


def module() -> tuple[Callable[..., Any], Any]:
    """The parameters of a module, which holds them."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    net = net.double()
    x = draw(3, 4, grad=False)
    return lambda *_: net(x), tuple(net.parameters())


def in_place(x: Any) -> Any:
    y = x.clone()
    y.mul_(2.0)
    y[0] = x[1] * x[0].detach()
    return y


def shrinking(x: Any) -> Any:
    return x[:1] if float(x.detach()[0]) > 0 else x


def dropping(x: Any) -> Any:
    return torch.nn.functional.dropout(x, 0.5, training=True) * 1.0


double, single = torch.float64, torch.float32
complex_ = torch.complex128

CASES = [
    # of the documentation
    Case("linear", lambda: (torch.nn.functional.linear, (draw(20, 5), draw(3, 5, seed=1), draw(3, seed=2))), True),
    Case("linear, as the notes on extending have it", lambda: (torch.nn.Linear(6, 4).double(), draw(5, 6)), True, {"eps": 1e-6, "atol": 1e-4}),
    Case("a function of no autograd at all", lambda: (lambda x: x * x.detach(), (draw(3),)), False),
    Case("a mean of a product", lambda: (lambda x, y: (x * y).mean(), (draw(3, 4), draw(4, seed=1))), True),
    Case("sin, one tensor instead of a tuple", lambda: (torch.sin, draw(12)), True),
    Case("a list of inputs", lambda: (torch.mul, [draw(3, 2), draw(2, seed=1)]), True),
    Case("a list of outputs", lambda: (lambda x: [x.sin(), x.cos()], (draw(3, 4),)), True),
    # custom functions
    Case("custom, right", lambda: (lambda x: Scaled.apply(x, 1.0), (draw(3, 4),)), True),
    Case("custom, right, apply itself", lambda: (Scaled.apply, (draw(3, 4), 1.0)), True),
    Case("custom, doubled", lambda: (lambda x: Scaled.apply(x, 2.0), (draw(3, 4),)), False, says=r"output\[\d, \d\]/inputs\[0\]\[\d, \d\]: the gradient is .* 2\.000 × the numerical gradient"),
    Case("custom, its sign flipped", lambda: (Scaled.apply, (draw(3, 4), -1.0)), False, says="the sign is flipped"),
    Case("custom, one entry of 200", lambda: (OneEntry.apply, (draw(10, 20), 77, 1.5)), False, says=r"output\[3, 17\]/inputs\[0\]\[3, 17\]"),
    Case("custom, within the tolerance", lambda: (lambda x: Scaled.apply(x, 1.0005), (draw(3, 4),)), True),
    Case("custom, beyond the tolerance asked for", lambda: (lambda x: Scaled.apply(x, 1.0005), (draw(3, 4),)), False, {"rtol": 1e-4}, says="1.00050 ×"),
    Case("backward is not multiplied by grad_output", lambda: (Shifted.apply, (draw(3),)), False, says="backward not multiplied by grad_output"),
    Case("backward is not reentrant", lambda: (Restless.apply, (draw(3),)), False, says="Backward is not reentrant"),
    Case("backward is not reentrant, many outputs", lambda: (Restless.apply, (draw(4, 5),)), False, says="Backward is not reentrant"),
    Case("backward is nearly reentrant", lambda: (Restless.apply, (draw(3),)), True, {"nondet_tol": 1e-5}),
    Case("undefined gradients raise", lambda: (NotAtAll.apply, (draw(3),)), False, says="handle undefined output grads", warns="undefined gradient support"),
    Case("undefined gradients raise, not asked about", lambda: (NotAtAll.apply, (draw(3),)), True, {"check_undefined_grad": False}),
    Case("one undefined gradient of two raises", lambda: (Undefined.apply, (draw(3),)), None, raises=RuntimeError, says="an undefined gradient"),
    Case("undefined gradients are taken for ones", lambda: (OnesForUndefined.apply, (draw(3),)), False, says="undefined or zero", warns="undefined gradient support"),
    Case("undefined gradients are not asked about", lambda: (OnesForUndefined.apply, (draw(3),)), True, {"check_undefined_grad": False}),
    Case("a gradient of the wrong shape", lambda: (WrongShape.apply, (draw(3),)), None, raises=RuntimeError, says="invalid gradient"),
    Case("None where there is a gradient", lambda: (Nothing.apply, (draw(3), draw(3, seed=1))), False, says=r"inputs\[1\].*all zero"),
    Case("batched gradients fail", lambda: (Unbatched.apply, (draw(3),)), False, {"check_batched_grad": True}, says="While computing batched gradients"),
    Case("batched gradients are not asked about", lambda: (Unbatched.apply, (draw(7),)), True),
    Case("batched gradients, right", lambda: (lambda x: x.exp().cumsum(0), (draw(5),)), True, {"check_batched_grad": True}),
    Case("wrong under vmap alone", lambda: (WrongUnderVmap.apply, (draw(12),)), True),
    Case("right under vmap alone", lambda: (RightUnderVmapAlone.apply, (draw(12),)), False, says="0.667 × the numerical gradient"),
    Case("straight through", lambda: (MyClip.apply, (draw(4),)), False, says=r"the gradient is 1, numerically 0"),
    # forward AD
    Case("forward AD, right", lambda: (lambda x: Forward.apply(x, 1.0), (draw(3, 4),)), True, {"check_forward_ad": True}),
    Case("forward AD, wrong", lambda: (lambda x: Forward.apply(x, 0.5), (draw(3, 4),)), False, {"check_forward_ad": True}, says=r"inputs\[0\].*0\.500 ×"),
    Case("forward AD, wrong, not asked about", lambda: (lambda x: Forward.apply(x, 0.5), (draw(3, 4),)), True),
    Case("forward AD alone", lambda: (lambda x: Forward.apply(x, 0.5), (draw(3, 4),)), False, {"check_forward_ad": True, "check_backward_ad": False}, says="0.500 ×"),
    Case("forward AD, batched", lambda: (lambda x, y: (x @ y).tanh(), (draw(3, 4), draw(4, 2, seed=1))), True, {"check_forward_ad": True, "check_batched_forward_grad": True}),
    Case("forward AD, complex", lambda: (lambda z: z * z.conj() + z.exp(), (draw(3, dtype=complex_),)), True, {"check_forward_ad": True}),
    Case("forward AD, complex, wrong", lambda: (lambda z: Forward.apply(z, 0.5), (draw(3, dtype=complex_),)), False, {"check_forward_ad": True, "check_backward_ad": False, "check_undefined_grad": False}, says="0.500 ×"),
    Case("no forward AD, right", lambda: (lambda x: Scaled.apply(x, 1.0), (draw(3, 4),)), None, {"check_forward_ad": True}, raises=NotImplementedError, says="jvp"),
    Case("no forward AD, wrong", lambda: (lambda x: Scaled.apply(x, 0.5), (draw(3, 4),)), False, {"check_forward_ad": True}, says="0.500 ×"),
    Case("neither", lambda: (torch.sin, draw(3)), None, {"check_backward_ad": False}, raises=AssertionError, says="at least one of check_forward_ad or check_backward_ad"),
    # complex
    Case("complex to complex", lambda: (lambda z: z * z.exp(), (draw(4, dtype=complex_),)), True),
    Case("complex to real", lambda: (lambda z: (z.abs() ** 2).sum(), (draw(12, dtype=complex_),)), True),
    Case("real to complex", lambda: (lambda x: torch.polar(x.exp(), x), (draw(12),)), True),
    Case("complex, not conjugated", lambda: (Conjugated.apply, (draw(3, dtype=complex_),)), False, says=r"output\.(real|imag)\[\d\]/inputs\[0\]\.(real|imag)\[\d\]"),
    Case("complex, detached", lambda: (lambda z: (z * z.detach(), z.real.sum()), (draw(3, dtype=complex_),)), False, says=r"outputs\[0\]\.imag.*0\.500 ×"),
    Case("complex and real inputs", lambda: (torch.mul, (draw(3, dtype=complex_), draw(3, seed=1))), True),
    # shapes and memory
    Case("in place, on a copy", lambda: (lambda x: x.clone().mul_(2.0).sin_(), (draw(12),)), True),
    Case("in place, on a copy, detached", lambda: (in_place, (draw(3),)), False),
    Case("not contiguous", lambda: (lambda x: x.sin().reshape(-1), (draw(4, 3).detach().T.requires_grad_(),)), True),
    Case("a view of a larger tensor", lambda: (lambda x: x.exp(), (draw(4, 6)[::2, 1::2].detach().requires_grad_(),)), True),
    Case("a tensor that is no leaf", lambda: (torch.sin, (draw(12) * 2.0,)), True),
    Case("expanded", lambda: (torch.sin, (draw(3, 1).detach().expand(3, 4).requires_grad_(),)), None, raises=RuntimeError, says="stride 0"),
    Case("a number", lambda: (lambda x: x**3, (torch.tensor(2.0, dtype=double, requires_grad=True),)), True),
    Case("a number, wrong", lambda: (lambda x: Scaled.apply(x, 3.0), (torch.tensor(2.0, dtype=double, requires_grad=True),)), False, says=r"^inputs\[0\]: the gradient is 12, numerically 4"),
    Case("an empty input", lambda: (torch.sin, (draw(0, 3),)), True),
    Case("an empty output", lambda: (lambda x: x[:0], (draw(12),)), True),
    Case("an empty output, complex", lambda: (lambda z: z[:0], (draw(12, dtype=complex_),)), True),
    Case("an empty output, complex to real", lambda: (lambda z: z[:0].abs(), (draw(3, dtype=complex_),)), True),
    Case("an empty input, complex", lambda: (torch.exp, (draw(0, 3, dtype=complex_),)), True),
    Case("an empty input, real to complex", lambda: (lambda x: torch.complex(x, x), (draw(0),)), True),
    Case("an empty input, complex, summed", lambda: (torch.sum, (draw(0, dtype=complex_),)), True),
    Case("an empty input, complex, forward AD", lambda: (torch.exp, (draw(0, dtype=complex_),)), True, {"check_forward_ad": True}),
    Case("an empty output, complex, forward AD alone", lambda: (lambda z: z[:0] * 2.0, (draw(20, dtype=complex_),)), True, {"check_forward_ad": True, "check_backward_ad": False, "check_undefined_grad": False}),
    Case("an empty output, complex, detached", lambda: (lambda z: z.detach()[:0], (draw(3, dtype=complex_),)), True),
    Case("an empty output, complex, tolerance for nondeterminism", lambda: (lambda z: z[:0], (draw(3, dtype=complex_),)), True, {"nondet_tol": 1e-3}),
    Case("a product over an empty axis, complex", lambda: (torch.matmul, (draw(4, 0, dtype=complex_), draw(0, 5, dtype=complex_, seed=1))), True),
    Case("empty and not, complex", lambda: (lambda z, w: (z * 2.0, w * 3.0), (draw(0, dtype=complex_), draw(20, dtype=complex_, seed=1))), True),
    Case("empty and not, complex, wrong", lambda: (lambda z, w: (z * 2.0, w * w.detach()), (draw(0, dtype=complex_), draw(3, dtype=complex_, seed=1))), False, says=r"outputs\[1\]\.(real|imag).*0\.500 ×"),
    Case("no outputs", lambda: (lambda x: (), (draw(3),)), True),
    Case("the same tensor twice", lambda: (torch.mul, [draw(12)] * 2), True),
    Case("broadcast", lambda: (lambda x, y: (x + y).prod(0), (draw(3, 1), draw(1, 4, seed=1))), True),
    # other arguments
    Case("integers among the inputs", lambda: (lambda x, i: x[i], (draw(12), torch.tensor([2, 0, 2]))), True),
    Case("what is no tensor among the inputs", lambda: (lambda x, n, flag: x**n if flag else x, (draw(12), 3, True)), True),
    Case("a tensor that is left out", lambda: (torch.mul, (draw(12), draw(12, seed=1, grad=False))), True),
    Case("an input that does not matter", lambda: (lambda x, y: x * 2.0, (draw(12), draw(12, seed=1))), True),
    Case("no tensor that requires a gradient", lambda: (torch.sin, (draw(3, grad=False),)), None, raises=ValueError, says="at least one input tensor to require gradient"),
    Case("integers among the outputs", lambda: (lambda x: torch.max(x, 0), (draw(12),)), True),
    Case("an output that is detached", lambda: (lambda x: (x.sin(), x.detach()), (draw(12),)), True),
    Case("nothing but detached outputs", lambda: (lambda x: x.detach() * 2.0, (draw(12),)), False, says="the gradient is 0, numerically 2"),
    Case("outputs that do not depend on anything", lambda: (lambda x: torch.ones(3, dtype=double), (draw(12),)), True),
    Case("an output made of a number", lambda: (lambda x: torch.tensor([x.item()]), (draw(1),)), False, says="the gradient is 0, numerically"),
    Case("single precision", lambda: (torch.sin, (draw(3, dtype=single),)), False, warns="not a double precision"),
    Case("single precision, wide tolerances", lambda: (torch.sin, (draw(12, dtype=single),)), True, {"eps": 1e-2, "atol": 1e-2, "rtol": 1e-2}, warns="not a double precision"),
    Case("sparse", lambda: (lambda x: x.to_dense() * 2.0, (draw(3, 3, grad=False).to_sparse().requires_grad_(),)), True),
    Case("sparse, wrong", lambda: (lambda x: x.to_dense() * x.detach().to_dense(), (draw(3, 3, grad=False).to_sparse().requires_grad_(),)), False, says="Jacobian mismatch"),
    Case("a sparse output", lambda: (lambda x: x.to_sparse(), (draw(3, 3),)), None, raises=ValueError, says="Sparse output is not supported"),
    # functions with a life of their own
    Case("held instead of used", lambda: held(draw(12)), True),
    Case("the parameters of a module", module, True),
    Case("differentiates by itself", lambda: (lambda x: torch.autograd.grad((x**3).sum(), x, create_graph=True)[0], (draw(12),)), True),
    Case("dropout", lambda: (dropping, (draw(40),)), False),
    Case("branches on its values", lambda: (lambda x: x.sin() if bool(x.sum() > 0) else x.cos(), (draw(12),)), True),
    Case("another shape close by", lambda: (shrinking, (torch.zeros(3, dtype=double, requires_grad=True),)), None, raises=AssertionError, says="shape"),
    # kinks and domains
    Case("a ReLU at its corner", lambda: (torch.relu, (torch.tensor([0.0, 1.0, -1.0], dtype=double, requires_grad=True),)), False, says=r"output\[0\]/inputs\[0\]\[0\].*slopes of 0 and 1 on its two sides"),
    Case("a ReLU off its corner", lambda: (torch.relu, (draw(12),)), True),
    Case("a square root at zero", lambda: (torch.sqrt, (torch.zeros(2, dtype=double, requires_grad=True),)), False, says="not finite"),
    Case("a jump", lambda: (torch.sign, (torch.zeros(2, dtype=double, requires_grad=True),)), False),
    Case("an overflow close by", lambda: (lambda x: torch.where(x.detach() > 0, torch.inf, 0.0) + x, (torch.zeros(2, dtype=double, requires_grad=True),)), False, says="not finite"),
    Case("a matrix inverse", lambda: (torch.linalg.inv, (torch.eye(4, dtype=double).add(0.1).requires_grad_(),)), True),
    Case("singular values", lambda: (torch.linalg.svdvals, (draw(4, 3),)), True),
    Case("a convolution", lambda: (torch.nn.functional.conv2d, (draw(2, 3, 5, 5), draw(2, 3, 3, 3, seed=1), draw(2, seed=2))), True),
]  # fmt: skip
