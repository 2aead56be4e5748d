"""Trains at real shapes, with random weights, on GPUs held to a T4's memory; ends with one table.

PYTHONPATH=src python tests/benchmarks/train_t4.py CASE [CASE …] [--memory 14.56] [--sms 8] [--out results.jsonl]

`--sms 8` holds each process to 8 SMs as well, a T4's balance of arithmetic and launches (stand_in.py), and prints what
share of the measured rates a T4 has.

`--list` names the cases, `--make` makes their base models and ends; each case runs in a process of its own. Those of
other families, family-…, say whether the losses are finite and the memory is near the plan's. Needs about 20 GB below
--work for the weights, which are made once. Rows have the corpus's token lengths: median 219, P95 555, P99 1,145, cap
2,048. Tokens per second count real tokens only, without the first WARM_UP of the run's steps.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import stand_in
from shapes import FAMILY_CASES, SHAPES

from helpers.data.load import load_table
from helpers.models.batching import padded_tokens
from helpers.models.chat import encode_examples, encode_row, make_collator, tokenize_rendered
from helpers.models.embedded import build_tokenizer
from helpers.models.loading import load_base_model, load_for_training, load_tokenizer, start_backend
from helpers.models.random_weights import save_random_model
from helpers.planning.batches import most_attended, schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig
from helpers.planning.hours import training_seconds
from helpers.planning.lengths import spread_lengths
from helpers.planning.memory import estimate_memory
from helpers.planning.precision import needs_float32
from helpers.platforms.errors import describe_error
from helpers.platforms.processes import launch_processes, process_rank
from helpers.runs.archives import pack_folder
from helpers.runs.checkpoints import check_disk_space, checkpoint_folders, prune_checkpoints
from helpers.runs.files import folder_bytes, read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run, start_stage
from helpers.runs.session import SessionClock, boot_clock, process_start
from helpers.runs.settings import parameters_cell, resolve_settings
from helpers.training import launch, loop
from helpers.training.config import resolve_config

LENGTHS = [(0.0, 70), (0.5, 219), (0.95, 555), (0.99, 1145), (1.0, 2048)]  # share of rows: tokens
WARM_UP = 0.3
ROWS = 2400
FLAGSHIP = {"preset": "kaggle-t4x2", "size": "8B", "sets": []}
CASES = {
    "ours": {**FLAGSHIP, "steps": 40},
    "ours-1664": {**FLAGSHIP, "steps": 24, "sets": ["train.max_tokens=1664"]},
    "one-gpu": {**FLAGSHIP, "steps": 48},
    "two-gpus": {**FLAGSHIP, "steps": 48, "gpus": 2},
    # as a T4 is: busy with arithmetic, not waiting for launches; with --memory 130
    "one-gpu-busy": {**FLAGSHIP, "steps": 16, "sets": ["train.max_tokens=12288"]},
    "two-gpus-busy": {**FLAGSHIP, "steps": 16, "sets": ["train.max_tokens=12288"], "gpus": 2},
    "paused": {**FLAGSHIP, "steps": 12, "run": "session"},  # first of two processes of one run
    "resumed": {**FLAGSHIP, "steps": 12, "run": "session"},
    "unsloth-default": {**FLAGSHIP, "stock": (2, 4), "steps": 40},  # the batch and order of Unsloth's own notebooks
    "peft-default": {**FLAGSHIP, "backend": "peft", "stock": (2, 4), "steps": 16},
    "peft-stock-3": {**FLAGSHIP, "backend": "peft", "stock": (3, 4), "steps": 10},
    "peft-stock-4": {**FLAGSHIP, "backend": "peft", "stock": (4, 4), "steps": 10},
    "memory-8b-1024": {**FLAGSHIP, "steps": 8, "sets": ["train.max_tokens=1024"]},
    "memory-8b-rows": {
        **FLAGSHIP,
        "steps": 8,
        "sets": ["train.max_tokens=0", "train.sft.per_device_train_batch_size=4"],
    },
    "memory-8b-r64": {**FLAGSHIP, "steps": 6, "sets": ["train.max_tokens=768", "train.lora.r=64"]},
    "memory-1b-4096": {**FLAGSHIP, "size": "1B", "steps": 10, "sets": ["train.max_tokens=4096"]},
    "memory-1b-16bit": {
        **FLAGSHIP,
        "size": "1B",
        "steps": 10,
        "sets": ["train.load_in_4bit=false", "train.max_tokens=3072", "train.sft.optim=adamw_torch"],
    },
    "memory-8b-peft-512": {**FLAGSHIP, "backend": "peft", "steps": 8, "sets": ["train.max_tokens=512"]},
    "memory-8b-peft-rows": {
        **FLAGSHIP,
        "backend": "peft",
        "steps": 6,
        "sets": ["train.max_tokens=0", "train.sft.per_device_train_batch_size=2"],
    },
    "memory-8b-peft-c": {
        **FLAGSHIP,
        "backend": "peft",
        "steps": 8,
        "sets": [
            "train.max_tokens=640",
            "train.lora.target_modules=[q_proj,k_proj,v_proj,o_proj]",
            "train.lora.lora_dropout=0.05",
        ],
    },
    "memory-1b-peft-2048": {
        **FLAGSHIP,
        "size": "1B",
        "backend": "peft",
        "steps": 10,
        "sets": ["train.max_tokens=2048"],
    },
    "memory-1b-peft-rows": {
        **FLAGSHIP,
        "size": "1B",
        "backend": "peft",
        "steps": 10,
        "sets": ["train.max_tokens=0", "train.sft.per_device_train_batch_size=4"],
    },
    "oom": {**FLAGSHIP, "steps": 8, "sets": ["train.max_tokens=4096"]},
    "oom-started-small": {**FLAGSHIP, "steps": 8, "sets": ["train.max_tokens=4096"], "limit": 2048},
    "ref-a": {"preset": "ref-a-bengali-8b-fp16", "size": "8B", "sets": [], "steps": 10},  # over two GPUs
    "ref-b": {"preset": "ref-b-bengali-8b-6k", "size": "8B", "sets": [], "steps": 10},
    "ref-c": {"preset": "ref-c-bengali-8b-qlora", "backend": "peft", "size": "8B", "sets": [], "steps": 10},
    "ref-e": {"preset": "ref-e-wikitext-1b", "backend": "peft", "size": "1B", "sets": [], "steps": 10},
    **FAMILY_CASES,
}
MEMORY_TOLERANCE = 0.08  # by which the peak may differ from the plan's


def make_model(folder: Path, size: str, speaks: bool = False) -> None:
    """Saves a random-weight model of a known shape in fp16 with the embedded tokenizer; run in a process of its own."""
    save_random_model(folder, SHAPES[size], build_tokenizer(answers()), speaks)


def base_model(work: Path, size: str, speaks: bool = False, packed: bool = False) -> Path:
    """Returns the folder of the random-weight model, made when it is missing; `packed` in NF4, as Unsloth's copies are,
    which loads faster where few multiprocessors would have to pack it."""
    prefix = "" if "model_type" in SHAPES[size] else "llama-"
    folder = work / f"{prefix}{size}-{'speaking' if speaks else 'random'}{'-4bit' if packed else ''}"
    if not (folder / "config.json").is_file():
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\nimport train_t4\n"
        if packed:
            code += f"train_t4.pack_model({str(base_model(work, size, speaks))!r}, {str(folder)!r})"
        else:
            code += f"train_t4.make_model(train_t4.Path({str(folder)!r}), {size!r}, {speaks})"
        subprocess.run([sys.executable, "-c", code], check=True)
    return folder


def pack_model(base: str, folder: str) -> None:
    """Saves a model in NF4; run in a process of its own."""
    load_base_model(base, True, "float16", {"": 0}).save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)


def answers() -> list[str]:
    """Returns the embedded corpus's answers."""
    return list(load_table("embedded")[0].answer)


