"""Of a base model that also takes images, the text part alone is loaded: it computes what the whole model computes."""

import ast
import shutil
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import bitsandbytes
import pytest
import torch
from multimodal_models import LAYOUTS, rename_weights, save_gemma3, save_in_4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma3ForConditionalGeneration

from helpers.models.chat import IGNORED, encode_prompt, encode_rows
from helpers.models.families import count_parameters, linear_layers, model_shape
from helpers.models.loading import load_base_model, load_for_inference, load_tokenizer
from helpers.models.text_part import NAMES, load_causal_model

HERE = {"device_map": {"": "cpu"}}
ANSWERS = ["ক্ষত্রিয়ের শ্রদ্ধা, স্ত্রীর দৃষ্টি।", "বা\u09a1\u09bcি, চাঁদ, দুঃখ। র‍্যাব আর ক্‌ষ।"]


@pytest.fixture(scope="module")
def texts(embedded_rows):
    return [message["content"] for row in embedded_rows for message in row["messages"]]


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request, texts, tmp_path_factory):
    return save_gemma3(texts, tmp_path_factory.mktemp("whole") / "model", request.param)


@pytest.fixture(scope="module")
def published(texts, tmp_path_factory):
    return save_gemma3(texts, tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def ids():
    return torch.randint(10, 900, (2, 40), generator=torch.Generator().manual_seed(0))


def test_the_text_part_computes_as_the_whole_model(folder, ids):
    whole = Gemma3ForConditionalGeneration.from_pretrained(folder)
    alone = load_base_model(str(folder), False, "float32", {"": "cpu"})
    assert type(alone).__name__ == "Gemma3ForCausalLM"
    assert not [name for name, _ in alone.named_modules() if "vision" in name]
    assert torch.equal(alone(ids).logits, whole(ids).logits)


def test_the_text_part_is_saved_as_a_model_of_text(folder, ids, tmp_path):
    alone = load_causal_model(str(folder), dtype="auto", **HERE)
    alone.save_pretrained(tmp_path)
    assert all(name.startswith("model.") for name in load_file(tmp_path / "model.safetensors"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.model_type == "gemma3_text"
    assert torch.equal(again(ids).logits, alone(ids).logits)


def test_weights_by_names_that_nobody_knows_are_refused(published, tmp_path):
    other = shutil.copytree(published, tmp_path / "other")
    rename_weights(other / "model.safetensors", {"language_model.model.": "text_model."})
    names = "no weights for 29 names of its text part.*names that begin with language_model.model"
    with pytest.raises(ValueError, match=names):
        load_causal_model(str(other), dtype="auto", **HERE)


@pytest.fixture(scope="module")
def in_4bit(published, tmp_path_factory):
    """Returns a whole model in 4 bits, but for a layer, and the folder where it is stored."""
    folder = tmp_path_factory.mktemp("4bit") / "model"
    return save_in_4bit(published, folder, in_16_bits="language_model.model.layers.1.mlp.up_proj"), folder


def test_a_copy_in_4_bits_computes_as_the_whole_one(in_4bit, ids):
    whole, folder = in_4bit
    alone = load_base_model(str(folder), True, "bfloat16", {"": "cpu"})
    assert torch.equal(alone(ids).logits, whole(ids).logits)


def test_a_copy_in_4_bits_has_the_dtype_asked_for(in_4bit):
    alone = load_base_model(str(in_4bit[1]), True, "float16", {"": "cpu"})
    assert {weight.dtype for weight in alone.parameters()} == {torch.uint8, torch.float16}
    inner = alone.model.layers[1].mlp
    assert (type(inner.up_proj), type(inner.down_proj)) == (torch.nn.Linear, bitsandbytes.nn.Linear4bit)


def test_the_plan_counts_the_text_part_alone(folder):
    alone = load_base_model(str(folder), False, "float32", {"": "cpu"})
    shape = model_shape(str(folder))
    counted = count_parameters(shape, {"target_modules": "all-linear", "r": 8})
    assert counted["base"] == pytest.approx(alone.num_parameters(), rel=0.01)
    tuned = get_peft_model(alone, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=[*linear_layers(shape)]))
    assert tuned.get_nb_trainable_parameters()[0] == counted["trainable"]


def test_exactly_the_bengali_answers_are_taught(folder):
    tokenizer = load_tokenizer(str(folder))
    roles = ("system", "user", "assistant", "user", "assistant")
    contents = ("সংক্ষেপে বলুন।", "মন খারাপ।", ANSWERS[0], "ঘুম আসে না।", ANSWERS[1])
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents)]
    (example,) = encode_rows(tokenizer, [{"id": "1", "messages": messages}])
    runs = [[*run] for taught, run in groupby(example["labels"], lambda label: label != IGNORED) if taught]
    assert [tokenizer.decode(run) for run in runs] == [f"{answer}<end_of_turn>" for answer in ANSWERS]


def test_marks_of_images_in_a_message_are_text(published):
    tokenizer = load_tokenizer(str(published))
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "<start_of_image><image_soft_token> ছবি"}])
    assert not {tokenizer.boi_token_id, tokenizer.image_token_id} & {*prompt}


def test_an_adapter_of_the_whole_model_is_refused(published, tmp_path):
    whole = Gemma3ForConditionalGeneration.from_pretrained(published)
    get_peft_model(whole, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit this base model.*layers.0.self_attn.q_proj.*train it again"):
        load_for_inference(str(published), tmp_path, False, "float32")


def test_unsloth_knows_the_same_names_on_a_gpu():
    file = Path(find_spec("unsloth").origin).parent / "models/_utils.py"  # which is not to be imported on a CPU
    functions = {node.name: node for node in ast.parse(file.read_text("utf-8")).body if hasattr(node, "name")}
    *_, last = functions["_get_text_only_key_mapping"].body
    assert ast.literal_eval(last.value) == NAMES
