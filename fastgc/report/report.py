"""Report: what a check found, with its looks, which load when they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fastgc.report.data import Contents

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Report(Contents):
    """What a check found. True in a condition when the gradients are right; prints as a table.

    It holds the gradients, gradapprox and its uncertainty, 3 P numbers.

    Attributes:
        verdict: ``correct``; ``wrong``, if any entry disagrees or is not finite; ``unresolved``,
            if some entries are lost in the rounding noise of the cost. It does not depend on
            `difference`.
        difference: ‖grad − gradapprox‖₂ / (‖grad‖₂ + ‖gradapprox‖₂) over all entries.
        tolerance: relative, as it was asked for.
        epsilon: the step; the longest where it was chosen entry by entry.
        method: the method that was used.
        cost: J at the parameters; None of a Jacobian, where there is not one number.
        noise: σ_J, the rounding noise of J as measured; 0 for ``incremental`` and ``node``, whose
            differences have none.
        evaluations: of the cost, in all; of what `unit` says.
        seconds: that the check took, less loading the compiled kernels, once in a process.
        tensors: name -> `TensorReport`, in the order of the parameters.
        origin: where the mistake starts, in backward order; None where there is none to be found.
        against: how far the `Network` and the cost that it was compared with lie apart, relative;
            None where it was compared with none.
        scope: what the check proves, where that is less than that every entry agrees: of a part,
            a sample or random directions; None for a whole.
        estimate: what random directions say of the error of all gradients together.
        unit: what `evaluations` counts: ``evaluations``, or for ``node`` ``losses of a sample``.

    >>> import fastgc
    >>> report = fastgc.check(lambda p: p["a"] ** 2, {"a": 3.0}, {"a": 6.0})
    >>> bool(report), report.verdict, report.tensors["a"].counts["agree"]
    (True, 'correct', 1)
    >>> report = fastgc.check(lambda p: p["a"] ** 2, {"a": 3.0}, {"a": 12.0})
    >>> str(report.tensors["a"].diagnosis)
    '2.000 × the numerical gradient, in the one entry that tells'
    """

    def __str__(self) -> str:
        from fastgc.report import text

        return text.plain(self)

    def __rich__(self) -> "RenderableType":
        from fastgc.report import text

        return text.renderable(self)

    def _repr_html_(self) -> str:
        from fastgc.report import text

        return text.html(self)

    def plot(self, *, tensors: Sequence[str] | None = None, width: float = 8.0) -> "Figure":
        """A picture of the tensors at fault: heat maps of errors, and analytic against numerical.

        Args:
            tensors: which; None for those at fault, worst first, six at most, or for the first six
                where none is.
            width: of the figure, inches; under 5, as on a phone, the two stand below each other.

        Returns:
            A matplotlib ``Figure``; ``.savefig("report.png")`` writes it to a file.

        Raises:
            ModuleNotFoundError: without matplotlib; ``pip install "fastgc[plot]"`` brings it.
            TypeError, ValueError: for unknown tensors, for a width that is not 2 to 100 inches, or
                for a report that was read back with `from_dict`.
        """
        from fastgc.report import plot

        return plot.plot(self, tensors, width)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain JSON types, as docs/report.md describes them.

        NaN and inf, which JSON lacks, are strings.

        >>> import fastgc
        >>> report = fastgc.check(lambda t: t**2, 3.0, 6.0)
        >>> fastgc.Report.from_dict(report.to_dict()) == report   # a NaN in it equals nothing
        True
        """
        from fastgc.report import json

        return json.to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The report that `to_dict` made `data` from, without the arrays of its tensors.

        Raises:
            TypeError, ValueError: for anything else; the message names the key.
        """
        from fastgc.report import json

        return json.from_dict(cls, data)
