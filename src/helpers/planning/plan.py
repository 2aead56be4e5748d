"""What a run will do and cost before it starts: steps, memory, hours, sessions. Estimates, not measurements."""

import math
import random
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from helpers.models.batching import padded_tokens
from helpers.models.families import check_bits, count_parameters, model_shape
from helpers.planning.batches import (
    count_steps,
    effective_batch_line,
    effective_batch_rows,
    most_attended,
    schedule_steps,
    uses_checkpointing,
)
from helpers.planning.calibration import find_speed, is_plan_for
from helpers.planning.config import Promise, TrainingConfig, configure_training, fit_gpus
from helpers.planning.hours import count_events, estimate_answering, estimate_hours
from helpers.planning.lengths import PlannedRows, row_lengths, spread_lengths
from helpers.planning.memory import T4_GIB, check_memory
from helpers.planning.precision import check_activations, explain_float32, needs_float32
from helpers.planning.promise import describe_promise, keep_promise, promised_rows, with_promise
from helpers.planning.speed import seconds_of
from helpers.platforms.machine import gpu_gib as gpu_memory
from helpers.platforms.machine import gpu_names
from helpers.runs.files import load_yaml
from helpers.runs.record import Run
from helpers.runs.session import SESSION_HOURS
from helpers.runs.settings import Settings, default_settings


@dataclass(frozen=True)
class Plan:
    """What a run will do and cost. As a dict it is what `plan --json` prints and train/metrics.json keeps."""

    trainable_parameters: int
    total_parameters: int
    world_size: int
    effective_batch: float  # rows
    batch: str  # the same as a product, for people
    optimizer_steps: int
    warmup_share: float
    train_rows: int
    tokens_per_epoch: int
    useful_token_fraction: float
    arithmetic_per_useful_token: float  # 1: every token computed three times, none of them a pad
    peak_memory_gib: float | None  # None for the embedded model
    tokens_per_second: float
    hours: dict[str, float]  # train, validate, evaluate, checkpoints, total
    events: dict[str, float]  # validations, checkpoints, micro_batches over all ranks, gpus that answer
    micro_batch_seconds: float  # that one takes whatever its tokens
    replies_per_second: float  # of a GPU, every reply to the cap
    writing_share: float  # of the evaluation's hours, beside scoring
    evaluation_share: float  # of the hours
    speed_from: str  # whose speed the hours are by
    sessions: int
    lengths_from: str
    promise: dict[str, Any] | None  # what is given up to end in promised hours, as planning.config.Promise has it
    activations: str  # what those in float32 mean, "" for 16 bits


def plan_preset(
    settings: Settings,
    run: Run,
    gpu_gib: float = T4_GIB,
    session_hours: float = 0.0,
    gpu: str = "",
    gpus: int = 0,
    anew: bool = False,
    known: PlannedRows | None = None,
) -> Plan:
    """Returns the plan of a run from all stages' settings, {stage: {parameter: value}}, for `gpus` GPUs of `gpu_gib`
    (0: as many as are asked for) with the speed of `gpu`, "" for the one that is here, in sessions of `session_hours`
    (0: of session.hours, a platform's limit where that is 0).

    `known` are the rows where they have been counted; None: as `row_lengths` tells them.
    Raises ValueError when the run cannot fit, with the setting that would, as `configure_training` and `fit_gpus` do,
    and Refused as `keep_promise` does, which also says what `anew` means.
    """
    config = configure_training(settings["train"])
    if gpus:
        config, _ = fit_gpus(config, gpus, 0)
    rows = known or find_rows(settings, run)
    config = keep_promise(run, config, rows, settings["evaluate"], anew, gpu)
    return make_plan(config, rows, settings["evaluate"], gpu_gib, session_hours, run, gpu)


def find_rows(settings: Settings, run: Run) -> PlannedRows:
    """Returns the rows of a run as `row_lengths` tells them, split by its settings. Raises as that and
    `split_lengths`."""
    data = settings["prepare_data"]
    return split_lengths(*row_lengths(data, run), data, settings["train"]["seed"])


def prepared_rows(run: Run, seed: int) -> PlannedRows:
    """Returns the rows of a run whose data are prepared, in an order by seed."""
    data = run.metrics("prepare_data")
    lengths = spread_lengths(data["tokens"]["quantiles"], data["train"])
    random.Random(seed).shuffle(lengths)
    return PlannedRows(lengths, data["val"], data["test"], "data/metrics.json")


def split_lengths(lengths: list[int], source: str, data: dict[str, Any], seed: int) -> PlannedRows:
    """Returns rows of these tokens in random order, split by the shares of prepare_data's settings. Raises ValueError
    where none is left to train on."""
    shuffled = random.Random(seed).sample(lengths, len(lengths))
    train = shuffled[: round(len(shuffled) * data["train_share"])]
    if not train:
        rows = f"{data['train_share']:g} of its {len(lengths)} rows within {data['max_length']} tokens"
        raise ValueError(f"{data['dataset']!r} leaves no row to train on: {rows}. Raise train_share or max_length.")
    val = round(len(shuffled) * data["val_share"])
    return PlannedRows(train, val, max(1, len(shuffled) - len(train) - val), source)


