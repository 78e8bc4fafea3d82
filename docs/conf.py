"""How Sphinx makes the documentation: ``sphinx-build -W --keep-going docs site``."""

import ast
import inspect
import textwrap
from typing import Any

import fastgc

project = "fastgc"
version = release = fastgc.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
html_theme = "furo"
html_title = f"fastgc {version}"
html_show_copyright = False
html_copy_source = False

default_role = "py:obj"  # in docstrings `check` is a link
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes of a dataclass are listed once
napoleon_use_rtype = False
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tutorial is shown with the outputs that it holds


def as_written(
    _app: Any, kind: str, _name: str, value: Any, _options: Any, signature: str, returns: str
) -> tuple[str, str]:
    """The signature as its author wrote it: evaluated, ArrayLike alone fills half a page."""
    if kind == "class":
        if "__init__" not in vars(value) or hasattr(value, "__dataclass_fields__"):
            return "", ""  # made by fastgc, not by the caller
        value = value.__init__
    if kind not in ("class", "function", "method"):
        return signature, returns
    function = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        del arguments.args[0]
    for argument in (*arguments.args, *arguments.kwonlyargs):
        argument.annotation = unquoted(argument.annotation)
    returned = None if kind == "class" else unquoted(function.returns)
    return f"({ast.unparse(arguments)})", "" if returned is None else ast.unparse(returned)


def unquoted(annotation: ast.expr | None) -> ast.expr | None:
    """An annotation that is written as a string, to be read later, without its quotes."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", as_written)
