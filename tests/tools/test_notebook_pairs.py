"""Pairs of .py and .ipynb: edits on either side, through a real Jupyter server too, conflicts, and what git sees."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import build_notebooks
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "local"  # of the test's own server
CELLS = '# %%\nword = "ক্ষত্রিয় ডাঃ"\nprint(word)\n\n# %%\nlen(word)\n'
EDIT = 'print("আপনি কেমন আছেন?")  # "How are you?"'


TOOLS = ("build_notebooks.py", "jupyter_config.py", "jupyter_pairs.py", "notebook_pairs.py")
SETUP = "import math"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Returns a checkout with one pair, small.py, and what keeps pairs; committed, with git's filter set up."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "tools").mkdir()
    for name in TOOLS:
        shutil.copy(ROOT / "tools" / name, root / "tools" / name)
    for name in ("pyproject.toml", ".gitattributes", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / "tools/setup_cell.py").write_text(f"{SETUP}\n")
    header = (ROOT / "notebooks/05_report.py").read_text(encoding="utf-8").partition("# %% [markdown]")[0]
    source = f'{header}# %% [markdown]\n# # Small\n\n# %% tags=["setup"]\nsetup\n\n{CELLS}'
    (root / "notebooks").mkdir()
    (root / "notebooks/small.py").write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, "tools/build_notebooks.py"], cwd=root, capture_output=True, text=True)
    assert done.stdout == "written: small.py, small.ipynb\n"
    git(root, "init", "-q")
    set_up = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "git config" in line)
    command = set_up.split('"')[1].replace("$(BIN)/python", sys.executable)
    git(root, "config", "filter.notebook.clean", command)
    git(root, "add", "-A")
    git(root, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "pair")
    assert git(root, "status", "--porcelain", "-uno") == ""
    return root


@pytest.fixture
def suite(checkout, monkeypatch):
    """Returns the checkout as it was committed; `build` works on it."""
    for name in git(checkout, "ls-files").split():
        (checkout / name).write_text(git(checkout, "show", f"HEAD:{name}"), encoding="utf-8")
    monkeypatch.setattr(build_notebooks, "NOTEBOOKS", checkout / "notebooks")
    monkeypatch.setattr(build_notebooks, "TOOLS", checkout / "tools")
    return checkout


def git(suite, *arguments):
    done = subprocess.run(["git", *arguments], cwd=suite, capture_output=True, text=True, check=True)
    return done.stdout


def build(check=False):
    """Returns the exit code and the output of `make notebooks`, or of its check."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = build_notebooks.main(check)
    return code, printed.getvalue()


def pair(suite):
    return [(suite / f"notebooks/small{end}").read_text(encoding="utf-8") for end in (".py", ".ipynb")]


def edit_source(suite, old="len(word)", new=EDIT):
    source = suite / "notebooks/small.py"
    assert old in source.read_text(encoding="utf-8")
    source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def edit_notebook(suite, change):
    """Changes the .ipynb as a program without jupytext does, such as Colab."""
    path = suite / "notebooks/small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def set_cell(number, text):
    return lambda notebook: notebook.cells[number].update(source=text)


def executed(suite):
    """Returns the notebook with outputs, as a real kernel leaves it."""
    notebook = nbformat.read(suite / "notebooks/small.ipynb", as_version=4)
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[2].outputs[0].text == "ক্ষত্রিয় ডাঃ\n"
    return notebook


