"""A run with --force that pauses: it is continued, with --force and without, until it has finished."""

import shutil

import pytest

from helpers.__main__ import main
from helpers.platforms.errors import FINISHED, PAUSED
from helpers.runs.command import resume_command
from helpers.runs.files import write_json, write_text
from helpers.runs.record import Run, _begin
from helpers.runs.run_json import FORCED
from helpers.runs.stages import MAIN_STAGES, PREFERRED, STAGE_INPUTS, STAGES


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Returns a function that runs the demo's command line, its notebooks replaced, until the stage `pause`; returns
    the exit code and what ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.runner.prepare_packages", lambda: None)
    monkeypatch.setattr("helpers.runner.write_unfinished_page", lambda run, settings: None)

    def call(*options, pause="", outputs="outputs"):
        ran = []

        def execute_stage(run, stage, parameters):
            ran.append(stage)
            _begin(run, stage, parameters)
            if stage == pause:
                run.note_stage(stage, status="paused")
            else:
                leave_results(run, stage)
                run.note_stage(stage, status="finished")
            return run.stage(stage)

        monkeypatch.setattr("helpers.runner.execute_stage", execute_stage)
        return main(["run", "--preset", "demo", "--tiny", "--outputs", outputs, *options]), ran

    return call


def leave_results(run, stage):
    """Writes what later stages read of a stage, and its metrics.json."""
    own = STAGES[stage][1]
    for name in {name for names in STAGE_INPUTS.values() for name in names if name.startswith(f"{own}/")}:
        if name.endswith(".safetensors"):
            write_text(run / name, "\x02" + "\x00" * 7 + "{}")
        else:
            write_json(run / name, {})
    write_json(run / own / "metrics.json", {})


@pytest.fixture
def paused(command, tmp_path):
    """A finished run, made again with --force and another seed until that pauses in its evaluation."""
    assert command() == (FINISHED, [*MAIN_STAGES])
    assert command("--force", "--set", "shared.seed=5", pause="evaluate") == (PAUSED, [*MAIN_STAGES[:3]])
    return Run(tmp_path / "outputs/demo-tiny")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_forced_run_that_paused_is_continued(command, paused, force):
    assert command(*force, "--set", "shared.seed=5") == (FINISHED, ["evaluate", "infer", "report"])
    assert paused.stage("infer").parameters["seed"] == 5
    assert paused.record().forced == []


def test_the_command_on_the_page_of_a_paused_forced_run_works(command, paused):
    _, _, options = resume_command(paused).partition("--preset demo ")
    assert command(*options.split()) == (FINISHED, ["evaluate", "infer", "report"])


@pytest.mark.parametrize("options", [["--set", "shared.seed=6"], ["--stages", "train"]])
def test_force_asked_for_otherwise_begins_anew(command, paused, options, capsys):
    assert command("--force", *options) == (FINISHED, ["train"] if "--stages" in options else [*MAIN_STAGES])
    assert "train  starts (forced)" in capsys.readouterr().out


def test_a_finished_forced_run_begins_anew_when_forced_again(command):
    command()
    assert command("--force") == command("--force") == (FINISHED, [*MAIN_STAGES])


def test_other_settings_are_refused_while_a_forced_run_waits(command, paused, capsys):
    assert command("--set", "shared.seed=6") == (2, [])
    refused = capsys.readouterr().err
    assert "was made with other settings" in refused
    assert "--force, which replaces what the stages asked for have written" in refused


def test_what_is_to_be_replaced_stays_until_its_stage_starts(paused):
    assert paused.stage("infer").status == FORCED
    assert (paused / "infer/metrics.json").is_file()
    assert not paused.has_metrics("infer"), "the page would show it as the forced run's"


def test_a_forced_run_is_continued_on_another_machine(command, tmp_path):
    (tmp_path / "drive").mkdir()
    mirror = ["--set", f"shared.session.mirror={tmp_path}/drive"]
    command(*mirror)
    run_id = Run(tmp_path / "outputs/demo-tiny").id()
    command("--force", *mirror, pause="infer")
    shutil.rmtree(tmp_path / "outputs")
    assert command("--force", *mirror, outputs="elsewhere") == (FINISHED, ["infer", "report"])
    assert Run(tmp_path / "elsewhere/demo-tiny").id() == run_id


@pytest.fixture
def preferred(command, tmp_path):
    """A finished run that keeps its answers, whose stage prefer has finished since."""
    assert command() == (FINISHED, [*MAIN_STAGES])
    run = Run(tmp_path / "outputs/demo-tiny")
    write_json(run / "evaluate/answers/fingerprints.json", {})
    write_text(run / PREFERRED[1], "\x02" + "\x00" * 7 + "{}")
    assert command() == (FINISHED, []), "a stage prefer that has not finished changes nothing"
    write_json(run / PREFERRED[0], {})
    return run


def test_answers_stay_when_a_preferred_model_comes(preferred, command):
    assert command() == (FINISHED, ["evaluate", "infer", "report"])
    assert (preferred / "evaluate/answers/fingerprints.json").is_file()
    assert command() == (FINISHED, [])


def test_force_removes_the_answers_of_an_evaluation(preferred, command):
    assert command("--force", "--stages", "evaluate")[1] == ["evaluate"]
    assert not (preferred / "evaluate/answers").exists()
