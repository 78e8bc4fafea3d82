"""Finished blocks in a file, so that a check that was killed goes on where it was."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray

INTERVAL = 2.0  # seconds between two savings, at least,
SHARE = 20  # and so many times as long as the last one took
FORMAT = "fastgc checkpoint 1"


class Checkpoint:
    """A file that holds what is done of one check.

    A check passes over its entries once, and again over those that disagree, with other steps. Each
    pass has a key, a mask of the items that are done, and what was found of them.

    Args:
        path: of the file; read if it is there, replaced as a whole at each saving.

    Raises:
        TypeError, ValueError: for what is no path, cannot be written, or holds something else.
    """

    def __init__(self, path: object) -> None:
        self.path = _as_path(path)
        self._stored: dict[str, NDArray[Any]] = {}  # what the file held
        self._passes: dict[str, tuple[NDArray[np.bool_], FloatArray]] = {}
        self._identity: dict[str, str] = {}
        self._changed = False
        self._due = time.monotonic() + INTERVAL
        self._told = False
        _require_writable(self.path)
        if self.path.exists():
            self._stored = _read(self.path)

    def identify(self, identity: Mapping[str, tuple[object, ...]]) -> None:
        """Says what is checked: name of a part -> its contents.

        Raises:
            ValueError: where the file is of something else.
        """
        self._identity = {name: digest(*contents) for name, contents in identity.items()}
        if not self._stored:
            return
        earlier = json.loads(str(self._stored["identity"]))
        names = dict.fromkeys((*self._identity, *earlier))
        differ = [name for name in names if earlier.get(name) != self._identity.get(name)]
        if differ:
            raise ValueError(
                f'checkpoint="{self.path}" was written by another check, which differs in '
                f"{' and '.join(differ)}. Name another file, or remove this one"
            )

    def resume(
        self, key: tuple[object, ...], count: int, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.bool_], FloatArray]:
        """What is known of a pass over `count` items: both arrays are to be filled, and are saved.

        Args:
            key: what tells this pass from others.
            count: n.
            shape: (r, …), of what is found.

        Returns:
            Which items are done, (n,), and what was found; only the places of those mean something.
        """
        name = digest(*key, count, shape)
        if name not in self._passes:
            done = self._stored.pop(f"{name}.done", np.zeros(count, dtype=np.bool_))
            self._passes[name] = done, self._stored.pop(f"{name}.out", np.zeros(shape))
        return self._passes[name]

    def save_if_due(self) -> None:
        """Called when more is done."""
        self._changed = True
        if time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        """Writes the file anew, so that at any time there is a whole one."""
        if not self._changed:
            return
        began = time.monotonic()
        held = {name: array for name, array in self._stored.items() if "." in name}
        held |= {"format": np.array(FORMAT), "identity": np.array(json.dumps(self._identity))}
        for name, (done, out) in self._passes.items():
            held |= {f"{name}.done": done, f"{name}.out": out}
        new = None
        try:
            descriptor, new = _beside(self.path)
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, allow_pickle=False, **held)
                file.flush()
                os.fsync(file.fileno())
            Path(new).replace(self.path)
            self._changed = False
        except OSError as error:  # a full disk, say; hours of work are worth more than this file
            if new is not None:
                with contextlib.suppress(OSError):
                    Path(new).unlink()
            if not self._told:
                self._told = True
                warnings.warn(
                    f'checkpoint="{self.path}" could not be saved: {error}. The check goes on',
                    RuntimeWarning,
                    stacklevel=2,
                )
        now = time.monotonic()
        self._due = now + max(INTERVAL, SHARE * (now - began))


def digest(*contents: object) -> str:
    """A name for these contents: arrays by their bits, anything else as Python writes it."""
    found = hashlib.blake2b(digest_size=16)
    for content in contents:
        if isinstance(content, np.ndarray):
            found.update(f"{content.dtype.str} {content.shape} ".encode())
            found.update(np.ascontiguousarray(content).data)
        else:
            found.update(f"{content!r} ".encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def _as_path(path: object) -> Path:
    wanted = 'a path such as checkpoint="run.npz"'
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint is a {type(path).__name__}; wanted {wanted}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"checkpoint is a path in bytes; wanted one in text, {wanted}")
    if not name:
        raise ValueError(f"checkpoint is empty; wanted {wanted}")
    return Path(name)


def _beside(path: Path) -> tuple[int, str]:
    """A new file, opened, for the next version of the file; in the same folder."""
    return tempfile.mkstemp(prefix=f"{path.name[:100]}.", suffix=".tmp", dir=path.parent)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    stored: dict[str, NDArray[Any]] = {}
    why = ""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        json.loads(str(stored["identity"]))
    except OSError as error:
        why = f": {error.strerror or error}"
    except Exception:  # of any kind: zipfile raises a dozen for a damaged file
        stored = {}
    if why or str(stored.get("format")) != FORMAT:
        raise ValueError(
            f'checkpoint="{path}" is there already and holds no checkpoint that this fastgc can '
            f"read{why}. Name another file, or remove this one"
        )
    return stored


def _require_writable(path: Path) -> None:
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if len(path.name) > 250:
            raise OSError("its name is too long")
        descriptor, name = _beside(path)
        os.close(descriptor)
        Path(name).unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f'checkpoint="{path}" cannot be written: {why}. Name a file in a folder that exists '
            "and that you may write to"
        ) from error
