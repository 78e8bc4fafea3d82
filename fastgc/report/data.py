"""What a check found: frozen data, which `text`, `plot` and `json` show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgc.core.statistics import Estimate
from fastgc.core.tree import FloatArray, entry_name, index_of
from fastgc.core.verdict import (
    ENTRY_VERDICTS,
    EntryVerdict,
    Verdict,
    entry_scale,
    root_mean_square,
)
from fastgc.options import require_count

C = TypeVar("C", bound="Contents")


@dataclass(frozen=True)
class Diagnosis:
    """What a tensor's error looks like.

    Attributes:
        kind: one word, for programs; docs/report.md lists them.
        text: for people.
        value: the number in it, such as a factor or λ; None where there is none.

    >>> import fastgc, numpy as np
    >>> w = np.array([3.0, 4.0])
    >>> diagnosis = fastgc.check(lambda w: w @ w, w, 6 * w).tensors["parameters"].diagnosis
    >>> diagnosis.kind, round(diagnosis.value, 6), str(diagnosis)
    ('factor', 3.0, '3.000 × the numerical gradient')
    """

    kind: str
    text: str
    value: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Entry:
    """One parameter: its gradient as given and as found.

    Attributes:
        name: its address, as ``W2[3, 7]``.
        index: its index in its tensor; empty for a scalar.
        analytic: the gradient that was checked.
        numerical: gradapprox.
        uncertainty: how far rounding may have moved `numerical`.
        verdict: ``agree``, ``kink``, ``unresolved``, ``disagree`` or ``nonfinite``.
        slopes: the least and the greatest slope that a second look found; None where there was no
            second look. They are apart where the cost has a corner.

    >>> import fastgc
    >>> entry = fastgc.check(lambda t: t**2, 3.0, 12.0).worst(1)[0]
    >>> entry.verdict, entry.analytic, round(entry.ratio, 6)
    ('disagree', 12.0, 2.0)
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numerical: float
    uncertainty: float
    verdict: EntryVerdict
    slopes: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """`analytic` over `numerical`; NaN for 0 / 0."""
        if self.numerical == 0:
            return math.nan if self.analytic == 0 else math.copysign(math.inf, self.analytic)
        return self.analytic / self.numerical


