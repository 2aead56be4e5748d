"""The command that continues a run, also where its folder was moved or renamed."""

import shutil

import pytest

from helpers.runs.command import build_command, resume_command
from helpers.runs.record import Run

SETS = ["train.lora_r=8", "prepare_data.dataset=my corpus.csv"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Returns a function that makes a run as the command line does, from tmp_path, with what it was given."""
    monkeypatch.chdir(tmp_path)

    def call(outputs="outputs", run_name=""):
        run = Run.named(outputs, run_name or "demo")
        with run.edit() as record:
            record.run_name = run.name
            record.commands = ["an older one", build_command("demo", run_name, outputs, SETS, True, ["train"])]
        return run

    return call


REST = "--stages train --tiny --set train.lora_r=8 'prepare_data.dataset=my corpus.csv'"


@pytest.mark.parametrize("place", [("outputs", ""), ("outputs", "mine"), ("elsewhere", "mine"), ("../up", "")])
def test_a_run_that_stays_keeps_its_command(make, place):
    run = make(*place)
    assert resume_command(run) == resume_command(Run(run.folder.resolve())) == run.record().commands[-1]


@pytest.mark.parametrize(
    ("place", "target", "options"),
    [
        (("outputs", ""), "outputs/renamed", "--run-name renamed"),
        (("outputs", "mine"), "outputs/renamed", "--run-name renamed"),
        (("outputs", ""), "archive/2026/demo", "--outputs archive/2026"),
        (("old", "mine"), "archive/renamed", "--run-name renamed --outputs archive"),
        (("old", "mine"), "outputs/mine", "--run-name mine"),
        (("old", ""), "demo", "--outputs ."),
    ],
)
def test_the_command_of_a_moved_run_names_its_place(make, tmp_path, place, target, options):
    run = make(*place)
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run, tmp_path / target)
    assert resume_command(Run(tmp_path / target)) == f"python -m helpers run --preset demo {options} {REST}"


def test_a_run_moved_away_is_named_by_its_absolute_place(make, tmp_path, monkeypatch):
    run, away = make(), tmp_path / "away/demo"
    away.parent.mkdir()
    shutil.move(run, away)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"--outputs {tmp_path}/away --stages" in resume_command(Run(away))


@pytest.mark.parametrize("command", ["python run.py demo", "an 'unclosed quote"])
def test_a_command_of_another_shape_is_shown_as_recorded(make, command):
    run = make()
    with run.edit() as record:
        record.commands, record.run_name = [command], "another"
    assert resume_command(run) == command


def test_a_run_without_a_command_has_none(tmp_path):
    assert resume_command(Run(tmp_path / "demo")) == ""
