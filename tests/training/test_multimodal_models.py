"""Gemma 3 as published from 4B on, with a vision tower: both backends train its text part, to the same adapter."""

import subprocess
import sys

import pytest
from adapters import ADAPTER, adapter_difference
from multimodal_models import save_gemma3
from safetensors.torch import load_file

from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference, load_tokenizer
from helpers.runs.files import read_json, write_json
from helpers.training.loop import run_training

SETTINGS = {"sft": {"optim": "adamw_torch", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}}


@pytest.fixture(scope="module")
def folder(embedded_rows, tmp_path_factory):
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    return save_gemma3(texts, tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture(scope="module")
def trained(make_in, folder, tmp_path_factory):
    """Returns the runs of both backends by name; Unsloth trains in a process of its own."""
    where, runs = tmp_path_factory.mktemp("trained"), {}
    for backend in ("peft", "unsloth"):
        settings = {"base_model": str(folder), "learning_rate": 0.005, **SETTINGS}
        runs[backend] = make_in(where, backend, backend=backend, **settings)
    write_json(runs["peft"] / "train/result.json", run_training(runs["peft"]))
    command = [sys.executable, "-m", "helpers.training.launch", runs["unsloth"] / "train/config.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


def test_both_backends_train_the_same_layers_alike(trained):
    names = load_file(trained["unsloth"] / ADAPTER).keys()
    assert all(name.startswith("base_model.model.model.layers.") for name in names), "of the vision tower?"
    assert adapter_difference(trained["peft"], trained["unsloth"]) < 0.01


@pytest.mark.parametrize("backend", ["peft", "unsloth"])
def test_peft_computes_the_loss_of_the_training(trained, folder, backend, embedded_rows):
    network = load_for_inference(str(folder), trained[backend] / "train/adapter", False, "float32")
    scores = score_likelihood(network, load_tokenizer(str(folder)), embedded_rows[40:47])
    loss = sum(row["nll"] for row in scores) / sum(row["tokens"] for row in scores)
    assert loss == pytest.approx(read_json(trained[backend] / "train/result.json")["val_loss"], rel=1e-5)
