"""The notebooks: pairs of .py and .ipynb, the first cell, the parameters cells, and each run alone."""

import ast
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import build_notebooks as build
import jupytext
import nbformat
import papermill
import pytest
from notebook_pairs import agreement, strip

from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.runs.stages import MAIN_STAGES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, TOOLS = ROOT / "notebooks", ROOT / "tools"
PAIRS = build.sources()


def read(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def test_the_notebooks_are_those_of_the_design():
    assert [path.stem[:2] for path in PAIRS] == ["01", "02", "03", "04", "05", "co", "ex", "pr", "tu"]


@pytest.fixture(scope="module")
def colab_sessions(tmp_path_factory):
    """Runs the Colab notebook in two sessions; returns what each printed and the run's folder in the Drive.

    Colab's own module is a stand-in that notes the mount; the rest is what runs there.
    """
    folder = tmp_path_factory.mktemp("colab")
    google = folder / "site/google"
    (google / "colab").mkdir(parents=True)
    (google / "__init__.py").touch()
    (google / "colab/__init__.py").write_text("from . import drive\n")
    (google / "colab/drive.py").write_text(
        "import pathlib\ndef mount(place):\n    (pathlib.Path(place) / 'MyDrive').mkdir(parents=True, exist_ok=True)\n"
    )
    parameters = {"preset": "demo", "run_name": "mine", "drive": str(folder / "drive")}
    printed = []
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder / "site"))
        environment.setenv("COLAB_RELEASE_TAG", "test")
        for session, stages in (("first", "prepare_data"), ("second", "prepare_data,train,report")):
            (folder / session).mkdir()
            parameters["more"] = ["--tiny", "--stages", stages, "--set", "train.backend=peft"]
            notebook = str(NOTEBOOKS / "colab.ipynb")
            done = papermill.execute_notebook(
                notebook, None, parameters=parameters, cwd=str(folder / session), progress_bar=False
            )
            printed.append("".join(out.get("text", "") for cell in done.cells for out in cell.get("outputs", [])))
    return printed, folder / "drive/MyDrive/sahanubhuti/mine"


@pytest.mark.slow
def test_the_colab_notebook_says_that_it_finished(colab_sessions):
    for printed in colab_sessions[0]:
        assert printed.endswith("finished\n"), printed[-2000:]
        assert "optimizer steps" in printed, "the plan is not shown"


@pytest.mark.slow
def test_the_colab_notebook_copies_the_run_to_the_drive(colab_sessions):
    assert (colab_sessions[1] / "run.tar").is_file()
    assert (colab_sessions[1] / "report.html").is_file(), "there is no page to open"


@pytest.mark.slow
def test_the_colab_notebook_resumes_in_another_session(colab_sessions):
    printed, copy = colab_sessions
    assert f"run mine resumes from {copy}" in printed[1]
    assert "prepare_data  finished before, skipped" in printed[1]
    assert "train  finished in" in printed[1]


@pytest.mark.parametrize(
    ("here", "changes", "expected"),
    [
        ("kaggle", {}, ["--preset", "kaggle-t4x2"]),
        ("kaggle", {"preset": "demo", "run_name": "mine"}, ["--preset", "demo", "--run-name", "mine"]),
        ("local", {"drive": ""}, ["--preset", "colab-t4"]),
        ("local", {}, ["--preset", "colab-t4", "--set", "shared.session.mirror=/content/drive/MyDrive/sahanubhuti"]),
    ],
)
def test_the_colab_notebook_chooses_by_platform(here, changes, expected, monkeypatch):
    calls = []
    monkeypatch.setattr("helpers.platforms.machine.platform", lambda: here)
    monkeypatch.setattr("helpers.platforms.processes.run_child", lambda command: calls.append(command[3:]) or 0)
    _, parameters, *others = (cell.source for cell in read(NOTEBOOKS / "colab.py").cells if cell.cell_type == "code")
    namespace = {}
    exec(parameters, namespace)
    namespace |= changes
    for source in others:
        exec(source, namespace)
    assert calls == [["plan", *expected[:2]], ["run", *expected]]


