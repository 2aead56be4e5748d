"""Trains by preferences at the real 8B shape, with random weights, on a GPU held to a T4's memory; ends with a table.

PYTHONPATH=src python tests/benchmarks/prefer_t4.py [dpo kto] [--memory 14.56] [--sms 8] [--steps 8] [--work DIR]

Takes the base model of train_t4.py, makes a tuned adapter of random weights, pairs of replies of the corpus's lengths,
and trains as the stage prefer does. Prints, per method: peak memory against the plan, whether losses are finite, real
tokens per second against the plan. Needs about 20 GB below --work.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
from pathlib import Path

import stand_in
import train_t4

from helpers.models.chat import tokenize_rendered
from helpers.models.loading import load_for_training, load_tokenizer, start_backend
from helpers.planning.config import TrainingConfig
from helpers.preference.config import configure_preference
from helpers.preference.loop import launch_preference
from helpers.preference.plan import plan_preference
from helpers.runs.files import read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import default_settings

METHODS = ("dpo", "kto")
ROWS = 240


def make_rows(tokenizer, method: str) -> list[dict]:
    """Returns preferences whose prompts and replies have the corpus's lengths, as pairs or as single replies."""
    rng = random.Random(1)
    ids = [i for answer in rng.choices(train_t4.answers(), k=600) for i in tokenize_rendered(tokenizer, answer + " ")]
    rows = []
    for number, tokens in enumerate(train_t4.spread_lengths(train_t4.LENGTHS, ROWS)):
        size = max(8, (min(tokens, 2000) - 60) // 2)

        def text(size: int = size) -> str:
            start = rng.randrange(len(ids) - size)
            return tokenizer.decode(ids[start : start + size])

        part = "train" if number % 12 else "val"
        shared = {"id": f"p{number}", "group": f"g{number}", "source": "made", "part": part}
        shared["prompt"] = [{"role": "user", "content": text()}]
        if method == "dpo":
            rows.append({**shared, "chosen": text(), "rejected": text()})
        else:
            rows.append({**shared, "completion": text(), "label": number % 2 == 0})
    return rows


def make_adapter(run: Run) -> None:
    """Saves a tuned adapter of random weights; run in a process of its own."""
    config = TrainingConfig.of_run(run)
    start_backend(config.backend)
    model = load_for_training(config.model_copy(update={"base_model_path": config.base_model}), "float16")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=1e-3)
    model.save_pretrained(str(run / "train/adapter"))


def prepare(work: Path) -> Run:
    """Returns a run that has what the stage prefer reads, made where it is missing."""
    run, config = train_t4.prepare("ours", work)
    write_json(run / "train/config.json", config.to_json())
    if not (run / "train/adapter/adapter_model.safetensors").is_file():
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\nimport prefer_t4\n"
        code += f"prefer_t4.make_adapter(prefer_t4.Run(prefer_t4.Path({str(run)!r})))"
        subprocess.run([sys.executable, "-c", code], check=True)
    return run


def measure(run: Run, method: str, steps: int) -> dict:
    """Trains by a method and returns what was measured, beside its plan."""
    rows = make_rows(load_tokenizer(run.training_config()["base_model"]), method)
    write_jsonl(run / "prefer/pairs.jsonl", rows)
    trl = {"max_steps": steps, "optim": "adamw_8bit", "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no"}
    parameters = {**default_settings("prefer"), "max_tokens": 2048}
    parameters["trl"] |= {**trl, "gradient_accumulation_steps": 4, "warmup_steps": 2}
    config = configure_preference(run, parameters, rows)
    config = config.model_copy(update={"sft": {**config.sft, "fp16": True}})  # as on a T4
    plan, metrics = plan_preference(run, config, rows), launch_preference(run, config)
    log = [entry for entry in read_jsonl(run / "prefer/log.jsonl") if "loss" in entry]
    later = log[max(1, int(len(log) * train_t4.WARM_UP)) :]
    seconds = [after["seconds"] - before["seconds"] for before, after in zip(log, log[1:])][-len(later) :]
    return {
        "method": method,
        "peak_memory_gib": metrics["peak_memory_gib"],
        "micro_batch_limit": metrics["micro_batch_limit"],
        "planned_gib": plan["peak_memory_gib"],
        "finite": all(math.isfinite(entry["loss"]) for entry in log),
        "losses": [round(entry["loss"], 4) for entry in log],
        "step_seconds": statistics.median(seconds),
        "all_step_seconds": [round(each, 2) for each in seconds],
        "tokens_per_second": metrics["tokens_per_second"],
        "planned_tokens_per_second": plan["tokens_per_second"],
        "reference_seconds": metrics["seconds"]["load"],
    }


def main() -> None:
    """Runs the methods, each in a process of its own, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("methods", nargs="*", default=[*METHODS])
    parser.add_argument("--memory", type=float, default=14.56)
    parser.add_argument("--sms", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path("/tmp/prefer_t4"))
    parser.add_argument("--one", action="store_true", help="in this process, held already")
    options = parser.parse_args()
    if options.one:
        start_backend("unsloth")
        train_t4.hold_to_memory(options.memory)
        print(json.dumps(measure(prepare(options.work), options.methods[0], options.steps)))
        return
    prepare(options.work)
    with stand_in.hold_to_sms(options.sms):
        for method in options.methods:
            command = [sys.executable, __file__, method, "--one", "--memory", str(options.memory)]
            command += ["--steps", str(options.steps), "--work", str(options.work)]
            subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
