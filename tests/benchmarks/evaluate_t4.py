"""Evaluates at a real Llama shape, with random weights, on GPUs held to a T4's memory; ends with one JSON object.

PYTHONPATH=src python tests/benchmarks/evaluate_t4.py [--memory 14.56] [--sms 8] [--size 8B] [--work DIR]

Needs about 20 GB below --work for the weights, which are made once. The model writes no end token, so that every reply
goes to the cap of 256 tokens: the longest an evaluation can take. With two GPUs one and two processes are compared;
`--only processes` does that alone. `--only probes` scores the probes, which random weights answer by chance; `--only
kernels` multiplies with one layer at a time. `--sms 8` holds each process to 8 SMs as well (stand_in.py).
"""

import argparse
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import stand_in
import train_t4

from helpers.data.probes import scored_probes
from helpers.evaluation.answers import EvaluationSettings, answer_rows, select_test_rows
from helpers.evaluation.probes import compare_probes, probe_sums
from helpers.inference.generate import generate_replies
from helpers.models.batching import SCORING_TOKEN_BUDGET
from helpers.models.families import SHAPES, linear_layers
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_base_model, load_for_inference, load_tokenizer
from helpers.platforms.rates import timed
from helpers.runs.files import read_journal, read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import default_settings

SETTINGS = default_settings("evaluate") | {
    "max_rows": 60,
    "max_prompts": 4,
    "max_probes": 4,
    "batch_size": 32,
    "max_new_tokens": 128,
    "temperature": 0.0,
    "top_p": 1.0,
    "bootstrap_draws": 0,
    "seed": 3407,
    "num_gpus": 1,
    "session": {"hours": 0.0},
}


def prepare(work: Path, size: str) -> Run:
    """Makes a run with test rows of the corpus's lengths and a random adapter on all projections, and returns it."""
    import torch
    from peft import LoraConfig, get_peft_model

    base, run = train_t4.base_model(work, size, speaks=True, packed=True), Run(work / "evaluation")
    tokenizer = load_tokenizer(str(base))
    train_t4.make_data(run / "data", tokenizer, 400, {"max_length": 2048, "dataset_format": "pairs"})
    rows = read_jsonl(run / "data" / "train.jsonl")
    write_jsonl(run / "data" / "test.jsonl", [{**row, "topic": "", "group": row["id"]} for row in rows])
    config = {"base_model": str(base), "load_in_4bit": True, "device_map": ""}
    write_json(run / "train" / "config.json", config)
    torch.manual_seed(0)
    network = load_base_model(str(base), True, "float16", {"": 0})
    tuned = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(str(run / "train" / "adapter"))
    del network, tuned
    gc.collect()  # it is in cycles: the next model would not fit beside it
    torch.cuda.empty_cache()
    return run


def measure_batches(run: Run) -> dict:
    """Returns replies per second in batches of 32 and one prompt at a time, how many replies are the same in another
    batch and order, scored rows per second, and the peak memory."""
    import torch

    base = run.training_config()["base_model"]
    tokenizer = load_tokenizer(base)
    network = load_for_inference(base, run / "train" / "adapter", True, "float16")
    rows = select_test_rows(run, 0, SETTINGS["seed"])
    rows = sorted(rows, key=lambda row: -len(str(row["messages"])))[:16] + rows[:80]  # the longest are among them
    conversations = [row["messages"][:-1] for row in rows]
    torch.cuda.reset_peak_memory_stats()

    def timed(chosen: list, batch: int) -> tuple[float, list[str]]:
        began = time.perf_counter()
        replies = generate_replies(network, tokenizer, chosen, 256, batch)
        assert all(reply["hit_cap"] for reply in replies), "a reply ended early: the two rates would not compare"
        return len(chosen) / (time.perf_counter() - began), [reply["reply"] for reply in replies]

    timed(conversations[:2], 2)  # warm
    together, replies = timed(conversations[16:80], 64)
    alone, first = timed(conversations[16:19], 1)
    longest, _ = timed(conversations[:16], 64)
    began = time.perf_counter()
    score_likelihood(network, tokenizer, rows, 64, SCORING_TOKEN_BUDGET)
    scored = len(rows) / (time.perf_counter() - began)
    return {
        "replies_per_second": together,
        "one_at_a_time": alone,
        "times": together / alone,
        "longest_prompts_replies_per_second": longest,
        "scored_rows_per_second": scored,
        "peak_memory_gib": torch.cuda.max_memory_reserved() / 2**30,
        "again": compare_texts(replies, timed(conversations[16:80], 64)[1]),
        "alone": compare_texts(replies, first),
        "in_batches_of_16_backwards": compare_texts(replies[:32], timed(conversations[47:15:-1], 16)[1][::-1]),
    }


