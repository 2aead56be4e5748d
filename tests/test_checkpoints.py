"""Checkpoints, pausing and going on: nothing is lost, nothing is half-written, and the result is the same."""

import random
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

from helpers import checkpoints, env, presets, run, train

STEPS = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1, "optim": "adamw_torch"}
MADE = {"settings": {"train.seed": 1, "sft.optim": "sgd"}, "data": {"train": "a"}, "versions": {"torch": "2"}}


def stop_at(monkeypatch, *steps):
    """Makes the session's clock end the run after these steps, each once."""
    left = list(steps)

    def reason(self, save_seconds):
        self.done = getattr(self, "done", 0) + 1
        if left and self.trainer_step() >= left[0]:
            left.pop(0)
            return "the test asked for it"
        return ""

    monkeypatch.setattr(train.Clock, "reason", reason)
    return left


@pytest.fixture
def counted(monkeypatch):
    """Lets the clock know the trainer's step, and returns the steps that were trained."""
    trained, real = [], train.trainer_class

    def build():
        cls = real()
        step = cls.training_step

        def training_step(self, network, inputs, num_items_in_batch=None):
            trained.append(self.state.global_step + 1)
            self.clock.trainer_step = lambda: self.state.global_step + 1
            return step(self, network, inputs, num_items_in_batch)

        cls.training_step = training_step
        return cls

    monkeypatch.setattr(train, "trainer_class", build)
    return trained


def whole(folder):
    return [
        path for path in sorted(folder.glob("checkpoint-*"), key=checkpoints.step_of) if not checkpoints.verify(path)
    ]


@pytest.fixture
def uninterrupted(make):
    """Trains a run in one go, with dropout, and returns its adapter, losses and metrics."""
    run = make(
        "whole", sft=STEPS, num_train_epochs=2.0, lora={"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"}
    )
    metrics = train.run_training(run)
    return load_file(run / "train/adapter/adapter_model.safetensors"), env.read_jsonl(run / "train/log.jsonl"), metrics


@pytest.mark.parametrize("stops", [(1,), (8,), (5, 6, 13), (2, 9, 15)])
def test_a_run_stopped_and_resumed_is_bit_for_bit_the_uninterrupted_one(
    stops, make, uninterrupted, monkeypatch, counted
):
    run = make(
        "parts", sft=STEPS, num_train_epochs=2.0, lora={"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"}
    )
    stop_at(monkeypatch, *stops)
    for step in stops:
        found = train.run_training(run)
        assert found["status"] == "paused" and found["step"] == step
        assert (
            not (run / "train/adapter").exists() and checkpoints.step_of(whole(run / "train/checkpoints")[-1]) == step
        )
    metrics = train.run_training(run)
    adapter, log, expected = uninterrupted
    mine = load_file(run / "train/adapter/adapter_model.safetensors")
    assert mine.keys() == adapter.keys() and all(torch.equal(mine[name], adapter[name]) for name in adapter)
    assert counted == list(range(1, 17)), "no step twice, none left out"
    told = [
        [{k: v for k, v in e.items() if k in ("step", "loss", "eval_loss", "learning_rate")} for e in x if "loss" in e]
        for x in (log, env.read_jsonl(run / "train/log.jsonl"))
    ]
    assert told[0] == told[1]
    for name in ("train_loss", "val_loss", "tokens_seen", "useful_token_fraction", "optimizer_steps", "micro_batches"):
        assert metrics[name] == expected[name], name
    assert metrics["sessions"] == len(stops) + 1
    sessions = env.sessions(run, "train")
    assert [(s["from"], s["to"]) for s in sessions] == list(zip((0, *stops), (*stops, 16)))
    assert sessions[0]["reason"] == "the test asked for it" and sessions[-1]["reason"] == "finished"


STEPWISE = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
BY_EPOCH = {"save_strategy": "epoch", "eval_strategy": "epoch"}


