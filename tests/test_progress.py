"""The bar: in a terminal, after a second, and gone without a trace."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastgc.parallel.progress import PATIENCE, Progress

pty = pytest.importorskip("pty", reason="needs a POSIX terminal")

ROOT = Path(__file__).parent.parent
HIDE_CURSOR, SHOW_CURSOR, CLEAR_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"

# A process started in the background may inherit an ignored Ctrl-C; a terminal's does not.
SCRIPT = """
import signal, sys, time, numpy as np, fastgc
signal.signal(signal.SIGINT, signal.default_int_handler)
def cost(w):
    time.sleep({pause})
    return float(w.sum())
report = fastgc.check(cost, np.ones(100), np.ones(100){options})
print("done", report.verdict)
"""


def in_terminal(
    script: str, *, interrupt_on: str | None = None, stdout: int | None = None, **environment: str
) -> tuple[int, str]:
    """Exit status and output of a script in a terminal of its own; Ctrl-C once a text shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
            "COLUMNS": "100",
            **environment,
        },
        start_new_session=True,
    )
    os.close(slave)
    output, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            output += chunk
        if interrupt_on is not None and interrupt_on.encode() in output:
            process.send_signal(signal.SIGINT)
            interrupt_on = None
    os.close(master)
    return process.wait(timeout=10), output.decode()


def test_a_long_check_shows_a_bar_and_takes_it_away() -> None:
    status, output = in_terminal(SCRIPT.format(pause=0.009, options=""))
    assert status == 0
    assert "checking" in output
    assert re.search(r"\d+/200", output)
    assert re.search(r"evaluations, \d+/s, left", output)
    assert output.count(HIDE_CURSOR) == output.count(SHOW_CURSOR) == 1
    after = output[output.rindex(SHOW_CURSOR) :]
    assert CLEAR_LINE in output[output.rindex("checking") :]
    assert "checking" not in after
    assert output.rstrip().endswith("done correct")


def test_a_short_check_shows_none() -> None:
    status, output = in_terminal(SCRIPT.format(pause=0.0, options=""))
    assert (status, output) == (0, "done correct\r\n")


def test_progress_false_shows_none() -> None:
    status, output = in_terminal(SCRIPT.format(pause=0.006, options=", progress=False"))
    assert (status, output) == (0, "done correct\r\n")


@pytest.mark.slow
def test_no_bar_when_output_is_no_terminal() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(pause=0.008, options="")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"},
        check=True,
        timeout=60,
    )
    assert (run.stdout, run.stderr) == ("done correct\n", "")


@pytest.mark.slow
def test_no_bar_when_standard_output_alone_is_no_terminal() -> None:
    read, write = os.pipe()
    status, output = in_terminal(SCRIPT.format(pause=0.008, options=""), stdout=write)
    os.close(write)
    with os.fdopen(read) as stream:
        assert stream.read() == "done correct\n"
    assert (status, output) == (0, "")


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    status, output = in_terminal(SCRIPT.format(pause=0.05, options=""), interrupt_on="checking")
    assert status == -signal.SIGINT or status == 1
    assert "KeyboardInterrupt" in output
    assert output.count(HIDE_CURSOR) == output.count(SHOW_CURSOR) == 1
    assert output.index(SHOW_CURSOR) < output.index("Traceback")


@pytest.mark.slow
def test_no_color_shows_a_bar_without_colour() -> None:
    _, output = in_terminal(SCRIPT.format(pause=0.008, options=""), NO_COLOR="1")
    assert "checking" in output
    assert not re.search(r"\x1b\[[0-9;]*m", output)


def test_a_closed_or_missing_stream_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(10, enabled=True) as bar:
            bar.advance(5)


def test_patience_is_about_a_second() -> None:
    assert 0.5 <= PATIENCE <= 1.5
