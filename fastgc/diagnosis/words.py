"""Numbers and lists in the words of a diagnosis."""

import math

import numpy as np
from numpy.typing import NDArray


def join(names: list[str]) -> str:
    """``W1, b1 and W2``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def listed(what: str, lines: NDArray[np.intp]) -> str:
    """``rows 0, 3 and 4``."""
    numbers = [str(i) for i in lines[:5]]
    if lines.size > 5:
        numbers.append(f"{lines.size - 5} more")
    return f"{what}{'s' if lines.size > 1 else ''} {join(numbers)}"


def ratio(g: float, found: float) -> str:
    """``2.000 × its numerical value``."""
    if g == 0 or found == 0:
        return f"{abs(g) if g == 0 else g:.4g} instead of {found:.4g}"
    return f"{number(g / found)} × its numerical value"


def number(c: float) -> str:
    """2.000, −0.0313, 1.00003: enough digits to tell it from 1."""
    away = abs(abs(c) - 1)
    if 1e-14 < away < 1e-3:
        return f"{c:.{min(15, 1 - math.floor(math.log10(away)))}f}".replace("-", "−")
    shown = f"{c:.3f}" if 0.1 <= abs(c) < 1e4 else f"{c:.4g}"
    return shown.replace("-", "−") if "e" not in shown else shown


def signed(c: float) -> str:
    """``+ 0.1``, ``− 0.1``."""
    return f"{'+' if c > 0 else '−'} {abs(c):.4g}"


def counted(count: int) -> str:
    """``1 entry``, ``3 entries``."""
    return "1 entry" if count == 1 else f"{count} entries"


def verb(count: int) -> str:
    """``is`` or ``are``."""
    return "is" if count == 1 else "are"
