"""Kaggle's GPU hours of a week, and whether a run fits into what is left of them."""

import math

import pytest
from calibrations import T4, calibration
from kaggle_calls import call
from kaggle_machine import Kaggle, Status

from helpers.kaggle.job import make_job
from helpers.kaggle.quota import Quota, count_sessions, describe_need, remaining_hours
from helpers.planning.calibration import keep_calibration
from helpers.runs.files import write_json
from helpers.runs.run_json import RunRecord
from helpers.runs.stages import MAIN_STAGES

FLAGSHIP, RENEWED = "kaggle-t4x2", "2026-11-28 00:00"


def begun(**stages):
    """Returns the record of a run whose stages have these facts."""
    return RunRecord.model_validate({"stages": stages})


@pytest.fixture
def job(tmp_path):
    return make_job(FLAGSHIP, "", str(tmp_path), [], False)


@pytest.fixture
def push(tmp_path, capsys):
    """Returns a function that pushes the flagship's next session with so many hours of the week used, after a session
    that left a record, if one is given; gives what is printed."""

    def session(request, folder, sources):
        write_json(folder / "outputs" / FLAGSHIP / "run.json", records[len(server.requests) - 1])
        return Status.COMPLETE, ""

    records = [{"stages": {}}, {"stages": {}}]
    with Kaggle(tmp_path / "kaggle", session) as server:

        def call_push(used, **stages):
            if stages:
                records[0] = {"stages": {name: {"status": "running"} for name in MAIN_STAGES} | stages}
                assert call("push", tmp_path / "outputs", preset=FLAGSHIP) == 0
                server.threads[0].join()
                capsys.readouterr()
            server.used_hours = used
            assert call("push", tmp_path / "outputs", preset=FLAGSHIP) == 0
            return capsys.readouterr().out.splitlines()[0]

        yield call_push


def test_a_run_that_fits_the_week_says_so(push, job):
    hours = f"{job.plan.hours['total']:.1f}"
    assert push(3.0) == (
        f"About {hours} GPU hours remain (by a T4's constants), and 27.0 are left this week: 1 session."
    )


def test_a_run_that_needs_next_week_says_so_first(push, job):
    hours = job.plan.hours["total"]
    assert push(24.0) == (
        f"About {hours:.1f} GPU hours remain (by a T4's constants), and 6.0 are left this week: 2 sessions. "
        f"{hours - 6:.1f} of them need the quota of a later week, from {RENEWED} on."
    )


def test_a_paused_training_needs_what_it_measured(push, job):
    train = {"status": "paused", "paused": {"step": 100, "steps": 900, "reason": "", "hours_left": 15.5}}
    hours = 15.5 + job.plan.hours["evaluate"]
    assert push(3.0, train=train) == (
        f"About {hours:.1f} GPU hours remain (by the rate measured so far), and 27.0 are left this week: 2 sessions."
    )


def test_what_has_finished_needs_no_more_hours(job):
    planned = job.plan.hours
    done = {"status": "finished", "paused": {"hours_left": 4.0}}
    assert remaining_hours(job, begun(train=done))[0] == pytest.approx(planned["evaluate"])
    assert remaining_hours(job, begun(train=done, evaluate=done))[0] == 0
    assert remaining_hours(job, begun(prepare_data=done))[0] == pytest.approx(planned["total"], abs=0.002)


def test_a_session_before_this_version_is_planned_anew(job):
    paused = {"status": "paused", "paused": {"step": 100, "steps": 900, "reason": ""}}
    assert remaining_hours(job, begun(train=paused)) == remaining_hours(job, begun())


def test_a_kaggle_run_is_planned_for_t4s_on_any_machine(tmp_path, monkeypatch):
    hours = make_job(FLAGSHIP, "", str(tmp_path), [], False).plan.hours
    monkeypatch.setattr("helpers.planning.calibration.gpu_names", lambda: ["NVIDIA H200"])
    keep_calibration(tmp_path, "NVIDIA H200", calibration(9.0))
    assert make_job(FLAGSHIP, "", str(tmp_path), [], False).plan.hours == hours


def test_a_pulled_runs_calibration_is_in_its_hours(tmp_path):
    before = make_job(FLAGSHIP, "", str(tmp_path), [], False).plan.hours
    keep_calibration(tmp_path / FLAGSHIP / "train", T4, calibration(2.0))
    after = make_job(FLAGSHIP, "", str(tmp_path), [], False).plan.hours
    assert after["train"] == pytest.approx(before["train"] / 2, rel=0.01)


@pytest.mark.parametrize(
    ("hours", "session", "left", "count"),
    [
        (0.0, 12.0, 30.0, 1),
        (9.5, 12.0, 30.0, 1),
        (12.0, 12.0, 12.0, 1),
        (25.0, 12.0, 30.0, 3),
        (9.5, 12.0, 7.0, 2),
        (9.5, 12.0, 0.2, 1),  # all of it next week
        (40.0, 12.0, 13.0, 5),  # 12 and 1, then 12, 12, 3
        (70.0, 12.0, 30.0, 7),  # 12, 12, 6, twice, then 10
        (9.5, 3.0, math.inf, 4),
    ],
)
def test_sessions_end_with_their_limit_or_the_quota(hours, session, left, count):
    assert count_sessions(hours, session, Quota(left, 30.0, RENEWED)) == count


def test_an_unknown_quota_is_said_to_be_unknown():
    assert describe_need(9.5, "a plan", 12.0, Quota()) == (
        "About 9.5 GPU hours remain (by a plan). Kaggle does not tell how many are left this week."
    )