@pytest.mark.parametrize(
    ("sft", "steps"),
    [
        ({**STEPWISE, "max_steps": 5}, 5),
        (BY_EPOCH, 16),
        ({**BY_EPOCH, "max_steps": 11, "load_best_model_at_end": True}, 11),
        ({**STEPWISE, "early_stopping_patience": 2, "load_best_model_at_end": True}, 6),
    ],
)
def test_a_run_killed_after_its_last_step_trains_no_more_and_writes_the_same(sft, steps, make, counted, monkeypatch):
    rate = 30.0 if "early_stopping_patience" in sft else 0.05
    run = make("ended", learning_rate=rate, num_train_epochs=2.0, sft={**STEPS, **sft})

    def killed(*args):
        raise SystemExit("killed")

    real = train.save_adapter
    monkeypatch.setattr(train, "save_adapter", killed)
    with pytest.raises(SystemExit):
        train.run_training(run)
    monkeypatch.setattr(train, "save_adapter", real)
    resumed = train.run_training(run)
    assert counted == list(range(1, steps + 1)) and resumed["optimizer_steps"] == steps
    parts = outcome(run)
    shutil.rmtree(run / "train/checkpoints")
    counted.clear()
    at_once = train.run_training(run)
    whole_run = outcome(run)
    assert counted == list(range(1, steps + 1)) and parts == whole_run
    timed = {"hours", "tokens_per_second", "val_share_of_time", "sessions"}
    assert {k: v for k, v in resumed.items() if k not in timed} == {k: v for k, v in at_once.items() if k not in timed}


def outcome(run):
    names = ("step", "loss", "eval_loss", "learning_rate")
    log = [{k: entry.get(k) for k in names} for entry in env.read_jsonl(run / "train/log.jsonl")]
    return env.sha256(run / "train/adapter/adapter_model.safetensors"), log


@pytest.mark.parametrize("stops", [(3, 8), (5, 11)])
def test_an_evaluation_due_at_an_epoch_s_end_is_neither_lost_nor_brought_forward(stops, make, counted, monkeypatch):
    run = make("epochs", num_train_epochs=2.0, sft={**STEPS, **BY_EPOCH, "load_best_model_at_end": True})
    train.run_training(run)
    expected = outcome(run)
    shutil.rmtree(run / "train/checkpoints")
    stop_at(monkeypatch, *stops)
    for step in stops:
        assert train.run_training(run)["step"] == step
    train.run_training(run)
    assert outcome(run) == expected


def test_a_signal_and_a_stop_file_pause_the_run_and_the_handlers_come_back(make, monkeypatch, counted):
    run = make("signal", sft=STEPS)
    before = signal.getsignal(signal.SIGTERM)
    real = train.Clock.reason
    monkeypatch.setattr(
        train.Clock,
        "reason",
        lambda self, seconds: (
            signal.raise_signal(signal.SIGTERM) if self.trainer_step() == 2 else 0,
            real(self, seconds),
        )[1],
    )
    found = train.run_training(run)
    assert found == {"status": "paused", "step": 2, "steps": 8, "reason": "SIGTERM received"}
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(train.Clock, "reason", real)
    (run / "stop").touch()
    assert train.run_training(run)["step"] == 3
    (run / "stop").unlink()
    monkeypatch.setattr(env, "session_left", lambda hours: 29.0)
    assert train.run_training(run)["reason"] == "the session's time is nearly up"
    monkeypatch.setattr(env, "session_left", lambda hours: 1e9)
    assert train.run_training(run)["status"] == "finished"


@pytest.fixture
def paused(make, monkeypatch, counted):
    """Returns a run with whole checkpoints of steps 2, 4 and 5, paused at step 5."""
    run = make("paused", sft={**STEPS, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 9})
    stop_at(monkeypatch, 5)
    assert train.run_training(run)["step"] == 5
    counted.clear()
    return run


