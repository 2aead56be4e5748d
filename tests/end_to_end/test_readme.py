"""Every command that the README and docs/ show is run, as far as a CPU without network goes."""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from kaggle_machine import Kaggle, Status

from helpers.__main__ import main
from helpers.kaggle.notebook import LISTING
from helpers.options import build_parser
from helpers.runs.checkpoints import list_files, seal_checkpoint
from helpers.runs.files import write_json, write_text
from helpers.runs.stages import MAIN_STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = PAGES[ROOT / "README.md"]
BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)]
COMMANDS = [*dict.fromkeys(line.strip() for block in BLOCKS for line in block.splitlines() if line.strip())]
INLINE = re.findall(r"(?<!`)`((?:make|pip install -e|python -m helpers)\s[^`]+)`", "".join(PAGES.values()))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_runs(command, demo, tmp_path, monkeypatch):  # noqa: C901 - a case per command
    """As a dry run where it would compute for minutes: make only prints what it would do."""
    words = shlex.split(command)
    if words[0] == "make":
        words.insert(1, "-n")  # `make test` is what runs here, and it runs the demo
    elif words[0] in ("git", "cd"):  # a clone of this checkout stands for one of the public address
        return clone(tmp_path)
    elif words[0] == "papermill":  # test_notebooks.py runs that notebook from Jupyter
        words[2] = str(tmp_path / words[2])
        words += ["--prepare-only"]
    elif words[3:4] == ["verify"]:
        folder = tmp_path / words.pop()
        write_text(folder / "adapter_model.safetensors", "weights")
        seal_checkpoint(folder, 100, {"settings": {}, "data": {}, "versions": {}})
        words.append(str(folder))
    elif words[3:4] == ["chat"]:
        return chat_page(words, demo.run)
    elif words[3:4] == ["report"]:
        for name in [word for word in words if word.startswith("outputs/")]:
            keep = shutil.ignore_patterns("checkpoints", "adapter", "model")
            shutil.copytree(demo.run, tmp_path / name, ignore=keep)
            words[words.index(name)] = str(tmp_path / name)
        if "README.md" in words:
            shutil.copy(ROOT / "README.md", tmp_path)
            words[words.index("README.md")] = str(tmp_path / "README.md")
    elif words[3:4] == ["kaggle"]:
        assert call_kaggle(words[3:], tmp_path, monkeypatch) == 0
        return
    elif words[3:4] == ["run"]:  # what the suite's own tests do
        words.append("--dry-run")
    else:
        assert words[:4] == ["python", "-m", "helpers", "plan"], "a command that this test does not know: add it above"
    for place, word in enumerate(words):
        if "/content/drive" in word:
            (tmp_path / "drive/MyDrive").mkdir(parents=True)
            words[place] = word.replace("/content/drive", str(tmp_path / "drive"))
        if word.endswith("my-corpus.csv"):
            copy = tmp_path / "my-corpus.csv"
            copy.write_bytes((ROOT / "src/helpers/data/embedded.csv").read_bytes())
            words[place] = word.replace("my-corpus.csv", str(copy))
    if words[:3] == ["python", "-m", "helpers"]:  # in this process, which has imported what it needs
        monkeypatch.chdir(ROOT)
        assert main(words[3:]) == 0
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if words[0] == "papermill":
        assert 'run_name = "mine"' in Path(words[2]).read_text(encoding="utf-8").replace('\\"', '"')


def clone(folder):
    """Runs the README's first lines up to make, whose command a clone must have."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    lines = README.split("```sh\n")[1].split("```")[0].splitlines()
    assert lines[2].split()[0] == "make"
    script = "\n".join([*lines[:2], lines[2].replace("make", "make -n")]).replace("ADDRESS", str(ROOT))
    done = subprocess.run(["sh", "-euc", script], cwd=folder, capture_output=True, text=True)
    assert "-m helpers run --preset demo" in done.stdout, done.stderr


def chat_page(words, run):
    """Starts the chat page, asks for it once, and ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, *words[1:-1], str(run), "--port", str(port)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        ends = time.monotonic() + 120
        while True:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < ends, "the page does not answer"
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read().decode()
                assert "Sahanubhuti" in page
                return
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait()


def call_kaggle(words, tmp_path, monkeypatch):
    """Runs `python -m helpers kaggle …` against a loopback server whose sessions finish at once."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.setenv(name, "someone")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("helpers.kaggle.upload.LOOK_SECONDS", 0.1)

    def session(request, folder, sources):
        run = folder / "outputs" / request.slug.partition("/sahanubhuti-")[2].rpartition("-")[0]
        write_json(run / "run.json", {"stages": {stage: {"status": "finished"} for stage in MAIN_STAGES}})
        write_json(run / LISTING, list_files(run))
        return Status.COMPLETE, ""

    with Kaggle(tmp_path / "kaggle", session) as server:
        if words[1] == "pull":
            assert main(["kaggle", "push", *words[2:]]) == 0
            server.threads[0].join()
        return main([*words, "--outputs", str(tmp_path / "pulled"), "--every", "0.1"])


def test_make_installs_here_whatever_is_active():
    done = subprocess.run(["make", "-n", "-B", "setup-dev"], cwd=ROOT, capture_output=True, text=True, check=True)
    installs = re.findall(r"\S*uv pip install .*", done.stdout)
    assert len(installs) == 2
    assert all("--python .venv/bin/python " in line for line in installs)


@pytest.mark.parametrize("command", dict.fromkeys(" ".join(command.split()) for command in INLINE))
def test_a_command_within_a_sentence_exists(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[0] == "pip":
        assert re.fullmatch(r"\.\[(\w+)\]", words[3])[1] in PROJECT["optional-dependencies"]
    else:
        commands = next(action for action in build_parser()._actions if action.dest == "command").choices
        known = [*commands[words[3]]._option_string_actions]
        known += [choice for action in commands[words[3]]._actions for choice in action.choices or []]
        assert {word for word in words[4:] if word.startswith("--")} <= set(known)
        assert words[3] != "kaggle" or words[4] in known


def test_the_pages_commands_are_seen():
    assert len(COMMANDS) >= 9
    assert "python -m helpers kaggle upload" in COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_links_what_exists(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]+)?\)", PAGES[page]):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links {target}, which is not there"
        headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8") if anchor else "", re.MULTILINE)
        assert not anchor or anchor[1:] in [re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings]


def test_the_settings_page_names_every_preset():
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGES[ROOT / "docs/settings.md"], re.MULTILINE))
    assert named >= {path.stem for path in (ROOT / "notebooks/presets").glob("*.yaml")}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_address_is_shown_that_the_project_does_not_set(page):
    """The public address stands in pyproject.toml alone, once it is known."""
    shown = re.findall(r"https?://(?:github|gitlab)[^\s)]*", PAGES[page])
    assert shown == [] or PROJECT.get("urls", {}).get("Repository")
