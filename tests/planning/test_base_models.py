"""Base models side by side, by their tokenizers and config.json alone."""

import json
import os
import subprocess
import sys

import pandas
import pytest
from hub_server import Hub
from model_families import FAMILIES, build_tokenizer
from transformers import AutoTokenizer

from helpers.__main__ import main
from helpers.data.load import load_table
from helpers.language.bengali import split_words
from helpers.models.families import count_parameters, model_shape
from helpers.planning.lengths import CORPORA
from helpers.runs.files import write_json
from helpers.runs.stages import EMBEDDED_CORPUS

ROWS = 2000  # of a corpus
FLAGSHIP = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
SHAPES = {
    "Qwen 3": {
        **{"model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
        "tie_word_embeddings": True,
    },
    "Gemma 3": {  # as published: most of it is left to the library's defaults
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240}
        | {"num_hidden_layers": 34, "sliding_window": 1024},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152},
    },
    "Llama 3 with another vocabulary": {
        **FLAGSHIP,
        "model_type": "llama",
        "num_key_value_heads": 8,
        "vocab_size": 68096,
    },
}


@pytest.fixture(scope="module")
def models(embedded_rows, tmp_path_factory):
    """Returns {family: folder} of tokenizers with the config.json of a large model; there are no weights."""
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    folders = {}
    for name, shape in SHAPES.items():
        folders[name] = tmp_path_factory.mktemp("base") / name.replace(" ", "-")
        build_tokenizer(FAMILIES[name], texts).save_pretrained(folders[name])
        write_json(folders[name] / "config.json", shape)
    (folders["Qwen 3"] / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n", encoding="utf-8")
    return folders


def compare(capsys, folder, *options, preset="kaggle-t4x2", code=0):
    """Returns what `plan --base-model` prints."""
    arguments = ["--preset", preset, "--outputs", str(folder), "--set", f"prepare_data.max_rows={ROWS}"]
    assert main(["plan", *arguments, "--base-model", *map(str, options)]) == code
    return capsys.readouterr()


def test_the_fewest_hours_come_first(models, tmp_path, capsys):
    write_json(tmp_path / "odd" / "config.json", {"model_type": "phi3", "hidden_size": 8})
    AutoTokenizer.from_pretrained(models["Qwen 3"]).save_pretrained(tmp_path / "odd")
    shown = compare(capsys, tmp_path, *models.values(), tmp_path / "odd", "nobody/nothing", "--json").out
    candidates = json.loads(shown)
    hours = [each["hours"] for each in candidates if each["hours"]]
    assert len(hours) == 3
    assert hours == sorted(hours)
    assert [bool(each["problem"]) for each in candidates] == [False] * 3 + [True] * 2
    problems = {each["base_model"].split("/")[-1]: each["problem"] for each in candidates}
    assert "model_type 'phi3'" in problems["odd"]
    assert "could not be loaded" in problems["nothing"]
    own = next(each for each in candidates if each["base_model"] == str(models["Qwen 3"]))
    assert (own["licence"], own["gated"], own["total_parameters"] // 10**7) == ("apache-2.0", "no", 405)


def test_tokens_are_those_of_each_model_on_own_rows(models, tmp_path, capsys):
    own = tmp_path / "own.csv"
    pandas.read_csv(EMBEDDED_CORPUS).head(60).to_csv(own, index=False)
    options = ["--json", "--set", f"prepare_data.dataset={own}", "shared.max_length=250"]
    candidates = json.loads(compare(capsys, tmp_path, *models.values(), *options).out)
    table = load_table(str(own))[0]
    texts = [*table.question, *table.answer]
    for each in candidates:
        tokenizer = AutoTokenizer.from_pretrained(each["base_model"])
        tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        assert each["tokens_per_character"] == pytest.approx(tokens / sum(map(len, texts)))
        assert each["tokens_per_word"] == pytest.approx(tokens / sum(len(split_words(text)) for text in texts))
        assert 0 < each["rows_over_length"] < 60
        assert "own.csv" in each["lengths_from"]


def test_published_lengths_are_told_for_another_tokenizer(models, tmp_path, capsys):
    first = json.loads(compare(capsys, tmp_path, *models.values(), "--json").out)[0]
    known = next(corpus for corpus in CORPORA if "tokens_per_character" in corpus)
    share = first["tokens_per_character"] / known["tokens_per_character"]
    assert f"text times {share:.2f}, by the embedded corpus" in first["lengths_from"]
    llama = 218 - known["template"]
    rows = ROWS * 0.8  # of the training part
    assert first["tokens_per_epoch"] == pytest.approx(rows * (known["template"] + 1.3 * llama * share), rel=0.2)


def test_a_model_of_the_hub_needs_no_weights(models, tmp_path):
    files = {file.name: file.read_bytes() for file in models["Qwen 3"].iterdir()} | {"model.safetensors": b"0" * 1000}
    with Hub({"someone/model-4B": files}) as hub:
        command = [sys.executable, "-m", "helpers", "plan", "--preset", "kaggle-t4x2", "--outputs", str(tmp_path)]
        variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [*command, "--set", f"prepare_data.max_rows={ROWS}", "--base-model", "someone/model-4B", "--json"],
            env=variables,
            capture_output=True,
            text=True,
        )
        asked = hub.downloads()
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)
    assert only["hours"] > 0.1
    assert only["problem"] == ""
    assert any(path.endswith("config.json") for path in asked)
    assert not any(path.endswith(".safetensors") for path in asked)


def test_the_table_has_a_line_per_model(models, tmp_path, capsys):
    lines = compare(capsys, tmp_path, *models.values()).out.splitlines()
    assert lines[0].startswith("base model")
    assert all(any(str(folder) in line for line in lines[1:4]) for folder in models.values())
    assert lines[4].startswith("lengths: published lengths")


def test_models_are_compared_in_one_preset(models, tmp_path, capsys):
    arguments = ["plan", "--preset", "colab-t4", "kaggle-t4x2", "--outputs", str(tmp_path), "--base-model", "a/b"]
    assert main(arguments) == 2
    assert "--base-model compares models for one preset at a time" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "billions"), [("Qwen 3", 4.02), ("Gemma 3", 3.88)])
def test_parameters_are_those_published_for_the_shape(models, name, billions):
    assert count_parameters(model_shape(str(models[name])), {})["base"] / 1e9 == pytest.approx(billions, abs=0.005)
