"""The workers of an executor, as one check uses them: what they are about is sent to each once."""

import asyncio
import hashlib
import pickle
import shutil
import sys
import tempfile
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fastgc.parallel.worker import Filed, Held, Outcome, Packed, Unread, Work, run

UNKNOWN = 64  # workers of an executor that does not tell
PATIENCE = 60.0  # seconds for the result of a task that is done to arrive
RESENT = 3  # times that Dask gets a subject again, having lost it with its last worker
ALIGNED = 64  # bytes, as NumPy's own allocations at best

ADVICE = (
    "Define it, and what it refers to, at the top level of a module that the workers can import; "
    "or pass a concurrent.futures.ThreadPoolExecutor, whose threads share it, which helps where "
    "it releases the GIL; or Dask's client.get_executor(), which also sends lambdas and closures"
)


class Dispatcher:
    """Submits work on a subject to an executor; what it made for that is removed by `close`.

    Attributes:
        workers: how many there are, as far as the executor tells.
        lost: whether a worker has been lost; then nothing more is submitted.
        on_dask: whether they are Dask's.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._threads = in_threads(executor)
        self._client = _dask_client(executor)
        self._folder: Path | None = None
        self._last: tuple[Any, Packed | None] = None, None  # the subject it is of
        self._sent: dict[bytes, Any] = {}
        self._resent = 0
        self.workers = _count(executor, self._client)
        self.lost = False
        self.on_dask = self._client is not None

    def submit(
        self, subject: Any, work: Work, items: tuple[Any, ...], *, whole: bool = False
    ) -> "Future[Outcome]":
        """Has a worker do `work` on some items of the subject.

        Args:
            subject: sent once to each worker; with the task itself if `whole`.
            work: a function of a module, or a partial of one.
            items: arrays.
            whole: for a worker that cannot read this machine's files.

        Raises:
            TypeError: for a subject that cannot be pickled.
            ValueError: for an executor that is shut down.
        """
        payload = self._packed(subject) if whole else self._payload(subject)
        try:
            if self._client is not None:
                return self._on_dask(payload, work, items)
            return self._executor.submit(run, payload, work, items)
        except futures.BrokenExecutor:
            raise
        except RuntimeError as error:  # it has been shut down
            raise ValueError(
                f"executor= takes no work: {str(error).rstrip('.')}. Check within its with block"
            ) from error

    def _on_dask(self, payload: Any, work: Work, items: tuple[Any, ...]) -> "Future[Outcome]":
        """What the executor's own submit does; but that future never ends where Dask forgets it.

        As it does with a task that has killed its worker; and with those of a subject that it has
        lost with the last worker that had it, which is Unread.
        """
        if self._executor._shutdown:  # type: ignore[attr-defined]  # of Dask's class
            raise RuntimeError("cannot schedule new futures after shutdown")
        options = {**getattr(self._executor, "_kwargs", {}), "pure": False}
        distant = self._client.submit(run, payload, work, items, **options)
        here: Future[Outcome] = Future()

        def finish(_: Any) -> None:
            if not here.set_running_or_notify_cancel():
                return
            try:
                here.set_result(distant.result(timeout=PATIENCE))
            except (futures.CancelledError, asyncio.CancelledError) as error:
                if isinstance(payload, Packed):
                    here.set_exception(error)
                else:
                    here.set_result(Unread())
            except BaseException as error:  # whatever Dask raises for a task that is lost
                here.set_exception(error)

        distant.add_done_callback(finish)
        here.add_done_callback(lambda future: distant.cancel() if future.cancelled() else None)
        return here

    def prepare(self, subject: Any) -> None:
        """Raises TypeError for a subject that cannot be sent."""
        if not self._threads:
            self._packed(subject)

    def _packed(self, subject: Any) -> Packed:
        last, packed = self._last
        if packed is None or last is not subject:
            packed = _pickled(subject, for_dask=self._client is not None)
            self._last = subject, packed
        return packed

    def _payload(self, subject: Any) -> Any:
        """What a task carries for a subject; for Dask, the future of a Packed one."""
        if self._threads:
            return Held(subject)
        packed = self._packed(subject)
        if packed.digest not in self._sent:
            send = self._filed if self._client is None else self._scattered
            self._sent[packed.digest] = send(packed)
        elif self._client is not None and self._sent[packed.digest].cancelled():
            if self._resent == RESENT:  # perhaps it is the task that ends the workers
                return packed
            self._resent += 1
            self._sent[packed.digest] = self._scattered(packed)
        return self._sent[packed.digest]

    def _filed(self, packed: Packed) -> Filed:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fastgc-"))
        path = self._folder / f"{len(self._sent)}.pickle"
        spans = []
        with path.open("wb") as file:
            parts = memoryview(packed.pickle), *(buffer.data for buffer in packed.buffers)
            for part, writable in zip(parts, (False, *packed.writable), strict=True):
                file.write(bytes(-file.tell() % ALIGNED))
                start = file.tell()
                file.write(part)
                spans.append((start, file.tell(), writable))
        return Filed(packed.digest, str(path), tuple(spans))

    def _scattered(self, packed: Packed) -> Any:
        return self._client.scatter(packed, broadcast=True, hash=False)

    def close(self) -> None:
        """Removes the files; workers that have them open keep what they hold."""
        self._sent.clear()
        self._last = None, None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def require_executor(executor: Any, *, reseeded: bool) -> None:
    """Raises TypeError or ValueError for what cannot be an executor=."""
    if executor is None:
        return
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


def _dask_client(executor: Executor) -> Any:
    """The client of an executor of Dask; None for any other."""
    module = sys.modules.get("distributed.cfexecutor")
    if module is not None and isinstance(executor, module.ClientExecutor):
        return executor._client
    return None


def _count(executor: Executor, client: Any) -> int:
    if client is not None:
        return max(1, int(sum(client.ncores().values())))
    count = getattr(executor, "_max_workers", None)
    return count if isinstance(count, int) and count > 0 else UNKNOWN


def _pickled(subject: Any, *, for_dask: bool) -> Packed:
    buffers: list[pickle.PickleBuffer] = []
    try:
        if for_dask:
            import cloudpickle  # type: ignore[import-untyped, unused-ignore]  # Dask's own

            pickled = cloudpickle.dumps(subject, protocol=5, buffer_callback=buffers.append)
        else:
            pickled = pickle.dumps(subject, protocol=5, buffer_callback=buffers.append)
    except Exception as error:
        raise TypeError(
            f"the cost cannot be sent to another process: {str(error).rstrip('.')}. {ADVICE}"
        ) from error
    arrays = tuple(np.asarray(buffer.raw()) for buffer in buffers)
    digest = hashlib.blake2b(pickled, digest_size=16)
    for array in arrays:
        digest.update(array.data)
    return Packed(
        digest.digest(), pickled, arrays, tuple(bool(array.flags.writeable) for array in arrays)
    )
