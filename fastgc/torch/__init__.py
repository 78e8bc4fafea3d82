"""fastgc for PyTorch."""

from fastgc.torch.jacobian import GradcheckError, gradcheck
from fastgc.torch.second import gradgradcheck

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
