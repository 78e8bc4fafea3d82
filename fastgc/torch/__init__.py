"""fastgc for PyTorch: the gradients of a module, checked by parameter name."""

from fastgc.torch.module import assert_module, check_module
from fastgc.torch.watching import watch

__all__ = ["assert_module", "check_module", "watch"]
