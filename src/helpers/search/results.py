"""What a search costs and leaves: its estimate, the table of its candidates, the best one, what decides the loss."""

import math
import random
from typing import Any

import pandas
from optuna.trial import TrialState

from helpers.planning.batches import effective_batch_rows, schedule_steps
from helpers.planning.calibration import find_speed
from helpers.planning.config import TrainingConfig
from helpers.planning.hours import training_seconds
from helpers.runs.files import write_csv, write_json
from helpers.search.study import Search, TrialNotes

STATUS = {TrialState.PRUNED: "eliminated", TrialState.COMPLETE: "finished"}
Table = list[dict[str, Any]]  # one row per candidate, as in trials.csv


def estimate_search(search: Search) -> dict[str, Any]:
    """Returns the estimated hours of the search, and of training every candidate to the end; whose speed they are by.

    1 / eta of the candidates continue after each rung. Loading the model, once per candidate, is not in the hours.
    """
    configs = [candidate.config for candidate in search.candidates if candidate.config]
    hours = sum(budget_hours(search, config) for config in configs)
    last = search.rungs - 1  # every rung above the first adds (1 - 1/η) of its steps, for 1/η of the candidates
    share = (1 + last * (1 - 1 / search.eta)) / search.eta**last
    estimate = {"hours_of_all": hours, "hours_of_search": hours * share, "share": share}
    speed_from = "; ".join(dict.fromkeys(find_speed(config, search.run).source for config in configs))
    return {"candidates": len(search.candidates), **estimate, "speed_from": speed_from}


def budget_hours(search: Search, config: TrainingConfig) -> float:
    """Returns the estimated hours of a candidate that is trained to the end."""
    lengths = random.Random(0).sample(search.lengths_for(config), len(search.lengths_for(config)))
    schedule = schedule_steps(lengths, config, config.num_gpus or 1)
    return training_seconds(config, find_speed(config, search.run), lengths, schedule) / 3600


def describe_estimate(search: Search, estimate: dict[str, Any]) -> str:
    """Returns in a sentence what the search should cost."""
    hours = f"about {estimate['hours_of_search']:.2f}" if estimate["hours_of_search"] >= 0.01 else "less than 0.01"
    candidates = f"{len(search.candidates)} candidates, each judged at most {search.rungs} times"
    share = f"{estimate['share']:.0%} of training each to the end"
    equal = " Each base model trains for the same estimated hours." * bool(search.models)
    return f"{candidates}: {hours} hours, {share}, estimated by {estimate['speed_from']}.{equal}"


def show_trials(table: Table) -> list[dict[str, str]]:
    """Returns the table of the search as rows of text, numbers to five digits."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    return [{name: _show_cell(row.get(name)) for name in columns} for row in table]


def _show_cell(value: Any) -> str:
    if value in (None, ""):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def tabulate_trials(search: Search) -> Table:
    """Returns the table of the search: a candidate's settings, batch, budget, rows seen, losses, status."""
    table = []
    for trial in search.trials():
        notes = TrialNotes.of(trial)
        if notes.candidate is None or (trial.state == TrialState.FAIL and not notes.reason):
            continue  # added a second time by another machine
        candidate = search.candidates[notes.candidate]
        config, losses = candidate.config, [loss for _, loss in sorted(trial.intermediate_values.items())]
        row = {"candidate": candidate.number, **candidate.settings, "effective_batch": None, "budget_steps": None}
        if config:
            schedule = schedule_steps(search.lengths_for(config), config, config.num_gpus or 1)
            row |= {"effective_batch": effective_batch_rows(config, schedule), "budget_steps": config.sft["max_steps"]}
            row |= {"budget_hours": budget_hours(search, config)} if search.models else {}
        row["steps"] = candidate.rungs[len(losses) - 1] if losses else 0
        row["rows_seen"] = round(row["steps"] * (row["effective_batch"] or 0))
        row |= {f"{search.measure} at rung {rung}": loss for rung, loss in enumerate(losses)}
        last = losses[-1] if losses else None
        perplexity = None if last is None else math.exp(min(last, 700))
        row |= {"bits_per_char": last} if search.models else {"val_loss": last, "perplexity": perplexity}
        row |= {"status": STATUS.get(trial.state, trial.state.name.lower()), "reason": notes.reason}
        table.append(row)
    return sorted(table, key=lambda row: row["candidate"])


def best_candidate(table: Table, settings: list[str]) -> dict[str, Any]:
    """Returns the best of the candidates that reached the last rung, and how much each of the settings decides.

    Raises ValueError when none did, with the reasons.
    """
    finished = [row for row in table if row["status"] == "finished"]
    if not finished:
        reasons = "; ".join(sorted({row["reason"] for row in table if row["reason"]}))
        raise ValueError(f"no candidate reached the last rung: {reasons or 'none was trained'}.")
    measure = "bits_per_char" if "bits_per_char" in finished[0] else "val_loss"
    best = min(finished, key=lambda row: (row[measure], row["candidate"]))
    scores = {name: best[name] for name in (measure, "perplexity", "steps") if name in best}
    chosen = {"candidate": best["candidate"], "settings": {name: best[name] for name in settings}}
    return {**chosen, **scores, "importance": setting_importance(table, settings)}


def setting_importance(table: Table, settings: list[str]) -> dict[str, float] | None:
    """Returns the share of the first rung's variance that lies between each setting's values (η², Fisher 1925).

    None with fewer than two candidates judged. By hand because `optuna.importance` takes completed trials alone: the
    few best, chosen by the very losses that it would explain.
    """
    first = next((name for row in table for name in row if name.endswith(" at rung 0")), "")
    judged = pandas.DataFrame([row for row in table if first in row])
    if len(judged) < 2:
        return None
    losses = judged[first].to_numpy()
    means = {name: judged.groupby(judged[name].map(repr))[first].transform("mean") for name in settings}
    return {name: float(mean.to_numpy().var() / losses.var()) if losses.var() else 0.0 for name, mean in means.items()}


def describe_search(metrics: dict[str, Any]) -> str:
    """Returns in a sentence what the search took, and which settings it found best."""
    settings = ", ".join(f"{name} {value}" for name, value in metrics["best"]["settings"].items())
    ends = f"{metrics['eliminated']} of {metrics['candidates']} candidates were eliminated, {metrics['failed']} failed"
    took = f"{metrics['steps']:,} steps, {metrics['share_of_all']:.0%} of training each to the end"
    by = " Judged by validation bits per character, since a loss per token is another measure for every tokenizer."
    return f"Best: {settings}. {ends}: {took}.{by * ('bits_per_char' in metrics['best'])}"


def write_results(search: Search, table: Table, best: dict[str, Any], estimate: dict[str, float]) -> dict[str, Any]:
    """Writes trials.csv and best.json, and returns the stage's metrics."""
    write_csv(search.run / "tune" / "trials.csv", pandas.DataFrame(table, dtype=object))
    write_json(search.run / "tune" / "best.json", best)
    steps, statuses = sum(row["steps"] for row in table), [row["status"] for row in table]
    return {
        "candidates": len(table),
        "steps": steps,
        "share_of_all": steps / sum(row["budget_steps"] or 0 for row in table),
        "eliminated": statuses.count("eliminated"),
        "failed": statuses.count("fail"),
        "price": estimate,  # words: ok - its name in earlier runs
        "best": best,
    }
