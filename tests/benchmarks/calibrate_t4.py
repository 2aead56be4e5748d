"""Calibrates on a GPU held to few SMs, then trains and writes replies there, and compares the plan with both.

PYTHONPATH=src python tests/benchmarks/calibrate_t4.py [--sms 8] [--memory 14.56] [--gpus 1] [--work DIR]

Needs about 20 GB below --work for the weights at the 8B shape, which are made once. Ends with one JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import evaluate_t4
import stand_in
import train_t4

from helpers.inference.generate import generate_replies
from helpers.models.batching import SCORING_TOKEN_BUDGET, cut_batches
from helpers.models.chat import encode_prompt, encode_row
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference, load_tokenizer
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig
from helpers.planning.speed import estimate_speed, seconds_of
from helpers.runs.files import read_json

NEW_TOKENS = 48
ROWS = 8, 64, 128


def measure_answers(work: Path) -> dict:
    """Returns measured and estimated seconds: replies of NEW_TOKENS in batches of several sizes, and scored rows."""
    import torch

    run = evaluate_t4.prepare(work, "8B")
    base = run.training_config()["base_model"]
    tokenizer = load_tokenizer(base)
    network = load_for_inference(base, run / "train" / "adapter", True, "float16")
    train_run, config = train_t4.prepare("one-gpu", work)
    speed = find_speed(config, train_run)
    rows = evaluate_t4.select_test_rows(run, 0, 3407)[: max(ROWS)]
    measured = {"speed_from": speed.source}
    generate_replies(network, tokenizer, [row["messages"][:-1] for row in rows[:2]], 4, 2)  # warm
    for count in ROWS:
        conversations = [row["messages"][:-1] for row in rows[:count]]
        prompts = [len(encode_prompt(tokenizer, messages)) for messages in conversations]
        began = time.perf_counter()
        generate_replies(network, tokenizer, conversations, NEW_TOKENS, count)
        seconds = time.perf_counter() - began
        padded = count * max(prompts)
        kept = padded + count * NEW_TOKENS / 2
        estimated = NEW_TOKENS * (seconds_of(speed.decode_step, count) + kept * speed.cached_token)
        estimated += seconds_of(speed.forward, padded)
        measured[f"replies_{count}"] = {"measured": seconds, "estimated": estimated, "ratio": estimated / seconds}
    measured["peak_gib"] = torch.cuda.max_memory_reserved() / 2**30
    rows = rows[:64]
    lengths = [len(encode_row(tokenizer, row)["input_ids"]) for row in rows]
    began = time.perf_counter()
    score_likelihood(network, tokenizer, rows, 64, SCORING_TOKEN_BUDGET)
    seconds = time.perf_counter() - began
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    batches = cut_batches(order, lengths, 64, SCORING_TOKEN_BUDGET)
    estimated = sum(seconds_of(speed.forward, len(b) * max(lengths[row] for row in b)) for b in batches)
    measured["scored"] = {"measured": seconds, "estimated": estimated, "ratio": estimated / seconds}
    return measured


def main() -> None:
    """Runs the measurements and prints what was measured and estimated."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB that each process may use")
    parser.add_argument("--sms", type=int, default=0, help="multiprocessors of each GPU that a process may use; 0: all")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    parser.add_argument("--answers", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.answers:
        train_t4.hold_to_memory(options.memory)
        print(json.dumps(measure_answers(options.work)))
        return
    speaking = train_t4.base_model(options.work, "8B", speaks=True)  # at full width
    if not (options.work / "llama-8B-random").exists():
        (options.work / "llama-8B-random").symlink_to(speaking)  # one for both
    here, results = Path(__file__), {}
    case = "two-gpus" if options.gpus > 1 else "one-gpu"
    limits = ["--memory", str(options.memory), "--work", str(options.work)]
    with stand_in.hold_to_sms(options.sms):
        rates = stand_in.rates_of_a_child()
        began = time.perf_counter()
        calibrate = ["-m", "helpers", "calibrate", "--preset", "kaggle-t4x2", "--outputs", str(options.work)]
        subprocess.run([sys.executable, *calibrate, "--set", "train.sft.fp16=true"], check=True)
        results["calibration"] = {"seconds": time.perf_counter() - began}
        steps = ["--one", "--steps", str(options.steps), *limits]
        for name, command in (
            ("training", [str(here.with_name("train_t4.py")), case, *steps]),
            ("answers", [str(here), "--answers", *limits]),
        ):
            done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
            print(done.stdout[-3000:], flush=True)
            results[name] = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else done.returncode
    config = TrainingConfig.model_validate(read_json(options.work / case / "train" / "config.json"))
    guess = estimate_speed(train_t4.SHAPES["8B"], True, rates["products"], rates["copies"])
    results["by_rates_alone"] = {"training": config.max_tokens / seconds_of(guess.training, config.max_tokens)}
    print(json.dumps({"rates": rates, **results}))


if __name__ == "__main__":
    main()
