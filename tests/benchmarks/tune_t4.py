"""Searches the settings of ref-d-finetome-1b at the real shape, with random weights, on one GPU held to a T4's memory.

PYTHONPATH=src python tests/benchmarks/tune_t4.py [--memory 14.56] [--hours 0.15] [--set tune.trials=9 …] [--work DIR]

The search, then 60 steps with what it found, then base against tuned on 200 rows. Pauses after --hours, as a session
does: the same command goes on. Ends with one JSON object.
"""

import argparse
import collections
import json
import os
import sys
import time
from pathlib import Path

import train_t4

from helpers import env, model, plan, presets, train, tune


def prepare(work: Path, sets: list[str], hours: float, rows: int) -> tuple[Path, dict]:
    """Writes a run's folder with rows of the corpus's lengths, and returns it with all stages' settings."""
    base = train_t4.base_model(work, "1B")
    sets = [f"shared.base_model={base}", "train.sft.fp16=true", *sets]
    settings = presets.resolve("ref-d-finetome-1b", "search", str(work), sets, tiny=False)
    settings["tune"]["session"] = {"hours": hours, "mirror": "", "keep": 2}
    run = work / "search"
    if not (run / "data" / "metrics.json").is_file():
        tokenizer = model.load_tokenizer(str(base))
        train_t4.make_data(run / "data", tokenizer, rows, settings["prepare_data"])
        lengths, _ = train_t4.lengths_of(run, {"base_model": str(base)})
        lengths.sort()
        quantiles = [[share / 100, lengths[min(len(lengths) - 1, share * len(lengths) // 100)]] for share in range(101)]
        data = {"tokens": {"quantiles": quantiles}, "train": len(lengths) - 200, "base_model": str(base)}
        made = env.read_jsonl(run / "data" / "train.jsonl")
        env.write_jsonl(run / "data" / "val.jsonl", made[-200:])
        env.write_jsonl(run / "data" / "train.jsonl", made[:-200])
        env.write_json(run / "data" / "metrics.json", {**data, "embedded_model": ""})
    stages = {name: {"parameters": settings[name]} for name in ("prepare_data", "tune", "train")}
    env.write_json(run / "run.json", {"run_name": "search", "settings": settings, "stages": stages})
    return run, settings


def searched(run: Path, settings: dict) -> dict:
    """Carries out the search, or goes on with it, and returns its figures."""
    study, configs = tune.search(run, settings["tune"])
    began = time.perf_counter()
    tune.carry_out(run, study, configs, settings["tune"]["session"])
    table = tune.rows(run, study, configs)
    best = tune.best(table, study)
    tune.write(run, table, best)
    logs = [env.read_jsonl(path) for path in (run / "tune" / "trials").glob("*/train/log.jsonl")]
    trained = sum(max(line["seconds"] for line in log) for log in logs if log)
    return {
        "status": dict(collections.Counter(row["status"] for row in table)),
        "reasons": sorted({row["reason"] for row in table if row["reason"]}),
        "steps": sum(row["steps"] for row in table),
        "share_of_all": sum(row["steps"] for row in table) / sum(row["budget_steps"] for row in table),
        "price": tune.price(run, configs, settings["tune"]["eta"], settings["tune"]["rungs"]),
        "seconds_of_this_session": time.perf_counter() - began,
        "seconds_in_training": trained,
        "best": best,
    }


def judged(run: Path, config: dict) -> dict:
    """Returns perplexity and scored rows a second of the untuned and the tuned model on the validation rows."""
    tokenizer = model.load_tokenizer(config["base_model"])
    both, found = model.load_for_inference(config["base_model"], run / "train" / "adapter", True, "float16"), {}
    rows = env.read_jsonl(run / "data" / "val.jsonl")
    model.likelihood(both, tokenizer, rows[:16], 64)  # warm
    for side in ("tuned", "base"):
        began = time.perf_counter()
        if side == "base":
            with both.disable_adapter():
                scored = model.likelihood(both, tokenizer, rows, 64)
        else:
            scored = model.likelihood(both, tokenizer, rows, 64)
        loss = sum(row["nll"] for row in scored) / sum(row["tokens"] for row in scored)
        found[side] = {"val_loss": loss, "rows_per_second": len(rows) / (time.perf_counter() - began)}
    return found


def main() -> int:
    """Runs it, prints the figures; 75 when paused."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB a process may use")
    parser.add_argument("--hours", type=float, default=0.0, help="after which it pauses, 0: never")
    parser.add_argument("--rows", type=int, default=train_t4.ROWS)
    parser.add_argument("--set", nargs="+", default=[], dest="sets")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    options = parser.parse_args()
    run, settings = prepare(options.work, options.sets, options.hours, options.rows)
    import torch

    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    share = f"per_process_memory_fraction:{options.memory / total:.5f}"
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:True,{share}"  # for the process started from here
    found = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}"}
    try:
        if not (run / "tune" / "best.json").is_file():  # a search that ended is not made again
            found |= searched(run, settings)
    except env.Paused as error:
        print(error)
        return 75
    torch.cuda.set_per_process_memory_fraction(options.memory / total)
    config = train.resolve(run)
    found["predicted_gib"] = plan.memory(config, plan.model_shape(config["base_model"]), {2 * 2048})["peak"]
    env.write_json(run / "train" / "config.json", config)
    code = env.stream([sys.executable, "-m", "helpers.train", str(run / "train" / "config.json")])
    if code:
        return code
    metrics = env.read_json(run / "train" / "result.json")
    names = ("train_loss", "val_loss", "peak_memory_gib", "tokens_per_second", "effective_batch", "optimizer_steps")
    found["train"] = {name: metrics[name] for name in names}
    found["judged"] = judged(run, config)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