@dataclass(frozen=True, eq=False, repr=False)
class Arrays:
    """Every entry of a tensor; arrays in its shape. Of a sample, (n,): the entries drawn.

    Attributes:
        shape: of the tensor.
        places: of a sample, flat indices of the entries drawn, in order, (n,); else None.
        analytic: the gradient that was checked.
        numerical: gradapprox.
        uncertainty: of `numerical`.
        verdicts: of each entry, indices into agree, kink, unresolved, disagree, nonfinite.
        looked_at: flat indices of the entries that had a second look, in order, (n,).
        slopes: the least and the greatest slope that it found, (n,) each.
        output_axes: of a Jacobian, how many of its first axes are those of the output.

    >>> import fastgc, numpy as np
    >>> w = np.array([3.0, 4.0])
    >>> report = fastgc.check(lambda p: (p["w"] ** 2).sum(), {"w": w}, {"w": 2 * w})
    >>> report.tensors["w"].arrays.numerical.round(5).tolist()
    [6.0, 8.0]
    """

    shape: tuple[int, ...]
    places: NDArray[np.intp] | None
    analytic: FloatArray
    numerical: FloatArray
    uncertainty: FloatArray
    verdicts: NDArray[np.uint8]
    looked_at: NDArray[np.intp]
    slopes: tuple[FloatArray, FloatArray]
    output_axes: int = 0

    def entry(self, tensor: str, place: int) -> Entry:
        """The entry at flat index `place` of these arrays, of the tensor so named."""
        index = index_of(self.shape, place if self.places is None else int(self.places[place]))
        at = int(np.searchsorted(self.looked_at, place)) if self.looked_at.size else 0
        looked_at = at < self.looked_at.size and self.looked_at[at] == place
        return Entry(
            name=entry_name(tensor, index, self.output_axes),
            index=index,
            analytic=float(self.analytic.flat[place]),
            numerical=float(self.numerical.flat[place]),
            uncertainty=float(self.uncertainty.flat[place]),
            verdict=ENTRY_VERDICTS[int(self.verdicts.flat[place])],
            slopes=(float(self.slopes[0][at]), float(self.slopes[1][at])) if looked_at else None,
        )

    def errors(self) -> FloatArray:
        """Relative errors, in the tensor's shape; 0 for 0 / 0, inf where either is not finite.

        ``|analytic − numerical| / max(|analytic|, |numerical|, size)``, where the size is the root
        mean square of the tensor's `numerical`.
        """
        g, found = self.analytic.ravel(), self.numerical.ravel()
        with np.errstate(all="ignore"):
            relative = np.abs(g - found) / entry_scale(g, found, root_mean_square(found))
        relative[(g == 0) & (found == 0)] = 0.0
        relative[~(np.isfinite(g) & np.isfinite(found))] = np.inf
        return relative.reshape(self.analytic.shape)


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the parameters.

    Attributes:
        name: as in the parameters.
        shape: of the tensor.
        verdict: ``correct``, ``wrong`` or ``unresolved``, that of its worst entry.
        difference: the lab's formula over this tensor.
        worst: the entry with the worst verdict and, among those, the largest error; of random
            directions, the worst of these, ``W1 along v3``, or of the entries located.
        counts: number of entries by entry verdict; or of directions.
        at_rounding: number of entries that agree only as far as the rounding errors of a right
            backward pass let anyone tell: gradients so small beside the terms they are summed from
            that few of their digits mean anything.
        resolution: the largest uncertainty of its entries, relative to the gradient: errors
            smaller than this are lost in the rounding noise of the cost. Entries that are zero to
            within their uncertainty do not count.
        tolerance: relative, that its entries were held to: that of the check, or what the dtype of
            its gradient allows.
        dtype: of its gradient.
        diagnosis: what the error looks like; None where there is none.
        arrays: every entry; None in a report that was read back with `Report.from_dict`, and of
            random directions.
        estimate: what random directions say of its error; None for the other methods.
        located: of a random check, wrong entries that were found after it, worst first.
        epsilon: the longest step taken, where the noise of the cost asked for a longer one than
            that of the report; else None.
        zeros: number of entries that agree as zero to within their uncertainty, where that is small
            beside the slopes that the cost has around.
        zero_within: the largest uncertainty of these.

    >>> import fastgc
    >>> report = fastgc.check(lambda p: p["a"] * p["b"], {"a": 3.0, "b": 4.0}, {"a": 4.0, "b": 4.0})
    >>> report.tensors["a"].ok, report.tensors["b"].verdict, report.tensors["b"].worst.name
    (True, 'wrong', 'b')
    """

    name: str
    shape: tuple[int, ...]
    verdict: Verdict
    difference: float
    worst: Entry
    counts: Mapping[str, int]
    at_rounding: int
    resolution: float
    tolerance: float
    dtype: str
    diagnosis: Diagnosis | None = None
    arrays: Arrays | None = field(default=None, compare=False, repr=False)
    estimate: Estimate | None = None
    located: tuple[Entry, ...] = ()
    epsilon: float | None = None
    zeros: int = 0
    zero_within: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the verdict is ``correct``."""
        return self.verdict == "correct"

    @property
    def size(self) -> int:
        """The number of entries that were looked at; or of directions."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Contents:
    """What a `Report` holds, as it describes it, without its looks."""

    verdict: Verdict
    difference: float
    tolerance: float
    epsilon: float
    method: str
    cost: float | None
    noise: float
    evaluations: int
    seconds: float
    tensors: Mapping[str, TensorReport]
    origin: str | None = None
    against: float | None = None
    scope: str | None = None
    estimate: Estimate | None = None
    unit: str = "evaluations"

    @property
    def ok(self) -> bool:
        """Whether the verdict is ``correct``."""
        return self.verdict == "correct"

    def __bool__(self) -> bool:
        return self.ok

    def worst(self, n: int = 10) -> list[Entry]:
        """The `n` worst entries: by verdict, then by error relative to their tensor's size.

        A report that was read back with `from_dict` knows only the worst entry of each tensor, one
        of random directions the entries that it located.

        >>> import fastgc, numpy as np
        >>> w = np.array([3.0, 4.0])
        >>> report = fastgc.check(lambda w: (w**2).sum(), w, np.array([6.0, 9.0]))
        >>> [(entry.name, round(entry.ratio, 3)) for entry in report.worst(1)]
        [('parameters[1]', 1.125)]
        """
        require_count(n, "n", "a number of entries")
        found: list[tuple[int, float, Entry]] = []
        for tensor in self.tensors.values():
            if tensor.arrays is None:
                for entry in tensor.located or (tensor.worst,):
                    code = ENTRY_VERDICTS.index(entry.verdict)
                    found.append((code, tensor.difference, entry))
                continue
            codes, errors = tensor.arrays.verdicts.ravel(), tensor.arrays.errors().ravel()
            for place in np.lexsort((errors, codes))[: -n - 1 : -1].tolist():
                entry = tensor.arrays.entry(tensor.name, place)
                found.append((int(codes[place]), float(errors[place]), entry))
        found.sort(key=lambda item: item[:2], reverse=True)
        return [entry for _, _, entry in found[:n]]


@dataclass(frozen=True)
class Outcome:
    """What a way of checking adds to a `Report`; its attributes are described there."""

    tensors: Mapping[str, TensorReport]
    difference: float
    epsilon: float
    evaluations: int
    origin: str | None = None
    scope: str | None = None
    estimate: Estimate | None = None


def also_saying(report: C, text: str) -> C:
    """The report with `text` after whatever its scope says."""
    return replace(report, scope=f"{report.scope}; {text}" if report.scope else text)


def told(report: C, names: Sequence[str]) -> C:
    """The report with a word on tensors that turned out to be unrelated."""
    if not names:
        return report
    said = (
        f"the loss does not depend on {', '.join(names)}: "
        "what gradient there is, is rounding of zero"
    )
    return also_saying(report, said)
