"""The pairs, the first cell and the parameters cells."""

import ast
import importlib.util
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SPEC = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)
PAIRS = build.sources()


def read(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def test_there_are_five_notebooks_and_those_beside_them():
    assert [path.stem[:2] for path in PAIRS] == ["01", "02", "03", "04", "05", "co", "ex", "tu"]


@pytest.mark.slow
def test_the_colab_notebook_mounts_the_drive_runs_and_goes_on_in_another_session(tmp_path, monkeypatch):
    """Colab's own module is a stand-in that notes the mount; the rest is what runs there."""
    google = tmp_path / "site/google"
    (google / "colab").mkdir(parents=True)
    (google / "__init__.py").touch()
    (google / "colab/__init__.py").write_text("from . import drive\n")
    (google / "colab/drive.py").write_text(
        "import pathlib\ndef mount(place):\n    (pathlib.Path(place) / 'MyDrive').mkdir(parents=True, exist_ok=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "test")
    parameters = {
        "preset": "demo",
        "run_name": "mine",
        "drive": str(tmp_path / "drive"),
        "more": ["--tiny", "--stages"],
    }
    said = []
    for session, stages in (("first", "prepare_data"), ("second", "prepare_data,train")):
        (tmp_path / session).mkdir()
        parameters["more"] = ["--tiny", "--stages", stages, "--set", "train.backend=peft"]
        done = papermill.execute_notebook(
            str(NOTEBOOKS / "colab.ipynb"), None, parameters=parameters, cwd=str(tmp_path / session), progress_bar=False
        )
        said.append("".join(out.get("text", "") for cell in done.cells for out in cell.get("outputs", [])))
        assert said[-1].endswith("finished\n"), said[-1][-2000:]
    assert f"run mine goes on from {tmp_path / 'drive/MyDrive/sahanubhuti/mine'}" in said[1]
    assert "prepare_data  finished before, skipped" in said[1] and "train  finished in" in said[1]
    assert (tmp_path / "drive/MyDrive/sahanubhuti/mine/run.tar").is_file()


def test_the_badge_appears_with_the_repository_s_address(monkeypatch):
    page = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(build, "repository", lambda: "https://github.com/someone/suite.git")
    shown = build.with_badge(page)
    assert "colab.research.google.com/github/someone/suite/blob/main/notebooks/colab.ipynb" in shown
    monkeypatch.setattr(build, "repository", lambda: "")
    assert build.with_badge(shown) == build.with_badge(page) and "badge.svg" not in build.with_badge(page)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_ipynb_equals_its_py(path):
    source = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    assert build.cells(read(path)) == build.cells(source), f"{path.stem} differs from its source: run {build.MEND}"


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_ipynb_has_no_outputs_and_a_kernel(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_first_code_cell_is_the_shared_one(path):
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert first.source == build.setup_cell(), f"{path.stem}'s first cell differs from setup_cell.py: run {build.MEND}"


def test_the_build_notices_a_changed_cell(tmp_path, monkeypatch):
    for path in [*PAIRS, *(path.with_suffix(".ipynb") for path in PAIRS), NOTEBOOKS / "setup_cell.py"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "setup_cell", lambda: (tmp_path / "setup_cell.py").read_text().strip())
    assert build.main(check=True) == 0
    changed = tmp_path / PAIRS[0].name
    changed.write_text(changed.read_text() + "\n# %%\nprint(1)\n")
    assert build.main(check=True) == 1
    assert build.main(check=False) == 0 and build.main(check=True) == 0


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_parameters_cell_is_at_most_fifteen_plain_literals(path):
    cell = next(cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
    lines = ast.parse(cell.source).body
    assert 0 < len(lines) <= 15
    assert all(isinstance(line, ast.AnnAssign) and isinstance(line.annotation, ast.Name) for line in lines)
    assert cell.source.isascii()
    for line in lines:
        ast.literal_eval(line.value)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_papermill_sees_every_parameter(path, caplog):
    """A second = in a line, even in its comment, makes papermill skip it."""
    cell = next(cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
    names = [line.target.id for line in ast.parse(cell.source).body]
    with caplog.at_level(logging.WARNING):
        assert list(papermill.inspect_notebook(str(path.with_suffix(".ipynb")))) == names
    assert not caplog.records


def test_run_all_in_the_notebooks_folder_writes_to_the_checkouts_outputs(tmp_path):
    """As Jupyter does it: the working folder is notebooks/."""
    from nbclient import NotebookClient

    for name in ("src", "notebooks"):
        shutil.copytree(NOTEBOOKS.parent / name, tmp_path / name)
    notebook = read(tmp_path / "notebooks/01_prepare_data.py")
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path / "notebooks")}}, timeout=200).execute()
    assert (tmp_path / "outputs/demo/data/metrics.json").is_file()
    assert not (tmp_path / "notebooks/outputs").exists()


def first_cell(cwd, *prelude):
    """Runs the shared first cell as a stranger's kernel would, and says where the helpers came from."""
    code = "\n".join([*prelude, build.setup_cell(), "import helpers.env; print(helpers.env.__file__)"])
    return subprocess.run([sys.executable, "-S", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)


SITE = f"import sys; sys.path.append({str(Path(jupytext.__file__).parents[1])!r})"  # packages, but no installed helpers


def test_the_first_cell_finds_a_checkout_from_below(tmp_path):
    (tmp_path / "src/helpers").mkdir(parents=True)
    for name in ("__init__.py", "env.py"):
        (tmp_path / "src/helpers" / name).write_bytes((NOTEBOOKS.parent / "src/helpers" / name).read_bytes())
    (tmp_path / "notebooks").mkdir()
    done = first_cell(tmp_path / "notebooks", SITE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "src/helpers/env.py")


def test_the_first_cell_says_what_to_do_without_helpers(tmp_path):
    done = first_cell(tmp_path, SITE)
    assert done.returncode == 1
    assert "attach the suite as input" in done.stderr


@pytest.mark.parametrize("mount", ["sahanubhuti", "datasets/somebody/sahanubhuti", "notebooks/somebody/suite/repo"])
def test_the_first_cell_finds_an_attached_input(tmp_path, mount):
    helpers = tmp_path / "input" / mount / "src/helpers"
    helpers.mkdir(parents=True)
    for name in ("__init__.py", "env.py"):
        (helpers / name).write_bytes((NOTEBOOKS.parent / "src/helpers" / name).read_bytes())
    (tmp_path / "working").mkdir()
    cell = build.setup_cell().replace('"/kaggle/input"', repr(str(tmp_path / "input")))
    code = f"{SITE}\n{cell}\nimport helpers.env; print(helpers.env.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path / "working", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(helpers / "env.py")
