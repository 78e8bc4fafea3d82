"""fastgc.torch: right modules pass, planted bugs are named, and nothing of the caller's changes."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import fastgc  # noqa: E402
from fastgc.torch import assert_module, check_module  # noqa: E402
from tests.torch_cases import BUGS, CASES, Case, Through, closure, mlp, real, x32  # noqa: E402


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
    values = tensor.detach().contiguous()
    if values.is_complex():
        values = torch.view_as_real(values)
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return id(tensor), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), raw


def snapshot(module: nn.Module) -> list[Any]:
    """All that a check has to leave alone."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    return [
        [(name, bits(t), bits(t.grad), t.requires_grad, t._version) for name, t in named],
        [
            (name, m.training, {k: id(v) for k, v in vars(m).items()}, list(m._forward_hooks))
            for name, m in module.named_modules()
        ],
        [list((p._backward_hooks or {}).items()) for p in module.parameters()],
        bits(torch.get_rng_state())[2:], random.getstate(),
        [np.asarray(part).tolist() for part in np.random.get_state()],
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
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
