"""Where the wrong entries lie, where that is regular."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgc.core.statistics import share_interval
from fastgc.diagnosis.evidence import Evidence, Surroundings, first, listed, ratio, verb
from fastgc.diagnosis.factors import factor, known_factor, zero
from fastgc.report.data import Diagnosis

Mask = NDArray[np.bool_]


class Region(NamedTuple):
    """Some entries of a tensor.

    Attributes:
        text: for people, as ``x[…, 6] alone``.
        state: which entries, of a shape that broadcasts to the tensor's.
        single: whether it is spoken of as one thing.
    """

    text: str
    state: Mask
    single: bool = True


def units(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Some rows, or some columns, and nothing else."""
    if len(e.shape) != 2 or min(e.shape) < 2 or not e.known.all():
        return None
    wrong, proven = e.wrong.reshape(e.shape), e.proven.reshape(e.shape)
    places = np.arange(e.g.size).reshape(e.shape)
    axes = [(np.flatnonzero(wrong.any(axis=1 - axis)), axis) for axis in (0, 1)]
    for lines, axis in sorted(axes, key=lambda item: item[0].size):
        what = ("row", "column")[axis]
        if not 0 < lines.size <= e.shape[axis] / 2 or wrong.sum() < 2:
            continue
        part = np.take(places, lines, axis=axis)
        if np.take(wrong, lines, axis=axis).mean() < 0.5:
            continue
        said = _within(e, part.ravel(), around)
        which = listed(what, lines)
        agree = np.asarray(proven.any(axis=1 - axis))
        agree[lines] = False
        others = _others(int(agree.sum()), e.shape[axis] - lines.size)
        text = f"{which} alone: {said.text}" if said else f"{which} alone {verb(lines.size)} wrong"
        return Diagnosis(f"{what}s", text + others, None if said is None else said.value)
    return None


