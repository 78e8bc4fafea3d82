"""Gradients of other data: of some samples alone, or of other parameters."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray
from fastgc.diagnosis.evidence import Evidence, exactly, join
from fastgc.network.state import ForwardState
from fastgc.report.data import Diagnosis

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
        part, uncertainty = terms @ weights, e.uncertainty[places]
        errors = np.abs(part - target)
        scale = np.maximum(np.maximum(np.abs(part), np.abs(target)), e.size_of_g)
        if (errors > e.tolerance * scale + uncertainty * max(1.0, weights.max())).any():
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
    state, outside = np.flatnonzero(counted), np.flatnonzero(~counted)
    if outside.size <= min(3, state.size - 1):
        named = join([str(s) for s in outside])
        which = f"sample {named} is" if outside.size == 1 else f"samples {named} are"
        return f"{which} left out, of {m}"
    if state.size > 2 and state[-1] - state[0] == state.size - 1:
        named = f"{state[0]} to {state[-1]}"
    else:
        named = join([*map(str, state[:6]), *(["others"] if state.size > 6 else [])])
    which = f"sample {named} is" if state.size == 1 else f"samples {named} are"
    return f"only {which} counted, of {m}"


ROUNDS = 8


def stale(
    state: ForwardState, grad: FloatArray, tensors: Mapping[str, Evidence]
) -> Diagnosis | None:
    """Whether `grad` is the gradient at θ + α grad, from which a step of α led to θ."""
    if not np.isfinite(grad).all() or sum(e.telling(e.found) for e in tensors.values()) < 2:
        return None
    with np.errstate(all="ignore"):
        rounded = state.theta.astype(np.float32).astype(np.float64)
        if _fits(_gradient(state, rounded), tensors):
            return Diagnosis("precision", "the gradient at the parameters rounded to float32")
        size = float(np.sqrt(grad @ grad))
        reach = float(np.sqrt(state.theta @ state.theta)) / size if size else 0.0
        if not 0 < reach < np.inf:
            return None
        # the best of some lengths, then Gauss and Newton's
        lengths = [reach * sign * 10.0**e for e in range(-5, 1) for sign in (1, -1)]
        away = [_distance(_gradient(state, state.theta + a * grad), grad) for a in lengths]
        alpha = lengths[int(np.argmin(np.nan_to_num(away, nan=np.inf)))]
        here = _gradient(state, state.theta + alpha * grad)
        nudge = 1e-6 * reach
        for _ in range(ROUNDS):
            rise = (_gradient(state, state.theta + (alpha + nudge) * grad) - here) / nudge
            step = float(np.divide(rise @ (grad - here), rise @ rise))
            if not np.isfinite(step):
                return None
            alpha += step
            here = _gradient(state, state.theta + alpha * grad)
        if alpha == 0 or not _fits(here, tensors):
            return None
    return Diagnosis(
        "stale",
        f"the gradient at other parameters, those before a step of {alpha:.3g} × this gradient",
        alpha,
    )


def _distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.sqrt((one - other) @ (one - other)))


def _gradient(state: ForwardState, theta: FloatArray) -> FloatArray:
    """The gradient of the network at θ, by exact differences."""
    return ForwardState(state.net, state.layers, theta).gradient


def _fits(gradient: FloatArray, tensors: Mapping[str, Evidence]) -> bool:
    at = 0
    for e in tensors.values():
        part = gradient[at : at + e.g.size]
        at += e.g.size
        if not e.fits(exactly(part)):
            return False
    return True
