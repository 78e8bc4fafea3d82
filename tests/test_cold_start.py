"""The first use: what is compiled is kept, said, and never waited for where it is not needed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastgc.core import jit
from fastgc.network import propagate as response

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


PRICE = """
import sys
from importlib import import_module
watching = import_module("fastgc.watch")
print("compiled" if watching.loading_time() == watching.COMPILED else "kept")
assert "numba" not in sys.modules
"""


@pytest.mark.slow
def test_it_compiles_once_and_says_so(tmp_path: Path) -> None:
    first = python(PRICE + CHECK, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.returncode, first.stderr) == (0, f"{MESSAGE}once per installation\n")
    second = python(PRICE + CHECK, NUMBA_CACHE_DIR=str(tmp_path))
    assert (second.returncode, second.stderr) == (0, "")
    # what a watcher expects of loading goes by the same folder
    assert (first.stdout, second.stdout) == ("compiled\n", "kept\n")
    elsewhere = python(PRICE, NUMBA_CACHE_DIR=str(tmp_path / "new"))
    assert (elsewhere.stdout, elsewhere.stderr) == ("compiled\n", "")


def _source(folder: Path) -> Path:
    return folder / "fastgc" / "kernels.py"


def _index(tmp_path: Path, folder: Path, stamp: float = 0.0) -> Path:
    """A file as Numba's index of the kernels, newer than their source by `stamp` seconds."""
    version = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    name = jit.kept_as(_source(tmp_path), "respond")
    path = folder / f"kernels.{name}-1.{version}.nbi"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    when = _source(tmp_path).stat().st_mtime + stamp
    os.utime(path, (when, when))
    return path


def _kept(tmp_path: Path) -> bool:
    return jit.is_on_disk(_source(tmp_path), "respond")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The three places, none of them the real ones."""
    source = _source(tmp_path)
    source.parent.mkdir()
    source.touch()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    return list(jit._folders(source.parent))


def test_the_places_are_those_that_numba_looks_at(folders: list[Path], tmp_path: Path) -> None:
    caching = pytest.importorskip("numba.core.caching", reason="not public: Numba may move it")
    below = caching._CacheLocator.get_suitable_cache_subpath(str(_source(tmp_path)))
    assert [folder.name for folder in folders] == [below, "__pycache__", below]


def test_only_the_first_place_that_is_writable_counts(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in folders[1:]:
        _index(tmp_path, folder)
    assert not _kept(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert _kept(tmp_path)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    _index(tmp_path, folders[1]).unlink()
    assert _kept(tmp_path)
    monkeypatch.delenv("NUMBA_DISABLE_JIT")
    assert not _kept(tmp_path)
    folders[1].rmdir()
    folders[1].touch()  # nothing can be put into a file
    assert _kept(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders[1]))
    assert not _kept(tmp_path)


def test_what_is_older_than_its_source_or_of_another_python_does_not_count(
    folders: list[Path], tmp_path: Path
) -> None:
    path = _index(tmp_path, folders[0], stamp=-1.0)
    assert not _kept(tmp_path)
    path.unlink()
    _index(tmp_path, folders[0]).rename(folders[0] / "kernels.respond-1.py27.nbi")
    assert not _kept(tmp_path)
    _index(tmp_path, folders[0], stamp=1.0)
    assert _kept(tmp_path)


def test_what_was_compiled_of_other_files_of_the_folder_does_not_count(
    folders: list[Path], tmp_path: Path
) -> None:
    _index(tmp_path, folders[0])
    assert _kept(tmp_path)
    _source(tmp_path).with_name("changes.py").write_text("x = 1\n", encoding="utf-8")
    jit._digest.cache_clear()  # as in the next process
    assert not _kept(tmp_path)


def test_a_place_under_a_file_is_not_writable(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "chosen").touch()
    _index(tmp_path, folders[1])
    assert _kept(tmp_path)


@pytest.mark.slow
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

    module: Any = SimpleNamespace(respond=respond)
    response._warm_up(module)
    wanted = "fastgc: the compiled kernels could not be kept: No space left on device\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.slow
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
