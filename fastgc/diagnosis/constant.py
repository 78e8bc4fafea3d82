"""A cost that changes with no parameter."""

import math

import numpy as np

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.drawing import generator
from fastgc.problem import Problem

CONSTANT = Diagnosis(
    "constant", "the cost does not change with any parameter: does it use its argument?"
)

# How far all parameters are moved at once, relative to the size of each tensor: a parameter may
# act only close by, as at the bottom of a hollow, or only far off, as one that is rounded.
MOVES = (1e-6, 1e-3, 1.0)


def stands_still(problem: Problem) -> tuple[bool, int]:
    """Whether J is the same number wherever it is asked for, and the evaluations spent.

    A slope of zero does not say so: x² has one at 0, and moves. The last evaluation is at θ.
    """
    rng = generator(9)
    theta = problem.theta
    size = np.ones(theta.size)
    for _, here in problem.layout.tensors():
        size[here] = math.sqrt(float(np.mean(np.square(theta[here])))) or 1.0
    moved = [
        problem.evaluate_or_nan(theta + move * size * rng.standard_normal(theta.size))
        for move in MOVES
    ]
    value = problem.evaluate_or_nan(theta)
    return all(cost == value for cost in moved), len(MOVES) + 1
