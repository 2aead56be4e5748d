"""The candidates of a search: points of its grid, each with the training that it means and its rungs."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.planning.batches import schedule_steps
from helpers.planning.config import TrainingConfig, configure_training
from helpers.platforms.errors import Refused
from helpers.runs.settings import default_settings, layer_settings

NOT_SEARCHABLE = {  # why: train settings that no candidate may choose
    "the budget decides it": "num_train_epochs sft.max_steps",
    "the rungs decide it": "sft.save_strategy sft.save_steps sft.save_total_limit sft.eval_strategy sft.eval_steps "
    "sft.logging_steps sft.load_best_model_at_end sft.early_stopping_patience",
    "losses would not compare": "eval_rows",
    "it is the run's": "run_name outputs session",
}
RUNG_SFT = {"logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}  # rungs alone evaluate and save
RUNG_SFT |= {"load_best_model_at_end": False, "save_total_limit": 1}
MOST_POINTS = 100_000  # of a grid
Point = dict[str, Any]  # of the grid: {train setting, with dots: value}


@dataclass(frozen=True)
class Candidate:
    """A point of the grid, and the training that it means."""

    number: int  # its place in the seeded order
    settings: Point
    config: TrainingConfig | None = None  # None: `refused` says why
    rungs: tuple[int, ...] = ()  # optimizer steps at which it is judged; the last is its budget
    refused: str = ""


def draw_points(space: dict[str, list], number: int, seed: int) -> list[Point]:
    """Returns `number` points of the grid that `space` ({train setting: [values]}) spans, drawn by seed, 0: all.

    Raises ValueError for an empty space, a setting that 02_train lacks or that is decided otherwise, a wrong type.
    """
    if not space:
        raise ValueError("tune.space is empty: expected train settings with values: {learning_rate: [1.0e-4, 2.0e-4]}.")
    for name, values in space.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"tune.space.{name} is {values!r}: expected a list of values.")
        if reason := next((reason for reason, names in NOT_SEARCHABLE.items() if name in names.split()), ""):
            raise ValueError(f"tune.space.{name} cannot be searched: {reason}. Leave it out.")
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"tune.space.{name} has {twice!r} twice: leave one out.")
        for value in values:
            try:
                candidate_parameters({}, {name: value})
            except Refused as error:
                raise ValueError(str(error).replace("tune: train", "tune.space")) from error
    if (count := math.prod(map(len, space.values()))) > MOST_POINTS:
        raise ValueError(f"tune.space has {count:,} combinations: leave values out, {MOST_POINTS:,} are the most.")
    points = [dict(zip(space, values)) for values in itertools.product(*space.values())]
    random.Random(seed).shuffle(points)
    return points[: number or None]


def candidate_parameters(base: dict[str, Any], point: Point) -> dict[str, Any]:
    """Returns 02_train's parameters: defaults, then `base`, then the point's. Raises Refused for an unknown one."""
    stages = {"train": {**default_settings("train"), **base}}
    for name, value in point.items():
        group, _, key = name.rpartition(".")
        layer_settings(stages, {"train": {group: {key: value}} if group else {key: value}}, "tune")
    return stages["train"]


def rung_steps(budget_steps: int, eta: int, rungs: int) -> tuple[int, ...]:
    """Returns the steps at which a candidate is judged, each 1/η of the next. Raises ValueError for less than one."""
    if budget_steps < (least := eta ** (rungs - 1)):
        raise ValueError(
            f"{budget_steps} steps cannot be halved {rungs - 1} times by {eta}: raise tune.budget_steps to at least "
            f"{least}, or lower tune.rungs."
        )
    return tuple(max(1, round(budget_steps / eta ** (rungs - 1 - rung))) for rung in range(rungs))


def tokens_per_step(config: TrainingConfig, lengths: Sequence[int]) -> float:
    """Returns the tokens of an optimizer step, the mean over an epoch of rows of these lengths."""
    epoch = config.model_copy(update={"num_train_epochs": 1.0, "sft": {**config.sft, "max_steps": -1}})
    return sum(lengths) / len(schedule_steps(lengths, epoch, config.num_gpus or 1)[0])


def make_candidates(
    base: dict[str, Any],
    points: list[Point],
    cost: Callable[[TrainingConfig], float],
    budget_steps: int,
    eta: int,
    rungs: int,
    kept: Sequence[int] = (),
) -> list[Candidate]:
    """Returns the candidates at these points, all for the same budget: what `budget_steps` steps of `base` cost.

    `cost` gives that of a step, in tokens or hours; `kept` are the candidates' steps where they are decided already, 0:
    not. A candidate whose settings do not go together, or whose base model cannot be read, is `refused`. Raises
    ValueError for a budget of too few steps.
    """
    budget = budget_steps * cost(configure_training(candidate_parameters(base, {})))
    candidates = []
    for number, point in enumerate(points):
        try:
            config = configure_training(candidate_parameters(base, point))
            steps = max(1, round(budget / cost(config)))
            steps = (kept[number] if kept else 0) or steps
        except (ValueError, OSError) as error:
            candidates.append(Candidate(number, point, refused=str(error)))
            continue
        warmup = config.sft["warmup_steps"]
        share = warmup if warmup < 1 else warmup / budget_steps  # steps of `base`, as a share: the same tokens for all
        sft = {**config.sft, **RUNG_SFT, "max_steps": steps, "warmup_steps": min(0.5, share)}
        sft.pop("early_stopping_patience", None)
        config = config.model_copy(update={"sft": sft})
        candidates.append(Candidate(number, point, config, rung_steps(steps, eta, rungs)))
    return candidates
