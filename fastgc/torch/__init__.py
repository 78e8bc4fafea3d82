"""fastgc for PyTorch: gradients of modules by parameter name, and Jacobians of functions.

PyTorch is the extra ``torch``: ``pip install "fastgc[torch]"``.
"""

try:
    import torch as _torch  # noqa: F401  for the message where it is missing
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    advice = 'fastgc.torch needs PyTorch; pip install "fastgc[torch]"'
    raise ModuleNotFoundError(advice, name="torch") from error

from fastgc.torch.jacobian import GradcheckError, gradcheck, gradgradcheck
from fastgc.torch.module import assert_module, check_module
from fastgc.torch.watching import watch

__all__ = [
    "GradcheckError",
    "assert_module",
    "check_module",
    "gradcheck",
    "gradgradcheck",
    "watch",
]
