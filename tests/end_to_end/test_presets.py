"""Presets, run as a user runs them: several in one call, both backends, a failing stage, every preset with --tiny."""

import re

import pytest

from helpers.__main__ import main
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import NOTEBOOKS
from helpers.runs.stages import EMBEDDED_CORPUS

PRESETS = sorted(path.stem for path in (NOTEBOOKS / "presets").glob("*.yaml"))


TWO_PRESETS = ("--preset", "kaggle-t4x2", "ref-e-wikitext-1b", "--tiny")


@pytest.fixture(scope="module")
def two_presets(suite, tmp_path_factory):
    """The data of two presets, prepared in one call: the outputs folder, and what the command returned."""
    outputs = tmp_path_factory.mktemp("both")
    return outputs, suite(*TWO_PRESETS, "--outputs", outputs, "--stages", "prepare_data")


@pytest.mark.slow
def test_two_presets_in_one_call_end_with_a_summary(two_presets):
    _, done = two_presets
    assert done.returncode == 0, done.output
    assert re.search(r"finished +[\d:]+ +kaggle-t4x2\nfinished +[\d:]+ +ref-e-wikitext-1b\n", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["kaggle-t4x2", "ref-e-wikitext-1b"])
def test_each_of_two_presets_has_a_run_of_its_own(two_presets, preset):
    outputs, _ = two_presets
    assert Run(outputs / f"{preset}-tiny").stage("prepare_data").status == "finished"


@pytest.mark.slow
def test_tiny_keeps_a_presets_own_data_format(two_presets):
    outputs, _ = two_presets
    assert Run(outputs / "ref-e-wikitext-1b-tiny").metrics("prepare_data")["format"] == "text"


@pytest.fixture(scope="module")
def trained_presets(two_presets, suite):
    """The outputs folder of two presets trained in one call."""
    outputs, _ = two_presets
    sets = ["--set", "train.sft.logging_steps=1"]
    done = suite(*TWO_PRESETS, "--outputs", outputs, "--stages", "prepare_data,train", *sets)
    assert done.returncode == 0, done.output
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["kaggle-t4x2", "ref-e-wikitext-1b"])
def test_each_of_two_presets_is_trained(trained_presets, preset):
    assert Run(trained_presets / f"{preset}-tiny").metrics("train")["status"] == "finished"


@pytest.fixture(scope="module")
def two_backends(trained_presets, suite):
    """The same preset trained by both backends: {backend: run}."""
    outputs = trained_presets
    arguments = ["--preset", "kaggle-t4x2", "--tiny", "--outputs", outputs, "--run-name", "with-peft"]
    sets = ["train.backend=peft", "train.sft.logging_steps=1"]
    done = suite(*arguments, "--stages", "prepare_data,train", "--set", *sets)
    assert done.returncode == 0, done.output
    return {"unsloth": Run(outputs / "kaggle-t4x2-tiny"), "peft": Run(outputs / "with-peft")}


@pytest.mark.slow
def test_both_backends_start_at_the_same_loss(two_backends):
    losses = {backend: read_jsonl(run / "train/log.jsonl")[0]["loss"] for backend, run in two_backends.items()}
    assert losses["unsloth"] == pytest.approx(losses["peft"], rel=0.01)
    hashes = [run.metrics("prepare_data")["sha256"] for run in two_backends.values()]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["unsloth", "peft"])
def test_either_backends_adapter_loads_in_plain_peft(two_backends, backend):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run = two_backends[backend]
    assert run.metrics("train")["backend"] == backend
    weights = load_file(run / "train/adapter/adapter_model.safetensors")
    trained = [value for name, value in weights.items() if "lora_B" in name]
    assert len(trained) == 4 * 7
    assert all(float(value.abs().sum()) > 0 for value in trained)
    base = AutoModelForCausalLM.from_pretrained(run / "data/model")
    network = PeftModel.from_pretrained(base, run / "train/adapter")
    tokens = torch.arange(20)[None]  # (rows, tokens)
    with torch.no_grad():
        logits = network(input_ids=tokens).logits
        with network.disable_adapter():
            assert not torch.equal(logits, network(input_ids=tokens).logits), "the adapter changes nothing"


@pytest.fixture(scope="module")
def failed_run(suite, demo, tmp_path_factory):
    """A run on an own corpus whose first stage has failed: its folder, what the command returned, and the call, whose
    cause to fail is gone. Its embedded model is the demo's, which is made by now."""
    outputs = tmp_path_factory.mktemp("failed")
    corpus = outputs / "columns.csv"
    corpus.write_text("first,second\n1,2\n", encoding="utf-8")  # what the stage alone can tell
    sets = ["--set", f"prepare_data.dataset={corpus}"]
    call = ["--preset", "demo", "--tiny", "--outputs", outputs, *sets, "--stages", "prepare_data"]
    failed = suite(*call)
    corpus.write_bytes(EMBEDDED_CORPUS.read_bytes())
    return Run(outputs / "demo-tiny"), failed, call


def test_a_failed_stage_exits_one_with_a_clear_error(failed_run):
    _, failed, _ = failed_run
    assert failed.returncode == 1
    assert "error: prepare_data: ValueError" in failed.stderr
    assert "'columns.csv' has the columns ['first', 'second']" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_failed_stages_notebook_is_rendered(failed_run):
    run, _, _ = failed_run
    assert "columns.csv" in (run / "html/01_prepare_data.html").read_text(encoding="utf-8")
    assert run.stage("prepare_data").status == "failed"
    assert not run.has_metrics("prepare_data")


def test_a_failed_runs_page_says_how_to_continue(failed_run):
    run, _, _ = failed_run
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "prepare_data: failed (ValueError" in page
    assert "run the same command again" in page


def test_a_failed_run_continues_once_its_cause_is_gone(failed_run, suite):
    run, _, call = failed_run
    done = suite(*call)
    assert done.returncode == 0, done.output
    assert main(["report", str(run)]) == 0
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "prepare_data: failed" not in page
    assert "train: not begun" in page
    assert "Cleaning" in page


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_tiny_on_a_cpu(preset, suite, tmp_path):
    done = suite("--preset", preset, "--tiny", "--outputs", tmp_path)
    assert done.returncode == 0, done.output
    run = Run(tmp_path / f"{preset}-tiny")
    assert run.metrics("train")["optimizer_steps"] == 4
    assert (run / "report/index.html").is_file()
