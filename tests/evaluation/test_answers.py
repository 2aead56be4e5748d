"""Both models' answers: over several processes, after a kill, and as another library computes them."""

import math
import shutil
import subprocess
import sys
import time

import pytest
from configs import make_promise
from lm_eval.models.huggingface import HFLM

from helpers.evaluation import answers
from helpers.evaluation.answers import (
    EvaluationSettings,
    answer_rows,
    select_fixed_prompts,
    select_test_rows,
    sum_seconds,
)
from helpers.evaluation.comparison import compare_models
from helpers.evaluation.metrics import score_sums
from helpers.inference.generate import generate_replies
from helpers.inference.loaded_model import LoadedModel
from helpers.models.chat import IGNORED, encode_row
from helpers.models.embedded import locate_base_model
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_base_model, load_tokenizer, tokenizer_digest
from helpers.platforms.errors import Paused
from helpers.runs.files import read_journal, read_json, read_jsonl, write_json
from helpers.runs.record import Run

OTHER = {"base": "tuned", "tuned": "base"}


def evaluation_settings(demo, **changes):
    parameters = demo.run.stage("evaluate").parameters
    return EvaluationSettings(
        **parameters | {"max_new_tokens": 16, "max_prompts": 6, "max_probes": 2, "batch_size": 4} | changes
    )


def copy_run(demo, folder):
    """Returns a copy of the demo's run before its evaluation, without checkpoints."""
    for name in ("data", "train"):
        shutil.copytree(demo.run / name, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    return Run(folder)


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    return copy_run(demo, tmp_path_factory.mktemp("answers") / "demo")


@pytest.fixture(scope="module")
def alone(demo, run):
    """Returns the answers that one process computes."""
    return answer_rows(run, evaluation_settings(demo))


@pytest.fixture(scope="module")
def resumed(demo, run, alone):
    """Returns the answers of two processes that resume an evaluation killed in the base model's third batch."""
    work = run / "evaluate/work"
    first = work / "base_replies-0.jsonl"
    lines = first.read_text("utf-8").splitlines(keepends=True)
    for journal in work.glob("base_*.jsonl"):
        journal.unlink()
    first.write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")
    return answer_rows(run, evaluation_settings(demo, num_gpus=2))


def test_both_models_answer_the_fixed_prompts_asked_for(alone):
    assert list(alone) == ["base", "tuned"]
    assert {len(answers.prompts) for answers in alone.values()} == {6}


def test_answers_say_which_tokenizer_counted_their_tokens(run, alone):
    assert {answers.tokenizer for answers in alone.values()} == {
        tokenizer_digest(load_tokenizer(str(run / "data/model")))
    }


@pytest.fixture(scope="module")
def alone_models(demo, run):
    """Returns both models as they are loaded one at a time: the base model never has an adapter."""
    base = locate_base_model(run.training_config()["base_model"], run)
    plain = load_base_model(base, False, "float32", {"": "cpu"}).eval()
    return {"base": plain, "tuned": LoadedModel(run).network}


@pytest.mark.parametrize("kind", ["replies", "prompts"])
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_each_model_answers_as_it_does_alone(demo, run, alone, alone_models, side, kind):
    settings, rows = evaluation_settings(demo), select_test_rows(run, 0, evaluation_settings(demo).seed)
    asked = {
        "replies": [row["messages"][:-1] for row in rows],
        "prompts": [prompt["messages"] for prompt in select_fixed_prompts(rows, settings.max_prompts)],
    }[kind][:6]
    own = generate_replies(alone_models[side], load_tokenizer(alone_models[side].config._name_or_path), asked, 16, 4)
    given = [reply["reply"] for reply in getattr(alone[side], kind)[:6]]
    assert given == [reply["reply"] for reply in own], (
        f"the {side} model's {kind} are not its own: see LoadedModel.side"
    )
    assert given != [reply["reply"] for reply in getattr(alone[OTHER[side]], kind)[:6]], "both models answer alike"


def test_two_processes_resume_to_what_one_computes(alone, resumed):
    replies = [[reply["reply"] for reply in answers["base"].replies] for answers in (alone, resumed)]
    assert replies[0] == replies[1]
    assert resumed["base"].likelihood == alone["base"].likelihood
    assert resumed["tuned"] == alone["tuned"]


def test_the_seconds_are_those_of_all_processes_and_sessions(run, resumed):
    seconds = sum_seconds(run)
    assert set(seconds) >= {"load", "likelihood", "replies", "prompts", "probes", "instructions"}
    journals = [*(run / "evaluate/work").glob("*_replies-*.jsonl")]
    assert len(journals) == 3, "the tuned model's were done before the second process"
    kept = [entry["seconds"] for journal in journals for entry in read_journal(journal)]
    assert seconds["replies"] == pytest.approx(sum(kept))
    replied = [reply["seconds"] for own in resumed.values() for reply in own.replies]
    assert seconds["replies"] == pytest.approx(sum(replied), rel=0.1)
    loads = [len(read_journal(journal)) for journal in (run / "evaluate/work").glob("load-*.jsonl")]
    assert sorted(loads) == [1, 2], "the first process has loaded in two sessions"


def test_a_promised_evaluation_has_its_rows(demo, tmp_path):
    run = Run(tmp_path / "run")
    write_json(run / "run.json", {"stages": {"evaluate": {"parameters": demo.run.stage("evaluate").parameters}}})
    config = demo.run.training_config()
    for promise, rows in ((None, 0), (make_promise(test_rows=4), 4)):
        write_json(run / "train/config.json", config | ({"promise": promise} if promise else {}))
        assert EvaluationSettings.of_run(run).max_rows == rows


def test_two_processes_compute_every_row_once(run, resumed):
    journals = sorted((run / "evaluate/work").glob("base_replies-*.jsonl"))
    items = [item for journal in journals for entry in read_journal(journal) for item in entry["items"]]
    assert sorted(items) == list(range(len(resumed["base"].replies))), "a row is missing, or computed twice"


def test_the_second_process_computes_a_share(run, resumed):
    assert (run / "evaluate/work/base_replies-1.jsonl").is_file()


@pytest.mark.slow
def test_a_share_that_pauses_pauses_the_evaluation(demo, tmp_path):
    run = copy_run(demo, tmp_path / "demo")
    (run / "stop").touch()
    with pytest.raises(Paused, match="stop was asked for"):
        answer_rows(run, evaluation_settings(demo, max_rows=4, max_prompts=1, max_new_tokens=4, num_gpus=2))


@pytest.mark.slow
def test_a_share_without_time_pauses_the_evaluation(demo, tmp_path):
    run, session = copy_run(demo, tmp_path / "demo"), {"hours": 1e-6, "mirror": "", "keep": 2}
    run.open_session("evaluate", None)
    with pytest.raises(Paused, match="the session's time is nearly up"):
        answer_rows(run, evaluation_settings(demo, max_rows=4, max_prompts=1, session=session, num_gpus=2))
    assert "nearly up" in run.sessions("evaluate")[-1].reason


@pytest.mark.slow
def test_a_share_that_fails_is_reported_with_its_error(demo, tmp_path):
    run = copy_run(demo, tmp_path / "demo")
    (run / "train/adapter/adapter_model.safetensors").write_bytes(b"no adapter")
    with pytest.raises(RuntimeError, match=r"(?s)of 2 processes ended with exit code 1.*safetensors"):
        answer_rows(run, evaluation_settings(demo, max_rows=4, max_prompts=1, max_new_tokens=4, num_gpus=2))


LAUNCHER = """
import os, subprocess, sys, time
child = "import threading, time; from helpers.evaluation.answers import end_with; print('up', flush=True);"
child += f"threading.Thread(target=end_with, args=({sys.argv[1]},), daemon=True).start(); time.sleep(60)"
subprocess.run([sys.executable, "-c", child])
"""
NOTEBOOK = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"


def test_a_killed_notebook_leaves_no_process():
    """A notebook starts a launcher, and that the process: the pipe closes when all of them have ended."""
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK, LAUNCHER], stdout=subprocess.PIPE, text=True)
    assert notebook.stdout.readline() == "up\n"
    began = time.monotonic()
    notebook.kill()
    notebook.wait()
    assert notebook.stdout.read() == ""
    assert time.monotonic() - began < 30