def regular(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Wrong entries that make up a regular part, while others are proven right."""
    if e.places is not None or e.output_axes or np.count_nonzero(e.wrong) < 2:
        return None
    wrong, right = e.wrong.reshape(e.shape), e.proven.reshape(e.shape)
    if np.count_nonzero(right) < (2 if max(e.shape) < e.g.size else 1):
        return None
    for region in _regions(e, wrong, right):
        state = np.broadcast_to(region.state, e.shape)
        if (wrong & ~state).any() or (right & state).any():
            continue
        if 2 * np.count_nonzero(wrong) < np.count_nonzero(state):
            continue  # most of it tells nothing
        said = _within(e, np.flatnonzero(state), around)
        if said is None:
            return Diagnosis("places", f"{region.text} {verb(1 if region.single else 2)} wrong")
        return Diagnosis("places", f"{region.text}: {said.text}", said.value)
    return None


def entries(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """A few single entries."""
    wrong = np.flatnonzero(e.wrong)
    proven = int(np.count_nonzero(e.proven))
    if not 0 < wrong.size <= max(1, min(8, e.g.size // 4)) or not proven or not e.clear:
        return None
    k = int(wrong[np.argmax(np.abs(e.g - e.found)[wrong])])
    what = f"{e.address(k)} is {ratio(e.g[k], e.found[k])}"
    if e.places is not None:
        low, high = share_interval(e.g.size, wrong.size)
        text = f"{wrong.size} of the {e.g.size} entries drawn, the worst {what}; so {low:.2%} to "
        return Diagnosis("entries", f"{text}{high:.2%} of the tensor, with 95 % confidence")
    others = _others(proven, e.g.size - wrong.size)
    if wrong.size == 1:
        return Diagnosis("entries", f"one entry alone: {what}{others}")
    return Diagnosis("entries", f"{wrong.size} entries alone, the worst {what}{others}")


def _others(proven: int, rest: int) -> str:
    """What is known of the rest; nothing of what is zero on both sides."""
    if proven == 0:
        return ""
    agree = "agrees" if proven == 1 else "agree"
    if proven == rest:
        return f"; the other {agree}" if rest == 1 else f"; the other {rest} {agree}"
    return f"; {proven} other{'s' * (proven > 1)} {agree}"


def _within(e: Evidence, part: NDArray[np.intp], around: Surroundings) -> Diagnosis | None:
    """What these entries alone look like."""
    return first((zero, known_factor, factor), e.part(part, (part.size,)), around)


def _regions(e: Evidence, wrong: Mask, right: Mask) -> Iterator[Region]:
    """Parts that the wrong entries may make up, the simplest first."""
    axes = [a for a, n in enumerate(e.shape) if n > 1]
    lines = []
    for a in axes:
        across = tuple(b for b in range(len(e.shape)) if b != a)
        bad, good = (np.asarray(part.any(axis=across)) for part in (wrong, right))
        lines.append((a, bad, good))
    apart = [item for item in lines if not (item[1] & item[2]).any()]
    for along in (_single, _ends, _strided):
        for a, bad, good in apart:
            yield from along(e, a, bad, good)
    for a, b in pairwise(axes):
        yield from _borders(e, a, b)
        yield from _grids(e, a, b, wrong, right)
    if len(axes) > 1 and e.shape[axes[-2]] == e.shape[axes[-1]] > 2:
        yield from _triangles(e, axes[-2], axes[-1])
    if len(axes) > 1:
        for a, bad, good in apart:
            if np.count_nonzero(bad) <= min(8, e.shape[a] / 2) and good.any():
                text = f"{_slice(e, a, str(np.flatnonzero(bad).tolist()))} alone"
                yield Region(text, _along(e, a, bad), single=False)


def _single(e: Evidence, a: int, bad: Mask, good: Mask) -> Iterator[Region]:
    """One place along an axis, or all but one."""
    at = np.flatnonzero(bad)
    if at.size == 1:
        yield Region(f"{_slice(e, a, str(at[0]))} alone", _along(e, a, bad))
    spared = np.flatnonzero(good)
    if spared.size == 1 and at.size == bad.size - 1 > 2:
        yield Region(f"all but {_slice(e, a, str(spared[0]))}", _along(e, a, bad), single=False)


def _ends(e: Evidence, a: int, bad: Mask, good: Mask) -> Iterator[Region]:
    """The first places along an axis, the last ones, both, or all but those."""
    n, at, kept = bad.size, np.flatnonzero(bad), np.flatnonzero(good)
    if not kept.size:
        return
    i = np.arange(n)
    if at[-1] < kept[0]:
        yield Region(f"{_slice(e, a, f':{at[-1] + 1}')} alone", _along(e, a, i <= at[-1]))
    if at[0] > kept[-1]:
        yield Region(f"{_slice(e, a, f'{at[0]}:')} alone", _along(e, a, i >= at[0]))
    for width in (1, 2):
        edge = (i < width) | (i >= n - width)
        which = f"the first and the last{' two' * (width - 1)} along axis {a}"
        if n > 2 * width:
            yield Region(f"{which} alone", _along(e, a, edge), single=False)
            yield Region(f"all but {which}", _along(e, a, ~edge), single=False)


def _strided(e: Evidence, a: int, bad: Mask, _: Mask) -> Iterator[Region]:
    """Every second or third place along an axis, or all but those."""
    i = np.arange(bad.size)
    for stride in (2, 3):
        for start in range(stride):
            if bad.size < 2 * stride:
                continue
            which, on = _slice(e, a, f"{start or ''}::{stride}"), i % stride == start
            yield Region(f"{which} alone", _along(e, a, on))
            if stride > 2:
                yield Region(f"all but {which}", _along(e, a, ~on), single=False)


def _borders(e: Evidence, a: int, b: int) -> Iterator[Region]:
    """The border of two axes next to one another, as of an image, or all but the border."""
    for width in (1, 2):
        if min(e.shape[a], e.shape[b]) <= 2 * width:
            continue
        edges = []
        for axis in (a, b):
            i = np.arange(e.shape[axis])
            edges.append(_along(e, axis, (i < width) | (i >= e.shape[axis] - width)))
        border = edges[0] | edges[1]
        which = "the border" if width == 1 else "a border two wide"
        yield Region(f"{which} along axes {a} and {b} alone", border)
        yield Region(f"all but {which} along axes {a} and {b}", ~border, single=False)


def _grids(e: Evidence, a: int, b: int, wrong: Mask, right: Mask) -> Iterator[Region]:
    """Every second or third place along two axes, as of a strided convolution, or all but those."""
    for stride in (2, 3):
        if min(e.shape[a], e.shape[b]) < 2 * stride:
            continue
        for part, start in ((wrong, ""), (right, "all but ")):
            index = np.unravel_index(int(part.argmax()), e.shape)
            at = [int(index[axis]) % stride for axis in (a, b)]
            on = np.logical_and(
                *(
                    _along(e, axis, np.arange(e.shape[axis]) % stride == first)
                    for axis, first in zip((a, b), at, strict=True)
                )
            )
            steps = [f"{first or ''}::{stride}" for first in at]
            which = f"{start}every place {steps[0]}, {steps[1]} of axes {a} and {b}"
            state = ~on if start else on
            yield Region(which if start else f"{which} alone", state, single=not start)


def _triangles(e: Evidence, a: int, b: int) -> Iterator[Region]:
    """The diagonal, a triangle, or all but those, of two axes of the same length."""
    i, j = np.ogrid[: e.shape[a], : e.shape[b]]
    shape = [1] * len(e.shape)
    shape[a], shape[b] = e.shape[a], e.shape[b]
    for text, state, single in (
        ("the diagonal alone", i == j, True),
        ("all but the diagonal", i != j, False),
        ("the lower triangle, below the diagonal, alone", i > j, True),
        ("the upper triangle, above the diagonal, alone", i < j, True),
        ("the lower triangle, with the diagonal, alone", i >= j, True),
        ("the upper triangle, with the diagonal, alone", i <= j, True),
    ):
        yield Region(text, np.asarray(state).reshape(shape), single)


def _along(e: Evidence, axis: int, places: Mask) -> Mask:
    """Places along one axis, so that they broadcast to the tensor's shape."""
    return places.reshape([-1 if a == axis else 1 for a in range(len(e.shape))])


def _slice(e: Evidence, axis: int, index: str) -> str:
    """``x[…, 6]``, ``x[6, …]``, ``x[:, 6, …]``; ``b[6]`` where there is but one axis."""
    depth = len(e.shape)
    if sum(n > 1 for n in e.shape) == 1 and axis == 0:
        return f"{e.name}[{index}]"
    if axis == depth - 1:
        return f"{e.name}[…, {index}]" if depth > 1 else f"{e.name}[{index}]"
    return f"{e.name}[{':, ' * axis}{index}, …]"
