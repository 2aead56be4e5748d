"""Makes each pair of .py and .ipynb one notebook again, with the shared first cell: see notebook_pairs.py.

python tools/build_notebooks.py          writes what differs
python tools/build_notebooks.py --check  names what differs and exits 1
"""

import re
import sys
import tomllib
from pathlib import Path

from notebook_pairs import NOTEBOOKS, PairConflict, refresh_index, replace_file, write_pair

TOOLS = Path(__file__).resolve().parent
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


def settle_pairs(check: bool) -> tuple[list[str], list[str]]:
    """Writes what differs in the pairs, or with `check` writes nothing; returns those names, and the conflicts."""
    stale, conflicts = [], []
    for path in sources():
        try:
            stale += write_pair(path, setup_cell(), check)
        except PairConflict as conflict:
            conflicts.append(str(conflict))
    if not check:
        refresh_index([path.with_suffix(".ipynb") for path in sources()])
    return stale, conflicts


def settle_badges(check: bool) -> list[str]:
    """Writes the badges of the pages that have other ones, or with `check` writes nothing; returns those pages."""
    stale = []
    for path in filter(Path.is_file, (TOOLS.parent / name for name in PAGES)):
        page = path.read_text(encoding="utf-8")
        if (wanted := with_badges(page)) == page:
            continue
        stale.append(path.name)
        if not check:
            replace_file(path, wanted)
    return stale


def main(check: bool) -> int:
    """Writes the notebooks and badges, or with `check` names those that differ; returns the exit code."""
    stale, conflicts = settle_pairs(check)
    stale += settle_badges(check)
    if stale:
        print(f"{'not up to date' if check else 'written'}: {', '.join(stale)}" + f" (run: {MEND})" * check)
    for conflict in conflicts:
        print(conflict)
    return int(bool(conflicts) or (check and bool(stale)))


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
