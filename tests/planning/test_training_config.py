"""The configuration of a training: checked, written and read."""

import configs
import pytest

from helpers.planning.config import TrainingConfig, configure_training
from helpers.runs.checkpoints import make_fingerprint
from helpers.runs.files import read_json, write_json
from helpers.runs.record import Run
from helpers.runs.settings import default_settings, resolve_settings

EARLIER = {  # train/config.json as the version before TrainingConfig wrote it
    "base_model": "embedded",
    "backend": "peft",
    "load_in_4bit": False,
    "device_map": "",
    "num_gpus": 1,
    "max_tokens": 0,
    "learning_rate": 0.003,
    "num_train_epochs": 6.0,
    "eval_rows": 4,
    "session": {"hours": 0.0, "mirror": "", "keep": 2},
    "seed": 3407,
    "lora": {"r": 16, "target_modules": "all-linear"},
    "sft": {"max_steps": 8, "logging_steps": 1, "optim": "adamw_torch"},
    "max_length": 1024,
    "embedded_model": "tiny-llama-0dbcad57b148",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sft": {"max_length": 9}}, "sft.max_length is decided by shared.max_length"),
        ({"device_map": "balanced", "num_gpus": 2}, "num_gpus is 2, set 1"),
        ({"sft": {"early_stopping_patience": 3}}, "needs sft.load_best_model_at_end"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(changes, message):
    parameters = default_settings("train")
    configure_training(parameters)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        configure_training({**parameters, **changes})


def test_a_bare_no_in_yaml_is_the_word_no():
    settings = resolve_settings("demo", "r", "outputs", ["train.sft.save_strategy=no"], False)
    assert configure_training(settings["train"]).sft["save_strategy"] == "no"


def test_the_search_s_own_setting_is_not_passed_on():
    assert "settings_from" not in configs.make_config(sft={"settings_from": "tune"}).sft


def test_a_config_of_the_earlier_version_is_written_the_same(tmp_path):
    write_json(tmp_path / "train/config.json", EARLIER)
    config = TrainingConfig.of_run(Run(tmp_path))
    write_json(tmp_path / "train/config.json", config.to_json())
    assert read_json(tmp_path / "train/config.json") == EARLIER
    assert list(config.to_json()) == list(EARLIER)


def test_the_fingerprint_is_that_of_the_earlier_version():
    config = TrainingConfig(**EARLIER).model_copy(update={"base_model_path": "/here"})
    assert make_fingerprint("id", config.to_json(), {}, 1) == make_fingerprint("id", EARLIER, {}, 1)
    assert "train.limit" not in make_fingerprint("id", config.to_json(), {}, 1)["settings"], "a default was written"


def test_what_a_later_version_added_is_kept():
    assert TrainingConfig(**EARLIER, later=1).to_json()["later"] == 1
