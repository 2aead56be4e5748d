"""What a plan says of base models whose activations exceed float16, on GPUs without bfloat16."""

import json
import re

import pytest
from model_families import FAMILIES, build_tokenizer

from helpers.__main__ import main
from helpers.kaggle.job import make_job
from helpers.models.families import linear_layers, model_shape
from helpers.planning import checks, plan, precision
from helpers.planning.config import configure_training
from helpers.planning.memory import estimate_memory
from helpers.planning.plan import plan_preset, plan_run, plan_table
from helpers.planning.precision import float32_operations, has_bfloat16, needs_float32
from helpers.platforms.errors import Refused
from helpers.platforms.machine import Gpu
from helpers.runs.files import write_json
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings

T4, A100 = Gpu("Tesla T4", "7.5"), Gpu("NVIDIA A100-SXM4-40GB", "8.0")
COMMON = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8}
COMMON |= {"num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "tie_word_embeddings": True}
MODELS = {"Gemma 3": "gemma3_text", "Gemma 2": "gemma2", "Llama 3 with another vocabulary": "llama"}
PEFT = "train.backend=peft"
REASON = r"activations of gemma2 exceed float16's 65,504.*Unsloth does not keep them in float32.*train\.backend=peft"


@pytest.fixture(scope="module")
def models(embedded_rows, tmp_path_factory):
    """Returns {model_type: folder} of tokenizers with the config.json of a large model, all of the same shape."""
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    folders = {}
    for name, kind in MODELS.items():
        folders[kind] = tmp_path_factory.mktemp("base") / kind
        build_tokenizer(FAMILIES[name], texts).save_pretrained(folders[kind])
        write_json(folders[kind] / "config.json", {"model_type": kind, **COMMON})
    return folders


@pytest.fixture
def here(monkeypatch):
    """Returns a function that makes the GPUs of this machine these."""

    def call(*gpus):
        monkeypatch.setattr(precision, "list_gpus", lambda: [*gpus])
        monkeypatch.setattr(checks, "list_gpus", lambda: [*gpus])

    return call


@pytest.fixture
def plan_flagship(models, tmp_path):
    """Returns a function that plans the flagship with another base model, for a GPU of 40 GiB."""

    def call(kind, *sets, gpu=""):
        sets = [f"shared.base_model={models[kind]}", "prepare_data.max_rows=2000", *sets]
        settings = resolve_settings("kaggle-t4x2", "r", str(tmp_path), sets, tiny=False)
        return plan_preset(settings, Run(tmp_path / "r"), 40.0, gpu=gpu)

    return call


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [
        ([], "", False),
        ([T4], "", False),
        ([A100], "", True),
        ([A100, T4], "", False),
        ([T4], A100.name, True),
        ([A100], T4.name, False),
        ([Gpu("some GPU", "")], "", False),
        ([], "NVIDIA A40", True),
        ([], "Tesla P100-PCIE-16GB", False),
    ],
)
def test_a_gpu_has_bfloat16_from_capability_8(here, gpus, name, expected):
    here(*gpus)
    assert has_bfloat16(name) is expected


@pytest.mark.parametrize(
    ("kind", "sets", "gpu", "expected"),
    [
        ("gemma3_text", [], T4.name, True),
        ("gemma3_text", [], A100.name, False),
        ("gemma3_text", ["train.sft.fp16=true"], A100.name, True),
        ("llama", ["train.sft.fp16=true"], T4.name, False),
    ],
)
def test_float32_is_for_what_exceeds_float16(models, kind, sets, gpu, expected):
    train = resolve_settings("kaggle-t4x2", "r", "o", [f"shared.base_model={models[kind]}", *sets], False)["train"]
    assert needs_float32(configure_training(train), model_shape(str(models[kind])), gpu) is expected


@pytest.mark.parametrize("backend", ["unsloth", "peft"])
def test_a_plan_says_what_float32_costs(plan_flagship, here, backend):
    here(T4)
    sets = [f"train.backend={backend}", "train.max_tokens=1024"]
    gemma, llama = plan_flagship("gemma3_text", *sets), plan_flagship("llama", *sets)
    assert "in float32, twice the bytes: activations of gemma3_text exceed float16's 65,504" in gemma.activations
    assert ("attention and the adapter;" in gemma.activations) is (backend == "peft")
    assert plan_table(gemma)["activations"] == gemma.activations
    assert "activations" not in plan_table(llama)
    assert gemma.peak_memory_gib > llama.peak_memory_gib + 1
    assert 1.5 < gemma.hours["train"] / llama.hours["train"] < 2.5
    assert plan_flagship("gemma3_text", *sets, gpu=A100.name).hours == llama.hours
    assert plan_flagship("gemma3_text", *sets, gpu=A100.name).activations == ""


def test_activations_in_float32_take_twice_the_bytes(models):
    sets = [f"shared.base_model={models['gemma3_text']}"]
    config = configure_training(resolve_settings("kaggle-t4x2", "r", "o", sets, False)["train"])
    shape = model_shape(str(models["gemma3_text"]))
    layers, key = shape["num_hidden_layers"], linear_layers(shape)["k_proj"][1]
    heads = 3 * (8 * 256 + key)  # queries and keys before their norm as well, what attention gives, values
    kept = layers * (4 * 2560 + heads + 2 * 10240) + 4 * 2560 + 3 * 10240  # numbers per token, of all layers
    whole = config.model_copy(update={"max_tokens": 4096})
    of = {float32: estimate_memory(whole, shape, {4096}, float32) for float32 in (False, True)}
    scores = 4 * 8 * layers * 4096**2  # of one row, which Unsloth keeps then
    more = 4096 * 2 * kept + scores
    assert of[True].activations - of[False].activations == pytest.approx(more / 2**30, rel=0.01)
    by_rows = estimate_memory(whole, shape, {4096}, True, 8 * 512**2)
    assert of[True].activations - by_rows.activations == pytest.approx(scores * 7 / 8 / 2**30)
    assert of[True].weights == of[False].weights


