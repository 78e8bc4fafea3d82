"""The documentation: every public name is in it, its code runs and prints what it shows."""

import base64
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastgc
import fastgc.lab
from tests.notebook import METADATA, TUTORIAL
from tests.shown import ROOT, Block, blocks, lines_of_html, require_alike, require_same, same
from tests.strategies import slow

DOCS = ROOT / "docs"
COMING_FROM = (DOCS / "coming-from.md").read_text().split("\n## ")

#: Modules whose `__all__` is public, and what they need.
PUBLIC = {"fastgc": None, "fastgc.lab": None, "fastgc.torch": "torch", "fastgc.jax": "jax"}


def public_names(module: str) -> list[str]:
    """`__all__`, and of the lab what is imported by name alone."""
    value = importlib.import_module(module)
    if value is not fastgc.lab:
        names: list[str] = value.__all__
        return names
    return [
        name
        for name, member in vars(value).items()
        if inspect.isfunction(member)
        and name[0] != "_"
        and (name in value.__all__ or member.__module__ == module)
    ]


NAMES = [
    (module, name)
    for module, needed in PUBLIC.items()
    if needed is None or importlib.util.find_spec(needed) is not None
    for name in public_names(module)
]


def documented() -> set[str]:
    """The names that the pages of the reference ask autodoc for, with their modules."""
    found = set()
    for page in DOCS.glob("reference*.md"):
        module = ""
        for kind, name in re.findall(r"^\.\. (\S+):: (\S+)", page.read_text(), re.MULTILINE):
            if kind == "py:module":
                module = name
            elif kind.startswith("auto"):
                found.add(f"{module}.{name.removesuffix('()')}")
    return found


def test_the_reference_has_every_public_name_and_no_other() -> None:
    assert documented() == {f"{module}.{name}" for module in PUBLIC for name in names_of(module)}


def names_of(module: str) -> list[str]:
    needed = PUBLIC[module]
    if needed is not None:
        pytest.importorskip(needed, reason=f"needs the extra {needed}")
    return public_names(module)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name_has_an_example(module: str, name: str) -> None:
    """That the examples run is for ``pytest --doctest-modules fastgc`` to see."""
    value = getattr(importlib.import_module(module), name)
    examples = doctest.DocTestParser().get_examples(value.__doc__ or "")
    assert any(example.want for example in examples), name
    assert not any(example.options.get(doctest.SKIP) for example in examples), name


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    pages = {path.stem for path in (*DOCS.glob("*.md"), *DOCS.glob("*.ipynb"))} - {"index"}
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize(
    "section",
    [slow(section) if "\nimport fastgc." in section else section for section in COMING_FROM[1:]],
    ids=lambda text: text.split("\n")[0],
)
def test_coming_from_prints_what_it_shows(section: str) -> None:
    for module in ("torch", "jax"):
        if re.search(rf"^import {module}\b", section, re.MULTILINE):
            pytest.importorskip(module, reason=f"needs the extra {module}")
    program = blocks(section)
    assert sum(bool(block.shown) for block in program) >= 2
    require_same(program)


def test_coming_from_is_about_these() -> None:
    titles = [section.split("\n")[0] for section in COMING_FROM[1:]]
    assert titles == ["The course", "PyTorch", "JAX", "SciPy"]


# ---- the tutorial


@pytest.fixture(scope="module")
def stored() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
    return nbformat.read(TUTORIAL, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell: Any) -> list[str]:
    """What a cell prints and shows, as text."""
    lines: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            lines += output.text.splitlines()
        elif "text/html" in output.data:
            lines += lines_of_html(output.data["text/html"])
        elif "image/png" not in output.data:
            lines += output.data["text/plain"].splitlines()
    return lines


