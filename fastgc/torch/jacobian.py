"""A drop-in for ``torch.autograd.gradcheck`` that compares all entries, fast, and reports."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

# by this path the module: as an attribute, torch.autograd.gradcheck is the function
from torch.autograd.gradcheck import GradcheckError as TorchGradcheckError
from torch.autograd.gradcheck import gradcheck as torch_gradcheck

from fastgc.options import require_number
from fastgc.report.report import Report
from fastgc.torch import analytical
from fastgc.torch.comparison import Comparison, Pair, look_again, real_part
from fastgc.torch.function import are_plain, meets, posed, unchanged_random_state
from fastgc.torch.mismatch import first_line, report_of
from fastgc.torch.numerical import Subject, Tolerance, as_tuple, parts_of, quiet, slopes
from fastgc.torch.reasons import reason_for

LOOKS = 64  # columns, and rows, that are looked at again one by one before they are called wrong


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
    began, tolerance = time.perf_counter(), Tolerance(float(atol), float(rtol))
    with unchanged_random_state(arguments):
        function, reason, lacking = _ready(func, inputs, eps, requirements)
        try:
            comparison = _first_at_fault(function, float(eps), tolerance, nondet_tol, requirements)
        except analytical.Refused as refusal:
            reason, comparison = str(refusal), None
        wrong = comparison is not None and comparison.at_fault
        if not wrong and lacking is not None:
            raise lacking
        if not wrong and reason is None:
            return True
        if not raise_exception:
            return False
        raise _error(function, comparison, reason, nondet_tol, began)


def _ready(
    func: Callable[..., Any], inputs: Any, eps: float, requirements: Mapping[str, Any]
) -> tuple[Subject, str | None, NotImplementedError | None]:
    """The function at its inputs; what else PyTorch finds amiss; and what it does not implement."""
    arguments = as_tuple(inputs)
    undefined = bool(requirements["check_undefined_grad"])
    asked = {name for name, value in requirements.items() if value} - {"check_undefined_grad"}
    if are_plain(arguments) and asked == {"check_backward_ad"}:
        function = posed(func, arguments)
        if meets(function, check_undefined_grad=undefined):
            return function, None, None
    reason = lacking = None
    try:  # PyTorch's own says what is amiss, if anything is
        reason = _other_requirements(func, inputs, arguments, eps, requirements)
    except NotImplementedError as error:  # which a wrong backward pass comes before
        lacking = error
    return posed(func, arguments), reason, lacking


def _first_at_fault(
    function: Subject,
    eps: float,
    tolerance: Tolerance,
    nondet_tol: float,
    requirements: Mapping[str, Any],
) -> Comparison | None:
    """The comparison of the first mode that is wrong, else of the last."""
    modes: tuple[str, ...] = ("no gradient",)
    if any(o.requires_grad for o in function.outputs):
        modes = ("backward AD",) * requirements["check_backward_ad"]
        modes += ("forward AD",) * requirements["check_forward_ad"]
    comparison = None
    for mode in modes:
        comparison = _compare(function, mode, eps, tolerance, nondet_tol)
        if comparison.at_fault:
            break
    return comparison


def _error(
    subject: Subject,
    comparison: Comparison | None,
    reason: str | None,
    nondet_tol: float,
    began: float,
) -> GradcheckError:
    """What to raise: of a wrong Jacobian, whether the function lets anyone tell."""
    if comparison is not None and comparison.at_fault:
        mode, reason = comparison.mode, None

        def compare(other: Subject, step: float, tolerance: Tolerance) -> Comparison:
            return _compare(other, mode, step, tolerance, nondet_tol)

        amiss = reason_for(subject, comparison, compare)
        if amiss is not None:
            reason, comparison = amiss.text, amiss.comparison
            subject = amiss.subject or subject
    if comparison is None or not any(len(pair) for pair in comparison.pairs):
        return GradcheckError(str(reason))
    report = report_of(comparison, subject, time.perf_counter() - began)
    return GradcheckError(f"{reason or first_line(report)}\n{report}", report)


def _is_beyond(x: object) -> bool:
    """Whether an input is left to PyTorch's own gradcheck."""
    return isinstance(x, Tensor) and x.requires_grad and (x.layout != torch.strided or x.is_nested)


