"""The trainer's log, its rate, its pauses, and the rungs of a search."""

import json
import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from helpers.platforms.machine import gpu_names
from helpers.runs.record import Run
from helpers.runs.session import report_progress
from helpers.training.config import RUNG_REACHED, OnRung
from helpers.training.rate import COMPARED_AFTER, watch_rate
from helpers.training.step_training import StepTraining


class LogCallback(TrainerCallback):
    """Appends every log to log.jsonl, prints about twenty lines, reports the step, and pauses when the trainer should.

    log.jsonl counts seconds of training, over all sessions. A checkpoint is written where an epoch is left, after the
    evaluation that is due there, so that nothing of it is lost to a kill. At a rung of a search `on_rung` decides.
    """

    def __init__(self, trainer: StepTraining, run: Run, on_rung: OnRung | None = None) -> None:
        self.trainer, self.file, self.on_rung = trainer, run / trainer.config.stage / "log.jsonl", on_rung
        self.rate, self.has_gpu = watch_rate(trainer, run), bool(gpu_names())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Writes the numbers of a log, and prints them where they are due."""
        if not state.is_world_process_zero:
            return
        numbers = {k: v for k, v in (logs or {}).items() if not isinstance(v, float) or math.isfinite(v)}
        entry = {"step": state.global_step, "seconds": round(self.trainer.seconds(), 3), **numbers}
        self.trainer.progress.log.append(entry)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        labels = {"eval_loss": "validation loss"}
        if state.global_step % max(1, state.max_steps // 20) < args.logging_steps:
            labels |= {"loss": "loss", "learning_rate": "learning rate"}
        if shown := [f"{label} {numbers[name]:.4g}" for name, label in labels.items() if name in numbers]:
            print(f"step {state.global_step}/{state.max_steps}  {', '.join(shown)}", flush=True)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begins to measure the step."""
        self.rate.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Reports the step to the runner; ends a session that should pause, and evaluates and saves at a rung."""
        self.rate.end_step(state.global_step)
        self.trainer.seconds_left = self.rate.seconds_left(state.global_step)
        if state.is_world_process_zero:
            report_progress(state.global_step, state.max_steps, "step", self.trainer.seconds_left)
            if self.rate.steps == COMPARED_AFTER and self.has_gpu:  # a plan is for no CPU
                print(self.rate.compare(state.global_step), flush=True)
        control.should_training_stop = control.should_training_stop or bool(self.trainer.pause_reason)
        if state.global_step == self.trainer.pause_at:  # a checkpoint of a rung has its loss
            control.should_evaluate = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Continues to the next rung of a search, if there is one."""
        if self.on_rung and self.trainer.pause_reason == RUNG_REACHED:
            loss = next(line["eval_loss"] for line in reversed(self.trainer.progress.log) if "eval_loss" in line)
            next_rung = self.on_rung(state.global_step, loss)
            if next_rung is not None:
                self.trainer.pause_reason, self.trainer.pause_at = "", next_rung
                control.should_training_stop = False

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Saves where training pauses or ends, and leaves the epoch's evaluation to the session that ends the epoch."""
        paused = bool(self.trainer.pause_reason)
        if paused and state.global_step % len(self.trainer.steps):  # left midway: not an epoch's end
            control.should_evaluate = self.trainer.has_ended() and control.should_evaluate
        at_the_end = state.global_step == state.max_steps and args.save_strategy != "no"
        control.should_save = control.should_save or at_the_end or paused
