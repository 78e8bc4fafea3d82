"""fastgc for PyTorch: gradients of modules by parameter name, and Jacobians of functions."""

from fastgc.torch.jacobian import GradcheckError, gradcheck
from fastgc.torch.module import assert_module, check_module
from fastgc.torch.second import gradgradcheck
from fastgc.torch.watching import watch

__all__ = [
    "GradcheckError",
    "assert_module",
    "check_module",
    "gradcheck",
    "gradgradcheck",
    "watch",
]
