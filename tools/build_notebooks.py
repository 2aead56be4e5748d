"""Builds each .ipynb from its .py, without outputs, and keeps their first cell the same: see setup_cell.py.

python tools/build_notebooks.py          writes what differs
python tools/build_notebooks.py --check  names what differs and exits 1
"""

import re
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat

TOOLS = Path(__file__).resolve().parent
NOTEBOOKS = TOOLS.parent / "notebooks"
PAGES = ("README.md", "docs/kaggle-and-colab.md")  # with badges
KAGGLE, COLAB = "https://kaggle.com", "https://colab.research.google.com"
MEND = "make notebooks"


def repository() -> str:
    """Returns the repository's address as pyproject.toml has it, "" where it has none."""
    project = tomllib.loads((TOOLS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def setup_cell() -> str:
    """Returns the first cell of every notebook, with the repository's address where there is one."""
    cell = (TOOLS / "setup_cell.py").read_text(encoding="utf-8").strip()
    return cell.replace('REPOSITORY = ""', f'REPOSITORY = "{repository()}"')


def with_badges(page: str) -> str:
    """Returns a page with the links that open colab.ipynb on Kaggle and Colab, if the repository is on GitHub."""
    address = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", repository())
    notebook = f"{address[1]}/blob/main/notebooks/colab.ipynb" if address else ""
    badges = {
        "Kaggle": (f"{KAGGLE}/static/images/open-in-kaggle.svg", f"{KAGGLE}/kernels/welcome?src=https://github.com/"),
        "Colab": (f"{COLAB}/assets/colab-badge.svg", f"{COLAB}/github/"),
    }
    lines = [f"[![Open in {name}]({picture})]({link}{notebook})\n" for name, (picture, link) in badges.items()]
    block = "".join(lines) if address else ""
    return re.sub(r"(<!-- badge -->\n).*?(?=<!-- /badge -->)", lambda match: match[1] + block, page, flags=re.DOTALL)


def sources() -> list[Path]:
    """Returns the notebooks' .py files: those with a kernelspec header."""
    return [path for path in sorted(NOTEBOOKS.glob("*.py")) if path.read_text(encoding="utf-8").startswith("# ---")]


def with_setup(source: str) -> str:
    """Returns a notebook's source with the setup cell put in place of the one it has."""
    cell = setup_cell()
    return re.sub(r'(# %% tags=\["setup"\]\n).*?(?=\n\n# %%)', lambda match: match[1] + cell, source, flags=re.DOTALL)


def build(source: str) -> str:
    """Returns the .ipynb text of a percent source: no outputs, stable cell ids, the same for the same source."""
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def cells(notebook: nbformat.NotebookNode) -> list[tuple]:
    """Returns what must agree in a pair: (cell type, source, tags) of every cell."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def main(check: bool) -> int:
    """Writes the notebooks, or with `check` names those that differ; returns the exit code."""
    stale = []
    for path in sources():
        source = path.read_text(encoding="utf-8")
        wanted = with_setup(source)
        built = path.with_suffix(".ipynb")
        current = built.read_text(encoding="utf-8") if built.is_file() else ""
        if wanted == source and current == build(wanted):
            continue
        stale.append(path.stem)
        if not check:
            path.write_text(wanted, encoding="utf-8")
            built.write_text(build(wanted), encoding="utf-8")
    for path in filter(Path.is_file, (TOOLS.parent / name for name in PAGES)):
        page = path.read_text(encoding="utf-8")
        if (wanted := with_badges(page)) == page:
            continue
        stale.append(path.stem)
        if not check:
            path.write_text(wanted, encoding="utf-8")
    if stale:
        print(f"{'differ from their source' if check else 'built'}: {', '.join(stale)}" + f" (run: {MEND})" * check)
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
