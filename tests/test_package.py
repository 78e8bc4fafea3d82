"""The package as installed: its names, its imports, its documents."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import fastgc

ROOT = Path(__file__).parent.parent


def test_public_names() -> None:
    for name in fastgc.__all__:
        value = getattr(fastgc, name)
        assert value.__doc__, name
    assert set(fastgc.__all__) >= {
        "Network", "check", "assert_gradients", "numerical_gradient", "select_method", "Report",
        "GradientMismatch",
    }  # fmt: skip


def test_import_loads_nothing_heavier_than_numpy() -> None:
    program = "import fastgc, sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"numba", "scipy", "rich", "typer", "threadpoolctl", "concurrent.futures"}


def test_version_is_that_of_the_distribution() -> None:
    assert metadata.version("fastgc") == fastgc.__version__


def test_types_are_shipped() -> None:
    assert (Path(fastgc.__file__).parent / "py.typed").exists()


def test_no_module_is_long() -> None:
    for path in (ROOT / "fastgc").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_no_global_generator_is_used() -> None:
    for path in (ROOT / "fastgc").rglob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"np\.random\.(seed|randn?|normal|uniform)\(", code), path


BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def _numbers(line: str) -> list[float]:
    return [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])", line)]


def _same(shown: str, printed: str) -> bool:
    """Alike in words; in numbers to a thousandth, save for times and rounding errors."""
    if shown.endswith("correct"):  # which entry rounds worst depends on the processor
        return shown.split()[0] == printed.split()[0] and printed.endswith("correct")
    words = [
        re.sub(r"[-\d.e+]+", "#", re.sub(r"in [\d.]+ m?s", "in #", s)) for s in (shown, printed)
    ]
    if words[0] != words[1]:
        return False
    if "evaluations in" in shown:
        return True
    return _numbers(shown) == pytest.approx(_numbers(printed), rel=1e-3)


@pytest.mark.parametrize("document", ["README.md"])
def test_code_blocks_run_and_print_what_they_show(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {}
    blocks = BLOCK.findall((ROOT / document).read_text())
    assert sum(kind == "python" for kind, _ in blocks) >= 4
    for (kind, block), following in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind != "python":
            continue
        exec(block, names)
        printed = capsys.readouterr().out.splitlines()
        shown = following[1].splitlines() if following[0] == "text" else []
        assert len(printed) == len(shown)
        for left, right in zip(shown, printed, strict=True):
            assert _same(left, right), f"{document} shows\n{left}\nand prints\n{right}"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_readme_shows_measured_figures() -> None:
    """The README's figures of speed are lines of docs/benchmarks.md."""
    measured = (ROOT / "docs" / "benchmarks.md").read_text().splitlines()
    written = re.search(
        r"<!-- speeds, .*?-->\n(.*?)<!--", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert written
    lines = written[1].splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line in measured
