"""The benchmark of other families: its shapes, its cases, and what the plan says of them."""

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.models.families import count_parameters
from helpers.planning.config import configure_training
from helpers.planning.memory import SPARE_GIB, T4_GIB, estimate_memory
from helpers.planning.precision import float32_operations, needs_float32
from helpers.planning.speed import estimate_speed, seconds_of
from helpers.runs.files import write_json
from helpers.runs.settings import resolve_settings

RESULTS = (Path(__file__).parents[1] / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
T4 = "Tesla T4"
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


def case_config(train_t4, name, folder):
    """Returns a case's training configuration and the shape of its base model."""
    case = train_t4.CASES[name]
    shape = {"model_type": "llama", **train_t4.SHAPES[case["size"]]}
    write_json(folder / "config.json", shape)
    sets = [f"shared.base_model={folder}", f"train.backend={case['backend']}", "train.sft.fp16=true", *case["sets"]]
    return configure_training(resolve_settings(case["preset"], "r", str(folder), sets, tiny=False)["train"]), shape


@pytest.mark.parametrize("name", CASES)
def test_the_plan_has_each_case_fit_a_t4(train_t4, name, tmp_path):
    config, shape = case_config(train_t4, name, tmp_path)
    float32 = needs_float32(config, shape)
    assert float32 is name.startswith("family-gemma3")
    assert estimate_memory(config, shape, {config.max_tokens, 2048}, float32).peak < T4_GIB - SPARE_GIB


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_near_what_was_measured(train_t4, name, tmp_path):
    row = re.search(rf"^\| `{name}`,.*\|$", RESULTS, re.MULTILINE)
    assert row, "the table of other base models is no longer found in RESULTS.md"
    cells = row[0].strip("| ").replace(",", "").split(" | ")[2:]
    peak, estimated, _, _, scaled, planned, _ = map(float, cells)
    config, shape = case_config(train_t4, name, tmp_path)
    attended = config.max_tokens * 338  # the longest row of the micro-batch that took most with Gemma
    memory = estimate_memory(config, shape, {config.max_tokens}, needs_float32(config, shape), attended).peak
    assert memory == pytest.approx(estimated, abs=0.25)  # the micro-batches were not quite full, or a row was longer
    assert memory == pytest.approx(peak, rel=0.08)
    slow = float32_operations(config, shape, T4)
    speed = estimate_speed(shape, load_in_4bit=True, slow=slow, backend=config.backend)
    per_second = config.max_tokens / seconds_of(speed.training, config.max_tokens)
    assert per_second == pytest.approx(planned, rel=0.06)
    assert per_second == pytest.approx(scaled, rel=0.1)


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
