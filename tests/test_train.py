"""The training body: steps, recovery, validation, several processes. A small random Llama, plain PEFT, on the CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, Trainer

from helpers import chat, env, model, presets, train

ROOT = Path(__file__).resolve().parents[1]


def adapter(run):
    return load_file(run / "train/adapter/adapter_model.safetensors")


def furthest(a, b):
    """Returns the largest difference between two adapters, of the largest weight in them."""
    a, b = adapter(a), adapter(b)
    assert a.keys() == b.keys()
    moved = max(float(value.abs().max()) for name, value in a.items() if "lora_B" in name)
    assert moved > 0
    return max(float((a[name] - b[name]).abs().max()) for name in a) / moved


def losses(run):
    return [entry["loss"] for entry in env.read_jsonl(run / "train/log.jsonl") if "loss" in entry]


def test_a_step_in_token_budget_pieces_has_the_gradient_of_one_padded_batch(make, tokenizer, embedded_rows):
    whole = make("whole", sft={"per_device_train_batch_size": 24, "gradient_accumulation_steps": 1})
    pieces = make("pieces", max_tokens=400, sft={"gradient_accumulation_steps": 99})
    for run in (whole, pieces):
        metrics = train.run_training(run)
        assert metrics["optimizer_steps"] == 1
    assert metrics["micro_batches"] > 4 and metrics["effective_batch"] == 24
    assert furthest(whole, pieces) < 1e-5
    assert losses(whole)[0] == pytest.approx(losses(pieces)[0], rel=1e-6)
    examples = [chat.encode(tokenizer, row) for row in embedded_rows[:24]]
    learnt = sum(label != chat.IGNORED for example in examples for label in example["labels"])
    blank = LlamaForCausalLM.from_pretrained(env.read_json(whole / "train/config.json")["base_model"])
    scored = model.likelihood(blank, tokenizer, embedded_rows[:24], 5)
    assert losses(whole)[0] == pytest.approx(sum(row["nll"] for row in scored) / learnt, rel=1e-5)


def test_out_of_memory_halves_the_budget_and_changes_no_loss(make, monkeypatch, capsys):
    started_small = make("small", max_tokens=1200, limit=300, sft={"gradient_accumulation_steps": 2})
    train.run_training(started_small)
    real = Trainer.compute_loss

    def full(self, network, inputs, **kwargs):
        if inputs["input_ids"].numel() > 400:
            torch.ones(1, requires_grad=True).sum().backward()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, network, inputs, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", full)
    run = make("full", max_tokens=1200, sft={"gradient_accumulation_steps": 2})
    metrics = train.run_training(run)
    said = capsys.readouterr().out
    assert "out of memory at a micro-batch of" in said and metrics["micro_batch_limit"] <= 600
    assert losses(run) == pytest.approx(losses(started_small), rel=1e-5) and len(losses(run)) > 1
    assert furthest(run, started_small) < 1e-5


def test_a_row_that_does_not_fit_alone_says_what_would(make, monkeypatch):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "compute_loss", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"a row of \d+ tokens does not fit alone.*shared.max_length"):
        train.run_training(make("none", rows=3))


def test_one_step_that_is_not_finite_is_passed_over_and_many_stop_the_run(make, monkeypatch):
    real, calls = Trainer.compute_loss, []

    def broken(self, network, inputs, **kwargs):
        calls.append(1)
        loss = real(self, network, inputs, **kwargs)
        return loss * float("nan") if self.state.global_step in bad else loss

    monkeypatch.setattr(Trainer, "compute_loss", broken)
    rows = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    bad = {3}
    once = make("once", sft=rows)
    assert train.run_training(once)["optimizer_steps"] == 12
    assert all(value.isfinite().all() for value in adapter(once).values())
    bad = set(range(4, 99))
    with pytest.raises(FloatingPointError, match=r"5 steps in a row were not finite, up to step 8"):
        train.run_training(make("often", sft=rows))


def test_validation_is_token_weighted_stops_early_and_keeps_the_best(make, tokenizer, embedded_rows):
    sft = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "eval_strategy": "steps"}
    sft |= {"eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    run = make("early", learning_rate=3000.0, sft={**sft, "early_stopping_patience": 2})
    metrics = train.run_training(run)
    validated = [entry["eval_loss"] for entry in env.read_jsonl(run / "train/log.jsonl") if "eval_loss" in entry]
    assert metrics["optimizer_steps"] < 12, "a learning rate this high makes it worse at once"
    assert metrics["val_loss"] == pytest.approx(min(validated), rel=1e-6)
    config = env.read_json(run / "train/config.json")
    tuned = model.load_for_inference(config["base_model"], run / "train/adapter", False, "float32")
    scored = model.likelihood(tuned, tokenizer, embedded_rows[40:47], 3)
    assert metrics["val_loss"] == pytest.approx(
        sum(row["nll"] for row in scored) / sum(row["tokens"] for row in scored), rel=1e-5
    )
    assert 0 < metrics["val_share_of_time"] < 1


def over_two(run):
    """Trains a run in two processes, as on two machines, and returns its result and what the first said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    machines = [
        subprocess.Popen(
            [*command, "--machine_rank", rank, "-m", "helpers.train", str(run / "train/config.json")],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)[-4000:]
    return env.read_json(run / "train/result.json"), said[0]


@pytest.mark.slow
def test_two_machines_train_the_adapter_of_one_process(make):
    alone = make("alone", rows=23, max_tokens=600, num_train_epochs=2.0, sft={"gradient_accumulation_steps": 4})
    single = train.run_training(alone)
    pair = make("pair", rows=23, max_tokens=600, num_train_epochs=2.0, sft={"gradient_accumulation_steps": 2})
    metrics, said = over_two(pair)
    assert metrics["world_size"] == 2 and "2 processes" in said
    assert furthest(alone, pair) < 1e-5
    assert losses(alone) == pytest.approx(losses(pair), rel=1e-5)
    assert metrics["tokens_seen"] == single["tokens_seen"]


@pytest.mark.slow
def test_two_processes_paused_and_resumed_are_bit_for_bit_the_uninterrupted_ones(make):
    choice = {
        "rows": 23,
        "max_tokens": 300,
        "num_train_epochs": 2.0,
        "sft": {"optim": "adamw_torch", "gradient_accumulation_steps": 1},
    }
    choice["lora"] = {"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"}
    whole, parts = make("whole", **choice), make("parts", **choice)
    expected, _ = over_two(whole)
    config = env.read_json(parts / "train/config.json")
    for step in (1, 2):  # a session without time ends after a step
        env.write_json(parts / "train/config.json", {**config, "session": {**config["session"], "hours": 1e-6}})
        found, _ = over_two(parts)
        assert found["status"] == "paused" and found["step"] == step
    env.write_json(parts / "train/config.json", config)
    metrics, said = over_two(parts)
    assert "going on from checkpoint-2" in said and furthest(whole, parts) == 0
    assert losses(whole) == losses(parts) and len(losses(whole)) == metrics["optimizer_steps"] > 4
    for name in ("train_loss", "val_loss", "tokens_seen"):
        assert metrics[name] == expected[name], name


def test_dropout_with_unsloth_is_said_to_be_slow():
    config = {"backend": "unsloth", "lora": {"lora_dropout": 0.05}}
    assert "fast kernels off" in train.warnings_of(config)[0]
    assert not train.warnings_of({**config, "backend": "peft"}) and not train.warnings_of({**config, "lora": {}})


def test_a_tracker_that_is_not_installed_stops_before_a_model_is_loaded(tmp_path, monkeypatch):
    parameters = {name: value for name, (value, _) in presets.parameters_cell("train").items()}
    parameters["sft"] = {**parameters["sft"], "report_to": "trackio"}
    stages = {"train": {"parameters": parameters}, "prepare_data": {"parameters": {"max_length": 1024}}}
    env.write_json(tmp_path / "run.json", {"stages": stages})
    env.write_json(tmp_path / "data/metrics.json", {"embedded_model": ""})
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="'trackio', which is not installed: pip install trackio"):
        train.resolve(tmp_path)


def test_a_row_longer_than_the_data_s_own_limit_stops_it(make, tokenizer):
    with pytest.raises(
        ValueError, match=r"train.jsonl has a row of \d+ tokens, max_length is 64: an answer would be cut"
    ):
        train.examples(make("long"), tokenizer, 64, 0, 1)
