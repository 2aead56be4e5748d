"""TRL's DPOTrainer and KTOTrainer with this project's steps. Imports trl: to be imported after Unsloth, where that is
the backend.

The reference is the tuned adapter, whose log-probabilities are computed once, before the first step: it needs no second
model, and no second adapter.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from accelerate.utils import gather_object
from trl import DPOTrainer, KTOTrainer

from helpers.models.likelihood import score_replies
from helpers.planning.batches import MicroBatch
from helpers.planning.memory import VALIDATION_TOKEN_BUDGET
from helpers.preference.estimates import Fractions, estimate_fractions, estimate_share
from helpers.preference.examples import REFERENCES, Example, sequences_of
from helpers.runs.files import read_json, write_json
from helpers.training.step_training import StepTraining

LOGGED = ("rewards/", "kl")  # of what the library measures


class PreferenceTraining(StepTraining):
    """What training by pairs and by single replies have in common: a row counts 1 in its step, whatever its length.

    `steps` and `val_rows` hold encoded examples, each with the reference's log-probabilities after `add_reference`.
    """

    beta: float
    use_liger_kernel: bool
    _metrics: dict[str, dict[str, list[float]]]

    def __init__(self, *own: Any, val_examples: list[Example], **library: Any) -> None:
        super().__init__(*own, ref_model=torch.nn.Identity(), **library)  # without any, TRL copies the adapter
        self.val_rows = val_examples
        # TRL's way to pass few tokens at a time through the output layer, whatever is installed; Unsloth has its own
        self.use_liger_kernel = self.config.backend == "peft"

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Returns the rows as they are: encoded."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Returns the rows as they are: `add_reference` adds what the library would."""
        return dataset

    def add_reference(self, file: Path, made_of: dict[str, str]) -> None:
        """Adds to every example how likely the model finds its two sequences before a step is trained; keeps that in
        `file`, from where a later session takes it, with what it is made of."""
        examples = [*self.steps.train_set, *self.val_rows]
        kept = read_json(file) if file.is_file() else {}
        if kept.get("made_of") == made_of:
            logps = kept["logps"]
        else:
            logps = self.on_all_ranks(examples, self.score).tolist()
            if not self.args.process_index:
                write_json(file, {"made_of": made_of, "logps": logps})
        for example, values in zip(examples, logps, strict=True):
            example.update(zip(REFERENCES["chosen_ids" in example], values, strict=True))

    def loss_share(self, model: torch.nn.Module, batch: MicroBatch, targets: int) -> torch.Tensor:
        """Returns what a micro-batch adds to its step's loss: see `StepTraining.loss_share`."""
        rows = self.data_collator([self.steps.train_set[row] for row in batch])
        rows = {name: tensor.to(self.args.device) for name, tensor in rows.items()}
        with self.metrics_of_this_rank():  # the model itself: gradients are summed by `all_reduce_gradients`
            loss: Any = self.compute_loss(self.accelerator.unwrap_model(model), rows)
        return loss * (len(batch) / targets)

    @contextlib.contextmanager
    def metrics_of_this_rank(self) -> Iterator[None]:
        """Keeps the library from gathering its metrics: ranks may compute different numbers of micro-batches."""
        names = ("gather", "gather_for_metrics")
        for name in names:
            setattr(self.accelerator, name, lambda tensor, **_: tensor)
        try:
            yield
        finally:
            for name in names:
                delattr(self.accelerator, name)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs what the library logs, without what it counts from a session's start."""
        for metrics in self._metrics.values():
            for name in [name for name in metrics if not name.startswith(LOGGED)]:
                del metrics[name]
        super().log(logs, start_time)

    def score(self, examples: list[Example], both: bool = True) -> numpy.ndarray:
        """Returns the log-probability of each example's two sequences, or of the second alone: (examples, 2 or 1), in
        nats. Needs no gradient and leaves the model ready to train."""
        sequences = [sequence for example in examples for sequence in sequences_of(example)[not both :]]
        self.set_gradient_checkpointing(False)
        self.model.eval()
        with self.accelerator.autocast():
            logps = score_replies(self.model, self.processing_class, sequences, VALIDATION_TOKEN_BUDGET)
        self.model.train()
        return numpy.array(logps).reshape(-1, 1 + both)

    def ratios(self, examples: list[Example], both: bool = True) -> numpy.ndarray:
        """Returns `score` less what the reference scores."""
        names = REFERENCES["chosen_ids" in self.val_rows[0]][not both :]
        reference = numpy.array([[example[name] for name in names] for example in examples])
        return self.score(examples, both) - reference.reshape(-1, len(names))

    def on_all_ranks(self, examples: list[Example], compute: Any) -> numpy.ndarray:
        """Returns what `compute` returns for all examples, of which each rank takes its share."""
        rank, world = self.args.process_index, self.args.world_size
        shares: Any = gather_object([compute(examples[rank::world]).tolist()])
        results = numpy.zeros((len(examples), 2))
        for place, share in enumerate(shares):
            results[place::world] = numpy.array(share).reshape(-1, 2)
        return results

    def measure(self) -> dict[str, Any]:
        """Validates a finished training; adds to `StepTraining.measure` how often, and by how much, the model prefers
        what people prefer among the held-out rows: `held_out`, with 95 % intervals over their groups."""
        measured = super().measure()
        hits, margin = self.preferences(self.on_all_ranks(self.val_rows, self.ratios))
        groups = [example["group"] for example in self.val_rows]
        accuracy, margin = estimate_share(hits, groups), estimate_fractions(margin, groups, self.args.seed)
        return {**measured, "held_out": {"n": len(groups), "accuracy": accuracy, "margin": margin}}

    def preferences(self, ratios: numpy.ndarray) -> tuple[numpy.ndarray, Fractions]:
        """Returns which of the held-out rows with these log-ratios, (rows, 2), the model prefers as people do, and the
        margin in rewards."""
        raise NotImplementedError


