"""What a run will do and cost, before it starts: the rows of every step, memory, hours, sessions. Needs no torch."""

import argparse
import bisect
import json
import math
import random
import re
import sys
from pathlib import Path

from helpers import env, presets

POOL = 2048  # rows that are sorted by length together; more pads less, fewer mixes rows better
BACKENDS = ("unsloth", "peft")
TRACKERS = {"none": "", "wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}  # report_to: its package
DEFAULTS = {  # of trl.SFTConfig, below the settings of the notebook
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "max_steps": -1,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.0,
    "weight_decay": 0.01,
    "logging_steps": 1,
    "train_sampling_strategy": "group_by_length",
    "report_to": "none",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "gradient_checkpointing": True,
    "optim": "adamw_torch",
}
OWNED = {  # names in `sft` that something else decides
    "output_dir": "outputs and run_name",
    "seed": "train.seed",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_train_epochs",
    "max_length": "shared.max_length (prepare_data drops a longer row, nothing is cut)",
    "packing": "nothing: without xformers it is slower than padding",
    "dataset_kwargs": "helpers.chat",
    "per_device_eval_batch_size": "the longest row",
    "average_tokens_across_devices": "nothing: a step is always weighted by its tokens, over all devices",
}


def configure(parameters: dict) -> dict:
    """Returns a training configuration: the stage's parameters with the defaults of `sft` below them.

    Raises ValueError for an unknown backend or tracker, a name in `sft` that belongs elsewhere, a number out of range.
    """
    config = {name: value for name, value in parameters.items() if name not in ("outputs", "run_name")}
    for name in config["sft"]:
        if name in OWNED:
            raise ValueError(f"sft.{name} is decided by {OWNED[name]}: set it there.")
    config["sft"] = sft = {**DEFAULTS, **config["sft"]}
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if sft.get(name) is False:  # YAML reads a bare no as false
            sft[name] = "no"
    choices = {
        "train.backend": (config["backend"], BACKENDS),
        "train.device_map": (config["device_map"], ("", "balanced")),
        "sft.report_to": (sft["report_to"], tuple(TRACKERS)),
        "sft.train_sampling_strategy": (sft["train_sampling_strategy"], ("group_by_length", "random")),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}.")
    positive = {"train.learning_rate": config["learning_rate"], "train.num_train_epochs": config["num_train_epochs"]}
    positive |= {f"sft.{n}": sft[n] for n in ("per_device_train_batch_size", "gradient_accumulation_steps")}
    for name, value in positive.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}: expected more than 0.")
    for name in ("max_tokens", "num_gpus", "eval_rows"):
        if config[name] < 0:
            raise ValueError(f"train.{name} is {config[name]}: expected 0 or more.")
    if config["device_map"] and config["num_gpus"] != 1:
        raise ValueError(f"train.device_map splits one model over the cards: num_gpus is {config['num_gpus']}, set 1.")
    if "early_stopping_patience" in sft and not sft.get("load_best_model_at_end"):
        raise ValueError("sft.early_stopping_patience needs sft.load_best_model_at_end: true.")
    return config


# The rows of every step


def cut(order, lengths, rows: int = 0, max_tokens: int = 0) -> list[list[int]]:
    """Cuts row numbers, in this order, into micro-batches of at most `rows` rows or `max_tokens` tokens, pads included.

    A row longer than `max_tokens` is a micro-batch of its own.
    """
    batches, longest = [], 0
    for row in order:
        longest = max(longest, lengths[row]) if batches else lengths[row]
        full = len(batches[-1]) >= rows if rows and batches else False
        if not batches or full or (max_tokens and longest * (len(batches[-1]) + 1) > max_tokens):
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches


def padded(batch, lengths) -> int:
    """Returns the tokens a micro-batch computes, pads included: rows × the longest."""
    return len(batch) * max(lengths[row] for row in batch)


def micro_batches(lengths, epoch: int, *, rows: int, max_tokens: int, sampling: str, seed: int) -> list[list[int]]:
    """Returns one epoch's micro-batches (lists of row numbers), each row once, in seeded random order.

    Rows of like length stand together: pools of about POOL random rows are sorted and cut. `sampling` is the library's
    `train_sampling_strategy`: "group_by_length", or "random" for rows in random order.
    """
    rng = random.Random(f"{seed} {epoch}")
    order = rng.sample(range(len(lengths)), len(lengths))
    if sampling == "random":
        return cut(order, lengths, rows, max_tokens)
    pools = max(1, round(len(lengths) / POOL))
    found = []
    for pool in range(pools):
        found += cut(sorted(order[pool::pools], key=lengths.__getitem__), lengths, rows, max_tokens)
    rng.shuffle(found)
    return found