def _other_requirements(
    func: Callable[..., Any],
    inputs: Any,
    arguments: tuple[Any, ...],
    eps: float,
    requirements: Mapping[str, Any],
) -> str | None:
    """What PyTorch's gradcheck finds amiss beside the Jacobian; None for nothing.

    This is its fast mode with a step that moves nothing and a tolerance that allows everything, so
    that its one random projection decides nothing.
    """
    half = any(isinstance(x, Tensor) and x.dtype == torch.float16 for x in arguments)
    try:
        torch_gradcheck(
            func, inputs, eps=eps if half else 1e-30, atol=1e300, rtol=0.0, nondet_tol=float("inf"),
            fast_mode=True, **requirements,
        )  # fmt: skip
    except TorchGradcheckError as error:
        return str(error)
    return None


def _compare(
    subject: Subject, mode: str, eps: float, tolerance: Tolerance, nondet_tol: float
) -> Comparison:
    """Analytic against numerical; what is wrong as computed in batches is looked at again."""
    graph = not quiet(subject)
    for batch in (True, False):
        numerical = {
            (k, part): slopes(subject, k, part, eps, tolerance, graph=graph, batch=batch)
            for k in subject.wanted
            for part in parts_of(subject.inputs[k])
        }
        pairs = PAIRS[mode](
            subject, {at: s.central for at, s in numerical.items()}, nondet_tol, batch
        )
        if mode == "no gradient":
            tolerance = Tolerance(0.0, 0.0)
        comparison = Comparison(mode, eps, tolerance, tuple(pairs))
        if not comparison.at_fault:
            return comparison
        again = look_again(subject, comparison, LOOKS, graph=graph)
        if not batch:
            return replace(comparison, ends=again.ends)
        if again.confirms(comparison):
            return again
    raise AssertionError("the second time nothing is batched")


def _pairs_backward(
    subject: Subject,
    numerical: dict[tuple[int, complex], list[Tensor]],
    nondet_tol: float,
    batch: bool,
) -> list[Pair]:
    wanted = [subject.inputs[k] for k in subject.wanted]
    pairs = []
    for o, output in enumerate(subject.outputs):
        for of_output in parts_of(output):
            found = analytical.rows(real_part(output, of_output), wanted, nondet_tol, batch=batch)
            for k, J in zip(subject.wanted, found.jacobian, strict=True):
                parts = parts_of(subject.inputs[k])
                pairs.append(
                    Pair(
                        outputs=tuple((o, of_output) for _ in parts),
                        inputs=tuple((k, part) for part in parts),
                        analytic=tuple(_real(J, part) for part in parts),
                        numerical=tuple(
                            _real(numerical[k, part][o], of_output).T for part in parts
                        ),
                    )
                )
    return pairs


def _pairs_forward(
    subject: Subject, numerical: dict[tuple[int, complex], list[Tensor]], _: float, batch: bool
) -> list[Pair]:
    pairs = []
    for (k, part), found in numerical.items():
        columns = analytical.columns(subject, k, part, batch=batch)
        for o, (J, N) in enumerate(zip(columns, found, strict=True)):
            parts = parts_of(subject.outputs[o])
            pairs.append(
                Pair(
                    outputs=tuple((o, of_output) for of_output in parts),
                    inputs=tuple((k, part) for _ in parts),
                    analytic=tuple(_real(J, of_output).T for of_output in parts),
                    numerical=tuple(_real(N, of_output).T for of_output in parts),
                )
            )
    return pairs


def _pairs_zero(
    subject: Subject, numerical: dict[tuple[int, complex], list[Tensor]], _: float, __: bool
) -> list[Pair]:
    """Of outputs that have no gradient, which says that it is zero."""
    pairs = []
    for (k, part), found in numerical.items():
        for o, N in enumerate(found):
            for of_output in parts_of(subject.outputs[o]):
                real = _real(N, of_output).T
                pairs.append(
                    Pair(((o, of_output),), ((k, part),), (torch.zeros_like(real),), (real,))
                )
    return pairs


PAIRS = {
    "backward AD": _pairs_backward,
    "forward AD": _pairs_forward,
    "no gradient": _pairs_zero,
}


def _real(x: Tensor, part: complex) -> Tensor:
    return real_part(x, part).to(torch.float64)
