"""Models whose activations exceed float16's 65,504: planted in tiny random models, on a CPU."""

import runpy
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from model_families import FAMILIES, build_model, build_tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.inference.generate import generate_replies
from helpers.models.chat import encode_rows, make_collator
from helpers.models.families import ESTIMATED, OVERFLOWS
from helpers.models.float32_activations import check_unsloth
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_base_model, load_for_inference, load_tokenizer
from helpers.runs.files import read_jsonl, write_jsonl
from helpers.sharing.merge import merge_adapter
from helpers.training import loop
from helpers.training.inputs import read_inputs

LARGEST = torch.finfo(torch.float16).max
OVERFLOWING = ("Gemma 3", "Gemma 2")
PAIR = ("float16", "float32")
CPU = {"": "cpu"}


def plant_large_activations(model):
    """Makes the residual stream, the products of queries and keys, and what goes into the last down_proj larger than
    float16 holds; every weight is one of float16."""
    first, last = model.model.layers
    with torch.no_grad():
        first.post_feedforward_layernorm.weight.fill_(40_000)
        last.input_layernorm.weight.fill_(2000)
        last.pre_feedforward_layernorm.weight.fill_(1000)
        for parameter in model.parameters():
            parameter.copy_(parameter.half())


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Keeps bitsandbytes from its own kernel for CPUs with bfloat16, which takes no layer of 96 inputs."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


@pytest.fixture(scope="module", params=OVERFLOWING)
def folder(request, embedded_rows, tmp_path_factory):
    """Returns the folder of a tiny model with planted activations."""
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    family = FAMILIES[request.param]
    tokenizer, path = build_tokenizer(family, texts), tmp_path_factory.mktemp("large") / "model"
    model = build_model(family, tokenizer)
    plant_large_activations(model)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def load(folder):
    """Returns a function that loads the model by this project's code."""
    return lambda dtype, in_4bit=False: load_base_model(str(folder), in_4bit, dtype, CPU).eval()


@pytest.fixture(scope="module")
def own(folder):
    """Returns the model's tokenizer."""
    return load_tokenizer(str(folder))


@pytest.fixture
def batch(own, embedded_rows):
    """Returns some rows, collated."""
    return make_collator(own)(encode_rows(own, embedded_rows[:3]))


def largest_activations(model, batch):
    """Returns the loss, and the largest value that goes into and comes out of the layers."""
    seen = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, given, output: seen.append(output.abs().max()))
        layer.mlp.down_proj.register_forward_pre_hook(lambda module, given: seen.append(given[0].abs().max()))
    with torch.no_grad():
        return model(**batch).loss, torch.stack(seen).max()


def test_plain_float16_overflows(folder, batch, load):
    exact, largest = largest_activations(load("float32"), batch)
    assert exact.isfinite()
    assert largest > LARGEST, "nothing is planted"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).eval()
    assert not largest_activations(plain, batch)[0].isfinite()
    mixed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.autocast("cpu", torch.float16):
        assert not largest_activations(mixed, batch)[0].isfinite()


@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_in_float32_give_the_exact_loss(load, batch, in_4bit, autocast):
    exact, _ = largest_activations(load("float32", in_4bit), batch)
    model = load("float16", in_4bit)
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        loss, largest = largest_activations(model, batch)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    assert largest > LARGEST
    assert {each.dtype for each in model.parameters() if each.is_floating_point()} == {torch.float16}


def test_embeddings_are_scaled_in_float32(load):
    table = load("float16").get_input_embeddings()
    with torch.no_grad():
        table.weight[0] = 30_000
        rows = table(torch.arange(9))
    assert torch.equal(rows, table.weight[:9].float() * 8), "a large embedding is infinite before its norm"


