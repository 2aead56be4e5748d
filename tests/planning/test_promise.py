"""A run that is promised to end inside so many hours gives up what does not fit."""

import re
from functools import cache
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.planning.calibration import FILE, PLANNED_GPU, Calibration, keep_calibration
from helpers.planning.config import Promise, configure_training
from helpers.planning.lengths import PlannedRows
from helpers.planning.plan import Plan, plan_preset
from helpers.planning.promise import LEAST_TEST_ROWS, LEAST_TRAIN_ROWS, describe_promise, keep_promise, list_rungs
from helpers.platforms.errors import Refused
from helpers.runs.checkpoints import seal_checkpoint
from helpers.runs.differences import settings_differences
from helpers.runs.files import write_json, write_text
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings

HOURS = (0.8, 1.2, 2.0, 5.0)
OTHERS = [("ref-b-bengali-8b-6k", 1.6), ("ref-b-bengali-8b-6k", 2.5), ("colab-t4", 0.5)]


@cache
def plan_of(preset: str, hours: float, *sets: str) -> Plan:
    promised = [*sets, f"shared.session.total_hours={hours}"]
    return plan_preset(resolve_settings(preset, "x", "/nowhere", promised, tiny=False), Run(Path("/nowhere/x")))


def settings_of(hours: float, *sets: str) -> dict:
    """Returns the settings of a preset with the constants of a small corpus, and its promise."""
    sets = ("prepare_data.max_rows=6000", f"shared.session.total_hours={hours}", *sets)
    return resolve_settings("kaggle-t4x2", "x", "/nowhere", list(sets), tiny=False)


def rungs_of(*sets: str, train=2000, test=900):
    settings = settings_of(0, *sets)
    config = configure_training(settings["train"])
    return list_rungs(config, PlannedRows([100] * train, 10, test, ""), settings["evaluate"])


@pytest.mark.parametrize(("preset", "hours"), [*(("kaggle-t4x2", hours) for hours in HOURS), *OTHERS])
def test_what_is_picked_ends_inside_the_hours(preset, hours):
    plan = plan_of(preset, hours, "prepare_data.max_rows=6000")
    assert plan.hours["total"] + plan.promise["reserve"] <= hours + 0.001  # the plan's are rounded to thousandths
    assert plan.hours["total"] == pytest.approx(plan.promise["estimated"], abs=0.001)
    assert plan.promise["reserve"] >= 0.1 * hours


@pytest.mark.parametrize("name", ["epochs", "train_rows", "test_rows"])
def test_more_hours_never_give_less(name):
    picks = [plan_of("kaggle-t4x2", hours, "prepare_data.max_rows=6000").promise[name] for hours in HOURS]
    assert picks == sorted(picks)
    assert picks[-1] == plan_of("kaggle-t4x2", HOURS[-1], "prepare_data.max_rows=6000").promise[f"all_{name}"]


def test_the_whole_corpus_gives_up_epochs_alone_in_nine_hours():
    promise = plan_of("kaggle-t4x2", 9.0).promise
    assert 1 < promise["epochs"] < 3
    assert (promise["train_rows"], promise["test_rows"]) == (promise["all_train_rows"], promise["all_test_rows"])


def test_epochs_go_before_held_out_rows_before_training_rows():
    rungs = rungs_of()
    assert rungs[0] == (3.0, 2000, 900)
    assert [rung.epochs for rung in rungs[:21]] == [round(3 - step / 10, 1) for step in range(21)]
    assert {rung[1:] for rung in rungs[:21]} == {(2000, 900)}
    assert {rung[:2] for rung in rungs[21:41]} == {(1.0, 2000)}
    assert rungs[40].test_rows == LEAST_TEST_ROWS
    assert {(rung.epochs, rung.test_rows) for rung in rungs[41:]} == {(1.0, LEAST_TEST_ROWS)}
    assert rungs[-1] == (1.0, LEAST_TRAIN_ROWS, LEAST_TEST_ROWS)


@pytest.mark.parametrize(
    ("sets", "rows", "rungs"),
    [
        (["train.num_train_epochs=0.5"], {"train": 800, "test": 400}, [(0.5, 800, 400)]),
        (["train.num_train_epochs=1.25"], {"train": 9, "test": 9}, [(1.25, 9, 9), (1.2, 9, 9), (1.1, 9, 9), (1, 9, 9)]),
        (["train.sft.max_steps=4", "evaluate.max_rows=7"], {"train": 5000, "test": 900}, [(3.0, 5000, 7)]),
    ],
)
def test_what_is_little_already_is_not_given_up(sets, rows, rungs):
    assert rungs_of(*sets, **rows) == rungs


