"""Execute notebooks and store what they show: all of them, or those that are named.

    python tools/notebooks.py                      every notebook below nbs
    python tools/notebooks.py nbs/course/07*.ipynb --slow

A cell that measures time, or that needs a GPU or a network, carries a flag (`#| slow`, `#| cuda`, `#| net`) and keeps
the output it has; with `--slow` the measured ones are measured again: on a quiet machine.
"""

import argparse
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {"slow", "cuda", "net"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel: a stored one is a dead picture


def kept(cell: dict, slow: bool = False) -> bool:
    "Whether a cell is not run, and keeps the output that it has."
    flags = set(re.findall(r"^#\| (\w+)", cell["source"], re.M))
    return cell["cell_type"] != "code" or bool(flags & (FLAGS - {"slow"} if slow else FLAGS))


def lasting(output: dict) -> bool:
    "Whether an output says anything in a page: no widget without a kernel, no bar of progress, no warning."
    return WIDGET not in output.get("data", {}) and output.get("name") != "stderr"


def execute(path: Path, slow: bool = False) -> dict:
    "The notebook with fresh outputs, run in its own folder."
    notebook = nbformat.read(path, 4)
    client = NotebookClient(
        notebook, timeout=600, startup_timeout=300, resources={"metadata": {"path": path.parent}}
    )
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            if not kept(cell, slow):
                client.execute_cell(cell, number)
                cell.outputs = [output for output in cell.outputs if lasting(output)]
    notebook.metadata.pop("widgets", None)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="all below nbs when none is named")
    parser.add_argument("--slow", action="store_true", help="run the cells that measure time, too")
    options = parser.parse_args()
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
    os.environ.pop("MPLBACKEND", None)  # pictures of a notebook go into the notebook
    for path in options.notebooks or sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            print(path, flush=True)
            nbformat.write(execute(path, options.slow), path)


if __name__ == "__main__":
    main()
