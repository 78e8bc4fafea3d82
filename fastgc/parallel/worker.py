"""What runs on a worker of an executor: it unpacks what a check is about once, then works on parts.

A task carries a payload, a function and the items to work on. An `Outcome` comes back; an exception
of the work, which is tried again by the caller, does so in its place.
"""

import contextlib
import mmap
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastgc.core.tree import FloatArray
from fastgc.parallel import threads

#: (subject, *items, advance) -> results of the items, (r, n).
Work: TypeAlias = Callable[..., FloatArray]

KEPT = 4  # subjects in a worker's memory

_lock = threading.RLock()  # unpacks once, however many threads wait for it
_subjects: "dict[bytes, tuple[Any, bool]]" = {}  # digest -> the subject, whether from a file


@dataclass(frozen=True, eq=False)
class Held:
    """The subject itself, for threads of the same process."""

    subject: Any


@dataclass(frozen=True, eq=False)
class Packed:
    """The subject, pickled: the pickle, then its buffers, one after the other.

    Attributes:
        digest: of its content.
        path: of the file that holds it, which is removed when the check is over.
        spans: start, end and whether it may be written to, of each part.
        content: of the file, for a worker that cannot read it; else None.
    """

    digest: bytes
    path: str
    spans: tuple[tuple[int, int, bool], ...]
    content: bytes | None = None


Payload: TypeAlias = Held | Packed


class Done(NamedTuple):
    """The results, the seconds that they took, and which worker this is."""

    results: FloatArray
    seconds: float
    worker: tuple[object, ...]


class Unread(NamedTuple):
    """This worker's machine has no such file, or has it no more."""

    address: str | None = None


class Unloadable(NamedTuple):
    """Unpickling failed, as when a worker cannot import the module that defines the cost."""

    why: str


Outcome: TypeAlias = Done | Unread | Unloadable


def run(
    payload: Payload, work: Work, items: tuple[Any, ...], one_blas_thread: bool, alone: bool
) -> Outcome:
    """Does `work` on some items of the subject in a payload.

    Args:
        payload: what is worked on.
        work: what is done.
        items: arrays.
        one_blas_thread: whether BLAS is held to one thread.
        alone: whether other threads of this worker wait, as for a cost that is seeded.
    """
    try:
        subject = payload.subject if isinstance(payload, Held) else _unpacked(payload)
    except _NoFile:
        return Unread()
    except Exception as error:
        return Unloadable(f"{type(error).__name__}: {error}")
    blas = threads.one_blas_thread() if one_blas_thread else contextlib.nullcontext()
    turn = _lock if alone else contextlib.nullcontext()
    with np.errstate(all="ignore"), blas, turn:
        began = time.perf_counter()
        # nothing advances here: whoever waits for the chunk counts it
        results = work(subject, *items, lambda _: None)
        seconds = time.perf_counter() - began
    return Done(results, seconds, (socket.gethostname(), os.getpid(), threading.get_ident()))


class _NoFile(Exception):  # noqa: N818  it is no mistake
    """A file that is not there: on another machine, or the check is over."""


def _unpacked(payload: Packed) -> Any:
    with _lock:
        if payload.digest in _subjects:
            subject, filed = _subjects[payload.digest]
            if filed and payload.content is None and not Path(payload.path).exists():
                raise _NoFile  # the check is over, and nobody waits for this chunk
            return subject
        memory = _memory(payload)
        parts = [
            memory[start:end] if writable else memory[start:end].toreadonly()
            for start, end, writable in payload.spans
        ]
        subject = pickle.loads(parts[0], buffers=parts[1:])
        while len(_subjects) >= KEPT:
            del _subjects[next(iter(_subjects))]
        _subjects[payload.digest] = subject, payload.content is None
        return subject


def _memory(payload: Packed) -> memoryview:
    """The content. Workers share a file's memory, until one writes to its own copy."""
    if payload.content is not None:
        return memoryview(bytearray(payload.content))
    try:
        with Path(payload.path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise _NoFile from error