class DpoStepTrainer(PreferenceTraining, DPOTrainer):
    """DPOTrainer by steps: two replies to a prompt, of which people prefer one."""

    def validate(self, rows: list[Example]) -> dict[str, float]:
        """Returns sums over pairs: see `StepTraining.validate`."""
        margins = self.margins(self.ratios(rows))
        return {"rows": len(rows), "loss": float(numpy.logaddexp(0, -margins).sum()), "margin": float(margins.sum())}

    def margins(self, ratios: numpy.ndarray) -> numpy.ndarray:
        """Returns by how much the chosen reply's reward is above the rejected one's (Rafailov et al. 2023, eq. 7)."""
        return self.beta * (ratios[:, 0] - ratios[:, 1])

    def preferences(self, ratios: numpy.ndarray) -> tuple[numpy.ndarray, Fractions]:
        """Returns of which pairs the chosen reply has the higher reward, half of one with the same, and the mean
        margin."""
        margins = self.margins(ratios)
        return (margins > 0) + 0.5 * (margins == 0), [(1, margins, numpy.ones(len(margins)))]


class KtoStepTrainer(PreferenceTraining, KTOTrainer):
    """KTOTrainer by steps: single replies, liked or not, against the distance from the reference.

    The library estimates that distance from the rows of a micro-batch; here it is that of the whole step, on all ranks,
    so that a step's gradient does not depend on how its rows are cut.
    """

    desirable_weight: float
    undesirable_weight: float
    step_kl = 0.0  # nats

    def training_step(self, model: torch.nn.Module, inputs: dict, num_items_in_batch: Any = None) -> torch.Tensor:
        """Estimates the step's distance, then computes it: see `StepTraining.training_step`."""
        rows = [row for batch in inputs["micro_batches"] for row in batch]
        self.step_kl = self.distance([self.steps.train_set[row] for row in rows])
        return super().training_step(model, inputs, num_items_in_batch)

    def distance(self, examples: list[Example]) -> float:
        """Returns the estimated KL divergence of the model from the reference over all ranks' examples, in nats, at
        least 0: the mean log-ratio of replies to other prompts (Ethayarajh et al. 2024, §4.1)."""
        ratios = self.ratios(examples, both=False)[:, 0] if examples else numpy.zeros(0)
        sums: Any = torch.tensor([len(ratios), ratios.sum()], dtype=torch.double, device=self.args.device)
        reduced: Any = self.accelerator.reduce(sums, "sum")
        count, total = reduced.tolist()
        return max(0.0, total / count)

    def _compute_kl_logps(self, model: Any, batch: dict) -> torch.Tensor:
        """Returns log-probabilities whose mean is the step's distance above the reference's."""
        return batch["ref_KL_logps"] + self.step_kl

    def accumulate_gradients(self, model: torch.nn.Module, inputs: dict) -> tuple[torch.Tensor, Counter[str]]:
        """Returns what `StepTraining.accumulate_gradients` does; the replies to other prompts were computed too."""
        loss, counts = super().accumulate_gradients(model, inputs)
        examples = [self.steps.train_set[row] for batch in inputs["micro_batches"] for row in batch]
        counts["arithmetic"] += sum(len(part) for example in examples for part in sequences_of(example)[1])
        return loss, counts

    def validate(self, rows: list[Example]) -> dict[str, float]:
        """Returns sums over replies, by the distance that they have themselves: see `StepTraining.validate`."""
        distance, ratios = self.distance(rows), self.ratios(rows)[:, 0] if rows else numpy.zeros(0)
        liked = numpy.array([example["label"] for example in rows], bool)
        above = numpy.where(liked, 1, -1) * (ratios - distance)
        losses = numpy.where(liked, self.desirable_weight, self.undesirable_weight) / (1 + numpy.exp(self.beta * above))
        return {"rows": len(rows), "loss": float(losses.sum()), "kl": distance * len(rows)}

    def preferences(self, ratios: numpy.ndarray) -> tuple[numpy.ndarray, Fractions]:
        """Returns which replies are on their side of the distance, liked ones above it and others below; and how far
        the mean rewards of both lie apart."""
        liked = numpy.array([example["label"] for example in self.val_rows], bool)
        distance, rewards = max(0.0, float(ratios[:, 1].mean())), self.beta * ratios[:, 0]
        margin = [(1, rewards * liked, liked), (-1, rewards * ~liked, ~liked)]
        return (ratios[:, 0] > distance) == liked, margin
