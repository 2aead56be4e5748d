"""The rate of a training: the time that is left, and how it compares with the plan."""

import pytest
from configs import SMALL_STEPS

from helpers.training.loop import run_training
from helpers.training.rate import MeasuredRate

PLANNED = [1.0, 1.0, 1.0, 4.0, 4.0, 8.0]  # seconds of steps


def measure(times, steps, between=0.0):
    """Returns the rate of a session whose steps take so many times as long as planned, the first one a minute more."""
    now, extra = [1000.0], 60.0
    rate = MeasuredRate(PLANNED, "a plan", clock=lambda: now[0])
    for step in steps:
        rate.begin_step()
        now[0] += times * PLANNED[step - 1] + extra
        rate.end_step(step)
        extra = 0.0
        if step != steps[-1]:
            now[0] += between
    return rate


def test_the_time_left_is_of_the_steps_to_come():
    assert measure(2.0, [1, 2, 3]).seconds_left(3) == pytest.approx(2.0 * (4 + 4 + 8))


def test_a_resumed_session_counts_its_own_steps_alone():
    assert measure(3.0, [4, 5]).seconds_left(5) == pytest.approx(3.0 * 8)


def test_before_a_step_is_measured_no_time_is_told():
    assert measure(1.0, [1]).seconds_left(1) is None


def test_validations_count_for_the_time_left():
    assert measure(2.0, [1, 2, 3], between=1.0).seconds_left(3) == pytest.approx(16 * 6.0 / 2)


def test_validations_do_not_count_against_the_plan():
    sentence = measure(2.0, [1, 2, 3], between=1.0).compare(3)
    assert sentence == (
        "2 steps took 2.00 times as long as planned (2 s per step, planned 1 by a plan); about 00:48 left."
    )


@pytest.fixture
def trained(make, monkeypatch, capsys):
    """Returns a function that trains eight steps on a machine with these GPUs' names; gives what was reported of each
    step, and what was printed."""

    def call(gpus):
        reports = []
        monkeypatch.setattr("helpers.training.callbacks.report_progress", lambda *facts: reports.append(facts))
        monkeypatch.setattr("helpers.training.callbacks.gpu_names", lambda: gpus)
        monkeypatch.setattr("helpers.training.callbacks.COMPARED_AFTER", 3)
        run_training(make("timed", sft=SMALL_STEPS))
        return reports, capsys.readouterr().out

    return call


def test_a_training_reports_the_time_left(trained):
    reports, _ = trained([])
    left = [seconds for *_, seconds in reports]
    assert [step for step, *_ in reports] == [*range(1, 9)]
    assert left[0] is None
    assert all(seconds > 0 for seconds in left[1:-1])
    assert left[-1] == 0


def test_a_training_on_a_gpu_is_held_against_its_plan_once(trained):
    _, printed = trained(["Tesla T4"])
    assert printed.count("3 steps took ") == printed.count("times as long as planned") == 1
    assert "by a T4's constants); about " in printed


def test_a_training_on_a_cpu_is_not_held_against_the_plan(trained):
    _, printed = trained([])
    assert "as planned" not in printed
