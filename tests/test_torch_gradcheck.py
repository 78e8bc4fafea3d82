"""fastgc.torch.gradcheck against torch.autograd.gradcheck."""

# ruff: noqa: E402  what is imported below needs torch

import contextlib
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.gradcheck import GradcheckError as TorchError

import fastgc
from fastgc.torch import GradcheckError, analytical, gradcheck, gradgradcheck, numerical
from tests.gradcheck_cases import CASES, Case, Cubed, Narrow, OneEntry, Scaled, draw
from tests.strategies import examples

pytestmark = [
    # PyTorch's own, the first time in a process that forward AD, or a sparse tensor, is used
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
]


def refused(func: Any, inputs: Any, **options: Any) -> Any:
    """The GradcheckError that it raises."""
    with pytest.raises(GradcheckError) as caught:
        gradcheck(func, inputs, **options)
    return caught.value


def said(check: Any, case: Case, **options: Any) -> Any:
    """True, False, or the kind of exception; with the warnings that the case is to give."""
    func, inputs = case.make()
    expected = (
        pytest.warns(UserWarning, match=case.warns) if case.warns else contextlib.nullcontext()
    )
    with expected:
        try:
            return check(func, inputs, **case.options, **options)
        except TorchError:
            return TorchError
        except Exception as error:
            return type(error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_says_what_torch_says(case: Case) -> None:
    for raise_exception in (True, False):
        ours, theirs = (
            said(check, case, raise_exception=raise_exception)
            for check in (gradcheck, torch.autograd.gradcheck)
        )
        assert ours == theirs
        if case.right is None:
            assert ours is case.raises
        else:
            assert ours is (case.right or (TorchError if raise_exception else False))


@pytest.mark.parametrize("case", [case for case in CASES if case.says], ids=lambda case: case.name)
def test_message(case: Case) -> None:
    func, inputs = case.make()
    wanted = case.raises or TorchError
    action: Any = "ignore" if case.warns else None  # for None the filters above hold
    with (
        warnings.catch_warnings(action=action),
        pytest.raises(wanted, match=case.says) as caught,
    ):
        gradcheck(func, inputs, **case.options)
    report = getattr(caught.value, "report", None)
    if isinstance(caught.value, GradcheckError) and report is not None:
        assert fastgc.Report.from_dict(report.to_dict()).to_dict() == report.to_dict()
        assert str(report) in str(caught.value)
        if "inputs[" in str(caught.value).splitlines()[0]:  # the Jacobian is at fault
            assert report.verdict == "wrong"


@examples(60)
@given(
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    error=st.sampled_from([0.0, 5e-4, 9e-4, 1.1e-3, 2e-3, 0.5]),
    at=st.integers(0, 35),
    seed=st.integers(0, 100),
)
def test_one_entry_off(rows: int, cols: int, error: float, at: int, seed: int) -> None:
    x = draw(rows, cols, seed=seed)
    inputs = (x, at % (rows * cols), 1 + error)
    theirs = torch.autograd.gradcheck(OneEntry.apply, inputs, raise_exception=False)
    assert gradcheck(OneEntry.apply, inputs, raise_exception=False) == theirs
    assert gradcheck(lambda *a: OneEntry.apply(*a), inputs, raise_exception=False) == theirs


def through(x: Any, at: int, factor: float) -> Any:
    return OneEntry.apply(x, at, factor).sum()


@pytest.mark.parametrize(
    ("func", "shape", "factor"),
    [
        (through, (40, 50), 1.005),  # one entry of 2,000, by 0.5 %
        (through, (2000,), 1.01),
        (OneEntry.apply, (20, 20), 1.05),
        (lambda x, at, c: OneEntry.apply(x, at, c).cumsum(0), (300,), 1.02),
    ],
)
def test_what_fast_mode_lets_through(func: Any, shape: tuple[int, ...], factor: float) -> None:
    x = draw(*shape)
    at = int(x.detach().abs().argmax())
    inputs = (x, at, factor)
    assert torch.autograd.gradcheck(func, inputs, fast_mode=True)
    for fast_mode in (False, True):  # there is none here
        with pytest.raises(GradcheckError, match="wrong") as caught:
            gradcheck(func, inputs, fast_mode=fast_mode)
        assert caught.value.report is not None
        (tensor,) = caught.value.report.tensors.values()
        assert tensor.worst.ratio == pytest.approx(factor, rel=1e-4)
        place = np.ravel_multi_index(tensor.worst.index[-len(shape) :], shape)
        assert place == at


def test_report() -> None:
    x, w = draw(3, 4), draw(4, 2, seed=1)
    error = refused(lambda x, w: (x @ w, Scaled.apply(w, 2.0).sum()), (x, w))
    report = error.report
    assert isinstance(report, fastgc.Report)
    assert (report.verdict, report.ok, report.cost) == ("wrong", False, None)
    assert (report.epsilon, report.tolerance) == (1e-6, 1e-3)
    assert report.method == "gradcheck, backward AD"
    assert "≤ 1e-05 + 0.001 · |numerical|" in (report.scope or "")
    assert list(report.tensors) == [f"outputs[{o}]/inputs[{k}]" for o in range(2) for k in range(2)]
    verdicts = [tensor.verdict for tensor in report.tensors.values()]
    assert verdicts == ["correct", "correct", "correct", "wrong"]
    tensor = report.tensors["outputs[1]/inputs[1]"]
    assert tensor.counts["disagree"] == tensor.size == 8
    assert str(tensor.diagnosis) == "2.000 × the numerical gradient"
    assert tensor.arrays is not None
    np.testing.assert_allclose(tensor.arrays.analytic, 4 * w.detach().numpy())
    np.testing.assert_allclose(tensor.arrays.numerical, 2 * w.detach().numpy(), rtol=1e-6)
    right = report.tensors["outputs[0]/inputs[0]"]
    assert right.shape == (3, 2, 3, 4)
    assert right.arrays is not None
    assert right.arrays.entry(right.name, 0).name == "outputs[0][0, 0]/inputs[0][0, 0]"
    assert str(error).startswith("outputs[1]/inputs[1][")
    assert fastgc.Report.from_dict(report.to_dict()) == report
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.report.verdict) == (str(error), "wrong")


