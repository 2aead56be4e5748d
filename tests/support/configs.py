"""Training configurations for tests."""

from typing import Any

from helpers.planning.config import Promise, TrainingConfig, configure_training
from helpers.runs.settings import default_settings

SMALL_STEPS = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1, "optim": "adamw_torch"}  # of `sft`


def make_config(**changes: Any) -> TrainingConfig:
    """Returns the configuration of 02_train's parameters cell with changes; those in `sft` are added to the cell's."""
    parameters = default_settings("train")
    sft = {**parameters["sft"], **changes.pop("sft", {})}
    return configure_training({**parameters, **changes, "sft": sft})


def make_promise(**changes: Any) -> dict[str, Any]:
    """Returns a promise of hours as train/config.json keeps it: 1.5 epochs of 9 training rows, 4 held-out rows."""
    hours = {"hours": 1.0, "spent": 0.0, "reserve": 0.1, "estimated": 0.8, "speed_from": "a T4's constants"}
    everything = {"all_epochs": 3.0, "all_train_rows": 24, "all_test_rows": 9}
    facts = {**hours, "epochs": 1.5, "train_rows": 9, "test_rows": 4, **everything, **changes}
    return Promise(**facts).model_dump()
