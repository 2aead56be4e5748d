"""What a training by preferences will cost, before its model is loaded: by its rows, or by rows that are assumed."""

from itertools import chain
from typing import Any

from helpers.models.batching import padded_tokens
from helpers.models.embedded import locate_base_model
from helpers.models.families import LLAMA_3, find_rate, model_shape
from helpers.models.loading import load_tokenizer
from helpers.planning.batches import count_steps, effective_batch_line, most_attended, schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig, configure_training
from helpers.planning.hours import TOKENS_PER_BYTE, estimate_answering, training_seconds
from helpers.planning.lengths import PlannedRows, describe_scale
from helpers.planning.memory import T4_GIB, check_memory
from helpers.planning.plan import describe_hours, find_rows, prepared_rows
from helpers.planning.precision import needs_float32
from helpers.planning.speed import Speed, seconds_of
from helpers.platforms.machine import gpu_gib
from helpers.preference.config import choose_method, configure_by
from helpers.preference.examples import Lengths, encode_examples, sequence_lengths
from helpers.preference.gather import gather_preferences
from helpers.preference.power import describe_power
from helpers.preference.sources import check_dataset
from helpers.runs.record import Run
from helpers.runs.settings import Settings, default_settings


def row_sizes(lengths: Lengths, method: str) -> tuple[list[int], list[int]]:
    """Returns of each example the tokens that it takes of a micro-batch, and its own: a pair two times its longer
    sequence, a single reply one, since that to another prompt has no gradient."""
    if method == "dpo":
        return [2 * max(pair) for pair in lengths], [sum(pair) for pair in lengths]
    single = [length for length, _ in lengths]
    return single, single


