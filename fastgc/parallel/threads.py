"""Threads: one pool for fastgc's own work, and BLAS held to one thread meanwhile."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_lock = threading.Lock()
_pool: "ThreadPoolExecutor | None" = None
_controller: Any = None
_limiter: Any = None
_modules = 0  # loaded when the controller looked for BLAS libraries
_limited = 0


def available_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share(work: Callable[[Iterator[int]], None], count: int, workers: int) -> None:
    """Runs `work` on `workers` threads, which share the numbers 0 … count − 1 between them.

    Each call of `work` draws numbers from its iterator until none is left. With one worker it runs
    on the calling thread. Where one call raises, the others stop at their next number, and the
    exception is raised here once they have.
    """
    todo = deque(range(count))

    def draw() -> Iterator[int]:
        while True:
            try:
                yield todo.popleft()
            except IndexError:
                return

    if workers <= 1:
        work(draw())
        return
    pool = _shared_pool()
    futures: list[Future[None]] = []
    try:
        futures.extend(pool.submit(work, draw()) for _ in range(workers))
        for future in futures:
            future.result()
    finally:
        todo.clear()
        if len(futures) < workers:
            _retire(pool)
        for future in futures:
            if not future.cancel():
                future.exception()


class one_blas_thread:  # noqa: N801  a context manager, named as one
    """Holds BLAS to one thread, in the whole process, until the last concurrent user leaves.

    The last bits of a product depend on how many threads made it, and its worker threads spin
    afterwards where ours would work. A `node` pass on 784-512-256-1 took 10.6 ms so, 10.0 ms with a
    BLAS thread for each of two cores: no loss.

    A class, since a generator's context manager writes to the exceptions that pass through it.
    """

    def __enter__(self) -> None:
        global _controller, _limiter, _limited, _modules
        with _lock:
            if _limited == 0 and _modules != len(sys.modules):  # an import may have brought one
                # Scanning the loaded libraries takes 0.7 ms, a limit by this controller 9 µs.
                from threadpoolctl import ThreadpoolController

                _controller = ThreadpoolController().select(user_api="blas")
                _modules = len(sys.modules)
            if _limited == 0:
                _limiter = _controller.limit(limits=1)
            _limited += 1

    def __exit__(self, *_: object) -> None:
        global _limited
        with _lock:
            _limited -= 1
            if _limited == 0:
                _limiter.restore_original_limits()


def _shared_pool() -> "ThreadPoolExecutor":
    global _pool
    with _lock:
        if _pool is None:
            from concurrent.futures import ThreadPoolExecutor  # 5 ms that an import should not cost

            _pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="fastgc")
        return _pool


def _retire(pool: "ThreadPoolExecutor") -> None:
    """Ends a pool that Ctrl-C met while it was starting a thread.

    It may not know that thread, for which the process would wait at its end for ever.
    """
    global _pool
    _pool = None
    pool.shutdown(wait=False)


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that nobody will open."""
    global _lock, _pool, _limited
    _lock = threading.Lock()
    _pool = None
    if _limited:  # by a thread of the parent
        _limiter.restore_original_limits()
        _limited = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