def test_one_gpu_answers_what_was_planned_for_two(demo, run, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(answers, "_launch_shares", lambda *_: pytest.fail("two processes were started on one GPU"))
    monkeypatch.setattr(answers, "answer_share", lambda *_, load: load)
    assert answer_rows(run, evaluation_settings(demo, num_gpus=2)) is True
    assert "evaluate.num_gpus is 2, this machine has 1" in capsys.readouterr().out


def test_test_rows_are_picked_by_seed(run):
    ids = [[row["id"] for row in select_test_rows(run, rows, seed)] for rows, seed in ((0, 1), (5, 1), (5, 2))]
    assert ids[0][:5] == ids[1] != ids[2]
    assert ids[1] != [row["id"] for row in read_jsonl(run / "data/test.jsonl")[:5]], "the head of the file"
    assert len(ids[0]) == len(read_jsonl(run / "data/test.jsonl"))


def test_few_prompts_are_spread_over_the_categories(run):
    prompts = select_fixed_prompts(select_test_rows(run, 0, 1), 6)
    assert len({prompt["category"] for prompt in prompts}) == len(prompts) == 6
    assert prompts[0]["messages"][0]["role"] == "system"


def test_plain_texts_get_no_prompts():
    assert select_fixed_prompts([{"id": "a", "text": "মন"}], 0) == []


@pytest.fixture(scope="module")
def likelihoods(demo):
    """Returns our likelihoods of the demo's test rows, and lm-evaluation-harness's of the same."""
    model, rows = LoadedModel(demo.run), read_jsonl(demo.run / "data/test.jsonl")
    requests = []
    for row in rows:
        example = encode_row(model.tokenizer, row)
        start = next(place for place, label in enumerate(example["labels"]) if label != IGNORED)
        assert IGNORED not in example["labels"][start:]
        requests.append((("", ""), example["input_ids"][:start], example["input_ids"][start:]))
    harness = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=8)
    theirs = [likelihood for likelihood, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]
    ours = score_likelihood(model.network, model.tokenizer, rows, 8)
    assert sum(row["tokens"] for row in ours) == sum(len(answer) for _, _, answer in requests)
    return ours, theirs


def test_the_likelihoods_are_lm_evaluation_harnesss(likelihoods):
    for own, theirs in zip(*likelihoods, strict=True):
        assert own["nll"] == pytest.approx(-theirs, rel=1e-4)


def test_the_perplexity_is_lm_evaluation_harnesss(likelihoods, demo):
    ours, theirs = likelihoods
    sums = score_sums([], ours)
    perplexity = compare_models(sums, sums, {}, 2, 0).tuned["perplexity"].value
    assert perplexity == pytest.approx(math.exp(-sum(theirs) / sum(row["tokens"] for row in ours)), rel=1e-4)
    written = read_json(demo.run / "evaluate/metrics.json")["tuned"]["perplexity"]["value"]
    assert perplexity == pytest.approx(written, rel=1e-6)
