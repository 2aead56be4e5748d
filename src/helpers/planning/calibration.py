"""What `python -m helpers calibrate` measured of GPUs, and the speed that plans take from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from helpers.models.families import OVERFLOWS, Shape, count_parameters, model_shape, target_modules
from helpers.planning.config import TrainingConfig
from helpers.planning.precision import float32_operations
from helpers.planning.speed import Line, Speed, estimate_speed, unpacking_seconds
from helpers.platforms.machine import gpu_names
from helpers.runs.damage import reading
from helpers.runs.files import read_json, write_json
from helpers.runs.record import Run

FILE = "calibration.json"  # in the folder of all runs
MEND = "Remove it: plans are by a T4's constants until `python -m helpers calibrate --preset NAME` measures anew."
PLANNED_GPU = "Tesla T4"  # where there is none
LAYER_KEYS = "hidden_size intermediate_size num_attention_heads num_key_value_heads vocab_size"

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Point(BaseModel, frozen=True):
    """Seconds of one pass for `number` tokens, or rows: of one decoder layer, and of all besides the layers."""

    number: Rate
    layer: Seconds
    rest: Seconds


class MeasuredModel(BaseModel, frozen=True):
    """What was measured with a few layers of a model's shape, and the settings it holds for."""

    settings: dict[str, Any]  # as `model_settings` gives them
    recomputed: bool  # whether the training that was measured computes activations twice
    training: Point  # of one micro-batch, its share of the optimizer's work included
    forward: list[Point]
    decode_step: list[Point]  # by rows, none of which has tokens before
    cached_token: Seconds  # seconds of one layer in such a step, per token before


class Calibration(BaseModel, frozen=True):
    """What was measured on one kind of GPU: rates in floating-point operations and bytes per second."""

    date: str  # ISO 8601 in UTC
    gpus: int
    versions: dict[str, str]
    products: Rate
    copies: Rate  # read and written
    disk: Rate
    mirror: Rate | None = None
    downloads: Rate | None = None  # from the Hugging Face Hub, by one connection
    all_reduce: Rate | None = None  # of the message that each GPU sends
    seconds: float | None = None  # that measuring took
    models: list[MeasuredModel] = []


def read_calibrations(outputs: Path) -> dict[str, Calibration]:
    """Returns the calibrations in a folder of runs, {GPU: calibration}, {} without any. Raises Refused for a damaged
    file."""
    file = outputs / FILE
    if not file.is_file():
        return {}
    with reading(file, MEND):
        return {gpu: Calibration.model_validate(each) for gpu, each in read_json(file, MEND).items()}


def run_calibrations(run: Run) -> dict[str, Calibration]:
    """Returns what a run's plan may take: the calibrations in the folder of runs, and those that the run keeps, which
    an earlier session made on another machine of the same kind. Raises Refused for a damaged file."""
    calibrations = read_calibrations(run / "train")
    for gpu, calibration in read_calibrations(run.outputs).items():
        calibrations[gpu] = merge_calibrations(calibration, calibrations.get(gpu))
    return calibrations


def merge_calibrations(calibration: Calibration, before: Calibration | None) -> Calibration:
    """Returns a GPU's calibration with those models of the one before that it did not measure again."""
    measured = [model.settings for model in calibration.models]
    kept = [model for model in (before.models if before else []) if model.settings not in measured]
    return calibration.model_copy(update={"models": [*calibration.models, *kept]})


def keep_calibration(outputs: Path, gpu: str, calibration: Calibration) -> None:
    """Writes a GPU's calibration beside those of other GPUs; models that it did not measure again are kept."""
    calibrations = read_calibrations(outputs)
    calibrations[gpu] = merge_calibrations(calibration, calibrations.get(gpu))
    outputs.mkdir(parents=True, exist_ok=True)
    write_json(outputs / FILE, {name: each.model_dump() for name, each in calibrations.items()})


