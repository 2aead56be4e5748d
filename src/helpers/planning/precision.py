"""Which trainings keep activations in float32: those of some models exceed float16, and a T4 has no bfloat16."""

import re
from typing import Any

from helpers.models.families import (
    OVERFLOWS,
    Shape,
    count_parameters,
    describe_overflow,
    linear_layers,
    model_shape,
)
from helpers.models.float32_activations import WAY_OUT
from helpers.planning.config import TrainingConfig, configure_training
from helpers.platforms.machine import list_gpus

WITHOUT_BFLOAT16 = re.compile(r"\b(T4|P4|P40|P100|V100|GTX|RTX 20\d\d|K80|M60)\b")  # names of GPUs below capability 8.0
ATTENDED_TOKENS = 256  # to which a token attends, on average: half of a row of 512
FLOAT32_SLOWDOWN = 8  # by a T4's data sheet: 65 TFLOP/s in float16, 8.1 in float32


def has_bfloat16(gpu: str = "") -> bool:
    """Returns whether a GPU computes in bfloat16: by its name, "" for those that are here, a T4 where there is none."""
    if gpu:
        return not WITHOUT_BFLOAT16.search(gpu)
    gpus = list_gpus()
    return bool(gpus) and all(float(each.capability or 0) >= 8 for each in gpus)


def needs_float32(config: TrainingConfig, shape: Shape, gpu: str = "") -> bool:
    """Returns whether a model's activations exceed float16, and this GPU, as in `has_bfloat16`, computes in it."""
    if shape.get("model_type") not in OVERFLOWS:
        return False
    return bool(config.sft.get("fp16")) or not has_bfloat16(gpu)


def check_activations(config: TrainingConfig, shape: Shape, gpu: str = "") -> None:
    """Raises ValueError where Unsloth would compute activations in float16 that exceed it."""
    if needs_float32(config, shape, gpu) and config.backend == "unsloth" and not OVERFLOWS[shape["model_type"]].unsloth:
        raise ValueError(
            f"base_model {config.base_model!r} cannot be trained in float16 with train.backend=unsloth: "
            f"{describe_overflow(shape['model_type'])}, and Unsloth does not keep them in float32. {WAY_OUT}"
        )


def check_planned_activations(train: dict[str, Any], gpu: str = "") -> None:
    """Checks what is planned for a GPU, as in `has_bfloat16`, from the settings of 02_train. Raises ValueError as
    `check_activations` does. A run on a CPU is not to be checked: it computes in float32."""
    check_activations(configure_training(train), model_shape(train["base_model"]), gpu)


def explain_float32(config: TrainingConfig, shape: Shape) -> str:
    """Returns, for a plan, what activations in float32 mean."""
    products = "attention" if config.backend == "unsloth" else "attention and the adapter"
    return (
        f"in float32, twice the bytes: {describe_overflow(shape['model_type'])}. Products in float32, "
        f"{FLOAT32_SLOWDOWN} times slower on a T4: {products}; those with the base model's weights stay in float16"
    )


def float32_operations(config: TrainingConfig, shape: Shape, gpu: str) -> float:
    """Returns the operations in float16 that would take as long as those in float32 of one token's pass forward: two
    products of attention (scores, values) and the adapter's, since PEFT answers whatever trained; 0 where activations
    are in 16 bits."""
    if not needs_float32(config, shape, gpu):
        return 0.0
    attention = 4 * ATTENDED_TOKENS * linear_layers(shape)["q_proj"][1] * shape["num_hidden_layers"]
    adapter = 2 * count_parameters(shape, config.lora)["trainable"]
    return FLOAT32_SLOWDOWN * float(attention + adapter)
