"""Evaluates at a real Llama shape, with random weights, on GPUs held to a T4's memory; ends with one JSON object.

PYTHONPATH=src python tests/benchmarks/evaluate_t4.py [--memory 14.56] [--size 8B] [--work DIR]

Needs about 20 GB below --work for the weights, which are made once. The model writes no end token, so that every reply
goes to the cap of 256 tokens: the longest an evaluation can take. With two GPUs one and two processes are compared.
"""

import argparse
import gc
import json
import os
import time
from pathlib import Path

import train_t4

from helpers import env, generate, model

SETTINGS = {
    "max_rows": 128,
    "max_prompts": 8,
    "batch_size": 32,
    "max_new_tokens": 128,
    "temperature": 0.0,
    "top_p": 1.0,
    "seed": 3407,
    "num_gpus": 1,
    "session": {"hours": 0.0},
}


def prepare(work: Path, size: str) -> Path:
    """Makes a run with test rows of the corpus's lengths and a random adapter on all projections, and returns it."""
    import torch
    from peft import LoraConfig, get_peft_model

    base, run = train_t4.base_model(work, size, speaks=True), work / "evaluation"
    tokenizer = model.load_tokenizer(str(base))
    train_t4.make_data(run / "data", tokenizer, 400, {"max_length": 2048, "dataset_format": "pairs"})
    rows = env.read_jsonl(run / "data" / "train.jsonl")
    env.write_jsonl(run / "data" / "test.jsonl", [{**row, "topic": "", "group": row["id"]} for row in rows])
    config = {"base_model": str(base), "load_in_4bit": True, "device_map": ""}
    env.write_json(run / "train" / "config.json", config)
    torch.manual_seed(0)
    network = model._load_plain(str(base), True, "float16", {"": 0})
    tuned = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(str(run / "train" / "adapter"))
    del network, tuned
    torch.cuda.empty_cache()
    return run


def batches(run: Path) -> dict:
    """Returns replies a second in batches of 32 and one prompt at a time, how many replies are the same in another
    batch and order, scored rows a second, and the peak memory."""
    import torch

    config = env.read_json(run / "train" / "config.json")
    tokenizer = model.load_tokenizer(config["base_model"])
    both = model.load_for_inference(config["base_model"], run / "train" / "adapter", True, "float16")
    rows = generate.test_rows(run, SETTINGS | {"max_rows": 0})
    rows = sorted(rows, key=lambda row: -len(str(row["messages"])))[:16] + rows[:80]  # the longest are among them
    asked = [row["messages"][:-1] for row in rows]
    torch.cuda.reset_peak_memory_stats()

    def timed(chosen: list, batch: int) -> tuple[float, list[str]]:
        began = time.perf_counter()
        found = generate.replies(both, tokenizer, chosen, 256, batch)
        assert all(one["hit_cap"] for one in found), "a reply ended early: the two rates would not compare"
        return len(chosen) / (time.perf_counter() - began), [one["reply"] for one in found]

    timed(asked[:2], 2)  # warm
    together, replies = timed(asked[16:80], 64)
    alone, first = timed(asked[16:19], 1)
    longest, _ = timed(asked[:16], 64)
    began = time.perf_counter()
    model.likelihood(both, tokenizer, rows, 64, generate.SCORED)
    scored = len(rows) / (time.perf_counter() - began)
    return {
        "replies_per_second": together,
        "one_at_a_time": alone,
        "times": together / alone,
        "longest_prompts_replies_per_second": longest,
        "scored_rows_per_second": scored,
        "peak_memory_gib": torch.cuda.max_memory_reserved() / 2**30,
        "again": alike(replies, timed(asked[16:80], 64)[1]),
        "alone": alike(replies, first),
        "in_batches_of_16_backwards": alike(replies[:32], timed(asked[47:15:-1], 16)[1][::-1]),
    }


def alike(some: list[str], others: list[str]) -> dict:
    """Returns the share of replies that are equal, and the share of a reply's characters before the first difference,
    on average."""
    same = [len(os.path.commonprefix(pair)) / max(1, *map(len, pair)) for pair in zip(some, others)]
    return {"equal": sum(share == 1 for share in same) / len(same), "before_a_difference": sum(same) / len(same)}


def processes(run: Path) -> dict:
    """Returns how much faster two processes are than one, by the slower one's seconds, and how much is equal."""
    found, seconds = {}, {}
    for number in (1, 2):
        work = run / "evaluate" / "work"
        for file in work.glob("*"):
            file.unlink()
        found[number] = generate.evaluation(run, {**SETTINGS, "num_gpus": number})
        each = {}
        for journal in work.glob("*_[rp]*.jsonl"):
            rank = journal.stem.rpartition("-")[2]
            spent = sum(one["seconds"] for entry in env.read_journal(journal) for one in entry["results"])
            each[rank] = each.get(rank, 0) + spent
        seconds[number] = each
    told = {n: [r["reply"] for side in f.values() for kind in ("replies", "prompts") for r in side[kind]]
            for n, f in found.items()}  # fmt: skip
    liked = {n: [r["nll"] for side in f.values() for r in side["likelihood"]] for n, f in found.items()}
    return {
        "seconds": seconds,
        "two_to_one": max(seconds[1].values()) / max(seconds[2].values()),
        "replies": len(told[1]),
        "same_replies": sum(a == b for a, b in zip(told[1], told[2])),
        "same_likelihoods": sum(a == b for a, b in zip(liked[1], liked[2])),
    }


def main() -> None:
    """Runs both, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB a process may use")
    parser.add_argument("--size", default="8B")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    options = parser.parse_args()
    import torch

    run = prepare(options.work, options.size)
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    share = f"per_process_memory_fraction:{options.memory / total:.5f}"
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:True,{share}"  # for the processes started from here
    torch.cuda.set_per_process_memory_fraction(options.memory / total)
    found = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}", **batches(run)}
    gc.collect()  # the model measured above is in cycles: the next would not fit beside it
    torch.cuda.empty_cache()
    if torch.cuda.device_count() > 1:
        found["processes"] = processes(run)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