def test_products_in_float32_are_those_of_attention_and_adapter(models):
    sets = [f"shared.base_model={models['gemma3_text']}", "train.sft.fp16=true"]
    train = resolve_settings("kaggle-t4x2", "r", "o", sets, False)["train"]
    shape = model_shape(str(models["gemma3_text"]))
    slow = [
        float32_operations(configure_training({**train, "backend": name}), shape, "") for name in ("unsloth", "peft")
    ]
    attention = 34 * 2 * 2 * 256 * (8 * 256)  # scores and what they weigh, of 256 tokens
    adapter = 2 * 34 * 16 * (4 * 2560 + 2 * 2048 + 2 * 1024 + 3 * (2560 + 10240))
    assert slow == pytest.approx([8 * (attention + adapter)] * 2)  # PEFT answers, whatever trained


def test_a_plan_of_what_unsloth_leaves_in_float16_is_refused(models, here, tmp_path, capsys):
    here()
    options = ["--preset", "kaggle-t4x2", "--outputs", str(tmp_path), "--set", f"shared.base_model={models['gemma2']}"]
    assert main(["plan", *options]) == 2
    assert re.search(REASON, capsys.readouterr().err)


def test_kaggle_is_not_given_what_unsloth_leaves_in_float16(here, models, tmp_path):
    here(A100)
    with pytest.raises(Refused, match=REASON):
        make_job("kaggle-t4x2", "r", str(tmp_path), [f"shared.base_model={models['gemma2']}"], tiny=False)


def test_a_promise_on_a_cpu_does_not_speak_of_float16(models, here, tmp_path):
    here()
    sets = [f"shared.base_model={models['gemma2']}", "shared.session.total_hours=90", "train.max_tokens=512"]
    settings = resolve_settings("kaggle-t4x2", "r", str(tmp_path), sets, tiny=False)
    assert checks.note_promise(settings, Run(tmp_path / "r")).startswith("Promised to end inside 90 hours")


def test_a_plan_says_what_activations_in_float32_mean(plan_flagship, here):
    here(T4)
    assert "exceed" in plan_flagship("gemma2", PEFT, "train.max_tokens=512").activations
    assert plan_flagship("gemma2", gpu=A100.name).activations == ""


def test_on_a_cpu_unsloth_trains_it_in_float32(models, here, monkeypatch, tmp_path):
    settings = resolve_settings("kaggle-t4x2", "r", str(tmp_path), [f"shared.base_model={models['gemma2']}"], True)
    run, config = Run(tmp_path / "r"), configure_training(settings["train"])
    tokens = {"quantiles": [[0, 30], [1, 60]]}
    write_json(run / "data/metrics.json", {"train": 10, "val": 2, "test": 2, "tokens": tokens})
    monkeypatch.setattr(plan, "check_memory", lambda *_: 1.0)
    gpus: list[float] = []
    monkeypatch.setattr(plan, "gpu_memory", lambda: gpus)
    here()
    plan_run(run, config)
    gpus.append(14.56)
    with pytest.raises(ValueError, match=REASON):
        plan_run(run, config)


def test_a_comparison_gives_the_reason_in_its_row(models, here, tmp_path, capsys):
    here()
    options = ["--preset", "kaggle-t4x2", "--outputs", str(tmp_path), "--set", "prepare_data.max_rows=2000"]
    assert main(["plan", *options, "--base-model", *map(str, models.values()), "--json"]) == 0
    rows = {each["base_model"].split("/")[-1]: each for each in json.loads(capsys.readouterr().out)}
    assert rows["gemma3_text"]["hours"] > rows["llama"]["hours"] > 0
    assert rows["gemma2"]["hours"] is None
    assert "Unsloth does not keep them in float32. Expected a GPU with bfloat16" in rows["gemma2"]["problem"]


def test_a_run_is_refused_before_it_starts(models, here, monkeypatch, tmp_path):
    monkeypatch.setattr(checks.probe, "run_probe", lambda questions: {})
    monkeypatch.setattr(checks, "platform", lambda: "kaggle")
    settings = {
        kind: resolve_settings("kaggle-t4x2", "r", str(tmp_path), [f"shared.base_model={folder}"], tiny=False)
        for kind, folder in models.items()
    }
    here(T4, T4)
    with pytest.raises(Refused, match=REASON):
        checks.check_machine(["train"], settings["gemma2"], Run(tmp_path / "r"))
    for kind in ("gemma3_text", "llama"):
        checks.check_machine(["train"], settings[kind], Run(tmp_path / "r"))
    here(A100, A100)
    checks.check_machine(["train"], settings["gemma2"], Run(tmp_path / "r"))


def test_a_search_with_it_is_refused_before_it_starts(models, here, monkeypatch, tmp_path):
    monkeypatch.setattr(checks.probe, "run_probe", lambda questions: {})
    here(T4, T4)
    sets = [f"shared.base_model={models['llama']}", f"tune.space.base_model=[{models['llama']},{models['gemma2']}]"]
    settings = resolve_settings("kaggle-t4x2", "r", str(tmp_path), sets, tiny=False)
    with pytest.raises(Refused, match=REASON):
        checks.check_machine(["tune"], settings, Run(tmp_path / "r"))
