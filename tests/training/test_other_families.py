"""Models of other families are trained, answer with their adapter, and are merged: as tiny random models on a CPU."""

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from adapters import adapter_difference
from model_families import FAMILIES, save_family
from multimodal_models import save_gemma3

from helpers.inference.generate import generate_replies
from helpers.inference.loaded_model import LoadedModel
from helpers.inference.turns import open_turn, write_reply
from helpers.models.chat import end_ids
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference, load_tokenizer, tokenizer_digest
from helpers.runs.files import read_json, write_jsonl
from helpers.runs.record import Run
from helpers.sharing.merge import merge_adapter
from helpers.training.loop import run_training

SEES = "Gemma 3 with a vision tower"
BASES = {**FAMILIES, SEES: FAMILIES["Gemma 3"]}
QUICK = ("Qwen 3", "Gemma 2", SEES)  # the others take as long again each
SETTINGS = {"sft": {"optim": "adamw_torch", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}}
STAGES = "prepare_data,train,evaluate,infer,export,report"
SUITE = ("--preset", "demo", "--tiny", "--run-name", "own")


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BASES]
)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, embedded_rows, tmp_path_factory):
    """Returns the folder of a family's tiny model."""
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    folder = tmp_path_factory.mktemp("family") / "model"
    return save_gemma3(texts, folder) if family == SEES else save_family(FAMILIES[family], texts, folder)


@pytest.fixture(scope="module")
def trained(make_in, folder, embedded_rows, tmp_path_factory):
    """Returns a run of a few steps and what it measured."""
    run = make_in(
        tmp_path_factory.mktemp("trained"),
        "own",
        base_model=str(folder),
        learning_rate=0.005,
        num_train_epochs=2.0,
        **SETTINGS,
    )
    write_jsonl(run / "data/test.jsonl", embedded_rows[50:56])
    return run, run_training(run)


def mean_loss(network, tokenizer, rows):
    """Returns the nats per token of the rows' answers."""
    scores = score_likelihood(network, tokenizer, rows)
    return sum(row["nll"] for row in scores) / sum(row["tokens"] for row in scores)


def test_training_inference_merge_compute_alike(family, folder, trained, embedded_rows):
    run, metrics = trained
    tokenizer = load_tokenizer(str(folder))
    network = load_for_inference(str(folder), run / "train/adapter", False, "float32")
    val_loss = mean_loss(network, tokenizer, embedded_rows[40:47])
    assert val_loss == pytest.approx(metrics["val_loss"], rel=1e-4), "inference computes another model than training"
    with network.disable_adapter():
        assert val_loss < mean_loss(network, tokenizer, embedded_rows[40:47]), "training made nothing likelier"
    replies = generate_replies(network, tokenizer, [row["messages"][:-1] for row in embedded_rows[:3]], 8, 3)
    assert all(1 <= reply["new_tokens"] <= 8 for reply in replies)
    if not (folder / "tokenizer.model").is_file():  # of sentencepiece, for llama.cpp's converter
        (folder / "tokenizer.model").write_bytes(b"any")
    facts = merge_adapter(run, str(folder), run / "merged", 4, 1)
    assert facts["perplexity_merged"] == pytest.approx(facts["perplexity_adapter"], rel=1e-3)
    assert (run / "merged/tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()
    # Of a base model, the file names the end of a text alone: by it, the merged model would write without end
    ends = read_json(run / "merged/generation_config.json")["eos_token_id"]
    end = tokenizer.convert_tokens_to_ids(BASES[family].end)
    assert end in (ends if isinstance(ends, list) else [ends])
    merged = load_tokenizer(str(run / "merged"))
    assert (end_ids(merged)[0], merged.chat_template) == (end, tokenizer.chat_template)
    assert tokenizer_digest(merged) == tokenizer_digest(tokenizer)
    added = read_json(run / "merged/tokenizer_config.json")["added_tokens_decoder"]
    assert added[str(end)]["special"], "llama.cpp's converter would take Gemma's marks of turns for text"


def test_the_chat_page_stops_at_the_familys_end(family, trained):
    model = LoadedModel(trained[0])
    letter = model.tokenizer("ক", add_special_tokens=False)["input_ids"][-1]
    end, written = model.tokenizer.convert_tokens_to_ids(BASES[family].end), []

    def write(module, inputs, logits):
        written.append(None)
        forced = torch.zeros_like(logits)
        forced[..., end if len(written) % 4 == 0 else letter] = 1e4
        return forced

    model.network.get_output_embeddings().register_forward_hook(write)
    opened = open_turn([], "মন খারাপ।", "tuned", "bn", True)
    *_, shown = write_reply(model, opened, max_new_tokens=12, temperature=0.0)
    assert (shown[-1].content.replace(" ", ""), shown[-1].writing, len(written)) == ("ককক", False, 4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["peft", "unsloth"])
def test_the_suite_resumes_bit_for_bit_for_a_family(family, folder, backend, suite, tmp_path):
    """From the data to the page, a GGUF file included where LLAMA_CPP names a checkout of llama.cpp.

    The training is then killed after its second step of four, as far as the run's files tell, and resumes.
    """
    has_pieces = BASES[family].kind != "gemma" or find_spec("sentencepiece")  # which its converter needs
    checkout = os.environ.get("LLAMA_CPP", "") if has_pieces else ""
    sets = {
        "shared.base_model": folder,
        "train.backend": backend,
        "train.sft.save_strategy": "steps",
        "train.sft.save_steps": 2,
        "export.forms": json.dumps(["adapter", "merged", *["gguf"] * bool(checkout)]),
        "export.gguf_types": json.dumps(["f16"]),
        "export.llama_cpp": checkout,
    }
    command = [*SUITE, "--outputs", tmp_path, "--set", *(f"{name}={value}" for name, value in sets.items())]
    done = suite(*command, "--stages", STAGES)
    assert done.returncode == 0, done.output
    run = Run(tmp_path / "own")
    assert run.metrics("train")["optimizer_steps"] == 4
    assert run.metrics("train")["backend"] == backend
    assert run.metrics("evaluate")["n"] == 6
    assert (run / "report/index.html").is_file()
    assert (run / "export/merged/config.json").is_file()
    if checkout:
        assert end_in_gguf(run / "export/gguf/own-f16.gguf", checkout) == BASES[family].end

    whole = Run(shutil.copytree(run.folder, tmp_path / "whole"))
    for name in ("adapter", "checkpoints/checkpoint-4"):
        shutil.rmtree(run / "train" / name)
    (run / "train/metrics.json").unlink()
    run.note_stage("train", status="running")
    again = suite(*command, "--stages", "train")
    assert again.returncode == 0, again.output
    assert "resuming from checkpoint-2" in (run / "notebooks/02_train.ipynb").read_text("utf-8")
    assert adapter_difference(whole, run) == 0


def end_in_gguf(file, checkout):
    """Returns the token at which llama.cpp ends a reply, from a GGUF file's own fields."""
    sys.path.insert(0, str(Path(checkout) / "gguf-py"))
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    tokens, end = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.eos_token_id"].contents()
    return tokens[end]
