"""The helpers' layout: what may be loaded when, and how large a file and a function may be.

Which room may import which is in pyproject.toml, [tool.importlinter]; `make check` sees to it.
"""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[1] / "src" / "helpers"
MODULES = sorted(HELPERS.rglob("*.py"))
HEAVY = {"torch", "safetensors", "unsloth", "trl", "transformers", "peft", "accelerate", "bitsandbytes"}
AT_TOP = {  # where a class needs them: these files are imported when a run trains, or the chat page opens
    "training/trainer.py": HEAVY,
    "training/step_training.py": HEAVY,
    "training/callbacks.py": HEAVY,
    "preference/trainer.py": HEAVY,
    "inference/chat_page.py": {"gradio"},
    "inference/feedback_panel.py": {"gradio"},
}
DRAWING = "helpers.reporting.bengali_text"  # of matplotlib's classes: what draws imports it inside its functions
LIGHT = ["platforms", "runs", "language", "data", "planning", "reporting", "runner", "__main__"]
LONGEST_MODULE, LONGEST_MEDIAN, LONGEST_FUNCTION = 350, 170, 60  # lines


def path_in_helpers(path):
    return path.relative_to(HELPERS).as_posix()


def top_imports(tree):
    """Yields the packages that a module imports outside of functions and of `if TYPE_CHECKING`, with their lines."""
    for node in tree.body if isinstance(tree, ast.Module) else ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from ((name.name.split(".")[0], node.lineno) for name in names)
            case ast.ImportFrom(module=str(module)):
                yield module.split(".")[0], node.lineno
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                yield from top_imports(node)


def functions(path):
    return (node for node in ast.walk(read(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def read(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def light_modules(room):
    """Returns the dotted names of a room's modules."""
    files = [HELPERS / f"{room}.py"] if (HELPERS / f"{room}.py").is_file() else (HELPERS / room).glob("*.py")
    names = (path.relative_to(HELPERS.parent).with_suffix("").as_posix() for path in files)
    return sorted({name.replace("/", ".").removesuffix(".__init__") for name in names} - {DRAWING})


def test_heavy_packages_are_imported_inside_functions():
    lines = [
        f"{path_in_helpers(path)}:{line} imports {package}"
        for path in MODULES
        for package, line in top_imports(read(path))
        if package in (HEAVY | {"gradio"}) - AT_TOP.get(path_in_helpers(path), set())
    ]
    assert not lines, f"{lines}: move each import into the function that needs it, types under `if TYPE_CHECKING`"


@pytest.mark.parametrize("room", LIGHT)
def test_a_light_room_loads_in_under_a_second(room):
    names = light_modules(room)
    assert names, f"helpers.{room} is not there: take it out of LIGHT"
    load = f"import {', '.join(names)}"
    code = (  # the processor's time: what else the machine does at the moment says nothing of the imports
        "import sys, time; import pandas, numpy; began = time.process_time(); "
        f"{load}; seconds = time.process_time() - began; "
        f"heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy; print(seconds)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{load}: {done.stderr}\nImport heavy packages inside functions."
    limit = 2.0  # a second of the processor; other work on its sibling thread doubles it
    assert float(done.stdout) < limit, f"{load} takes {done.stdout.strip()} s: see python -X importtime -c {load!r}"


def test_a_package_does_nothing_at_import():
    long = [
        path_in_helpers(path)
        for path in MODULES
        if path.name == "__init__.py" and len(path.read_text(encoding="utf-8").splitlines()) > 1
    ]
    assert not long, f"{long}: an __init__.py is empty, or names its room in one line"


def test_no_module_is_too_long():
    lines = {path_in_helpers(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = {name: count for name, count in lines.items() if count > LONGEST_MODULE}
    assert not long, f"over {LONGEST_MODULE} lines: {long}: split each into files that do one thing"


def test_a_module_is_short_as_a_rule():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES if path.name != "__init__.py"]
    median = statistics.median(lines)
    assert median <= LONGEST_MEDIAN, f"half of the modules are over {median:.0f} lines: split the longest"


def test_a_long_function_says_why():
    long = [
        f"{path_in_helpers(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in MODULES
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
        and not any(line.strip().startswith("Long because") for line in (ast.get_docstring(node) or "").splitlines())
    ]
    mend = 'take parts out as functions, or say why in a line of the docstring that starts with "Long because"'
    assert not long, f"over {LONGEST_FUNCTION} lines: {long}: {mend}"
