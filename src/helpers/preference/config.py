"""The configuration of a training by preferences: the stage's parameters on what the tuned adapter was trained by."""

from typing import Any

from helpers.planning.config import RULES, TrainingConfig, check_config, complete_settings
from helpers.runs.record import Run

TAKEN_OVER = (  # of train/config.json: the preferred adapter goes on the same base model, in the same way
    *("base_model", "backend", "load_in_4bit", "device_map", "lora", "max_length", "embedded_model"),
)
BY_ONE_LOSS = (
    "nothing: pairs are trained on by DPO's own loss, single replies by KTO's, and held-out ones measured by it"
)
OWNED_ELSEWHERE = {  # names in `trl`, beside those of `sft`
    "precompute_ref_log_probs": "nothing: the tuned model's are computed once",
    "use_liger_kernel": "nothing: it follows from the backend of 02_train",
    **dict.fromkeys(("fp16", "bf16"), "nothing: the dtype is that of 02_train"),
    **dict.fromkeys(
        ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        "nothing: the tuned model stays the reference",
    ),
    "disable_dropout": "nothing: there is none",
    **dict.fromkeys(("padding_free", "truncation_mode"), "nothing: rows are padded, and none is cut"),
    **dict.fromkeys(("loss_type", "loss_weights", "f_divergence_type", "f_alpha_divergence_coef"), BY_ONE_LOSS),
    **dict.fromkeys(("discopop_tau", "use_weighting", "ld_alpha"), BY_ONE_LOSS),
}
OF_ONE_METHOD = {"label_smoothing": "dpo", "desirable_weight": "kto", "undesirable_weight": "kto"}  # names in `trl`
METHODS = {"dpo": "DPO, by which pairs alone are trained on", "kto": "KTO, by which single replies are trained on"}


def choose_method(rows: list[dict[str, Any]]) -> str:
    """Returns "dpo" where every row is a pair, "kto" where some are single replies."""
    return "dpo" if all("chosen" in row for row in rows) else "kto"


def check_settings(trl: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings in `trl` over the defaults. Raises ValueError for a name that something else decides."""
    owned = {name: text.replace("train.", "prefer.") for name, text in RULES["owned_elsewhere"].items()}
    return complete_settings("prefer.trl", trl, owned | OWNED_ELSEWHERE)


def check_method(trl: dict[str, Any], method: str) -> None:
    """Raises ValueError for a name in `trl` that these preferences have no use for."""
    if name := next((name for name in trl if OF_ONE_METHOD.get(name, method) != method), None):
        raise ValueError(
            f"prefer.trl.{name} is a setting of {METHODS[OF_ONE_METHOD[name]]}. These preferences are trained on by "
            f"{method.upper()}: remove it."
        )


def configure_preference(run: Run, parameters: dict[str, Any], rows: list[dict[str, Any]]) -> TrainingConfig:
    """Returns the configuration that prefer/config.json keeps: the parameters of prefer.py, what the tuned adapter was
    trained by, and the `method` that the rows ask for.

    The settings in `trl` are of trl.DPOConfig or trl.KTOConfig; a TrainingConfig has them as `sft`. Raises ValueError
    for a name in `trl` that something else decides or the method has not, and as `check_config` does.
    """
    return configure_by(run.training_config(), parameters, choose_method(rows))


def configure_by(tuned: dict[str, Any], parameters: dict[str, Any], method: str) -> TrainingConfig:
    """Returns the configuration of a training by `method` on what the adapter was `tuned` by; raises as
    `configure_preference`."""
    trl = check_settings(parameters["trl"])
    check_method(parameters["trl"], method)
    dtype = {name: tuned["sft"][name] for name in ("fp16", "bf16") if name in tuned["sft"]}
    given = {name: parameters[name] for name in ("num_gpus", "max_tokens", "learning_rate", "num_train_epochs", "seed")}
    given |= {name: tuned[name] for name in TAKEN_OVER if name in tuned}
    config = TrainingConfig.model_validate(
        given
        | {
            "lora": {**tuned["lora"], "lora_dropout": 0.0},  # the reference has none
            "sft": trl | dtype,
            "session": parameters["session"],
            "eval_rows": 0,
            "stage": "prefer",
            "method": method,
        }
    )
    check_config(config)
    return config