def train(make, folder, monkeypatch, in_4bit=False, dtype="float16", **changes):
    """Trains a few steps in this dtype and returns the run with its metrics. No CPU has accelerate's fp16, so what that
    does on a GPU is done here: autocast around the model, and the scaler."""
    monkeypatch.setattr(loop, "pick_dtype", lambda forced: (dtype, "the test's"))
    real_arguments, real_build = loop.training_arguments, loop.build_trainer

    def build_trainer(*given):
        built = real_build(*given)
        if dtype == "float16":
            autocast = partial(torch.autocast, "cpu", torch.float16)
            built.accelerator.scaler, built.accelerator.autocast = torch.amp.GradScaler("cpu"), autocast
            built.model.forward = autocast()(built.model.forward)
        return built

    monkeypatch.setattr(
        loop, "training_arguments", lambda run, config, _, kind: real_arguments(run, config, "float32", kind)
    )
    monkeypatch.setattr(loop, "build_trainer", build_trainer)
    sft = {"optim": "adamw_torch", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    own = {"base_model": str(folder), "load_in_4bit": in_4bit, "learning_rate": 0.003, "sft": sft, **changes}
    run = make(dtype, rows=8, **own)
    return run, loop.run_training(run)


@pytest.mark.parametrize("in_4bit", [False, True])
def test_training_in_float16_is_that_of_float32(make, folder, in_4bit, monkeypatch):
    with monkeypatch.context() as patch:
        exact, expected = train(make, folder, patch, in_4bit, "float32")
    run, metrics = train(make, folder, monkeypatch, in_4bit)
    assert metrics["val_loss"] == pytest.approx(expected["val_loss"], rel=2e-3)
    losses, norms = ([line[key] for line in log_of(run)] for key in ("loss", "grad_norm"))
    assert losses == pytest.approx([line["loss"] for line in log_of(exact)], rel=2e-3)
    assert all(0 < norm < LARGEST for norm in norms)
    assert "exceed float16's 65,504" in metrics["dtype_reason"]
    assert "exceed" not in expected["dtype_reason"]


def test_what_unsloth_keeps_in_float32_needs_no_scaler(make, folder, monkeypatch):
    real = loop.load_for_training

    def load_for_training(*given):
        model = real(*given)
        model.get_base_model()._unsloth_forced_float32 = True
        return model

    monkeypatch.setattr(loop, "load_for_training", load_for_training)
    run = make("unsloth", rows=2, base_model=str(folder), load_in_4bit=False)
    built = loop.build_trainer(run, read_inputs(run), "float16")
    assert (built.args.fp16, built.accelerator.mixed_precision, built.accelerator.scaler) == (False, "no", None)


def log_of(run):
    """Returns the lines of a training's steps."""
    return [line for line in read_jsonl(run / "train/log.jsonl") if "loss" in line]


def test_without_it_the_training_stops(make, folder, monkeypatch):
    monkeypatch.setattr("helpers.models.float32_activations.OVERFLOWS", {})
    with pytest.raises(FloatingPointError, match="not finite"):
        train(make, folder, monkeypatch)


def test_replies_scores_and_merge_are_finite_too(make, folder, own, embedded_rows, monkeypatch):
    with monkeypatch.context() as patch:
        run, metrics = train(make, folder, patch)
    network, exact = (load_for_inference(str(folder), run / "train/adapter", False, dtype) for dtype in PAIR)
    val = embedded_rows[40:47]
    nll, expected = ([row["nll"] for row in score_likelihood(each, own, val)] for each in (network, exact))
    assert nll == pytest.approx(expected, rel=1e-3)
    assert sum(nll) / sum(row["tokens"] for row in score_likelihood(exact, own, val)) == pytest.approx(
        metrics["val_loss"], rel=1e-3
    )
    prompts = [row["messages"][:-1] for row in val[:2]]
    replies, exact_replies = (generate_replies(each, own, prompts, 8, 2) for each in (network, exact))
    assert [each["reply"] for each in replies] == [each["reply"] for each in exact_replies]
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    stored.save_pretrained(folder.parent / "stored")  # in float16, and so merged
    own.save_pretrained(folder.parent / "stored")
    write_jsonl(run / "data/test.jsonl", embedded_rows[50:56])
    facts = merge_adapter(run, str(folder.parent / "stored"), run / "merged", 4, 1)
    assert facts["dtype"] == "float16"
    assert facts["perplexity_merged"] == pytest.approx(facts["perplexity_adapter"], rel=2e-3)


def test_a_llama_is_left_bit_for_bit_as_it_was(base, tokenizer, embedded_rows):
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).eval()
    rows = make_collator(tokenizer)(encode_rows(tokenizer, embedded_rows[:3]))
    with torch.no_grad():
        logits = [model(**rows).logits for model in (plain, load_base_model(str(base), False, "float16", CPU).eval())]
    assert logits[0].dtype == logits[1].dtype == torch.float16
    assert torch.equal(*logits)


def test_layers_stored_in_4_bits_compute_as_asked_for(folder, load, own, tmp_path):
    options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    stored = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=BitsAndBytesConfig(load_in_4bit=True, **options)
    )
    stored.save_pretrained(tmp_path)  # as Unsloth's copies are
    layer = load_base_model(str(tmp_path), True, "float16", CPU).model.layers[0].mlp.down_proj
    assert (layer.compute_dtype, layer.weight.quant_state.dtype) == (torch.float16, torch.float16)


def test_what_unsloth_runs_in_float32_is_known_here():
    folder = Path(find_spec("unsloth_zoo").origin).parent  # not imported: that would change transformers
    listed = {name.strip(",").replace("_", "") for name in runpy.run_path(folder / "model_lists.py")["FORCE_FLOAT32"]}
    both = {kind for kind in ESTIMATED if kind.replace("_", "") in listed}
    assert both == {kind for kind, overflow in OVERFLOWS.items() if overflow.unsloth}


@pytest.mark.parametrize(("forced", "dtype"), [(True, "float16"), (False, "bfloat16"), (False, "float32")])
def test_what_unsloth_computes_in_float32_is_taken(load, forced, dtype):
    model = load("float32")
    model._unsloth_forced_float32 = forced
    check_unsloth(model, dtype)


def test_what_unsloth_leaves_in_float16_is_refused(load):
    with pytest.raises(ValueError, match=r"65,504 .*does not keep them in float32.*train\.backend=peft"):
        check_unsloth(load("float32"), "float16")