class Jupyter:
    """A real server over HTTP, started in the checkout as `jupyter lab` would be."""

    def __init__(self, suite, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--ServerApp.port={port}"]
        command += [f"--IdentityProvider.token={TOKEN}", "--ServerApp.allow_root=True"]
        command += ["--config", "tools/jupyter_config.py"]
        own = {
            name: str(log.parent / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
        }
        self.address = f"http://127.0.0.1:{port}/api"
        with log.open("w") as out:
            self.process = subprocess.Popen(command, cwd=suite, stdout=out, stderr=out, env=os.environ | own)
        for _ in range(600):
            try:
                self.call("status")
                return
            except OSError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.1)
        raise TimeoutError(f"Jupyter did not start in 60 s: {log.read_text()}")

    def call(self, path, body=None):
        request = urllib.request.Request(f"{self.address}/{path}", method="PUT" if body else "GET")
        request.add_header("Authorization", f"token {TOKEN}")
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            return json.load(answer)

    def open(self, name="small.ipynb"):
        return self.call(f"contents/notebooks/{name}")["content"]

    def save(self, content, name="small.ipynb"):
        return self.call(f"contents/notebooks/{name}", {"type": "notebook", "format": "json", "content": content})

    def refusal(self, act, *arguments):
        with pytest.raises(urllib.error.HTTPError) as refused:
            act(*arguments)
        assert refused.value.code == 409
        return json.load(refused.value)["message"]


@pytest.fixture(scope="module")
def jupyter(checkout, tmp_path_factory):
    server = Jupyter(checkout, tmp_path_factory.mktemp("jupyter") / "log")
    yield server
    server.process.terminate()
    server.process.wait(30)


def test_a_cell_saved_in_jupyter_reaches_the_py(suite, jupyter):
    content = jupyter.open()
    content["cells"][3]["source"] = EDIT
    jupyter.save(content)
    assert f"# %%\n{EDIT}\n" in pair(suite)[0]
    assert build(check=True)[0] == 0


def test_an_edit_of_the_py_is_what_jupyter_opens(suite, jupyter):
    nbformat.write(executed(suite), suite / "notebooks/small.ipynb")
    edit_source(suite)
    cells = jupyter.open()["cells"]
    assert cells[3]["source"] == EDIT
    assert cells[2]["outputs"][0]["text"] == "ক্ষত্রিয় ডাঃ\n"
    assert build(check=True)[0] == 0


def test_an_older_edit_of_the_ipynb_is_not_lost_in_jupyter(suite, jupyter):
    edit_notebook(suite, set_cell(3, EDIT))
    os.utime(suite / "notebooks/small.py")  # newer, with the old contents
    assert jupyter.open()["cells"][3]["source"] == EDIT
    assert EDIT in pair(suite)[0]


def test_jupyter_refuses_a_pair_in_conflict(suite, jupyter):
    edit_source(suite)
    edit_notebook(suite, set_cell(3, "word.upper()"))
    before = pair(suite)
    assert "both changed since they last agreed" in jupyter.refusal(jupyter.open)
    assert pair(suite) == before
    code, printed = build()
    assert code == 1
    assert "small.py and small.ipynb both changed" in printed
    assert pair(suite) == before


def test_jupyter_does_not_save_over_an_edit_of_the_py(suite, jupyter):
    content = jupyter.open()
    edit_source(suite, "len(word)", "list(word)")
    before = pair(suite)
    content["cells"][3]["source"] = "word.upper()"
    assert "small.py changed since this notebook was opened" in jupyter.refusal(jupyter.save, content)
    assert pair(suite) == before


def test_two_saves_in_a_row_are_no_conflict(suite, jupyter):
    content = jupyter.open()
    for text in (EDIT, "word.upper()"):
        content["cells"][3]["source"] = text
        jupyter.save(content)
    edit_source(suite, "word.upper()", "word.lower()")
    assert jupyter.open()["cells"][3]["source"] == "word.lower()"


def test_running_and_saving_leaves_git_clean(suite, jupyter):
    content = executed(suite)
    assert content.metadata.language_info.name == "python"
    jupyter.save(content)
    assert "ক্ষত্রিয় ডাঃ\\n" in pair(suite)[1]  # on the disk the outputs stay
    assert git(suite, "status", "--porcelain", "-uno") == ""
    assert build(check=True)[0] == 0
    assert build()[1] == ""
    assert "ক্ষত্রিয় ডাঃ\\n" in pair(suite)[1]


def test_jupyter_leaves_other_notebooks_alone(suite, jupyter):
    copy = suite / "outputs/demo/notebooks"
    copy.mkdir(parents=True)
    shutil.copy(suite / "notebooks/small.ipynb", copy / "other.ipynb")
    content = jupyter.call("contents/outputs/demo/notebooks/other.ipynb")["content"]
    assert content["cells"][3]["source"] == "len(word)"


def test_the_build_carries_either_side_over(suite):
    edit_notebook(suite, set_cell(3, EDIT))
    assert build(check=True)[0] == 1
    assert build()[1].split(": ")[1] == "small.py, small.ipynb\n"
    assert EDIT in pair(suite)[0]
    edit_source(suite, EDIT, "word.lower()")
    assert build()[0] == 0
    assert "word.lower()" in pair(suite)[1]
    assert build(check=True)[0] == 0


def test_a_changed_tag_counts_as_an_edit(suite):
    edit_notebook(suite, lambda notebook: notebook.cells[3].metadata.update(tags=["parameters"]))
    assert build()[0] == 0
    assert '# %% tags=["parameters"]\nlen(word)' in pair(suite)[0]


def test_times_alone_change_nothing(suite):
    for older, newer in ((".py", ".ipynb"), (".ipynb", ".py")):
        os.utime(suite / f"notebooks/small{older}", (1, 1))
        os.utime(suite / f"notebooks/small{newer}")
        assert build()[1] == ""
    assert (suite / "notebooks/small.ipynb").stat().st_mtime == 1


def test_a_changed_setup_cell_reaches_every_notebook(suite):
    (suite / "tools/setup_cell.py").write_text("import cmath\n")
    assert build()[0] == 0
    assert all("import cmath" in text and SETUP not in text for text in pair(suite))


@pytest.mark.parametrize("side", [".py", ".ipynb"])
def test_a_setup_cell_edited_here_is_refused(suite, side):
    if side == ".py":
        edit_source(suite, SETUP, "import os")
    else:
        edit_notebook(suite, set_cell(1, "import os"))
    before = pair(suite)
    code, printed = build()
    assert code == 1
    assert "small: its setup cell was edited" in printed
    assert pair(suite) == before
