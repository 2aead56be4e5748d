"""The configuration of a training run, checked before anything is loaded."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers.runs.files import load_yaml, read_json
from helpers.runs.record import Run

RULES: dict[str, Any] = load_yaml(Path(__file__).with_name("training.yaml"))


class Promise(BaseModel, frozen=True):
    """What was picked so that a run ends inside the hours it was promised in; rows and epochs are of `all_…`."""

    hours: float  # for the whole run
    spent: float  # of them, before the training
    reserve: float  # of them, for what is not estimated
    estimated: float  # hours of what is picked
    speed_from: str  # whose speed that is by
    epochs: float
    train_rows: int  # a sample by seed
    test_rows: int
    all_epochs: float
    all_train_rows: int
    all_test_rows: int


class TrainingConfig(BaseModel, frozen=True, extra="allow"):
    """What train/config.json holds: the parameters of 02_train, with their units there, and what the data decide."""

    base_model: str
    backend: str
    load_in_4bit: bool
    device_map: str
    num_gpus: int
    max_tokens: int
    learning_rate: float
    num_train_epochs: float
    eval_rows: int
    session: dict[str, Any]
    seed: int
    lora: dict[str, Any]  # of peft.LoraConfig
    sft: dict[str, Any]  # of trl.SFTConfig
    max_length: int = 0  # tokens of the longest row that the data may have
    embedded_model: str = ""  # its name has a hash of all that the model was made of
    base_model_path: str = ""  # folder or name that loads the base model on this machine; not kept in config.json
    pause_at: int = 0  # the step of a search's rung at which training pauses, 0: none
    stage: str = "train"  # whose folder and notebook it is of, "prefer" for one by preferences
    method: str = ""  # "dpo" or "kto", for one by preferences
    part_of: str = ""  # the way from the run's folder to the run whose file `stop` ends this one, for a candidate
    promise: Promise | None = None  # of hours; its epochs are num_train_epochs
    limit: int = 0  # tokens of a micro-batch to begin with, as after memory ran out, 0: max_tokens

    @classmethod
    def of_run(cls, run: Run, stage: str = "train") -> "TrainingConfig":
        """Reads the config.json of a stage that trains."""
        return cls.model_validate(read_json(run / stage / "config.json"))

    def to_json(self) -> dict[str, Any]:
        """Returns what config.json keeps, and a checkpoint's fingerprint is made of: what was set, without defaults."""
        return self.model_dump(exclude_unset=True, exclude={"base_model_path"})


def configure_training(parameters: dict[str, Any]) -> TrainingConfig:
    """Returns the configuration of a training: the stage's parameters with the defaults of `sft` below them.

    Each value is in its range: see helpers.runs.settings. Raises ValueError for a name in `sft` that belongs elsewhere,
    and for settings that contradict each other.
    """
    sft = complete_settings("sft", parameters["sft"], RULES["owned_elsewhere"])
    sft.pop("settings_from", None)  # applied by helpers.training.config
    given = {name: value for name, value in parameters.items() if name not in ("outputs", "run_name")}
    config = TrainingConfig.model_validate(given | {"sft": sft})
    check_config(config)
    return config


def complete_settings(group: str, given: dict[str, Any], owned: dict[str, str]) -> dict[str, Any]:
    """Returns settings of a library's trainer, `given` over the defaults; `group` is how the user names them.

    Raises ValueError for a name of `owned`, which something else decides.
    """
    if foreign := next((name for name in given if name in owned), None):
        decided, _, reason = owned[foreign].partition("nothing: ")
        raise ValueError(
            f"{group}.{foreign} cannot be set: {reason}. Remove it."
            if reason
            else f"{group}.{foreign} is decided by {decided}: set it there."
        )
    settings = {**RULES["defaults"], **given}
    strategies = ("eval_strategy", "save_strategy", "logging_strategy")
    return settings | {name: "no" for name in strategies if settings.get(name) is False}  # YAML reads a bare no so


def fit_gpus(config: TrainingConfig, gpus: int, begun: int) -> tuple[TrainingConfig, str]:
    """Returns the configuration for a machine with so many GPUs, 1 for a CPU, and in words what changed, if anything.

    With fewer than train.num_gpus each takes more micro-batches: the rows of a step depend on processes × accumulation
    alone, so the effective batch and the steps stay. A run keeps the number of processes that it began in, `begun` (0:
    it has no checkpoint), which it needs to resume bit for bit. Raises ValueError when it began on more GPUs.
    """
    planned, here = config.num_gpus or gpus, f"this machine has {gpus} GPU{'s' * (gpus > 1)}"
    if config.num_gpus and begun > config.num_gpus:
        return config, ""  # begun with other settings: what reads the checkpoint says which
    if begun > gpus:
        raise ValueError(f"the run began on {begun} GPUs and can only resume on as many, but {here}.")
    accumulation = config.sft["gradient_accumulation_steps"]
    batches = accumulation * planned
    processes = begun or max(number for number in range(1, min(planned, gpus) + 1) if batches % number == 0)
    if processes == planned:
        return config, ""
    reason = f"the run began on {begun}" if begun else f"the run is planned for {planned}"
    if not config.num_gpus:
        return config.model_copy(update={"num_gpus": processes}), f"{here}, {reason} and resumes on as many"
    sft = {**config.sft, "gradient_accumulation_steps": batches // processes}
    note = (
        f"{here}, {reason}: training on {processes}, with {batches // processes} micro-batches per step on each in "
        f"place of {accumulation} on each of {planned}, so that the effective batch stays"
    )
    return config.model_copy(update={"num_gpus": processes, "sft": sft}), note


def check_config(config: TrainingConfig) -> None:
    """Raises ValueError for settings that contradict each other."""
    sft, group = config.sft, "prefer.trl" if config.stage == "prefer" else "sft"
    if config.device_map and config.num_gpus != 1:
        raise ValueError(f"train.device_map splits one model over the GPUs: num_gpus is {config.num_gpus}, set 1.")
    if "early_stopping_patience" in sft and not sft.get("load_best_model_at_end"):
        raise ValueError(f"{group}.early_stopping_patience needs {group}.load_best_model_at_end: true.")