def plan_preference(run: Run, config: TrainingConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the plan of a training by these rows, for the GPUs of this machine, T4s where there is none: see
    `make_plan`."""
    tokenizer = load_tokenizer(locate_base_model(config.base_model, run))
    parts = {
        part: sequence_lengths(encode_examples(tokenizer, [row for row in rows if row["part"] == part], config))
        for part in ("train", "val")
    }
    planned = config.model_copy(update={"num_gpus": config.num_gpus or max(1, len(gpu_gib()))})
    evaluation = default_settings("evaluate") | run.record().settings.get("evaluate", {})
    evaluation = evaluation | {"num_gpus": evaluation["num_gpus"] or max(1, len(gpu_gib()))}
    answered = prepared_rows(run, config.seed)
    plan = make_plan(run, planned, parts, answered, evaluation, min(gpu_gib(), default=T4_GIB))
    return {**plan, "rows_from": "prefer/pairs.jsonl"}


def estimate_preference(settings: Settings, run: Run, gpu_gib: float = T4_GIB, gpu: str = "") -> dict[str, Any]:
    """Returns the plan of the stage prefer from all stages' settings, without a tokenizer: see `make_plan`.

    The rows are those of its sources where the run can gather them now, their tokens by their bytes; else as many pairs
    as an effect worth having needs, each as long as rows of the corpus. `rows_from` says which; `gathered` what there
    is, or `not_gathered` why nothing was. Raises ValueError as `make_plan` and for settings that are none.
    """
    parameters, trained = settings["prefer"], configure_training(settings["train"])
    check_dataset(parameters["dataset"])
    answered = find_rows(settings, run)
    try:
        gathered = gather_preferences(run, *(parameters[n] for n in ("dataset", "val_share", "seed")), is_trial=True)
    except (OSError, ValueError) as error:
        number = describe_power(0, 0, parameters["val_share"])["needed"]
        method, lengths = "dpo", sorted(answered.train)
        pairs = [(lengths[place * len(lengths) // number],) * 2 for place in range(number)]
        held_out = round(number * parameters["val_share"])
        every = max(1, number // max(1, held_out))
        parts = {"train": [own for place, own in enumerate(pairs) if place % every], "val": pairs[::every]}
        source = f"{number:,} pairs are assumed, as many as an effect worth having needs, as long as the corpus's rows"
        facts = {"rows_from": source, "not_gathered": str(error)}
    else:
        method = choose_method(gathered.rows)
        most = settings["prepare_data"]["max_length"]
        rate, whose = byte_rate(trained.base_model)
        parts = {part: guess_lengths(gathered.rows, part, method, most, rate) for part in ("train", "val")}
        source = f"{len(gathered.rows):,} preferences gathered now, their tokens by their bytes at {whose}"
        facts = {"rows_from": source, "gathered": gathered.describe()}
    tuned = {**trained.model_dump(), "max_length": settings["prepare_data"]["max_length"]}
    config = configure_by(tuned, parameters, method)
    config = config.model_copy(update={"num_gpus": config.num_gpus or trained.num_gpus or 1})
    evaluation = settings["evaluate"] | {"num_gpus": settings["evaluate"]["num_gpus"] or trained.num_gpus or 1}
    plan = make_plan(run, config, parts, answered, evaluation, gpu_gib, gpu)
    return {**plan, **facts}


def byte_rate(base_model: str) -> tuple[float, str]:
    """Returns the estimated tokens per byte of Bengali in UTF-8 by a base model, Llama 3's where its own are not known,
    and in words whose they are."""
    (rate, source), llama = find_rate(base_model), LLAMA_3.tokens_per_character
    if rate and rate != llama:
        return TOKENS_PER_BYTE * rate / llama, f"Llama 3's rate, {describe_scale(rate, source)}"
    return TOKENS_PER_BYTE, "Llama 3's rate" + ("" if rate else f": that of {base_model!r} is not known")


def guess_lengths(rows: list[dict[str, Any]], part: str, method: str, most: int, rate: float) -> Lengths:
    """Returns the estimated tokens of the two sequences of each row of a part, at most `most`, `rate` of them per byte:
    by `method` "kto" a pair is two rows, and a reply to another prompt as long as one to its own."""
    lengths: Lengths = []
    for row in [row for row in rows if row["part"] == part]:
        prompt = "".join(turn["content"] for turn in row["prompt"])
        replies = [row[name] for name in ("chosen", "rejected", "completion") if name in row]
        own = [min(most, round(len((prompt + reply).encode()) * rate)) for reply in replies]
        lengths += [(own[0], own[1])] if method == "dpo" else [(length, length) for length in own]
    return lengths


def make_plan(
    run: Run,
    config: TrainingConfig,
    parts: dict[str, Lengths],
    answered: PlannedRows,
    evaluation: dict[str, Any],
    gpu_gib: float,
    gpu: str = "",
) -> dict[str, Any]:
    """Returns steps, tokens, estimated memory and hours: the reference's share and that of replies to other prompts
    included, and beside the training what the evaluation takes longer with a third model, on rows `answered` by it.

    Raises ValueError where it does not fit a GPU, with the setting that would.
    """
    (lengths, tokens), world = row_sizes(parts["train"], config.method), config.num_gpus or 1
    schedule, shape = schedule_steps(lengths, config, world), model_shape(config.base_model)
    sizes = {padded_tokens(batch, lengths) for step in schedule[0] for share in step for batch in share}
    float32, attended = needs_float32(config, shape, gpu), most_attended(schedule[0], lengths, config)
    peak = check_memory(config, shape, sizes, max(lengths), gpu_gib, float32, attended)
    speed, steps = find_speed(config, run, gpu), count_steps(config, schedule)
    others = 0 if config.method == "dpo" else sum(other for _, other in parts["train"]) * steps / len(schedule[0])
    scored = sum(chain.from_iterable(chain(*parts.values())))
    seconds = {
        "reference": seconds_of(speed.forward, scored) / world,
        "train": training_seconds(config, speed, lengths, schedule) + seconds_of(speed.forward, others) / world,
        "evaluate": third_model_seconds(config, speed, answered, evaluation),
    }
    return {
        "method": config.method,
        "optimizer_steps": steps,
        "batch": effective_batch_line(config, schedule),
        "tokens_per_epoch": sum(tokens),
        "peak_memory_gib": peak,
        "hours": {name: round(value / 3600, 4) for name, value in {**seconds, "total": sum(seconds.values())}.items()},
        "tokens_per_second": round(sum(tokens) * steps / len(schedule[0]) / seconds["train"], 1),
        "speed_from": speed.source,
    }


def third_model_seconds(
    config: TrainingConfig, speed: Speed, answered: PlannedRows, evaluation: dict[str, Any]
) -> float:
    """Returns what the evaluation takes longer for a preferred model: it answers as the other two do, whose answers are
    kept, and its replies are scored by itself and the tuned model."""
    two = estimate_answering(config, speed, answered, evaluation)
    return (two.written / 2 + 3 * two.read / 2) / two.gpus


def plan_lines(plan: dict[str, Any]) -> dict[str, str]:
    """Returns a plan as lines to show: {what: how much}."""
    peak, times = plan["peak_memory_gib"], {name: describe_hours(hours) for name, hours in plan["hours"].items()}
    return {
        "method": {"dpo": "DPO, by pairs", "kto": "KTO, by single replies"}[plan["method"]],
        "preferences": plan["rows_from"],
        **{name.replace("_", " "): plan[name] for name in ("gathered", "not_gathered") if name in plan},
        "optimizer steps": f"{plan['optimizer_steps']:,}",
        "per optimizer step": plan["batch"],
        "tokens per epoch": f"{plan['tokens_per_epoch']:,}",
        "peak memory per GPU": f"{peak:.2f} GiB (estimated)" if peak else "not estimated: the embedded model",
        "the reference": times["reference"],
        "training": f"{times['train']}, by {plan['speed_from']}",
        "evaluation": f"{times['evaluate']} more, for a third model",
    }
