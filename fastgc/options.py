"""What an option has to be: checked once, at the public boundary."""

import math
import numbers

DIRECTIONS, MOST_DIRECTIONS = 8, 10_000
MOST = 2**62  # of bytes or threads: as good as no limit


def require_resources(memory: object, threads: object, progress: object) -> tuple[int, int | None]:
    """memory= and threads=; TypeError or ValueError for what cannot be these, or a progress=."""
    require_flag(progress, "progress")
    bytes_ = require_count(memory, "memory", "a number of bytes")
    if threads is None:
        return bytes_, None
    wanted = "a number of threads, or None for one per core"
    return bytes_, require_count(threads, "threads", wanted)


def require_number(value: object, name: str) -> float:
    """A finite number that is not negative, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; wanted a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {_shown(value)}; wanted a finite number that is not negative")
    return number


def require_count(value: object, name: str, wanted: str) -> int:
    """A whole number, 1 or more, as an int of no more than `MOST`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; wanted {wanted}")
    if int(value) < 1:
        raise ValueError(f"{name} is {_shown(value)}; wanted {wanted}, 1 or more")
    return min(int(value), MOST)


def require_directions(value: object) -> int:
    """How many random directions to take."""
    if value is None:
        return DIRECTIONS
    count = require_count(value, "directions", "a number of directions for each tensor")
    if count > MOST_DIRECTIONS:
        raise ValueError(
            f"directions is {count}; wanted {MOST_DIRECTIONS} or fewer: more cost more than "
            "looking at entries, with sample= or another method, and tell less"
        )
    return count


def require_seed(value: object) -> int:
    """A whole number that is not negative, as an int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"seed is {value!r}; wanted a whole number, 0 or more")
    if int(value) < 0:
        raise ValueError(f"seed is {_shown(value)}; wanted a whole number, 0 or more")
    return int(value)


def require_flag(value: object, name: str) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; wanted True or False")


def _shown(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no integers of over 4,300 digits
        return "a number of thousands of digits"
