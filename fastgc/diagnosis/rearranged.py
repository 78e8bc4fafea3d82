"""Mistakes that move entries about, or add them up wrongly."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray
from fastgc.diagnosis.evidence import Evidence, Surroundings, exactly
from fastgc.report.data import Diagnosis


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
    uncertainty = (
        4 * count * (e.tolerance * np.abs(e.found[e.known]).max() + e.uncertainty[e.known].max())
    )
    return bool(count > 1 and abs((e.g - e.found)[e.wrong].sum()) <= uncertainty)


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


def wrong_axis(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """The sum, or the mean, over some axes, the same in all places along them."""
    if e.output_axes or not e.clear:
        return None
    constant = [a for a, n in enumerate(e.shape) if n > 1 and _constant(e, a)]
    choices = [tuple(constant), *((a,) for a in constant if len(constant) > 1)]
    for axes in choices if constant else ():
        count = float(np.prod([e.shape[a] for a in axes]))
        for fixed in (np.zeros(1), e.fixed) if e.fixed.any() else (np.zeros(1),):
            table = (e.found - fixed).reshape(e.shape)
            total = table.sum(axis=axes, keepdims=True)
            for what, reduced, growth in (("sum", total, count), ("mean", total / count, 1.0)):
                values = np.broadcast_to(reduced, e.shape).ravel()
                widened = e.moved().scaled(growth)
                if widened.telling(values) > 1 and widened.shows(values + fixed):
                    return Diagnosis(
                        "axis", f"the {what} of the numerical gradient {_over(e, axes)}"
                    )
    return None


def _constant(e: Evidence, axis: int) -> bool:
    """Whether the first two places along an axis, less weight decay, have the same values."""
    table = (e.g - e.fixed).reshape(e.shape)
    one, other = np.take(table, 0, axis=axis), np.take(table, 1, axis=axis)
    return bool(
        (np.abs(one - other) <= e.tolerance * e.size_of_g + e.uncertainty[e.known].max()).all()
    )


def _over(e: Evidence, axes: tuple[int, ...]) -> str:
    if len(axes) == sum(n > 1 for n in e.shape):
        return "over all its entries, the same for each: summed over one axis too many?"
    named = f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
    return f"over {named}, the same all along: summed over the wrong axis?"


class Form(NamedTuple):
    """What g may be: so many times an entry, and so many times its mirror image.

    Attributes:
        text: for people.
        diagonal, below, above: both numbers on the diagonal, below it and above it.
        of_g: whether the mirror image is that of g, and not of the numerical gradient.
    """

    text: str
    diagonal: tuple[float, float]
    below: tuple[float, float]
    above: tuple[float, float]
    of_g: bool = False


SUM = "the numerical gradient plus its transpose"
ALONE = "right for a symmetric parameter alone"
HALF = "the numerical gradient is the sum of this one and its transpose, which is not added"
FORMS = (
    Form(f"{SUM}: {ALONE}", (1, 1), (1, 1), (1, 1)),
    Form(f"{SUM}, the diagonal once: {ALONE}", (1, 0), (1, 1), (1, 1)),
    Form(f"the mean of the numerical gradient and its transpose: {ALONE}",
         (1, 0), (0.5, 0.5), (0.5, 0.5)),
    Form(f"{SUM}, in the lower triangle: {ALONE}", (1, 0), (1, 1), (0, 0)),
    Form(f"{SUM}, in the upper triangle: {ALONE}", (1, 0), (0, 0), (1, 1)),
    Form(HALF, (1, -1), (1, -1), (1, -1), of_g=True),
    Form(f"{HALF}, the diagonal once", (1, 0), (1, -1), (1, -1), of_g=True),
)  # fmt: skip


def symmetric(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Right for a symmetric parameter, of one that is not; or the other way round."""
    if not (len(e.shape) == 2 and e.shape[0] == e.shape[1] > 1) or e.output_axes:
        return None
    if e.telling(e.found) < 2 or not e.clear:
        return None
    n = e.shape[0]
    widened = e.moved().scaled(2.0)
    probe = e.probe[e.wrong[e.probe]]
    probed = widened.part(probe, (probe.size,))
    for form in FORMS:
        # of g, one of each pair is taken as given
        free = n * (n - 1) // 2 if form.of_g else 1
        if probed.fits(exactly(_as_form(form, e, probe))) and widened.shows(
            _as_form(form, e, np.arange(n * n)), free
        ):
            return Diagnosis("symmetric", form.text)
    return None


def _as_form(form: Form, e: Evidence, at: NDArray[np.intp]) -> FloatArray:
    """What g is under a form, in these entries."""
    n = e.shape[0]
    rows, columns = np.divmod(at, n)
    own, mirrored = e.found[at], (e.g if form.of_g else e.found)[columns * n + rows]
    where = [rows == columns, rows > columns, rows < columns]
    parts = form.diagonal, form.below, form.above
    return np.select(where, [a * own + b * mirrored for a, b in parts])
