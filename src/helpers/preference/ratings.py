"""The blind ratings of the sheet for people, and a language model's of the same pairs."""

from pathlib import Path
from typing import Any

from helpers.evaluation.llm_judge import llm_choices
from helpers.evaluation.raters import Ratings, read_both_ratings, read_run_ratings
from helpers.preference.items import Dropped, Preference, read_prompt
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run

SIDES = ("base", "tuned", "preferred")
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
    read, judged = {side: _read_lines(folder / f"{side}.jsonl") for side in SIDES}, _read_lines(folder / "judge.jsonl")
    nothing, seed = Ratings([], [], [], []), run.metrics("evaluate")["seed"]
    if read["preferred"]:
        earlier, newer = (
            own or nothing for own in read_both_ratings(folder, read["base"], read["tuned"], read["preferred"], seed)
        )
        sheets = {SIDES[:2]: (earlier, []), SIDES[1:]: (newer, judged)}
    else:
        sheets = {SIDES[:2]: (read_run_ratings(folder, read["base"], read["tuned"], seed) or nothing, judged)}
    chosen = {sides: (_sum_choices(own.choices), _sum_choices(llm_choices(by))) for sides, (own, by) in sheets.items()}
    skipped = list(dict.fromkeys(line for ratings, _ in sheets.values() for line in ratings.skipped))
    if not any(map(any, chosen.values())):
        files = f"; {len(skipped)} files were skipped: {'; '.join(skipped)[:400]}"
        problem = f"{folder} has no choice between two replies{files * bool(skipped)}"
        hint = f"Put what raters return into {folder / 'ratings'}, set evaluate.llm_judge, or take 'ratings' out"
        raise ValueError(f"prefer.dataset names 'ratings', and {problem}. {hint}.")
    rows = {row["id"]: row for row in read_jsonl(run / "data" / "test.jsonl")}
    replies = {side: {row["id"]: row["reply"] for row in own} for side, own in read.items()}
    items, dropped = [], []
    for (first, second), (people, model) in chosen.items():
        shown = rows.keys() & replies[first].keys() & replies[second].keys()
        others = {row: own for row, own in model.items() if row not in people}
        for source, shares in (("ratings", people), ("llm_judge", others)):
            for row_id in sorted(shares.keys() & shown):
                both = (replies[first][row_id], replies[second][row_id])
                broken, item = _read_pair(source, rows[row_id], both, shares[row_id])
                items += [item] * (not broken)
                dropped += [Dropped(broken, item)] * bool(broken)
    everyone = [own for own, _ in sheets.values()]
    facts = {"people": len({choice["rater"] for own in everyone for choice in own.choices}), "skipped": skipped}
    facts["left_out"] = sum(who["left_out"] for own in everyone for who in own.attention)
    return items, dropped, facts


def _read_pair(
    source: str, row: dict[str, Any], replies: tuple[str, str], shares: dict[str, float]
) -> tuple[str, Preference]:
    """Returns why a row's choices, {rater: share of the second reply}, make no pair, "" where they do, and the pair of
    the reply that most chose."""
    voters = [[rater for rater, share in shares.items() if share == own] for own in (0.0, 1.0)]
    winner, loser = sorted((1, 0), key=lambda side: -len(voters[side]))
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
