"""The first use: what is compiled is kept, said, and never waited for where it is not needed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastgc import response

CHECK = """
import fastgc
net = fastgc.Network([[1.0, 2.0]], [0, 1])
theta = {"W1": [[0.3]], "b1": [[0.1]]}
report = fastgc.check(net, theta, fastgc.numerical_gradient(net, theta))
assert report.ok and report.method == "incremental"
"""
MESSAGE = "fastgc: compiling its kernels, "


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_compiles_once_and_says_so(tmp_path: Path) -> None:
    first = python(CHECK, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.returncode, first.stderr) == (0, f"{MESSAGE}once per installation\n")
    second = python(CHECK, NUMBA_CACHE_DIR=str(tmp_path))
    assert (second.returncode, second.stderr) == (0, "")


def test_without_a_place_to_keep_it_it_compiles_and_says_how_to_have_one() -> None:
    nowhere = (
        "from numba.core import caching\ncaching.FunctionCache._impl_class._locator_classes = []\n"
    )
    run = python(nowhere + CHECK)
    assert run.returncode == 0, run.stderr
    assert run.stderr == (
        f"{MESSAGE}in every process anew: no cache directory is writable. "
        "Set NUMBA_CACHE_DIR to one that is\n"
    )


def test_a_cache_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def respond(*_: object) -> None:
        raise OSError("No space left on device")

    module: Any = SimpleNamespace(respond=respond, SQUARED=2)
    response._warm_up(module)
    wanted = "fastgc: the compiled kernels could not be kept: No space left on device\n"
    assert capsys.readouterr().err == wanted


def test_progress_false_says_nothing(tmp_path: Path) -> None:
    quiet = """
import fastgc
net = fastgc.Network([[1.0, 2.0]], [0, 1])
fastgc.numerical_gradient(net, {"W1": [[0.3]], "b1": [[0.1]]}, progress=False)
"""
    run = python(quiet, NUMBA_CACHE_DIR=str(tmp_path))
    assert (run.returncode, run.stderr) == (0, "")


def test_the_demo_and_plain_costs_never_wait_for_the_compiler() -> None:
    demo = "import sys\nfrom fastgc.cli import demo\ndemo()\nassert 'numba' not in sys.modules\n"
    run = python(demo)
    assert run.returncode == 0, run.stderr
    plain = "import sys, fastgc\nassert fastgc.check(lambda t: t**2, 3.0, 6.0)\nassert 'numba' not in sys.modules\n"
    run = python(plain)
    assert run.returncode == 0, run.stderr


def test_a_watch_loads_what_its_checks_need_before_the_first_step() -> None:
    watched = (
        "import sys, fastgc\n"
        "watcher = fastgc.watch(lambda t: t**2, every=1, budget=1.0{options})\n"
        "before = set(sys.modules)\n"
        "watcher(3.0, 6.0), watcher(3.0, 6.0)\n"
        "assert watcher.report.method == {method!r}\n"
        "late = {{name for name in set(sys.modules) - before if name.startswith('scipy')}}\n"
        "assert not late, late\n"
    )
    for options, method in ((", method='random'", "random"), (", method='loop'", "loop")):
        run = python(watched.format(options=options, method=method))
        assert run.returncode == 0, run.stderr


def test_without_the_jit_the_answer_is_the_same() -> None:
    run = python(CHECK, NUMBA_DISABLE_JIT="1")
    assert (run.returncode, run.stderr) == (0, "")
