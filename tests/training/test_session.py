"""A session's clock, its unfinished work, and who may continue it."""

import time

import pytest

from helpers.platforms.errors import Paused, Refused
from helpers.runner import select_stages
from helpers.runs.files import write_json
from helpers.runs.session import SESSION_START, boot_clock, compute_batches, process_start, session_left
from helpers.runs.settings import resolve_settings


def test_a_session_s_clock_ignores_the_time_of_day(monkeypatch):
    monkeypatch.setenv(SESSION_START, str(boot_clock() - 3600))
    before = session_left(2.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert session_left(2.0) == pytest.approx(before, abs=1) == pytest.approx(3600, abs=5)
    assert session_left(0.0) == float("inf")


def test_a_session_on_kaggle_begins_with_the_machine(monkeypatch):
    monkeypatch.delenv(SESSION_START, raising=False)
    monkeypatch.setattr("helpers.runs.session.platform", lambda: "kaggle")
    up = boot_clock() - process_start("1")  # more than 12 hours on a machine that stays on
    assert session_left() == pytest.approx(12 * 3600 - up, abs=5)
    assert 0 <= process_start("1") <= process_start("self")


@pytest.fixture
def paused_by_runner(paused):
    """Returns a paused run whose run.json has the parameters given, and the settings of a next call."""
    settings = resolve_settings("demo", "paused", str(paused.outputs), [], False)

    def call(**changes):
        parameters = {**settings["train"], **changes}
        write_json(paused / "run.json", {"stages": {"train": {"status": "paused", "parameters": parameters}}})
        return settings

    return call


def test_a_paused_run_is_not_resumed_under_other_settings(paused_by_runner):
    settings = paused_by_runner(learning_rate=1.0)
    with pytest.raises(Refused, match="train.learning_rate was 1.0, now 0.003.*--force, which replaces"):
        select_stages(settings, ["train"], False)
    assert select_stages(settings, ["train"], True) == {"train": "forced"}


def test_a_paused_run_may_have_a_shorter_session(paused_by_runner):
    assert select_stages(paused_by_runner(session={"hours": 9.0}), ["train"], False) == {"train": "was paused"}


BATCHES = [[2, 0], [1], [3, 4]]


@pytest.fixture
def half_written(tmp_path):
    """Returns the file of a computation that was killed while it wrote its last batch."""
    keep = tmp_path / "run/evaluate/work/x.jsonl"

    def compute(batch):
        return [{"n": n} for n in batch] if batch != [3, 4] else 1 / 0

    with pytest.raises(ZeroDivisionError):
        compute_batches(BATCHES, compute, keep)
    with open(keep.with_name("x-0.jsonl"), "ab") as file:
        file.write('{"items": [3, 4], "results": [{"n": "আধ'.encode()[:-1])
    return keep


def test_a_half_written_batch_is_computed_again(half_written):
    calls = []

    def compute(batch):
        calls.append(batch)
        return [{"n": n} for n in batch]

    assert compute_batches(BATCHES, compute, half_written) == [{"n": n} for n in range(5)]
    assert calls == [[3, 4]]
    (half_written.parents[2] / "stop").touch()
    assert compute_batches(BATCHES, compute, half_written) == [{"n": n} for n in range(5)], "nothing is left to stop"


def test_a_stop_file_pauses_a_computation(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stop").touch()
    with pytest.raises(Paused, match="row 0 of 5: stop was asked for"):
        compute_batches(BATCHES, lambda batch: batch, tmp_path / "run/evaluate/work/x.jsonl")