def measure_probes(run: Run) -> dict:
    """Returns by probe score what random weights reach, with its interval and chance, base and tuned, the seconds that
    all probes took and the peak memory; instructions are not asked, since every reply would go to the cap."""
    import torch

    base, probes = run.training_config()["base_model"], scored_probes([])
    tokenizer, likelihoods = load_tokenizer(base), {}
    network = load_for_inference(base, run / "train" / "adapter", True, "float16")
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for side, context in (("tuned", contextlib.nullcontext()), ("base", network.disable_adapter())):
        with context:
            rows = [probe.row for probe in probes]
            likelihoods[side] = score_likelihood(network, tokenizer, rows, 64, SCORING_TOKEN_BUDGET)
    seconds = time.perf_counter() - began
    sums = {side: probe_sums(probes, own, [], []) for side, own in likelihoods.items()}
    compared = compare_probes(sums, draws=1000, seed=0)
    scores = {
        name: {side: [round(compared[side][name][key], 3) for key in ("value", "low", "high")] for side in sums}
        for name in compared["base"]
    }
    return {"probes": scores, "seconds": seconds, "peak_memory_gib": torch.cuda.max_memory_reserved() / 2**30}


def measure_kernels() -> dict:
    """Returns, for the 4-bit layers of the 8B shape and several numbers of rows: the milliseconds of bitsandbytes'
    fused kernel, which a T4 uses up to 64 rows and more, and of unpacking the weights first; and the distance of
    either result from one in float32, ‖result − exact‖ / ‖exact‖."""
    import torch
    from bitsandbytes import functional, matmul_4bit
    from bitsandbytes.backends.cuda import ops

    results = {}
    for name, (inputs, outputs) in linear_layers(SHAPES["8B"]).items():
        weights = torch.randn(outputs, inputs, device="cuda", dtype=torch.float16) * 0.02
        packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
        for rows in (1, 8, 32, 64, 128):
            given = torch.randn(rows, inputs, device="cuda", dtype=torch.float16)
            computed, milliseconds = {}, {}
            for fused in (True, False):
                ops._gemm_4bit_use_custom_fn = lambda *_, fused=fused: fused
                multiply = partial(matmul_4bit, given, packed.t(), quant_state=state)
                computed[fused] = multiply().float()
                milliseconds["fused" if fused else "unpacked"] = round(1000 * timed(multiply), 3)
            exact = given.float() @ functional.dequantize_4bit(packed, state).float().t()
            errors = [float((own - exact).norm() / exact.norm()) for own in computed.values()]
            results[f"{name}, {rows} rows"] = milliseconds | {"errors": [f"{error:.1e}" for error in errors]}
    return results


def compare_texts(texts: list[str], others: list[str]) -> dict:
    """Returns the share of replies that are equal, and the share of a reply's characters before the first difference,
    on average."""
    same = [len(os.path.commonprefix(pair)) / max(1, *map(len, pair)) for pair in zip(texts, others)]
    return {"equal": sum(share == 1 for share in same) / len(same), "before_a_difference": sum(same) / len(same)}


def compare_processes(run: Run) -> dict:
    """Returns how much faster two processes are than one, by the slower one's seconds, and what is equal."""
    seconds, replies, likelihoods = {}, {}, {}
    work = run / "evaluate" / "work"
    for number in (1, 2):
        for file in work.glob("*"):
            file.unlink()
        answers = answer_rows(run, EvaluationSettings(**{**SETTINGS, "num_gpus": number})).values()
        replies[number] = [reply["reply"] for own in answers for reply in [*own.replies, *own.prompts]]
        likelihoods[number] = [row["nll"] for own in answers for row in own.likelihood]
        seconds[number] = {}
        for journal in work.glob("*_[rp]*.jsonl"):
            rank = journal.stem.rpartition("-")[2]
            spent = sum(reply["seconds"] for entry in read_journal(journal) for reply in entry["results"])
            seconds[number][rank] = seconds[number].get(rank, 0) + spent
    return {
        "seconds": seconds,
        "two_to_one": max(seconds[1].values()) / max(seconds[2].values()),
        "replies": len(replies[1]),
        "same_replies": sum(first == second for first, second in zip(replies[1], replies[2])),
        "same_likelihoods": sum(first == second for first, second in zip(likelihoods[1], likelihoods[2])),
    }


def main() -> None:
    """Runs what is asked for and prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB that each process may use")
    parser.add_argument("--sms", type=int, default=0, help="multiprocessors of each GPU that a process may use; 0: all")
    parser.add_argument("--only", choices=["batches", "processes", "probes", "kernels"])
    parser.add_argument("--size", default="8B")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    parser.add_argument("--one", action="store_true", help="in this process")
    options = parser.parse_args()
    if not options.one:
        if options.only != "kernels":
            train_t4.base_model(options.work, options.size, speaks=True, packed=True)  # at full width
        with stand_in.hold_to_sms(options.sms):
            if options.sms:
                print(json.dumps({"rates": stand_in.rates_of_a_child()}))
            sys.exit(subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one"]).returncode)
    import torch

    if options.only == "kernels":
        return print("\n".join(f"{case}: {measured}" for case, measured in measure_kernels().items()))
    run = prepare(options.work, options.size)
    train_t4.hold_to_memory(options.memory)
    results = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}"}
    if options.only in (None, "batches"):
        results |= measure_batches(run)
    if options.only == "probes":
        results |= measure_probes(run)
    gc.collect()
    torch.cuda.empty_cache()
    if options.only in (None, "processes") and torch.cuda.device_count() > 1:
        results["processes"] = compare_processes(run)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
