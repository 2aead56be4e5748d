"""Trains an adapter from its configuration; runs in every process of a launch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from helpers.models.chat import IGNORED, Tokenizer, encode_examples, make_collator
from helpers.models.float32_activations import computes_in_float32, explain_activations
from helpers.models.loading import load_for_training, load_tokenizer, start_backend
from helpers.planning.batches import effective_batch_line
from helpers.planning.config import RULES, TrainingConfig
from helpers.platforms.machine import pick_dtype
from helpers.platforms.processes import print_once, process_rank
from helpers.runs.files import write_folder, write_jsonl
from helpers.runs.record import Run
from helpers.runs.session import SessionClock, session_left
from helpers.training.config import OnRung, config_warnings
from helpers.training.inputs import TrainingInputs, read_inputs
from helpers.training.steps import StepDataset

if TYPE_CHECKING:
    from helpers.training.step_training import StepTraining
    from helpers.training.trainer import StepTrainer

Trained = TypeVar("Trained", bound="StepTraining")


@dataclass(frozen=True)
class LoadedTraining:
    """What a training needs, loaded: the base model with its adapter in a trainer that has the encoded rows."""

    inputs: TrainingInputs
    trainer: StepTraining
    dtype: str
    dtype_reason: str
    seconds: float  # that loading took


def load_training(run: Run) -> LoadedTraining:
    """Reads what a run trains by, loads the base model, puts the adapter on and encodes the rows.

    Raises ValueError as `read_inputs` and `encode_examples` do.
    """
    return load_trainer(run, read_inputs(run), build_trainer)


def load_trainer(
    run: Run, inputs: TrainingInputs, build: Callable[[Run, TrainingInputs, str], StepTraining]
) -> LoadedTraining:
    """Starts the backend, picks the dtype, says which and why, and returns what `build` makes of these inputs."""
    began = time.perf_counter()
    config = inputs.config
    start_backend(config.backend)
    forced = "float16" if config.sft.get("fp16") else "bfloat16" if config.sft.get("bf16") else ""
    dtype, dtype_reason = pick_dtype(forced)
    print_once(f"dtype {dtype}: {dtype_reason}", *config_warnings(config), *inputs.notes)
    trainer = build(run, inputs, dtype)
    if note := explain_activations(trainer.model, dtype):
        print_once(note)
        dtype_reason = f"{dtype_reason}; {note}"
    return LoadedTraining(inputs, trainer, dtype, dtype_reason, time.perf_counter() - began)


def run_training(
    run: Run,
    on_rung: OnRung | None = None,
    loaded: LoadedTraining | None = None,
    load: Callable[[Run], LoadedTraining] | None = None,
) -> dict[str, Any]:
    """Trains by the config.json of a stage, writes its adapter/ and log.jsonl, and returns the metrics;
    {"status": "paused", …} when the session ends first. Runs in every process of a launch; the first writes.

    `on_rung` decides at the rungs of a search. `loaded` is trained where no step of it has been: else it is loaded anew
    by `load` (None: `load_training`), with what the newest checkpoint holds. Raises ValueError as that does.
    """
    if loaded is None or loaded.trainer.state.global_step:
        loaded = (load or load_training)(run)
    began, inputs, trainer = time.perf_counter(), loaded.inputs, loaded.trainer
    config, stage = inputs.config, inputs.config.stage
    from helpers.training.callbacks import LogCallback

    trainer.add_callback(LogCallback(trainer, run, on_rung))
    if not process_rank():
        write_jsonl(run / stage / "log.jsonl", inputs.progress.log)  # drops lines logged after the checkpoint
        run.open_session(stage, inputs.start_step)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    print_once(
        effective_batch_line(config, trainer.steps.schedule),
        f"trainable parameters {trainable:,} of {total:,} ({trainable / total:.2%})",
        f"attention: {trainer.model.config._attn_implementation}",
    )
    trainer.started = time.perf_counter()
    trainer.progress.load_seconds += loaded.seconds + trainer.started - began
    with trainer.clock.listening():
        trainer.train(resume_from_checkpoint=str(inputs.checkpoint) if inputs.checkpoint else None)
    metrics: dict[str, Any]
    if trainer.pause_reason and not trainer.has_ended():
        metrics, reason = trainer.describe_pause(), trainer.pause_reason
    else:
        reason = "finished"
        metrics = {"status": reason, "backend": config.backend, "base_model": config.base_model, "dtype": loaded.dtype}
        metrics |= {"dtype_reason": loaded.dtype_reason, "trainable_parameters": trainable, "total_parameters": total}
        metrics |= {**trainer.measure(), "sessions": len(run.training_sessions(stage))}
        if not process_rank():
            with write_folder(run / stage / "adapter") as folder:
                trainer.model.save_pretrained(str(folder))
                (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card: the export writes one
                trainer.processing_class.save_pretrained(str(folder))
    if not process_rank():
        run.close_session(trainer.state.global_step, reason)
    trainer.accelerator.wait_for_everyone()
    return metrics


def build_trainer(run: Run, inputs: TrainingInputs, dtype: str) -> StepTrainer:
    """Returns the trainer of a run, its rows encoded and its model loaded. Raises ValueError as `encode_examples`."""
    from datasets import Dataset
    from trl import SFTConfig

    from helpers.training.trainer import StepTrainer

    config, tokenizer = inputs.config, start_process(inputs.config)
    examples = {part: encode_examples(tokenizer, rows, part, config.max_length) for part, rows in inputs.rows.items()}
    train_set, collator = Dataset.from_list(examples["train"]), make_collator(tokenizer)
    lengths = [len(example["input_ids"]) for example in examples["train"]]
    targets = [sum(label != IGNORED for label in example["labels"]) for example in examples["train"]]
    model = load_for_training(config, dtype)
    arguments = training_arguments(run, config, trained_dtype(model, dtype), SFTConfig)
    trainer = StepTrainer(
        inputs,
        StepDataset(train_set, lengths, targets, config, arguments.process_index, arguments.world_size),
        session_clock(run, config),
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=train_set.select([]),  # `evaluate` takes the validation rows
        data_collator=collator,
    )
    return make_ready(trainer)


def start_process(config: TrainingConfig) -> Tokenizer:
    """Takes this process's GPU and the seed; returns the tokenizer that pads on the right."""
    import torch
    from transformers import set_seed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.base_model_path)
    tokenizer.padding_side = "right"
    return tokenizer


