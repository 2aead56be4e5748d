"""Searches the settings of ref-d-finetome-1b at the real shape, with random weights, on one GPU held to a T4's memory.

PYTHONPATH=src python tests/benchmarks/tune_t4.py [--memory 14.56] [--hours 0.15] [--set tune.trials=9 …] [--work DIR]

The search, then 60 steps with its best settings, then base against tuned on 200 rows. Pauses after --hours, as a
session does: the same command resumes. Ends with one JSON object.
"""

import argparse
import collections
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import train_t4

from helpers.models.families import model_shape
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference, load_tokenizer
from helpers.planning.config import TrainingConfig
from helpers.planning.memory import estimate_memory
from helpers.platforms.errors import PAUSED, Paused
from helpers.platforms.processes import run_child
from helpers.runs.files import read_json, read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings
from helpers.search.results import best_candidate, estimate_search, tabulate_trials, write_results
from helpers.search.study import open_search
from helpers.search.trials import run_search
from helpers.training.config import resolve_config

VALIDATION_ROWS = 200


def prepare(work: Path, sets: list[str], hours: float, rows: int) -> Run:
    """Writes and returns a run with rows of the corpus's lengths."""
    base = train_t4.base_model(work, "1B")
    sets = [f"shared.base_model={base}", "train.sft.fp16=true", *sets]
    settings = resolve_settings("ref-d-finetome-1b", "search", str(work), sets, tiny=False)
    settings["tune"]["session"] = {"hours": hours, "mirror": "", "keep": 2}
    run = Run(work / "search")
    if not run.has_metrics("prepare_data"):
        train_t4.make_data(run / "data", load_tokenizer(str(base)), rows, settings["prepare_data"])
        lengths = sorted(train_t4.lengths_of(run, str(base))[0])
        quantiles = [[share / 100, lengths[min(len(lengths) - 1, share * len(lengths) // 100)]] for share in range(101)]
        data_rows = read_jsonl(run / "data" / "train.jsonl")
        write_jsonl(run / "data" / "val.jsonl", data_rows[-VALIDATION_ROWS:])
        write_jsonl(run / "data" / "train.jsonl", data_rows[:-VALIDATION_ROWS])
        metrics = {"tokens": {"quantiles": quantiles}, "train": len(lengths) - VALIDATION_ROWS}
        write_json(run / "data" / "metrics.json", {**metrics, "base_model": str(base), "embedded_model": ""})
    stages = {name: {"parameters": settings[name]} for name in ("prepare_data", "tune", "train")}
    write_json(run / "run.json", {"run_name": "search", "settings": settings, "stages": stages})
    return run


def measure_search(run: Run) -> dict[str, Any]:
    """Carries out or resumes the search, and returns its metrics, reasons and seconds."""
    search = open_search(run)
    began = time.perf_counter()
    run_search(search)
    seconds = time.perf_counter() - began
    table = tabulate_trials(search)
    best = best_candidate(table, list(search.candidates[0].settings))
    logs = [read_jsonl(path) for path in (run / "tune" / "trials").glob("*/train/log.jsonl")]
    return {
        **write_results(search, table, best, estimate_search(search)),
        "status": dict(collections.Counter(row["status"] for row in table)),
        "reasons": sorted({row["reason"] for row in table if row["reason"]}),
        "seconds_of_this_session": seconds,
        "seconds_in_training": sum(max(line["seconds"] for line in log) for log in logs if log),
    }


def score_models(run: Run, config: TrainingConfig) -> dict[str, dict[str, float]]:
    """Returns the loss and the scored rows per second of the base and the tuned model on the validation rows."""
    tokenizer = load_tokenizer(config.base_model)
    network = load_for_inference(config.base_model, run / "train" / "adapter", True, "float16")
    rows, scores = read_jsonl(run / "data" / "val.jsonl"), {}
    score_likelihood(network, tokenizer, rows[:16], 64)  # warm
    for side in ("tuned", "base"):
        began = time.perf_counter()
        with network.disable_adapter() if side == "base" else contextlib.nullcontext():
            likelihoods = score_likelihood(network, tokenizer, rows, 64)
        loss = sum(row["nll"] for row in likelihoods) / sum(row["tokens"] for row in likelihoods)
        scores[side] = {"val_loss": loss, "rows_per_second": len(rows) / (time.perf_counter() - began)}
    return scores


def main() -> int:
    """Runs it and prints the results; returns 75 when paused."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=float, default=14.56, help="GiB that each process may use")
    parser.add_argument("--hours", type=float, default=0.0, help="after which it pauses, 0: never")
    parser.add_argument("--rows", type=int, default=train_t4.ROWS)
    parser.add_argument("--set", nargs="+", default=[], dest="sets")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    options = parser.parse_args()
    run = prepare(options.work, options.sets, options.hours, options.rows)
    import torch

    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    share = f"per_process_memory_fraction:{options.memory / total:.5f}"
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:True,{share}"  # for the process started from here
    results = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}"}
    try:
        if not (run / "tune" / "best.json").is_file():  # a search that ended is not made again
            results |= measure_search(run)
    except Paused as error:
        print(error)
        return PAUSED
    torch.cuda.set_per_process_memory_fraction(options.memory / total)
    config = resolve_config(run)
    results["estimated_gib"] = estimate_memory(config, model_shape(config.base_model), {2 * 2048}).peak
    write_json(run / "train" / "config.json", config.to_json())
    code = run_child([sys.executable, "-m", "helpers.training.launch", str(run / "train" / "config.json")])
    if code:
        return code
    metrics = read_json(run / "train" / "result.json")
    names = ("train_loss", "val_loss", "peak_memory_gib", "tokens_per_second", "effective_batch", "optimizer_steps")
    results["train"] = {name: metrics[name] for name in names}
    results["scores"] = score_models(run, config)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
