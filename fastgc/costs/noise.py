"""The rounding noise of a cost, measured.

The difference table of Moré & Wild, *Estimating Computational Noise*, SIAM J. Sci. Comput. 33
(2011): along a line, the k-th differences of a smooth function die out as k grows, those of its
rounding errors do not.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastgc.core.rng import generator
from fastgc.core.tree import UNIT_ROUNDOFF, Entries, FloatArray
from fastgc.core.verdict import THRESHOLDS
from fastgc.costs.base import Base, Cost, random_cost, require_repeatable

POINTS = 9

# Steps tried in turn, along a direction of length 1, until fewer than half of the first differences
# are zero. The first is shorter than ε, so that the line meets a kink less often than the check
# does (the differences of a kink would be taken for noise), but not so short that the rounding
# errors repeat: at 2⁻³⁶ a network with weights of 0.01 showed none at all. The last is as far as a
# cost that rounds to single precision needs.
STEPS = tuple(2.0**e for e in range(-30, -5, 6))

# Noise of up to so many rounding units of J is believed as it is. More may be the curvature of one
# singular entry, a kink or a jump on the way: then other lines are tried, and the least counts.
QUIET = 512.0

# Noise above so many rounding units of J may be randomness that two calls happened not to show.
SUSPICIOUS = 1e4
WHOLE_LINES = 4  # through all parameters, before lines through halves of them
HALVINGS = 3
ZEROS = 3  # lines without noise, before that is believed of values with so many bits to spare
SPARE = 8
HUGE = 1e300  # parameters that no line should lead away from
AGAIN = 4  # calls of a noisy cost at θ, which have to give the same number

TRIED = 3  # entries of each tensor whose third derivative is measured
LONGEST, SHORTEST = 0.1, 2.0**-26  # of the scale of an entry
RETREATS = 4  # to shorter steps, where the cost cannot be had

# The standard deviation of an error of rounding to a grain of 1.
GRAINY = 12**-0.5
FORMATS = (8, 11, 24)  # bits of bfloat16, float16 and float32
WHOLE = 16  # bits of whole and other round numbers, which are the same in double precision


class _Line(NamedTuple):
    """What a line through θ shows.

    Attributes:
        sigma: the noise along it; 0 where J hardly moves.
        coarse: whether J moves there by grains of its precision, or that of the parameters.
        grain: of its precision.
        moves: whether the last of its steps moved J most of the time.
        evaluations: spent on it.
        seen: the values met.
    """

    sigma: float
    coarse: bool
    grain: float
    moves: bool
    evaluations: int
    seen: frozenset[float]


def noise_of_cost(cost: Cost, J: float, memory: int) -> tuple[Base, int]:
    """J and its noise near θ, the least that several lines through θ show; and the evaluations.

    One line that is quiet is enough. Else the others are tried: its opposite; two along which each
    parameter moves in proportion to its size, which a tiny parameter near the end of its domain
    survives; and some through halves of the parameters, so that a singular one stays where it is.

    Args:
        cost: whose cost it is.
        J: J(θ), evaluated by itself.
        memory: bytes that it may allocate at once.

    Raises:
        ValueError: for a vectorized cost whose rows depend on each other, or a random one.
    """
    lines: list[_Line] = []
    evaluations = 0
    for direction in _directions(cost.theta):
        line = _noise_along(cost, direction, J, memory)
        evaluations += line.evaluations
        lines.append(line)
        quiet = QUIET * UNIT_ROUNDOFF * max(map(abs, line.seen))
        quiet_line = (
            (line.moves or cost.traits.deterministic) and not line.coarse and line.sigma <= quiet
        )
        lucky = _is_lucky(line) and not cost.traits.deterministic and len(lines) < ZEROS
        if quiet_line and not lucky:
            break
        if len(lines) >= WHOLE_LINES and any(line.coarse for line in lines):
            break
        if line.sigma > SUSPICIOUS * UNIT_ROUNDOFF * abs(J) and len(lines) == 1:
            evaluations += 0 if cost.traits.deterministic else AGAIN
            for _ in range(0 if cost.traits.deterministic else AGAIN):
                require_repeatable(cost, J)
    moving = [line for line in lines if line.moves] or lines
    # a line along which nothing moves tells nothing of how coarse J is
    noisy = [line.sigma for line in moving if line.sigma > 0]
    found = Base(
        cost=J,
        noise=min(noisy, default=0.0),
        coarse=all(line.coarse for line in moving),
        seen=tuple(sorted(frozenset().union(*(line.seen for line in lines)))),
        grain=min(line.grain for line in moving),
    )
    return found, evaluations


def _is_lucky(line: _Line) -> bool:
    """Whether it shows no noise, and values whose last bits are all zero.

    So do those of a simple polynomial, and now and then those of a cost whose large terms cancel.
    """
    last = max(map(_bits, line.seen))
    return line.sigma == 0 and FORMATS[-1] < last <= 53 - SPARE


def _directions(theta: FloatArray) -> Iterator[FloatArray]:
    direction = generator(0).standard_normal(theta.size)
    direction /= math.sqrt(direction @ direction)
    yield direction
    yield -direction
    sizes = np.abs(theta)
    if 0 < float(sizes.max()) < HUGE:
        scaled = sizes * generator(8).standard_normal(theta.size)
        yield scaled
        yield -scaled
        # of two halves one leaves a singular entry where it is
        for number in range(HALVINGS):
            half = generator(11, number).permutation(theta.size) % 2 == 0
            if not half.all():
                yield np.where(half, scaled, 0.0)
                yield np.where(half, 0.0, scaled)


def _noise_along(cost: Cost, direction: FloatArray, J: float, memory: int) -> _Line:
    theta = cost.theta
    evaluations, sigma, moves = 0, 0.0, False
    seen = {J}
    for step in STEPS:
        # Multiples of a rounding unit of θ: then θ + iδ is exact, and the table shows the rounding
        # of the cost alone, not that of its arguments.
        delta = 4.0 * ((theta + 0.25 * step * direction) - theta)
        evaluations += POINTS
        costs = _along(cost, delta, memory)
        if not all(map(math.isfinite, costs)):
            break  # the cost may end here
        seen.update(costs)
        moves = sum(a == b for a, b in pairwise(costs)) <= POINTS // 2
        sigma = table_noise(costs)
        if abs(costs[0] - J) > max(
            100 * max(sigma, UNIT_ROUNDOFF * abs(J)), THRESHOLDS.last_bits * abs(J)
        ):
            if cost.batch is None or not cost.batch.together:
                raise random_cost(cost, J, costs[0])
            raise ValueError(
                f"the vectorized cost is {J!r} for the parameters alone and {costs[0]!r} for "
                f"the same parameters in a stack of {POINTS}: its rows depend on each other. "
                "Sum and normalise within each row, over the axes after the first"
            )
        if moves:
            break
    values = sorted(seen)
    least = min((b - a for a, b in pairwise(values)), default=0.0)
    few = all(_bits(value) <= FORMATS[-1] for value in values)
    known = cost.traits.deterministic
    grain = 0.0 if known else _grain(values, least)
    if moves and evaluations > POINTS and not known and not grain:  # after longer steps
        if least <= 4 * UNIT_ROUNDOFF * abs(J):  # beside a large constant
            grain = least
        elif not few:  # the parameters are rounded to fewer digits
            return _Line(max(sigma, GRAINY * least), True, 0.0, moves, evaluations, frozenset(seen))
    if grain:  # by chance a few of its values may lie on a line: it is rounded all the same
        sigma = max(sigma, GRAINY * grain)
    elif few or not moves:
        sigma = 0.0  # counts, and a few jumps, are no noise
    return _Line(sigma, grain > 0, grain, moves, evaluations, frozenset(seen))


def _grain(values: list[float], least: float) -> float:
    """The spacing of the narrow floats that these values are; 0 where they are none.

    Values that are a few spacings apart, the `least` of all, may be such by their precision; counts
    and other whole numbers are further apart, or short.
    """
    if len(values) < 2:
        return 0.0
    exponent = math.frexp(max(map(abs, values)))[1]
    bits = max(map(_bits, values))
    for width in FORMATS:
        spacing = math.ldexp(1.0, exponent - width)
        if bits <= width and (least <= 4 * spacing or bits > WHOLE):
            return max(least, spacing)
    return 0.0


def _bits(value: float) -> int:
    """How many bits it takes to write the value."""
    mantissa = int(math.ldexp(math.frexp(abs(value))[0], 53))
    return 53 - ((mantissa & -mantissa).bit_length() - 1) if mantissa else 0


def _along(cost: Cost, delta: FloatArray, memory: int) -> list[float]:
    """J(θ + iδ) for i = 0 … 8, NaN where it cannot be had; in one stack where that is quick."""
    theta = cost.theta
    stack = POINTS * (8 * theta.size + cost.row_bytes)
    if cost.batch is not None and cost.batch.most >= POINTS and stack <= memory // 8:
        rows = theta + np.arange(POINTS)[:, np.newaxis] * delta
        costs: list[float] = cost.values_or_nan(rows).tolist()
        return costs
    return [cost.value_or_nan(theta + i * delta) for i in range(POINTS)]


def table_noise(values: Sequence[float]) -> float:
    """The noise that the difference table of equally spaced `values` shows.

    The first order whose estimate agrees within a factor of 4 with the two after it, and whose
    differences have both signs; where there is none, the smallest of the estimates that rest on at
    least three differences, which smoothness has inflated least.

    >>> table_noise([0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0])     # a parabola has no noise
    0.0
    """
    largest = max(map(abs, values))
    if largest == 0:
        return 0.0
    unit = 2.0 ** (math.frexp(largest)[1] - 1)  # squares of 1e200 would overflow
    estimates: list[float] = []
    both_signs: list[bool] = []
    gamma = 1.0
    row = [value / unit for value in values]
    for k in range(1, len(values)):
        row = [b - a for a, b in pairwise(row)]
        gamma *= k / (2 * (2 * k - 1))
        estimates.append(math.sqrt(gamma * sum(d * d for d in row) / len(row)))
        both_signs.append(min(row) < 0 < max(row))
    for k in range(len(estimates) - 2):
        three = estimates[k : k + 3]
        if both_signs[k] and max(three) <= 4 * min(three):
            return unit * estimates[k]
    return unit * min(estimates[:-2])


def uncertainty_of_differences(
    J: float,
    noise: float,
    steps: FloatArray,
    sides: tuple[FloatArray, FloatArray] | None = None,
    scale: FloatArray | float = 0.0,
) -> FloatArray:
    """How far rounding may move (J_plus − J_minus) / step, (P,).

    10 σ_J / ε, at least 4u·|J| / ε with the largest J met; and 8u·|θ|·|J″| where the slopes on both
    sides show how J bends: what a cost computes from θ is off by some rounding units of θ, which
    move its slope by as much as if θ were elsewhere. At a minimum that is all that there is.

    Args:
        J: J(θ).
        noise: σ_J.
        steps: 2ε as realised, (P,); where it is 0 the uncertainty is inf.
        sides: the slopes below and above θ, (P,) each; None where nothing is known of them.
        scale: of θ, (P,).
    """
    error = np.full(
        steps.shape, 2.0 * max(THRESHOLDS.noise * noise, THRESHOLDS.least_noise * abs(J))
    )
    if sides is not None:
        with np.errstate(all="ignore"):
            below, above = sides
            moves = np.fmax(np.abs(below), np.abs(above)) * steps / 2
            error = np.fmax(error, 2.0 * THRESHOLDS.least_noise * (abs(J) + moves))
            bent = 2.0 * THRESHOLDS.bent * (scale + steps) * np.abs(above - below)
            error += np.where(np.isfinite(bent), bent, 0.0)
    uncertainty = np.full(steps.shape, np.inf)
    np.divide(error, steps, out=uncertainty, where=steps > 0)
    return uncertainty


def balanced_steps(
    cost: Cost, base: Base, entries: Entries | None = None
) -> tuple[FloatArray, int]:
    """A step for each entry, (P,), and the evaluations spent: 4 for each of 3 entries a tensor.

    A central difference is off by ε²|J‴|/6 by truncation and by σ_J/ε by noise; their sum is least
    at ε = (3 σ_J / |J‴|)^⅓. J‴ is measured at a few entries of each tensor, by a difference of its
    own, and the least ε found serves the whole tensor, in proportion to the scale of its entries
    (`Problem.scale`).

    Args:
        cost: the cost at θ.
        base: J(θ) and its noise.
        entries: those that need a step, (n,), whose tensors alone are measured; None for all.
            The steps of the others are 0.

    Source: Moré & Wild, *Estimating Derivatives of Noisy Simulations*, ACM TOMS 2012, for the
    balance; central instead of forward differences.
    """
    scale, layout = cost.scale, cost.layout
    noise = max(base.noise, THRESHOLDS.least_noise * abs(base.cost), np.finfo(np.float64).tiny)
    rng = generator(3)
    steps = np.zeros(scale.size)
    evaluations = 0
    for _, part in layout.tensors():
        places = np.arange(part.start, part.stop)
        if entries is not None:
            first, end = np.searchsorted(entries, (part.start, part.stop))
            places = entries[first:end]
        if places.size == 0:
            continue
        shares = []
        for k in rng.choice(places, min(TRIED, places.size), replace=False).tolist():
            share, spent = _share(cost, k, float(scale[k]), base, noise)
            shares.append(share)
            evaluations += spent
        steps[places] = min(shares) * scale[places]
    return steps, evaluations


def _share(cost: Cost, k: int, scale: float, base: Base, noise: float) -> tuple[float, int]:
    """The best step of entry k over its scale, and the evaluations spent."""
    # the third difference itself is best where its noise, σ/H³, meets its truncation
    share = min(LONGEST, (noise / max(abs(base.cost), noise)) ** 0.2)
    spent = 0
    for _ in range(RETREATS):
        H = share * scale
        costs = [cost.near(k, t * H) for t in (-2.0, -1.0, 1.0, 2.0)]
        spent += 4
        if all(map(math.isfinite, costs)):
            a, b, c, d = costs
            third = max(abs((d - a) - 2.0 * (c - b)), 6.0 * noise) / 2.0
            # (3 σ / (third / H³))^⅓
            return max(SHORTEST, min(share, share * (3.0 * noise / third) ** (1 / 3))), spent
        share /= 16
    return share, spent
