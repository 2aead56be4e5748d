"""Training by this project's steps: token-budget micro-batches, recovery from full memory, checkpoints."""

import gc
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback

from helpers.models.batching import cut_batches, padded_tokens
from helpers.planning.batches import MicroBatch, effective_batch_rows, uses_checkpointing
from helpers.planning.speed import DRIVE_BYTES
from helpers.platforms.errors import describe_error
from helpers.platforms.processes import print_once
from helpers.runs.checkpoints import check_disk_space, place_checkpoint, prune_checkpoints, seal_checkpoint
from helpers.runs.files import folder_bytes, write_json
from helpers.runs.session import SessionClock
from helpers.training.config import RUNG_REACHED
from helpers.training.inputs import TrainingInputs
from helpers.training.steps import StepDataset

NONFINITE_PATIENCE = 5  # steps in a row whose loss is not finite, before a run stops
SCALER_PATIENCE = 20  # steps in a row that the fp16 scaler skips: halved from 65,536, the scale is 1 after 16
# Tokens without pads, tokens with pads, tokens with pads × passes over them, and the micro-batches themselves
COUNTS = ("useful", "computed", "arithmetic", "micro_batches")
CHECKPOINTED_PASSES = 3  # forward, backward and forward again, which cost the same for frozen weights

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the library's trainer, which Unsloth may have made anew, stands behind it


