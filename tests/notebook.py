"""Runs docs/tutorial.ipynb in a fresh kernel and stores what it prints and draws.

``python -m tests.notebook`` after every change to it; ``python -m tests.notebook FILE`` writes the
result elsewhere. Needs the extra ``docs``.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
SECONDS = 300  # that one cell may take

#: What every machine can write, instead of what this one is.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path) -> Any:
    """The notebook with the outputs of a fresh kernel; raises where a cell does."""
    nbformat, nbclient = import_module("nbformat"), import_module("nbclient")
    Config = import_module("traitlets.config").Config
    notebook = nbformat.read(path, as_version=4)
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["PYTHONPATH"] = str(ROOT)
    with TemporaryDirectory() as folder:
        # sockets in a folder of ours: over TCP anyone on the machine could read along
        manager = {"transport": "ipc", "ip": str(Path(folder) / "kernel")}
        nbclient.NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # what is printed in pieces is one output
            config=Config({"KernelManager": manager}),
            resources={"metadata": {"path": str(path.parent)}},
        ).execute(env=environment)
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Without what differs between machines, and without the repr of what has a picture or table."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop("text/plain", None)
    return notebook


def main(out: Path = TUTORIAL) -> None:
    """Runs the tutorial and writes it to `out`."""
    import_module("nbformat").write(run(TUTORIAL), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
