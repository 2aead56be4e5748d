"""What a run will do and cost, before it starts: the rows of every step, memory, hours, sessions. Needs no torch.

python -m helpers.plan --preset NAME [--json]. Memory is predicted from measurements on an H200 held to a T4's memory,
hours from a T4's measured rate of arithmetic and its memory bandwidth: predictions, not measurements.
"""

import argparse
import bisect
import json
import math
import random
import re
import sys
from pathlib import Path

from helpers import env, presets, rubric

EVAL_TOKENS = 4096  # of a validation micro-batch in training, pads included
POSITIONS = 512  # answer tokens that are scored at one time: their logits are 512 × 128,256 × 4 B = 0.24 GiB
HELD = 32_768  # tokens of a batch that is answered, prompts and replies to come: 4 GiB of keys and values of an 8B
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
    sft.pop("settings_from", None)  # helpers.train has seen to it
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
    same number of micro-batches: in a last, short step the largest are halved to that end. `deal` shares a step out so
    that no rank waits long. The rows of a step depend on ranks × accumulation alone.
    """
    choice = {name: batches[name] for name in ("rows", "max_tokens", "sampling", "seed")}
    each = world * batches["accumulation"]
    first = micro_batches(lengths, 0, **choice)
    epochs = math.ceil(batches["epochs"])
    if batches["max_steps"] > 0:
        epochs = math.ceil(batches["max_steps"] / math.ceil(len(first) / each))
    found = [first, *(micro_batches(lengths, epoch, **choice) for epoch in range(1, epochs))]
    for epoch in found:
        split_largest(epoch, max(map(len, found)), lengths)
    return [
        [deal(epoch[start : start + each], lengths, world) for start in range(0, len(epoch), each)] for epoch in found
    ]


def split_largest(batches: list, number: int, lengths) -> None:
    """Halves the largest micro-batches in place until there are `number`, or none has two rows."""
    while len(batches) < number:
        largest = max(range(len(batches)), key=lambda at: (len(batches[at]) > 1, padded(batches[at], lengths)))
        batch = batches[largest]
        if len(batch) == 1:
            return
        batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


def deal(step: list, lengths, world: int) -> list:
    """Deals a step's micro-batches to the ranks, as many to each and as equal in tokens as exchanging two can make."""
    if world == 1:
        return [step]
    each = -(-len(step) // world)
    split_largest(step, each * world, lengths)
    step = sorted(step, key=lambda batch: -padded(batch, lengths))
    dealt = [step[rank::world] for rank in range(world)]

    def load(rank):
        return sum(padded(batch, lengths) for batch in dealt[rank])

    while True:
        most, least = max(range(world), key=load), min(range(world), key=load)
        apart = load(most) - load(least)
        swaps = [
            (abs(apart - 2 * (padded(one, lengths) - padded(other, lengths))), mine, theirs)
            for mine, one in enumerate(dealt[most])
            for theirs, other in enumerate(dealt[least])
        ]
        best, mine, theirs = min(swaps, default=(apart, 0, 0))
        if best >= apart:
            return [sorted(share, key=lambda batch: -padded(batch, lengths)) for share in dealt]
        dealt[most][mine], dealt[least][theirs] = dealt[least][theirs], dealt[most][mine]


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
    "embedded": {  # of `tiny`
        "vocab_size": 2048,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
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


def model_shape(base_model: str) -> dict:
    """Returns the shape of a base model, as its config.json says it: a folder's own, or that of a known Llama's name.

    Raises ValueError for a name whose size is not known.
    """
    if (Path(base_model) / "config.json").is_file():
        return env.read_json(Path(base_model) / "config.json")
    if base_model == "embedded":
        return SHAPES["embedded"]
    found = re.search(r"(?i)llama.*?[-_/.](8b|3b|1b)(?![a-z0-9])", base_model)
    if not found:
        raise ValueError(f"the shape of {base_model!r} is not known. Expected a folder, or Llama 3.1 8B, 3.2 3B or 1B.")
    return SHAPES[found.group(1).upper()]


def linear_layers(shape: dict) -> dict[str, tuple[int, int]]:
    """Returns the linear layers of one decoder layer: {name: (inputs, outputs)}."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    query, key = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    return {
        "q_proj": (hidden, query),
        "k_proj": (hidden, key),
        "v_proj": (hidden, key),
        "o_proj": (query, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def parameters(shape: dict, lora: dict) -> dict[str, int]:
    """Returns the numbers of parameters: `linear` (of the decoder layers), `table` (one of input and output table),
    `base` (all of the base model), `trainable` (the adapter's: r × (inputs + outputs) of every target)."""
    layers, count = linear_layers(shape), shape["num_hidden_layers"]
    targets = lora.get("target_modules", "all-linear")
    targets = list(layers) if targets == "all-linear" else [targets] if isinstance(targets, str) else targets
    unknown = [name for name in targets if name not in layers]
    if unknown:
        raise ValueError(f"lora.target_modules names {', '.join(unknown)}: expected some of {', '.join(layers)}.")
    linear = count * sum(inputs * outputs for inputs, outputs in layers.values())
    table = shape["vocab_size"] * shape["hidden_size"]
    norms = (2 * count + 1) * shape["hidden_size"]
    return {
        "linear": linear,
        "table": table,
        "base": linear + table * (1 if shape.get("tie_word_embeddings") else 2) + norms,
        "trainable": count * lora.get("r", 8) * sum(sum(layers[name]) for name in targets),
    }


# Memory


GIB = 2**30
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, 8-bit scales of 64, 32-bit scales of those
OPTIMIZER = {"adamw_8bit": 2, "paged_adamw_8bit": 2}  # bytes of state a trainable parameter; 8 for the others
SPARE = 0.5  # GiB of a card that a plan leaves free: CUDA's own context, fragmentation
T4_GIB = 14.56
RESERVED = 1.02  # memory the allocator holds, of what tensors fill


def activation_bytes(shape: dict, backend: str) -> tuple[float, float]:
    """Returns bytes a token: kept by one decoder layer for its backward pass, and needed besides while that runs.

    Unsloth keeps inputs of norms and projections, queries, keys, values, gate and up, in 16 bits. PEFT's numbers are
    fitted to measurements (tests/benchmarks/RESULTS.md): transformers' norms work in 32 bits, and more is kept.
    """
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    key = linear_layers(shape)["k_proj"][1]
    if backend == "unsloth":
        return 2 * (6 * hidden + 2 * key + 2 * inner), 2 * (4 * hidden + 3 * inner)
    return 2 * (9.25 * hidden + 4.75 * inner), 2 * 4 * hidden


def memory(config: dict, shape: dict, sizes: set[int]) -> dict[str, float]:
    """Returns predicted GiB a card: `weights`, `adapter` (with gradients and optimizer), `activations`, and `peak`.

    `sizes` are the tokens of the run's micro-batches, pads included. Where they are small, the validation has the peak.
    """
    count = parameters(shape, config["lora"])
    cards = 2 if config["device_map"] else 1
    full = 2 if config.get("dtype", "float16") != "float32" else 4
    tables = count["base"] - count["linear"]
    weights = (count["linear"] * (NF4 if config["load_in_4bit"] else full) + tables * full) / cards
    adapter = count["trainable"] * (4 + 4 + OPTIMIZER.get(config["sft"]["optim"], 8)) / cards
    kept, working = activation_bytes(shape, config["backend"])
    layers, hidden = shape["num_hidden_layers"] / cards, shape["hidden_size"]
    on_card = 0 if config["backend"] == "unsloth" else 2 * hidden * layers  # else they wait in the machine's memory
    activations = max(
        tokens * (kept + working + on_card if checkpointed(tokens, config) else kept * layers + working)
        for tokens in sizes
    )
    if config["load_in_4bit"]:
        activations += hidden * shape["intermediate_size"] * 2  # one matrix, out of its 4 bits
    validation = 2 * 4 * POSITIONS * shape["vocab_size"]  # logits and their logarithms
    validation += EVAL_TOKENS * activation_bytes(shape, "unsloth")[1]  # nothing is kept
    activations = max(activations, validation)
    buffers = 0.12 * GIB * min(1, count["base"] / 1e9)
    parts = {"weights": weights, "adapter": adapter, "activations": activations + buffers}
    found = {name: value / GIB for name, value in parts.items()}
    return {**found, "peak": sum(found.values()) * RESERVED}


def largest_budget(config: dict, shape: dict, longest: int, card: float) -> int:
    """Returns the largest max_tokens, in steps of 128, whose predicted peak fits a card of so many GiB, else 0."""
    for budget in range(16_384, 0, -128):
        if memory({**config, "max_tokens": budget}, shape, {budget, longest})["peak"] <= card - SPARE:
            return budget
    return 0


# Time


T4_FLOPS = 20.4e12  # floating-point operations a second, measured in a 4096³ product in float16
T4_BYTES = 320e9  # bytes a second of its memory, by its data sheet
DRIVE_BYTES = 50e6  # bytes a second of a checkpoint's way to disk and mirror


def flops_per_token(shape: dict) -> float:
    """Returns the floating-point operations of one token's forward pass: 2 a weight. Attention's own are left out."""
    count = parameters(shape, {"target_modules": []})
    return 2 * (count["linear"] + count["table"])


def pass_seconds(shape: dict, load_in_4bit: bool) -> float:
    """Returns what one pass through all layers costs a T4 whatever the tokens: taking the weights out of 4 bits.

    Read at NF4, written and read again in 16 bits.
    """
    return parameters(shape, {})["linear"] * (NF4 + 2 + 2 if load_in_4bit else 2) / T4_BYTES


def training_seconds(config: dict, shape: dict, lengths, epochs: list) -> float:
    """Returns the seconds a T4 per rank needs for the steps, forward 1 part, backward 1, recomputation 1."""
    each, fixed = flops_per_token(shape) / T4_FLOPS, pass_seconds(shape, config["load_in_4bit"])
    limit, total, done = config["sft"]["max_steps"], 0.0, 0
    wanted = limit if limit > 0 else math.ceil(config["num_train_epochs"] * len(epochs[0]))
    for epoch in epochs:
        for step in epoch[: wanted - done]:
            loads = []
            for share in step:
                sizes = [padded(batch, lengths) for batch in share]
                loads.append(sum((3 if checkpointed(size, config) else 2) * (size * each + fixed) for size in sizes))
            total += sum(loads) if config["device_map"] else max(loads)
            done += 1
    return total


def evaluation_seconds(shape: dict, load_in_4bit: bool, lengths: list[int], batch: int, new_tokens: int) -> float:
    """Returns the seconds one T4 needs to score both models' rows and to write their replies, every one to the cap.

    `lengths` are the rows' tokens. A row's whole length is taken for its prompt's.
    """
    each, fixed = flops_per_token(shape) / T4_FLOPS, pass_seconds(shape, load_in_4bit)
    table = parameters(shape, {})["table"] * 2 / T4_BYTES
    key = 4 * linear_layers(shape)["k_proj"][1] * shape["num_hidden_layers"] / T4_BYTES  # keys and values of a token
    held, total = [length + new_tokens for length in sorted(lengths)], 0.0
    for rows in cut(range(len(held)), held, batch, HELD):
        read = sum(held[row] - new_tokens / 2 for row in rows)
        total += new_tokens * (fixed + table + read * key + len(rows) * each)
        total += 2 * (fixed + each * sum(held[row] - new_tokens for row in rows))  # scored, and read before a reply
    return 2 * total


# The plan


EMBEDDED = [(0.0, 110), (0.5, 168), (0.95, 230), (0.99, 267), (1.0, 395)]
CORPORA = {  # part of a data set's name: rows, their tokens by share of rows, where that is from
    "embedded": (322, EMBEDDED, "the embedded corpus with the embedded tokenizer"),
    "bengali-?empathetic-?conversations-?corpus": (
        38_105,
        [(0.0, 75), (0.5, 218), (0.95, 503), (0.99, 1998), (1.0, 6796)],
        "published lengths of the corpus in Llama 3.1's tokens, and 60 for the template",
    ),
    "finetome": (100_000, [(0.0, 60), (0.5, 420), (0.95, 1500), (0.99, 3000), (1.0, 12_000)], "assumed"),
    "wikitext": (23_767, [(0.0, 6), (0.5, 90), (0.95, 330), (0.99, 500), (1.0, 900)], "assumed"),
}


def row_lengths(settings: dict, run: Path) -> tuple[list[int], str]:
    """Returns the tokens of every row of the data set, ascending, and where they are from: the run's own data, else
    what is known about the data set. Raises ValueError when nothing is."""
    data = settings["prepare_data"]
    made = run / "data" / "metrics.json"
    if made.is_file():
        found = env.read_json(made)
        if found["dataset"] == data["dataset"]:
            return spread(found["tokens"]["quantiles"], found["rows_out"]), f"{made}"
    known = next((facts for name, facts in CORPORA.items() if re.search(name, data["dataset"], re.IGNORECASE)), None)
    if known is None:
        raise ValueError(f"nothing is known about {data['dataset']!r} yet: run stage prepare_data first.")
    rows, points, source = known
    lengths = [tokens for tokens in spread(points, rows) if tokens <= data["max_length"]]
    if data["max_rows"] and data["max_rows"] < len(lengths):
        lengths = [lengths[place * len(lengths) // data["max_rows"]] for place in range(data["max_rows"])]
    return lengths, source


def make(settings: dict, run: Path, card: float = T4_GIB, session_hours: float = 12.0) -> dict:
    """Returns the plan of a run: what `helpers.plan --json` prints.

    `settings` are all stages' ({stage: {parameter: value}}), `card` the GiB of a card. Raises ValueError when the run
    cannot fit, with the setting that would, and as `configure` does.
    """
    config, data, judge = configure(settings["train"]), settings["prepare_data"], settings["evaluate"]
    shape = model_shape(config["base_model"])
    lengths, source = row_lengths(settings, run)
    every = random.Random(config["seed"]).sample(lengths, len(lengths))
    held = round(len(every) * data["val_share"])
    train = every[: round(len(every) * data["train_share"])]
    tested = max(1, len(every) - len(train) - held)
    tested = min(tested, judge["max_rows"] or tested)
    return figures(config, shape, train, tested, judge, card, session_hours, min(held, config["eval_rows"] or held)) | {
        "lengths_from": source
    }


def for_run(run: Path, config: dict) -> dict:
    """Returns the plan of a run whose data are prepared, for the cards of this machine, a T4's where there is none.

    Raises ValueError when it cannot fit, with the setting that would.
    """
    data, record = env.read_json(run / "data" / "metrics.json"), env.read_json(run / "run.json")
    judge = {name: default for name, (default, _) in presets.parameters_cell("evaluate").items()}
    judge |= record.get("settings", {}).get("evaluate", {})
    cards = env.gpu_gib()
    config = {**config, "num_gpus": config["num_gpus"] or max(1, len(cards))}
    lengths = spread(data["tokens"]["quantiles"], data["train"])
    random.Random(config["seed"]).shuffle(lengths)
    tested = min(data["test"], judge["max_rows"] or data["test"])
    validated = min(data["val"], config["eval_rows"] or data["val"])
    shape = model_shape(config["base_model"])
    found = figures(config, shape, lengths, tested, judge, min(cards, default=T4_GIB), 12.0, validated)
    return found | {"lengths_from": "data/metrics.json"}


def figures(config, shape, lengths, tested, judge, card, session_hours, validated) -> dict:
    """Returns the plan from the train rows' lengths and the numbers of rows tested and validated on."""
    world = config["num_gpus"] or 1
    epochs = schedule(lengths, batch_settings(config), world)
    count = parameters(shape, config["lora"])
    batches = [batch for step in epochs[0] for share in step for batch in share]
    sizes = [padded(batch, lengths) for batch in batches]
    steps = config["sft"]["max_steps"]
    steps = steps if steps > 0 else math.ceil(config["num_train_epochs"] * len(epochs[0]))
    peak = memory(config, shape, set(sizes))
    embedded = shape is SHAPES["embedded"] or shape["hidden_size"] == SHAPES["embedded"]["hidden_size"]
    if peak["peak"] > card - SPARE and not embedded:
        budget = largest_budget(config, shape, max(lengths), card)
        way = f"train.max_tokens={budget} would fit" if budget else "a smaller base_model or load_in_4bit would help"
        raise ValueError(
            f"predicted peak {peak['peak']:.1f} GiB a card (weights {peak['weights']:.1f}, adapter "
            f"{peak['adapter']:.1f}, activations {peak['activations']:.1f}); a card has {card:.2f} GiB, {SPARE} of "
            f"them kept free. {way}."
        )
    warm = config["sft"]["warmup_steps"]
    mean = sum(lengths) / len(lengths)
    prompts = min(len(rubric.prompts()), judge["max_prompts"] or len(rubric.prompts()))
    judged = [lengths[row % len(lengths)] for row in range(tested)] + [round(mean)] * prompts
    forward = flops_per_token(shape) / T4_FLOPS
    strategy, every = config["sft"]["eval_strategy"], config["sft"].get("eval_steps") or config["sft"]["logging_steps"]
    validations = {"no": 0, "epoch": steps / len(epochs[0])}.get(strategy, steps / every if every >= 1 else 1 / every)
    strategy, every = config["sft"]["save_strategy"], config["sft"].get("save_steps") or 500
    saves = {"no": 0, "epoch": steps / len(epochs[0]), "best": validations}.get(
        strategy, steps / every if every >= 1 else 1 / every
    )
    size = count["trainable"] * (4 + OPTIMIZER.get(config["sft"]["optim"], 8))
    hours = {
        "train": training_seconds(config, shape, lengths, epochs) / 3600,
        "validate": validations * validated * mean * forward / world / 3600,
        "evaluate": evaluation_seconds(
            shape, config["load_in_4bit"], judged, judge["batch_size"], judge["max_new_tokens"]
        )
        / (1 if config["device_map"] else judge["num_gpus"] or world)
        / 3600,
        "checkpoints": saves * size / DRIVE_BYTES / 3600,
    }
    hours["total"] = sum(hours.values())
    useful = sum(lengths)
    seen = useful * steps / len(epochs[0])
    return {
        "trainable_parameters": count["trainable"],
        "total_parameters": count["base"] + count["trainable"],
        "world_size": world,
        "effective_batch": effective_batch(config, epochs),
        "batch": batch_line(config, epochs),
        "optimizer_steps": steps,
        "warmup_share": warm if warm < 1 else warm / steps,
        "train_rows": len(lengths),
        "tokens_per_epoch": useful,
        "useful_token_fraction": useful / sum(sizes),
        "arithmetic_per_useful_token": sum(n * (3 if checkpointed(n, config) else 2) for n in sizes) / 3 / useful,
        "peak_memory_gib": None if embedded else round(peak["peak"], 2),
        "tokens_per_second": round(seen / (hours["train"] * 3600), 1),
        "hours": {name: round(value, 3) for name, value in hours.items()},
        "evaluation_share": (hours["evaluate"] + hours["validate"]) / hours["total"],
        "sessions": max(1, math.ceil(hours["total"] / session_hours)),
    }


def table(plan: dict) -> dict[str, str]:
    """Returns a plan as lines to show: {what: how much}."""
    hours = plan["hours"]
    peak = plan["peak_memory_gib"]
    return {
        "trainable parameters": f"{plan['trainable_parameters']:,} of {plan['total_parameters']:,} "
        f"({plan['trainable_parameters'] / plan['total_parameters']:.2%})",
        "an optimizer step": plan["batch"],
        "optimizer steps": f"{plan['optimizer_steps']:,}, the first {plan['warmup_share']:.1%} warm-up",
        "an epoch": f"{plan['train_rows']:,} rows, {plan['tokens_per_epoch']:,} tokens",
        "useful of computed tokens": f"{plan['useful_token_fraction']:.3f}",
        "arithmetic a useful token": f"{plan['arithmetic_per_useful_token']:.3f} (1: all checkpointed, no pads)",
        "peak memory a card": f"{peak:.2f} GiB (predicted)" if peak else "no matter: the embedded model",
        "hours on T4s": f"{hours['total']:.2f} (predicted): training {hours['train']:.2f}, validation "
        f"{hours['validate']:.2f}, evaluation {hours['evaluate']:.2f}, checkpoints {hours['checkpoints']:.2f}",
        "evaluation's share": f"{plan['evaluation_share']:.0%}",
        "sessions": str(plan["sessions"]),
        "lengths of rows": plan["lengths_from"],
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 when the settings are bad or the run cannot fit."""
    parser = argparse.ArgumentParser(prog="python -m helpers.plan", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--run-name", help="take the lengths of this run's data; default: the preset's name")
    parser.add_argument("--outputs", default="outputs", metavar="DIR")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="STAGE.PARAM=VALUE", dest="sets")
    parser.add_argument("--memory", type=float, default=T4_GIB, help="GiB of a card (default: a T4's)")
    parser.add_argument("--session-hours", type=float, default=12.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    run_name = options.run_name or options.preset
    try:
        settings = presets.resolve(options.preset, run_name, options.outputs, options.sets, tiny=False)
        run = env.run_folder(options.outputs, run_name)
        found = {"preset": options.preset, **make(settings, run, options.memory, options.session_hours)}
    except (presets.Refused, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(f"{name:28}{value}" for name, value in table(found).items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
