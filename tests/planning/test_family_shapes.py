"""The benchmark of other families: its shapes, its cases, and what the plan says of them."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.models.families import count_parameters
from helpers.planning.config import configure_training
from helpers.planning.memory import SPARE_GIB, T4_GIB, estimate_memory
from helpers.planning.precision import needs_float32
from helpers.runs.files import write_json
from helpers.runs.settings import resolve_settings

PUBLISHED = {"3B": 3.21e9, "qwen3-4B": 4.02e9, "qwen3-8B": 8.19e9, "gemma3-4B": 3.88e9, "sarvam-1": 2.51e9}
CASES = [f"family-{name}" for name in ("llama-3b", "qwen3-4b", "qwen3-8b", "gemma3-4b", "gemma3-4b-peft", "sarvam-1")]


@pytest.fixture(scope="module")
def train_t4():
    """Returns the benchmark's module."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import train_t4

        yield train_t4


@pytest.mark.parametrize("size", PUBLISHED)
def test_shapes_have_the_published_parameters(train_t4, size):
    shape = train_t4.SHAPES[size]
    counted = count_parameters(shape, {})["base"]
    assert counted == pytest.approx(PUBLISHED[size], rel=0.01)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{"model_type": "llama", **shape}))
    model.tie_weights()
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_has_each_case_fit_a_t4(train_t4, name, tmp_path):
    case = train_t4.CASES[name]
    shape = train_t4.SHAPES[case["size"]]
    write_json(tmp_path / "config.json", {"model_type": "llama", **shape})
    sets = [f"shared.base_model={tmp_path}", f"train.backend={case['backend']}", "train.sft.fp16=true", *case["sets"]]
    config = configure_training(resolve_settings(case["preset"], "r", str(tmp_path), sets, tiny=False)["train"])
    float32 = needs_float32(config, shape)
    assert float32 is name.startswith("family-gemma3")
    assert estimate_memory(config, shape, {config.max_tokens, 2048}, float32).peak < T4_GIB - SPARE_GIB


def test_base_models_are_made_before_gpus_are_held(train_t4, monkeypatch, capsys):
    names = []
    monkeypatch.setattr(train_t4, "case_settings", lambda name, work: names.append(name))
    monkeypatch.setattr(train_t4.stand_in, "hold_to_sms", lambda sms: pytest.fail("MPS was started"))
    monkeypatch.setattr(sys, "argv", ["train_t4.py", *CASES, "--make"])
    train_t4.main()
    assert names == CASES
    monkeypatch.setattr(sys, "argv", ["train_t4.py", "--list"])
    train_t4.main()
    assert set(CASES) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("losses", "peak", "expected"),
    [
        ([12.5, 12.1], 10.5, {"finite": True, "memory_difference": 0.05, "near_the_plan": True}),
        ([12.5, float("nan")], 11.0, {"finite": False, "memory_difference": 0.1, "near_the_plan": False}),
        ([12.5], 9.0, {"finite": True, "memory_difference": -0.1, "near_the_plan": False}),
    ],
)
def test_a_case_says_what_it_has_to_hold(train_t4, losses, peak, expected):
    assert train_t4.judge_family(losses, peak, 10.0) == expected
