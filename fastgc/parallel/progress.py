"""A bar in a terminal while a check lasts, and the console that reports are printed to."""

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output or error: plain where it is no terminal or NO_COLOR is set."""
    from rich.console import Console

    # rich drops only colours for NO_COLOR; without a colour system it drops bold and dim as well
    if os.environ.get("NO_COLOR"):
        return Console(stderr=stderr, color_system=None, highlight=False)
    return Console(stderr=stderr, highlight=False)


PATIENCE = 1.0  # seconds without a bar
INTERVAL = 0.1  # seconds between updates


class Progress:
    """Counts evaluations; shows a bar, a rate and the time left once the work has lasted a second.

    A context manager, so that the terminal is restored however the work ends. The bar is drawn on
    standard error, and not at all unless both standard streams are terminals.
    """

    def __init__(self, total: int, *, enabled: bool) -> None:
        self.total = total
        self._enabled = enabled and _is_terminal(sys.stdout) and _is_terminal(sys.stderr)
        self._done = 0
        self._skipped = 0
        self._begun = time.monotonic()
        self._due = self._begun + PATIENCE
        self._lock = threading.Lock()
        self._bar: RichProgress | None = None

    def skip(self, count: int) -> None:
        """Notes evaluations that were done before, and tell nothing of the rate."""
        with self._lock:
            self._done += count
            self._skipped += count

    def advance(self, count: int) -> None:
        """Notes `count` more evaluations; may be called from any thread."""
        if not self._enabled:
            return
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now < self._due:
                return
            self._due = now + INTERVAL
            rate = (self._done - self._skipped) / (now - self._begun)
            if self._bar is None:
                self._start(rate)
            else:
                self._bar.update(self._bar.task_ids[0], completed=self._done, rate=rate)

    def _start(self, rate: float) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        # kept before it is started, so that an interrupt meanwhile still finds it to stop it
        self._bar = RichProgress(
            TextColumn("checking"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("evaluations, {task.fields[rate]:,.0f}/s, left"),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._bar.add_task("checking", total=self.total, completed=self._done, rate=rate)
        self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)  # a stream may be None, closed, or a notebook's
    try:
        return bool(isatty()) if isatty else False
    except ValueError:
        return False