class StepTraining(Trainer):
    """Makes a trainer of TRL, whose class stands behind it, one whose data loader gives whole optimizer steps, which
    `training_step` computes in micro-batches.

    `steps` is this rank's share of every step, `library` what the library's trainer itself takes.
    """

    model: Any  # PeftModel
    args: Any  # SFTConfig
    data_collator: Any
    processing_class: Any  # the tokenizer

    def __init__(self, inputs: TrainingInputs, steps: StepDataset, clock: SessionClock, **library: Any) -> None:
        super().__init__(**library)
        self.config, self.progress, self.fingerprint = inputs.config, inputs.progress, inputs.fingerprint
        self.steps, self.val_rows, self.clock = steps, inputs.rows["val"], clock
        self.started = time.perf_counter()  # of this session's training
        self.pause_reason, self.pause_at = "", self.config.pause_at
        self.nonfinite_steps = self.scaler_skips = 0  # in a row
        self.save_seconds, self.save_bytes = 0.0, 0  # of the last checkpoint
        self.seconds_left: float | None = None  # of training, by the steps of this session; None before it is known
        self.save_began = self.started
        self.checkpointing: list[Any] = [
            module for module in self.model.modules() if hasattr(module, "gradient_checkpointing")
        ]

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Returns one optimizer step per item; every rank makes its own, so accelerate has nothing to share out."""
        steps: Any = self.steps
        return torch.utils.data.DataLoader(steps, batch_size=1, collate_fn=lambda items: items[0])

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, None]:
        """Returns the next step; the number of its tokens stands in it."""
        step = next(epoch_iterator, None)
        return [step] if step else [], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Returns 0: the plan counts the arithmetic."""
        return 0

    def training_step(self, model: torch.nn.Module, inputs: dict, num_items_in_batch: Any = None) -> torch.Tensor:
        """Computes a step's gradient in micro-batches and returns its loss, the mean over its tokens on all ranks.

        When memory runs out the micro-batches shrink and the step starts again: its rows, and so its gradient, stay.
        Raises FloatingPointError as `skip_nonfinite_step` does.
        """
        model.train()
        while True:
            try:
                loss, counts = self.accumulate_gradients(model, inputs)
                break
            except torch.OutOfMemoryError as error:
                self.lower_token_limit(inputs["micro_batches"], error)
            model.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
        self.progress.counts.update(counts)
        loss = self.all_reduce_gradients(model, loss)
        self.skip_nonfinite_step(model, loss)
        return loss

    def accumulate_gradients(self, model: torch.nn.Module, inputs: dict) -> tuple[torch.Tensor, Counter[str]]:
        """Runs forward and backward over a step's micro-batches; returns this rank's share of the loss, and COUNTS."""
        loss, counts = torch.zeros((), device=self.args.device), Counter()
        for batch in self.split_batches(inputs["micro_batches"]):
            tokens = padded_tokens(batch, self.steps.lengths)
            recompute = uses_checkpointing(tokens, self.config, self.progress.limit)
            self.set_gradient_checkpointing(recompute)
            with self.accelerator.no_sync(model):
                share = self.loss_share(model, batch, inputs["targets"])
                self.accelerator.backward(share)
            loss += share.detach().to(loss.device)
            useful = sum(self.steps.tokens[row] for row in batch)
            passes = CHECKPOINTED_PASSES if recompute else CHECKPOINTED_PASSES - 1
            counts.update(useful=useful, computed=tokens, arithmetic=tokens * passes, micro_batches=1)
        return loss, counts

    def loss_share(self, model: torch.nn.Module, batch: MicroBatch, targets: int) -> torch.Tensor:
        """Returns what a micro-batch adds to its step's loss, the mean over `targets`."""
        raise NotImplementedError

    def split_batches(self, batches: list[MicroBatch]) -> list[MicroBatch]:
        """Returns the micro-batches, taken apart where they are over the limit."""
        limit = self.progress.limit
        return [part for batch in batches for part in cut_batches(batch, self.steps.lengths, max_tokens=limit)]

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Turns gradient checkpointing on or off for what is computed next."""
        for module in self.checkpointing:
            module.gradient_checkpointing = on

    def lower_token_limit(self, batches: list[MicroBatch], error: torch.OutOfMemoryError) -> None:
        """Limits micro-batches to half the largest one. Raises the error, with a way out, where none can be smaller."""
        batches, lengths = self.split_batches(batches), self.steps.lengths
        largest = max(padded_tokens(batch, lengths) for batch in batches)
        longest = max(lengths[row] for batch in batches for row in batch)
        if largest <= longest and uses_checkpointing(largest, self.config, self.progress.limit):
            raise torch.OutOfMemoryError(
                f"a row of {longest} tokens does not fit alone, with gradient checkpointing. Lower shared.max_length "
                f"or train.lora.r, or take a smaller shared.base_model. ({describe_error(error)})"
            ) from error
        self.progress.limit = largest // 2
        print(
            f"rank {self.args.process_index}: out of memory at a micro-batch of {largest} tokens. Micro-batches now "
            f"have at most {largest // 2}; a longer row is computed alone, with gradient checkpointing. The step's "
            f"rows stay the same and are computed again.",
            flush=True,
        )

    def all_reduce_gradients(self, model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
        """Sums gradients and loss over the ranks, which also pause together; returns the loss."""
        pause = self.should_pause()
        if self.args.world_size == 1:
            return loss
        trained: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # a rank without rows in this step
                parameter.grad = torch.zeros_like(parameter)
        parts = [loss, torch.tensor(float(pause), device=loss.device), *(parameter.grad for parameter in trained)]
        message = torch.cat([part.float().reshape(-1) for part in parts])  # one message, not one per matrix
        torch.distributed.all_reduce(message)
        loss, pauses, *gradients = message.split([part.numel() for part in parts])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad.copy_(gradient.view_as(parameter.grad))
        if pauses:
            self.pause_reason = self.pause_reason or "another process was asked to stop"
        return loss[0].clone()

    def skip_nonfinite_step(self, model: torch.nn.Module, loss: torch.Tensor) -> None:
        """Keeps the optimizer from a step whose loss or gradient is not finite.

        Raises FloatingPointError after NONFINITE_PATIENCE such steps in a row, or SCALER_PATIENCE with the fp16 scaler.
        """
        finite = math.isfinite(loss)
        if self.accelerator.scaler is None:  # a scaler skips infinite gradients by itself
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            finite = finite and math.isfinite(torch.nn.utils.get_total_norm(gradients))
            if not finite:
                model.zero_grad(set_to_none=True)  # the optimizer leaves parameters without a gradient alone
        mean_loss = self.progress.loss_sum / max(1, self.state.global_step)
        self.progress.loss_sum += float(loss) if math.isfinite(loss) else mean_loss
        self.nonfinite_steps = 0 if finite else self.nonfinite_steps + 1
        self.scaler_skips = self.scaler_skips + 1 if self.accelerator.optimizer_step_was_skipped else 0
        if self.nonfinite_steps >= NONFINITE_PATIENCE or self.scaler_skips >= SCALER_PATIENCE:
            problem = f"the gradients of {self.scaler_skips} steps" if finite else f"{self.nonfinite_steps} steps"
            raise FloatingPointError(
                f"{problem} in a row were not finite, up to step {self.state.global_step}. Lower train.learning_rate. "
                f"The last checkpoint is kept."
            )

    def should_pause(self) -> bool:
        """Returns whether this process should pause after the step; keeps the reason in `pause_reason`."""
        step = self.state.global_step + 1
        self.pause_reason = self.pause_reason or self.clock.reason(self.save_seconds + self.copy_seconds())
        if not self.pause_reason and step == self.pause_at != self.state.max_steps:
            self.pause_reason = RUNG_REACHED
        return bool(self.pause_reason)

    def has_ended(self) -> bool:
        """Returns whether nothing is left to train: all steps are done, or early stopping is out of patience."""
        callbacks = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
        stopped = any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in callbacks)
        return stopped or self.state.global_step >= self.state.max_steps

    def _run_epoch(self, *args: Any, **library: Any) -> None:
        """Runs an epoch; skips it if the resumed run had already finished."""
        if self.has_ended():
            self.control.should_training_stop = True
        else:
            self.steps.set_epoch(library["epoch"])
            super()._run_epoch(**library)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes a checkpoint beside the others, seals it, puts it in place; a full disk costs this one only."""
        self.save_began, root, step = time.perf_counter(), Path(self.args.output_dir), self.state.global_step
        filled, counts = root / ".new" / f"checkpoint-{step}", self.total_counts()
        if self.args.process_index == 0:
            shutil.rmtree(filled.parent, ignore_errors=True)
            root.mkdir(parents=True, exist_ok=True)
        self.accelerator.wait_for_everyone()
        problem = check_disk_space(root, int(1.2 * self.save_bytes))
        try:
            self.args.output_dir = str(filled.parent)
            if not problem:
                super()._save_checkpoint(model, trial)
        except OSError as error:
            problem = describe_error(error)
        finally:
            self.args.output_dir = str(root)
        self.accelerator.wait_for_everyone()
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(root / f"checkpoint-{self.state.best_global_step}")
        if self.args.process_index == 0:
            try:
                if not problem:
                    self.place_files(filled, root / filled.name, counts)
            except OSError as error:
                problem = describe_error(error)
            if problem:
                print(f"step {step}: no checkpoint: {problem}. Earlier ones are kept; training continues.", flush=True)
            shutil.rmtree(filled.parent, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.save_seconds = time.perf_counter() - self.save_began
        self.progress.save_seconds += self.save_seconds
        self.progress.saves += 1

    def place_files(self, filled: Path, folder: Path, counts: Counter[str]) -> None:
        """Completes, seals and places a checkpoint that the library filled, and removes old ones. Raises OSError."""
        (filled / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing needs
        self.state.save_to_json(str(filled / "trainer_state.json"))
        saved = {"saves": self.progress.saves + 1, "seconds": self.seconds()}
        saved["save_seconds"] = self.progress.save_seconds + time.perf_counter() - self.save_began
        progress = self.progress.model_copy(update={"counts": counts, **saved})
        write_json(filled / "progress.json", progress.model_dump())
        seal_checkpoint(filled, self.state.global_step, self.fingerprint)
        place_checkpoint(filled, folder)
        prune_checkpoints(folder.parent, self.config.sft["save_total_limit"] or 0, {self.state.best_global_step or 0})
        self.save_bytes = folder_bytes(folder)

    def copy_seconds(self) -> float:
        """Returns how long a checkpoint should take to its mirror, 0 without one."""
        return self.save_bytes / DRIVE_BYTES if self.config.session["mirror"] else 0.0

    def seconds(self) -> float:
        """Returns the seconds of training so far, those of earlier sessions included."""
        return self.progress.seconds + time.perf_counter() - self.started

    def total_counts(self) -> Counter[str]:
        """Returns COUNTS summed over the ranks."""
        values = torch.tensor([self.progress.counts[name] for name in COUNTS], device=self.args.device)
        total: Any = self.accelerator.reduce(values, "sum")
        return Counter(dict(zip(COUNTS, total.tolist(), strict=True)))

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Returns and logs the loss over the validation slice, and what else `validate` returns.

        Each rank takes its share of the rows; no logits are kept.
        """
        began = time.perf_counter()
        self.model.eval()
        with self.accelerator.autocast():
            sums = self.validate(self.val_rows[self.args.process_index :: self.args.world_size])
        values = torch.tensor([*sums.values()], dtype=torch.double, device=self.args.device)
        reduced: Any = self.accelerator.reduce(values, "sum")
        count, *totals = reduced.tolist()
        metrics = {f"{metric_key_prefix}_{name}": total / count for name, total in zip([*sums][1:], totals)}
        self.model.train()
        self.progress.eval_seconds += time.perf_counter() - began
        self.progress.validations += 1
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validate(self, rows: list) -> dict[str, float]:
        """Returns sums over validation rows: first what they count, then each quantity whose mean is asked for, `loss`
        among them."""
        raise NotImplementedError

    def describe_pause(self) -> dict[str, Any]:
        """Returns the metrics of a paused session: status, step, steps, reason; hours_left where steps were measured,
        val_loss at a rung."""
        step, steps, reason = self.state.global_step, self.state.max_steps, self.pause_reason
        print_once(f"paused at step {step} of {steps}: {reason}. Run the same command again to continue.")
        result = {"status": "paused", "step": step, "steps": steps, "reason": reason}
        result |= {"hours_left": self.seconds_left / 3600} if self.seconds_left is not None else {}
        losses = [line["eval_loss"] for line in self.progress.log if "eval_loss" in line and line["step"] == step]
        return {**result, "val_loss": losses[-1]} if losses else result

    def measure(self) -> dict[str, Any]:
        """Validates a finished training; returns what it did and took, over all its sessions."""
        counts, seconds, done = self.total_counts(), self.seconds(), self.progress.model_copy()
        spent = {"validate": done.eval_seconds, "checkpoints": done.save_seconds, "load": done.load_seconds}
        spent["train"] = seconds - done.eval_seconds - done.save_seconds
        eval_seconds = done.eval_seconds
        val_loss = self.evaluate()["eval_loss"]
        print_once(f"validation during training took {eval_seconds / seconds:.1%} of its time")
        peaks = [torch.cuda.max_memory_reserved(gpu) / 2**30 for gpu in range(torch.cuda.device_count())]
        return {
            "world_size": self.args.world_size,
            "effective_batch": effective_batch_rows(self.config, self.steps.schedule),
            "optimizer_steps": self.state.global_step,
            "epochs": self.state.epoch,
            "train_loss": self.progress.loss_sum / self.state.global_step,
            "val_loss": val_loss,
            "val_rows": len(self.val_rows),
            "val_share_of_time": eval_seconds / seconds,
            "tokens_seen": counts["useful"],
            "useful_token_fraction": counts["useful"] / counts["computed"],
            "arithmetic_per_useful_token": counts["arithmetic"] / CHECKPOINTED_PASSES / counts["useful"],
            "micro_batches": counts["micro_batches"],
            "micro_batch_limit": self.progress.limit or None,
            "tokens_per_second": counts["useful"] / spent["train"],
            "peak_memory_gib": max(peaks, default=None),
            "hours": (seconds + done.load_seconds) / 3600,
            "seconds": spent,
            "events": {"validations": done.validations, "checkpoints": done.saves},
        }