def test_report_of_one_number() -> None:
    x = draw(3, 4)
    report = refused(lambda x: through(x, 7, 1.5), x).report
    assert report.cost == pytest.approx(float((x.detach() ** 2).sum()))
    assert report.tensors["inputs[0]"].shape == (3, 4)
    assert report.tensors["inputs[0]"].diagnosis.kind == "entries"
    assert report.worst(1)[0].name == "inputs[0][1, 3]"


def test_report_where_the_jacobian_is_right() -> None:
    case = next(case for case in CASES if case.name == "backward is not multiplied by grad_output")
    func, inputs = case.make()
    error = refused(func, inputs)
    assert str(error).startswith("backward not multiplied")
    assert error.report.ok


F = torch.nn.functional


def by_chance(x: Any) -> Any:
    return x.exp() if random.random() < 0.5 else x.sin()


RANDOM = [
    (F.dropout, 40),
    (lambda x: x * torch.rand_like(x), 3),
    (lambda x: x + 1e-7 * torch.randn_like(x), 30),
    (lambda x: x * (1 + 1e-9 * torch.randn((), dtype=x.dtype)), 3),
    (lambda x: x * np.random.rand(), 3),
    (by_chance, 3),
    (lambda x: (x.sin(), F.rrelu(-x.abs(), training=True)), 20),
    (lambda x: torch.rand_like(x), 3),
    (lambda x: Scaled.apply(x, 2.0) * torch.rand(()), 3),
]


@pytest.mark.parametrize(("func", "size"), RANDOM)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_random_functions_are_called_random(func: Any, size: int, dtype: Any) -> None:
    x = draw(size, dtype=dtype)
    if dtype == torch.complex128:
        inner = func
        func = lambda z: inner(z.real * z.imag)  # noqa: E731  in the place of a case
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    error = refused(func, x, eps=1e-6, atol=1e-9, rtol=1e-9)
    assert str(error).startswith("the function is random")
    assert error.report is None
    assert pickle.loads(pickle.dumps(error)).report is None


def test_random_gradients_are_called_random() -> None:
    with pytest.raises(GradcheckError, match=r"^the function is random"):
        gradgradcheck(lambda x: F.dropout(x**3), draw(30))


def test_last_bits_are_not_called_random() -> None:
    def noisy(x: Any, factor: float) -> Any:
        return Scaled.apply(x, factor) * (1 + 1e-13 * torch.randn((), dtype=x.dtype))

    assert gradcheck(noisy, (draw(4), 1.0))
    assert "2.000 ×" in str(refused(noisy, (draw(4), 2.0)))


LINEAR = torch.nn.Linear(4, 3)

NARROW = [
    (lambda x: x.float().sin(), "float32"),
    (lambda x: x.float().sin().double(), "float32"),
    (lambda x: 2 * x + x.to(torch.float32).sin(), "float32"),
    (lambda x: (x.to(dtype=torch.float32) ** 2).sum(), "float32"),
    (lambda x: LINEAR(x.float()), "float32"),
    (lambda x: torch.complex(x, x).to(torch.complex64) ** 2, "complex64"),
    (lambda x: (x.half() * 3).double(), "float16"),
    (lambda x: x.bfloat16() * 3, "bfloat16"),
    (lambda x: Narrow.apply(x, 1.0, "torch"), "float32"),
    (lambda x: Narrow.apply(x, 1.0, "numpy"), "float32"),
    (lambda x: Narrow.apply(x, 1.0, "numpy").sum(), "float32"),
    (lambda x: (x.sin(), Narrow.apply(x * 0.3, 1.0, "numpy")), "float32"),
]


