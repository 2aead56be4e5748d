"""The helpers' layers, and what may be loaded when."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[1] / "src" / "helpers"
LAYERS = [  # a lower line may import a higher one; sideways only as SIDEWAYS shows
    {"env", "text"},
    {"corpus", "chat", "metrics", "rubric", "care", "people", "checkpoints", "experiments", "presets", "plan"},
    {"figures"},
    {"model", "tiny", "judge"},
    {"train", "generate", "tables"},
    {"compare"},
    {"report", "tune", "app", "kaggle"},
    {"export"},
    {"run"},
]
SIDEWAYS = {
    ("metrics", "rubric"),
    ("rubric", "care"),
    ("plan", "presets"),
    ("plan", "rubric"),
    ("tune", "train"),
    ("app", "generate"),
    ("app", "rubric"),
}
HEAVY = {"torch", "unsloth", "trl", "transformers", "peft", "accelerate", "bitsandbytes"}
LIGHT = sorted(
    "env text corpus metrics rubric care people experiments report plan presets run figures tables compare".split()
)


def imports(path, at_top=False):
    """Returns the modules a file imports, as dotted names; only those outside functions with `at_top`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if at_top and isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if node in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules():
    return sorted(path for path in HELPERS.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_module_imports_only_from_the_lines_above_it(path):
    level = next((n for n, names in enumerate(LAYERS) if path.stem in names), None)
    assert level is not None, f"{path.name} stands in no layer: add it to LAYERS, where the design has it"
    allowed = set().union(*LAYERS[:level]) | {b for a, b in SIDEWAYS if a == path.stem}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("helpers.")}
    assert used <= allowed, f"{path.name} imports {sorted(used - allowed)}: move the function, or the call, up"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_torch_and_its_kin_are_imported_inside_functions(path):
    heavy = {name.split(".")[0] for name in imports(path, at_top=True)} & HEAVY
    assert not heavy, f"{path.name} imports {sorted(heavy)} at the top: move it into the function that needs it"


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_loads_without_torch_in_under_a_second(name):
    code = (
        "import sys, time; import pandas, numpy; began = time.perf_counter(); "
        f"import helpers.{name}; took = time.perf_counter() - began; "
        f"loaded = {HEAVY!r} & set(sys.modules); assert not loaded, loaded; print(took)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_the_package_does_nothing_at_import():
    assert (HELPERS / "__init__.py").read_text() == ""
