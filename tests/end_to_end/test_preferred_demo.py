"""Planted preferences on the demo, from a file to the page: what can be seen in them is trained, and chance is not."""

import json
import random
import shutil

import pytest

from helpers.runs.files import read_json, read_jsonl
from helpers.runs.record import Run

ASKS = " আর কী হয়েছিল, একটু বলবেন?"  # What else happened, would you tell me?
SETTINGS = ["prefer.learning_rate=1e-3", "prefer.trl.gradient_accumulation_steps=4"]  # at twice that rate replies break


def shorten(whole):
    """Returns the first sentence of a reply, and the whole."""
    return whole.split("।")[0].strip() + "।", whole


def ask_back(whole):
    """Returns a reply that asks back, and the same without."""
    return whole + ASKS, whole


def toss(whole):
    """Returns two replies, of which chance prefers one."""
    pair = list(shorten(whole))
    random.Random(whole).shuffle(pair)
    return pair


def write_pairs(file, rows, choose):
    """Writes pairs about the questions of data rows."""
    lines = []
    for row in rows:
        *_, question, answer = [message["content"] for message in row["messages"]]
        if answer.count("।") > 2:
            chosen, rejected = choose(answer)
            lines.append(json.dumps({"prompt": question, "chosen": chosen, "rejected": rejected}, ensure_ascii=False))
    file.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def preferred(demo, suite, tmp_path):
    """Returns a function that trains the demo's model by planted preferences and returns the run."""

    def call(choose, *stages):
        shutil.copytree(demo.run, tmp_path / "demo")
        run = Run(tmp_path / "demo")
        rows = [row for row in read_jsonl(run / "data/train.jsonl") if len(row["messages"]) == 3]
        write_pairs(tmp_path / "pairs.jsonl", rows, choose)
        chosen = [f"prefer.dataset=[{tmp_path / 'pairs.jsonl'}]", *SETTINGS]
        arguments = [part for setting in chosen for part in ("--set", setting)]
        done = suite("--preset", "demo", "--outputs", tmp_path, "--stages", ",".join(("prefer", *stages)), *arguments)
        assert done.returncode == 0, done.output
        return run

    return call


@pytest.mark.slow
@pytest.mark.parametrize("choose", [shorten, ask_back])
def test_a_planted_preference_is_learnt_for_other_prompts(preferred, choose):
    held_out = preferred(choose).metrics("prefer")["held_out"]
    assert held_out["accuracy"]["low"] > 0.5, held_out
    assert held_out["margin"]["low"] > 0, held_out


@pytest.mark.slow
def test_what_chance_prefers_is_not_learnt(preferred):
    held_out = preferred(toss).metrics("prefer")["held_out"]
    assert held_out["accuracy"]["low"] < 0.5 < held_out["accuracy"]["high"], held_out


@pytest.mark.slow
def test_a_preference_for_short_replies_shortens_them(preferred):
    run = preferred(shorten, "evaluate", "report")
    change = run.metrics("evaluate")["preference"]["drift"]["characters"]["change"]
    assert change["high"] < 0, "not clearly shorter"
    page = (run / "report/index.html").read_text("utf-8")
    assert "What the preferences did" in page
    assert len(read_jsonl(run / "evaluate/preferred.jsonl")) == read_json(run / "evaluate/metrics.json")["n"]
