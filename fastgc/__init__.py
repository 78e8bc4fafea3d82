"""fastgc: numerical gradient checking, fast and by name."""

from fastgc.checking import GradientMismatch, assert_gradients, check, numerical_gradient
from fastgc.diagnosis.evidence import Diagnosis
from fastgc.network import Network
from fastgc.planning import Forecast, Plan, plan
from fastgc.report import Arrays, Entry, Report, TensorReport
from fastgc.selection import select_method
from fastgc.watcher import Watcher
from fastgc.watching import watch

__version__ = "0.1.0"

__all__ = [
    "Arrays",
    "Diagnosis",
    "Entry",
    "Forecast",
    "GradientMismatch",
    "Network",
    "Plan",
    "Report",
    "TensorReport",
    "Watcher",
    "assert_gradients",
    "check",
    "numerical_gradient",
    "plan",
    "select_method",
    "watch",
]
