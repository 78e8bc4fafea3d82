"""A drop-in for ``torch.autograd.gradgradcheck``: `gradcheck` of the gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastgc.torch.function import unchanged_random_state
from fastgc.torch.jacobian import gradcheck
from fastgc.torch.numerical import as_tuple


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
    with unchanged_random_state(arguments):
        if grad_outputs is None:
            pulled = tuple(
                _drawn(o, noncontiguous=gen_non_contig_grad_outputs)
                for o in _differentiable(func(*arguments))
            )
        else:
            pulled = as_tuple(grad_outputs)
    count = len(arguments)
    wanted = [isinstance(x, Tensor) and x.requires_grad for x in (*arguments, *pulled)]

    def gradients(*values: Any) -> tuple[Tensor, ...]:
        # forward AD gets tensors that require nothing
        given = [
            x.requires_grad_() if is_wanted else x
            for x, is_wanted in zip(values, wanted, strict=True)
        ]
        found = torch.autograd.grad(
            _differentiable(func(*given[:count])),
            [x for x, is_wanted in zip(given[:count], wanted, strict=False) if is_wanted],
            given[count:],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients, (*arguments, *pulled), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, fast_mode=fast_mode,
        check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev, masked=masked,
    )  # fmt: skip


def _differentiable(found: Any) -> tuple[Tensor, ...]:
    return tuple(o for o in as_tuple(found) if o.requires_grad)


def _drawn(output: Tensor, *, noncontiguous: bool) -> Tensor:
    """Random numbers in the shape of an output."""
    return torch.testing.make_tensor(
        output.shape, dtype=output.dtype, device=output.device, low=-1, high=1,
        requires_grad=True, noncontiguous=noncontiguous,
    )  # fmt: skip
