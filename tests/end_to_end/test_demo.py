"""The demo, run as a user runs it: what it leaves, what it prints, and what a second call does."""

import json
import re
import sqlite3

import pytest

from helpers.data.leaks import count_overlap
from helpers.evaluation.metrics import overlap_sums, score_value
from helpers.runner import select_stages
from helpers.runs.files import read_jsonl
from helpers.runs.settings import resolve_settings
from helpers.runs.stages import MAIN_STAGES, STAGES

SCORES = """perplexity bits_per_char token_accuracy chrf bleu rouge1 rouge2 rougeL distinct1 distinct2 length_ratio
empathy graded unsafe hit_cap echo not_bengali""".split()
KEYS = {  # of metrics.json that others rely on
    "prepare_data": "rows_in rows_out dropped groups train val test overlap tokens",
    "train": "status backend base_model dtype dtype_reason trainable_parameters total_parameters world_size "
    "effective_batch optimizer_steps epochs train_loss val_loss tokens_seen useful_token_fraction tokens_per_second "
    "peak_memory_gib hours sessions",
    "evaluate": "n base tuned delta topics lengths prompts signatures",
    "infer": "n tokens_per_second seconds_per_reply seconds_to_first_word streamed_tokens_per_second",
}
FILES = """run.json data/train.jsonl data/val.jsonl data/test.jsonl data/dropped.csv data/README.md
train/config.json train/log.jsonl
train/adapter/adapter_model.safetensors train/adapter/adapter_config.json evaluate/base.jsonl evaluate/tuned.jsonl
evaluate/prompts.jsonl evaluate/scores.csv evaluate/human_eval.csv infer/replies.jsonl report/index.html
report/training_loss.png report/eval_results.png""".split()


def test_the_demo_leaves_every_file(demo):
    assert not [name for name in FILES if not (demo.run / name).is_file()]
    for name, _ in (STAGES[stage] for stage in MAIN_STAGES):
        assert (demo.run / "notebooks" / f"{name}.ipynb").is_file()
        assert (demo.run / "html" / f"{name}.html").is_file()
    assert list((demo.run / "train/checkpoints").glob("checkpoint-*/adapter_model.safetensors"))


@pytest.mark.parametrize("stage", KEYS)
def test_the_demos_metrics_have_every_key(demo, stage):
    missing = set(KEYS[stage].split()) - set(demo.run.metrics(stage))
    assert not missing, f"metrics.json of {stage} lacks {missing}: a key keeps its name across versions"


def test_the_demos_record_tells_every_stage(demo):
    record = demo.run.record()
    assert record.preset == "demo"
    assert list(record.stages) == list(MAIN_STAGES)
    for stage in record.stages.values():
        assert stage.status == "finished"
        assert stage.ended >= stage.started
        assert stage.versions["trl"]


def test_the_demos_record_holds_the_command_that_made_it(demo):
    assert f"python -m helpers run --preset demo --outputs {demo.outputs}" in demo.run.record().commands


def test_no_question_stands_on_two_sides_of_the_split(demo):
    metrics = demo.run.metrics("prepare_data")
    parts = {part: read_jsonl(demo.run / f"data/{part}.jsonl") for part in ("train", "val", "test")}
    assert count_overlap(parts) == 0
    assert metrics["overlap"] == 0
    groups = [{row["group"] for row in rows} for rows in parts.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)), "a group is on two sides"
    assert {part: len(rows) for part, rows in parts.items()} == {part: metrics[part] for part in parts}


def test_the_tuned_model_beats_the_base_on_held_out_rows(demo):
    metrics = demo.run.metrics("evaluate")
    assert metrics["n"] == demo.run.metrics("prepare_data")["test"]
    assert metrics["tuned"]["perplexity"]["value"] < metrics["base"]["perplexity"]["value"]
    assert metrics["delta"]["perplexity"]["high"] < 0


@pytest.mark.parametrize("side", ["base", "tuned", "delta"])
def test_every_score_has_its_interval(demo, side):
    scores = demo.run.metrics("evaluate")[side]
    assert set(scores) == set(SCORES)
    for score in scores.values():
        assert set(score) >= {"value", "low", "high", "floor", "better", "n", "groups"}
        assert score["groups"] < score["n"], "rows of one group are taken for independent"


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_floor_is_what_answers_to_other_questions_score(demo, side):
    """Each reply against every reference of another group: their mean is what the draws come to."""
    rows, metrics = read_jsonl(demo.run / f"evaluate/{side}.jsonl"), demo.run.metrics("evaluate")
    group_of = {row["id"]: row["group"] for row in read_jsonl(demo.run / "data/test.jsonl")}
    pairs = [(own, other) for own in rows for other in rows if group_of[own["id"]] != group_of[other["id"]]]
    assert len(rows) < len(pairs) < len(rows) ** 2 - len(rows), "no group has two rows: plant one"
    sums = overlap_sums([own["reply"] for own, _ in pairs], [other["reference"] for _, other in pairs])
    for name in sorted(set(sums) - {"bleu"}):  # whose smoothing depends on how many rows there are
        score = metrics[side][name]
        expected = score_value(name, sums[name].sum(axis=0))
        assert score["floor"] == pytest.approx(expected, abs=max(2 * score["floor_spread"], 0.01)), name