def plan_run(run: Run, config: TrainingConfig) -> tuple[TrainingConfig, Plan]:
    """Returns the configuration of a run whose data are prepared, with what keeps its promise of hours, and its plan,
    for the GPUs of this machine, a T4 where there is none.

    Raises ValueError when it cannot fit, with the setting that would, and Refused as `keep_promise` does.
    """
    evaluation = default_settings("evaluate") | run.record().settings.get("evaluate", {})
    gpus, rows = gpu_memory(), prepared_rows(run, config.seed)
    if gpus:  # a CPU computes in float32
        check_activations(config, model_shape(config.base_model))
    planned = config.model_copy(update={"num_gpus": config.num_gpus or max(1, len(gpus))})
    planned = keep_promise(run, planned, rows, evaluation)
    plan = make_plan(planned, rows, evaluation, min(gpus, default=T4_GIB), 0.0, run)
    if plan.promise and not is_plan_for(asdict(plan), gpu_names()):
        print(f"This machine is another than the estimate is for ({plan.speed_from}): the hours may be others.")
    return with_promise(config, planned.promise), plan


def make_plan(
    config: TrainingConfig,
    rows: PlannedRows,
    evaluation: dict[str, Any],
    gpu_gib: float,
    session_hours: float,
    run: Run,
    gpu: str = "",
) -> Plan:
    """Returns the plan for these rows; `evaluation` are the settings of 03_evaluate, `run` and its folder may hold a
    calibration. Raises ValueError as above."""
    shape, world = model_shape(config.base_model), config.num_gpus or 1
    check_bits(config.base_model, config.load_in_4bit)
    float32 = needs_float32(config, shape, gpu)
    limit = session_hours or config.session.get("hours") or SESSION_HOURS["kaggle"]
    if promise := config.promise:
        rows, evaluation = promised_rows(promise, rows, evaluation)
    schedule = schedule_steps(rows.train, config, world)
    sizes = [padded_tokens(batch, rows.train) for step in schedule[0] for share in step for batch in share]
    count, steps, useful = count_parameters(shape, config.lora), count_steps(config, schedule), sum(rows.train)
    attended = most_attended(schedule[0], rows.train, config)
    peak = check_memory(config, shape, {*sizes}, max(rows.train), gpu_gib, float32, attended)
    speed = find_speed(config, run, gpu)
    hours = estimate_hours(config, speed, rows, schedule, evaluation)
    warmup, answering = config.sft["warmup_steps"], estimate_answering(config, speed, rows, evaluation)
    batches = sum(len(share) for step in islice(chain.from_iterable(schedule), steps) for share in step)
    return Plan(
        trainable_parameters=count["trainable"],
        total_parameters=count["base"] + count["trainable"],
        world_size=world,
        effective_batch=effective_batch_rows(config, schedule),
        batch=effective_batch_line(config, schedule),
        optimizer_steps=steps,
        warmup_share=warmup if warmup < 1 else warmup / steps,
        train_rows=len(rows.train),
        tokens_per_epoch=useful,
        useful_token_fraction=useful / sum(sizes),
        arithmetic_per_useful_token=sum(size * (2 + uses_checkpointing(size, config)) for size in sizes) / 3 / useful,
        peak_memory_gib=peak,
        tokens_per_second=round(useful * steps / len(schedule[0]) / (hours["train"] * 3600), 1),
        hours={name: round(value, 3) for name, value in hours.items()},
        events={**count_events(config, schedule), "micro_batches": batches, "gpus": answering.gpus},
        micro_batch_seconds=seconds_of(speed.training, 0),
        replies_per_second=round(answering.replies / answering.written, 3),
        writing_share=answering.written / (answering.written + answering.read),
        evaluation_share=(hours["evaluate"] + hours["validate"]) / hours["total"],
        speed_from=speed.source,
        sessions=max(1, math.ceil(hours["total"] / limit)),
        lengths_from=rows.source,
        promise=config.promise.model_dump() if config.promise else None,
        activations=explain_float32(config, shape) if float32 else "",
    )


def describe_hours(hours: float) -> str:
    """Returns a plan's hours, rounded to thousandths, in the unit that suits them."""
    if hours >= 1:
        return f"{hours:.2f} hours"
    if hours * 60 >= 1:
        return f"{hours * 60:.1f} minutes"
    return f"{hours * 3600:.0f} seconds" if hours * 3600 >= 2 else "under 2 seconds"


def plan_table(plan: Plan) -> dict[str, str]:
    """Returns a plan as lines to show: {what: how much}, with the words of plan.yaml."""
    texts = load_yaml(Path(__file__).with_suffix(".yaml"))
    gib = plan.peak_memory_gib
    peak = f"{gib:.2f} GiB (estimated)" if gib else "not estimated: the embedded model"
    times = {name: describe_hours(hours) for name, hours in plan.hours.items()}
    share = plan.trainable_parameters / plan.total_parameters
    facts = asdict(plan) | {"times": times, "peak": peak, "trainable_share": share}
    table = {label: text.format(**facts) for label, text in texts.items()}
    table |= {"activations": plan.activations} if plan.activations else {}
    return table | ({"promise": describe_promise(Promise(**plan.promise))} if plan.promise else {})
