"""What a run will cost, before it starts."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache

import pytest

from helpers.__main__ import main
from helpers.planning.plan import describe_hours, plan_preset, plan_run, plan_table
from helpers.runs.files import read_json
from helpers.runs.record import Run
from helpers.runs.settings import NOTEBOOKS, resolve_settings
from helpers.training.config import resolve_config

IN_16_BIT = "shared.base_model=unsloth/Meta-Llama-3.1-8B-Instruct"
PRESETS = sorted(path.stem for path in (NOTEBOOKS / "presets").glob("*.yaml"))
KEYS = (
    "preset trainable_parameters total_parameters world_size effective_batch optimizer_steps warmup_share "
    "tokens_per_epoch useful_token_fraction peak_memory_gib hours sessions"
)


@cache
def plan_all():
    """Returns {preset: what `plan --json` prints in a Python without torch}, all in one call, and its seconds."""
    code = "import sys; sys.modules['torch'] = None; from helpers.__main__ import main; raise SystemExit(main())"
    before = os.times().children_user
    command = [sys.executable, "-c", code, "plan", "--preset", *PRESETS, "--outputs", "/nowhere", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(PRESETS, json.loads(done.stdout), strict=True)), os.times().children_user - before


def plan_of(run_folder, *sets, preset="kaggle-t4x2"):
    """Returns the plan of a preset with settings."""
    settings = resolve_settings(preset, "x", str(run_folder), list(sets), tiny=False)
    return plan_preset(settings, Run(run_folder / "x"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_plan_without_torch(preset):
    plans, seconds = plan_all()
    plan = plans[preset]
    assert seconds < 3 * len(PRESETS)  # of the processor; other work on its sibling thread doubles it
    assert plan["preset"] == preset
    assert set(KEYS.split()) <= set(plan)
    parts = [plan["hours"][name] for name in ("train", "validate", "evaluate", "checkpoints")]
    assert sum(parts) == pytest.approx(plan["hours"]["total"], abs=0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_settings_page_has_each_presets_hours(preset):
    page = (NOTEBOOKS.parent / "docs/settings.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^\| `{preset}` \|.*\| ([\d.]+|–) \|[^|]*\|$", page, re.MULTILINE)
    hours = plan_all()[0][preset]["hours"]["total"]
    assert float(shown.replace("–", "0")) == pytest.approx(hours, rel=0.1, abs=0.05)


def test_the_flagship_fits_one_session_on_two_gpus():
    plan = plan_all()[0]["kaggle-t4x2"]
    assert plan["hours"]["total"] < 11
    assert plan["sessions"] == 1
    assert plan["world_size"] == 2
    assert plan["useful_token_fraction"] > 0.97
    assert plan["arithmetic_per_useful_token"] < 0.7


def test_the_plan_of_two_processes_has_twice_the_batch(tmp_path):
    alone, pair = (plan_of(tmp_path, f"train.num_gpus={gpus}") for gpus in (1, 2))
    assert (alone.world_size, pair.world_size) == (1, 2)
    assert pair.effective_batch == pytest.approx(2 * alone.effective_batch, rel=0.02)
    assert pair.optimizer_steps == pytest.approx(alone.optimizer_steps / 2, abs=3)


def test_a_model_split_over_gpus_is_one_process():
    plan = plan_all()[0]["ref-a-bengali-8b-fp16"]
    assert plan["effective_batch"] == 16
    assert plan["world_size"] == 1


def test_a_trained_demo_has_the_parameters_of_its_plan(demo):
    trained = read_json(demo.run / "train/metrics.json")
    for name in ("trainable_parameters", "total_parameters", "effective_batch", "optimizer_steps", "world_size"):
        assert trained["plan"][name] == trained[name], name
    assert trained["plan"]["useful_token_fraction"] == pytest.approx(trained["useful_token_fraction"], abs=0.02)


def test_the_plan_in_metrics_is_the_plan_of_the_run(demo):
    _, plan = plan_run(demo.run, resolve_config(demo.run))
    assert read_json(demo.run / "train/metrics.json")["plan"] == asdict(plan)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.max_tokens=8192"], r"estimated peak 3\d\.\d GiB per GPU .*train.max_tokens=\d+ would fit"),
        (["train.load_in_4bit=false", IN_16_BIT], "A smaller base_model or load_in_4bit would help"),
        (["train.load_in_4bit=false"], "stored in 4 bits: PEFT would load them as such, and Unsloth those of another"),
        (["shared.base_model=someone/Mistral-7B"], "the shape of 'someone/Mistral-7B' is not known"),
        (["prepare_data.dataset=kaggle:a/b"], "nothing is known about 'kaggle:a/b' yet"),
        (["train.lora.target_modules=[query]"], "lora.target_modules names query"),
        (["train.no_such=1"], "train.no_such is not a setting"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused(sets, message, tmp_path, capsys):
    assert main(["plan", "--preset", "kaggle-t4x2", "--outputs", str(tmp_path), "--set", *sets]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_the_setting_that_a_refusal_offers_fits(tmp_path):
    with pytest.raises(ValueError, match=r"train.max_tokens=\d+ would fit") as refusal:
        plan_of(tmp_path, "train.max_tokens=8192")
    offer = re.search(r"train.max_tokens=\d+", str(refusal.value)).group()
    assert plan_of(tmp_path, offer).peak_memory_gib < 14.56


def test_an_evaluation_is_shared_by_the_gpus_that_there_are(tmp_path):
    sets = ("prepare_data.max_rows=2000",)
    single, double = (plan_of(tmp_path, f"evaluate.num_gpus={gpus}", *sets).hours["evaluate"] for gpus in (1, 2))
    assert single == pytest.approx(2 * double, rel=0.02)


def test_validations_and_checkpoints_take_hours_as_often_as_due(tmp_path):
    often, never, best = (
        plan_of(tmp_path, f"train.sft.eval_strategy={evaluate}", f"train.sft.save_strategy={save}", *steps).hours
        for evaluate, save, *steps in (
            ("steps", "steps", "train.sft.eval_steps=10", "train.sft.save_steps=10"),
            ("no", "no"),
            ("steps", "best", "train.sft.eval_steps=10"),
        )
    )
    assert never["validate"] == never["checkpoints"] == 0
    assert often["validate"] > 0
    assert best["checkpoints"] == often["checkpoints"] > 0


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "under 2 seconds"),
        (0.0004, "under 2 seconds"),
        (0.001, "4 seconds"),
        (0.25, "15.0 minutes"),
        (29.312, "29.31 hours"),
    ],
)
def test_a_short_estimate_is_not_0_hours(hours, text):
    assert describe_hours(hours) == text


@pytest.mark.parametrize(("hours", "options", "length"), [(0, [], 12), (2, [], 2), (2, ["--session-hours", "6"], 6)])
def test_sessions_are_as_long_as_the_settings_say(hours, options, length, tmp_path, capsys):
    sets = ["--set", f"shared.session.hours={hours}"]
    assert main(["plan", "--preset", "kaggle-t4x2", "--outputs", str(tmp_path), *sets, *options, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["sessions"] == math.ceil(plan["hours"]["total"] / length)


def test_the_table_has_the_plan_in_words(tmp_path):
    table = plan_table(plan_of(tmp_path))
    assert re.match(r"\d+\.\d\d hours: training ", table["estimated time"])
    assert table["peak memory per GPU"].endswith(" GiB (estimated)")
    assert table["per optimizer step"].startswith("effective batch 2,048 tokens × 4 micro-batches × 2 processes")
    assert plan_table(plan_of(tmp_path, preset="demo"))["peak memory per GPU"].startswith("not estimated")