def test_the_fixed_prompts_are_scored_by_category(demo):
    prompts = demo.run.metrics("evaluate")["prompts"]
    assert prompts["n"] == 60
    assert len(prompts["categories"]) == 10


def test_both_models_answer_the_same_rows(demo):
    base, tuned = (read_jsonl(demo.run / f"evaluate/{side}.jsonl") for side in ("base", "tuned"))
    assert [row["id"] for row in base] == [row["id"] for row in tuned]
    for row in base + tuned:
        assert set(row) == {"id", "topic", "prompt", "reference", "reply", "new_tokens", "hit_cap"}
        assert not row["reply"].startswith(row["prompt"])
        assert "<|" not in row["reply"]
    assert any(re.search(r"[\u0980-\u09ff]", row["reply"]) for row in tuned)


def test_both_models_write_their_own_fixed_replies(demo):
    replies = read_jsonl(demo.run / "infer/replies.jsonl")
    assert len(replies) > 5
    same = [row["prompt"] for row in replies if row["base"] == row["tuned"]]
    assert not same, "both columns are one model's: is the adapter on for both?"


def test_the_experiments_log_holds_the_run(demo):
    with sqlite3.connect(demo.outputs / "experiments.db") as database:
        (model, lora, train_loss, scores) = database.execute(
            "SELECT model_name, lora_config, train_loss, metrics FROM LLAMAExperiments"
        ).fetchone()
    assert model == "embedded"
    assert json.loads(lora)["r"] == 16
    assert train_loss == demo.run.metrics("train")["train_loss"]
    assert json.loads(scores)["tuned"] == demo.run.metrics("evaluate")["tuned"]


def test_the_replies_log_holds_every_reply(demo):
    with sqlite3.connect(demo.outputs / "experiments.db") as database:
        logged = database.execute("SELECT input_text, response_text FROM GeneratedResponses ORDER BY id").fetchall()
    evaluated = read_jsonl(demo.run / "evaluate/tuned.jsonl")
    inferred = read_jsonl(demo.run / "infer/replies.jsonl")
    replies = [(row["prompt"], row["reply"]) for row in evaluated]
    assert logged == replies + [(row["prompt"], row["tuned"]) for row in inferred]
    assert [row["turn"] for row in inferred[-3:]] == [1, 2, 3]


def test_the_report_shows_the_runs_own_numbers(demo):
    page = (demo.run / "report/index.html").read_text(encoding="utf-8")
    metrics = demo.run.metrics("evaluate")
    for side in ("base", "tuned"):
        assert f"{metrics[side]['perplexity']['value']:.2f}" in page
    drawn = {path.stem for path in (demo.run / "report").glob("*.svg")}
    assert drawn >= {"training_loss", "eval_results", "sessions"}
    assert page.count("data:image/svg+xml;base64,") == len(drawn)
    for row in read_jsonl(demo.run / "evaluate/tuned.jsonl")[:6]:
        assert row["prompt"].split("'")[0] in page


def test_the_report_loads_nothing(demo):
    page = (demo.run / "report/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)


def test_the_rendered_notebooks_load_nothing(demo):
    for page in (demo.run / "html").glob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)\s*=\s*["'](?:https?:)?//[^"']*""", html)
        assert not loaded, page.name


def test_the_rendered_notebooks_hide_the_setup(demo):
    for page in (demo.run / "html").glob("*.html"):
        assert "set_up" not in page.read_text(encoding="utf-8"), page.name


def test_the_terminal_shows_the_stages_with_their_steps(demo):
    for stage in MAIN_STAGES:
        assert f"[demo] {stage}  finished in" in demo.first.stdout
    assert re.search(r"train  step \d+/\d+ ", demo.first.stderr)


def test_a_second_run_does_nothing(demo, suite):
    before = {path: path.stat().st_mtime_ns for path in demo.run.folder.rglob("*") if path.is_file()}
    again = suite("--preset", "demo", "--outputs", demo.outputs)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert again.seconds < 10
    assert before == {path: path.stat().st_mtime_ns for path in demo.run.folder.rglob("*") if path.is_file()}


def test_other_settings_for_a_finished_run_are_refused(demo, suite):
    before = (demo.run / "run.json").read_bytes()
    refused = suite("--preset", "demo", "--outputs", demo.outputs, "--set", "train.learning_rate=1e-3", "infer.seed=1")
    assert refused.returncode == 2
    assert "train.learning_rate was 0.003, now 0.001" in refused.stderr
    assert "--force" in refused.stderr
    assert (demo.run / "run.json").read_bytes() == before


def test_changed_inputs_rerun_the_stages_that_read_them(demo):
    settings = resolve_settings("demo", "demo", str(demo.outputs), [], False)
    assert set(select_stages(settings, list(MAIN_STAGES), False).values()) == {""}
    test_rows = demo.run / "data/test.jsonl"
    content = test_rows.read_bytes()
    try:
        test_rows.write_bytes(content + b"\n")
        reasons = select_stages(settings, list(MAIN_STAGES), False)
    finally:
        test_rows.write_bytes(content)
    assert reasons == {
        "prepare_data": "",
        "train": "",
        "evaluate": "its inputs changed: data/test.jsonl",
        "infer": "",
        "report": "an earlier stage runs again",
    }
