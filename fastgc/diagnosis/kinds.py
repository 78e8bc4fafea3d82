"""Mistakes that show in one tensor by itself: factors, orders, weight decay, single units.

Each function takes the evidence and returns what it has recognised, or None.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.diagnosis.evidence import Diagnosis, Evidence, exactly
from fastgc.estimate import share_interval

SINGLE = 1e-4  # relative errors of a backward pass in single precision


@dataclass(frozen=True, eq=False, repr=False)
class Surroundings:
    """What else is known.

    Attributes:
        m: the number of samples; None where fastgc cannot see into the cost.
        divisor: of the sum of their losses; None likewise.
        weight_decay: λ of the cost.
        tensors: all of them, by name.
    """

    m: int | None
    divisor: float | None
    weight_decay: float
    tensors: Mapping[str, Evidence]


Kind: TypeAlias = Callable[[Evidence, Surroundings], Diagnosis | None]

UNKNOWN = Diagnosis("unknown", "no known kind of mistake fits")


def first(kinds: Iterable[Kind], evidence: Evidence, around: Surroundings) -> Diagnosis | None:
    """What the first of the `kinds` that recognises anything says."""
    with np.errstate(all="ignore"):
        return next((found for kind in kinds if (found := kind(evidence, around))), None)


def nonfinite(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """NaN or inf, in the gradient or in the cost."""
    bad = ~np.isfinite(e.g)
    if bad.any():
        k = int(np.argmax(bad))
        what = "1 entry is" if bad.sum() == 1 else f"{bad.sum()} entries are"
        return Diagnosis("nonfinite", f"{what} not finite: {e.address(k)} is {e.g[k]}")
    bad = ~np.isfinite(e.found)
    if bad.any():
        k = int(np.argmax(bad))
        return Diagnosis("cost", f"the cost is not finite a step away from {e.address(k)}")
    return None


def zero(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Nothing at all, or nothing but the weight decay."""
    if not e.g.any():
        return Diagnosis("zero", "all zero")
    if e.fixed.any() and e.fits(exactly(e.fixed)):
        return Diagnosis("zero", "nothing but the weight decay")
    return None


