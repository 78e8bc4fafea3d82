"""Finished chunks in a file, so that a check that was killed goes on where it was.

The file is an SQLite database. One table says what is checked; the other has a row for each chunk.
"""

import hashlib
import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fastgc.core.tree import FloatArray

SHARE = 20  # at most one part in so many of the time goes into saving
#: The first table's name is that of the format.
TABLES = (
    "CREATE TABLE IF NOT EXISTS fastgc_checkpoint_2 (part TEXT PRIMARY KEY, digest TEXT)",
    "CREATE TABLE IF NOT EXISTS chunk (pass TEXT, first INTEGER, stop INTEGER, results BLOB,"
    " digest TEXT)",
)


class Checkpoint:
    """A file that holds what is done of one check; only this check has it open.

    A check passes over its entries once, and again over those that disagree, with other steps.

    Args:
        path: of the file; gone on with if it is there.
        interval: seconds between two savings, at least.

    Raises:
        TypeError, ValueError: for what is no path, cannot be written, or holds something else.
    """

    def __init__(self, path: object, interval: float = 2.0) -> None:
        self.path = _as_path(path)
        self._file = self.path.absolute()  # the cost may go to another folder
        self._interval = interval
        self._connection: sqlite3.Connection | None = None
        self._identity: dict[str, str] = {}
        self._pass = ""
        self._pending: list[tuple[str, int, int, bytes, str]] = []
        self._has_tables = self._warned = False
        self._due = time.monotonic() + interval
        _require_writable(self.path)
        if self.path.exists():
            with closing(self._opened()) as connection:
                self._stored_identity(connection)

    def identify(self, identity: Mapping[str, tuple[object, ...]]) -> None:
        """Says what is checked, by the contents of each of its parts; nobody else may write now.

        Raises:
            ValueError: where the file is of something else, or another check has it open.
        """
        self._identity = {name: digest(*contents) for name, contents in identity.items()}
        self._connection = connection = self._opened()
        list(self._rows(connection, "PRAGMA locking_mode = EXCLUSIVE"))
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:  # one that is read-only can be read
            if _is_busy(error):
                raise self._refusal(error) from error
        earlier = self._stored_identity(connection)
        connection.commit()  # the lock stays
        self._has_tables = bool(earlier)
        names = dict.fromkeys((*self._identity, *earlier))
        differ = [name for name in names if earlier.get(name) != self._identity.get(name)]
        if earlier and differ:
            raise ValueError(
                f'checkpoint="{self.path}" was written by another check, which differs in '
                f"{' and '.join(map(str, differ))}. Name another file, or remove this one"
            )

    def begin(self, key: tuple[object, ...]) -> None:
        """Begins a pass; `key` is what tells it from others."""
        self._pass = digest(*key)

    def finished(self) -> Iterator[tuple[int, int, FloatArray]]:
        """The finished chunks of this pass: first item, the one after the last, and results."""
        self.save()
        if not self._has_tables:
            return
        query = "SELECT first, stop, CAST(results AS BLOB), digest FROM chunk WHERE pass = ?"
        for first, stop, results, proof in self._rows(self._connection, query, self._pass):
            data = np.frombuffer(results, np.uint8)
            if proof == digest(self._pass, first, stop, data):  # a damaged one is done anew
                yield first, stop, data.view(np.float64)

    def add(self, first: int, stop: int, results: FloatArray) -> None:
        """Keeps the results of the items `first` to `stop` − 1, (r, …); saves if it is time."""
        data = results.tobytes()
        proof = digest(self._pass, first, stop, np.frombuffer(data, np.uint8))
        self._pending.append((self._pass, first, stop, data, proof))
        if time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        """Writes the chunks finished since the last saving, all or none; warns once if it fails."""
        if not self._pending or self._connection is None:
            return
        began = time.monotonic()
        try:
            if not self._file.exists():
                raise sqlite3.OperationalError("it is gone")
            with self._connection as connection:
                connection.execute("BEGIN")
                for table in TABLES:
                    connection.execute(table)
                connection.executemany(
                    "INSERT OR IGNORE INTO fastgc_checkpoint_2 VALUES (?, ?)",
                    self._identity.items(),
                )
                connection.executemany("INSERT INTO chunk VALUES (?, ?, ?, ?, ?)", self._pending)
            self._has_tables = True
            self._pending.clear()
        except (OSError, sqlite3.Error) as error:  # a full disk, say; the work is worth more
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f'checkpoint="{self.path}" could not be saved: {error}. The check goes on',
                    RuntimeWarning,
                    stacklevel=2,
                )
        now = time.monotonic()
        self._due = now + max(self._interval, SHARE * (now - began))

    def close(self) -> None:
        """Saves what is finished, and lets others open the file."""
        try:
            self.save()
        finally:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(self._file, timeout=0)
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def _stored_identity(self, connection: sqlite3.Connection) -> dict[str, str]:
        """Name of a part -> the digest of its contents; empty for a new file."""
        if not list(self._rows(connection, "SELECT name FROM sqlite_master")):
            return {}
        return dict(self._rows(connection, "SELECT part, digest FROM fastgc_checkpoint_2"))

    def _rows(self, connection: Any, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from connection.execute(query, values)
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def _refusal(self, error: sqlite3.Error) -> ValueError:
        if _is_busy(error):
            why = "is in use by another check. Wait for its end, or name another file"
        else:
            why = (
                f"is there already and holds no checkpoint that this fastgc can read: {error}. "
                "Name another file, or remove this one"
            )
        return ValueError(f'checkpoint="{self.path}" {why}')


def digest(*contents: object) -> str:
    """A name for these contents: arrays by their bits, anything else as Python writes it."""
    blake = hashlib.blake2b(digest_size=16)
    for content in contents:
        if isinstance(content, np.ndarray):
            blake.update(f"{content.dtype.str} {content.shape} ".encode())
            blake.update(np.ascontiguousarray(content).data)
        else:
            blake.update(f"{content!r} ".encode("utf-8", "backslashreplace"))
    return blake.hexdigest()


def _as_path(path: object) -> Path:
    wanted = 'a path such as checkpoint="run.ckpt"'
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint is a {type(path).__name__}; wanted {wanted}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"checkpoint is a path in bytes; wanted one in text, {wanted}")
    if not name:
        raise ValueError(f"checkpoint is empty; wanted {wanted}")
    return Path(name)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def _require_writable(path: Path) -> None:
    try:
        if not path.exists():  # with a name as long as that of SQLite's journal
            tempfile.NamedTemporaryFile(prefix=path.name, dir=path.parent).close()
        elif not path.is_file():
            raise OSError("it is no file")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f'checkpoint="{path}" cannot be written: {why}. Name a file in a folder that exists '
            "and that you may write to"
        ) from error
