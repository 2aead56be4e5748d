"""Replies: greedy whatever a model's file asks for, the same in every batch and over several processes."""

import math
import shutil
import subprocess
import sys
import time

import pytest

from helpers import chat, env, generate, metrics, model, plan


@pytest.fixture(scope="module")
def tuned(demo):
    """Returns the demo's model with its adapter, its tokenizer and 24 conversations."""
    config = env.read_json(demo.run / "train/config.json")
    base = str(demo.run / "data/model")
    rows = env.read_jsonl(demo.run / "data/test.jsonl")[:24]
    both = model.load_for_inference(base, demo.run / "train/adapter", False, "float32")
    assert config["base_model"] == "embedded"
    return both, model.load_tokenizer(base), [row["messages"][:-1] for row in rows]


def told(found):
    return [one["reply"] for one in found]


def test_batch_size_and_order_change_no_reply(tuned):
    together = told(generate.replies(*tuned, 48, 24))
    both, tokenizer, asked = tuned
    assert len(set(together)) > 12
    assert told(generate.replies(both, tokenizer, asked[::-1], 48, 5))[::-1] == together
    assert told(generate.replies(both, tokenizer, asked[:6], 48, 1)) == together[:6]


def test_a_batch_that_does_not_fit_the_memory_is_halved(tuned, monkeypatch, capsys):
    import torch

    both, tokenizer, asked = tuned
    whole, real, sizes = told(generate.replies(both, tokenizer, asked[:9], 24, 9)), both.generate, []

    def small(input_ids, **others):
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(input_ids=input_ids, **others)

    monkeypatch.setattr(both, "generate", small)
    assert told(generate.replies(both, tokenizer, asked[:9], 24, 9)) == whole
    assert sizes == [9, 4, 2, 2, 5, 2, 3] and "9 rows do not fit the memory: 4 at a time" in capsys.readouterr().out
    monkeypatch.setattr(both, "generate", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        generate.replies(both, tokenizer, asked[:1], 24, 1)


def test_a_batch_holds_so_many_tokens_and_no_more(tuned, monkeypatch):
    both, tokenizer, asked = tuned
    sizes, real = [], both.generate
    monkeypatch.setattr(plan, "HELD", 600)
    monkeypatch.setattr(both, "generate", lambda **given: sizes.append(given["input_ids"].shape) or real(**given))
    generate.replies(both, tokenizer, asked, 24, 24)
    assert len(sizes) > 3 and all(rows == 1 or rows * (length + 24) <= 600 for rows, length in sizes)


def test_greedy_stays_greedy_whatever_the_model_s_own_file_asks_for(base, tokenizer, tmp_path, make, capsys):
    """Llama 3.1's generation_config.json asks for sampling; the library fills what is not given from it."""
    from transformers import AutoModelForCausalLM

    from helpers import train

    run = make("plain", sft={"max_steps": 1})
    train.run_training(run)
    wild = tmp_path / "wild"
    shutil.copytree(base, wild)
    own = {"do_sample": True, "temperature": 1.9, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    env.write_json(wild / "generation_config.json", {**own, "eos_token_id": tokenizer.eos_token_id})
    assert AutoModelForCausalLM.from_pretrained(wild).generation_config.do_sample is True
    asked = [[{"role": "user", "content": text}] for text in ("মন খারাপ।", "চাকরিটা চলে গেছে।")]
    capsys.readouterr()
    found = [
        told(
            generate.replies(
                model.load_for_inference(str(folder), run / "train/adapter", False, "float32"), tokenizer, asked, 24, 2
            )
        )
        for folder in (base, wild, wild)
    ]
    assert found[0] == found[1] == found[2]
    assert "repetition_penalty 1.3, no_repeat_ngram_size 2" in capsys.readouterr().out


def test_two_processes_evaluate_as_one_does_and_go_on_after_a_kill(demo, tmp_path):
    run = tmp_path / "demo"
    for name in ("data", "train"):
        shutil.copytree(demo.run / name, run / name, ignore=shutil.ignore_patterns("checkpoints"))
    names = ("batch_size", "temperature", "top_p", "seed", "session", "num_gpus", "max_rows", "max_prompts")
    settings = env.read_json(demo.run / "run.json")["stages"]["evaluate"]["parameters"]
    settings = {name: settings[name] for name in names} | {"max_new_tokens": 16, "max_prompts": 6, "batch_size": 4}
    one = generate.evaluation(run, settings)
    work = run / "evaluate/work"
    assert {len(one[side]["prompts"]) for side in one} == {6}
    first = work / "base_replies-0.jsonl"
    lines = first.read_text("utf-8").splitlines(keepends=True)
    for journal in work.glob("base_*.jsonl"):
        journal.unlink()
    first.write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")  # killed in its third batch
    two = generate.evaluation(run, {**settings, "num_gpus": 2})
    assert told(two["base"]["replies"]) == told(one["base"]["replies"])
    assert two["base"]["likelihood"] == one["base"]["likelihood"] and two["tuned"] == one["tuned"]
    done = [entry["items"] for path in sorted(work.glob("base_replies-*.jsonl")) for entry in env.read_journal(path)]
    assert sorted(sum(done, [])) == list(range(len(one["base"]["replies"]))), "a row is lost or done twice"
    assert (work / "base_replies-1.jsonl").is_file(), "the second process did nothing"


@pytest.mark.slow
def test_a_process_that_fails_or_pauses_is_told_with_what_it_said(demo, tmp_path):
    run = tmp_path / "demo"
    for name in ("data", "train"):
        shutil.copytree(demo.run / name, run / name, ignore=shutil.ignore_patterns("checkpoints"))
    settings = {"max_rows": 4, "max_prompts": 1, "batch_size": 4, "max_new_tokens": 4, "temperature": 0.0, "top_p": 1.0}
    settings |= {"seed": 1, "session": {"hours": 0.0}, "num_gpus": 2}
    (run / "stop").touch()
    with pytest.raises(env.Paused, match="stop was asked for"):
        generate.evaluation(run, settings)
    (run / "stop").unlink()
    (run / "train/adapter/adapter_model.safetensors").write_bytes(b"no adapter")
    with pytest.raises(RuntimeError, match=r"(?s)of 2 ended with exit code 1.*safetensors"):
        generate.evaluation(run, settings)


def test_a_process_ends_when_its_parent_is_killed():
    code = "import os, threading, time\nfrom helpers import generate\nprint(os.getpid(), flush=True)\n"
    code += "threading.Thread(target=generate.end_with, args=(os.getppid(),), daemon=True).start()\ntime.sleep(60)"
    outer = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]])\ntime.sleep(60)"
    began = time.monotonic()
    parent = subprocess.Popen([sys.executable, "-c", outer, code], stdout=subprocess.PIPE, text=True)
    assert int(parent.stdout.readline()) != parent.pid
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == "" and time.monotonic() - began < 30, "the pipe closes when the child has ended"


