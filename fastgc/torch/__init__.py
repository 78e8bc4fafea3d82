"""fastgc for PyTorch."""

from fastgc.torch.jacobian import GradcheckError, gradcheck

__all__ = ["GradcheckError", "gradcheck"]
