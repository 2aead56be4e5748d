"""A runner that is asked to stop: the stage that ends then is the last of its session."""

import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
import psutil
import pytest

from helpers.platforms.errors import FINISHED, PAUSED
from helpers.runner import PresetRun, run_preset, run_presets
from helpers.runs.record import Run

SETTINGS = {"report": {"samples": 1, "page_language": "en"}, "train": {"session": {"mirror": ""}}}
REASONS = {"prepare_data": "new", "train": "new"}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "outputs/mine"
    folder.mkdir(parents=True)
    return Run(folder)


@pytest.fixture
def stages(monkeypatch):
    """Runs no notebook: returns what starts, stages and the unfinished page; `during` is what a stage does."""
    started = []

    def call(during):
        def run_stage(run, stage, settings, from_start):
            started.append(stage)
            during(run)
            return FINISHED

        monkeypatch.setattr("helpers.runner.run_stage", run_stage)
        monkeypatch.setattr("helpers.runner.write_unfinished_page", lambda run, settings: started.append("page"))
        return started

    return call


def ask(how):
    return lambda run: (run / "stop").touch() if how == "file" else signal.raise_signal(how)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "file"])
def test_no_stage_starts_after_a_stop_was_asked_for(run, stages, capsys, how):
    started = stages(ask(how))
    assert run_preset(PresetRun("demo", SETTINGS, run, REASONS, "command")) == PAUSED
    assert started == ["prepare_data", "page"]
    printed = capsys.readouterr().out
    assert "[mine] paused after prepare_data: stop was asked for. Run the same command again to continue." in printed
    assert not (run / "stop").exists(), "the next session would pause at once"


def test_a_run_has_an_id_before_its_first_stage(run, stages):
    ids = []
    stages(lambda run: ids.append(run.record().id))
    run_preset(PresetRun("demo", SETTINGS, run, REASONS, "command"))
    assert ids[0], "a mirror could not tell it from another run"


def test_a_stop_during_the_last_stage_leaves_a_finished_run(run, stages):
    stages(ask(signal.SIGTERM))
    assert run_preset(PresetRun("demo", SETTINGS, run, {"prepare_data": "new", "train": ""}, "command")) == FINISHED


def test_no_further_preset_starts_after_one_that_paused(run, stages, capsys, monkeypatch):
    monkeypatch.setattr("helpers.runner.check_machine", lambda *arguments, **options: "")
    monkeypatch.setattr("helpers.runner.prepare_packages", lambda: None)
    started = stages(ask(signal.SIGTERM))
    other = Run(run.outputs / "other")
    runs = [PresetRun(each.name, SETTINGS, each, REASONS, "command") for each in (run, other)]
    assert run_presets(runs) == PAUSED
    assert started == ["prepare_data", "page"]
    assert "paused    0:00:00  mine\nnot begun -        other\n" in capsys.readouterr().out


STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path("pids.part").write_text(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
time.sleep(300)
"""


def test_the_second_signal_ends_a_stage_with_its_processes(run, tmp_path, monkeypatch):
    cells = [nbformat.v4.new_code_cell(source) for source in ("number = 1", STUBBORN)]
    about = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), tmp_path / "01_prepare_data.ipynb")
    monkeypatch.setattr("helpers.runner.NOTEBOOKS", tmp_path)
    monkeypatch.setattr("helpers.runner.write_unfinished_page", lambda run, settings: None)
    monkeypatch.chdir(tmp_path)

    def send_two():
        while not (tmp_path / "pids").exists():
            time.sleep(0.1)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    threading.Thread(target=send_two, daemon=True).start()
    settings = {**SETTINGS, "prepare_data": {}}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started_before:
        assert run_preset(PresetRun("demo", settings, run, {"prepare_data": "new"}, "command")) == PAUSED
        assert started_before.poll() is None, "a process of the caller's own was ended"
        started_before.communicate(b"\n")
    assert started_before.returncode == 0
    assert run.stage("prepare_data").status == "paused"
    left = [psutil.Process(pid) for pid in map(int, (tmp_path / "pids").read_text().split()) if psutil.pid_exists(pid)]
    assert [each for each in left if each.status() != psutil.STATUS_ZOMBIE] == [], "they work on after the runner"
