"""What a training by preferences will cost, before its model is loaded."""

from itertools import chain
from typing import Any

from helpers.models.embedded import locate_base_model
from helpers.models.families import model_shape
from helpers.models.loading import load_tokenizer
from helpers.planning.batches import count_steps, effective_batch_line, schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig
from helpers.planning.hours import training_seconds
from helpers.planning.memory import T4_GIB, check_memory
from helpers.planning.plan import describe_hours
from helpers.planning.speed import seconds_of
from helpers.platforms.machine import gpu_gib
from helpers.preference.examples import Example, encode_examples, sequences_of
from helpers.runs.record import Run


def row_sizes(examples: list[Example]) -> tuple[list[int], list[int]]:
    """Returns of each example the tokens that it takes of a micro-batch, and its own: a pair two rows of its longer
    sequence, a single reply one, since that to another prompt has no gradient."""
    own = [[sum(map(len, sequence)) for sequence in sequences_of(example)] for example in examples]
    if "chosen_ids" in examples[0]:
        return [2 * max(pair) for pair in own], [sum(pair) for pair in own]
    single = [length for length, _ in own]
    return single, single


def plan_preference(run: Run, config: TrainingConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the plan of a training by these rows, for the GPUs of this machine, T4s where there is none: steps,
    tokens, estimated memory and hours, the reference's share and that of replies to other prompts included.

    Raises ValueError where it does not fit a GPU, with the setting that would.
    """
    from helpers.models.batching import padded_tokens

    tokenizer = load_tokenizer(locate_base_model(config.base_model, run))
    parts = {
        part: encode_examples(tokenizer, [row for row in rows if row["part"] == part], config)
        for part in ("train", "val")
    }
    lengths, tokens = row_sizes(parts["train"])
    world = config.num_gpus or max(1, len(gpu_gib()))
    schedule, shape = schedule_steps(lengths, config, world), model_shape(config.base_model)
    sizes = {padded_tokens(batch, lengths) for step in schedule[0] for share in step for batch in share}
    peak = check_memory(config, shape, sizes, max(lengths), min(gpu_gib(), default=T4_GIB))
    speed, steps = find_speed(config, run), count_steps(config, schedule)
    scored = {part: [sum(map(len, s)) for e in own for s in sequences_of(e)] for part, own in parts.items()}
    others = 0 if config.method == "dpo" else sum(scored["train"][1::2]) * steps / len(schedule[0])
    seconds = {
        "reference": seconds_of(speed.forward, sum(chain(*scored.values()))) / world,
        "train": training_seconds(config, speed, lengths, schedule) + seconds_of(speed.forward, others) / world,
    }
    return {
        "method": config.method,
        "optimizer_steps": steps,
        "batch": effective_batch_line(config, schedule),
        "tokens_per_epoch": sum(tokens),
        "peak_memory_gib": peak,
        "hours": {name: round(value / 3600, 4) for name, value in seconds.items()},
        "tokens_per_second": round(sum(tokens) * steps / len(schedule[0]) / seconds["train"], 1),
        "speed_from": speed.source,
    }


def plan_lines(plan: dict[str, Any]) -> dict[str, str]:
    """Returns a plan as lines to show: {what: how much}."""
    peak = plan["peak_memory_gib"]
    return {
        "method": {"dpo": "DPO, by pairs", "kto": "KTO, by single replies"}[plan["method"]],
        "optimizer steps": f"{plan['optimizer_steps']:,}",
        "per optimizer step": plan["batch"],
        "tokens per epoch": f"{plan['tokens_per_epoch']:,}",
        "peak memory per GPU": f"{peak:.2f} GiB (estimated)" if peak else "not estimated: the embedded model",
        "the reference": describe_hours(plan["hours"]["reference"]),
        "training": f"{describe_hours(plan['hours']['train'])}, by {plan['speed_from']}",
    }
