"""The whole suite, run as a user runs it: the demo, plain papermill, several presets, both backends, an own file."""

import csv
import json
import random
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from helpers import corpus, env, presets, run

ROOT = Path(__file__).resolve().parents[1]
SCORES = """perplexity bits_per_char token_accuracy chrf bleu rouge1 rouge2 rougeL distinct1 distinct2 length_ratio
empathy graded unsafe hit_cap echo not_bengali""".split()
KEYS = {  # of metrics.json that others rely on
    "data": "rows_in rows_out dropped groups train val test overlap tokens",
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


def metrics(folder, stage):
    return env.read_json(folder / stage / "metrics.json")


def test_the_demo_leaves_every_file_and_key(demo):
    assert not [name for name in FILES if not (demo.run / name).is_file()]
    for stage, keys in KEYS.items():
        missing = set(keys.split()) - set(metrics(demo.run, stage))
        assert not missing, f"{stage}/metrics.json lacks {missing}"
    for name, _ in (env.STAGES[stage] for stage in env.MAIN):
        assert (demo.run / "notebooks" / f"{name}.ipynb").is_file() and (demo.run / "html" / f"{name}.html").is_file()
    record = env.read_json(demo.run / "run.json")
    assert record["preset"] == "demo" and list(record["stages"]) == list(env.MAIN)
    for facts in record["stages"].values():
        assert facts["status"] == "finished" and facts["ended"] >= facts["started"] and facts["versions"]["trl"]
    assert list((demo.run / "train/checkpoints").glob("checkpoint-*/adapter_model.safetensors"))


def test_no_question_stands_on_two_sides_of_the_split(demo):
    parts = {part: env.read_jsonl(demo.run / f"data/{part}.jsonl") for part in ("train", "val", "test")}
    assert corpus.overlap(parts) == 0 == metrics(demo.run, "data")["overlap"]
    groups = [{row["group"] for row in rows} for rows in parts.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert {part: len(rows) for part, rows in parts.items()} == {p: metrics(demo.run, "data")[p] for p in parts}


def test_the_tuned_model_finds_the_held_out_answers_likelier_than_the_base(demo):
    found = metrics(demo.run, "evaluate")
    assert found["n"] == metrics(demo.run, "data")["test"]
    assert found["tuned"]["perplexity"]["value"] < found["base"]["perplexity"]["value"]
    assert found["delta"]["perplexity"]["high"] < 0
    for side in ("base", "tuned", "delta"):
        assert set(found[side]) == set(SCORES)
        for score in found[side].values():
            assert set(score) == {"value", "low", "high", "floor", "better", "n"}
    assert found["prompts"]["n"] == 60 and len(found["prompts"]["categories"]) == 10


def test_both_models_answer_the_same_rows(demo):
    base, tuned = (env.read_jsonl(demo.run / f"evaluate/{side}.jsonl") for side in ("base", "tuned"))
    assert [row["id"] for row in base] == [row["id"] for row in tuned]
    for row in base + tuned:
        assert set(row) == {"id", "topic", "prompt", "reference", "reply", "new_tokens", "hit_cap"}
        assert not row["reply"].startswith(row["prompt"]) and "<|" not in row["reply"]
    assert any(re.search(r"[\u0980-\u09ff]", row["reply"]) for row in tuned)


def test_the_two_logs_hold_the_experiment_and_its_replies(demo):
    with sqlite3.connect(demo.outputs / "experiments.db") as database:
        (model, lora, train_loss, scores) = database.execute(
            "SELECT model_name, lora_config, train_loss, metrics FROM LLAMAExperiments"
        ).fetchone()
        replies = database.execute("SELECT input_text, response_text FROM GeneratedResponses ORDER BY id").fetchall()
    assert model == "embedded" and json.loads(lora)["r"] == 16
    assert train_loss == metrics(demo.run, "train")["train_loss"]
    assert json.loads(scores)["tuned"] == metrics(demo.run, "evaluate")["tuned"]
    tuned = env.read_jsonl(demo.run / "evaluate/tuned.jsonl")
    talked = env.read_jsonl(demo.run / "infer/replies.jsonl")
    told = [(row["prompt"], row["reply"]) for row in tuned] + [(row["prompt"], row["tuned"]) for row in talked]
    assert replies == told and [row["turn"] for row in talked[-3:]] == [1, 2, 3]


def test_the_report_shows_the_runs_own_numbers_and_loads_nothing(demo):
    page = (demo.run / "report/index.html").read_text(encoding="utf-8")
    found = metrics(demo.run, "evaluate")
    for side in ("base", "tuned"):
        assert f"{found[side]['perplexity']['value']:.2f}" in page
    assert page.count("data:image/svg+xml;base64,") == 3
    for row in env.read_jsonl(demo.run / "evaluate/tuned.jsonl")[:6]:
        assert row["prompt"].split("'")[0] in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)


def test_the_rendered_notebooks_load_nothing_and_hide_the_setup(demo):
    for page in (demo.run / "html").glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)\s*=\s*["'](?:https?:)?//[^"']*""", html), (
            page.name
        )
        assert "set_up" not in html


