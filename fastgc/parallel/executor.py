"""The workers of an executor, as one check uses them: what they are about is sent to each once."""

import hashlib
import math
import pickle
import shutil
import tempfile
import time
import weakref
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgc.parallel import dask
from fastgc.parallel.threads import available_cores
from fastgc.parallel.worker import (
    Done,
    Held,
    Outcome,
    Packed,
    Payload,
    Unloadable,
    Unread,
    Work,
    run,
)

SECONDS = 0.2  # of a chunk: a hundred times what a task costs, and soon over
ALIGNED = 64  # bytes, as NumPy's own allocations at best

ADVICE = (
    "Define it, and what it refers to, at the top level of a module that the workers can import; "
    "or pass a concurrent.futures.ThreadPoolExecutor, whose threads share it, which helps where "
    "it releases the GIL; or Dask's client.get_executor(), which also sends lambdas and closures"
)


class Dispatcher:
    """Submits work on a subject to an executor; what it made for that is removed by `close`.

    Args:
        executor: of any kind.
        one_blas_thread: whether workers hold BLAS to one thread.
        alone: whether the threads of a worker take turns, as for a cost that is seeded.
        patience: seconds without a result after which a worker counts as lost, besides ten times
            the longest that a chunk has taken; None for what suits the executor.

    Attributes:
        seconds: that a chunk should take.
        lost: how a worker was lost; empty while none is. Then nothing more should be submitted.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        one_blas_thread: bool = False,
        alone: bool = False,
        patience: float | None = None,
    ) -> None:
        self._executor, self._conditions = executor, (one_blas_thread, alone)
        self._threads, self._dask = in_threads(executor), dask.is_dask(executor)
        usual = dask.PATIENCE if self._dask else math.inf  # the futures of others end
        self._patience = usual if patience is None else patience
        self._folder = ""
        self._payloads: dict[bytes, Packed] = {}
        self._last: tuple[Any, Payload] | None = None  # the subject it is of
        self._workers: set[object] = set()
        self._longest, self._heard = 0.0, 0.0
        self.seconds = dask.SECONDS if self._dask else SECONDS
        self.lost = ""

    @property
    def workers(self) -> int:
        """How many have brought results; until then a guess."""
        return len(self._workers) or available_cores()

    def submit(
        self, subject: Any, work: Work, items: tuple[Any, ...], unread: Unread | None = None
    ) -> "Future[Outcome]":
        """Has a worker do `work` on some items of the subject.

        Args:
            subject: sent once to each worker.
            work: a function of a module, or a partial of one.
            items: arrays.
            unread: of a worker that cannot read this machine's files, and is sent them.

        Raises:
            TypeError: for a subject that cannot be pickled.
            ValueError: for an executor that is shut down.
        """
        payload = self.payload(subject)
        if unread is not None and isinstance(payload, Packed):
            payload = replace(payload, content=Path(payload.path).read_bytes())
        task = payload, work, items, *self._conditions
        self._heard = time.monotonic()
        try:
            if self._dask:
                return dask.submit(self._executor, unread and unread.address, *task)
            return self._executor.submit(run, *task)
        except futures.BrokenExecutor as error:
            broken: Future[Outcome] = Future()
            broken.set_exception(error)
            return broken
        except RuntimeError as error:  # it has been shut down
            raise ValueError(
                f"executor= takes no work: {str(error).rstrip('.')}. Check within its with block"
            ) from error

    def outcome(self, future: "Future[Outcome]") -> Done | Unread | None:
        """What has come back; None where the work failed, or its worker was lost.

        Raises:
            TypeError: for a subject that the worker cannot load.
        """
        self._heard = time.monotonic()
        try:
            outcome = future.result()
        except Exception as error:  # one of the work's own is met again in this process
            first = str(error).strip().partition("\n")[0].rstrip(".")
            self.lost = self.lost or f"{type(error).__name__}: {first}".removesuffix(": ")
            return None
        if isinstance(outcome, Unloadable):
            raise TypeError(
                f"the cost cannot be loaded by a worker of the executor: {outcome.why}. {ADVICE}"
            )
        if isinstance(outcome, Done):
            self._workers.add(outcome.worker)
            self._longest = max(self._longest, outcome.seconds)
        return outcome

    def is_silent(self) -> bool:
        """Whether a chunk should have come back long ago; then a worker is lost."""
        silence = time.monotonic() - self._heard
        patience = self._patience / 10 if self.lost else self._patience
        if not (self._longest or self.lost) or silence < patience + 10 * self._longest:
            return False
        self.lost = self.lost or f"no result for {silence:.0f} s"
        return True

    def payload(self, subject: Any) -> Payload:
        """What a task carries for a subject.

        Raises:
            TypeError: for one that cannot be sent.
        """
        if self._last is None or self._last[0] is not subject:
            self._last = subject, Held(subject) if self._threads else self._packed(subject)
        return self._last[1]

    def _packed(self, subject: Any) -> Packed:
        """The subject in a file, by its content."""
        buffers: list[pickle.PickleBuffer] = []
        dumps: Any = dask.dumps if self._dask else pickle.dumps
        try:
            pickled = dumps(subject, protocol=5, buffer_callback=buffers.append)
        except Exception as error:
            raise TypeError(
                f"the cost cannot be sent to another process: {str(error).rstrip('.')}. {ADVICE}"
            ) from error
        parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            digest.update(part)
        name = digest.digest()
        if name not in self._payloads:
            self._payloads[name] = self._filed(name, parts)
        return self._payloads[name]

    def _filed(self, digest: bytes, parts: list[memoryview]) -> Packed:
        if not self._folder:
            self._folder = tempfile.mkdtemp(prefix="fastgc-")
            # of a check that ends before its work begins, too
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path, spans = Path(self._folder, digest.hex()), []
        with path.open("wb") as file:
            for part in parts:
                file.write(bytes(-file.tell() % ALIGNED))
                start = file.tell()
                file.write(part)
                spans.append((start, file.tell(), not part.readonly))
        return Packed(digest, str(path), tuple(spans))

    def close(self) -> None:
        """Removes the files; workers that have them open keep what they hold."""
        self._last = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def require_executor(executor: Any, *, reseeded: bool) -> None:
    """Raises TypeError or ValueError for what cannot be an executor=."""
    if not isinstance(executor, Executor):
        raise TypeError(
            f"executor is a {type(executor).__name__}; wanted a concurrent.futures.Executor: "
            "a ProcessPoolExecutor(), a ThreadPoolExecutor(), or client.get_executor() of a Dask "
            "client"
        )
    if reseeded and in_threads(executor):
        raise ValueError(
            "reseed= seeds what the threads of a ThreadPoolExecutor draw from together, and they "
            "would disturb one another. Pass a ProcessPoolExecutor, or leave executor= out"
        )


def in_threads(executor: Executor) -> bool:
    """Whether its workers are threads of this process, which see the same objects."""
    interpreters = getattr(futures, "InterpreterPoolExecutor", ())  # of Python 3.14
    return isinstance(executor, ThreadPoolExecutor) and not isinstance(executor, interpreters)
