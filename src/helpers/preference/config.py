"""The configuration of a training by preferences: the stage's parameters on what the tuned adapter was trained by."""

from typing import Any

from helpers.planning.config import RULES, TrainingConfig, check_config
from helpers.platforms.errors import Refused
from helpers.runs.record import Run

METHODS = ("dpo", "kto")
TAKEN_OVER = (  # of train/config.json: the preferred adapter goes on the same base model, in the same way
    *("base_model", "backend", "load_in_4bit", "device_map", "lora", "max_length", "embedded_model"),
)


def choose_method(rows: list[dict[str, Any]]) -> str:
    """Returns "dpo" where every row is a pair, "kto" where some are single replies."""
    return "dpo" if all("chosen" in row for row in rows) else "kto"


def configure_preference(run: Run, parameters: dict[str, Any], rows: list[dict[str, Any]]) -> TrainingConfig:
    """Returns the configuration that prefer/config.json keeps: the parameters of prefer.py, what the tuned adapter was
    trained by, and the `method` that the rows ask for.

    The settings in `trl` are of trl.DPOConfig or trl.KTOConfig; a TrainingConfig has them as `sft`. Raises ValueError
    for a name in `trl` that something else decides, and as `check_config` does.
    """
    owned = RULES["owned_elsewhere"] | {"precompute_ref_log_probs": "nothing: the tuned model's are computed once"}
    if foreign := next((name for name in parameters["trl"] if name in owned), None):
        raise ValueError(f"trl.{foreign} is decided by {owned[foreign].replace('train.', 'prefer.')}: set it there.")
    tuned = run.training_config()
    given = {name: parameters[name] for name in ("num_gpus", "max_tokens", "learning_rate", "num_train_epochs", "seed")}
    given |= {name: tuned[name] for name in TAKEN_OVER if name in tuned}
    config = TrainingConfig.model_validate(
        given
        | {
            "lora": {**tuned["lora"], "lora_dropout": 0.0},  # the reference has none
            "sft": {**RULES["defaults"], **parameters["trl"]},
            "session": parameters["session"],
            "eval_rows": 0,
            "stage": "prefer",
            "method": choose_method(rows),
        }
    )
    check_config(config)
    return config


def check_amount(rows: list[dict[str, Any]]) -> None:
    """Raises Refused where there is nothing to train on, or to measure by."""
    for part in ("train", "val"):
        if not any(row["part"] == part for row in rows):
            raise Refused(f"no preference is left for the {part} part: see prefer/dropped.csv, and collect more.")
