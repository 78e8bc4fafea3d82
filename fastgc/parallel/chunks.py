"""Work on items 0 … n − 1, all at once, or in chunks that an executor or a checkpoint wants."""

import contextlib
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
        chunking: of the work into blocks, for an executor or a checkpoint; None for neither.
    """

    memory: int
    threads: int
    advance: Callable[[int], None]
    skip: Callable[[int], None] = _nothing
    chunking: "Chunking | None" = None


SECONDS = 0.2  # of a block: a hundred times what a task costs, and soon over
# A task costs Dask 6 ms, partly of the workers' own cores: over two workers blocks of 0.2 s took
# 2.2 s in all, of 0.4 s 1.6.
DASK_SECONDS = 1.0
SHORTEST = 0.1  # of the blocks before, that the last ones are cut down to so that all end together
GROWTH = 8  # times as many items as the last block, at most
AHEAD = 4  # blocks for each worker that are submitted and not yet done
TICK = 0.5  # seconds between looks for Ctrl-C where waiting cannot be interrupted

NEVER_STARTED = (
    "Did its workers never start? A script that starts processes does what it does under if "
    '__name__ == "__main__"'
)

Advance: TypeAlias = Callable[[int], object]  # takes the number of evaluations done
Chunk: TypeAlias = tuple[int, int]  # first item, and the one after the last


@dataclass(frozen=True, eq=False, repr=False)
class Chunking:
    """Why and for whom work is done in blocks.

    Attributes:
        dispatcher: the workers of an executor; None for this process.
        checkpoint: where finished blocks are kept; None for nowhere.
    """

    dispatcher: "Dispatcher | None"
    checkpoint: "Checkpoint | None"

    def identify(self, identity: Mapping[str, tuple[object, ...]]) -> None:
        """Refuses a checkpoint of anything else than what has this `identity`."""
        if self.checkpoint is not None:
            self.checkpoint.identify(identity)

    def threads(self, count: int) -> int:
        """How many of `count` threads a block may run: a worker is one of many."""
        return count if self.dispatcher is None else 1

    def close(self, error: BaseException | None = None) -> None:
        """Saves what is done, and removes what was made for the workers.

        An interrupt is told where to go on.
        """
        try:
            if self.checkpoint is not None:
                self.checkpoint.save()
                if isinstance(error, KeyboardInterrupt):
                    error.add_note(f"fastgc: the same call goes on from {self.checkpoint.path}")
        finally:
            if self.dispatcher is not None:
                self.dispatcher.close()


def chunking(executor: Any, checkpoint: object, subject: object) -> Chunking | None:
    """How a check's work is divided; None where it need not be.

    Args:
        executor: already looked at; or None.
        checkpoint: whatever the caller passed, or None.
        subject: what workers will be sent; None where that is something that fastgc makes.

    Raises:
        TypeError, ValueError: for a subject that cannot be sent, and an unusable checkpoint.
    """
    if executor is None and checkpoint is None:
        return None
    dispatcher = None
    if executor is not None:
        from fastgc.parallel.executor import Dispatcher

        dispatcher = Dispatcher(executor)
        if subject is not None:
            dispatcher.prepare(subject)
    kept = None
    if checkpoint is not None:
        from fastgc.parallel.checkpoint import Checkpoint

        kept = Checkpoint(checkpoint)
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
    """Fills `out` with what `work` finds of each item; to the last bit the same in any blocks.

    Args:
        work: (subject, *items, advance) -> values (r, …). A function of a module, or a partial of
            one, that workers can import; `advance` is called with evaluations done.
        subject: what all blocks have in common; sent to each worker once.
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
    done, held = np.zeros(count, dtype=np.bool_), out
    if checkpoint is not None:
        done, held = checkpoint.resume((*key, *items), count, out.shape)
    told = int(done.sum())
    resources.skip(told * perturbations // max(count, 1))
    todo = _Todo(done, SECONDS, workers=0)
    if dispatcher is not None:
        todo = _Todo(done, DASK_SECONDS if dispatcher.on_dask else SECONDS, dispatcher.workers)

    def finish(chunk: Chunk, values: FloatArray) -> None:
        nonlocal told
        first, end = chunk
        held[:, places(first, end)] = values
        done[first:end] = True
        before, told = told, told + end - first
        resources.advance(told * perturbations // count - before * perturbations // count)
        if checkpoint is not None:
            checkpoint.save_if_due()

    if dispatcher is not None and not dispatcher.lost:
        lost = _on_workers(dispatcher, work, subject, items, todo, finish)
        if lost is not None:
            there = told * perturbations // count
            started = "" if there else ". " + NEVER_STARTED
            warnings.warn(
                f"the executor has lost a worker ({lost}): {there:,} of {perturbations:,} "
                f"evaluations are done, and the others run in this process{started}",
                RuntimeWarning,
                stacklevel=2,
            )
    for chunk in todo:
        began = time.perf_counter()
        values = work(subject, *(item[slice(*chunk)] for item in items), lambda _: None)
        todo.took(chunk, time.perf_counter() - began)
        finish(chunk, values)
    if held is not out:
        out[:] = held


class _Todo:
    """Deals out the items that are not done, in blocks of about so many `seconds`.

    Attributes:
        timed: whether it knows how long an item takes.
    """

    def __init__(self, done: NDArray[np.bool_], seconds: float, workers: int) -> None:
        self._left = int(np.count_nonzero(~done))
        self._seconds, self._workers = seconds, workers
        self._most = max(1, done.size // (AHEAD * workers)) if workers else done.size
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
        if self._workers:  # towards the end, shares that leave no worker waiting for another
            share = -(-self._left // (2 * self._workers))
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
        """Later blocks are as large as this one shows to be right."""
        self.timed = True
        count = chunk[1] - chunk[0]
        right = int(count * self._seconds / max(seconds, 1e-9))
        self._size = max(1, min(right, self._most, max(self._size, GROWTH * count)))


def _on_workers(
    dispatcher: "Dispatcher",
    work: "Work",
    subject: Any,
    items: tuple[NDArray[Any], ...],
    todo: _Todo,
    finish: Callable[[Chunk, FloatArray], None],
) -> str | None:
    """Does what is to do on the crew's workers; how a worker was lost, if one was.

    Whatever is raised meanwhile leaves at once: blocks that have begun end unheard.
    """
    from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait

    from fastgc.parallel.worker import Done, Raised, Unloadable

    pending: dict[Any, Chunk] = {}
    lost = None
    carrier: Any = None  # the future that brings the subject to a worker on another machine

    def submit(chunk: Chunk, *, whole: bool = False) -> None:
        nonlocal lost, carrier
        part = tuple(item[slice(*chunk)] for item in items)
        try:
            future = dispatcher.submit(subject, work, part, whole=whole)
            pending[future] = chunk
            carrier = future if whole else carrier
        except BrokenExecutor as error:
            lost = _described(error)
            todo.give_back(chunk)

    try:
        while True:
            # the first blocks show how long an item takes
            window = dispatcher.workers * (AHEAD if todo.timed else 1)
            while lost is None and len(pending) < window:
                chunk = next(todo, None)
                if chunk is None:
                    break
                submit(chunk)
            if not pending:
                dispatcher.lost = lost is not None
                return lost
            for future in wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done:
                chunk = pending.pop(future)
                try:
                    outcome = future.result()
                except Exception as error:  # the work's own are values
                    lost = _described(error)
                    todo.give_back(chunk)
                    continue
                if isinstance(outcome, Done):
                    todo.took(chunk, outcome.seconds)
                    finish(chunk, outcome.found)
                elif isinstance(outcome, Raised):
                    raise _noted(outcome)
                elif isinstance(outcome, Unloadable):
                    raise _unloadable(outcome.why)
                elif carrier in pending:  # perhaps to this one
                    todo.give_back(chunk)
                else:
                    submit(chunk, whole=True)
    finally:
        for future in pending:
            future.cancel()


def _described(error: Exception) -> str:
    """What an executor says of the loss of a worker, in a line."""
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _noted(raised: Any) -> Exception:
    error: Exception = raised.error
    with contextlib.suppress(Exception):  # not every exception takes notes
        for note in raised.notes:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
    return error


def _unloadable(why: str) -> TypeError:
    from fastgc.parallel.executor import ADVICE

    return TypeError(f"the cost cannot be loaded by a worker of the executor: {why}. {ADVICE}")
