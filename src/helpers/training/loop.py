"""A training from configuration to adapter; runs in every process of a launch."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.models.chat import make_collator
from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_for_training, load_tokenizer, start_backend
from helpers.planning.batches import effective_batch_line, effective_batch_rows
from helpers.planning.config import RULES, TrainingConfig
from helpers.platforms.machine import pick_dtype
from helpers.runs.checkpoints import MANIFEST, make_fingerprint, newest_checkpoint, step_of
from helpers.runs.files import file_sha256, read_json, write_folder, write_jsonl
from helpers.runs.record import Run
from helpers.runs.session import SessionClock, session_left
from helpers.training.config import OnRung, config_warnings
from helpers.training.steps import StepDataset, encode_examples

if TYPE_CHECKING:
    from trl import SFTConfig

    from helpers.training.trainer import StepTrainer


def run_training(run: Run, on_rung: OnRung | None = None) -> dict[str, Any]:
    """Trains by train/config.json, writes adapter/ and log.jsonl, and returns the metrics; {"status": "paused", …} when
    the session ends before. Runs in every process of a launch; the first writes.

    `on_rung` decides at the rungs of a search. Raises ValueError for a checkpoint of other settings or data.
    """
    began = time.perf_counter()
    config = TrainingConfig.of_run(run)
    config = config.model_copy(update={"base_model_path": locate_base_model(config.base_model, run)})
    start_backend(config.backend)
    from helpers.training.callbacks import LogCallback

    forced = "float16" if config.sft.get("fp16") else "bfloat16" if config.sft.get("bf16") else ""
    dtype, dtype_reason = pick_dtype(forced)
    print_once(f"dtype {dtype}: {dtype_reason}", *config_warnings(config))
    trainer = build_trainer(run, config, dtype)
    trainer.add_callback(LogCallback(trainer, run, on_rung))
    checkpoint = resume_run(run, trainer)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    print_once(
        effective_batch_line(config, trainer.steps.schedule),
        f"trainable parameters {trainable:,} of {total:,} ({trainable / total:.2%})",
        f"attention: {trainer.model.config._attn_implementation}",
    )
    trainer.started = time.perf_counter()
    with trainer.clock.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    paused = bool(trainer.pause_reason) and not trainer.has_ended()
    if is_first_process():
        run.close_session(trainer.state.global_step, trainer.pause_reason if paused else "finished")
    if paused:
        return pause_result(trainer)
    start_seconds = trainer.started - began  # from the call to the first step
    metrics = {"status": "finished", "backend": config.backend, "base_model": config.base_model, "dtype": dtype}
    metrics |= {"dtype_reason": dtype_reason, "trainable_parameters": trainable, "total_parameters": total}
    metrics |= {**measure_training(trainer, start_seconds), "sessions": len(run.sessions("train"))}
    if is_first_process():
        with write_folder(run / "train" / "adapter") as folder:
            trainer.model.save_pretrained(str(folder))
            trainer.processing_class.save_pretrained(str(folder))
    trainer.accelerator.wait_for_everyone()
    return metrics


def build_trainer(run: Run, config: TrainingConfig, dtype: str) -> StepTrainer:
    """Returns the trainer of a run, its data and model loaded. Raises ValueError as `encode_examples` does."""
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

    from helpers.training.trainer import StepTrainer

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.base_model_path)
    tokenizer.padding_side = "right"
    train_set, val_rows = encode_examples(run, tokenizer, config)
    model = load_for_training(config, dtype)
    arguments = training_arguments(run, config, dtype)
    data = {f"data/{part}.jsonl": file_sha256(run / "data" / f"{part}.jsonl") for part in ("train", "val")}
    with arguments.main_process_first(local=False):  # else each would make the run's id, and the last one's would stay
        run_id = run.id()
    patience = config.sft.get("early_stopping_patience", 0)
    trainer = StepTrainer(
        config,
        StepDataset(train_set, config, arguments.process_index, arguments.world_size),
        val_rows,
        make_fingerprint(run_id, config.to_json(), data, arguments.world_size),
        SessionClock(Run(run / config.part_of), partial(session_left, config.session["hours"])),
        model=model,
        processing_class=tokenizer,
        args=arguments,
        eval_dataset=train_set.select([]),  # `evaluate` takes the validation rows
        data_collator=make_collator(tokenizer),
        callbacks=[EarlyStoppingCallback(patience)] * bool(patience),
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():  # TRL casts adapters of 4-bit models to bf16: no scaler unscales that
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(gpu)
    return trainer


def training_arguments(run: Run, config: TrainingConfig, dtype: str) -> SFTConfig:
    """Returns TRL's configuration: the settings of `sft` that are its own, and what this project's steps need."""
    import torch
    from trl import SFTConfig

    ours = {"fp16", "bf16", "early_stopping_patience"}
    settings = {name: value for name, value in config.sft.items() if name not in ours} | RULES["fixed"]
    arguments = SFTConfig(
        output_dir=str(run / "train" / "checkpoints"),
        run_name=run.name,
        seed=config.seed,
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        fp16=dtype == "float16",
        bf16=dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        **settings,
    )
    if arguments.device.type == "cpu":
        arguments._setup_devices = torch.device("cpu")  # accelerate says cpu:0, where torch.load restores nothing
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process per GPU: never DataParallel over all that are here
    return arguments


def resume_run(run: Run, trainer: StepTrainer) -> Path | None:
    """Returns the newest valid checkpoint with its progress restored, or None; notes the session, and sets log.jsonl
    to what it was there. Raises ValueError for a checkpoint of other settings or data."""
    checkpoint, skipped = newest_checkpoint(Path(trainer.args.output_dir), trainer.fingerprint)
    print_once(*(f"skipped {line}" for line in skipped))
    if checkpoint:
        trainer.load_progress(checkpoint)
        print_once(f"resuming from {checkpoint.name}")
        before, now = (f["versions"] for f in (read_json(checkpoint / MANIFEST)["fingerprint"], trainer.fingerprint))
        if changes := [f"{name} {old} to {now.get(name)}" for name, old in before.items() if now.get(name) != old]:
            print_once(f"changed since: {', '.join(changes)}. The result is no longer bit for bit as uninterrupted.")
    if is_first_process():
        (run / "train" / "log.jsonl").unlink(missing_ok=True)
        if checkpoint:
            write_jsonl(run / "train" / "log.jsonl", trainer.progress.log)
        run.open_session("train", step_of(checkpoint) if checkpoint else 0)
    return checkpoint


def pause_result(trainer: StepTrainer) -> dict[str, Any]:
    """Returns what a session leaves that ended before its run: status, step, steps, reason, and val_loss at a rung."""
    step, steps, reason = trainer.state.global_step, trainer.state.max_steps, trainer.pause_reason
    print_once(f"paused at step {step} of {steps}: {reason}. Run the same command again to continue.")
    trainer.accelerator.wait_for_everyone()
    result = {"status": "paused", "step": step, "steps": steps, "reason": reason}
    losses = [line["eval_loss"] for line in trainer.progress.log if "eval_loss" in line and line["step"] == step]
    return {**result, "val_loss": losses[-1]} if losses else result


def measure_training(trainer: StepTrainer, start_seconds: float) -> dict[str, Any]:
    """Validates a finished training and returns what it did and took; `start_seconds` are those before its steps."""
    import torch

    counts, seconds, eval_seconds = trainer.total_counts(), trainer.seconds(), trainer.progress.eval_seconds
    val_loss = trainer.evaluate()["eval_loss"]
    print_once(f"validation during training took {eval_seconds / seconds:.1%} of its time")
    peaks = [torch.cuda.max_memory_reserved(gpu) / 2**30 for gpu in range(torch.cuda.device_count())]
    return {
        "world_size": trainer.args.world_size,
        "effective_batch": effective_batch_rows(trainer.config, trainer.steps.schedule),
        "optimizer_steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_loss": trainer.progress.loss_sum / trainer.state.global_step,
        "val_loss": val_loss,
        "val_rows": len(trainer.val_rows),
        "val_share_of_time": eval_seconds / seconds,
        "tokens_seen": counts["useful"],
        "useful_token_fraction": counts["useful"] / counts["computed"],
        "arithmetic_per_useful_token": counts["arithmetic"] / 3 / counts["useful"],
        "micro_batches": counts["micro_batches"],
        "micro_batch_limit": trainer.progress.limit or None,
        "tokens_per_second": counts["useful"] / (seconds - eval_seconds),
        "peak_memory_gib": max(peaks, default=None),
        "hours": (seconds + start_seconds) / 3600,
    }


def is_first_process() -> bool:
    """Returns whether this is the process of a launch that writes, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def print_once(*lines: str) -> None:
    """Prints lines in the first process of a launch."""
    if lines and is_first_process():
        print(*lines, sep="\n", flush=True)
