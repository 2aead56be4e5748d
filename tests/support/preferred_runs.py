"""Runs with a preferred model, as the stage prefer leaves them, made without that stage."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from helpers.evaluation import evaluate, metrics, resampling
from helpers.evaluation.answers import Answers, EvaluationSettings
from helpers.evaluation.evaluate import answer_held_out, compare_prompts, select_held_out, write_rating_sheet
from helpers.evaluation.preferred import compare_preferred
from helpers.preference.power import describe_power
from helpers.runs.files import read_json, read_jsonl, write_json

SIDES = ("base", "tuned", "preferred")
FACTS = {
    "status": "finished",
    "method": "dpo",
    "train": 24,
    "val": 8,
    "used_test_ids": [],
    "sources": {"ratings": {"read": 30, "kept": 24, "dropped": 6}},
    "power": describe_power(30, 8, 0.25),
    "held_out": {"n": 8, "accuracy": {"value": 0.625, "low": 0.375, "high": 0.875}},
}


def write_preferred(run, scale=0.8, **facts):
    """Writes a run's prefer/: the tuned adapter with its changes to the base model scaled, and metrics.json."""
    shutil.copytree(run / "train/adapter", run / "prefer/adapter", dirs_exist_ok=True)
    weights = load_file(run / "train/adapter/adapter_model.safetensors")
    scaled = {name: value * (scale if "lora_B" in name else 1) for name, value in weights.items()}
    save_file(scaled, run / "prefer/adapter/adapter_model.safetensors")
    write_json(run / "prefer/metrics.json", FACTS | facts)


def make_reply(text, **facts):
    return {"reply": text, "new_tokens": 9, "hit_cap": False, "seconds": 0.5, "at": "2026-01-01T00:00:00Z", **facts}


def evaluate_three(run, left_out=0, change=lambda reply: f"{reply} {reply}", draws=60):
    """Evaluates a run's base and tuned replies anew, and preferred ones that are a `change` of the tuned ones; ratings
    of the first `left_out` rows were trained on. No model is loaded, floors and p-values are rough."""
    parameters = run.stage("evaluate").parameters | {"bootstrap_draws": draws}
    settings = EvaluationSettings(**parameters)
    held_out = select_held_out(run, settings)
    written = {side: read_jsonl(run / f"evaluate/{side}.jsonl") for side in SIDES[:2]}
    written["preferred"] = [row | {"reply": change(row["reply"])} for row in written["tuned"]]
    prompts = read_jsonl(run / "evaluate/prompts.jsonl")

    def answer(side, place):
        likelihood = {"nll": 40.0 + place, "tokens": 20, "characters": 60, "correct": 4}
        replies = [make_reply(row["reply"]) for row in written[side]]
        asked = [make_reply(row["base" if side == "base" else "tuned"]) for row in prompts]
        drift = [likelihood for _ in replies] if side != "base" else []
        return Answers(
            [likelihood | {"nll": likelihood["nll"] + n} for n in range(len(replies))], replies, asked, drift=drift
        )

    write_json(run / "prefer/metrics.json", FACTS | {"used_test_ids": [row["id"] for row in held_out.rows[:left_out]]})
    answers = {side: answer(side, place) for place, side in enumerate(SIDES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "answer_rows", lambda *_: answers)
        patch.setattr(evaluate, "select_probes", lambda *_: ([], []))
        patch.setattr(metrics, "FLOOR_REFERENCES", (2, 2))  # of 20: seconds
        patch.setattr(resampling, "PERMUTATIONS", 50)
        evaluated = answer_held_out(run, settings, held_out)
        preferred = compare_preferred(run, evaluated, settings)
        compare_prompts(run, evaluated, settings)
        write_rating_sheet(run, evaluated.preferred, 10, settings.seed)
    write_json(run / "evaluate/metrics.json", read_json(run / "evaluate/metrics.json") | preferred)
    return evaluated, preferred
