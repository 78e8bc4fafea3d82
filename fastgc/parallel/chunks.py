"""Work on items 0 … n − 1, all at once, or in chunks that an executor or a checkpoint wants."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray

if TYPE_CHECKING:
    from fastgc.parallel.checkpoint import Checkpoint
    from fastgc.parallel.executor import Dispatcher
    from fastgc.parallel.worker import Work


def _nothing(_: int) -> None:
    """Does nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class Resources:
    """What a method may use. None of it changes a result.

    Attributes:
        memory: bytes that it may allocate at once, beyond what parameters and data hold.
        threads: how many threads it may run.
        advance: called with the number of evaluations done since the last call, from any thread.
        skip: called with the number of evaluations that an earlier process has done already.
        chunking: of the work, for an executor or a checkpoint; None for neither.
    """

    memory: int
    threads: int
    advance: Callable[[int], None]
    skip: Callable[[int], None] = _nothing
    chunking: "Chunking | None" = None


SECONDS = 0.2  # of a chunk in this process: soon over, and then it can be saved
SHORTEST = 0.1  # of the chunks before, that the last ones are cut down to so that all end together
GROWTH = 8  # times as many items as the last chunk, at most
AHEAD = 4  # chunks for each worker that are submitted and not yet done
TICK = 0.5  # seconds between looks for Ctrl-C where waiting cannot be interrupted

NEVER_STARTED = (
    "Did its workers never start? A script that starts processes does what it does under if "
    '__name__ == "__main__"'
)

Advance: TypeAlias = Callable[[int], object]  # takes the number of evaluations done
Chunk: TypeAlias = tuple[int, int]  # first item, and the one after the last


@dataclass(frozen=True, eq=False, repr=False)
class Chunking:
    """Why and for whom work is done in chunks.

    Attributes:
        dispatcher: the workers of an executor; None for this process.
        checkpoint: where finished chunks are kept; None for nowhere.
    """

    dispatcher: "Dispatcher | None" = None
    checkpoint: "Checkpoint | None" = None

    def identify(self, identity: Mapping[str, tuple[object, ...]]) -> None:
        """Refuses a checkpoint of anything else than what has this `identity`."""
        if self.checkpoint is not None:
            self.checkpoint.identify(identity)

    def threads(self, count: int) -> int:
        """How many of `count` threads a chunk may run: a worker is one of many."""
        return count if self.dispatcher is None else 1

    def close(self, error: BaseException | None = None) -> None:
        """Saves what is done, and removes what was made for the workers.

        An interrupt is told where to go on.
        """
        try:
            if self.checkpoint is not None:
                self.checkpoint.close()
                if isinstance(error, KeyboardInterrupt):
                    error.add_note(f"fastgc: the same call goes on from {self.checkpoint.path}")
        finally:
            if self.dispatcher is not None:
                self.dispatcher.close()


def chunking(
    executor: Any,
    checkpoint: object,
    subject: object,
    *,
    one_blas_thread: bool = False,
    alone: bool = False,
) -> Chunking | None:
    """How a check's work is divided; None where it need not be.

    Args:
        executor: already looked at; or None.
        checkpoint: whatever the caller passed, or None.
        subject: what workers will be sent; None where that is something that fastgc makes.
        one_blas_thread: whether workers hold BLAS to one thread.
        alone: whether the threads of a worker take turns, as for a cost that is seeded.

    Raises:
        TypeError, ValueError: for a subject that cannot be sent, and an unusable checkpoint.
    """
    if executor is None and checkpoint is None:
        return None
    dispatcher = kept = None
    if checkpoint is not None:
        from fastgc.parallel.checkpoint import Checkpoint

        kept = Checkpoint(checkpoint)
    if executor is not None:
        from fastgc.parallel.executor import Dispatcher

        dispatcher = Dispatcher(executor, one_blas_thread=one_blas_thread, alone=alone)
        if subject is not None:
            dispatcher.payload(subject)
    return Chunking(dispatcher, kept)


