"""The whole configuration of a training run: parameters, the search's settings, what the data decide."""

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

from helpers.models.embedded import locate_base_model
from helpers.planning.config import TrainingConfig, configure_training, fit_gpus
from helpers.runs.checkpoints import begun_processes
from helpers.runs.files import read_json
from helpers.runs.record import Run

RUNG_REACHED = "a rung of the search"  # why a candidate of `tune` pauses: config.pause_at is reached
OnRung = Callable[[int, float], int | None]  # (step, validation loss): the next rung's step, 0: none, None: end here


def resolve_config(run: Run) -> TrainingConfig:
    """Returns the configuration that config.json keeps, from the stage's parameters, the search and the data.

    Raises ValueError as `configure_training` and `fit_gpus` do, and ModuleNotFoundError for a tracker that is missing.
    """
    stages, data = run.record().stages, run.metrics("prepare_data")
    config = configure_training(apply_search_settings(run, stages["train"].parameters))
    package = config.sft["report_to"]
    if package != "none" and importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"sft.report_to is {package!r}, which is not installed: pip install {package}")
    locate_base_model(config.base_model, run)
    config = fit_to_machine(run, config)
    max_length = stages["prepare_data"].parameters["max_length"]
    return config.model_copy(update={"max_length": max_length, "embedded_model": data["embedded_model"]})


def fit_to_machine(run: Run, config: TrainingConfig) -> TrainingConfig:
    """Returns a run's configuration for the GPUs of this machine, and prints what changed; raises as `fit_gpus`."""
    import torch

    gpus = max(1, torch.cuda.device_count())
    fitted, note = fit_gpus(config, gpus, begun_processes(run / config.stage / "checkpoints", run.record().id))
    if note:
        print(note)
    return fitted


def apply_search_settings(run: Run, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the stage's parameters, with those of tune/best.json laid over where sft.settings_from says "tune".

    Raises ValueError for another word, FileNotFoundError where no search has finished.
    """
    parameters = copy.deepcopy(parameters)
    source = parameters["sft"].pop("settings_from", "")
    if not source:
        return parameters
    if source != "tune":
        raise ValueError(f"sft.settings_from is {source!r}: expected 'tune', or nothing.")
    file = run / "tune" / "best.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: finish the stage tune of run {run.name} first.")
    best = read_json(file)
    for name, value in best["settings"].items():
        group, _, key = name.rpartition(".")
        (parameters[group] if group else parameters)[key] = value
    settings = ", ".join(f"{name} {value}" for name, value in best["settings"].items())
    by_bits = "bits_per_char" in best
    judged = f"{best['bits_per_char']:.4f} bits per character" if by_bits else f"validation loss {best['val_loss']:.4f}"
    print(f"from the search: {settings} (candidate {best['candidate']}, {judged})")
    return parameters


def config_warnings(config: TrainingConfig) -> list[str]:
    """Returns what a user should know of a configuration that works, but badly."""
    if config.backend == "unsloth" and config.lora.get("lora_dropout"):
        return [
            "lora_dropout > 0 switches Unsloth's fast kernels off: others saw 0.31 rows/s instead of 0.83 on a T4. "
            "Set it to 0, or backend: peft."
        ]
    return []
