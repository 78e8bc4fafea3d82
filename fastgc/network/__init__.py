"""A multilayer perceptron as a cost, its exact differences, and the kernels that carry them."""

from fastgc.network.cost import NetworkCost
from fastgc.network.network import Network

__all__ = ["Network", "NetworkCost"]
