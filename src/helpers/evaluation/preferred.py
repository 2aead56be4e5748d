"""The preferred model against the tuned one, on the same rows, prompts and probes: what metrics.json has of it.

There the three keys `preferred`, `delta_preferred` (preferred − tuned) and `preferred_verdict` stand beside those of
base and tuned, and `preference` has the rest: the tuned model on the same rows, prompts, probes, benchmarks, drift.
"""

import shutil
from collections.abc import Mapping
from typing import Any

from helpers.evaluation.answers import EvaluationSettings
from helpers.evaluation.drift import Drift, measure_drift
from helpers.evaluation.evaluate import (
    Evaluated,
    compare_forgetting,
    compare_replies,
    gather_benchmarks,
    score_prompts,
)
from helpers.evaluation.raters import TUNED_SHEET
from helpers.evaluation.rating_files import read_table
from helpers.evaluation.sheet import SHOWN_FIELDS, blind_pair
from helpers.evaluation.sheet_rows import SHEET, sample_file
from helpers.evaluation.verdict import DriftThresholds, PreferredVerdict, reach_preferred_verdict
from helpers.runs.record import Run

FEWEST_ROWS = 2  # of one row the interval is the value itself
AS_PREFERRED = {"base": "tuned", "tuned": "preferred"}  # what the two models of a pair are called in the files
AS_PAIR = {name: side for side, name in AS_PREFERRED.items()}


def rename_sides(value: Any, names: Mapping[str, str]) -> Any:
    """Returns a JSON value whose keys name other models: "base", "base unsafe" and "base_stderr" with "base"."""
    if isinstance(value, list):
        return [rename_sides(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    renamed = {}
    for key, part in value.items():
        side = next((side for side in names if key == side or key.startswith((f"{side} ", f"{side}_"))), "")
        renamed[names[side] + key.removeprefix(side) if side else key] = rename_sides(part, names)
    return renamed


def compare_preferred(run: Run, evaluated: Evaluated, settings: EvaluationSettings) -> dict[str, Any]:
    """Returns what metrics.json has of the preferred model, {} without one; with too few rows that it was not trained
    on, only how many those are.

    Keeps the sheet of base and tuned replies, which the one of tuned and preferred replies takes the place of.
    """
    pair = evaluated.preferred
    if pair is None:
        return {}
    keep_sheet(run, evaluated, settings.seed)
    asked = len(evaluated.held_out.rows)
    facts: dict[str, Any] = {"n": len(pair.held_out.rows), "left_out": asked - len(pair.held_out.rows)}
    if facts["n"] < FEWEST_ROWS:
        return {"preference": facts}
    scores = compare_replies(pair, settings)
    drift = measure_pair_drift(pair, settings)
    parts = {
        "prompts": score_prompts(pair, settings),
        "probes": compare_forgetting(pair, settings),
        "benchmarks": gather_benchmarks(pair, settings),
    }
    metrics = {**scores.model_dump(), **parts}
    verdict = reach_preferred_verdict(metrics, drift, settings.gates)
    facts |= {"tuned": metrics["base"], **rename_sides({k: part for k, part in parts.items() if part}, AS_PREFERRED)}
    facts |= {"drift": drift.model_dump()} if drift else {}
    if seconds := sum(reply["seconds"] for reply in pair.answers["tuned"].replies):
        facts["replies_per_second"] = len(pair.replies["tuned"]) / seconds
    return {
        "preferred": metrics["tuned"],
        "delta_preferred": metrics["delta"],
        "preferred_verdict": verdict.model_dump(),
        "preference": facts,
    }


def measure_pair_drift(pair: Evaluated, settings: EvaluationSettings) -> Drift | None:
    """Returns how far the preferred model has moved from the tuned one; None for plain texts."""

    def of_both(name: str) -> dict[str, list[dict]]:
        return {own: getattr(pair.answers[side], name) for side, own in AS_PREFERRED.items()}

    replies = {own: pair.replies[side] for side, own in AS_PREFERRED.items()}
    return measure_drift(replies, of_both("drift"), of_both("likelihood"), pair.groups, **settings.resampling)


def pair_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns evaluate/metrics.json of a run with a preferred model as if that were the tuned one, and the tuned one
    the base: what tables, pictures and verdicts of a pair are made of. {} where the preferred model was not
    compared."""
    if "preferred" not in metrics:
        return {}
    preference = metrics["preference"]
    scores = {"base": preference["tuned"], "tuned": metrics["preferred"], "delta": metrics["delta_preferred"]}
    parts = {name: preference[name] for name in ("prompts", "probes", "benchmarks", "judge") if name in preference}
    shared = ("decoding", "max_new_tokens", "seed", "bootstrap_draws", "meaning", "rubric_version")
    return {
        **{name: metrics[name] for name in shared if name in metrics},
        "n": preference["n"],
        **scores,
        **rename_sides(parts, AS_PAIR),
        "verdict": metrics["preferred_verdict"],
    }


def reach_anew(metrics: Mapping[str, Any], thresholds: DriftThresholds) -> PreferredVerdict:
    """Returns the verdict on the preferred model from its scores in evaluate/metrics.json."""
    own = metrics["preference"].get("drift")
    return reach_preferred_verdict(pair_metrics(metrics), Drift(**own) if own else None, thresholds)


def place_judge(preferred: dict[str, Any], ratings: dict[str, Any]) -> dict[str, Any]:
    """Returns further results for metrics.json: the preferred model's, and a language model's ratings of the pairs on
    the sheet under the models that they are of."""
    if not preferred:
        return {"judge": ratings}
    facts = preferred["preference"] | ({"judge": rename_sides(ratings, AS_PREFERRED)} if ratings else {})
    return {**preferred, "preference": facts}


def keep_sheet(run: Run, evaluated: Evaluated, seed: int) -> None:
    """Copies human_eval.csv to TUNED_SHEET while its pairs are base and tuned replies: people who have that sheet send
    back what is read against it."""
    folder = run / "evaluate"
    try:
        shown = {row["id"]: row for row in read_table(folder / SHEET, SHOWN_FIELDS)}
    except ValueError:
        return
    rows = zip(evaluated.replies["base"], evaluated.replies["tuned"])
    pairs = [blind_pair(*both, seed) for both in rows if both[0]["id"] in shown]
    if pairs and all(pair[name].split() == shown[pair["id"]][name].split() for pair in pairs for name in SHOWN_FIELDS):
        for newest, kept in ((SHEET, TUNED_SHEET), (sample_file(SHEET), sample_file(TUNED_SHEET))):
            if (folder / newest).is_file():
                shutil.copy(folder / newest, folder / kept)


def describe_preferred(preferred: Mapping[str, Any]) -> str:
    """Returns in sentences what the preferred model was compared on, and how its replies have changed."""
    if not preferred:
        return "The stage prefer has not run: there is no preferred model."
    facts = preferred["preference"]
    lines = [f"The preferred model is held against the tuned one on {facts['n']:,} held-out rows."]
    if facts["left_out"]:
        lines.append(f"{facts['left_out']:,} more are left out: their ratings were trained on.")
    if "preferred" not in preferred:
        lines.append("With so few rows nothing can be said.")
    if drift := facts.get("drift"):
        length, kl = drift["characters"], drift["replies"]["per_token"]
        change = "{value:+.0%} ({low:+.0%} to {high:+.0%})".format(**length["change"])
        lines.append(f"Its replies have {length['preferred']:.0f} characters, {change} against the tuned model's.")
        lines.append("It has moved {value:.3f} nats per token ({low:.3f} to {high:.3f}) from it.".format(**kl))
    return " ".join(lines)
