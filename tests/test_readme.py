"""Every command the README shows is run, as far as a CPU without network goes."""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from kaggle_machine import Kaggle, Status

from helpers import checkpoints, env, kaggle

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, tmp_path, monkeypatch, request):
    """`--tiny` and another folder are added to what would train for hours; of make's targets only the plan is asked."""
    words = shlex.split(command)
    small = ["--outputs", str(tmp_path / "out"), "--tiny"]
    if words[0] == "make":
        words.insert(1, "-n")  # `make test` is what runs here, and the demo is run by it
    elif words[0] == "papermill":
        words[2] = str(tmp_path / words[2])
        words += ["-p", "outputs", str(tmp_path / "out"), "-p", "max_rows", "64"]
    elif "helpers.checkpoints" in words:
        folder = tmp_path / words.pop()
        env.write_text(folder / "adapter_model.safetensors", "weights")
        checkpoints.seal(folder, 100, {"settings": {}, "data": {}, "versions": {}})
        words.append(str(folder))
    elif "helpers.app" in words:
        return chat_page(words, request.getfixturevalue("demo").run)
    elif "helpers.report" in words:
        for name in [word for word in words if word.startswith("outputs/")]:
            keep = shutil.ignore_patterns("checkpoints", "adapter", "model")
            shutil.copytree(request.getfixturevalue("demo").run, tmp_path / name, ignore=keep)
            words[words.index(name)] = str(tmp_path / name)
        if "README.md" in words:
            shutil.copy(ROOT / "README.md", tmp_path)
            words[words.index("README.md")] = str(tmp_path / "README.md")
    elif "helpers.kaggle" in words:
        assert drive(words[3:], tmp_path, monkeypatch) == 0
        return
    elif words[2] == "helpers.run" and not {"own", "searched"} & set(words):  # what the suite's own tests do
        words.append("--dry-run")
    elif "--dry-run" not in words and "helpers.plan" not in words and "helpers.report" not in words:
        assert words[:3] == ["python", "-m", "helpers.run"]
        words += [word for word in small if word not in words]
        words += ["--stages", "prepare_data"]  # training with such settings is the suite's own test
    for place, word in enumerate(words):
        if "/content/drive" in word:
            (tmp_path / "drive/MyDrive").mkdir(parents=True)
            words[place] = word.replace("/content/drive", str(tmp_path / "drive"))
        if word.endswith("my-corpus.csv"):
            copy = tmp_path / "my-corpus.csv"
            copy.write_bytes((ROOT / "src/helpers/embedded_corpus.csv").read_bytes())
            words[place] = word.replace("my-corpus.csv", str(copy))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


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


def drive(arguments, tmp_path, monkeypatch):
    """Runs a command of helpers.kaggle against a loopback server whose sessions finish at once."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.setenv(name, "someone")
    monkeypatch.setenv("HOME", str(tmp_path))

    def session(request, folder, sources):
        run = folder / "outputs/kaggle-t4x2"
        env.write_json(run / "run.json", {"stages": {stage: {"status": "finished"} for stage in env.MAIN}})
        env.write_json(run / kaggle.LISTING, checkpoints.listing(run))
        return Status.COMPLETE, ""

    with Kaggle(tmp_path / "kaggle", session) as server:
        if arguments[0] == "pull":
            assert kaggle.main(["push", *arguments[1:]]) == 0
            server.threads[0].join()
        return kaggle.main([*arguments, "--outputs", str(tmp_path / "pulled"), "--every", "0.1"])


def test_the_readme_shows_commands_and_links_that_exist():
    assert len(COMMANDS) >= 9
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), f"README links {target}, which is not there"


def test_the_readme_names_every_preset():
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", README, re.MULTILINE))
    assert named >= {path.stem for path in (ROOT / "notebooks/presets").glob("*.yaml")}


def test_no_address_is_shown_that_the_project_does_not_set():
    """The public address stands in pyproject.toml alone, once it is known."""
    import tomllib

    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    assert re.findall(r"https?://(?:github|gitlab)[^\s)]*", README) == [] or urls.get("Repository")
