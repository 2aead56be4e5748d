"""The resolved configuration of a training."""

import importlib.util

import pytest
from configs import make_config

from helpers.runs.files import write_json
from helpers.runs.record import Run
from helpers.training.config import config_warnings, resolve_config


def test_dropout_with_unsloth_warns_that_it_is_slow():
    assert "fast kernels off" in config_warnings(make_config(backend="unsloth", lora={"lora_dropout": 0.05}))[0]


@pytest.mark.parametrize(("backend", "lora"), [("peft", {"lora_dropout": 0.05}), ("unsloth", {})])
def test_other_configurations_have_no_warning(backend, lora):
    assert config_warnings(make_config(backend=backend, lora=lora)) == []


@pytest.fixture
def prepared(tmp_path):
    """Returns a function that writes what 02_train reads of a run, with settings of `sft`, and returns the run."""

    def call(**sft):
        config = make_config()
        parameters = {**config.to_json(), "sft": {**config.sft, **sft}, "base_model": "someone/Llama-3.2-1B"}
        stages = {"train": {"parameters": parameters}, "prepare_data": {"parameters": {"max_length": 512}}}
        write_json(tmp_path / "run.json", {"stages": stages})
        write_json(tmp_path / "data/metrics.json", {"embedded_model": "tiny-1"})
        return Run(tmp_path)

    return call


def test_what_the_data_decide_is_in_the_configuration(prepared):
    config = resolve_config(prepared())
    assert config.max_length == 512
    assert config.embedded_model == "tiny-1"


def test_a_missing_tracker_stops_before_a_model_is_loaded(prepared, monkeypatch):
    run = prepared(report_to="trackio")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="'trackio', which is not installed: pip install trackio"):
        resolve_config(run)