@pytest.mark.parametrize(("func", "dtype"), NARROW)
@pytest.mark.parametrize("shape", [(2, 4), (8, 4)])
def test_single_precision_inside_is_told(func: Any, dtype: str, shape: tuple[int, ...]) -> None:
    error = refused(func, draw(*shape))
    first = str(error).splitlines()[0]
    assert first.startswith("the function ")
    assert dtype in first
    assert ("single precision" if "32" in dtype or "64" in dtype else "half precision") in first
    assert "Compute in float64" in first
    assert error.report.verdict == "correct"


def test_single_precision_of_forward_ad_is_told() -> None:
    error = refused(
        lambda x: x.float().sin(),
        draw(4),
        check_forward_ad=True,
        check_backward_ad=False,
        check_undefined_grad=False,
    )
    assert "single precision (float32) inside" in str(error)


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient")
def test_inputs_in_single_precision_are_told() -> None:
    first = str(refused(torch.sin, draw(4, dtype=torch.float32))).splitlines()[0]
    assert "takes inputs[0] in single precision (float32)" in first
    assert "2.000 ×" in str(refused(Scaled.apply, (draw(4, dtype=torch.float32), 2.0)))


@pytest.mark.parametrize("by", ["torch", "numpy"])
def test_wrong_and_in_single_precision(by: str) -> None:
    error = refused(lambda x: Narrow.apply(x, 2.0, by), draw(4))
    first = str(error).splitlines()[0]
    assert "inputs[0]" in first
    assert "2.000 ×" in first
    assert "single precision (float32)" in first
    assert error.report.verdict == "wrong"


@pytest.mark.parametrize(
    "func",
    [
        lambda x: Scaled.apply(x, 2.0),
        lambda x: Scaled.apply(x, 2.0) * torch.ones(4),  # float32 in which all is exact
        lambda x: 1 + 1e-3 * Scaled.apply(x, 2.0),
        lambda x: 1e6 + 1e-3 * Scaled.apply(x, 200.0),
        lambda x: (x.round() - x).detach() + x,
        lambda x: x.detach() * x,
        lambda x: torch.sign(x - draw(4).detach()),
    ],
)
def test_precision_is_not_blamed_for_what_is_wrong(func: Any) -> None:
    error = refused(func, draw(4))
    assert "precision" not in str(error)
    assert error.report.verdict == "wrong"


def test_kink() -> None:
    x = torch.tensor([0.0, 1.0, -1.0, 0.0], dtype=torch.float64, requires_grad=True)
    error = refused(torch.relu, x)
    assert "corner" in str(error)
    tensor = error.report.tensors["inputs[0]"]
    assert tensor.diagnosis.kind == "kink"
    assert (tensor.counts["disagree"], tensor.worst.slopes) == (2, (0.0, 1.0))
    error = refused(lambda x: torch.relu(x) + 3 * (x - x.detach()), x)  # 3 is among no slopes
    assert error.report.tensors["inputs[0]"].diagnosis.kind != "kink"


@pytest.mark.parametrize("right", [True, False])
def test_nothing_of_the_users_is_changed(right: bool) -> None:
    x, w = draw(3, 4).detach().T.requires_grad_(), draw(2, seed=1)
    x.grad = torch.ones_like(x)
    before, of_w = x.detach().clone(), w.detach().clone()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()

    def func(x: Any, w: Any) -> Any:
        if not right:
            torch.rand(1)
            np.random.rand()
            random.random()
        return Scaled.apply(x, 1.0 if right else 2.0), w.sin()

    assert gradcheck(func, (x, w), raise_exception=False) is right
    assert gradcheck(torch.sin, (x,), check_batched_grad=True)  # which draws numbers
    assert torch.equal(x, before)
    assert torch.equal(w, of_w)
    assert torch.equal(x.grad, torch.ones_like(x))
    assert w.grad is None
    assert x.stride() == (1, 4)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]
    assert random.getstate() == states[2]


def test_exception_of_the_function_restores_the_inputs() -> None:
    x = draw(3)
    before = x.detach().clone()

    def func(y: Any) -> Any:
        if not torch.equal(y, before):
            raise LookupError("moved")
        return y.sin()

    with pytest.raises(LookupError, match="moved"):
        gradcheck(func, x)
    assert torch.equal(x, before)


