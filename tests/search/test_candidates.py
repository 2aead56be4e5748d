"""The candidates of a search: what may be searched, their budgets and their rungs."""

import pytest
from calibrations import calibration

from helpers.planning.calibration import keep_calibration
from helpers.runs.files import read_json, write_json
from helpers.search.candidates import draw_points, rung_steps
from helpers.search.results import describe_estimate, estimate_search
from helpers.search.study import open_search


@pytest.fixture
def batch_search(make_search):
    """Returns a run that searches the batch size."""
    return make_search("tokens", space={"sft.per_device_train_batch_size": [1, 2, 4, 8]}, budget_steps=36)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space is empty"),
        ({"learning_rate": []}, "expected a list of values"),
        ({"learning_rat": [1e-4]}, "learning_rat.*not a setting.*learning_rate"),
        ({"sft.optimizer": ["sgd"]}, "optimizer is not a setting of SFTConfig"),
        ({"learning_rate": ["fast"]}, "learning_rate is 'fast'"),
        ({"sft.max_steps": [30, 60]}, "max_steps cannot be searched: the budget decides it"),
        ({"eval_rows": [5]}, "eval_rows cannot be searched: losses would not compare"),
    ],
)
def test_an_impossible_space_is_refused_by_name(space, message):
    with pytest.raises(ValueError, match=message):
        draw_points(space, 0, 1)


def test_a_rung_is_a_share_of_the_next():
    assert rung_steps(27, 3, 3) == (3, 9, 27)
    assert rung_steps(10, 2, 3) == (2, 5, 10)


def test_a_budget_too_small_is_refused(make_search):
    run = make_search("few", budget_steps=4)
    with pytest.raises(ValueError, match="raise tune.budget_steps to at least 9"):
        open_search(run)
    assert not (run / "tune").exists()


def test_every_candidate_has_the_same_tokens(batch_search):
    settings = [candidate.config.sft for candidate in open_search(batch_search).candidates]
    rows = [sft["max_steps"] * sft["per_device_train_batch_size"] for sft in settings]
    assert max(rows) <= 1.05 * min(rows), rows


def test_a_warm_up_in_steps_has_the_same_tokens(batch_search):
    record = read_json(batch_search / "run.json")
    record["settings"]["train"]["sft"]["warmup_steps"] = 9
    write_json(batch_search / "run.json", record)
    candidates = open_search(batch_search).candidates
    assert {candidate.config.sft["warmup_steps"] for candidate in candidates} == {0.25}


def test_halving_is_estimated_under_half_of_all(batch_search):
    estimate = estimate_search(open_search(batch_search))
    assert 0 < estimate["hours_of_search"] < 0.45 * estimate["hours_of_all"]


def test_an_estimate_of_a_search_names_whose_speed_it_is(batch_search, monkeypatch):
    search = open_search(batch_search)
    before = estimate_search(search)
    assert "estimated by a T4's constants." in describe_estimate(search, before)
    monkeypatch.setattr("helpers.planning.calibration.gpu_names", lambda: ["NVIDIA L4"])
    keep_calibration(search.run.outputs, "NVIDIA L4", calibration(2.0))
    after = estimate_search(search)
    assert "estimated by calibration.json, NVIDIA L4, 2026-11-30" in describe_estimate(search, after)
    assert after["hours_of_all"] == pytest.approx(before["hours_of_all"] / 2, rel=0.01)
