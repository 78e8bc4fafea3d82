"""Part checks: some tensors, or some entries of each, and what that proves."""

import fnmatch
import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.rng import generator
from fastgc.core.tree import Entries, Layout
from fastgc.options import require_count

CONFIDENCE = 0.95
NAMED = 6  # tensors that were left out, before they are only counted


@dataclass(frozen=True, eq=False, repr=False)
class Subset:
    """The entries that a check is about.

    Attributes:
        layout: of these entries alone.
        entries: their places in the flat vector of all parameters, (n,); None for all.
        tensors: the numbers of the tensors they belong to; None for all.
        scope: what a check of them proves; None where it is all that can be proven.
    """

    layout: Layout
    entries: Entries | None = None
    tensors: tuple[int, ...] | None = None
    scope: str | None = None

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of one value for each parameter, those of the part, (n,)."""
        return values if self.entries is None else values[self.entries]

    def whole(self, entries: Entries) -> Entries:
        """Entries of the part as entries of the flat vector of all parameters."""
        return entries if self.entries is None else self.entries[entries]


def subset_of(layout: Layout, only: object, sample: object, seed: int) -> Subset:
    """The entries that `only` and `sample` choose, in the order of the parameters.

    Raises:
        TypeError, ValueError: for what chooses nothing.
    """
    if only is None and sample is None:
        return Subset(layout)
    tensors = tuple(range(len(layout.names))) if only is None else _matching(layout, only)
    said = []
    if len(tensors) < len(layout.names):
        left = [name for t, name in enumerate(layout.names) if t not in tensors]
        names = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" * (len(left) > NAMED))
        said.append(f"not looked at: {names}")
    sizes = [math.prod(layout.shapes[t]) for t in tensors]
    places = None
    if sample is not None:
        most = require_count(sample, "sample", "a number of entries of each tensor")
        if most < max(sizes):
            rng = generator(5, seed)
            places = tuple(
                np.sort(rng.choice(size, min(most, size), replace=False)) for size in sizes
            )
            share = 1 - (1 - CONFIDENCE) ** (1 / most)
            said.append(
                f"{most} entr{'y' if most == 1 else 'ies'} of each larger tensor drawn at random: "
                f"where all of these agree, fewer than {share:.2g} of the tensor's are wrong, with "
                "95 % confidence"
            )
            sizes = [where.size for where in places]
    if not said:
        return Subset(layout)
    entries = [
        layout.offsets[t] + (np.arange(size) if places is None else places[i])
        for i, (t, size) in enumerate(zip(tensors, sizes, strict=True))
    ]
    chosen = replace(
        layout,
        names=tuple(layout.names[t] for t in tensors),
        shapes=tuple(layout.shapes[t] for t in tensors),
        offsets=tuple(accumulate(sizes, initial=0)),
        places=places,
    )
    return Subset(chosen, np.concatenate(entries), tensors, "; ".join(said))


def _matching(layout: Layout, only: object) -> tuple[int, ...]:
    """The numbers of the tensors that `only` names, or that match one of its patterns."""
    patterns: Any = [only] if isinstance(only, str) else only
    if not isinstance(patterns, list | tuple) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(
            f'only is {only!r}; wanted a list of names, or of patterns of names, as ["W1", "b*"]'
        )
    chosen = set()
    for pattern in patterns:
        # in names such as parameters[0] brackets stand for themselves
        forms = str(pattern), str(pattern).replace("[", "[[]")
        found = {
            t
            for t, name in enumerate(layout.names)
            if name == pattern or any(fnmatch.fnmatchcase(name, form) for form in forms)
        }
        if not found:
            raise ValueError(
                f'only holds "{pattern}", which is no tensor\'s name and matches none; '
                f"the parameters have: {', '.join(layout.names)}"
            )
        chosen |= found
    if not chosen:
        raise ValueError('only is empty; wanted one name or more, as ["W1", "b*"]; None for all')
    return tuple(sorted(chosen))
