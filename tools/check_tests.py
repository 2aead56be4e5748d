"""Names each test whose name is too long to read, or says that it tests two things.

python tools/check_tests.py [FILE …]   these files of tests, or all of tests/

Prints `file:line: name: why` and exits 1 if there was one.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 60  # characters
# After "_and_" one of these begins a second check; a noun there does not (test_bleu_and_chrf_agree_with_sacrebleu).
SECOND_CHECK = re.compile(
    r"_and_(?:all|answers|are|asks|can|cannot|changes|comes?|copies|counts|deletes|does|drops|ends|exits|fails|finds"
    r"|finishes|gives|goes|has|have|holds|is|keeps|leaves|loads|lists|logs|makes|names|never|no|none|nothing|passes"
    r"|prints|raises|reads|refuses|removes|renders|reports|resumes|returns|runs|saves|says|shows|skips|starts|stays"
    r"|stops|takes|tells|trains|uses|waits|was|were|what|where|writes|written)(?:_|$)"
)


def complaint(name: str) -> str:
    """Returns what is wrong with a test's name, "" when nothing is."""
    if len(name) > LONGEST:
        return f"{len(name)} characters, at most {LONGEST}: say the one thing it tests"
    return "tests two things: make two tests of it" if SECOND_CHECK.search(name) else ""


def check_file(path: Path) -> Iterator[str]:
    """Yields a line for each test of a file whose name is too long or joins two checks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            why = complaint(node.name)
            if why:
                yield f"{path}:{node.lineno}: {node.name}: {why}"


def main(arguments: list[str] | None = None) -> int:
    """Prints the tests to rename and returns the exit code."""
    names = sys.argv[1:] if arguments is None else arguments
    paths = [Path(name) for name in names] or sorted((ROOT / "tests").rglob("test_*.py"))
    lines = [line for path in paths for line in check_file(path)]
    print("\n".join(lines).replace(f"{ROOT}/", ""), end="\n" * bool(lines))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
