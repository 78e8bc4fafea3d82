"""What a cost is, its noise, and the step that it asks for."""

from fastgc.costs.base import Cost, as_cost
from fastgc.costs.function import FunctionCost
from fastgc.costs.numba import NumbaCost

__all__ = ["Cost", "FunctionCost", "NumbaCost", "as_cost"]  # each kind registers itself
