"""The blind ratings of the sheet for people, and a language model's of the same pairs."""

from pathlib import Path
from typing import Any

from helpers.evaluation.llm_judge import llm_choices
from helpers.evaluation.raters import Ratings, read_run_ratings
from helpers.preference.items import Dropped, Preference, read_prompt
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run

SHARES = {"tuned": 1.0, "base": 0.0}  # of the tuned reply, where a rater chose a side
NO_MAJORITY = "no majority among raters"


def read_rated_pairs(run: Run) -> tuple[list[Preference], list[Dropped], dict[str, Any]]:
    """Returns a pair for each row that people or the language model rated, the rows without a majority, and facts.

    A reply is preferred where more than half of a row's raters chose it. People decide where any chose; the language
    model's two orders decide the other rows, as two raters. Attention checks, and raters who failed them, are left out
    as `helpers.evaluation.raters` does.
    """
    folder = run / "evaluate"
    if not (folder / "metrics.json").is_file():
        problem = f"prefer.dataset names 'ratings', and run {run.name} has no evaluate/metrics.json"
        raise FileNotFoundError(f"{problem}: finish 03_evaluate first.")
    base, tuned, judged = ([*_read_lines(folder / f"{name}.jsonl")] for name in ("base", "tuned", "judge"))
    ratings = read_run_ratings(folder, base, tuned, run.metrics("evaluate")["seed"]) or Ratings([], [], [], [])
    people, model = _sum_choices(ratings.choices), _sum_choices(llm_choices(judged))
    if not people and not model:
        skipped = f"; {len(ratings.skipped)} files were skipped: {'; '.join(ratings.skipped)[:400]}"
        problem = f"{folder} has no choice between two replies{skipped * bool(ratings.skipped)}"
        hint = f"Put what raters return into {folder / 'ratings'}, set evaluate.llm_judge, or take 'ratings' out"
        raise ValueError(f"prefer.dataset names 'ratings', and {problem}. {hint}.")
    rows = {row["id"]: row for row in read_jsonl(run / "data" / "test.jsonl")}
    replies = {side: {row["id"]: row["reply"] for row in own} for side, own in (("base", base), ("tuned", tuned))}
    shown = rows.keys() & replies["base"].keys() & replies["tuned"].keys()
    items, dropped = [], []
    for source, shares in (("ratings", people), ("llm_judge", {i: own for i, own in model.items() if i not in people})):
        for row_id in sorted(shares.keys() & shown):
            both = {side: replies[side][row_id] for side in SHARES}
            broken, item = _read_pair(source, rows[row_id], both, shares[row_id])
            items += [item] * (not broken)
            dropped += [Dropped(broken, item)] * bool(broken)
    facts = {"people": len({choice["rater"] for choice in ratings.choices}), "skipped": ratings.skipped}
    facts["left_out"] = sum(own["left_out"] for own in ratings.attention)
    return items, dropped, facts


def _read_pair(
    source: str, row: dict[str, Any], replies: dict[str, str], shares: dict[str, float]
) -> tuple[str, Preference]:
    """Returns why a row's choices, {rater: share of the tuned reply}, make no pair, "" where they do, and the pair of
    the reply that most chose."""
    voters = {side: [rater for rater, share in shares.items() if share == own] for side, own in SHARES.items()}
    winner, loser = sorted(SHARES, key=lambda side: -len(voters[side]))
    prompt, broken = read_prompt(row["messages"][:-1], [])
    names = frozenset(f"{source} {rater}" for rater in voters[winner])
    shared: dict[str, Any] = {"voters": names, "test_group": row["group"], "off_policy": True}
    item = Preference(source, row["id"], prompt, replies[winner], replies[loser], **shared)
    return broken or (NO_MAJORITY if 2 * len(voters[winner]) <= len(shares) else ""), item


def _sum_choices(choices: list[dict]) -> dict[str, dict[str, float]]:
    """Returns {row id: {rater: share of the tuned reply}}."""
    rows: dict[str, dict[str, float]] = {}
    for choice in choices:
        rows.setdefault(choice["id"], {})[choice["rater"]] = choice["tuned"]
    return rows


def _read_lines(file: Path) -> list[dict]:
    return read_jsonl(file) if file.is_file() else []
