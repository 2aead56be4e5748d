"""Loads a training by preferences, and starts it: in this process, or one process per GPU through accelerate."""

import sys
from pathlib import Path
from typing import Any

from helpers.models.loading import load_for_training
from helpers.planning.config import TrainingConfig
from helpers.preference.examples import encode_examples, sequence_lengths
from helpers.preference.plan import row_sizes
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.training.inputs import TrainingInputs, find_progress
from helpers.training.launch import launch_training, train_process
from helpers.training.loop import (
    LoadedTraining,
    load_trainer,
    make_ready,
    session_clock,
    start_process,
    trained_dtype,
    training_arguments,
)
from helpers.training.steps import StepDataset

PAIRS, ADAPTER = "prefer/pairs.jsonl", "train/adapter/adapter_model.safetensors"


def launch_preference(run: Run, config: TrainingConfig) -> dict[str, Any]:
    """Trains by preferences and returns the metrics: see `launch_training`."""
    return launch_training(run, config, load=load_preference, module=__spec__.name)


def load_preference(run: Run) -> LoadedTraining:
    """Reads what a run's prefer/ says to train by, loads the base model with the tuned adapter and encodes the rows."""
    return load_trainer(run, read_inputs(run), build_trainer)


def read_inputs(run: Run) -> TrainingInputs:
    """Reads prefer/config.json, the preferences, and the newest valid checkpoint's manifest and progress.

    Raises ValueError for a checkpoint of other settings or preferences, and as `locate_base_model` does.
    """
    rows, config = read_jsonl(run / PAIRS), TrainingConfig.of_run(run, "prefer")
    parts = {part: [row for row in rows if row["part"] == part] for part in ("train", "val")}
    return find_progress(run, config, parts, [PAIRS, ADAPTER])


def build_trainer(run: Run, inputs: TrainingInputs, dtype: str) -> Any:
    """Returns the trainer of a run's preferences, its rows encoded, its model loaded, the reference computed."""
    from datasets import Dataset
    from trl import DPOConfig, KTOConfig

    from helpers.preference.trainer import DpoStepTrainer, KtoStepTrainer

    config, tokenizer = inputs.config, start_process(inputs.config)
    by_pairs = config.method == "dpo"
    examples = {part: encode_examples(tokenizer, rows, config) for part, rows in inputs.rows.items()}
    model = load_for_training(config, dtype)
    take_weights(model, run / "train/adapter")
    train_set = Dataset.from_list(examples["train"])
    fixed: dict[str, Any] = {"precompute_ref_log_probs": True}
    if not by_pairs:  # KTOTrainer asks for both, since it would take a batch's next row for the reply to another prompt
        fixed |= {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 2}
    arguments = training_arguments(
        run, config, trained_dtype(model, dtype), DPOConfig if by_pairs else KTOConfig, **fixed
    )
    lengths, tokens = row_sizes(sequence_lengths(examples["train"]), config.method)
    place, targets = (arguments.process_index, arguments.world_size), [1] * len(lengths)
    trainer: Any = (DpoStepTrainer if by_pairs else KtoStepTrainer)(
        inputs,
        StepDataset(examples["train"], lengths, targets, config, *place, tokens),
        session_clock(run, config),
        val_examples=examples["val"],
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=train_set.select([]),  # `evaluate` takes the held-out examples
    )
    trainer = make_ready(trainer)
    trainer.add_reference(run / "prefer/reference.json", {**inputs.fingerprint["data"], "method": config.method})
    return trainer


def take_weights(model: Any, adapter: Path) -> None:
    """Copies an adapter's weights into the fresh one of a model. Raises ValueError where they do not fit."""
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    weights = load_peft_weights(str(adapter), device="cpu")
    loaded = set_peft_model_state_dict(model, weights)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    if loaded.unexpected_keys or missing:
        raise ValueError(f"{adapter} does not fit this model: {[*loaded.unexpected_keys, *missing][:3]} differ.")


if __name__ == "__main__":
    train_process(Path(sys.argv[1]), load_preference)
