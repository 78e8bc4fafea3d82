"""Mistakes that move entries about: transposes, flips, other orders, other tensors."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from fastgc.diagnosis.evidence import Diagnosis, Evidence, Surroundings, exactly
from fastgc.layout import FloatArray


def transposed(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """The transpose of a square tensor, or two axes of the same length exchanged."""
    for a, b in combinations(range(len(e.shape)), 2):
        if not e.shape[a] == e.shape[b] > 1:
            continue
        for fixed in _decays(e):
            other = np.swapaxes((e.found - fixed).reshape(e.shape), a, b).ravel() + fixed
            if e.moved().fits(exactly(other)):
                text = "the transpose of the numerical gradient"
                if len(e.shape) > 2:
                    text = f"the numerical gradient with its axes {a} and {b} exchanged"
                return Diagnosis("transposed", text)
    return None


def flipped(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Reversed along one axis, or along the last ones, as the kernel of a convolution."""
    if e.output_axes or not e.clear or not _same_sum(e):
        return None
    depth = len(e.shape)
    last = [tuple(range(depth - k, depth)) for k in (2, 3) if k <= depth]
    for axes in [*last, *((a,) for a in range(depth - 1, -1, -1))]:
        if max(e.shape[a] for a in axes) < 2:
            continue
        for fixed in _decays(e):
            other = np.flip((e.found - fixed).reshape(e.shape), axes).ravel() + fixed
            if e.moved().shows(other):
                which = f" along axis {axes[0]}" if depth > 1 else ""
                if len(axes) > 1:
                    which = f" along its last {('two', 'three')[len(axes) - 2]} axes"
                text = f"the numerical gradient, reversed{which}: a correlation for a convolution?"
                return Diagnosis("flipped", text)
    return None


def swapped(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Another tensor's gradient."""
    for name, other in around.tensors.items():
        alike = name != e.name and other.shape == e.shape and e.telling(other.found) > 1
        if alike and e.fits(exactly(other.found)):
            return Diagnosis("swapped", f"the numerical gradient of {name}")
    return None


def _decays(e: Evidence) -> Iterator[FloatArray]:
    """What stays where it is: nothing, and the weight decay."""
    yield np.zeros(1)
    if e.fixed.any():
        yield e.fixed


def _same_sum(e: Evidence) -> bool:
    """Whether the wrong entries add up as right ones that have moved would, in any order."""
    count = np.count_nonzero(e.wrong)
    slack = 4 * count * (e.tolerance * np.abs(e.found[e.known]).max() + e.slack[e.known].max())
    return bool(count > 1 and abs((e.g - e.found)[e.wrong].sum()) <= slack)


def permuted(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """The right values in the wrong places."""
    if e.telling(e.found) < 3 or not e.clear:
        return None
    if not _same_sum(e):
        return None  # to sort is slow
    e = e.moved()
    order, right = np.argsort(e.g, kind="stable"), np.argsort(e.found, kind="stable")
    moved = np.empty_like(e.found)
    moved[order] = e.found[right]
    if not e.fits(exactly(moved)):
        return None
    if len(e.shape) == 2 and min(e.shape) > 1:
        table, wanted = e.found.reshape(e.shape), e.g.reshape(e.shape)
        if e.fits(exactly(table.T.reshape(-1))):
            return Diagnosis("permuted", "the numerical gradient, read in column-major order")
        for axis, what in ((0, "rows"), (1, "columns")):
            weights = np.random.default_rng(0).standard_normal(e.shape[1 - axis])
            keys = [t @ weights if axis == 0 else weights @ t for t in (wanted, table)]
            places = np.empty(e.shape[axis], np.intp)
            places[np.argsort(keys[0])] = np.argsort(keys[1])
            turned = np.take(table, places, axis=axis).ravel()
            if e.fits(exactly(turned)):
                at = np.flatnonzero(places != np.arange(places.size))
                if at.size == 0:
                    return None  # noise that sorting has evened out
                text = (
                    f"{what} {at[0]} and {at[1]} exchanged"
                    if at.size == 2
                    else f"its {what} in another order: {what[:-1]} {at[0]} is {places[at[0]]}"
                )
                return Diagnosis("permuted", f"the numerical gradient, {text}")
    return Diagnosis("permuted", "the values of the numerical gradient in another order")
