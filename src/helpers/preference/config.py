"""The configuration of a training by preferences: the stage's parameters on what the tuned adapter was trained by."""

from typing import Any

from helpers.planning.config import RULES, TrainingConfig, check_config
from helpers.runs.record import Run

TAKEN_OVER = (  # of train/config.json: the preferred adapter goes on the same base model, in the same way
    *("base_model", "backend", "load_in_4bit", "device_map", "lora", "max_length", "embedded_model"),
)
OWNED_ELSEWHERE = {  # names in `trl`, beside those of `sft`
    "precompute_ref_log_probs": "nothing: the tuned model's are computed once",
    "use_liger_kernel": "train.backend",
    "sync_ref_model": "nothing: the tuned model stays the reference",
    "fp16": "the GPU, as in 02_train",
    "bf16": "the GPU, as in 02_train",
    "disable_dropout": "nothing: there is none",
}


def choose_method(rows: list[dict[str, Any]]) -> str:
    """Returns "dpo" where every row is a pair, "kto" where some are single replies."""
    return "dpo" if all("chosen" in row for row in rows) else "kto"


def check_settings(trl: dict[str, Any]) -> None:
    """Raises ValueError for a name that something else decides."""
    owned = RULES["owned_elsewhere"] | OWNED_ELSEWHERE
    if foreign := next((name for name in trl if name in owned), None):
        raise ValueError(f"trl.{foreign} is decided by {owned[foreign].replace('train.', 'prefer.')}: set it there.")


def configure_preference(run: Run, parameters: dict[str, Any], rows: list[dict[str, Any]]) -> TrainingConfig:
    """Returns the configuration that prefer/config.json keeps: the parameters of prefer.py, what the tuned adapter was
    trained by, and the `method` that the rows ask for.

    The settings in `trl` are of trl.DPOConfig or trl.KTOConfig; a TrainingConfig has them as `sft`. Raises ValueError
    for a name in `trl` that something else decides, and as `check_config` does.
    """
    check_settings(parameters["trl"])
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
