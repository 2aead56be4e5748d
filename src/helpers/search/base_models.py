"""A search over base models: each counts in its own tokens, trains for equal hours, is judged by bits per character."""

import math
from dataclasses import dataclass
from statistics import fmean

from helpers.data.sampling import shuffle_key
from helpers.models.chat import IGNORED, answers_of, count_tokens, encode_rows
from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_tokenizer
from helpers.planning.batches import schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig
from helpers.planning.hours import step_seconds
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.training.inputs import DATA, pick_validation_rows

COUNTED_ROWS = 1000  # of the training part, at most, whose tokens stand for all


@dataclass(frozen=True)
class ModelRows:
    """What a base model's tokenizer makes of a run's rows."""

    lengths: list[int]  # tokens of the training rows, ascending
    bits_per_nat: float  # bits per character of the validation rows, per nat per token of their loss


def count_rows(run: Run, config: TrainingConfig) -> ModelRows:
    """Counts a run's rows in the tokens of a configuration's base model. Raises as `load_tokenizer` does."""
    tokenizer = load_tokenizer(locate_base_model(config.base_model, run))
    train, val = (read_jsonl(run / DATA[part]) for part in ("train", "val"))
    counted = sorted(count_tokens(tokenizer, sorted(train, key=lambda row: shuffle_key(0, row["id"]))[:COUNTED_ROWS]))
    lengths = [counted[place * len(counted) // len(train)] for place in range(len(train))]
    rows = pick_validation_rows(config, val)
    labels = [label for example in encode_rows(tokenizer, rows) for label in example["labels"][1:]]
    characters = sum(len(text) for row in rows for text in answers_of(row))
    return ModelRows(lengths, sum(label != IGNORED for label in labels) / characters / math.log(2))


def seconds_per_step(run: Run, config: TrainingConfig, lengths: list[int]) -> float:
    """Returns the estimated seconds of an optimizer step, the mean over an epoch of rows of these lengths."""
    epoch = config.model_copy(update={"num_train_epochs": 1.0, "sft": {**config.sft, "max_steps": -1}})
    schedule = schedule_steps(lengths, epoch, config.num_gpus or 1)
    return fmean(step_seconds(epoch, find_speed(config, run), lengths, schedule))
