"""Training configurations for tests."""

from typing import Any

from helpers.planning.config import TrainingConfig, configure_training
from helpers.runs.settings import default_settings

SMALL_STEPS = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1, "optim": "adamw_torch"}  # of `sft`


def make_config(**changes: Any) -> TrainingConfig:
    """Returns the configuration of 02_train's parameters cell with changes; those in `sft` are added to the cell's."""
    parameters = default_settings("train")
    sft = {**parameters["sft"], **changes.pop("sft", {})}
    return configure_training({**parameters, **changes, "sft": sft})