def test_the_perplexity_is_lm_evaluation_harness_s(tuned, demo):
    from lm_eval.models.huggingface import HFLM

    both, tokenizer, _ = tuned
    rows = env.read_jsonl(demo.run / "data/test.jsonl")
    ours = model.likelihood(both, tokenizer, rows, 8)
    requests = []
    for row in rows:
        example = chat.encode(tokenizer, row)
        at = example["labels"].index(next(label for label in example["labels"] if label != chat.IGNORED))
        assert chat.IGNORED not in example["labels"][at:]
        requests.append((("", ""), example["input_ids"][:at], example["input_ids"][at:]))
    theirs = HFLM(pretrained=both, tokenizer=tokenizer, batch_size=8)._loglikelihood_tokens(requests, disable_tqdm=True)
    tokens = sum(one["tokens"] for one in ours)
    assert tokens == sum(len(answer) for _, _, answer in requests)
    for mine, (loglikelihood, _) in zip(ours, theirs):
        assert mine["nll"] == pytest.approx(-loglikelihood, rel=1e-4)
    found = metrics.statistics([], ours)
    perplexity = metrics.compare(found, found, {}, 2, 0)["tuned"]["perplexity"]["value"]
    their_perplexity = math.exp(-sum(loglikelihood for loglikelihood, _ in theirs) / tokens)
    assert perplexity == pytest.approx(their_perplexity, rel=1e-4)
    written = env.read_json(demo.run / "evaluate/metrics.json")["tuned"]["perplexity"]["value"]
    assert perplexity == pytest.approx(written, rel=1e-6)
