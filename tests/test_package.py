"""The package as installed: its names, its imports, its documents."""

import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import fastgc
from tests.shown import blocks, require_same, says

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
    heavy = {
        "numba",
        "scipy",
        "rich",
        "typer",
        "threadpoolctl",
        "concurrent.futures",
        "torch",
        "jax",
    }
    assert not loaded & heavy


@pytest.mark.parametrize(("module", "library"), [("torch", "PyTorch"), ("jax", "JAX")])
def test_an_adapter_without_its_library_says_what_to_install(module: str, library: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; import fastgc.{module}"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert says(
        run.stderr.splitlines()[-1], f"ModuleNotFoundError: fastgc.{module} needs {library}"
    )


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


def test_contributing_names_files_that_exist() -> None:
    """A name without a folder is in that of the file named before it in its line."""
    named = 0
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w/.]+(?:\.(?:py|md|toml)|/))`", line):
            path = ROOT / name if "/" in name else folder / name
            assert path.exists(), f"{name}: {line}"
            folder = path.parent if "/" in name else folder
            named += 1
    assert named > 20


def test_imports_run_one_way() -> None:
    """Lazy ones and those for types as well, between folders and the files beside them."""
    package = ROOT / "fastgc"
    imports: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        unit = path.relative_to(package).with_suffix("").parts[0]
        found = re.findall(r"^ *(?:from|import) fastgc\.(\w+)", path.read_text(), re.MULTILINE)
        imports.setdefault(unit, set()).update(name for name in found if name != unit)
    TopologicalSorter(imports).prepare()  # raises for a circle


README = (ROOT / "README.md").read_text()
EXTRAS = {"PyTorch": "torch", "JAX": "jax"}  # sections of the README, and what they need


@pytest.mark.slow
def test_the_readme_prints_what_it_shows() -> None:
    sections = README.split("\n## ")
    program = blocks("\n## ".join(s for s in sections if s.split("\n")[0] not in EXTRAS))
    assert len(program) >= 4
    require_same(program)


@pytest.mark.slow
@pytest.mark.parametrize("title", EXTRAS)
def test_the_readme_prints_what_it_shows_of(title: str) -> None:
    pytest.importorskip(EXTRAS[title], reason=f"needs the extra {EXTRAS[title]}")
    (section,) = (s for s in README.split("\n## ") if s.split("\n")[0] == title)
    require_same(blocks(section))


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