def model_settings(config: TrainingConfig) -> dict[str, Any]:
    """Returns what a measurement depends on: the shape of a layer, the adapter, the size of the micro-batches."""
    shape = model_shape(config.base_model)
    return {
        **{name: shape[name] for name in LAYER_KEYS.split()},
        "head_dim": shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"],
        "backend": config.backend,
        "load_in_4bit": config.load_in_4bit,
        "r": config.lora.get("r", 8),
        "target_modules": target_modules(shape, config.lora),
        "max_tokens": config.max_tokens,
        "rows": 0 if config.max_tokens else config.sft["per_device_train_batch_size"],
        **({"model_type": shape["model_type"]} if shape.get("model_type") in OVERFLOWS else {}),
    }


def find_speed(config: TrainingConfig, run: Run, gpu: str = "") -> Speed:
    """Returns the speed of a GPU, "" for the one that is here, a T4 where there is none: as calibrated, for another
    model by the calibrated rates alone, else by a T4's constants. Raises Refused for a damaged file."""
    gpu, shape = gpu or next(iter(gpu_names()), PLANNED_GPU), model_shape(config.base_model)
    calibrations = run_calibrations(run)
    own = {"slow": float32_operations(config, shape, gpu), "backend": config.backend}
    if gpu not in calibrations:
        others = f"; {FILE} has only {', '.join(calibrations)}" * bool(calibrations)
        return estimate_speed(shape, config.load_in_4bit, source=f"a T4's constants{others}", **own)
    calibration = calibrations[gpu]
    source = f"{FILE}, {gpu}, {calibration.date[:10]}"
    model = find_model(calibration, config)
    if model is None:
        source += ", its products and copies: a model of this shape and settings was not measured"
        return estimate_speed(shape, config.load_in_4bit, calibration.products, calibration.copies, source, **own)
    return measured_speed(calibration, model, shape, config, source)


def find_model(calibration: Calibration, config: TrainingConfig) -> MeasuredModel | None:
    """Returns what was measured with a configuration's model and settings, None where they were not."""
    settings = model_settings(config)
    return next((model for model in calibration.models if model.settings == settings), None)


def is_calibrated(plan: Mapping[str, Any], gpus: Sequence[str]) -> bool:
    """Returns whether a plan, as train/metrics.json keeps it, is by a calibration of the first of these GPUs."""
    return bool(gpus) and f"{FILE}, {gpus[0]}, " in str(plan.get("speed_from", ""))


def is_plan_for(plan: Mapping[str, Any], gpus: Sequence[str]) -> bool:
    """Returns whether a plan's hours are those of these GPUs: T4s, or what it was calibrated on."""
    return bool(gpus) and (all("T4" in name for name in gpus) or is_calibrated(plan, gpus))


def measured_speed(
    calibration: Calibration, model: MeasuredModel, shape: Shape, config: TrainingConfig, source: str
) -> Speed:
    """Returns the speed with all layers of the shape, from what was measured with a few."""
    layers = shape["num_hidden_layers"]

    def seconds(point: Point) -> float:
        return point.rest + layers * point.layer

    count = count_parameters(shape, config.lora)
    fixed = unpacking_seconds(shape, config.load_in_4bit, calibration.copies)

    def through(point: Point, passes: float, measured: float) -> Line:
        """Returns a line whose start, at no tokens, is what taking the weights out of 4 bits costs."""
        start = min(passes * fixed, seconds(point) * passes / measured)
        return [(0, start), (point.number, max(start, seconds(point) * passes / measured))]

    measured = 3 if model.recomputed else 2
    return Speed(
        training=through(model.training, 2, measured),
        checkpointed=through(model.training, 3, measured),
        forward=[(point.number, seconds(point)) for point in model.forward],
        decode_step=[(point.number, seconds(point)) for point in model.decode_step],
        cached_token=layers * model.cached_token,
        step=count["trainable"] * 4 / calibration.all_reduce if calibration.all_reduce and config.num_gpus > 1 else 0.0,
        drive=min(calibration.disk, calibration.mirror or calibration.disk),
        source=source,
    )