def test_many_points_at_once() -> None:
    x, w = draw(10, 20), draw(20, 3, seed=1)
    calls = [0]

    def func(x: Any, w: Any) -> Any:
        calls[0] += 1
        return torch.tanh(x @ w)

    assert gradcheck(func, (x, w))
    assert calls[0] < 40  # of 520 points


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_many_tangents_at_once(dtype: Any) -> None:
    calls = [0]

    def func(x: Any) -> Any:
        calls[0] += 1
        return (x * x.conj()).real.sin()

    forward = {"check_forward_ad": True, "check_backward_ad": False, "check_undefined_grad": False}
    assert gradcheck(func, draw(10, 20, dtype=dtype), **forward)
    assert calls[0] < 40  # of 200 tangents, or 400


def test_blocks() -> None:
    x = draw(30, 25)
    rows = numerical.BLOCK // (2 * 8 * x.numel())  # of inputs and outputs
    assert rows < x.numel()
    assert gradcheck(lambda x: x.sin().cumsum(1), x, check_forward_ad=True)
    with pytest.raises(GradcheckError, match=r"output\[29, 23\]/inputs\[0\]\[29, 23\]"):
        gradcheck(OneEntry.apply, (x, 748, 1.5))


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("wrong", ["rows", "points"])
def test_a_wrong_batch_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, factor: float, wrong: str
) -> None:
    """What batched passes say, right or wrong, is not believed where plain ones say otherwise."""
    if wrong == "rows":
        real = analytical._pulled_back

        def scaled(*arguments: Any, batched: bool = False) -> Any:
            by = 2 / factor**2 if batched else 1.0
            return [J * by for J in real(*arguments, batched=batched)]

        monkeypatch.setattr(analytical, "_pulled_back", scaled)
    else:
        vmap = torch.func.vmap
        monkeypatch.setattr(torch.func, "vmap", lambda f: lambda p: [2 * o for o in vmap(f)(p)])
    found = gradcheck(Scaled.apply, (draw(4, 5), factor), raise_exception=False)
    assert found is (factor == 1.0)


def test_wrong_as_computed_at_once_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numerical.slopes
    looks = []

    def off(*arguments: Any, batch: bool, **options: Any) -> Any:
        looks.append(batch)
        matrices = real(*arguments, batch=batch, **options)
        if batch:
            matrices[0][17] *= 2
        return matrices

    monkeypatch.setattr("fastgc.torch.comparison.slopes", off)
    assert gradcheck(torch.sin, draw(4, 5))
    assert looks == [True, False]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"eps": 0.0}, ValueError, "eps is 0"),
        ({"eps": "1"}, TypeError, "eps is '1'"),
        ({"atol": -1.0}, ValueError, "atol is -1.0"),
        ({"rtol": float("nan")}, ValueError, "rtol is nan"),
        ({"nondet_tol": -1.0}, ValueError, "nondet_tol is -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        gradcheck(torch.sin, draw(3), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    x = draw(4, 5).detach().cuda().requires_grad_()
    devices = set()

    def func(x: Any) -> Any:
        devices.add(x.device.type)
        return Scaled.apply(x, 2.0)

    assert gradcheck(torch.sin, x)
    with pytest.raises(GradcheckError, match=r"2\.000 × the numerical gradient"):
        gradcheck(func, x)
    assert devices == {"cuda"}


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize(
    "options",
    [{}, {"gen_non_contig_grad_outputs": True}, {"check_fwd_over_rev": True}, {"nondet_tol": 1e-9}],
)
def test_gradgradcheck(factor: float, options: dict[str, Any]) -> None:
    x = draw(3, 4)
    for check in (gradgradcheck, torch.autograd.gradgradcheck):
        assert check(torch.mul, (x, draw(4, seed=1)), **options)
        assert check(torch.sin, x, draw(3, 4, seed=2), **options)
        if "check_fwd_over_rev" not in options:  # which Cubed has no rule for
            right = check(lambda x: Cubed.apply(x, factor), (x,), raise_exception=False, **options)
            assert right is (factor == 1.0)


def test_gradgradcheck_report() -> None:
    x = draw(3)
    with pytest.raises(
        GradcheckError, match=r"^output\[\d\]/inputs\[0\]\[\d\].*2\.000 ×"
    ) as caught:
        gradgradcheck(lambda x: Cubed.apply(x, 2.0), x)
    assert caught.value.report is not None
    tensors = caught.value.report.tensors
    assert {name: t.ok for name, t in tensors.items()} == {"inputs[0]": False, "inputs[1]": True}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"check_rev_over_rev": False}, "check_fwd_over_rev and check_rev_over_rev are both False"),
        (
            {"check_rev_over_rev": False, "check_fwd_over_rev": True},
            "check_undefined_grad=True needs check_rev_over_rev=True",
        ),
    ],
)
def test_gradgradcheck_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        gradgradcheck(torch.sin, draw(3), **options)