def test_the_terminal_said_the_stages_and_their_steps(demo):
    for stage in env.MAIN:
        assert f"[demo] {stage}  finished in" in demo.first.stdout
    assert re.search(r"train  step \d+/\d+ ", demo.first.stderr)


def test_a_second_run_does_nothing_and_says_so_at_once(demo, suite):
    before = {path: path.stat().st_mtime_ns for path in demo.run.rglob("*") if path.is_file()}
    again = suite("--preset", "demo", "--outputs", demo.outputs)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert again.seconds < 10
    assert before == {path: path.stat().st_mtime_ns for path in demo.run.rglob("*") if path.is_file()}


def test_other_settings_for_a_finished_run_are_refused_by_name(demo, suite):
    before = (demo.run / "run.json").read_bytes()
    refused = suite("--preset", "demo", "--outputs", demo.outputs, "--set", "train.learning_rate=1e-3", "infer.seed=1")
    assert refused.returncode == 2
    assert "train.learning_rate was 0.003, now 0.001" in refused.stderr and "--force" in refused.stderr
    assert (demo.run / "run.json").read_bytes() == before


def test_changed_inputs_run_the_stages_that_read_them_again(demo):
    settings = presets.resolve("demo", "demo", str(demo.outputs), [], False)
    assert set(run.plan(settings, list(env.MAIN), False).values()) == {""}
    test_rows = demo.run / "data/test.jsonl"
    content = test_rows.read_bytes()
    try:
        test_rows.write_bytes(content + b"\n")
        reasons = run.plan(settings, list(env.MAIN), False)
    finally:
        test_rows.write_bytes(content)
    assert reasons == {
        "prepare_data": "",
        "train": "",
        "evaluate": "its inputs changed",
        "infer": "",
        "report": "an earlier stage runs again",
    }


def test_one_stage_can_be_forced_again(demo, suite):
    forced = suite("--preset", "demo", "--outputs", demo.outputs, "--stages", "report", "--force")
    assert forced.returncode == 0 and "report  starts (forced)" in forced.stdout
    assert "evaluate" not in forced.stdout


