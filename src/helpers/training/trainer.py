"""SFTTrainer with this project's steps. Imports trl: to be imported after Unsloth, where that is the backend."""

from typing import Any

import torch
from transformers import Trainer
from trl import SFTTrainer

from helpers.models.likelihood import score_likelihood
from helpers.planning.batches import MicroBatch
from helpers.planning.memory import VALIDATION_TOKEN_BUDGET
from helpers.training.step_training import StepTraining


class StepTrainer(StepTraining, SFTTrainer):
    """SFTTrainer by steps: the loss is in nats per token of the answers, over a step and over the validation slice."""

    def loss_share(self, model: torch.nn.Module, batch: MicroBatch, targets: int) -> torch.Tensor:
        """Returns what a micro-batch adds to its step's loss: see `StepTraining.loss_share`."""
        rows: Any = self.data_collator([self.steps.train_set[row] for row in batch])
        rows.pop("attention_mask")  # pads stand right of the answer: no token that counts can see them
        arguments = {**rows.to(self.args.device), "use_cache": False}
        share: Any = Trainer.compute_loss(self, model, arguments, num_items_in_batch=targets)
        return share

    def validate(self, rows: list[dict]) -> dict[str, float]:
        """Returns the answers' tokens and their negative log-likelihood: see `StepTraining.validate`."""
        limits = {"max_tokens": VALIDATION_TOKEN_BUDGET, "what": "validation row"}
        scores = score_likelihood(self.model, self.processing_class, rows, **limits)
        return {key: sum(score[name] for score in scores) for key, name in (("tokens", "tokens"), ("loss", "nll"))}
