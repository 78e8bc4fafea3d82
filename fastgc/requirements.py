"""What an option has to be: checked once, at the public boundary."""

import math
import numbers


def require_resources(memory: object, threads: object, progress: object) -> None:
    """Raises TypeError or ValueError for what cannot be a memory=, threads= or progress=."""
    require_count(memory, "memory", "a number of bytes")
    if threads is not None:
        require_count(threads, "threads", "a number of threads, or None for one per core")
    require_flag(progress, "progress")


def require_number(value: object, name: str) -> float:
    """A finite number that is not negative, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; wanted a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {value}; wanted a finite number that is not negative")
    return number


def require_count(value: object, name: str, wanted: str) -> None:
    """Raises TypeError or ValueError unless `value` is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; wanted {wanted}")
    if int(value) < 1:
        raise ValueError(f"{name} is {value}; wanted {wanted}, 1 or more")


def require_flag(value: object, name: str) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; wanted True or False")