def damage(folder, kind):
    file = folder / "adapter_model.safetensors"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif kind == "a byte flipped":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    elif kind == "a file missing":
        (folder / "optimizer.pt").unlink()
    elif kind == "an empty manifest":
        (folder / "manifest.json").write_text("")
    elif kind == "no manifest":
        (folder / "manifest.json").unlink()
    elif kind == "a future version":
        manifest = env.read_json(folder / "manifest.json")
        env.write_json(folder / "manifest.json", {**manifest, "format": 99})
    elif kind == "another run's":
        manifest = env.read_json(folder / "manifest.json")
        env.write_json(folder / "manifest.json", {**manifest, "fingerprint": {**manifest["fingerprint"], "run": "b"}})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", r"adapter_model.safetensors has \d+ bytes, expected \d+"),
        ("a byte flipped", "adapter_model.safetensors has other content than was written"),
        ("a file missing", "optimizer.pt is missing"),
        ("an empty manifest", "manifest.json cannot be read"),
        ("no manifest", "it was not finished"),
        ("a future version", "has format 99, this suite reads up to 1"),
        ("another run's", "it is another run's"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason_and_the_one_before_is_used(
    kind, reason, paused, capsys, counted
):
    damage(paused / "train/checkpoints/checkpoint-5", kind)
    assert checkpoints.main(["verify", str(paused / "train/checkpoints/checkpoint-5")]) == (kind != "another run's")
    assert checkpoints.main(["verify", str(paused / "train/checkpoints/checkpoint-4")]) == 0
    assert train.run_training(paused)["status"] == "finished"
    said = capsys.readouterr().out
    assert re.search(f"passed over checkpoint-5: .*{reason}", said) and "going on from checkpoint-4" in said
    assert counted == [5, 6, 7, 8]


def test_a_checkpoint_of_other_settings_or_data_is_refused_by_name(paused):
    config = env.read_json(paused / "train/config.json")
    env.write_json(paused / "train/config.json", {**config, "learning_rate": 0.01})
    with pytest.raises(ValueError, match="train.learning_rate was 0.05, now 0.01.*--force"):
        train.run_training(paused)
    env.write_json(paused / "train/config.json", {**config, "sft": {**config["sft"], "logging_steps": 7}})
    rows = env.read_jsonl(paused / "data/train.jsonl")
    env.write_jsonl(paused / "data/train.jsonl", rows[:-1])
    with pytest.raises(ValueError, match="data/train.jsonl was"):
        train.run_training(paused)
    env.write_jsonl(paused / "data/train.jsonl", rows)
    assert train.run_training(paused)["status"] == "finished", "how often a loss is logged changes nothing"


def test_another_version_of_a_library_is_said_and_goes_on(paused, monkeypatch, capsys):
    real = env.versions()
    monkeypatch.setattr(env, "versions", lambda: {**real, "torch": "9.9"})
    assert train.run_training(paused)["status"] == "finished"
    assert "torch 2.13.0" in (said := capsys.readouterr().out) and "to 9.9" in said and "no longer bit for bit" in said


def test_a_full_disk_costs_the_new_checkpoint_and_nothing_else(make, monkeypatch, capsys):
    run = make("full", sft={**STEPS, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1})
    real = torch.save

    def full(value, path, *args, **kwargs):
        if "checkpoint-4" in str(path) or "checkpoint-6" in str(path):
            open(path, "wb").write(b"half")
            raise OSError(28, "No space left on device")
        return real(value, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    metrics = train.run_training(run)
    said = capsys.readouterr().out
    assert metrics["status"] == "finished" and said.count("no checkpoint: OSError") == 2
    kept = [path.name for path in (run / "train/checkpoints").iterdir()]
    assert kept == ["checkpoint-8"] and not checkpoints.verify(run / "train/checkpoints/checkpoint-8")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    assert "0 MiB are free" in checkpoints.room(run, 1000)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of 64 MiB, which needs root; umounts it afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_system_of_64_mib_that_fills_up_keeps_what_it_held_and_the_run_finishes(make, small_disk, capsys):
    run = make("small", sft={**STEPS, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 0})
    kept = run / "train/checkpoints"
    kept.symlink_to(small_disk)
    ballast = small_disk / "ballast"
    train.run_training(make("size", sft={**STEPS, "save_strategy": "steps", "save_steps": 8}))
    size = sum(path.stat().st_size for path in (run.parent / "size/train/checkpoints/checkpoint-8").iterdir())
    ballast.write_bytes(bytes(2**26 - 4096 * 40 - int(3.5 * size)))
    capsys.readouterr()
    metrics = train.run_training(run)
    said = capsys.readouterr().out
    assert metrics["status"] == "finished" and said.count("no checkpoint: ") >= 4
    assert 2 <= len(whole(small_disk)) <= 4 and [path for path in small_disk.iterdir() if path.name == ".new"] == []
    assert all(checkpoints.verify(path) == "" for path in small_disk.glob("checkpoint-*"))
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    before = checkpoints.listing(small_disk)
    shutil.rmtree(run / "train/adapter")
    assert train.run_training(run)["status"] == "finished", "a folder that became read-only is read all the same"
    assert checkpoints.listing(small_disk) == before and "no checkpoint: " in capsys.readouterr().out
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_old_checkpoints_go_after_the_new_one_and_the_best_stays(make):
    sft = {**STEPS, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    run = make("best", learning_rate=0.5, sft={**sft, "save_total_limit": 1, "load_best_model_at_end": True})
    metrics = train.run_training(run)
    left = [checkpoints.step_of(path) for path in (run / "train/checkpoints").glob("checkpoint-*")]
    losses = {e["step"]: e["eval_loss"] for e in env.read_jsonl(run / "train/log.jsonl") if "eval_loss" in e}
    best = min(losses, key=losses.get)
    assert sorted(left) == sorted({best, 8}) and metrics["val_loss"] == pytest.approx(losses[best])


def test_nothing_that_runs_code_is_in_a_checkpoint_or_is_loaded_from_it(paused, monkeypatch):
    folder = paused / "train/checkpoints/checkpoint-5"
    assert not (folder / "training_args.bin").exists()
    real, unsafe = torch.load, []

    def load(*args, **kwargs):
        unsafe.extend([args[0]] if kwargs.get("weights_only") is not True else [])
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    assert train.run_training(paused)["status"] == "finished" and unsafe == []


def test_the_session_s_clock_does_not_follow_the_time_of_day(monkeypatch):
    monkeypatch.setenv(env.SESSION_START, str(env.boot_clock() - 3600))
    before = env.session_left(2.0)
    monkeypatch.setattr(env.time, "time", lambda: 0.0)
    assert env.session_left(2.0) == pytest.approx(before, abs=1) == pytest.approx(3600, abs=5)
    assert env.session_left(0.0) == float("inf")
    monkeypatch.delenv(env.SESSION_START)
    monkeypatch.setattr(env, "platform", lambda: "kaggle")
    up = env.boot_clock() - env.process_start("1")  # more than 12 hours on a machine that stays on
    assert env.session_left() == pytest.approx(12 * 3600 - up, abs=5)
    assert 0 <= env.process_start("1") <= env.process_start("self")


def test_a_run_in_a_thread_trains_without_signals(make):
    run, found = make("thread", rows=6, sft=STEPS), []
    thread = threading.Thread(target=lambda: found.append(train.run_training(run)))
    thread.start()
    thread.join(120)
    assert found and found[0]["status"] == "finished"


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_with_the_same_bits_and_the_same_replies(tmp_path):
    from benchmarks import kill

    found = kill.batter(tmp_path, 2, random.Random(4))
    assert sum(found["kills"].values()) >= 2 and found["runs"] >= 1


def test_a_paused_run_is_not_gone_on_with_under_other_settings(paused, tmp_path, capsys):
    record = {"stages": {"train": {"status": "paused", "parameters": env.read_json(paused / "train/config.json")}}}
    settings = presets.resolve("demo", "paused", str(paused.parent), [], False)
    record["stages"]["train"]["parameters"] = {**settings["train"], "learning_rate": 1.0}
    env.write_json(paused / "run.json", record)
    with pytest.raises(presets.Refused, match="train.learning_rate was 1.0, now 0.003.*--force to replace it"):
        run.plan(settings, ["train"], False)
    assert run.plan(settings, ["train"], True) == {"train": "forced"}
    record["stages"]["train"]["parameters"] = {**settings["train"], "session": {"hours": 9.0}}
    env.write_json(paused / "run.json", record)
    assert run.plan(settings, ["train"], False) == {"train": "was paused"}, "another session may be shorter"


def test_a_half_written_line_is_cut_off_and_its_batch_computed_again(tmp_path):
    keep, own, calls = tmp_path / "run/evaluate/work/x.jsonl", tmp_path / "run/evaluate/work/x-0.jsonl", []

    def compute(batch):
        calls.append(batch)
        return [{"n": n} for n in batch]

    batches = [[2, 0], [1], [3, 4]]
    with pytest.raises(ZeroDivisionError):
        env.resumable(batches, lambda batch: compute(batch) if batch != [3, 4] else 1 / 0, keep)
    with open(own, "ab") as file:
        file.write('{"items": [3, 4], "results": [{"n": "আধ'.encode()[:-1])
    assert env.resumable(batches, compute, keep) == [{"n": n} for n in range(5)]
    assert calls == [[2, 0], [1], [3, 4]]
    (tmp_path / "run/stop").touch()
    assert env.resumable(batches, compute, keep) == [{"n": n} for n in range(5)], "nothing is left to stop"
    own.unlink()
    with pytest.raises(env.Paused, match="row 0 of 5: stop was asked for"):
        env.resumable(batches, compute, keep)


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    code = "import sys, time; from pathlib import Path; from helpers import env; env.lock_run(Path(sys.argv[1])); "
    code += "print('mine', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(RuntimeError, match="another process works on run"):
        env.lock_run(tmp_path, patience=0.3)
    other.kill()
    other.wait()
    env.lock_run(tmp_path, patience=5)
    env.lock_run(tmp_path)
    env.unlock_run(tmp_path)
