"""What is exported is complete or not there, and what cannot be exported is refused before anything is made."""

import shutil
from types import SimpleNamespace

import pytest
from preferred_runs import write_preferred

from helpers.runs.files import read_json
from helpers.runs.ranges import find_range
from helpers.sharing.export import (
    check_export,
    choose_side,
    export_adapter,
    exported_sizes,
    large_files_folder,
    locate_16bit_base,
    push_to_hub,
)
from helpers.sharing.gguf import QUANTISED

WEIGHTS = "adapter_model.safetensors"
FOUR_BIT = {"base_model": "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"}


@pytest.fixture
def base(run):
    return str(run / "data/model")


def test_the_adapter_is_exported_with_its_card(run):
    facts = export_adapter(run, run / "export/adapter")
    assert "A LoRA adapter" in (run / "export/adapter/README.md").read_text("utf-8")
    assert (run / "export/adapter/adapter_model.safetensors").is_file()
    assert facts["bytes"] > 1000


def test_the_preferred_adapter_is_exported_where_there_is_one(run, tmp_path):
    assert choose_side(run, "") == "tuned"
    with pytest.raises(FileNotFoundError, match="finish prefer first"):
        choose_side(run, "preferred")
    write_preferred(run)
    try:
        assert (choose_side(run, ""), choose_side(run, "tuned")) == ("preferred", "tuned")
        facts = export_adapter(run, tmp_path / "adapter", "preferred")
        exported, tuned = (tmp_path / "adapter" / WEIGHTS).read_bytes(), (run / "train/adapter" / WEIGHTS).read_bytes()
        assert exported == (run / "prefer/adapter" / WEIGHTS).read_bytes() != tuned
        card = (tmp_path / "adapter/README.md").read_text("utf-8")
        assert "trained further by what people prefer (DPO)" in card
        assert "The preferred model itself was not measured." in card
        assert facts["model"] == "preferred"
    finally:
        shutil.rmtree(run / "prefer")


def test_every_gguf_type_that_can_be_made_may_be_asked_for():
    assert find_range("export", "gguf_types")["some_of"] == ["f16", *QUANTISED]


def test_a_disk_that_is_too_small_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(OSError, match=r"0\.0 GB free, merged, gguf need about .* set export\.scratch"):
        check_export(["merged", "gguf"], ["f16"], base, tmp_path / "a")


def test_kaggle_makes_large_files_outside_what_it_keeps(run, monkeypatch):
    monkeypatch.setattr("helpers.sharing.export.platform", lambda: "kaggle")
    assert str(large_files_folder(run, "")) == "/tmp/sahanubhuti-demo"


def test_the_16_bit_base_is_the_one_trained_on(run):
    assert locate_16bit_base(FOUR_BIT, "", run) == "unsloth/Meta-Llama-3.1-8B-Instruct"


def test_another_16_bit_base_can_be_named(run):
    assert locate_16bit_base(FOUR_BIT, "other/base", run) == "other/base"


def test_a_push_without_token_says_so(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        push_to_hub(run / "export/adapter", "someone/model", True)


def test_a_push_without_network_keeps_what_was_built(run, monkeypatch):
    folder = run / "export/adapter"
    export_adapter(run, folder)
    monkeypatch.setenv("HF_TOKEN", "not-a-real-one")
    with pytest.raises(OSError, match=r"could not be pushed to .* What was built stays in") as caught:
        push_to_hub(folder, "someone/model", True)
    assert "not-a-real-one" not in str(caught.value)
    assert (folder / "README.md").is_file()


def test_the_notebook_exports_what_is_asked_for(run, suite):
    arguments = ["--preset", "demo", "--outputs", run.outputs, "--stages", "export"]
    done = suite(*arguments, "--set", "export.forms=[adapter,merged]", "export.check_rows=4")
    assert done.returncode == 0, done.output
    metrics = read_json(run / "export/metrics.json")
    assert set(metrics) == {"forms", "adapter", "merged"}
    assert metrics["merged"]["rows"] == 4


def test_the_sizes_are_of_what_was_written():
    exported = {"adapter": {"bytes": 3}, "gguf": {"f16": {"bytes": 5}, "q4_k_m": {"bytes": 2}}, "hub": "https://x"}
    assert exported_sizes(exported) == {"adapter": 3, "gguf f16": 5, "gguf q4_k_m": 2}
