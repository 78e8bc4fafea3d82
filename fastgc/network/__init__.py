"""A multilayer perceptron as a cost, its exact differences, and the kernels that carry them."""