def trained_dtype(model: Any, dtype: str) -> str:
    """Returns the dtype that the trainer computes in, of a model that was loaded in this one."""
    return "float32" if computes_in_float32(model) else dtype


def session_clock(run: Run, config: TrainingConfig) -> SessionClock:
    """Returns what ends a session of a training."""
    return SessionClock(Run(run / config.part_of), partial(session_left, config.session["hours"]))


def make_ready(trainer: Trained) -> Trained:
    """Returns a trainer with the callbacks that its settings ask for, its adapter in 32 bits, its peak memory to be
    measured from here."""
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if patience := trainer.config.sft.get("early_stopping_patience"):
        trainer.add_callback(EarlyStoppingCallback(patience))
    # TRL casts the adapters of 4-bit models to bf16, whose gradients the fp16 scaler cannot unscale
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(gpu)
    return trainer


def training_arguments(run: Run, config: TrainingConfig, dtype: str, library: type, **fixed: Any) -> Any:
    """Returns TRL's configuration, a `library` such as SFTConfig: the settings that are its own, and what this
    project's steps need, `fixed` of it for this library."""
    import torch

    own = {field.name for field in fields(library)}
    handled_here = {"fp16", "bf16", "early_stopping_patience"}
    settings = {name: value for name, value in config.sft.items() if name not in handled_here} | RULES["fixed"] | fixed
    settings = {name: value for name, value in settings.items() if name in own}
    arguments = library(
        output_dir=str(run / config.stage / "checkpoints"),
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
        arguments._setup_devices = torch.device("cpu")  # accelerate's is cpu:0, to which torch.load restores nothing
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process per GPU: never DataParallel over all that are here
    return arguments