def schedule(lengths, batches: dict, world: int) -> list:
    """Returns the rows of every step: [epoch][step][rank] is a list of micro-batches (lists of row numbers).

    `batches` is what `batch_settings` returns. Every epoch has the same number of steps, and every rank of a step the
    same number of micro-batches wherever a micro-batch can be split: the largest are. Within a step the costliest are
    dealt first, to and fro, so that no rank waits long.
    """
    choice = {name: batches[name] for name in ("rows", "max_tokens", "sampling", "seed")}
    each = world * batches["accumulation"]
    first = micro_batches(lengths, 0, **choice)
    epochs = math.ceil(batches["epochs"])
    if batches["max_steps"] > 0:
        epochs = math.ceil(batches["max_steps"] / math.ceil(len(first) / each))
    found = [first, *(micro_batches(lengths, epoch, **choice) for epoch in range(1, epochs))]
    number = -(-max(map(len, found)) // world) * world
    for epoch in found:
        while len(epoch) < number:
            largest = max(range(len(epoch)), key=lambda at: (len(epoch[at]) > 1, padded(epoch[at], lengths)))
            batch = epoch[largest]
            if len(batch) == 1:
                break
            epoch[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return [
        [deal(epoch[start : start + each], lengths, world) for start in range(0, len(epoch), each)] for epoch in found
    ]


def deal(step: list, lengths, world: int) -> list:
    """Deals a step's micro-batches to the ranks, the costliest first, to and fro."""
    if world == 1:
        return [step]
    dealt = [[] for _ in range(world)]
    for place, batch in enumerate(sorted(step, key=lambda batch: -padded(batch, lengths))):
        turn = place % (2 * world)
        dealt[min(turn, 2 * world - 1 - turn)].append(batch)
    return dealt


def batch_settings(config: dict) -> dict:
    """Returns what decides the rows of every step, from a configuration as `configure` returns it."""
    sft = config["sft"]
    return {
        "rows": 0 if config["max_tokens"] else sft["per_device_train_batch_size"],
        "max_tokens": config["max_tokens"],
        "accumulation": sft["gradient_accumulation_steps"],
        "epochs": config["num_train_epochs"],
        "max_steps": sft["max_steps"],
        "sampling": sft["train_sampling_strategy"],
        "seed": config["seed"],
    }


def checkpointed(tokens: int, config: dict, limit: int = 0) -> bool:
    """Returns whether a micro-batch of so many tokens, pads included, computes its activations twice to save memory.

    With a token budget only those above it do; without, all or none, as sft.gradient_checkpointing says. `limit` is
    the budget after memory ran out, 0 before.
    """
    budget = min(filter(None, (config["max_tokens"], limit)), default=0)
    always = bool(config["sft"]["gradient_checkpointing"]) and not config["max_tokens"]
    return always or bool(budget and tokens > budget)


def effective_batch(config: dict, epochs: list) -> float:
    """Returns the rows of an optimizer step over all cards; their mean where micro-batches are cut by tokens."""
    rows = [sum(len(batch) for share in step for batch in share) for step in epochs[0]]
    return max(rows) if not config["max_tokens"] else round(sum(rows) / len(rows), 1)


def batch_line(config: dict, epochs: list) -> str:
    """Returns the effective batch as a product, from the schedule itself."""
    step = max(epochs[0], key=lambda step: len(step[0]))
    size = f"{config['max_tokens']:,} tokens" if config["max_tokens"] else f"{max(map(len, step[0]))} rows"
    found = effective_batch(config, epochs)
    return f"effective batch {size} × {len(step[0])} micro-batches × {len(step)} processes = {found:g} rows" + (
        " on average" if config["max_tokens"] else ""
    )


# The model


LLAMA = {
    "vocab_size": 128_256,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131_072,
    "num_key_value_heads": 8,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
SHAPES = {  # as the models' own config.json
    "8B": {
        **LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "3B": {
        **LLAMA,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "tie_word_embeddings": True,
        "head_dim": 128,
    },
    "1B": {
        **LLAMA,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
        "head_dim": 64,
    },
}


def spread(points: list[tuple[float, float]], number: int) -> list[int]:
    """Returns `number` lengths with these quantiles, [(share of rows, tokens)], log-linear in between, ascending."""
    shares, values = zip(*points)
    found = []
    for place in range(number):
        share = (place + 0.5) / number
        at = min(max(bisect.bisect_right(shares, share), 1), len(shares) - 1)
        part = (share - shares[at - 1]) / (shares[at] - shares[at - 1])
        low, high = math.log(values[at - 1]), math.log(values[at])
        found.append(round(math.exp(low + part * (high - low))))
    return found
