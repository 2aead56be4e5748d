"""A paused or killed run resumes: no step twice, and the same result as the uninterrupted one."""

import shutil
import signal
import threading
from contextlib import contextmanager

import pytest
from adapters import ADAPTER, adapter_difference, log_entries
from configs import SMALL_STEPS, make_promise

from helpers.platforms.environment import package_versions
from helpers.runs.checkpoints import checkpoint_folders, seal_checkpoint, step_of, verify_checkpoint
from helpers.runs.files import file_sha256, read_json, read_jsonl, write_json, write_jsonl
from helpers.runs.record import RECORDS
from helpers.runs.session import SessionClock
from helpers.training.inputs import Progress
from helpers.training.loop import run_training

DROPOUT = {"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"}
STEPWISE = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
BY_EPOCH = {"save_strategy": "epoch", "eval_strategy": "epoch"}
LOGGED = ("step", "loss", "eval_loss", "learning_rate")


def outcome(run):
    """Returns what must not depend on interruptions: the adapter's hash and the log without times."""
    log = [{name: entry.get(name) for name in LOGGED} for entry in read_jsonl(run / "train/log.jsonl")]
    return file_sha256(run / ADAPTER), log


TWO_EPOCHS = {"sft": SMALL_STEPS, "num_train_epochs": 2.0, "lora": DROPOUT}


@pytest.fixture(scope="module")
def uninterrupted(make_in, tmp_path_factory):
    """Returns a run of 16 steps that was never interrupted, and what its training returned."""
    run = make_in(tmp_path_factory.mktemp("uninterrupted"), "whole", **TWO_EPOCHS)
    return run, run_training(run)


@pytest.mark.parametrize("stops", [(1,), (8,), (5, 6, 13), pytest.param((2, 9, 15), marks=pytest.mark.slow)])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted(stops, uninterrupted, make, stop_at, trained_steps):
    (whole, expected), run = uninterrupted, make("parts", **TWO_EPOCHS)
    stop_at(*stops)
    for step in stops:
        result = run_training(run)
        assert (result["status"], result["step"]) == ("paused", step)
        assert not (run / "train/adapter").exists()
        newest = checkpoint_folders(run / "train/checkpoints")[-1]
        assert (step_of(newest), verify_checkpoint(newest)) == (step, "")
    metrics = run_training(run)
    assert adapter_difference(whole, run) == 0
    assert trained_steps == list(range(1, 17)), "a step was trained twice, or left out"
    assert log_entries(whole, *LOGGED) == log_entries(run, *LOGGED)
    for name in ("train_loss", "val_loss", "tokens_seen", "useful_token_fraction", "optimizer_steps", "micro_batches"):
        assert metrics[name] == expected[name], name
    assert metrics["sessions"] == len(stops) + 1
    sessions = run.sessions("train")
    assert [(s.from_step, s.to_step) for s in sessions] == list(zip((0, *stops), (*stops, 16), strict=True))
    assert sessions[0].reason == "the test asked for it"
    assert sessions[-1].reason == "finished"


def test_a_promised_training_resumes_with_its_rows_and_epochs(make, stop_at):
    settings = {"sft": SMALL_STEPS, "num_train_epochs": 1.5, "promise": make_promise()}
    uninterrupted, run = make("whole", **settings), make("parts", **settings)
    expected = run_training(uninterrupted)
    stop_at(2)
    assert run_training(run)["status"] == "paused"
    metrics = run_training(run)
    assert adapter_difference(uninterrupted, run) == 0
    assert metrics["optimizer_steps"] == expected["optimizer_steps"] == 5  # of 3 rows each, 9 in an epoch
    assert metrics["epochs"] == pytest.approx(5 / 3)


def test_the_parts_of_a_trainings_time_are_of_all_sessions(paused):
    before = read_json(paused / "train/checkpoints/checkpoint-5/progress.json")
    metrics = run_training(paused)
    seconds, events = metrics["seconds"], metrics["events"]
    assert events == {"validations": 0, "checkpoints": 6}, "of steps 2, 4 and 5, then of 6, and twice of 8"
    assert sum(seconds.values()) == pytest.approx(3600 * metrics["hours"])
    assert seconds["load"] > before["load_seconds"] > 0
    assert seconds["checkpoints"] > before["save_seconds"] > 0


@pytest.mark.parametrize(
    ("sft", "steps"),
    [
        ({**STEPWISE, "max_steps": 5}, 5),
        (BY_EPOCH, 16),
        ({**BY_EPOCH, "max_steps": 11, "load_best_model_at_end": True}, 11),
        ({**STEPWISE, "early_stopping_patience": 2, "load_best_model_at_end": True}, 6),
    ],
)
def test_a_run_killed_after_its_last_step_trains_no_more(sft, steps, make, trained_steps, monkeypatch):
    rate = 30.0 if "early_stopping_patience" in sft else 0.05
    run = make("ended", learning_rate=rate, num_train_epochs=2.0, sft={**SMALL_STEPS, **sft})

    @contextmanager
    def killed(folder):
        raise SystemExit("killed")
        yield

    with monkeypatch.context() as patch:
        patch.setattr("helpers.training.loop.write_folder", killed)
        with pytest.raises(SystemExit):
            run_training(run)
    resumed, resumed_outcome = run_training(run), outcome(run)
    assert trained_steps == list(range(1, steps + 1))
    assert resumed["optimizer_steps"] == steps
    shutil.rmtree(run / "train/checkpoints")
    trained_steps.clear()
    at_once = run_training(run)
    assert trained_steps == list(range(1, steps + 1))
    assert resumed_outcome == outcome(run)
    for name in at_once.keys() - {"hours", "tokens_per_second", "val_share_of_time", "sessions", "seconds", "events"}:
        assert resumed[name] == at_once[name], name


