"""A ~ at the start of a path is the home folder, wherever a path can be set."""

from pathlib import Path

import pytest
from tables import write_csv_file

from helpers.kaggle.job import make_job
from helpers.options import TYPES
from helpers.planning import checks
from helpers.runs.differences import settings_differences
from helpers.runs.files import file_sha256
from helpers.runs.record import Run, start_stage
from helpers.runs.settings import default_settings, resolve_settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Makes a folder with a data set the home folder, and another the working one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_csv_file(tmp_path / "corpus.csv", {})
    return tmp_path


SET = {
    "prepare_data.dataset": "~/corpus.csv",
    "shared.base_model": "~/llama",
    "shared.session.mirror": "~/drive",
    "evaluate.encoder": "~/encoder",
    "tune.storage": "~/trials.journal",
    "export.base_16bit": "~/whole",
}


@pytest.mark.parametrize("name", SET)
def test_a_setting_of_a_preset_expands_its_home_folder(home, name):
    settings = resolve_settings("demo", "", "outputs", [f"{name}={SET[name]}"], False)
    section, *keys = name.split(".")
    value = settings["train" if section == "shared" else section]
    for key in keys:
        value = value[key]
    assert value == SET[name].replace("~", str(home))


def test_a_list_of_folders_expands_its_home_folder(home):
    settings = resolve_settings("demo", "", "outputs", ["evaluate.benchmarks=[~/tasks, belebele_ben_Beng]"], False)
    assert settings["evaluate"]["benchmarks"] == [f"{home}/tasks", "belebele_ben_Beng"]


def test_the_outputs_folder_expands_its_home_folder(home):
    assert resolve_settings("demo", "", "~/runs", [], False)["train"]["outputs"] == f"{home}/runs"
    assert make_job("demo", "", "~/runs", [], False).run.folder == home / "runs" / "demo"


@pytest.mark.parametrize("kind", ["path", "run"])
def test_an_argument_expands_its_home_folder(home, kind):
    run = Run.named(str(home / "runs"), "mine")
    run.note_stage("train", status="running")
    assert Path(TYPES[kind]("~/runs/mine")) == run.folder


@pytest.mark.parametrize("start", [start_stage, checks.start_stage])
def test_a_notebook_knows_its_data_set_below_home(home, start):
    own = {"dataset": "~/corpus.csv", "outputs": "~/runs", "run_name": "mine"}
    cell = default_settings("prepare_data") | own
    notebook = {**cell, "__annotations__": dict.fromkeys(cell)}
    run = start("prepare_data", notebook)
    run.unlock()
    assert notebook["dataset"] == f"{home}/corpus.csv"
    assert run.folder == home / "runs" / "mine"
    assert run.stage("prepare_data").inputs["dataset"] == file_sha256(home / "corpus.csv")


def test_a_run_made_with_a_tilde_has_the_same_settings(home):
    before = default_settings("prepare_data") | {"dataset": "~/corpus.csv"}
    assert not settings_differences("prepare_data", before, before | {"dataset": f"{home}/corpus.csv"})
