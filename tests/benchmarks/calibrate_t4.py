"""Calibrates on a GPU held to few SMs, then trains and writes replies there, and compares the plan with both.

PYTHONPATH=src python tests/benchmarks/calibrate_t4.py [--sms 8] [--memory 14.56] [--gpus 1] [--only PART] [--work DIR]

Needs about 20 GB below --work for the weights at the 8B shape, which are made once. Ends with one JSON object.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import evaluate_t4
import stand_in
import train_t4

from helpers.inference.generate import generate_replies
from helpers.models.batching import (
    GENERATION_TOKEN_BUDGET,
    SCORING_TOKEN_BUDGET,
    cut_batches,
    padded_tokens,
    reply_sizes,
)
from helpers.models.chat import encode_prompt, encode_row
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference, load_tokenizer
from helpers.planning.calibration import find_speed
from helpers.planning.hours import evaluation_seconds
from helpers.planning.speed import Speed, estimate_speed, seconds_of

PARTS = "calibration", "training", "answers"
MICRO_BATCH = 2048  # tokens
FEW, MORE = 2, 26  # tokens of replies
ROWS = 32, 128
EVALUATED = 128  # rows of a small evaluation


def measure_answers(work: Path) -> dict:
    """Returns measured and estimated seconds: what a token more takes for the shortest prompts in batches of several
    sizes, and an evaluation of EVALUATED rows by both models, scored and answered as 03_evaluate does; and the peak
    memory of all that."""
    import torch

    run = evaluate_t4.prepare(work, "8B")
    base = run.training_config()["base_model"]
    tokenizer = load_tokenizer(base)
    network = load_for_inference(base, run / "train" / "adapter", True, "float16")
    train_run, config = train_t4.prepare("one-gpu", work)
    shape, rates = train_t4.SHAPES["8B"], stand_in.measure_rates()
    speed = find_speed(config, train_run)
    speeds = {speed.source: speed, "rates": estimate_speed(shape, True, rates["products"], rates["copies"])}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    rows = evaluate_t4.select_test_rows(run, 0, 3407)
    asked = sorted((row["messages"][:-1] for row in rows), key=lambda messages: len(str(messages)))
    generate_replies(network, tokenizer, asked[:2], 4, 2)  # warm
    measured: dict = {}
    for count in ROWS:
        lengths = sorted(len(encode_prompt(tokenizer, messages)) for messages in asked[:count])
        seconds = []
        for tokens in (FEW, MORE):
            began = time.perf_counter()
            generate_replies(network, tokenizer, asked[:count], tokens, count)
            seconds.append(time.perf_counter() - began)
        measured[f"a token more for {count} rows"] = compare(
            seconds[1] - seconds[0],
            {
                name: replies_seconds(own, lengths, MORE) - replies_seconds(own, lengths, FEW)
                for name, own in speeds.items()
            },
        )
    rows = rows[:EVALUATED]
    lengths = [len(encode_row(tokenizer, row)["input_ids"]) for row in rows]
    began = time.perf_counter()
    for context in (contextlib.nullcontext(), network.disable_adapter()):
        with context:
            score_likelihood(network, tokenizer, rows, 0, SCORING_TOKEN_BUDGET)
            generate_replies(network, tokenizer, [row["messages"][:-1] for row in rows], MORE, max(ROWS))
    measured[f"evaluation of {EVALUATED} rows, both models"] = compare(
        time.perf_counter() - began,
        {name: sum(evaluation_seconds(own, lengths, max(ROWS), MORE)) for name, own in speeds.items()},
    )
    return measured | {"peak_gib": torch.cuda.max_memory_reserved() / 2**30}


def replies_seconds(speed: Speed, prompts: list[int], new_tokens: int) -> float:
    """Returns the estimated seconds of replies of `new_tokens` to prompts of these lengths, which rise."""
    total, sizes = 0.0, reply_sizes(prompts, new_tokens)
    for rows in cut_batches(range(len(prompts)), sizes, max(ROWS), GENERATION_TOKEN_BUDGET):
        read = padded_tokens(rows, prompts)
        kept = read + len(rows) * new_tokens / 2
        total += new_tokens * (seconds_of(speed.decode_step, len(rows)) + kept * speed.cached_token)
        total += seconds_of(speed.forward, read)
    return total


def compare(measured: float, estimates: dict[str, float]) -> dict:
    """Returns measured seconds, and what each estimate is of them."""
    ratios = {f"by {name}": round(seconds / measured, 3) for name, seconds in estimates.items()}
    return {"measured": round(measured, 4), **ratios}


def main() -> None:
    """Runs the measurements and prints what was measured and estimated."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB that each process may use")
    parser.add_argument("--sms", type=int, default=0, help="multiprocessors of each GPU that a process may use; 0: all")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    parser.add_argument("--only", choices=PARTS, help="one part, after those before it")
    parser.add_argument("--answers", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.answers:
        train_t4.hold_to_memory(options.memory)
        print(json.dumps(measure_answers(options.work)))
        return
    speaking = train_t4.base_model(options.work, "8B", speaks=True, packed=True)  # at full width
    if not (options.work / "llama-8B-random-4bit").exists():
        (options.work / "llama-8B-random-4bit").symlink_to(speaking)  # one for both
    here, results = Path(__file__), {}
    limits = ["--memory", str(options.memory), "--work", str(options.work)]
    calibrate = ["-m", "helpers", "calibrate", "--preset", "kaggle-t4x2", "--outputs", str(options.work)]
    case = "two-gpus" if options.gpus > 1 else "one-gpu"
    commands = {
        "calibration": [*calibrate, "--set", "train.sft.fp16=true"],
        "training": [str(here.with_name("train_t4.py")), case, "--one", "--steps", str(options.steps), *limits],
        "answers": [str(here), "--answers", *limits],
    }
    with stand_in.hold_to_sms(options.sms):
        rates = stand_in.rates_of_a_child()
        for name in [options.only] if options.only else PARTS:
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *commands[name]], stdout=subprocess.PIPE, text=True)
            print(done.stdout[-3000:], flush=True)
            last = (done.stdout.splitlines() or [""])[-1]
            results[name] = json.loads(last) if last.startswith("{") else {}
            results[name] |= {"seconds": time.perf_counter() - began, "exit code": done.returncode}
    guess = estimate_speed(train_t4.SHAPES["8B"], True, rates["products"], rates["copies"])
    results["by_rates_alone"] = {"training": MICRO_BATCH / seconds_of(guess.training, MICRO_BATCH)}
    print(json.dumps({"rates": rates, **results}))


if __name__ == "__main__":
    main()
