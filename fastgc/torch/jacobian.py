"""Drop-ins for PyTorch's ``gradcheck`` and ``gradgradcheck`` that compare all entries, fast."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# by this path the module: as an attribute, torch.autograd.gradcheck is the function
from torch.autograd.gradcheck import GradcheckError as TorchGradcheckError
from torch.autograd.gradcheck import gradcheck as torch_gradcheck

from fastgc.options import require_number
from fastgc.report.report import Report
from fastgc.torch.analytical import Refused
from fastgc.torch.comparison import Comparison, compare
from fastgc.torch.float64 import tensors_in
from fastgc.torch.function import (
    Function,
    are_plain,
    as_tuple,
    function_at,
    is_differentiated,
    passes_nothing_back,
)
from fastgc.torch.mismatch import first_line, report_of
from fastgc.torch.numerical import Tolerance
from fastgc.torch.reasons import reason_for
from fastgc.torch.state import kept_generators


class GradcheckError(TorchGradcheckError):
    """What `gradcheck` raises; ``torch.autograd.gradcheck``'s own error, with fastgc's report.

    Attributes:
        report: the `fastgc.Report` on the Jacobian. It is correct where the Jacobian is, and the
            message says which other requirement is not met; None where there is nothing to compare,
            as of a function that is random.

    >>> import torch
    >>> from fastgc.torch import GradcheckError, gradcheck
    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> try:
    ...     gradcheck(lambda x: (x**2).detach() * x, x)
    ... except GradcheckError as error:
    ...     error.report.verdict
    'wrong'
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type["GradcheckError"], tuple[str, Report | None]]:
        return GradcheckError, (str(self), self.report)


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,  # noqa: ARG001  all entries are compared in any case
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of `func` are its slopes; as ``torch.autograd.gradcheck``, and faster.

    The answer is that of PyTorch's slow mode: every entry of every Jacobian, of each output with
    respect to each input that requires a gradient, has to be within
    ``atol + rtol · |numerical|`` of a central difference. Many points are evaluated at once with
    ``torch.func.vmap``, and many backward passes, wherever that gives what single ones give; else
    they go one by one.

    Args:
        func: a function of tensors, and of anything else, that returns a tensor or a tuple of them.
        inputs: its arguments, as a tuple or a list; or its only one. Those that require a gradient
            are checked. They are written to during the check and restored to the bit.
        eps: the step of the differences.
        atol, rtol: ``|analytic − numerical| ≤ atol + rtol · |numerical|``, for each entry.
        raise_exception: whether wrong gradients raise; otherwise the answer is False.
        nondet_tol: how far apart two backward passes over the same graph may be.
        check_undefined_grad: whether a backward pass has to take undefined gradients for zeros.
        check_grad_dtypes: whether gradients have to have their inputs' dtypes.
        check_batched_grad: whether backward passes have to work under vmap.
        check_batched_forward_grad: whether forward AD has to.
        check_forward_ad: whether forward AD is checked as well.
        check_backward_ad: whether backward passes are checked.
        fast_mode: taken for the sake of the signature; all entries are compared in any case.
        masked: of sparse inputs, as PyTorch has it.

    Calls with a sparse, MKL-DNN or nested tensor among the inputs that require a gradient are
    handed to ``torch.autograd.gradcheck`` in its slow mode; their exceptions are PyTorch's.

    Returns:
        True; or False for wrong gradients where `raise_exception` is False.

    Raises:
        GradcheckError: for wrong gradients; a ``torch.autograd.gradcheck.GradcheckError`` whose
            ``report`` is fastgc's, and whose text says which entry is wrong and how. Where the
            function lets nobody tell, it says that instead: that two identical calls differ, or
            that single precision inside leaves too few digits.
        ValueError: where no input requires a gradient, or for an `eps` that is not above 0.
        RuntimeError: for an input of which entries share memory, as of ``expand``.

    Inputs of less than double precision get PyTorch's warning, and its differences to the bit. An
    exception that the function raises passes through. The random state is left as it was.

    Source: torch.autograd.gradcheck, whose documentation describes what is required.

    >>> import torch
    >>> from fastgc.torch import gradcheck
    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> gradcheck(torch.sin, (x,))
    True
    >>> gradcheck(lambda x: (x**2).detach() * x, (x,), raise_exception=False)
    False
    """
    for value, name in ((atol, "atol"), (rtol, "rtol")):
        require_number(value, name)
    if require_number(eps, "eps") == 0:
        raise ValueError("eps is 0; wanted the step of the differences, as 1e-6")
    if not nondet_tol >= 0:
        raise ValueError(f"nondet_tol is {nondet_tol}; wanted 0 or more")
    arguments = as_tuple(inputs)
    requirements: dict[str, Any] = {
        "check_undefined_grad": check_undefined_grad,
        "check_grad_dtypes": check_grad_dtypes,
        "check_batched_grad": check_batched_grad,
        "check_batched_forward_grad": check_batched_forward_grad,
        "check_forward_ad": check_forward_ad,
        "check_backward_ad": check_backward_ad,
        "masked": masked,
    }
    if any(_is_beyond(x) for x in arguments):
        return torch_gradcheck(
            func, inputs, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
            nondet_tol=nondet_tol, **requirements,
        )  # fmt: skip
    began, tolerance = time.perf_counter(), Tolerance(float(atol), float(rtol), nondet_tol)
    with kept_generators(tensors_in(arguments)):
        function, reason, unimplemented = _function(func, inputs, eps, requirements)
        try:
            comparison = _first_at_fault(function, float(eps), tolerance, requirements)
        except Refused as refusal:
            reason, comparison = str(refusal), None
        wrong = comparison is not None and comparison.at_fault
        if not wrong and unimplemented is not None:
            raise unimplemented
        if not wrong and reason is None:
            return True
        if not raise_exception:
            return False
        raise _error(function, comparison, reason, began)


def _function(
    func: Callable[..., Any], inputs: Any, eps: float, requirements: Mapping[str, Any]
) -> tuple[Function, str | None, NotImplementedError | None]:
    """The function at its inputs; what else PyTorch finds amiss; and what it does not implement."""
    arguments = as_tuple(inputs)
    names = {name for name, value in requirements.items() if value}
    if are_plain(arguments) and names - {"check_undefined_grad"} == {"check_backward_ad"}:
        function = function_at(func, arguments)
        if passes_nothing_back(function, check_undefined_grad="check_undefined_grad" in names):
            return function, None, None
    reason = unimplemented = None
    # a step that moves nothing and a tolerance that allows everything, so that the one random
    # projection of the fast mode decides nothing
    half = any(isinstance(x, Tensor) and x.dtype == torch.float16 for x in arguments)
    try:
        torch_gradcheck(
            func, inputs, eps=eps if half else 1e-30, atol=1e300, rtol=0.0, nondet_tol=float("inf"),
            fast_mode=True, **requirements,
        )  # fmt: skip
    except TorchGradcheckError as error:
        reason = str(error)
    except NotImplementedError as error:  # which a wrong backward pass comes before
        unimplemented = error
    return function_at(func, arguments), reason, unimplemented


def _first_at_fault(
    function: Function, eps: float, tolerance: Tolerance, requirements: Mapping[str, Any]
) -> Comparison | None:
    """The comparison of the first mode that is wrong, else of the last."""
    modes: tuple[str, ...] = ("no gradient",)
    if any(o.requires_grad for o in function.outputs):
        modes = ("backward AD",) * requirements["check_backward_ad"]
        modes += ("forward AD",) * requirements["check_forward_ad"]
    comparison = None
    for mode in modes:
        comparison = compare(function, mode, eps, tolerance)
        if comparison.at_fault:
            break
    return comparison


def _error(
    function: Function, comparison: Comparison | None, text: str | None, began: float
) -> GradcheckError:
    """What to raise: of a wrong Jacobian, whether the function lets anyone tell."""
    if comparison is not None and comparison.at_fault:
        text = None
        reason = reason_for(function, comparison)
        if reason is not None:
            text, comparison, function = reason.text, reason.comparison, reason.function
    if comparison is None or not any(len(pair) for pair in comparison.pairs):
        return GradcheckError(str(text))
    report = report_of(comparison, function, time.perf_counter() - began)
    return GradcheckError(f"{text or first_line(report)}\n{report}", report)


def _is_beyond(x: object) -> bool:
    """Whether an input is left to PyTorch's own gradcheck."""
    return isinstance(x, Tensor) and x.requires_grad and (x.layout != torch.strided or x.is_nested)


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Whether the gradients of the gradients of `func` are right; as PyTorch's ``gradgradcheck``.

    Args:
        func: a function of tensors that returns a tensor or a tuple of them.
        inputs: its arguments, as a tuple or a list; or its only one.
        grad_outputs: what is pulled back, for each output that can be differentiated; None for
            random numbers between −1 and 1. In the report they are the inputs that follow `func`'s.
        gen_non_contig_grad_outputs: whether those are not contiguous.
        check_fwd_over_rev: as `gradcheck`'s ``check_forward_ad``.
        check_rev_over_rev: as `gradcheck`'s ``check_backward_ad``.
        eps, atol, rtol, raise_exception, nondet_tol: as `gradcheck` has them.
        check_undefined_grad, check_grad_dtypes: likewise.
        check_batched_grad, fast_mode, masked: likewise.

    Returns:
        True; or False for wrong ones where `raise_exception` is False.

    Raises:
        GradcheckError: for wrong ones, with a report whose outputs are the first gradients.
        AssertionError: for options that exclude each other, as PyTorch's.
        ValueError, RuntimeError: as `gradcheck`.

    Source: torch.autograd.gradgradcheck.

    >>> import torch
    >>> from fastgc.torch import gradgradcheck
    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> gradgradcheck(torch.sin, (x,))
    True
    """
    if not (check_fwd_over_rev or check_rev_over_rev):
        raise AssertionError(
            "check_fwd_over_rev and check_rev_over_rev are both False; wanted one of them at least"
        )
    for name, value in (
        ("check_undefined_grad", check_undefined_grad), ("check_batched_grad", check_batched_grad),
    ):  # fmt: skip
        if value and not check_rev_over_rev:
            raise AssertionError(f"{name}=True needs check_rev_over_rev=True")
    arguments = as_tuple(inputs)
    with kept_generators(tensors_in(arguments)):
        if grad_outputs is None:
            pulled = tuple(
                torch.testing.make_tensor(
                    o.shape, dtype=o.dtype, device=o.device, low=-1, high=1,
                    requires_grad=True, noncontiguous=gen_non_contig_grad_outputs,
                )
                for o in filter(is_differentiated, as_tuple(func(*arguments)))
            )  # fmt: skip
        else:
            pulled = as_tuple(grad_outputs)
    return gradcheck(
        _gradients_of(func, arguments, pulled), (*arguments, *pulled), eps=eps, atol=atol,
        rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, fast_mode=fast_mode,
        check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev, masked=masked,
    )  # fmt: skip


def _gradients_of(
    func: Callable[..., Any], arguments: tuple[Any, ...], pulled: tuple[Any, ...]
) -> Callable[..., tuple[Tensor, ...]]:
    """The gradients of a function, as a function of its arguments and of what is pulled back."""
    count = len(arguments)
    wanted = [is_differentiated(x) for x in (*arguments, *pulled)]

    def gradients(*values: Any) -> tuple[Tensor, ...]:
        # forward AD gets tensors that require nothing
        inputs = [x.requires_grad_() if w else x for x, w in zip(values, wanted, strict=True)]
        derived = torch.autograd.grad(
            [o for o in as_tuple(func(*inputs[:count])) if o.requires_grad],
            [x for x, w in zip(inputs[:count], wanted, strict=False) if w],
            inputs[count:],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(g for g in derived if g is not None)

    return gradients
