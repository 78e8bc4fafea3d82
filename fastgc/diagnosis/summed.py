"""Entries that are added up wrongly: over another axis, or with their mirror images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.diagnosis.evidence import Diagnosis, Evidence, Surroundings, exactly
from fastgc.layout import FloatArray


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
    return bool((np.abs(one - other) <= e.tolerance * e.size_of_g + e.slack[e.known].max()).all())


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
