"""The examples as scripts: they learn, they are watched, and a bug that is planted stops them."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

try:
    distribution("river")
except PackageNotFoundError:
    pytest.skip("needs the extra examples", allow_module_level=True)

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra torch")
EXAMPLES = ["train_fraud", pytest.param("train_torch", marks=[needs_torch, pytest.mark.slow])]
WRONG = {
    "train_fraud": {"W1", "b1", "W2", "b2"},
    "train_torch": {"0.bias", "0.weight", "2.bias", "2.weight"},
}


def run(example: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{example}.py"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_learns(example: str) -> None:
    done = run(example, "--steps", "500")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"accuracy (\d+\.\d)% on the pages trained on, (\d+\.\d)% on those held out\n"
        r"\d+ checks of the gradients took \d+\.\d\d s, \d+\.\d% of the time\n",
        done.stdout,  # no bar, no control codes
    )
    assert found
    assert float(found[1]) > 88
    assert float(found[2]) > 85


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_planted_bug_stops_it(example: str) -> None:
    done = run(example, "--plant")
    assert (done.returncode, done.stdout) == (1, "")
    headline = re.match(r"step \d+: wrong: (.+) \(\d+ of \d+ .+\) disagree with", done.stderr)
    assert headline
    assert set(re.split(", | and ", headline[1])) == WRONG[example]
