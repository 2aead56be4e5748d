"""Base models side by side, by their tokenizers and config.json alone."""

import json
import os
import re
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
from helpers.models.chat import encode_row, prepare_tokenizer
from helpers.models.families import count_parameters, model_shape
from helpers.planning.candidates import Candidate, describe_comparison
from helpers.planning.lengths import CORPORA
from helpers.platforms.errors import REFUSED
from helpers.runs.files import read_jsonl, write_json, write_jsonl
from helpers.runs.settings import resolve_settings
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


def ask_hub(address, folder, *options):
    """Returns the finished process of `plan --base-model` with the Hub at an address and an empty cache."""
    command = [sys.executable, "-m", "helpers", "plan", "--preset", "kaggle-t4x2", "--outputs", str(folder)]
    command += ["--set", f"prepare_data.max_rows={ROWS}", "--base-model", *map(str, options)]
    variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(folder / "hf")}
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_the_fewest_hours_come_first(models, tmp_path, capsys):
    write_json(tmp_path / "odd" / "config.json", {"model_type": "phi3", "hidden_size": 8})
    AutoTokenizer.from_pretrained(models["Qwen 3"]).save_pretrained(tmp_path / "odd")
    shown = compare(capsys, tmp_path, *models.values(), tmp_path / "odd", "nobody/nothing", "--json").out
    candidates = json.loads(shown)
    hours = [each["hours"] for each in candidates if each["hours"]]
    assert len(hours) == 3
    assert hours == sorted(hours)
    assert [bool(each["problem"]) for each in candidates] == [False] * 3 + [True] * 2
    smaller = {each["base_model"].split("/")[-1]: each["max_tokens"] for each in candidates}
    assert smaller == {
        "Qwen-3": None,
        "Gemma-3": 1536,
        "Llama-3-with-another-vocabulary": None,
        "odd": None,
        "nothing": None,
    }
    problems = {each["base_model"].split("/")[-1]: each["problem"] for each in candidates}
    assert "model_type 'phi3'" in problems["odd"]
    assert "has to be downloaded, and HF_HUB_OFFLINE is set" in problems["nothing"]
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
    assert f", at {known['tokens_per_character']} tokens per character; scaled by this model's" in first["lengths_from"]
    llama = 218 - known["template"]
    rows = ROWS * 0.8  # of the training part
    assert first["tokens_per_epoch"] == pytest.approx(rows * (known["template"] + 1.3 * llama * share), rel=0.2)


@pytest.fixture
def prepared(embedded_rows, tmp_path):
    """Returns the folder of a run with prepared data: long rows to train on, shorter ones for the rest."""
    rows = sorted(embedded_rows, key=lambda row: -len(str(row["messages"])))
    for part, own in {"train": rows[:40], "val": rows[40:70], "test": rows[70:100]}.items():
        write_jsonl(tmp_path / "run" / f"data/{part}.jsonl", own)
    write_json(tmp_path / "run" / "data" / "metrics.json", {"dataset": "embedded"})
    return tmp_path / "run"


def compare_prepared(folder, model):
    """Returns the exit code of `plan --base-model --json` for a run's prepared data."""
    where = ["--outputs", str(folder.parent), "--run-name", folder.name]
    where += ["--set", "prepare_data.dataset=embedded"]
    return main(["plan", "--preset", "kaggle-t4x2", *where, "--base-model", str(model), "--json"])