@pytest.mark.parametrize("name", build.PAGES)
def test_the_badges_appear_with_the_repositorys_address(name, monkeypatch):
    page = (ROOT / name).read_text(encoding="utf-8")
    monkeypatch.setattr(build, "repository", lambda: "https://github.com/someone/suite.git")
    shown = build.with_badges(page)
    notebook = "someone/suite/blob/main/notebooks/colab.ipynb)"
    assert f"(https://colab.research.google.com/github/{notebook}" in shown
    assert f"(https://kaggle.com/kernels/welcome?src=https://github.com/{notebook}" in shown
    monkeypatch.setattr(build, "repository", lambda: "")
    assert build.with_badges(shown) == build.with_badges(page)
    assert ".svg)](" not in build.with_badges(page)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_ipynb_equals_its_py(path):
    source = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    assert read(path).metadata.pair == agreement(source), f"{path.stem} differs from its source: run {build.MEND}"
    assert agreement(read(path)) == agreement(source), f"{path.stem} differs from its source: run {build.MEND}"


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_ipynb_is_committed_without_outputs(path):
    """Or will be, where the outputs of somebody's run are on the disk: git's filter takes them out."""
    notebook = strip(read(path))
    nbformat.validate(notebook)
    committed = subprocess.run(["git", "show", f":./{path.stem}.ipynb"], cwd=NOTEBOOKS, capture_output=True, text=True)
    notebook = nbformat.reads(committed.stdout, as_version=4) if committed.returncode == 0 else notebook
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_first_code_cell_is_the_shared_one(path):
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert first.source == build.setup_cell(), f"{path.stem}'s first cell differs from setup_cell.py: run {build.MEND}"


def test_the_build_notices_a_changed_cell(tmp_path, monkeypatch):
    for path in [*PAIRS, *(path.with_suffix(".ipynb") for path in PAIRS), TOOLS / "setup_cell.py"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(build, "TOOLS", tmp_path)
    monkeypatch.setattr(build, "repository", lambda: "")
    assert build.main(check=True) == 0
    changed = tmp_path / PAIRS[0].name
    changed.write_text(changed.read_text() + "\n# %%\nprint(1)\n")
    assert build.main(check=True) == 1
    assert build.main(check=False) == 0
    assert build.main(check=True) == 0


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_setup_cell_is_folded_where_it_is_read(path):
    """By JupyterLab, Colab and Kaggle, each by its own key."""
    metadata = read(path).cells[1].metadata
    assert metadata.jupyter.source_hidden is True
    assert metadata.cellView == "form"
    assert metadata["_kg_hide-input"] is True
    assert read(path).cells[1].source.startswith("# @title ")


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_parameters_cell_is_a_few_plain_literals(path):
    cell = next(cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
    lines = ast.parse(cell.source).body
    assert 0 < len(lines) <= 19  # 15 but for four settings of 03_evaluate: encoder, benchmarks, gates and human_choice
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


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_no_cell_is_longer_than_fifteen_lines(path):
    """But for the setup and the parameters."""
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    others = [cell.source for cell in code if not {"setup", "parameters"} & {*cell.metadata.get("tags", [])}]
    longest = max(others, key=lambda source: len(source.splitlines()))
    assert len(longest.splitlines()) <= 15, f"move what it does into a room of src/helpers:\n{longest}"


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_each_notebook_opens_with_its_needs(path):
    cells = read(path).cells
    assert all(word in cells[0].source for word in ("**Needs**", "**Writes**"))
    assert cells[-1].cell_type == "markdown"
    assert cells[-1].source.startswith("**Next:**")


def test_run_all_in_jupyter_writes_the_demos_rows(tmp_path, demo):
    """As Jupyter does it: the working folder is notebooks/."""
    from nbclient import NotebookClient

    for name in ("src", "notebooks"):
        shutil.copytree(NOTEBOOKS.parent / name, tmp_path / name)
    notebook = read(tmp_path / "notebooks/01_prepare_data.py")
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path / "notebooks")}}, timeout=200).execute()
    own = Run(tmp_path / "outputs/demo").metrics("prepare_data")
    assert own["sha256"] == demo.run.metrics("prepare_data")["sha256"], "the same seed gave other rows than the demo's"
    assert not (tmp_path / "notebooks/outputs").exists()


