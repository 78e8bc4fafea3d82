"""Whether a cost evaluated at many points in one call is the function that it is at one."""

import math
import warnings

import numpy as np

from fastgc.core.rng import generator
from fastgc.costs.base import Candidate, Cost

AWAY = 1e-2  # of the scale of each parameter, the points at which the two are compared


def try_rows(cost: Cost, candidate: Candidate) -> None:
    """Lets a cost take many rows in a call, where that is tried and gives what single calls give.

    Else it takes one at a time, and says why.
    """
    reason, cost.candidate = _difference(cost, candidate), None
    if reason is None:
        cost.batch = candidate.batch
    else:
        cost.unbatched = f'{reason}. Pass method="loop", which evaluates one set at a time'


def _difference(cost: Cost, candidate: Candidate) -> str | None:
    """What a call with many rows does otherwise than single calls; None for nothing."""
    moved = cost.theta + AWAY * cost.scale * generator(6).standard_normal((2, cost.theta.size))
    parts = [slice(None)]
    if candidate.apart and len(cost.layout.names) > 1:
        parts += [part for _, part in cost.layout.tensors()]
    for part in parts:
        rows = np.repeat(cost.theta[np.newaxis], 2, axis=0)
        rows[:, part] = moved[:, part]
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                together = cost.values(rows)
        except Exception as error:
            return f"{candidate.name} raises {type(error).__name__}: {_first_line(error)}"
        with warnings.catch_warnings(record=True) as usual:
            warnings.simplefilter("always")
            alone = [cost.value_or_nan(row) for row in rows]
        known = {(w.category, str(w.message)) for w in usual}
        for w in warned:
            if (w.category, str(w.message)) not in known:
                return f"{candidate.name} warns: {str(w.message).splitlines()[0]}"
        for one, other in zip(alone, together.tolist(), strict=True):
            if not _same(one, other, candidate.tolerance):
                return f"{candidate.name} gives {other!r} where the loss is {one!r}"
    return None


def _same(one: float, other: float, tolerance: float) -> bool:
    """Whether two values are the same number; what is not finite tells nothing."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return True
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "without a message"
