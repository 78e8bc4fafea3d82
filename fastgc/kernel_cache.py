"""Where Numba keeps the compiled kernels, found without loading Numba, which takes 0.3 s."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.py")


def kernels_are_kept() -> bool:
    """Whether the kernels lie compiled on disk, for this version of Python and of their source."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return True  # there is nothing to compile
    folder = next((folder for folder in _folders() if _writable(folder)), None)
    if folder is None:
        return False
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    written = SOURCE.stat().st_mtime
    found = folder.glob(f"{SOURCE.stem}.respond-*.{version}*.nbi")
    return any(index.stat().st_mtime >= written for index in found)


def _folders() -> Iterator[Path]:
    """Where Numba would put them, in its order; it takes the first that is writable."""
    folder = SOURCE.parent
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
