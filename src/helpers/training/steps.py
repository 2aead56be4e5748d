"""Encoded rows as a data set of optimizer steps."""

from typing import Any

from helpers.data.sampling import shuffle_key
from helpers.models.chat import IGNORED, check_labels, encode_row
from helpers.planning.batches import schedule_steps
from helpers.planning.config import TrainingConfig
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run


def encode_examples(run: Run, tokenizer: Any, config: TrainingConfig) -> tuple[Any, list[dict]]:
    """Returns the encoded train set (datasets.Dataset) and a fixed slice of the val rows, chosen by config.seed.

    Raises ValueError when a row is longer than config.max_length tokens or its labels are not its answer.
    """
    from datasets import Dataset

    parts = {part: read_jsonl(run / "data" / f"{part}.jsonl") for part in ("train", "val")}
    if config.eval_rows:
        parts["val"] = sorted(parts["val"], key=lambda row: shuffle_key(config.seed, row["id"]))[: config.eval_rows]
    examples = {part: [encode_row(tokenizer, row) for row in rows] for part, rows in parts.items()}
    for part, encoded in examples.items():
        check_labels(tokenizer, parts[part], encoded)
        longest = max(len(example["input_ids"]) for example in encoded)
        if longest > config.max_length:
            raise ValueError(
                f"{part}.jsonl has a row of {longest} tokens, max_length is {config.max_length}: an answer would be "
                f"cut. Prepare the data again with shared.max_length, so that such rows are dropped."
            )
    return Dataset.from_list(examples["train"]), parts["val"]


class StepDataset:
    """A data set whose items are one rank's share of an optimizer step, as `micro_batches`.

    An item's `targets` counts the tokens trained on in the step, over all ranks: the gradient is their mean.
    """

    def __init__(self, train_set: Any, config: TrainingConfig, rank: int, world: int) -> None:
        self.train_set, self.rank, self.epoch = train_set, rank, 0
        self.lengths = [len(ids) for ids in train_set["input_ids"]]
        self.targets = [sum(label != IGNORED for label in labels) for labels in train_set["labels"]]
        self.schedule = schedule_steps(self.lengths, config, world)

    def set_epoch(self, epoch: int) -> None:
        """Turns to the rows of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.schedule[self.epoch])

    def __getitem__(self, step: int) -> dict[str, Any]:
        shares = self.schedule[self.epoch][step]
        targets = sum(self.targets[row] for share in shares for batch in share for row in batch)
        return {"micro_batches": shares[self.rank], "targets": targets}
