"""What runs on a worker of an executor: it unpacks what a check is about once, then works on parts.

A task carries a `Payload`, a function and the items to work on. An `Outcome` comes back in any
case: whatever else an executor reports, it has lost a worker.
"""

import contextlib
import mmap
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray
from fastgc.parallel.threads import one_blas_thread

#: (subject, *items, advance) -> what was found of the items, (r, n).
Work: TypeAlias = Callable[..., FloatArray]

KEPT = 4  # subjects in a worker's memory

_lock = threading.RLock()  # unpacks once, however many threads wait for it
_subjects: "dict[bytes, tuple[Any, bool]]" = {}


@dataclass(frozen=True, eq=False)
class Held:
    """The subject itself, for threads of the same process."""

    subject: Any


@dataclass(frozen=True, eq=False)
class Filed:
    """Where the subject lies, pickled: the pickle, then its buffers.

    Attributes:
        digest: of its content.
        path: of a file that is removed when the check is over.
        spans: start, end and whether it may be written to, of each part of the file.
    """

    digest: bytes
    path: str
    spans: tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True, eq=False)
class Packed:
    """The subject, pickled, with its buffers; each writable or not, as it was."""

    digest: bytes
    pickle: bytes
    buffers: tuple[NDArray[np.uint8], ...]
    writable: tuple[bool, ...]


Payload: TypeAlias = Held | Filed | Packed


class Done(NamedTuple):
    """What was found, and the seconds that it took."""

    found: FloatArray
    seconds: float


class Raised(NamedTuple):
    """What the work raised, with its notes, which not every exception keeps when it is sent."""

    error: Exception
    notes: tuple[str, ...]


class Unread(NamedTuple):
    """There is no such file on this machine, or none any more; or Dask has lost the subject."""


class Unloadable(NamedTuple):
    """Unpickling failed, as when a worker cannot import the module that defines the cost."""

    why: str


Outcome: TypeAlias = Done | Raised | Unread | Unloadable


def run(payload: Payload, work: Work, items: tuple[Any, ...]) -> Outcome:
    """Does `work` on some items of the subject in a parcel."""
    try:
        subject = _subject(payload)
    except _NoFile:
        return Unread()
    except Exception as error:
        return Unloadable(f"{type(error).__name__}: {error}")
    try:
        with np.errstate(all="ignore"), _blas(subject), _alone(subject):
            began = time.perf_counter()
            found = work(subject, *items, _advance)
            return Done(found, time.perf_counter() - began)
    except Exception as error:
        if isinstance(payload, Held):
            return Raised(error, ())
        return _sendable(error)


def _advance(_count: int) -> None:
    """Nothing: whoever waits for the block counts it."""


class _NoFile(Exception):  # noqa: N818  it is no mistake
    """A file that is not there: on another machine, or the check is over."""


def _subject(payload: Payload) -> Any:
    if isinstance(payload, Held):
        return payload.subject
    with _lock:
        kept = _subjects.get(payload.digest)
        if kept is not None:
            subject, filed = kept
            if filed and isinstance(payload, Filed) and not Path(payload.path).exists():
                raise _NoFile  # the check is over, and nobody waits for this block
            return subject
        subject = _unfiled(payload) if isinstance(payload, Filed) else _unpacked(payload)
        while len(_subjects) >= KEPT:
            del _subjects[next(iter(_subjects))]
        _subjects[payload.digest] = subject, isinstance(payload, Filed)
        return subject


def _unfiled(payload: Filed) -> Any:
    """Arrays share the file's memory among the workers, until one writes to its own copy."""
    try:
        with Path(payload.path).open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise _NoFile from error
    parts = [mapped[start:end] for start, end, _ in payload.spans]
    buffers = [
        part if writable else part.toreadonly()
        for part, (_, _, writable) in zip(parts[1:], payload.spans[1:], strict=True)
    ]
    return pickle.loads(parts[0], buffers=buffers)


def _unpacked(payload: Packed) -> Any:
    buffers: list[memoryview] = []
    for buffer, writable in zip(payload.buffers, payload.writable, strict=True):
        part = (buffer.copy() if writable else buffer).data
        buffers.append(part if writable else part.toreadonly())
    return pickle.loads(payload.pickle, buffers=buffers)


def _blas(subject: Any) -> Any:
    """Holds BLAS to one thread for a Network, as the caller's process does."""
    state = getattr(subject, "state", None)
    if state is not None and state.uses_threads:
        return one_blas_thread()
    return contextlib.nullcontext()


def _alone(subject: Any) -> Any:
    """Keeps other threads of this worker from drawing numbers between seeding and evaluation."""
    return _lock if getattr(subject, "reseeded", False) else contextlib.nullcontext()


def _sendable(error: Exception) -> Raised:
    """The exception as it arrives where it is sent; of another type if it does not."""
    notes = tuple(map(str, getattr(error, "__notes__", ())))
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    notes += (f"fastgc: on worker process {os.getpid()}, in\n{where}",)
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return Raised(error, notes)
    except Exception:  # its constructor may take other arguments than it keeps
        pass
    return Raised(RuntimeError(f"{type(error).__name__}: {error}"), notes)


def _forget_after_fork() -> None:
    """Another thread of the parent may have held the lock, which nobody would open."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