def test_prepared_rows_are_counted_by_their_own_part(prepared, models, capsys):
    assert compare_prepared(prepared, models["Qwen 3"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(models["Qwen 3"]))
    counts = [len(encode_row(tokenizer, row)["input_ids"]) for row in read_jsonl(prepared / "data/train.jsonl")]
    longest = resolve_settings("kaggle-t4x2", "x", "o", [], tiny=False)["prepare_data"]["max_length"]
    assert only["tokens_per_epoch"] == sum(count for count in counts if count <= longest)


@pytest.mark.parametrize(("file", "content"), [("val.jsonl", '{"id": '), ("metrics.json", "{}")])
def test_damaged_prepared_data_are_named(prepared, models, capsys, file, content):
    (prepared / "data" / file).write_text(content, encoding="utf-8")
    assert compare_prepared(prepared, models["Qwen 3"]) == REFUSED
    assert str(prepared / "data" / file) in capsys.readouterr().err


def test_of_a_name_that_is_none_no_licence_is_told(tmp_path, capsys):
    (only,) = json.loads(compare(capsys, tmp_path, "nothing", "--json").out)
    assert (only["licence"], only["gated"]) == ("?", "?")
    assert "neither a folder here nor a name of the Hub" in only["problem"]


@pytest.fixture(scope="module")
def on_the_hub(models, tmp_path_factory):
    """Returns what `plan --base-model` says of three models of the Hub, with its address and what was downloaded."""
    files = {file.name: file.read_bytes() for file in models["Qwen 3"].iterdir()} | {"model.safetensors": b"0" * 1000}
    names = ("someone/model-4B", "someone/gated", "someone/missing")
    with Hub(dict.fromkeys(names[:2], files), gated={"someone/gated"}) as hub:
        done = ask_hub(hub.address, tmp_path_factory.mktemp("hub"), *names, "--json")
        asked = hub.downloads()
    assert done.returncode == 0, done.stderr
    return {each["base_model"].split("/")[1]: each for each in json.loads(done.stdout)}, hub.address, asked


def test_a_model_of_the_hub_needs_no_weights(on_the_hub):
    candidates, _, asked = on_the_hub
    assert candidates["model-4B"]["hours"] > 0.1
    assert candidates["model-4B"]["problem"] == ""
    assert any(path.endswith("config.json") for path in asked)
    assert not any(path.endswith(".safetensors") for path in asked)


def test_a_gated_model_is_told_with_the_way_to_its_files(on_the_hub):
    candidates, address, _ = on_the_hub
    assert f"is gated. Accept its terms at {address}/someone/gated" in candidates["gated"]["problem"]
    assert f"is not at {address}, or it is private" in candidates["missing"]["problem"]


def test_the_table_has_a_line_per_model(models, tmp_path, capsys):
    lines = compare(capsys, tmp_path, *models.values()).out.splitlines()
    assert lines[0].startswith("base model")
    assert all(any(str(folder) in line for line in lines[1:4]) for folder in models.values())
    assert re.fullmatch(
        f"{models['Gemma 3']}: micro-batches of 2,048 tokens do not fit a GPU. Planned with train.max_tokens=1536, "
        r"the most that fits: [\d.]+ rows per optimizer step.",
        lines[4],
    )
    assert lines[5].startswith("GiB: the peak per GPU")
    assert lines[6].startswith("lengths: published lengths")
    assert len(lines) == 7


def test_rows_that_do_not_fit_are_told_with_what_does(models, tmp_path, capsys):
    rows = ["train.max_tokens=0", "train.sft.per_device_train_batch_size=16", "train.sft.gradient_checkpointing=false"]
    shown = compare(capsys, tmp_path, models["Qwen 3"], "--json", "--set", *rows).out
    (only,) = json.loads(shown)
    assert (only["max_tokens"], only["too_large"]) == (3456, "16 rows")
    fitting = compare(capsys, tmp_path, models["Qwen 3"], "--json", "--set", *rows[1:], "train.max_tokens=3456").out
    assert json.loads(fitting) == [{**only, "max_tokens": None, "too_large": ""}]


def test_what_promised_hours_cost_each_model_is_told(models, tmp_path, capsys):
    lines = compare(capsys, tmp_path, models["Qwen 3"], "--hours", "0.45").out.splitlines()
    assert lines[2].startswith(f"{models['Qwen 3']}: Promised to end inside 0.45 hours")
    assert re.search(r"Only [\d.]+ of 3 epochs", lines[2])


def test_each_source_of_speed_names_its_models():
    costs = {"peak_memory_gib": 9.0, "hours": 1.0, "sessions": 1, "tokens_per_word": 2.0}
    costs |= {"tokens_per_epoch": 9, "rows_over_length": 0, "lengths_from": "the corpus"}
    speeds = {"a/a": "as measured", "a/b": "by rates", "a/c": "by rates"}
    candidates = [Candidate(name, "mit", "no", speed_from=speed, **costs) for name, speed in speeds.items()]
    assert describe_comparison(candidates).splitlines()[-2:] == [
        "a/a: lengths: the corpus. Speed: as measured.",
        "a/b, a/c: lengths: the corpus. Speed: by rates.",
    ]
    assert describe_comparison(candidates[1:]).splitlines()[-1] == "lengths: the corpus. Speed: by rates."


def test_the_table_fits_a_hundred_and_twenty_columns():
    name = "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"
    costs = {"hours": 10.5, "sessions": 2, "peak_memory_gib": 12.3, "tokens_per_word": 8.25, "rows_over_length": 1234}
    model = Candidate(name, "apache-2.0", "yes", tokens_per_epoch=12_345_678, **costs)
    assert len(describe_comparison([model]).splitlines()[1]) <= 120


QUANTIZED = {**SHAPES["Qwen 3"], "quantization_config": {"quant_method": "awq", "bits": 4}}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("[1]", "expected an object, got [1]"),
        ('{"model_type": "llama", "hidd', "is damaged: Unterminated string"),
        (json.dumps({**SHAPES["Qwen 3"], "num_attention_heads": 0}), "its num_attention_heads is 0"),
        (json.dumps({**SHAPES["Qwen 3"], "vocab_size": "many"}), "Field 'vocab_size' expected int"),
        (json.dumps(QUANTIZED), "its weights are quantized by awq"),
        ('{"model_type": "mistral3"}', "a model of text and more (model_type 'mistral3'), whose text part"),
        ('{"model_type": "qwen3_5"}', "Set shared.base_model to a model of text alone"),
    ],
)
def test_a_model_of_no_use_is_told_beside_the_others(models, tmp_path, capsys, config, reason):
    build_tokenizer(FAMILIES["Qwen 3"], ["ক খ"]).save_pretrained(tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(config, encoding="utf-8")
    good, odd = json.loads(compare(capsys, tmp_path, models["Qwen 3"], tmp_path / "odd", "--json").out)
    assert good["hours"] > 0
    assert reason in odd["problem"]
    assert reason in refuse_run(tmp_path, capsys, f"shared.base_model={tmp_path / 'odd'}")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, capsys):
    write_json(tmp_path / "bare" / "config.json", SHAPES["Qwen 3"])
    (only,) = json.loads(compare(capsys, tmp_path, tmp_path / "bare", "--json").out)
    assert "has no tokenizer" in only["problem"]
    assert "has no tokenizer" in refuse_run(tmp_path, capsys, f"shared.base_model={tmp_path / 'bare'}")