def pictures_of(cell: Any) -> list[bytes]:
    return [
        base64.b64decode(output.data["image/png"])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


@pytest.mark.slow
def test_the_tutorial_shows_what_a_fresh_kernel_gives(stored: Any, tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="needs the extra docs")
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    nbformat = importlib.import_module("nbformat")
    path = tmp_path / "tutorial.ipynb"
    run = subprocess.run(
        [sys.executable, "-m", "tests.notebook", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    fresh = nbformat.read(path, as_version=4)
    for cell, again in zip(code_cells(stored), code_cells(fresh), strict=True):
        require_alike(lines_of(cell), [line for line in lines_of(again) if not is_notice(line)])
        assert len(pictures_of(cell)) == len(pictures_of(again)), cell.id


def is_notice(line: str) -> bool:
    """Of the first check of a network after an installation."""
    return line.startswith("fastgc: compiling its kernels")


def test_the_tutorial_is_stored_as_it_ran(stored: Any) -> None:
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", "a warning, or a notice of compilation"
    assert stored.metadata == METADATA
    assert not re.search(r"/(home|root|tmp|Users)/|[A-Z]:\\\\", TUTORIAL.read_text())


def test_the_tutorial_has_pictures_of_modest_size_with_words_for_who_cannot_see(
    stored: Any,
) -> None:
    drawn = [cell for cell in code_cells(stored) if pictures_of(cell)]
    assert len(drawn) >= 5
    for cell in drawn:
        assert all(len(picture) < 60_000 for picture in pictures_of(cell)), cell.id
        assert len(cell.metadata["mystnb"]["image"]["alt"]) > 20, cell.id


def test_the_tutorial_has_the_number_of_the_course(stored: Any) -> None:
    printed = "\n".join(line for cell in code_cells(stored) for line in lines_of(cell))
    assert "difference = 0.285093" in printed
    assert "b1: 4.000 × the numerical gradient" in printed


# ---- the comparison itself


@pytest.mark.parametrize(
    ("shown", "got", "alike"),
    [
        ("difference 0.285093, cost 2.40783", "difference 0.285101, cost 2.40783", True),
        ("difference 0.285093, cost 2.40783", "difference 0.295093, cost 2.40783", False),
        ("fastgc.check     8e-17", "fastgc.check     2e-16", True),
        ("off by 4.6e-03", "off by 4.6e-02", False),
        ("method loop, 9 evaluations in 3 ms", "method loop, 9 evaluations in 1.5 s", True),
        ("method loop, 9 evaluations in 3 ms", "method node, 9 evaluations in 3 ms", False),
        (
            "method node, 9 losses of a sample in 3 ms",
            "method node, 9 losses of a sample in 1 s",
            True,
        ),
        (
            "method node, 9 losses of a sample in 3 ms",
            "method node, 8 losses of a sample in 3 ms",
            False,
        ),
        ("W1  W1[0, 1]  1  1  1.0  correct", "W1  W1[2, 3]  4  4  1.0  correct", True),
        ("W1  W1[0, 1]  1  1  1.0  correct", "W2  W1[0, 1]  1  1  1.0  correct", False),
        ("W1  W1[0, 1]  1  2  0.5  wrong, 1 of 3", "W1  W1[0, 2]  1  2  0.5  wrong, 1 of 3", False),
        ("correct: 4097 entries", "correct: 4098 entries", False),
        ("the sign is flipped", "the sign is right", False),
    ],
)
def test_the_same_is_said(shown: str, got: str, alike: bool) -> None:
    assert same(shown, got) is alike


def test_a_document_that_shows_another_number_is_noticed() -> None:
    program = [Block("print(1.25)", ["1.25"]), Block("print('a', 2)", ["a 3"])]
    require_same(program[:1])
    with pytest.raises(AssertionError, match="shown is\na 3\nand printed\na 2"):
        require_same(program)


def test_a_table_in_a_notebook_is_compared_row_by_row() -> None:
    report = fastgc.check(lambda t: t**2, 3.0, 12.0)
    lines = lines_of_html(report._repr_html_())
    assert lines[0] == str(report).splitlines()[0]
    assert any(line.startswith("parameters") and line.endswith("wrong, 1 of 1") for line in lines)
