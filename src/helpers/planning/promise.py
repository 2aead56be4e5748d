"""What a run gives up to end inside the hours it was promised in: epochs, then held-out rows, then training rows."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from helpers.planning.batches import Schedule, schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import Promise, TrainingConfig
from helpers.planning.hours import estimate_hours
from helpers.planning.lengths import PlannedRows
from helpers.platforms.errors import Refused
from helpers.runs.checkpoints import begun_processes
from helpers.runs.record import Run
from helpers.runs.run_json import stage_hours

RESERVE = 0.1  # of the hours: for all that is not estimated, such as loading and the report, and for an error of it
LEAST_RESERVE = 0.25  # hours, where a model has to be downloaded and loaded
EPOCH_STEP = 0.1
ROW_STEPS = 20  # from all rows down to the least
LEAST_TEST_ROWS, LEAST_TRAIN_ROWS = 500, 1000  # or all, where there are fewer


class Rung(NamedTuple):
    """What a run may do: all that its settings ask for, or less."""

    epochs: float
    train_rows: int
    test_rows: int


def list_rungs(config: TrainingConfig, rows: PlannedRows, evaluation: Mapping[str, Any]) -> list[Rung]:
    """Returns what a run may do, from all to the least: fewer epochs down to one, then fewer held-out rows, then fewer
    training rows. Where sft.max_steps sets the length of the training, only held-out rows are given up."""
    rungs = [Rung(config.num_train_epochs, len(rows.train), min(rows.test, evaluation["max_rows"] or rows.test))]
    is_by_epochs = config.sft["max_steps"] <= 0
    if is_by_epochs:
        steps = range(math.ceil(rungs[0].epochs / EPOCH_STEP) - 1, round(1 / EPOCH_STEP) - 1, -1)
        rungs += [rungs[0]._replace(epochs=round(step * EPOCH_STEP, 1)) for step in steps]
    rungs += [rungs[-1]._replace(test_rows=n) for n in _fewer_rows(rungs[0].test_rows, LEAST_TEST_ROWS)]
    if is_by_epochs:
        rungs += [rungs[-1]._replace(train_rows=n) for n in _fewer_rows(rungs[0].train_rows, LEAST_TRAIN_ROWS)]
    return rungs


def _fewer_rows(number: int, least: int) -> list[int]:
    """Returns numbers of rows below `number` in even steps down to `least`, none where it has no more."""
    return [number - (number - least) * step // ROW_STEPS for step in range(1, ROW_STEPS + 1) if number > least]


def keep_promise(
    run: Run,
    config: TrainingConfig,
    rows: PlannedRows,
    evaluation: Mapping[str, Any],
    anew: bool = False,
    gpu: str = "",
) -> TrainingConfig:
    """Returns the configuration with as much as fits into the hours that its run was promised in, if it was, by the
    speed of `gpu`, "" for the one that is here.

    A training that has begun keeps what was picked at its start, unless it begins `anew`. Raises Refused where even the
    least does not fit, and for other hours than those the training began with.
    """
    hours = config.session.get("total_hours", 0.0)
    if not anew and begun_processes(run / "train" / "checkpoints", run.record().id):
        return _as_begun(TrainingConfig.of_run(run), config, hours)
    if not hours:
        return config
    rungs, speed, spent = list_rungs(config, rows, evaluation), find_speed(config, run, gpu), hours_before(run)
    reserve = max(RESERVE * hours, LEAST_RESERVE if config.base_model != "embedded" else 0.0)

    @cache
    def schedule(train_rows: int, epochs: int) -> Schedule:
        whole = config.model_copy(update={"num_train_epochs": epochs})
        return schedule_steps(rows.train[:train_rows], whole, config.num_gpus or 1)

    def estimate(rung: Rung) -> float:
        own = config.model_copy(update={"num_train_epochs": rung.epochs})
        steps = schedule(rung.train_rows, math.ceil(rung.epochs))
        left, asked = promised_rows(rung, rows, evaluation)
        return estimate_hours(own, speed, left, steps, asked)["total"]

    facts = {"hours": hours, "spent": spent, "reserve": reserve, "speed_from": speed.source}
    everything = {f"all_{name}": value for name, value in rungs[0]._asdict().items()}

    def promise(rung: Rung) -> Promise:
        return Promise(**facts, estimated=estimate(rung), **rung._asdict(), **everything)

    at = bisect_left(rungs, True, key=lambda rung: spent + estimate(rung) + reserve <= hours)
    if at == len(rungs):
        raise Refused(_describe_refusal(promise(rungs[-1]), config.sft["max_steps"]))
    return with_promise(config, promise(rungs[at]))


def promised_rows(
    promise: Promise | Rung, rows: PlannedRows, evaluation: Mapping[str, Any]
) -> tuple[PlannedRows, dict[str, Any]]:
    """Returns the rows that are trained on, and the settings of 03_evaluate, as a promise has them."""
    return rows._replace(train=rows.train[: promise.train_rows]), {**evaluation, "max_rows": promise.test_rows}


def with_promise(config: TrainingConfig, promise: Promise | None) -> TrainingConfig:
    """Returns the configuration with the epochs of a promise, if there is one."""
    return config.model_copy(update={"num_train_epochs": promise.epochs, "promise": promise}) if promise else config


def _as_begun(begun: TrainingConfig, config: TrainingConfig, hours: float) -> TrainingConfig:
    """Returns the configuration with the promise that its training began with. Raises Refused for other hours."""
    before = begun.session.get("total_hours", 0.0)
    if before != hours:
        raise Refused(
            f"session.total_hours is {hours:g}, and this training began with {before:g} (0: no promise), when what "
            f"it trains on was decided. Set it back to resume, use another run name, or --force to begin anew."
        )
    return with_promise(config, begun.promise)


def hours_before(run: Run) -> float:
    """Returns the hours that the data and the search have taken, since the run trained before, if it did."""
    sessions = run.record().sessions
    last = max((place for place, session in enumerate(sessions) if session.stage == "train"), default=-1)
    hours = stage_hours(sessions[last + 1 :])
    return hours.get("prepare_data", 0.0) + hours.get("tune", 0.0)


def _describe_refusal(least: Promise, max_steps: int) -> str:
    """Returns why not even the least fits, what it is, and how to mend it."""
    taken = least.spent + least.estimated
    needed = math.ceil(100 * max(taken / (1 - RESERVE), taken + least.reserve)) / 100
    spent = f", {least.spent:.2f} are spent" if least.spent else ""
    epochs = f"{least.epochs:g} epoch{'s' * (least.epochs != 1)}"
    length = f"{max_steps:,} steps (sft.max_steps)" if max_steps > 0 else epochs
    return (
        f"session.total_hours is {least.hours:g}: {least.reserve:.2f} of them are kept in reserve{spent}, and the "
        f"least takes an estimated {least.estimated:.2f} hours by {least.speed_from}: {length} of {least.train_rows:,} "
        f"training rows, {least.test_rows:,} held-out rows. Promise {_name_hours(needed)} or more, or set a smaller "
        f"base_model, fewer evaluate.max_new_tokens{', fewer sft.max_steps' if max_steps > 0 else ''}."
    )


def _name_hours(hours: float) -> str:
    return f"{hours:g} hour{'s' * (hours != 1)}"


def describe_promise(promise: Promise) -> str:
    """Returns in sentences how a run keeps its promise of hours, and what it gives up."""
    parts = {
        "epochs": f"{promise.epochs:g} of {promise.all_epochs:g} epochs",
        "test_rows": f"{promise.test_rows:,} of {promise.all_test_rows:,} held-out rows",
        "train_rows": f"{promise.train_rows:,} of {promise.all_train_rows:,} training rows",
    }
    less = [text for name, text in parts.items() if getattr(promise, name) < getattr(promise, f"all_{name}")]
    spent = f" after {promise.spent:.2f} for the data" if promise.spent >= 0.005 else ""
    hours = f"an estimated {promise.estimated:.2f}{spent} by {promise.speed_from}, {promise.reserve:.2f} in reserve"
    given_up = f"Only {', '.join(less)}." if less else "Nothing is given up."
    return f"Promised to end inside {_name_hours(promise.hours)}: {hours}. {given_up}"