@pytest.mark.parametrize("stops", [(3, 8), (5, 11)])
def test_an_epoch_s_evaluation_comes_once_at_its_end(stops, make, stop_at):
    run = make("epochs", num_train_epochs=2.0, sft={**SMALL_STEPS, **BY_EPOCH, "load_best_model_at_end": True})
    run_training(run)
    expected = outcome(run)
    shutil.rmtree(run / "train/checkpoints")
    stop_at(*stops)
    for step in stops:
        assert run_training(run)["step"] == step
    run_training(run)
    assert outcome(run) == expected


@pytest.fixture
def send_signal(monkeypatch, trained_steps):
    """Sends SIGTERM to this process in step 2."""
    real = SessionClock.reason

    def reason(self, save_seconds):
        if self.trainer_step == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(self, save_seconds)

    monkeypatch.setattr(SessionClock, "reason", reason)


def test_a_signal_pauses_the_run_after_its_step(make, send_signal):
    run, handler = make("signal", sft=SMALL_STEPS), signal.getsignal(signal.SIGTERM)
    paused = run_training(run)
    assert paused.pop("hours_left") > 0
    assert paused == {"status": "paused", "step": 2, "steps": 8, "reason": "SIGTERM received"}
    assert signal.getsignal(signal.SIGTERM) is handler, "the handler before the training was not restored"


def test_a_stop_file_pauses_the_run(make):
    run = make("stop", sft=SMALL_STEPS)
    (run / "stop").touch()
    result = run_training(run)
    assert (result["step"], result["reason"]) == (1, "stop was asked for")
    (run / "stop").unlink()
    assert run_training(run)["status"] == "finished"


def test_a_session_that_is_nearly_over_pauses_the_run(make, monkeypatch):
    run = make("session", sft=SMALL_STEPS)
    monkeypatch.setattr("helpers.training.loop.session_left", lambda hours: 29.0)
    assert run_training(run)["reason"] == "the session's time is nearly up"
    monkeypatch.setattr("helpers.training.loop.session_left", lambda hours: 1e9)
    assert run_training(run)["status"] == "finished"


def test_a_run_in_a_thread_trains_without_signals(make):
    run, results = make("thread", rows=6, sft=SMALL_STEPS), []
    thread = threading.Thread(target=lambda: results.append(run_training(run)))
    thread.start()
    thread.join(120)
    assert [result["status"] for result in results] == ["finished"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.01}, "train.learning_rate was 0.05, now 0.01.*--force"),
        ({"lora": {"r": 2}}, "lora.r was 16, now 2"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(changes, message, paused):
    config = read_json(paused / "train/config.json")
    write_json(paused / "train/config.json", {**config, **changes})
    with pytest.raises(ValueError, match=message):
        run_training(paused)


def test_a_checkpoint_of_other_data_is_refused_by_name(paused):
    write_jsonl(paused / "data/train.jsonl", read_jsonl(paused / "data/train.jsonl")[:-1])
    with pytest.raises(ValueError, match="data/train.jsonl was"):
        run_training(paused)


def test_how_often_a_loss_is_logged_may_change(paused):
    config = read_json(paused / "train/config.json")
    write_json(paused / "train/config.json", {**config, "sft": {**config["sft"], "logging_steps": 7}})
    assert run_training(paused)["status"] == "finished"


def test_another_version_of_a_library_is_named(paused, monkeypatch, capsys):
    versions = package_versions()
    monkeypatch.setattr("helpers.runs.checkpoints.package_versions", lambda: {**versions, "torch": "9.9"})
    assert run_training(paused)["status"] == "finished"
    output = capsys.readouterr().out
    assert f"torch {versions['torch']} → 9.9" in output
    assert "no longer bit for bit" in output


def test_a_checkpoint_of_the_earlier_version_is_resumed(paused, trained_steps):
    for folder in checkpoint_folders(paused / "train/checkpoints"):  # its manifest has these keys, and no others
        manifest = read_json(folder / "manifest.json")
        assert list(manifest) == ["format", "step", "written", "fingerprint", "files"]
        assert list(manifest["fingerprint"]) == ["run", "settings", "data", "versions"]
        progress = read_json(folder / "progress.json")
        assert list(progress) == [*Progress.model_fields]
        earlier = ("counts", "limit", "loss_sum", "seconds", "eval_seconds", "log")
        write_json(folder / "progress.json", {name: progress[name] for name in earlier})
        (folder / "manifest.json").unlink()
        seal_checkpoint(folder, manifest["step"], manifest["fingerprint"])
        assert list(progress["counts"]) == ["useful", "computed", "arithmetic", "micro_batches"]
    run_training(paused)
    assert trained_steps == [6, 7, 8]


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_a_run_without_its_record_resumes_at_its_step(content, paused, trained_steps):
    for name in RECORDS:
        (paused / name).unlink()
        if content:
            (paused / name).write_text(content)
    assert run_training(paused)["status"] == "finished"
    assert trained_steps == [6, 7, 8]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same(tmp_path):
    import random

    from benchmarks import kill

    counts = kill.batter(tmp_path, 2, random.Random(4))
    assert sum(counts["kills"].values()) >= 2
    assert counts["runs"] >= 1
