"""That nothing is skipped unseen where --forbid-skips forbids it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strategies import slow

ROOT = Path(__file__).parent.parent

REFUSED = {
    "test_marked": "@pytest.mark.skip(reason='no luck')\ndef test_it(): pass",
    "test_fixture": "@pytest.fixture\ndef it(): pytest.skip('no luck')\ndef test_it(it): pass",
    "test_module": "pytest.importorskip('nowhere', reason='no luck')",
}
ACCEPTED = {
    "test_gpu": "def test_it(): pytest.skip('needs a GPU')",
    "test_failing": "@pytest.mark.xfail\ndef test_it(): assert 0",
    "test_passing": "def test_it(): pass",
}


def run(folder: Path, modules: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(f"import pytest\n{text}\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options, "-c", str(folder / "pytest.ini"), str(folder)],
        cwd=ROOT, env={k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_what_is_skipped_fails_a_run_that_forbids_it(tmp_path: Path) -> None:
    ran = run(tmp_path, REFUSED | ACCEPTED, "--forbid-skips")
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout
    told = [line for line in ran.stdout.splitlines() if "--forbid-skips forbids: " in line]
    assert len(told) == len(REFUSED)
    for name in REFUSED:
        assert any(f"{name}.py" in line and line.endswith("no luck") for line in told)


@pytest.mark.slow
def test_nothing_but_skips_fails_too(tmp_path: Path) -> None:
    name = "test_module"
    ran = run(tmp_path, {name: REFUSED[name]}, "--forbid-skips")
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout


@pytest.mark.parametrize(("modules", "option"), [(ACCEPTED, "--forbid-skips"), slow(REFUSED, "-q")])
def test_what_may_be_skipped_may(tmp_path: Path, modules: dict[str, str], option: str) -> None:
    ran = run(tmp_path, modules, option)
    assert ran.returncode == pytest.ExitCode.OK, ran.stdout
    assert "forbids" not in ran.stdout