def refuse_run(folder, capsys, *sets):
    """Returns what a run with these settings is refused with, before it starts."""
    assert main(["run", "--preset", "colab-t4", "--outputs", str(folder), "--dry-run", "--set", *sets]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("shape", [{**SHAPES["Qwen 3"], "model_type": "llama"}, SHAPES["Gemma 3"]])
def test_weights_in_4_bits_are_not_asked_for_in_16(tmp_path, capsys, shape):
    build_tokenizer(FAMILIES["Qwen 3"], ["ক খ"]).save_pretrained(tmp_path / "packed")
    stored = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    write_json(tmp_path / "packed" / "config.json", {**shape, **stored})
    reason, base = "stored in 4 bits: PEFT would load them as such", f"shared.base_model={tmp_path / 'packed'}"
    assert reason in refuse_run(tmp_path, capsys, base, "train.load_in_4bit=false")
    options = ["--json", "--set", "train.load_in_4bit=false"]
    assert reason in json.loads(compare(capsys, tmp_path, tmp_path / "packed", *options).out)[0]["problem"]
    assert json.loads(compare(capsys, tmp_path, tmp_path / "packed", "--json").out)[0]["hours"] > 0


def test_an_unusable_chat_template_is_refused_at_once(models, tmp_path, capsys):
    tokenizer = build_tokenizer(FAMILIES["Qwen 3"], ["ক খ"])
    tokenizer.chat_template = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}### assistant\n"
    tokenizer.save_pretrained(tmp_path / "odd")
    write_json(tmp_path / "odd" / "config.json", SHAPES["Qwen 3"])
    reason = refuse_run(tmp_path, capsys, f"shared.base_model={tmp_path / 'odd'}")
    assert "expected one token that ends it" in reason or "does not continue its own prompt" in reason
    (tmp_path / "odd" / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "cannot be used: " in refuse_run(tmp_path, capsys, f"shared.base_model={tmp_path / 'odd'}")
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_a_hub_that_cannot_be_reached_is_told_once(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    lines = compare(capsys, tmp_path, models["Qwen 3"], "a/one", "a/two").out.splitlines()
    assert lines[1].split()[1] != "–"
    assert sum(line.startswith("licence and gate not known: http://127.0.0.1:9 cannot") for line in lines) == 1


def test_every_turn_of_a_conversation_is_counted(models, tmp_path, capsys):
    turns = [{"role": role, "content": "ভালো আছি"} for role in ("user", "assistant") * 2]
    (tmp_path / "own.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 10, encoding="utf-8")
    sets = ["--json", "--set", f"prepare_data.dataset={tmp_path / 'own.jsonl'}"]
    (only,) = json.loads(compare(capsys, tmp_path, models["Qwen 3"], *sets).out)
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(models["Qwen 3"]))
    data = resolve_settings("kaggle-t4x2", "", "outputs", [], False)["prepare_data"]
    row = {"id": "1", "messages": [{"role": "system", "content": data["system_prompt"]}, *turns]}
    assert only["tokens_per_epoch"] == 8 * len(encode_row(tokenizer, row)["input_ids"])


def test_models_are_compared_in_one_preset(models, tmp_path, capsys):
    arguments = ["plan", "--preset", "colab-t4", "kaggle-t4x2", "--outputs", str(tmp_path), "--base-model", "a/b"]
    assert main(arguments) == 2
    assert "--base-model compares models for one preset at a time" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "billions"), [("Qwen 3", 4.02), ("Gemma 3", 3.88)])
def test_parameters_are_those_published_for_the_shape(models, name, billions):
    assert count_parameters(model_shape(str(models[name])), {})["base"] / 1e9 == pytest.approx(billions, abs=0.005)