def known_factor(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Factors that have a name: −1, m, 1/m."""
    m = around.m
    named = [(-1.0, "sign", "the sign is flipped: −1 × the numerical gradient")]
    if m is not None and m > 1:
        named += [
            (m, "sum", f"{_number(m)} × the numerical gradient: not averaged over the {m} samples"),
            (1 / m, "twice averaged",
             f"1/{m} × the numerical gradient: averaged over the {m} samples twice"),
        ]  # fmt: skip
    for c, kind, text in named:
        if is_multiple(e, c):
            return Diagnosis(kind, text, float(c))
    return None


def factor(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Any other factor, shown by two entries at least."""
    c = factor_of(e) if e.telling(e.found) > 1 else None
    return None if c is None else as_factor(c)


def any_factor(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Any other factor of a single entry, where it is no more than a description."""
    c = factor_of(e)
    if c is None:
        return None
    return replace(as_factor(c), text=f"{as_factor(c)}, in the one entry that tells")


def as_factor(c: float) -> Diagnosis:
    """The diagnosis of a factor."""
    return Diagnosis("factor", f"{_number(c)} × the numerical gradient", c)


def factor_of(e: Evidence) -> float | None:
    """The number whose product with what was found g is."""
    for fixed in (0.0, e.fixed) if e.fixed.any() else (0.0,):
        if not e.telling(e.found - fixed):
            continue
        g, found = (e.g - fixed)[e.known], (e.found - fixed)[e.known]
        largest = np.abs(found).max(initial=0.0)
        if not 0 < largest < math.inf:
            continue
        g, found = g / largest, found / largest
        c = float(np.divide(g @ found, found @ found))
        if c != 0 and math.isfinite(c) and is_multiple(e, c):
            return c
    return None


def is_multiple(e: Evidence, c: float) -> bool:
    """Whether g is c times what was found, with or without the part that weight decay adds."""
    if e.fits(lambda at: c * e.found[at], growth=max(1.0, abs(c))):
        return True
    if not (e.fixed.any() and e.telling(e.found - e.fixed)):
        return False
    return e.fits(lambda at: c * (e.found[at] - e.fixed[at]) + e.fixed[at], growth=max(1.0, abs(c)))


def transposed(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """A square tensor's transpose."""
    if not (len(e.shape) == 2 and e.shape[0] == e.shape[1] > 1):
        return None
    for fixed in (np.zeros(1), e.fixed) if e.fixed.any() else (np.zeros(1),):
        other = (e.found - fixed).reshape(e.shape).T.ravel() + fixed
        if e.moved().fits(exactly(other)):
            return Diagnosis("transposed", "the transpose of the numerical gradient")
    return None


def swapped(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Another tensor's gradient."""
    for name, other in around.tensors.items():
        alike = name != e.name and other.shape == e.shape and e.telling(other.found) > 0
        if alike and e.fits(exactly(other.found)):
            return Diagnosis("swapped", f"the numerical gradient of {name}")
    return None


def missing_decay(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """The cost has weight decay, the gradient has not."""
    if e.fixed.any() and e.fits(lambda at: e.found[at] - e.fixed[at]):
        rate = around.weight_decay
        return Diagnosis("decay", f"the weight decay is missing, λ = {rate:.4g}", -rate)
    return None


def decay(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """An error in proportion to the parameters."""
    if e.telling(e.theta) < 2 or not e.clear:
        return None
    theta = np.where(e.known, e.theta, 0.0)
    error = np.where(e.known, e.g - e.found, 0.0)
    rate = float(np.divide(error @ theta, theta @ theta))
    if not (math.isfinite(rate) and e.fits(lambda at: e.found[at] + rate * e.theta[at])):
        return None
    if around.divisor is None:
        than = "more weight decay than the cost has" if rate > 0 else "weight decay is missing"
        text = f"the numerical gradient {_signed(rate)} × the parameters: {than}"
        return Diagnosis("decay", text, rate)
    has = around.weight_decay if e.fixed.any() else 0.0
    text = (
        f"weight decay with λ = {_number(has + rate * around.divisor)} where the cost has {has:.4g}"
    )
    if around.weight_decay == 0:
        text += f"; is it Network(…, weight_decay={rate * around.divisor:.4g})?"
    return Diagnosis("decay", text, rate * around.divisor)


def clipped(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Entries cut off at a largest size, or the whole scaled down to a round norm."""
    size = np.abs(e.g)
    limit = float(size.max())
    beyond = int(np.count_nonzero(np.abs(e.found) > limit * (1 + 1e-6)))
    if beyond == 0 or (beyond == 1 and not is_round(limit)) or not e.clear:
        return None
    if not e.fits(lambda at: np.clip(e.found[at], -limit, limit)):
        return None
    return Diagnosis("clipped", f"clipped at ±{limit:.6g}, {_entries(beyond)}", limit)


def permuted(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """The right values in the wrong places."""
    if e.telling(e.found) < 3 or not e.clear:
        return None
    e, count = e.moved(), np.count_nonzero(e.wrong)
    slack = 4 * count * (e.tolerance * np.abs(e.found).max() + e.slack.max())
    if count < 2 or abs((e.g - e.found)[e.wrong].sum()) > slack:
        return None  # a sum is the same in any order; to sort is slow
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


def precision(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """Computed in single precision, and converted."""
    return in_single(e) if np.count_nonzero(e.g[e.known]) > 1 else None


def in_single(e: Evidence) -> Diagnosis | None:
    """`precision` of a single entry too, which proves little by itself."""
    g = e.g[e.known]
    short = np.ldexp(np.rint(np.ldexp(np.frexp(g)[0], 12)), -12) == np.frexp(g)[0]
    if short.mean() > 0.5:  # whole and round numbers are of any precision
        return None
    if not (np.float32(g[:64]) == g[:64]).all():
        return None
    errors = np.abs(g - e.found[e.known])
    scale = np.maximum(np.abs(g), e.size_of_g)
    if not (np.float32(g) == g).all() or (errors > SINGLE * scale + e.slack[e.known]).any():
        return None
    largest = float((errors / scale).max())
    text = f"computed in single precision: every value is a float32 number, off by {largest:.0e}"
    return Diagnosis("precision", f"{text}; as float32 it would be held to that", largest)


def units(e: Evidence, around: Surroundings) -> Diagnosis | None:
    """Some rows, or some columns, and nothing else."""
    if len(e.shape) != 2 or min(e.shape) < 2 or not e.known.all():
        return None
    wrong = e.wrong.reshape(e.shape)
    places = np.arange(e.g.size).reshape(e.shape)
    axes = [(np.flatnonzero(wrong.any(axis=1 - axis)), axis) for axis in (0, 1)]
    for lines, axis in sorted(axes, key=lambda item: item[0].size):
        what = ("row", "column")[axis]
        if not 0 < lines.size <= e.shape[axis] / 2 or wrong.sum() < 2:
            continue
        part = np.take(places, lines, axis=axis)
        if np.take(wrong, lines, axis=axis).mean() < 0.5:
            continue
        inner = e.part(part.ravel(), part.shape)
        said = first((zero, known_factor, factor), inner, around)
        which = _listed(what, lines)
        others = f"; the other {e.shape[axis] - lines.size} agree"
        text = f"{which} alone: {said.text}" if said else f"{which} alone {_is(lines.size)} wrong"
        return Diagnosis(f"{what}s", text + others, None if said is None else said.value)
    return None


def entries(e: Evidence, _: Surroundings) -> Diagnosis | None:
    """A few single entries."""
    wrong = np.flatnonzero(e.wrong)
    agree = ~e.wrong & e.known
    rest = agree & (np.abs(e.found) > e.slack)
    if not 0 < wrong.size <= max(1, min(8, e.g.size // 4)) or not rest.any() or not e.clear:
        return None
    k = int(wrong[np.argmax(np.abs(e.g - e.found)[wrong])])
    what = f"{e.address(k)} is {_ratio(e.g[k], e.found[k])}"
    if e.places is not None:
        low, high = share_interval(e.g.size, wrong.size)
        text = f"{wrong.size} of the {e.g.size} entries drawn, the worst {what}; so {low:.2%} to "
        return Diagnosis("entries", f"{text}{high:.2%} of the tensor, with 95 % confidence")
    others = f"{np.count_nonzero(agree)} others agree"
    if agree.sum() == e.g.size - wrong.size:
        others = f"the other {e.g.size - wrong.size} agree"
    if wrong.size == 1:
        return Diagnosis("entries", f"one entry alone: {what}; {others}")
    return Diagnosis("entries", f"{wrong.size} entries alone, the worst {what}; {others}")


#: Before what a Network's structure explains: no number is fitted.
PLAIN: tuple[Kind, ...] = (nonfinite, zero, known_factor)
#: After it, in this order: the fewer numbers a kind fits, the earlier.
SECOND: tuple[Kind, ...] = (transposed, swapped, missing_decay, factor)
LAST: tuple[Kind, ...] = (decay, clipped, permuted, precision, units, entries, any_factor)
#: What shows along directions as it does in entries.
LINEAR: tuple[Kind, ...] = (zero, known_factor, factor, decay)


def is_round(value: float) -> bool:
    """Whether it has two significant digits at most, as limits that people choose."""
    return math.isclose(value, float(f"{value:.1e}"), rel_tol=1e-6)


def join(names: list[str]) -> str:
    """``W1, b1 and W2``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _listed(what: str, lines: NDArray[np.intp]) -> str:
    numbers = [str(i) for i in lines[:5]]
    if lines.size > 5:
        numbers.append(f"{lines.size - 5} more")
    return f"{what}{'s' if lines.size > 1 else ''} {join(numbers)}"


def _ratio(g: float, found: float) -> str:
    if g == 0 or found == 0:
        return f"{abs(g) if g == 0 else g:.4g} instead of {found:.4g}"
    return f"{_number(g / found)} × its numerical value"


def _number(c: float) -> str:
    """2.000, −0.0313, 1.00003: enough digits to tell it from 1."""
    away = abs(abs(c) - 1)
    if 1e-14 < away < 1e-3:
        return f"{c:.{min(15, 1 - math.floor(math.log10(away)))}f}".replace("-", "−")
    shown = f"{c:.3f}" if 0.1 <= abs(c) < 1e4 else f"{c:.4g}"
    return shown.replace("-", "−") if "e" not in shown else shown


def _signed(c: float) -> str:
    return f"{'+' if c > 0 else '−'} {abs(c):.4g}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
