"""Encoded rows as a data set of optimizer steps."""

from collections.abc import Sequence
from typing import Any

from helpers.planning.batches import schedule_steps
from helpers.planning.config import TrainingConfig


class StepDataset:
    """A data set whose items are one rank's share of an optimizer step, as `micro_batches`.

    `lengths` are the tokens that each row takes of a micro-batch, `targets` what it counts in a step: the tokens that
    are trained on, or 1; `tokens` are the row's own, where it takes more. An item's `targets` is their sum over all
    ranks: the gradient is the mean over so many.
    """

    def __init__(
        self,
        train_set: Any,
        lengths: Sequence[int],
        targets: Sequence[int],
        config: TrainingConfig,
        rank: int,
        world: int,
        tokens: Sequence[int] = (),
    ) -> None:
        self.train_set, self.lengths, self.targets, self.rank, self.epoch = train_set, lengths, targets, rank, 0
        self.tokens = tokens or lengths
        self.schedule = schedule_steps(lengths, config, world)

    def set_epoch(self, epoch: int) -> None:
        """Turns to the rows of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.schedule[self.epoch])

    def __getitem__(self, step: int) -> dict[str, Any]:
        shares = self.schedule[self.epoch][step]
        targets = sum(self.targets[row] for share in shares for batch in share for row in batch)
        return {"micro_batches": shares[self.rank], "targets": targets}
