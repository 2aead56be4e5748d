"""How fast one GPU computes with a model: by a T4's constants, or as `python -m helpers calibrate` measured it."""

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.models.families import Shape, count_parameters, linear_layers
from helpers.planning.memory import NF4_BYTES

T4_FLOPS = 20.4e12  # floating-point operations per second, measured in a 4096³ product in float16
T4_BYTES = 320e9  # bytes per second of its memory, by its data sheet
# What is reached of these rates in scoring and in replies, all else included: tests/benchmarks/RESULTS.md
FORWARD_EFFICIENCY, DECODE_EFFICIENCY = 0.62, 0.42
# In training, operations that take as long as all else that one pass of a layer does to a token: norms, rotary
# positions, attention, the activation function, adapters of r 16 on all projections. By backend, with activations in 16
# bits and in 32; PEFT's in 16 were fitted to one shape
LAYER_OPERATIONS = {"unsloth": (1.35e8, 5.6e8), "peft": (5.3e8, 1.05e9)}
KEPT_READS = 8  # times that the bytes of kept keys and values are moved in a step
DRIVE_BYTES = 50e6  # bytes per second of a checkpoint's way to disk and mirror

Line = Sequence[tuple[float, float]]  # (how many, seconds), rising; straight between the points and beyond


@dataclass(frozen=True)
class Speed:
    """Seconds on one GPU, and in words where they are from.

    A line gives the seconds of one pass through the model for so many tokens, pads included; that of `decode_step` for
    so many rows, each of which gets one token.
    """

    training: Line  # forward and backward
    checkpointed: Line  # the same, with activations computed twice
    forward: Line
    decode_step: Line
    cached_token: float  # what a decode step takes longer per token that keys and values are kept of
    step: float  # per optimizer step, besides its micro-batches
    source: str
    drive: float = DRIVE_BYTES  # bytes per second of a checkpoint's way to disk and mirror


def seconds_of(line: Line, number: float) -> float:
    """Returns the seconds for `number` by a line of two points or more, never below 0."""
    upper = next((at for at in range(1, len(line) - 1) if number <= line[at][0]), len(line) - 1)
    (x0, y0), (x1, y1) = line[upper - 1], line[upper]
    return max(0.0, y0 + (number - x0) * (y1 - y0) / (x1 - x0))


def estimate_speed(
    shape: Shape,
    load_in_4bit: bool,
    flops: float = T4_FLOPS,
    copied: float = T4_BYTES,
    source: str = "a T4's constants",
    slow: float = 0.0,
    backend: str = "unsloth",
) -> Speed:
    """Returns the speed of a GPU of `flops` floating-point operations and `copied` bytes per second, a T4 unless given.

    A token's pass forward takes 2 operations per weight, backward as many where weights are frozen. In training
    LAYER_OPERATIONS of the backend come on top; else the efficiencies above are of what that would take, and `slow` are
    operations of a token's pass forward that take as long as so many more in float16. Where there are any, keys and
    values are kept in float32, and activations in training.
    """
    count = count_parameters(shape, {"target_modules": []})
    token = 2 * (count["linear"] + count["table"]) / flops
    fixed = unpacking_seconds(shape, load_in_4bit, copied)
    trained = token + shape["num_hidden_layers"] * LAYER_OPERATIONS[backend][bool(slow)] / flops

    def passes(number: int) -> Line:
        return [(rows, number * (fixed + rows * trained)) for rows in (0, 1)]

    def forward(efficiency: float, extra: float = 0.0) -> Line:
        return [(rows, (fixed + rows * (token + slow / flops) + extra) / efficiency) for rows in (0, 1)]

    kept = 4 * linear_layers(shape)["k_proj"][1] * shape["num_hidden_layers"]  # bytes of a token's keys and values
    kept *= 2 if slow else 1
    return Speed(
        training=passes(2),
        checkpointed=passes(3),
        forward=forward(FORWARD_EFFICIENCY),
        decode_step=forward(DECODE_EFFICIENCY, extra=count["table"] * 2 / copied),
        cached_token=KEPT_READS * kept / copied,
        step=0.0,
        source=source,
    )


def unpacking_seconds(shape: Shape, load_in_4bit: bool, copied: float) -> float:
    """Returns what one pass through all layers costs whatever the tokens: taking the weights out of 4 bits, read at
    NF4, written and read again in 16 bits; `copied` bytes per second."""
    linear = count_parameters(shape, {"target_modules": []})["linear"]
    return linear * (NF4_BYTES + 2 + 2 if load_in_4bit else 2) / copied
