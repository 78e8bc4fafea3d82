"""The scale of each parameter, and steps that are exact beside it."""

import numpy as np

from fastgc.layout import FloatArray, Layout

# A tensor whose entries span more than this holds quantities of several units, as a flat vector of
# all parameters does; then each entry has a scale of its own.
SPAN = 1e3


def scale_of(theta: FloatArray) -> FloatArray:
    """The scale of each parameter of a tensor, (n,): |θ_k|, or the tensor's size where it is small.

    The size is the root mean square. Where entries span more than 10³ it is that of no entry: then
    the scale is |θ_k| itself, and the median of these where θ_k is 0. Where all are 0, it is 1.
    """
    values = np.abs(theta)
    largest = float(values.max())
    if largest == 0:
        return np.ones(theta.size)
    others = values[values > 0]
    if largest > SPAN * float(others.min()):
        return np.where(values > 0, values, float(np.median(others)))
    typical = float(np.sqrt(np.mean(np.square(values / largest)))) * largest
    return np.maximum(values, typical)


def scales(layout: Layout, theta: FloatArray) -> FloatArray:
    """`scale_of` each tensor of a flat vector, (P,)."""
    found = np.empty(theta.size)
    for _, part in layout.tensors():
        found[part] = scale_of(theta[part])
    return found


def exact_steps(theta: FloatArray, steps: FloatArray | float) -> FloatArray:
    """Steps close to `steps` for which θ + ε and θ − ε are free of rounding, (P,).

    Where ε is larger than |θ|, θ ± ε is rounded still, by u·ε. A step lost beside θ stays as it is.

    >>> import numpy as np
    >>> step = exact_steps(np.array([1.0]), 1e-7)
    >>> bool((1.0 + step) - 1.0 == 1.0 - (1.0 - step)), bool(abs(step / 1e-7 - 1) < 1e-8)
    (True, True)
    """
    size = np.abs(theta)
    with np.errstate(over="ignore", invalid="ignore"):
        found = (size + steps) - size
    return np.where((found > 0) & np.isfinite(found), found, steps)
