"""Tensors that a cost does not depend on, whose gradients are rounding errors of zero.

As the bias below a batch normalisation, or that of the keys of an attention: differences of such a
cost are rounding as well, and comparing the two can tell nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.rng import generator
from fastgc.core.tree import FloatArray

#: Gradients that are this small beside others, in their dtype, may be rounding errors of zero.
VANISHING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2}

# Moved by so much of its own size, such a tensor changes the cost by no more than this, relatively.
MOVES, UNMOVED = (1e-2, 0.3, 1.0), 1e-12


def unused_parameters(
    cost: Callable[[dict[str, FloatArray]], float],
    theta: Mapping[str, FloatArray],
    gradients: Mapping[str, NDArray[Any] | None],
    names: Sequence[str],
) -> list[str]:
    """Those of the tensors `names` that the cost does not depend on, though a gradient is given.

    Args:
        cost: parameters -> J.
        theta: the parameters.
        gradients: of all tensors, or of some; None where there is none.
        names: of the tensors in question.
    """
    held = {name: g for name, g in gradients.items() if g is not None and g.size}
    largest = {name: float(np.abs(g).max()) for name, g in held.items()}
    top = max(largest.values(), default=0.0)
    small = [
        name
        for name in names
        if name in held and 0 < largest[name] <= VANISHING.get(held[name].dtype.name, 0.0) * top
    ]
    if not small:
        return []
    rng, J, found = generator(7), cost(dict(theta)), []
    for name in small:
        values = theta[name]
        size = float(np.sqrt(np.mean(np.square(values)))) or 1.0
        moves = [move * size * rng.standard_normal(values.shape) for move in MOVES]
        away = [cost({**theta, name: values + move}) for move in moves]
        if all(abs(other - J) <= UNMOVED * abs(J) for other in away):
            found.append(name)
    return found
