"""How the kernels are compiled, and where what is compiled is kept; found without loading Numba."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

# "contract" rounds a·b + c once and reorders nothing: `incremental` on 784-512-256-1, m = 8 took 61
# to 76 ms with it, 79 to 89 without. The tests against 50 digits pin what it could spoil. No other
# flag: "reassoc" could fold (x + h) − x, "nnan" and "ninf" drop a test for NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

# What only compiled code calls needs no way in from Python or C.
INNER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """Compiled as a part of an `entry`."""
    from numba import njit

    return cast(F, njit(**INNER)(function))


def entry(function: F) -> F:
    """Compiled, and kept on disk where there is a place for it."""
    from numba import njit

    function.__qualname__ = kept_as(Path(function.__code__.co_filename), function.__name__)
    try:
        return cast(F, njit(cache=True, **OPTIONS)(function))
    except RuntimeError:  # no cache directory is writable
        return cast(F, njit(**OPTIONS)(function))


def warm_up(kernel: Callable[..., object], *arguments: object) -> None:
    """Calls a kernel once: that loads it from the cache, or compiles it and puts it there."""
    try:
        kernel(*arguments)
    except OSError as error:  # it is compiled, but a full disk, perhaps, has no place for it
        print(f"fastgc: the compiled kernels could not be kept: {error}", file=sys.stderr)


def is_kept(function: Callable[..., Any]) -> bool | None:
    """Whether an `entry` lies compiled on disk; None where it cannot be kept there."""
    stats = getattr(function, "stats", None)
    if stats is None:  # the JIT is disabled: there is nothing to compile
        return True
    if stats.cache_path is None:
        return None
    return any(Path(stats.cache_path).glob(f"*.{function.__qualname__}-*.nbi"))


def kept_as(source: Path, name: str) -> str:
    """The name under which Numba keeps an `entry`.

    It changes with every file of the folder: Numba itself looks at the entry's own file alone, and
    would go on with what it compiled of another.
    """
    return f"{name}_{_digest(source.parent)}"


@cache
def _digest(folder: Path) -> str:
    files = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha1(files, usedforsecurity=False).hexdigest()[:12]


def is_on_disk(source: Path, name: str) -> bool:
    """Whether the `entry` so named lies compiled on disk, for this Python and this `source`.

    Asked without loading Numba, which takes 0.3 s.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return True  # there is nothing to compile
    folder = next((folder for folder in _folders(source.parent) if _writable(folder)), None)
    if folder is None:
        return False
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    written = source.stat().st_mtime
    found = folder.glob(f"{source.stem}.{kept_as(source, name)}-*.{version}*.nbi")
    return any(index.stat().st_mtime >= written for index in found)


def _folders(folder: Path) -> Iterator[Path]:
    """Where Numba would put what is compiled of a `folder`; it takes the first that is writable."""
    address = hashlib.sha1(str(folder).encode(), usedforsecurity=False).hexdigest()
    below = f"{folder.name}_{address}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen) / below
    yield folder / "__pycache__"
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    if sys.platform != "win32":
        yield Path(os.environ.get("XDG_CACHE_HOME") or home) / "numba" / below


def _writable(folder: Path) -> bool:
    """Whether it is there, or could be made, and takes files."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
