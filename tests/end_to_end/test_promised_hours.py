"""A run that is promised to end inside so many hours, as a user makes it: a tiny one, by a slow GPU's calibration."""

import pytest

from helpers.planning.calibration import PLANNED_GPU, Calibration, keep_calibration
from helpers.runs.files import read_json, read_jsonl
from helpers.runs.record import Run

SETS = ("--set", "train.sft.max_steps=-1", "train.num_train_epochs=3.0")
CALL = ("--preset", "demo", "--tiny", *SETS, "--stages", "prepare_data,train,evaluate,report", "--hours")


@pytest.fixture(scope="module")
def promised(suite, tmp_path_factory):
    """Returns a finished run that was promised in 0.6 hours, too few for three epochs, and what its command gave."""
    outputs = tmp_path_factory.mktemp("promised")
    rates = {"products": 8e7, "copies": 1e9, "disk": 5e7}  # per second
    keep_calibration(outputs, PLANNED_GPU, Calibration(date="2026-11-30", gpus=1, versions={}, **rates))
    done = suite(*CALL, "0.6", "--outputs", outputs)
    assert done.returncode == 0, done.output
    return Run(outputs / "demo-tiny"), done


@pytest.mark.slow
def test_the_run_says_first_what_it_gives_up(promised):
    _, done = promised
    assert "Promised to end inside 0.6 hours: " in done.stdout.partition("prepare_data  starts")[0]


@pytest.mark.slow
def test_fewer_epochs_are_trained_and_told(promised):
    run, _ = promised
    trained = run.metrics("train")
    promise = trained["plan"]["promise"]
    assert 1 <= promise["epochs"] < promise["all_epochs"] == 3
    assert trained["epochs"] == pytest.approx(promise["epochs"], abs=0.5)  # whole steps, of which an epoch has few
    assert trained["optimizer_steps"] == trained["plan"]["optimizer_steps"] < 12
    assert promise["spent"] + promise["estimated"] + promise["reserve"] <= 0.6
    assert read_json(run / "train/config.json")["promise"] == promise


@pytest.mark.slow
def test_the_evaluation_has_the_promised_rows(promised):
    run, _ = promised
    rows = run.metrics("train")["plan"]["promise"]["test_rows"]
    assert len(read_jsonl(run / "evaluate/tuned.jsonl")) == run.metrics("evaluate")["n"] == rows


@pytest.mark.slow
def test_the_page_says_of_how_much_was_trained(promised):
    run, _ = promised
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "Promised to end inside 0.6 hours: trained for " in page


@pytest.mark.slow
def test_the_same_command_again_has_nothing_to_do(promised, suite):
    run, _ = promised
    again = suite(*CALL, "0.6", "--outputs", run.outputs)
    assert "nothing to do" in again.stdout, again.output
    assert "session.total_hours=0.6" in run.record().commands[-1]


@pytest.mark.slow
def test_other_hours_for_a_finished_run_are_refused(promised, suite):
    run, _ = promised
    other = suite(*CALL, "0.7", "--outputs", run.outputs)
    assert other.returncode == 2
    assert "train.session.total_hours was 0.6, now 0.7" in other.stderr
