"""Only some samples counted: which, from a gradient that is a sum over samples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.diagnosis.evidence import Diagnosis, Evidence
from fastgc.diagnosis.words import join
from fastgc.layout import FloatArray

ENTRIES = 8  # of the gradient for each sample, where there are more


class Counted(NamedTuple):
    """What each sample counts, (m,), and the words for it."""

    weights: FloatArray
    diagnosis: Diagnosis


def some_samples(e: Evidence, dZ: FloatArray, A: FloatArray, divisor: float) -> Counted | None:
    """Weights of 0 and one other number that reproduce the gradient Σ_s w_s dZ_s A_sᵀ / m.

    Args:
        e: the tensor.
        dZ: (m, n).
        A: (m, k); ones (m, 1) for a bias.
        divisor: of the sum, m as a rule.
    """
    m = dZ.shape[0]
    if m < 2 or not e.clear:
        return None
    k = A.shape[1]
    places = np.flatnonzero(e.known)
    if places.size > ENTRIES * m:
        drawn = np.random.default_rng(0).choice(places.size, ENTRIES * m, replace=False)
        places = np.union1d(places[drawn], e.probe[e.known[e.probe]])
    rows, columns = np.divmod(places, k)
    terms = (dZ[:, rows] * A[:, columns]).T / divisor  # (entries, m)
    target = (e.g - e.fixed)[places]
    if not np.isfinite(terms).all():
        return None

    def fits(weights: FloatArray, numbers: int) -> bool:
        part, slack = terms @ weights, e.slack[places]
        errors = np.abs(part - target)
        scale = np.maximum(np.maximum(np.abs(part), np.abs(target)), e.size_of_g)
        if (errors > e.tolerance * scale + slack * max(1.0, weights.max())).any():
            return False
        # told by more entries, and by such as do not follow from one another, than it has numbers
        if np.linalg.matrix_rank(terms) <= numbers:
            return False
        whole = ((dZ * weights[:, np.newaxis]).T @ A).ravel() / divisor
        return e.scaled(max(1.0, weights.max())).shows(whole + e.fixed, max(1, numbers))

    for counted, numbers in _guesses(terms, target):
        size = int(counted.sum())
        if not 0 < size < m:
            continue
        for weight, also in ((1.0, ""), (m / size, ", and averaged over them alone")):
            weights = np.where(counted, weight, 0.0)
            if fits(weights, numbers):
                text = f"{_which(counted)}{also}"
                return Counted(weights, Diagnosis("samples", text, float(size)))
    return None


def _guesses(terms: FloatArray, target: FloatArray) -> Iterator[tuple[NDArray[np.bool_], int]]:
    """Sets of samples that may be those counted, each with the numbers that were free in it."""
    m = terms.shape[1]
    sizes = np.sqrt((terms * terms).sum(axis=0))
    telling = sizes > 1e-9 * sizes.max(initial=0.0)
    if telling.any() and telling.sum() < terms.shape[0]:
        weights, _, rank, _ = np.linalg.lstsq(terms[:, telling] / sizes[telling], target)
        weights = weights / sizes[telling]
        if rank == telling.sum() and weights.max() > 0:
            counted = np.ones(m, dtype=np.bool_)  # those that tell nothing may as well be counted
            counted[telling] = weights > 0.5 * weights.max()
            yield counted, 0  # the equations left over have told
            yield counted & telling, 0
            return
    # too few equations for that: one sample, all but one, the first ones, the last ones
    order = np.arange(m)
    for s in range(m):
        yield order == s, 1
        yield order != s, 1
    for s in range(2, m - 1):
        yield order < s, 2
        yield order >= s, 2


def _which(counted: NDArray[np.bool_]) -> str:
    m = counted.size
    inside, outside = np.flatnonzero(counted), np.flatnonzero(~counted)
    if outside.size <= min(3, inside.size - 1):
        named = join([str(s) for s in outside])
        which = f"sample {named} is" if outside.size == 1 else f"samples {named} are"
        return f"{which} left out, of {m}"
    if inside.size > 2 and inside[-1] - inside[0] == inside.size - 1:
        named = f"{inside[0]} to {inside[-1]}"
    else:
        named = join([*map(str, inside[:6]), *(["others"] if inside.size > 6 else [])])
    which = f"sample {named} is" if inside.size == 1 else f"samples {named} are"
    return f"only {which} counted, of {m}"
