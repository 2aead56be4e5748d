"""Keeps each notebook's .py and .ipynb one notebook: contents decide which of the two changed, never their times.

The .ipynb remembers, as `pair` in its metadata, what the two last agreed on: a hash of the cells, and one of the setup
cell, whose source is setup_cell.py. The file that no longer matches has changed, and the other follows it.
"""

import copy
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from jupytext.config import JupytextConfiguration
from nbformat import NotebookNode
from nbstripout import strip_output

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
}
RUN_KEYS = ["cell.metadata.execution", "cell.metadata.trusted"]  # what Jupyter adds to a cell, beside its outputs


class PairConflict(ValueError):
    """Both files of a pair changed since they last agreed, or a setup cell was edited in a notebook."""


def jupytext_options() -> JupytextConfiguration:
    """Returns the project's own [tool.jupytext], as Jupyter reads it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return JupytextConfiguration(**project["tool"]["jupytext"])


def read_source(text: str) -> NotebookNode:
    """Returns the notebook of a percent source."""
    return jupytext.reads(text, fmt="py:percent")


def write_source(notebook: NotebookNode) -> str:
    """Returns the percent source of a notebook."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:  # in the order that an .ipynb keeps them
        cell.metadata = nbformat.from_dict(dict(sorted(cell.metadata.items())))
    return jupytext.writes(notebook, fmt="py:percent", config=jupytext_options())


def strip(notebook: NotebookNode) -> NotebookNode:
    """Returns the notebook as the repository holds it: no outputs, no counts, cells numbered in order."""
    return strip_output(copy.deepcopy(notebook), False, False, False, RUN_KEYS)


def put_setup(notebook: NotebookNode, setup_cell: str) -> NotebookNode:
    """Returns the notebook with the shared setup cell in place of its own."""
    notebook = copy.deepcopy(notebook)
    for cell in filter(is_setup, notebook.cells):
        cell.source = setup_cell
    return notebook


def is_setup(cell: NotebookNode) -> bool:
    """Whether this is the cell that every notebook shares."""
    return "setup" in cell.metadata.get("tags", [])


def agreement(notebook: NotebookNode) -> dict[str, str]:
    """Returns the hash of a notebook's setup cell, and that of all its other cells: type, source, metadata."""
    cells = strip(notebook).cells
    parts = {
        "setup": [cell.source for cell in cells if is_setup(cell)],
        "cells": [[cell.cell_type, cell.source, cell.metadata] for cell in cells if not is_setup(cell)],
    }
    texts = {name: json.dumps(part, sort_keys=True, ensure_ascii=False) for name, part in parts.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def merge(source: NotebookNode, notebook: NotebookNode, name: str) -> NotebookNode:
    """Returns the one notebook of a pair: the cells of the file that changed, the outputs of the .ipynb.

    Raises PairConflict where both changed since they last agreed.
    """
    last = notebook.metadata.get("pair", {}).get("cells")
    here, there = agreement(source)["cells"], agreement(notebook)["cells"]
    if here not in (last, there) and there != last and last:
        raise PairConflict(
            f"{name}.py and {name}.ipynb both changed since they last agreed. `jupytext --diff py:percent` shows how: "
            "bring both changes into one of them, restore the other from git, then run: make notebooks"
        )
    return notebook if here == last else combine_inputs_with_outputs(source, notebook)


def settle(path: Path, setup_cell: str) -> tuple[str, str]:
    """Returns the texts that a pair's .py and .ipynb must have for the two to be one notebook.

    A file that is already right keeps its text, a notebook its outputs. Raises PairConflict where both files changed,
    or where a setup cell was edited here.
    """
    current, notebook = "", None
    merged = source = read_source(path.read_text(encoding="utf-8"))
    if path.with_suffix(".ipynb").is_file():
        current = path.with_suffix(".ipynb").read_text(encoding="utf-8")
        notebook = nbformat.reads(current, as_version=4)
        last = notebook.metadata.get("pair", {}).get("setup")
        shared = agreement(put_setup(source, setup_cell))["setup"]
        if last and not {agreement(each)["setup"] for each in (source, notebook)} <= {last, shared}:
            raise PairConflict(
                f"{path.stem}: its setup cell was edited. It is built from tools/setup_cell.py: edit that"
            )
        merged = merge(source, notebook, path.stem)
    merged = put_setup(merged, setup_cell)
    if notebook is None or canonical(merged) != canonical(notebook, notebook.metadata.get("pair", {})):
        current = canonical(merged, outputs=True)
    return write_source(merged), current


def canonical(notebook: NotebookNode, pair: dict | None = None, outputs: bool = False) -> str:
    """Returns the .ipynb text of a notebook, without its outputs unless asked for, with what the pair agrees on."""
    language = {key: notebook.metadata[key] for key in ("language_info",) if outputs and key in notebook.metadata}
    kept = copy.deepcopy(notebook) if outputs else strip(notebook)
    kept.metadata = nbformat.from_dict(METADATA | language | {"pair": agreement(notebook) if pair is None else pair})
    for number, cell in enumerate(kept.cells):
        cell["id"] = str(number)
    return nbformat.writes(kept, indent=1, ensure_ascii=False) + "\n"


def write_pair(path: Path, setup_cell: str, check: bool = False) -> list[str]:
    """Settles a pair on the disk, or with `check` writes nothing; returns the names of the files that differed.

    Raises PairConflict as `settle` does; then nothing is written.
    """
    stale = []
    for file, text in zip((path, path.with_suffix(".ipynb")), settle(path, setup_cell), strict=True):
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(file.name)
            if not check:
                replace_file(file, text)
    return stale


def replace_file(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def refresh_index(notebooks: list[Path]) -> None:
    """Has git see that nothing but outputs changed: it lists a file of another size as changed, without the filter.

    Does nothing for a notebook that did change, nor outside a git checkout.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=NOTEBOOKS, capture_output=True, text=True).stdout.strip()

    for path in notebooks:
        listed = git("diff-files", "--", path.name).split()
        if listed and listed[2] == git("hash-object", f"--path={path.name}", path.name):
            git("add", "--", path.name)


if __name__ == "__main__":
    given = nbformat.reads(sys.stdin.read(), as_version=4)
    sys.stdout.write(canonical(given, given.metadata.get("pair", {})))
