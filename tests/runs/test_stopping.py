"""A runner that is asked to stop: the stage that ends then is the last of its session."""

import signal

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
