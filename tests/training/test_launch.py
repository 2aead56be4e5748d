"""Training in several processes, and a launch that fails."""

import dataclasses
from pathlib import Path

import pytest
from adapters import adapter_difference, losses
from two_machines import train_on_two_machines

from helpers.planning.config import TrainingConfig
from helpers.runs.checkpoints import seal_checkpoint
from helpers.runs.files import read_json, write_json
from helpers.training import launch, loop
from helpers.training.launch import launch_training, load_here, train_process
from helpers.training.loop import run_training

ROOT = Path(__file__).resolve().parents[2]
DROPOUT = {"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"}


@pytest.mark.slow
def test_two_machines_train_the_adapter_of_one_process(make):
    alone = make("alone", rows=23, max_tokens=600, num_train_epochs=2.0, sft={"gradient_accumulation_steps": 4})
    single = run_training(alone)
    pair = make("pair", rows=23, max_tokens=600, num_train_epochs=2.0, sft={"gradient_accumulation_steps": 2})
    metrics, output = train_on_two_machines(pair)
    assert metrics["world_size"] == 2
    assert "2 processes" in output
    assert adapter_difference(alone, pair) < 1e-5
    assert losses(alone) == pytest.approx(losses(pair), rel=1e-5)
    assert metrics["tokens_seen"] == single["tokens_seen"]


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit(make):
    choice = {"rows": 23, "max_tokens": 300, "num_train_epochs": 2.0, "lora": DROPOUT}
    choice["sft"] = {"optim": "adamw_torch", "gradient_accumulation_steps": 1}
    uninterrupted, parts = make("whole", **choice), make("parts", **choice)
    expected, _ = train_on_two_machines(uninterrupted)
    config = read_json(parts / "train/config.json")
    for step in (1, 2):  # a session without time ends after a step
        write_json(parts / "train/config.json", {**config, "session": {**config["session"], "hours": 1e-6}})
        result, _ = train_on_two_machines(parts)
        assert result["status"] == "paused"
        assert result["step"] == step
    write_json(parts / "train/config.json", config)
    metrics, output = train_on_two_machines(parts)
    assert "resuming from checkpoint-2" in output
    assert adapter_difference(uninterrupted, parts) == 0
    assert losses(uninterrupted) == losses(parts)
    assert len(losses(parts)) == metrics["optimizer_steps"] > 4
    for name in ("train_loss", "val_loss", "tokens_seen"):
        assert metrics[name] == expected[name], name


def test_fewer_gpus_than_planned_train_the_same_batches(make, monkeypatch, capsys):
    run = make("one", sft={"gradient_accumulation_steps": 3})
    monkeypatch.setattr(launch, "run_training", lambda *arguments: {"status": "finished"})
    launch_training(run, TrainingConfig.of_run(run).model_copy(update={"num_gpus": 2}))
    config = TrainingConfig.of_run(run)
    assert config.num_gpus == 1
    assert config.sft["gradient_accumulation_steps"] == 6
    assert "the run is planned for 2: training on 1" in capsys.readouterr().out


def test_a_checkpoint_of_two_processes_needs_two_gpus(make):
    run = make("begun")
    fingerprint = {"run": run.id(), "settings": {"processes": 2}, "data": {}, "versions": {}}
    write_json(run / "train/checkpoints/checkpoint-5/progress.json", {})
    seal_checkpoint(run / "train/checkpoints/checkpoint-5", 5, fingerprint)
    with pytest.raises(ValueError, match="the run began on 2 GPUs and can only resume on as many, but this machine"):
        launch_training(run, TrainingConfig.of_run(run).model_copy(update={"num_gpus": 2}))


def test_a_process_that_fails_leaves_its_reason(make):
    run = make("bad", rows=3)
    config = TrainingConfig.of_run(run).model_copy(update={"max_length": 9})
    write_json(run / "train/config.json", config.to_json())
    with pytest.raises(ValueError, match="max_length is 9"):
        train_process(run / "train/config.json")
    assert read_json(run / "train/result.json")["status"] == "failed"


def test_a_launch_that_fails_gives_the_reason_of_its_process(make, monkeypatch):
    run = make("bad", rows=3)

    def launch_processes(module, arguments, processes, **environment):
        assert (module, processes) == ("helpers.training.launch", 2)
        write_json(run / "train/result.json", {"status": "failed", "reason": "ValueError: too long"})
        return 1

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(launch, "launch_processes", launch_processes)
    with pytest.raises(RuntimeError, match="training ended with exit code 1: ValueError: too long"):
        launch_training(run, TrainingConfig.of_run(run).model_copy(update={"num_gpus": 2}))


def test_what_is_loaded_before_is_trained_as_it_is(make):
    apart, together = make("apart"), make("together")
    loaded = dataclasses.replace(load_here(apart, TrainingConfig.of_run(apart)), seconds=7200.0)
    assert loaded.trainer.state.global_step == 0
    assert launch_training(apart, TrainingConfig.of_run(apart), loaded=loaded)["hours"] > 2, "loading counts"
    launch_training(together, TrainingConfig.of_run(together))
    assert losses(apart) == losses(together)


def test_what_was_trained_already_is_loaded_anew(make, monkeypatch):
    run = make("twice")
    loaded = load_here(run, TrainingConfig.of_run(run))
    loaded.trainer.state.global_step = 3
    monkeypatch.setattr(loop, "load_training", lambda run: (_ for _ in ()).throw(KeyError("loaded anew")))
    with pytest.raises(KeyError, match="loaded anew"):
        launch_training(run, TrainingConfig.of_run(run), loaded=loaded)


def test_several_processes_load_their_own(make, monkeypatch):
    run = make("two")
    monkeypatch.setattr(launch, "fit_to_machine", lambda run, config: config)
    assert load_here(run, TrainingConfig.of_run(run).model_copy(update={"num_gpus": 2})) is None
