"""fastgc.torch.gradcheck against torch.autograd.gradcheck."""

import contextlib
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import fastgc
from fastgc.torch import GradcheckError, gradcheck
from tests.gradcheck_cases import CASES, Case, OneEntry, Scaled, draw

from torch.autograd.gradcheck import GradcheckError as TorchError  # isort: skip

pytestmark = [
    # PyTorch's own, the first time that forward AD, or a sparse tensor, is used
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
]


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


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.says], ids=lambda case: case.name
)
def test_message(case: Case) -> None:
    func, inputs = case.make()
    wanted = case.raises or TorchError
    with warnings.catch_warnings(action="ignore" if case.warns else "error"):
        with pytest.raises(wanted, match=case.says) as caught:
            gradcheck(func, inputs, **case.options)
    report = getattr(caught.value, "report", None)
    if isinstance(caught.value, GradcheckError) and report is not None:
        assert fastgc.Report.from_dict(report.to_dict()).to_dict() == report.to_dict()
        assert str(report) in str(caught.value)
