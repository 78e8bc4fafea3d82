"""fastgc: numerical gradient checking, fast and by name."""

from fastgc._version import __version__ as __version__
from fastgc.check import GradientMismatch, assert_gradients, check, numerical_gradient
from fastgc.methods.registry import select_method
from fastgc.network.network import Network
from fastgc.options import Options, WatchOptions
from fastgc.plan import Forecast, Plan, plan
from fastgc.report.data import Arrays, Diagnosis, Entry, TensorReport
from fastgc.report.report import Report
from fastgc.watch import watch
from fastgc.watcher import Watcher

__all__ = [
    "Arrays",
    "Diagnosis",
    "Entry",
    "Forecast",
    "GradientMismatch",
    "Network",
    "Options",
    "Plan",
    "Report",
    "TensorReport",
    "WatchOptions",
    "Watcher",
    "assert_gradients",
    "check",
    "numerical_gradient",
    "plan",
    "select_method",
    "watch",
]
