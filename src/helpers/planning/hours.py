"""Estimated hours, from a T4's measured rate of arithmetic and its memory bandwidth."""

from collections.abc import Sequence
from functools import cache
from itertools import chain, islice
from typing import Any

from helpers.data.probes import scored_probes
from helpers.data.prompts import fixed_prompts
from helpers.models.batching import GENERATION_TOKEN_BUDGET, SCORING_TOKEN_BUDGET, cut_batches, padded_tokens
from helpers.models.families import count_parameters, linear_layers
from helpers.planning.batches import MicroBatch, Schedule, count_steps, uses_checkpointing
from helpers.planning.config import TrainingConfig
from helpers.planning.lengths import PlannedRows
from helpers.planning.memory import NF4_BYTES, OPTIMIZER_BYTES

T4_FLOPS = 20.4e12  # floating-point operations per second, measured in a 4096³ product in float16
T4_BYTES = 320e9  # bytes per second of its memory, by its data sheet
TOKENS_PER_BYTE = 0.4  # of Bengali in UTF-8, by Llama 3's vocabulary
DRIVE_BYTES = 50e6  # bytes per second of a checkpoint's way to disk and mirror


def token_seconds(shape: dict) -> float:
    """Returns a T4's seconds for one token's forward pass: 2 operations per weight. Attention's own are left out."""
    count = count_parameters(shape, {"target_modules": []})
    return 2 * (count["linear"] + count["table"]) / T4_FLOPS


def dequantisation_seconds(shape: dict, load_in_4bit: bool) -> float:
    """Returns what one pass through all layers costs a T4 whatever the tokens: taking the weights out of 4 bits.

    Read at NF4, written and read again in 16 bits.
    """
    return count_parameters(shape, {})["linear"] * (NF4_BYTES + 2 + 2 if load_in_4bit else 2) / T4_BYTES


def training_seconds(config: TrainingConfig, shape: dict, lengths: Sequence[int], schedule: Schedule) -> float:
    """Returns the seconds that one T4 per rank needs for the steps: forward and backward, and recomputation if any."""
    per_token, fixed, total = token_seconds(shape), dequantisation_seconds(shape, config.load_in_4bit), 0.0

    def batch_seconds(batch: MicroBatch) -> float:
        tokens = padded_tokens(batch, lengths)
        return (2 + uses_checkpointing(tokens, config)) * (tokens * per_token + fixed)

    for step in islice(chain.from_iterable(schedule), count_steps(config, schedule)):
        loads = [sum(map(batch_seconds, share)) for share in step]
        total += sum(loads) if config.device_map else max(loads)
    return total


def evaluation_seconds(
    shape: dict, load_in_4bit: bool, lengths: list[int], batch_size: int, new_tokens: int, scored: Sequence[int] = ()
) -> float:
    """Returns the seconds one T4 needs to score both models' rows and to write their replies, every one to the cap.

    `lengths` are the rows' tokens. A row's whole length is taken for its prompt's. `scored` are those of texts without
    a reply.
    """
    per_token, fixed = token_seconds(shape), dequantisation_seconds(shape, load_in_4bit)
    table = count_parameters(shape, {})["table"] * 2 / T4_BYTES
    cached = 4 * linear_layers(shape)["k_proj"][1] * shape["num_hidden_layers"] / T4_BYTES  # a token's keys and values
    sizes, total = [length + new_tokens for length in sorted(lengths)], 0.0
    for rows in cut_batches(range(len(sizes)), sizes, batch_size, GENERATION_TOKEN_BUDGET):
        read = sum(sizes[row] - new_tokens / 2 for row in rows)
        total += new_tokens * (fixed + table + read * cached + len(rows) * per_token)
        total += 2 * (fixed + per_token * sum(sizes[row] - new_tokens for row in rows))  # scored; read before a reply
    for rows in cut_batches(range(len(scored)), sorted(scored), batch_size, SCORING_TOKEN_BUDGET):
        total += fixed + per_token * sum(sorted(scored)[row] for row in rows)
    return 2 * total


@cache
def probe_tokens(most: int) -> list[int]:
    """Returns the estimated tokens of each probe that is scored, `most` items of each kind, 0: all; by Llama 3's rate
    in Bengali, which is above the one in English."""
    texts = [str(probe.row.get("text") or probe.row["messages"]) for probe in scored_probes([], most)]
    return [round(len(text.encode()) * TOKENS_PER_BYTE) for text in texts]


def estimate_hours(
    config: TrainingConfig, shape: dict, rows: PlannedRows, schedule: Schedule, evaluation: dict[str, Any]
) -> dict[str, float]:
    """Returns the estimated hours on T4s: `train`, `validate`, `evaluate`, `checkpoints` and their `total`."""
    sft, world, steps = config.sft, config.num_gpus or 1, count_steps(config, schedule)
    epochs, mean = steps / len(schedule[0]), sum(rows.train) / len(rows.train)

    def count_events(strategy: str, every: float) -> float:
        return {"no": 0, "epoch": epochs}.get(strategy, steps / every if every >= 1 else 1 / every)

    validations = count_events(sft["eval_strategy"], sft.get("eval_steps") or sft["logging_steps"])
    by_validation = sft["save_strategy"] == "best"
    saves = validations if by_validation else count_events(sft["save_strategy"], sft.get("save_steps") or 500)
    checkpoint_bytes = count_parameters(shape, config.lora)["trainable"] * (4 + OPTIMIZER_BYTES.get(sft["optim"], 8))
    prompts = min(len(fixed_prompts()), evaluation["max_prompts"] or len(fixed_prompts()))
    validated = min(rows.val, config.eval_rows or rows.val)
    tested = min(rows.test, evaluation["max_rows"] or rows.test)
    answered = [rows.train[row % len(rows.train)] for row in range(tested)] + [round(mean)] * prompts
    limits = evaluation["batch_size"], evaluation["max_new_tokens"], probe_tokens(evaluation["max_probes"])
    answering = evaluation_seconds(shape, config.load_in_4bit, answered, *limits)
    answering_gpus = 1 if config.device_map else evaluation["num_gpus"] or world
    hours: dict[str, float] = {
        "train": training_seconds(config, shape, rows.train, schedule) / 3600,
        "validate": validations * validated * mean * token_seconds(shape) / world / 3600,
        "evaluate": answering / answering_gpus / 3600,
        "checkpoints": saves * checkpoint_bytes / DRIVE_BYTES / 3600,
    }
    return hours | {"total": sum(hours.values())}