@pytest.mark.slow
def test_each_notebook_runs_alone_by_plain_papermill(tmp_path):
    small = {
        "01_prepare_data": ["-p", "max_rows", "64"],
        "02_train": ["-p", "eval_rows", "4", "-y", "sft: {max_steps: 3, gradient_checkpointing: false}"],
        "03_evaluate": ["-p", "max_rows", "4", "-p", "max_new_tokens", "8", "-p", "bootstrap_draws", "50"],
        "04_infer": ["-p", "max_new_tokens", "8", "-y", "prompts: ['আজ মন ভালো নেই।']"],  # I feel low today.
        "05_report": [],
    }
    for notebook, arguments in small.items():
        command = [Path(sys.executable).with_name("papermill"), f"notebooks/{notebook}.ipynb", tmp_path / "out.ipynb"]
        command += ["-p", "run_name", "alone", "-p", "outputs", tmp_path, *arguments]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Unable to parse" not in done.stderr
        assert "unknown parameter" not in done.stderr
    run = Run(tmp_path / "alone")
    data = json.loads((run / "data/metrics.json").read_text(encoding="utf-8"))
    assert data["rows_in"] == data["rows_out"] + sum(data["dropped"].values()), "rows are lost in silence"
    assert "64 of 345 rows were picked" in data["leak_check"]
    assert [row["prompt"] for row in read_jsonl(run / "infer/replies.jsonl")] == ["আজ মন ভালো নেই।"]
    statuses = {name: stage.status for name, stage in run.record().stages.items()}
    assert statuses == dict.fromkeys(MAIN_STAGES, "finished")


def first_cell(cwd, *prelude):
    """Runs the shared first cell as a stranger's kernel would, and says where the helpers came from."""
    code = "\n".join([*prelude, build.setup_cell(), "import helpers; print(helpers.__file__)"])
    return subprocess.run([sys.executable, "-S", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)


SITE = f"import sys; sys.path.append({str(Path(jupytext.__file__).parents[1])!r})"  # packages, but no installed helpers


def copy_package(folder):
    """Copies the helpers as they are, without what Python compiled."""
    shutil.copytree(ROOT / "src/helpers", folder, ignore=shutil.ignore_patterns("__pycache__"))


def test_the_first_cell_finds_a_checkout_from_below(tmp_path):
    copy_package(tmp_path / "src/helpers")
    (tmp_path / "notebooks").mkdir()
    done = first_cell(tmp_path / "notebooks", SITE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "src/helpers/__init__.py")


def test_the_first_cell_says_what_to_do_without_helpers(tmp_path):
    done = first_cell(tmp_path, SITE)
    assert done.returncode == 1
    assert "attach the suite as input" in done.stderr


@pytest.mark.parametrize("mount", ["sahanubhuti", "datasets/somebody/sahanubhuti", "notebooks/somebody/suite/repo"])
def test_the_first_cell_finds_an_attached_input(tmp_path, mount):
    helpers = tmp_path / "input" / mount / "src/helpers"
    copy_package(helpers)
    (tmp_path / "working").mkdir()
    cell = build.setup_cell().replace('"/kaggle/input"', repr(str(tmp_path / "input")))
    code = f"{SITE}\n{cell}\nimport helpers; print(helpers.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path / "working", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(helpers / "__init__.py")