def perform(
    work: "Work",
    subject: Any,
    items: tuple[NDArray[Any], ...],
    out: FloatArray,
    resources: "Resources",
    *,
    perturbations: int,
    key: tuple[object, ...] = (),
    places: Callable[[int, int], Any] = slice,
) -> None:
    """Fills `out` with what `work` finds of each item; to the last bit the same in any chunks.

    Args:
        work: (subject, *items, advance) -> values (r, …). A function of a module, or a partial of
            one, that workers can import; `advance` is called with evaluations done.
        subject: what all chunks have in common; sent to each worker once.
        items: arrays with n items along their first axes; `work` gets the same part of each.
        out: (r, …).
        resources: what may be used.
        perturbations: how many evaluations it all takes.
        key: what tells this work from other work on the same problem, besides the items.
        places: (first, end) -> the columns of `out` that these items fill.
    """
    count = len(items[0])
    if resources.chunking is None:
        out[:, places(0, count)] = work(subject, *items, resources.advance)
        return
    dispatcher, checkpoint = resources.chunking.dispatcher, resources.chunking.checkpoint
    done = np.zeros(count, dtype=np.bool_)
    if checkpoint is not None:
        checkpoint.begin((*key, *items, out.shape))
        for first, end, values in checkpoint.finished():
            columns = places(first, end)
            out[:, columns] = values.reshape(out[:, columns].shape)
            done[first:end] = True
    told = int(done.sum())
    resources.skip(told * perturbations // max(count, 1))
    todo = _Todo(done, SECONDS if dispatcher is None else dispatcher.seconds)

    def finish(chunk: Chunk, values: FloatArray) -> None:
        nonlocal told
        columns = places(*chunk)
        out[:, columns] = values
        before, told = told, told + chunk[1] - chunk[0]
        resources.advance(told * perturbations // count - before * perturbations // count)
        if checkpoint is not None:
            checkpoint.add(*chunk, out[:, columns])

    if dispatcher is not None and not dispatcher.lost:
        _on_workers(dispatcher, work, subject, items, todo, finish)
        if dispatcher.lost:
            there = told * perturbations // count
            started = "" if there else ". " + NEVER_STARTED
            warnings.warn(
                f"the executor has lost a worker ({dispatcher.lost}): {there:,} of "
                f"{perturbations:,} evaluations are done, and the others run in this "
                f"process{started}",
                RuntimeWarning,
                stacklevel=2,
            )
    todo.workers = 0
    for chunk in todo:
        began = time.perf_counter()
        values = work(subject, *_part(items, chunk), lambda _: None)
        todo.took(chunk, time.perf_counter() - began)
        finish(chunk, values)


def _part(items: tuple[NDArray[Any], ...], chunk: Chunk) -> tuple[NDArray[Any], ...]:
    return tuple(item[slice(*chunk)] for item in items)


class _Todo:
    """Deals out the items that are not done, in chunks of about so many `seconds`.

    Attributes:
        timed: whether it knows how long an item takes.
        workers: who share the items; 0 for this process alone.
    """

    def __init__(self, done: NDArray[np.bool_], seconds: float, workers: int = 0) -> None:
        self._count, self._left = done.size, int(np.count_nonzero(~done))
        self._seconds, self.workers = seconds, workers
        edges = np.flatnonzero(np.diff(done, prepend=True, append=True)).tolist()
        self._ranges = deque(zip(edges[::2], edges[1::2], strict=True))
        self._size = 1
        self.timed = False

    def __iter__(self) -> "_Todo":
        return self

    def __next__(self) -> Chunk:
        if not self._ranges:
            raise StopIteration
        first, stop = self._ranges.popleft()
        size = self._size
        if self.workers:  # towards the end, shares that leave no worker waiting for another
            share = -(-self._left // (2 * self.workers))
            size = min(size, max(share, int(SHORTEST * size), 1))
        end = min(stop, first + size)
        self._left -= end - first
        if end < stop:
            self._ranges.appendleft((end, stop))
        return first, end

    def give_back(self, chunk: Chunk) -> None:
        """Somebody else will have to do it."""
        self._left += chunk[1] - chunk[0]
        self._ranges.appendleft(chunk)

    def took(self, chunk: Chunk, seconds: float) -> None:
        """Later chunks are as large as this one shows to be right."""
        self.timed = True
        count = chunk[1] - chunk[0]
        right = int(count * self._seconds / max(seconds, 1e-9))
        most = self._count // (AHEAD * self.workers) if self.workers else self._count
        self._size = max(1, min(right, most, max(self._size, GROWTH * count)))


def _on_workers(
    dispatcher: "Dispatcher",
    work: "Work",
    subject: Any,
    items: tuple[NDArray[Any], ...],
    todo: _Todo,
    finish: Callable[[Chunk, FloatArray], None],
) -> None:
    """Does what is to do on the workers, or until one is lost and the others have ended.

    Whatever is raised meanwhile leaves at once: chunks that have begun end unheard.
    """
    from concurrent.futures import FIRST_COMPLETED, wait

    from fastgc.parallel.worker import Done, Unread

    pending: dict[Any, Chunk] = {}
    carriers: dict[str | None, Any] = {}  # address -> the future that brings the subject there

    def submit(chunk: Chunk, unread: Unread | None = None) -> Any:
        future = dispatcher.submit(subject, work, _part(items, chunk), unread)
        pending[future] = chunk
        return future

    try:
        while True:
            todo.workers = dispatcher.workers
            # the first chunks show how long an item takes
            window = todo.workers * (AHEAD if todo.timed else 1)
            while not dispatcher.lost and len(pending) < window and (chunk := next(todo, None)):
                submit(chunk)
            if not pending:
                return
            ready = wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done
            if not ready and dispatcher.is_silent():
                for chunk in pending.values():
                    todo.give_back(chunk)
                return
            for future in ready:
                chunk, outcome = pending.pop(future), dispatcher.outcome(future)
                if isinstance(outcome, Done):
                    todo.took(chunk, outcome.seconds)
                    finish(chunk, outcome.results)
                elif outcome is None or carriers.get(outcome.address) in pending:
                    todo.give_back(chunk)  # of a carrier, perhaps to this worker
                else:
                    carriers[outcome.address] = submit(chunk, outcome)
    finally:
        for future in pending:
            future.cancel()
