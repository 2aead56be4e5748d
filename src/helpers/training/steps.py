"""Encoded rows as a data set of optimizer steps."""

from typing import Any

from helpers.models.chat import IGNORED
from helpers.planning.batches import schedule_steps
from helpers.planning.config import TrainingConfig


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