def make_data(folder: Path, tokenizer, rows: int, data: dict) -> None:
    """Writes train and val rows of LENGTHS tokens, made of embedded answers; the longest included.

    `data` are the settings of prepare_data: plain text or conversations, and the longest row allowed.
    """
    rng = random.Random(0)
    ids = [token for answer in rng.choices(answers(), k=1200) for token in tokenize_rendered(tokenizer, answer + " ")]
    data_rows = []
    cap = data["max_length"]
    wanted = [tokens for tokens in spread_lengths(LENGTHS, rows) if tokens <= cap] + [min(cap, 2048)] * 2
    rng.shuffle(wanted)
    for number, tokens in enumerate(wanted):
        start, size = rng.randrange(len(ids) - 4096), tokens - 40
        for _ in range(8):
            parts = ids[start : start + size // 3], ids[start + size // 3 : start + size]
            row = row_of(*map(tokenizer.decode, parts))
            if data["dataset_format"] == "text":
                row = {"text": " ".join(turn["content"] for turn in row["messages"])}
            row["id"] = f"row{number:05d}"
            short = tokens - len(encode_row(tokenizer, row)["input_ids"])
            if 0 <= short <= 2:
                break
            size += short or -1
        data_rows += [row] * (short >= 0)
    write_jsonl(folder / "train.jsonl", data_rows[:-16])
    write_jsonl(folder / "val.jsonl", data_rows[-16:])
    counts = {"train": len(data_rows) - 16, "val": 16, "test": 16, "tokens": {"quantiles": LENGTHS}}
    write_json(folder / "metrics.json", {"base_model": "made here", "embedded_model": "", **counts})


def row_of(question: str, answer: str) -> dict:
    """Returns the messages of one data row."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def case_settings(name: str, work: Path) -> dict[str, dict]:
    """Returns a case's settings by stage; its base model is made when it is missing."""
    case = CASES[name]
    sets = ["train.sft.fp16=true", "train.sft.logging_steps=1", *case["sets"]]
    sets += [f"train.sft.max_steps={case['steps']}", "train.sft.warmup_steps=2"]
    if case["preset"] == "kaggle-t4x2":
        sets += [f"train.num_gpus={case.get('gpus', 1)}", f"train.backend={case.get('backend', 'unsloth')}"]
        sets += ["train.sft.save_strategy=no", "train.sft.eval_strategy=no"]
    resolve = partial(resolve_settings, case["preset"], case.get("run", name), str(work), tiny=False)
    base = base_model(work, case["size"], packed=resolve(sets)["train"]["load_in_4bit"])
    return resolve([f"shared.base_model={base}", *sets])


def prepare(name: str, work: Path) -> tuple[Run, TrainingConfig]:
    """Writes a case's run folder and returns the run with its training configuration."""
    run, settings = Run.named(work, CASES[name].get("run", name)), case_settings(name, work)
    if not (run / "data" / "metrics.json").is_file():
        tokenizer = load_tokenizer(settings["train"]["base_model"])
        make_data(run / "data", tokenizer, CASES[name].get("rows", ROWS), settings["prepare_data"])
    run.note_stage("prepare_data", parameters=settings["prepare_data"])
    types = {key: kind for key, (_, kind) in parameters_cell("train").items()}
    start_stage("train", {"__annotations__": types, **settings["train"]})
    return run, resolve_config(run).model_copy(update={"limit": CASES[name].get("limit", 0)})


def train_stock(run: Run, config: TrainingConfig, batch: int, accumulation: int) -> dict:
    """Trains with TRL's own loop: rows in random order, every micro-batch checkpointed."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(config.base_model)
    tokenizer.padding_side = "right"
    rows = read_jsonl(run / "data" / "train.jsonl")
    train_set = Dataset.from_list(encode_examples(tokenizer, rows, "train", config.max_length))
    network = load_for_training(config.model_copy(update={"base_model_path": config.base_model}), "float16")
    counts, pad = [], make_collator(tokenizer)

    def collate(rows):
        counts.append((sum(len(row["input_ids"]) for row in rows), len(rows) * max(len(r["input_ids"]) for r in rows)))
        return pad(rows)

    clock = step_clock()
    arguments = SFTConfig(
        output_dir=str(run / "stock"),
        max_steps=config.sft["max_steps"],
        learning_rate=config.learning_rate,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        fp16=True,
        optim=config.sft["optim"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    longest = sorted(range(len(train_set)), key=lambda row: -len(train_set[row]["input_ids"]))[: 2 * batch]
    order = longest + [row for row in range(len(train_set)) if row not in set(longest)]
    arguments._n_gpu = 1
    arguments.train_sampling_strategy = "sequential"  # random already; the longest first, so that a batch of them fits
    trainer = SFTTrainer(
        model=network,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=train_set.select(order),
        data_collator=collate,
        callbacks=[clock],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    ends = clock.ends
    steps = [counts[at : at + accumulation] for at in range(0, len(ends) * accumulation, accumulation)]
    useful, computed = ([sum(pair[place] for pair in step) for step in steps] for place in (0, 1))
    return {
        "tokens_per_second": speed(ends, useful),
        "useful_token_fraction": sum(useful) / sum(computed),
        "arithmetic_per_useful_token": sum(computed) / sum(useful),
        "peak_memory_gib": torch.cuda.max_memory_reserved() / 2**30,
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def step_clock():
    """Returns a callback whose `ends` are the times at which steps ended, the device idle."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends = []

        def on_step_end(self, args, state, control, **kwargs):
            torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    return Clock()


def speed(ends: list[float], useful: list[int]) -> float:
    """Returns real tokens per second: the median over the steps after the warm-up, so that no compiling counts."""
    first = max(1, int(len(ends) * WARM_UP))
    return statistics.median(useful[at] / (ends[at] - ends[at - 1]) for at in range(first, len(ends)))


def measure(name: str, work: Path) -> dict:
    """Runs one case and returns what was measured."""
    import torch

    run, config = prepare(name, work)
    case = CASES[name]
    if "stock" in case:
        return train_stock(run, config, *case["stock"])
    if "run" in case:
        return train_session(run, config, 6 if name == "paused" else 0)
    launch.launch_processes = start_ranks
    metrics = launch.launch_training(run, config)
    log = [entry for entry in read_jsonl(run / "train" / "log.jsonl") if "loss" in entry]
    lengths, _ = lengths_of(run, config.base_model)
    epochs = schedule_steps(lengths, config, metrics["world_size"])
    steps = [step for epoch in epochs for step in epoch][: len(log)]
    useful = [sum(lengths[row] for share in step for batch in share for row in batch) for step in steps]
    sizes = {padded_tokens(batch, lengths) for step in steps for share in step for batch in share}
    by_plan = training_seconds(config, find_speed(config, run), lengths, epochs)
    shape = SHAPES[case["size"]]
    attended = most_attended(steps, lengths, config)
    predicted = estimate_memory(config, shape, sizes, needs_float32(config, shape), attended).peak
    losses = [entry["loss"] for entry in log]
    names = ("useful_token_fraction", "arithmetic_per_useful_token", "peak_memory_gib", "micro_batch_limit")
    return {
        "tokens_per_second": speed([entry["seconds"] for entry in log], useful),
        "predicted_tokens_per_second": sum(useful) / by_plan,
        "all_tokens_per_second": sum(useful[1:]) / (log[-1]["seconds"] - log[0]["seconds"]),
        **{name: metrics[name] for name in (*names, "trainable_parameters", "total_parameters")},
        "allocated_gib": [torch.cuda.max_memory_allocated(gpu) / 2**30 for gpu in range(torch.cuda.device_count())],
        "predicted_gib": predicted,
        "losses": [round(loss, 4) for loss in losses],
        "step_seconds": [round(after["seconds"] - before["seconds"], 2) for before, after in pairwise(log)],
        **(judge_family(losses, metrics["peak_memory_gib"], predicted) if "family" in case else {}),
        **(measure_ranks(run, log, metrics) if metrics["world_size"] > 1 else {}),
    }


def judge_family(losses: list[float], peak: float, predicted: float) -> dict:
    """Returns whether the losses are finite, and how near the memory is to the plan's."""
    difference = peak / predicted - 1
    near = abs(difference) < MEMORY_TOLERANCE
    return {"finite": all(map(math.isfinite, losses)), "memory_difference": round(difference, 4), "near_the_plan": near}


def start_ranks(module: str, arguments: list[str], processes: int, **variables: str) -> int:
    """Launches as `launch_processes` does, with `train_rank` in place of the module."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return launch_processes("train_t4", ["--rank", *arguments], processes, PYTHONPATH=path, **variables)


def train_rank(config_file: Path) -> None:
    """Trains as `launch.train_process` does, and writes per step what waiting for the other ranks and the all-reduce
    took, and the memory at the end."""
    start_backend(Run(config_file.resolve().parents[1]).training_config()["backend"])
    import torch

    from helpers.training import trainer  # imports trl: after Unsloth

    all_reduce, steps = trainer.StepTrainer.all_reduce_gradients, []

    def timed(*arguments):
        times = []
        for work in (torch.cuda.synchronize, torch.distributed.barrier, lambda: all_reduce(*arguments)):
            result = work()
            torch.cuda.synchronize()
            times.append(time.perf_counter())
        steps.append({"waiting": times[1] - times[0], "all_reduce": times[2] - times[1]})
        return result

    trainer.StepTrainer.all_reduce_gradients = timed
    launch.train_process(config_file)
    reserved = torch.cuda.max_memory_reserved() / 2**30
    write_json(config_file.parent / f"rank-{process_rank()}.json", {"steps": steps, "peak_memory_gib": reserved})


def measure_ranks(run: Run, log: list[dict], metrics: dict) -> dict:
    """Returns the shares of a step that go into waiting and the all-reduce (medians after the warm-up, mean of the
    ranks), the all-reduce's bytes per second, and each GPU's memory."""
    ranks = [json.loads(file.read_text()) for file in sorted((run / "train").glob("rank-*.json"))]
    first = max(1, int(len(log) * WARM_UP))
    step = statistics.median(log[at]["seconds"] - log[at - 1]["seconds"] for at in range(first, len(log)))

    def seconds(name: str) -> float:
        return statistics.mean(statistics.median(entry[name] for entry in rank["steps"][first:]) for rank in ranks)

    return {
        "step_seconds": step,
        "waiting_share": seconds("waiting") / step,
        "all_reduce_share": seconds("all_reduce") / step,
        "all_reduce_bytes_per_second": 4 * metrics["trainable_parameters"] / seconds("all_reduce"),
        "peak_memory_gib": [rank["peak_memory_gib"] for rank in ranks],
    }


def train_session(run: Run, config: TrainingConfig, stop_after: int) -> dict:
    """Trains one session of a run, to its end or to a step, and returns what starting and saving took."""
    start_backend(config.backend)
    from helpers.training import step_training  # after Unsloth

    ends, loading, saving = [], [], []
    load, reason, check, prune = load_for_training, SessionClock.reason, check_disk_space, prune_checkpoints

    def timed_load(*arguments):
        began = time.perf_counter()
        network = load(*arguments)
        loading.append(time.perf_counter() - began)
        return network

    def timed_reason(clock, save_seconds):
        ends.append(boot_clock())
        return "the case asks for it" if len(ends) == stop_after else reason(clock, save_seconds)

    def timed_check(*arguments):
        saving.append(-time.perf_counter())
        return check(*arguments)

    def timed_prune(*arguments):
        saving[-1] += time.perf_counter()
        prune(*arguments)

    loop.load_for_training, SessionClock.reason = timed_load, timed_reason
    step_training.check_disk_space, step_training.prune_checkpoints = timed_check, timed_prune
    result = launch.launch_training(run, config)
    newest = checkpoint_folders(run / "train" / "checkpoints")[-1]
    began = time.perf_counter()
    pack_folder(newest, run / "copy.tar")
    return {
        "status": result["status"],
        "steps": len(ends),
        "process_start_to_first_step": ends[0] - process_start("self") - loading[0],
        "model_load": loading[0],
        "checkpoint_mib": folder_bytes(newest) / 2**20,
        "save_seconds": saving,
        "copy_seconds": time.perf_counter() - began,
    }


def lengths_of(run: Run, base: str) -> tuple[list[int], object]:
    """Returns the tokens of every train row, and the tokenizer of the base model."""
    tokenizer = load_tokenizer(base)
    rows = read_jsonl(run / "data" / "train.jsonl")
    return [len(encode_row(tokenizer, row)["input_ids"]) for row in rows], tokenizer


def run_one(name: str, work: Path, memory: float) -> dict:
    """Runs one case in this process, held to `memory` GiB, and returns what was measured."""
    os.environ["UNSLOTH_ENABLE_FLEX_ATTENTION"] = "0"  # as for a T4: Unsloth gives it to capability 8.0 and more
    if not CASES[name].get("gpus"):  # else each process starts its own
        start_backend(CASES[name].get("backend", "unsloth"))
    import torch

    hold_to_memory(memory)
    try:
        return {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}", **measure(name, work)}
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": describe_error(error)[:120]}


def hold_to_memory(gib: float) -> None:
    """Holds this process, and those that it starts, to so much memory of each GPU."""
    import torch

    share = gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:True,per_process_memory_fraction:{share:.5f}"
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(share, gpu)


def main() -> None:
    """Runs the cases, prints the table."""
    if sys.argv[1:2] == ["--rank"]:
        return train_rank(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--make", action="store_true", help="only makes the base models of the cases")
    parser.add_argument("--one", action="store_true", help="in this process; the last line is JSON")
    parser.add_argument("--memory", type=float, default=14.56, help="GiB the process may use")
    parser.add_argument("--sms", type=int, default=0, help="multiprocessors of each GPU that a process may use; 0: all")
    parser.add_argument("--steps", type=int, default=0, help="in place of the cases' own")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    parser.add_argument("--out", type=Path, help="append one JSON object per case")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CASES))
        return
    if options.one:
        CASES[options.cases[0]] |= {"steps": options.steps} if options.steps else {}
        print(json.dumps(run_one(options.cases[0], options.work, options.memory)))
        return
    for name in options.cases:
        case_settings(name, options.work)  # makes base models, at full width
    if options.make:
        return
    with stand_in.hold_to_sms(options.sms):
        results = run_cases(options)
    for name, result in results.items():
        print(f"| {name} |", " | ".join(f"{key} {value}" for key, value in result.items()), "|")


def run_cases(options: argparse.Namespace) -> dict[str, dict]:
    """Runs each case in a process of its own and returns what was measured, the rates of the GPU first."""
    results = {"rates": stand_in.rates_of_a_child()} if options.sms else {}
    for name in options.cases:
        command = [sys.executable, __file__, name, "--one", "--memory", str(options.memory), "--work", options.work]
        command += ["--steps", str(options.steps)]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(done.stdout[-6000:], flush=True)
        results[name] = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"failed": done.returncode}
        results[name]["seconds"] = round(time.perf_counter() - began)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps({"case": name, "sms": options.sms, **results[name]}) + "\n")
    return results


if __name__ == "__main__":
    main()
