"""That nothing is skipped unseen where --forbid-skips forbids it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MODULES = {
    "a test": ("import pytest\n@pytest.mark.skip(reason='no luck')\ndef test_it(): pass", "no luck"),
    "a fixture": (
        "import pytest\n@pytest.fixture\ndef it(): pytest.skip('no luck')\ndef test_it(it): pass",
        "no luck",
    ),
    "a module": ("import pytest\npytest.importorskip('nowhere', reason='no luck')", "no luck"),
    "for want of a GPU": ("import pytest\ndef test_it(): pytest.skip('needs a GPU')", None),
    "an expected failure": ("import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0", None),
    "nothing": ("def test_it(): pass", None),
}  # fmt: skip


def run(tmp_path: Path, module: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "test_it.py").write_text(f"{module}\ndef test_other(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options, "-c", str(tmp_path / "pytest.ini"), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("what", MODULES)
def test_what_is_skipped_fails_a_run_that_forbids_it(tmp_path: Path, what: str) -> None:
    module, reason = MODULES[what]
    forbidden = run(tmp_path, module, "--forbid-skips")
    assert forbidden.returncode == (reason is not None), forbidden.stdout
    assert ("forbids: " in forbidden.stdout) == (reason is not None)
    assert reason is None or reason in forbidden.stdout.partition("forbids: ")[2]
    assert run(tmp_path, module).returncode in (0, 5)