@pytest.fixture(scope="module")
def both_presets(suite, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("both")
    call = ["--preset", "kaggle-t4x2", "ref-e-wikitext-1b", "--tiny", "--stages", "prepare_data,train"]
    return outputs, suite(*call, "--outputs", outputs, "--set", "train.sft.logging_steps=1")


def test_two_presets_in_one_call_end_with_a_summary(both_presets):
    outputs, done = both_presets
    assert done.returncode == 0, done.said
    assert re.search(r"finished +\d+:\d\d +kaggle-t4x2\nfinished +\d+:\d\d +ref-e-wikitext-1b\n", done.stdout)
    for preset in ("kaggle-t4x2", "ref-e-wikitext-1b"):
        assert metrics(outputs / f"{preset}-tiny", "train")["status"] == "finished"
    assert metrics(outputs / "ref-e-wikitext-1b-tiny", "data")["format"] == "text"


@pytest.mark.slow
def test_both_backends_start_at_the_same_loss_and_their_adapters_load_in_plain_peft(both_presets, suite):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    outputs, _ = both_presets
    arguments = ["--preset", "kaggle-t4x2", "--tiny", "--outputs", outputs, "--run-name", "with-peft"]
    sets = ["train.backend=peft", "train.sft.logging_steps=1"]
    done = suite(*arguments, "--stages", "prepare_data,train", "--set", *sets)
    assert done.returncode == 0, done.said
    first_losses, logits = {}, {}
    for backend, name in (("unsloth", "kaggle-t4x2-tiny"), ("peft", "with-peft")):
        folder = outputs / name
        assert metrics(folder, "train")["backend"] == backend
        first_losses[backend] = env.read_jsonl(folder / "train/log.jsonl")[0]["loss"]
        adapter = folder / "train/adapter"
        moved = [value for key, value in load_file(adapter / "adapter_model.safetensors").items() if "lora_B" in key]
        assert len(moved) == 4 * 7 and all(float(value.abs().sum()) > 0 for value in moved)
        base = AutoModelForCausalLM.from_pretrained(folder / "data/model")
        network = PeftModel.from_pretrained(base, adapter)
        with torch.no_grad():
            logits[backend] = network(input_ids=torch.arange(20)[None]).logits
            with network.disable_adapter():
                assert not torch.equal(logits[backend], network(input_ids=torch.arange(20)[None]).logits)
    assert first_losses["unsloth"] == pytest.approx(first_losses["peft"], rel=0.01)
    data = [metrics(outputs / name, "data")["sha256"] for name in ("kaggle-t4x2-tiny", "with-peft")]
    assert data[0] == data[1]


@pytest.mark.slow
def test_each_notebook_runs_alone_by_plain_papermill_in_order(tmp_path):
    small = {
        "01_prepare_data": ["-p", "max_rows", "64"],
        "02_train": ["-p", "eval_rows", "4", "-y", "sft: {max_steps: 3, gradient_checkpointing: false}"],
        "03_evaluate": ["-p", "max_rows", "4", "-p", "max_new_tokens", "8", "-p", "bootstrap_draws", "50"],
        "04_infer": ["-p", "max_new_tokens", "8", "-y", "prompts: ['আজ মন ভালো নেই।']"],
        "05_report": [],
    }
    for notebook, arguments in small.items():
        command = [Path(sys.executable).with_name("papermill"), f"notebooks/{notebook}.ipynb", tmp_path / "out.ipynb"]
        command += ["-p", "run_name", "alone", "-p", "outputs", tmp_path, *arguments]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Unable to parse" not in done.stderr and "unknown parameter" not in done.stderr
    assert [row["prompt"] for row in env.read_jsonl(tmp_path / "alone/infer/replies.jsonl")] == ["আজ মন ভালো নেই।"]
    stages = env.read_json(tmp_path / "alone/run.json")["stages"]
    assert {stage: facts["status"] for stage, facts in stages.items()} == dict.fromkeys(env.MAIN, "finished")


@pytest.fixture(params=["text", "conversations"])
def other_format(request, tmp_path):
    """A file shaped like FineTome (ShareGPT turns, English, code) or like wikitext (plain lines, many empty)."""
    rng = random.Random(1)
    pool = sorted({word for row in corpus.load("embedded")[0].answer for word in row.split()})

    def said(n):
        return " ".join(rng.sample(pool, n))

    if request.param == "text":
        path = tmp_path / "wiki.parquet"
        lines = [line for n in range(120) for line in ("", f" = Heading {n} = ", f" {said(20)} <unk> , @-@ {said(9)} ")]
        pandas.DataFrame({"text": lines}).to_parquet(path)
        return path, request.param
    path = tmp_path / "chats.jsonl"
    turns = [("human", "gpt"), ("system", "human", "gpt"), ("human", "gpt", "human", "gpt")]
    code = "Use `if a < b and c > d:` in Python, see <script>alert(1)</script>."
    with open(path, "w", encoding="utf-8") as file:
        for n in range(120):
            row = [{"from": role, "value": f"{code} {said(9)}" if role == "gpt" else said(6)} for role in turns[n % 3]]
            file.write(json.dumps({"conversations": row, "source": "x", "score": 5.2}) + "\n")
    return path, request.param


@pytest.mark.slow
def test_other_formats_run_through_all_stages(other_format, suite, tmp_path):
    path, kind = other_format
    sets = [f"prepare_data.dataset={path}", "prepare_data.skip_rules=[not Bengali, markup]"]
    done = suite("--preset", "demo", "--tiny", "--run-name", kind, "--outputs", tmp_path / "out", "--set", *sets)
    assert done.returncode == 0, done.said
    folder = tmp_path / "out" / kind
    assert metrics(folder, "data")["format"] == kind and metrics(folder, "data")["overlap"] == 0
    found = metrics(folder, "evaluate")
    assert found["tuned"]["perplexity"]["value"] > 1
    assert ("chrf" in found["tuned"]) == (kind == "conversations")
    assert len(env.read_jsonl(folder / "infer/replies.jsonl")) == (8 if kind == "conversations" else 5)
    for page in folder.rglob("*.html"):
        assert "<script>alert(1)" not in page.read_text(encoding="utf-8"), page.name
    if kind == "conversations":
        rows = env.read_jsonl(folder / "data/train.jsonl")
        assert {len(row["messages"]) for row in rows} == {3, 5}  # the default system prompt where a row has none
        assert any("a < b" in row["messages"][-1]["content"] for row in rows)


def test_the_same_seed_gives_the_same_files(demo, suite, tmp_path):
    arguments = ["--preset", "demo", "--stages", "prepare_data", "--run-name", "again", "--outputs", tmp_path]
    done = suite(*arguments, "--set", f"shared.base_model={demo.run / 'data/model'}")
    assert done.returncode == 0, done.said
    assert metrics(tmp_path / "again", "data")["sha256"] == metrics(demo.run, "data")["sha256"]


@pytest.fixture
def own_file(tmp_path):
    """A file in the corpus's format and under its name: 2,000 rows, many from few words, some that must go."""
    rng = random.Random(0)
    pool = sorted({word for row in corpus.load("embedded")[0].answer for word in row.split()})
    rows = [["বিষয়", "", " ".join(rng.sample(pool, 9)), " ".join(rng.sample(pool, 15))] for _ in range(1995)]
    rows += [["বিষয়", "", "", "উত্তর আছে, প্রশ্ন নেই।"], rows[0], rows[1]]
    rows += [
        [
            "বিষয়",
            "",
            "<script>alert('প্রশ্ন')</script> বলুন তো কী করি, মনটা আজ একদম ভালো নেই, কারও সঙ্গে কথা বলতেও ইচ্ছে করছে না",
            "=cmd()|'/c calc'!A0 উত্তর এখানে, মন দিয়ে পড়ুন",
        ]
    ]
    rows += [["বিষয়", "", "\u202eউল্টো\u202c প্রশ্ন এখানে", "=cmd() https://example.com " + "দীর্ঘ" * 2000]]
    for number, row in enumerate(rows):
        row[0] = f"বিষয় {number % 40}"
    path = tmp_path / "BengaliEmpatheticConversationsCorpus .csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([corpus.COLUMNS, *rows])
    return path


@pytest.mark.slow
def test_a_users_own_file_runs_through_all_stages(own_file, suite, tmp_path):
    sets = [f"prepare_data.dataset={own_file}", "prepare_data.max_rows=0"]
    done = suite("--preset", "demo", "--tiny", "--run-name", "own", "--outputs", tmp_path / "out", "--set", *sets)
    assert done.returncode == 0, done.said
    found = metrics(tmp_path / "out/own", "data")
    assert found["rows_in"] == 2000 and found["rows_out"] == 1996 == found["train"] + found["val"] + found["test"]
    assert found["dropped"] == {"exact duplicate": 2, "missing side": 1, "url": 1}
    for page in (tmp_path / "out/own").rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<script>alert(" not in html and "\u202e" not in html, page.name
    dropped = list(csv.DictReader(open(tmp_path / "out/own/data/dropped.csv", encoding="utf-8")))
    assert [row["answer"][:7] for row in dropped if row["rule"] == "url"] == ["'=cmd()"]
    for table in (tmp_path / "out/own").rglob("*.csv"):
        with open(table, encoding="utf-8", newline="") as file:
            assert not any(cell[:1] in "=+@" and cell for row in csv.reader(file) for cell in row), table.name


def test_a_failed_stage_gives_its_page_a_clear_error_and_exit_one_and_can_be_mended(suite, tmp_path):
    call = ["--preset", "demo", "--tiny", "--outputs", tmp_path / "out", "--stages", "prepare_data"]
    failed = suite(*call, "--set", f"prepare_data.dataset={tmp_path}/nowhere.csv")
    folder = tmp_path / "out/demo-tiny"
    assert failed.returncode == 1
    assert "error: prepare_data: FileNotFoundError" in failed.stderr and "no such file" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "nowhere.csv" in (folder / "html/01_prepare_data.html").read_text(encoding="utf-8")
    assert env.read_json(folder / "run.json")["stages"]["prepare_data"]["status"] == "failed"
    assert not (folder / "data/metrics.json").exists()
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "prepare_data: failed (FileNotFoundError" in page and "run the same command again" in page
    mended = suite(*call[:-1], "prepare_data,report")
    assert mended.returncode == 0, mended.said
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "prepare_data: failed" not in page and "train: not begun" in page and "Cleaning" in page


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(path.stem for path in (presets.NOTEBOOKS / "presets").glob("*.yaml")))
def test_every_preset_runs_tiny_on_a_cpu(preset, suite, tmp_path):
    done = suite("--preset", preset, "--tiny", "--outputs", tmp_path)
    assert done.returncode == 0, done.said
    trained = metrics(tmp_path / f"{preset}-tiny", "train")
    assert trained["optimizer_steps"] == 4 and (tmp_path / f"{preset}-tiny/report/index.html").is_file()