def test_hours_for_not_even_the_least_are_refused(tmp_path, capsys):
    arguments = ["--preset", "kaggle-t4x2", "--outputs", str(tmp_path)]
    assert main(["run", *arguments, "--hours", "0.3", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "session.total_hours is 0.3: 0.25 of them are kept in reserve, and the least takes an estimated 0." in error
    assert "hours by a T4's constants: 1 epoch of 1,000 training rows, 500 held-out rows" in error
    enough = re.search(r"Promise ([\d.]+) hours or more", error)[1]
    assert main(["plan", *arguments, "--hours", enough]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("gib", "kept"), [([], False), ([15.0], True)])
def test_on_a_cpu_the_hours_are_no_promise(gib, kept, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.planning.checks.gpu_gib", lambda: gib)
    arguments = ["--preset", "demo", "--outputs", str(tmp_path), "--hours", "0.1", "--dry-run"]
    assert main(["run", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "# Promised to end inside 0.1 hours" in printed
    assert ("a CPU is slower than the estimate: the hours may not be kept." in printed) is not kept


@pytest.mark.parametrize(("command", "options"), [("plan", []), ("run", ["--dry-run"])])
def test_what_is_given_up_is_said_before_anything_starts(command, options, tmp_path, capsys):
    small = ["--set", "prepare_data.max_rows=6000", "--hours", "1.2"]
    assert main([command, "--preset", "kaggle-t4x2", "--outputs", str(tmp_path), *small, *options]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"to end inside 1.2 hours: an estimated 0.\d\d by a T4's constants, 0.25 in reserve", printed)
    assert re.search(r"Only [12](\.\d)? of 3 epochs", printed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "again", ["--hours 6", "--set shared.session.total_hours=2", "--set train.session={total_hours: 2}"]
)
@pytest.mark.parametrize("command", [["run"], ["plan"], ["kaggle", "push"], ["kaggle", "chain"]])
def test_hours_that_are_said_twice_are_refused(command, again, tmp_path, capsys):
    where = ["--preset", "kaggle-t4x2", "--outputs", str(tmp_path)]
    assert main([*command, *where, "--hours", "1.2", *again.split(maxsplit=1)]) == 2
    assert f"--hours 1.2 and {again} both say how long the run may take" in capsys.readouterr().err


def test_one_hour_is_no_hours():
    counts = {name: 3 for name in Promise.model_fields if name.endswith(("epochs", "rows"))}
    promise = Promise(hours=1.0, spent=0.0, reserve=0.1, estimated=0.8, speed_from="a T4's constants", **counts)
    assert describe_promise(promise).startswith("Promised to end inside 1 hour: an estimated 0.80 by")


def test_unknown_data_leave_the_pick_to_the_training(tmp_path, capsys):
    own = ["--set", "prepare_data.dataset=hf:me/mine", "--hours", "2", "--dry-run"]
    assert main(["run", "--preset", "kaggle-t4x2", "--outputs", str(tmp_path), *own]) == 0
    assert "# 02_train decides what is given up for session.total_hours, once" in capsys.readouterr().out


ROWS = PlannedRows([200] * 4000, 400, 600, "")


@pytest.fixture
def begun(tmp_path):
    """Returns a run that has trained a few steps with a promise of an hour, and what it had picked."""
    settings, run = settings_of(1.0), Run(tmp_path / "x")
    write_json(run / "run.json", {"id": "own"})
    config = keep_promise(run, configure_training(settings["train"]), ROWS, settings["evaluate"])
    write_json(run / "train/config.json", config.to_json())
    write_text(run / "train/checkpoints/checkpoint-2/adapter", "")
    fingerprint = {"run": "own", "settings": {"processes": 2}, "data": {}, "versions": {}}
    seal_checkpoint(run / "train/checkpoints/checkpoint-2", 2, fingerprint)
    slow = {"date": "2026-11-30", "gpus": 1, "versions": {}, "products": 15e12, "copies": 300e9, "disk": 1e6}
    keep_calibration(tmp_path, PLANNED_GPU, Calibration(**slow))
    return run, config.promise


def pick_again(run: Run, hours: float, anew: bool = False) -> Promise | None:
    settings = settings_of(hours)
    return keep_promise(run, configure_training(settings["train"]), ROWS, settings["evaluate"], anew).promise


def test_a_resumed_run_keeps_its_pick_despite_a_calibration(begun):
    run, promise = begun
    assert pick_again(run, 1.0) == promise


def test_a_training_that_begins_anew_picks_anew(begun):
    run, promise = begun
    again = pick_again(run, 1.0, anew=True)
    assert again
    assert again.speed_from.startswith(FILE)
    assert again.epochs < promise.epochs


@pytest.mark.parametrize("hours", [0.0, 2.0])
def test_other_hours_than_at_the_start_are_refused(begun, hours):
    with pytest.raises(Refused, match=rf"total_hours is {hours:g}, and this training began with 1 .*--force"):
        pick_again(begun[0], hours)


def test_hours_that_data_and_search_took_are_spent(tmp_path):
    run, times = Run(tmp_path / "x"), ("2026-11-30T00:00:00+00:00", "2026-11-30T00:30:00+00:00")
    stages = ["prepare_data", "train", "evaluate", "prepare_data", "tune"]  # of which the first three are of before
    sessions = [{"stage": stage, "started": times[0], "ended": times[1]} for stage in stages]
    write_json(run / "run.json", {"sessions": sessions})
    promise = pick_again(run, 2.0)
    assert promise
    assert promise.spent == pytest.approx(1.0)
    assert 1.0 + promise.estimated + promise.reserve <= 2.0


@pytest.mark.parametrize(("before", "now"), [({"total_hours": 8.0}, {"total_hours": 0.0}), ({}, {"total_hours": 8.0})])
def test_a_finished_run_is_not_promised_other_hours(before, now):
    (line,) = settings_differences("train", {"session": before}, {"session": now})
    assert line.startswith("train.session.total_hours was ")


def test_a_run_of_before_the_promise_is_the_same():
    assert settings_differences("train", {"session": {"hours": 3.0}}, {"session": {"total_hours": 0.0}}) == []
