"""Estimated hours, from the speed of a GPU."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, NamedTuple

from helpers.data.probes import scored_probes
from helpers.data.prompts import fixed_prompts
from helpers.models.batching import (
    GENERATION_TOKEN_BUDGET,
    SCORING_TOKEN_BUDGET,
    cut_batches,
    padded_tokens,
    reply_sizes,
)
from helpers.models.families import count_parameters, model_shape
from helpers.planning.batches import MicroBatch, Schedule, count_steps, uses_checkpointing
from helpers.planning.config import TrainingConfig
from helpers.planning.lengths import PlannedRows
from helpers.planning.memory import OPTIMIZER_BYTES, VALIDATION_TOKEN_BUDGET
from helpers.planning.speed import Speed, seconds_of

TOKENS_PER_BYTE = 0.4  # of Bengali in UTF-8, by Llama 3's vocabulary


def training_seconds(config: TrainingConfig, speed: Speed, lengths: Sequence[int], schedule: Schedule) -> float:
    """Returns the seconds that one GPU per rank needs for the steps: forward and backward, and recomputation if any."""
    return sum(step_seconds(config, speed, lengths, schedule))


def step_seconds(config: TrainingConfig, speed: Speed, lengths: Sequence[int], schedule: Schedule) -> list[float]:
    """Returns the seconds of each optimizer step of the training: those of the rank that takes longest."""

    def batch_seconds(batch: MicroBatch) -> float:
        tokens = padded_tokens(batch, lengths)
        return seconds_of(speed.checkpointed if uses_checkpointing(tokens, config) else speed.training, tokens)

    together = sum if config.device_map else max
    steps = islice(chain.from_iterable(schedule), count_steps(config, schedule))
    return [speed.step + together([sum(map(batch_seconds, share)) for share in step]) for step in steps]


def evaluation_seconds(
    speed: Speed, lengths: list[int], batch_size: int, new_tokens: int, scored: Sequence[int] = ()
) -> tuple[float, float]:
    """Returns the seconds one GPU needs to write both models' replies, every one to the cap, and to score their rows.

    `lengths` are the rows' tokens. A row's whole length is taken for its prompt's. `scored` are those of texts without
    a reply.
    """
    lengths, scored, written, read = sorted(lengths), sorted(scored), 0.0, 0.0
    for rows in cut_batches(range(len(lengths)), reply_sizes(lengths, new_tokens), batch_size, GENERATION_TOKEN_BUDGET):
        kept = len(rows) * new_tokens / 2 + padded_tokens(rows, lengths)
        once = seconds_of(speed.forward, sum(lengths[row] for row in rows))  # scored, and read before a reply
        written += new_tokens * (seconds_of(speed.decode_step, len(rows)) + kept * speed.cached_token) + once
        read += once
    for rows in cut_batches(range(len(scored)), scored, batch_size, SCORING_TOKEN_BUDGET):
        read += seconds_of(speed.forward, sum(scored[row] for row in rows))
    return 2 * written, 2 * read


@cache
def probe_tokens(most: int) -> list[int]:
    """Returns the estimated tokens of each probe that is scored, `most` items of each kind, 0: all; by Llama 3's rate
    in Bengali, which is above the one in English."""
    texts = [str(probe.row.get("text") or probe.row["messages"]) for probe in scored_probes([], most)]
    return [round(len(text.encode()) * TOKENS_PER_BYTE) for text in texts]


class Answering(NamedTuple):
    """What the answers of both models take of one GPU, in seconds, and how many share them."""

    written: float  # every reply to the cap
    read: float  # scored
    replies: int
    gpus: int


def estimate_answering(
    config: TrainingConfig, speed: Speed, rows: PlannedRows, evaluation: Mapping[str, Any]
) -> Answering:
    """Returns what the answers are estimated to take; `evaluation` are the settings of 03_evaluate."""
    prompts = min(len(fixed_prompts()), evaluation["max_prompts"] or len(fixed_prompts()))
    tested = min(rows.test, evaluation["max_rows"] or rows.test)
    mean = round(sum(rows.train) / len(rows.train))
    answered = [rows.train[row % len(rows.train)] for row in range(tested)] + [mean] * prompts
    limits = evaluation["batch_size"], evaluation["max_new_tokens"], probe_tokens(evaluation["max_probes"])
    gpus = 1 if config.device_map else evaluation["num_gpus"] or config.num_gpus or 1
    return Answering(*evaluation_seconds(speed, answered, *limits), 2 * len(answered), gpus)


def count_events(config: TrainingConfig, schedule: Schedule) -> dict[str, float]:
    """Returns how many `validations` and `checkpoints` a training has."""
    sft, steps = config.sft, count_steps(config, schedule)

    def count(strategy: str, every: float) -> float:
        by_strategy = {"no": 0, "epoch": steps / len(schedule[0])}
        return by_strategy.get(strategy, steps / every if every >= 1 else 1 / every)

    validations = count(sft["eval_strategy"], sft.get("eval_steps") or sft["logging_steps"])
    saves = count(sft["save_strategy"], sft.get("save_steps") or 500)
    return {"validations": validations, "checkpoints": validations if sft["save_strategy"] == "best" else saves}


def estimate_hours(
    config: TrainingConfig, speed: Speed, rows: PlannedRows, schedule: Schedule, evaluation: Mapping[str, Any]
) -> dict[str, float]:
    """Returns the estimated hours at this speed: `train`, `validate`, `evaluate`, `checkpoints` and their `total`."""
    events, world = count_events(config, schedule), config.num_gpus or 1
    trainable = count_parameters(model_shape(config.base_model), config.lora)["trainable"]
    checkpoint_bytes = trainable * (4 + OPTIMIZER_BYTES.get(config.sft["optim"], 8))
    mean = sum(rows.train) / len(rows.train)
    passes = events["validations"] * min(rows.val, config.eval_rows or rows.val) * mean / VALIDATION_TOKEN_BUDGET
    answering = estimate_answering(config, speed, rows, evaluation)
    hours: dict[str, float] = {
        "train": training_seconds(config, speed, rows.train, schedule) / 3600,
        "validate": passes * seconds_of(speed.forward, VALIDATION_TOKEN_BUDGET) / world / 3600,
        "evaluate": (answering.written + answering.read) / answering.gpus / 3600,
        "checkpoints": events["checkpoints"] * checkpoint_bytes / speed.drive / 3600,
    }
    return hours | {"total": sum(hours.values())}
