"""The first session of a run measures its GPU; what is measured is the flagship's model, by a stand-in."""

import pytest
from calibrations import T4, calibration, fake_measuring
from configs import make_config

from helpers.calibrate import plan_session
from helpers.planning.calibration import FILE, keep_calibration, read_calibrations
from helpers.planning.config import configure_training
from helpers.planning.plan import plan_run
from helpers.platforms.errors import Refused
from helpers.runs.checkpoints import fingerprint_differences, make_fingerprint
from helpers.runs.differences import settings_differences
from helpers.runs.files import write_json, write_text
from helpers.runs.record import Run
from helpers.runs.session import SESSION_START, boot_clock
from helpers.runs.settings import resolve_settings

QUANTILES = [(number / 100, 40 + 8 * number) for number in range(101)]  # of the rows' tokens


def flagship(*sets):
    sets = ["train.num_gpus=1", *sets]
    return configure_training(resolve_settings("kaggle-t4x2", "x", "/nowhere", sets, tiny=False)["train"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a run whose data are prepared, at the beginning of a session."""
    monkeypatch.setenv(SESSION_START, str(boot_clock()))
    data = {"train": 4000, "val": 200, "test": 200, "tokens": {"quantiles": QUANTILES}}
    run = Run(tmp_path / "outputs" / "mine")
    write_json(run / "run.json", {"run_name": "mine", "id": "mine", "stages": {}})
    write_json(run / "data" / "metrics.json", data)
    return run


def test_the_first_sessions_plan_is_that_of_its_gpu(run, monkeypatch, capsys):
    parts = fake_measuring(monkeypatch, times=2.0)
    _, before = plan_run(run, flagship())
    _, plan = plan_session(run, flagship())
    assert [part for part, _ in parts] == ["rates", "base", "training", "replies"]
    assert plan == plan_run(run, flagship())[1] != before
    assert plan.hours["train"] == pytest.approx(before.hours["train"] / 2, rel=0.02)
    assert plan.speed_from.startswith(f"{FILE}, {T4}, 2")


def test_hours_as_measured_stand_beside_those_before(run, monkeypatch, capsys):
    fake_measuring(monkeypatch, times=2.0)
    (_, before), (_, plan) = plan_run(run, flagship()), plan_session(run, flagship())
    hours = [f"{each.hours['total']:.2f} hours by {each.speed_from}" for each in (plan, before)]
    printed = capsys.readouterr().out
    assert f"Estimated for the run: {hours[0]} (measured in 0 seconds); {hours[1]}." in printed
    assert "TFLOP/s" in printed


def test_what_the_first_session_measured_serves_the_next(run, monkeypatch):
    fake_measuring(monkeypatch, times=2.0)
    plan = plan_session(run, flagship())
    (run.outputs / FILE).unlink()  # another machine, to which the run's folder alone comes
    parts = fake_measuring(monkeypatch, times=3.0)
    assert plan_session(run, flagship()) == plan
    assert parts == []


NOT_DUE = {
    "it is switched off": {"sets": ["train.session.calibrate=false"]},
    "the run began when there was no such setting": {"without": "calibrate"},
    "too little of the session is left": {"sets": ["train.session.hours=0.4"]},
    "the training is short": {"sets": ["train.sft.max_steps=20"]},
    "the embedded model is trained soon": {"sets": ["shared.base_model=embedded", "train.load_in_4bit=false"]},
    "the run has a checkpoint": {"file": "train/checkpoints/checkpoint-20/manifest.json"},
    "a stop was asked for": {"file": "stop"},
    "there is no GPU": {"gpus": 0},
}


@pytest.mark.parametrize("case", NOT_DUE)
def test_nothing_is_measured_where(case, run, monkeypatch, capsys):
    config = flagship(*NOT_DUE[case].get("sets", []))
    session = {name: value for name, value in config.session.items() if name != NOT_DUE[case].get("without")}
    config = config.model_copy(update={"session": session})
    parts = fake_measuring(monkeypatch, gpus=NOT_DUE[case].get("gpus", 1))
    if file := NOT_DUE[case].get("file"):
        write_text(run / file, "")
    assert plan_session(run, config) == plan_run(run, config)
    assert parts == []
    assert "could not be measured" not in capsys.readouterr().out, "it was tried"
    assert read_calibrations(run.outputs) == {}


def test_a_calibrated_gpu_is_not_measured_again(run, monkeypatch):
    parts = fake_measuring(monkeypatch)
    keep_calibration(run.outputs, T4, calibration(2.0))
    plan_session(run, flagship())
    assert parts == []
    assert read_calibrations(run / "train") == read_calibrations(run.outputs)


def test_other_settings_of_a_calibrated_gpu_are_measured(run, monkeypatch):
    parts = fake_measuring(monkeypatch)
    keep_calibration(run.outputs, T4, calibration(2.0))
    plan_session(run, flagship("train.lora.r=8"))
    assert parts != []


@pytest.mark.parametrize("part", ["rates", "training"])
def test_a_measurement_that_fails_does_not_stop_the_run(part, run, monkeypatch, capsys):
    fake_measuring(monkeypatch, fails=part)
    before = plan_run(run, flagship())
    assert plan_session(run, flagship()) == before
    printed = capsys.readouterr().out
    assert f"the plan stays as it is: RuntimeError: measuring {part} ended with exit code 1" in printed
    assert "CUDA error: no kernel image" in printed
    assert read_calibrations(run.outputs) == {}


def test_a_gpu_that_torch_cannot_use_changes_no_plan(run, monkeypatch, capsys):
    fake_measuring(monkeypatch, usable=False)
    assert plan_session(run, flagship()) == plan_run(run, flagship())
    printed = capsys.readouterr().out
    assert "not measured, there is no GPU" in printed
    assert "Estimated for the run" not in printed


def test_a_promise_of_hours_is_kept_by_the_measured_speed(run, monkeypatch):
    promised = flagship("train.session.total_hours=2.5")
    by_constants, _ = plan_run(run, promised)
    fake_measuring(monkeypatch, times=1.5)
    config, plan = plan_session(run, promised)
    assert config.promise.speed_from == plan.speed_from
    assert config.promise.train_rows > by_constants.promise.train_rows


def test_a_promise_that_this_gpu_cannot_keep_is_refused(run, monkeypatch):
    fake_measuring(monkeypatch, times=0.05)
    with pytest.raises(Refused, match="held-out rows. Promise .* hours or more"):
        plan_session(run, flagship("train.session.total_hours=6"))


def test_what_the_libraries_print_is_not_shown(run, monkeypatch, capsys):
    fake_measuring(monkeypatch, says="a banner of a library")
    plan_session(run, flagship())
    assert "a banner of a library" not in capsys.readouterr().out


def test_a_run_begun_before_the_setting_came_resumes(run):
    earlier = {"hours": 0.0, "mirror": "", "keep": 2}
    config = make_config()
    before, now = config.model_dump() | {"session": earlier}, config.model_dump()
    assert settings_differences("train", before, now) == []
    prints = [make_fingerprint("mine", each, {}, 1) for each in (before, now)]
    assert fingerprint_differences(*prints) == []
