"""What people say of the replies: the ratings read back, attention, choices, marks, agreement and a paired test."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy

from helpers.evaluation.rating_files import list_rating_files, read_choice, read_mark, read_table, restore_id
from helpers.evaluation.resampling import permutation_p, weighted_interval, weighted_share
from helpers.evaluation.sheet import (
    ANSWER_FIELDS,
    QUESTIONS,
    SCALES,
    SHOWN_FIELDS,
    attention_checks,
    blind_pair,
    sheet_id,
    tuned_is_first,
)
from helpers.evaluation.sheet_rows import SHEET, SheetSample, read_sample

ALL_SCALES = [*SCALES, *QUESTIONS["earlier_scales"]]  # that a file may have
TUNED_SHEET = "human_eval_tuned.csv"  # given out before there was a third model
EXCUSED_FAILURES = 1  # attention checks that a rater may fail: anybody errs once


class Ratings(NamedTuple):
    """What raters have sent back."""

    marks: list[dict]  # {"rater", "id", "side", scale: mark}, a mark not given left out
    choices: list[dict]  # {"rater", "id", "tuned": 1 for the tuned reply, 0 for the base one, 0.5 for no difference}
    attention: list[dict]  # {"rater", "failed", "checks", "left_out"} of those who failed an attention check
    skipped: list[str]  # a line for each file that was not read: its name, and why


class SheetRow(NamedTuple):
    """One row of a rater's file."""

    rater: str
    id: str
    choice: int | None  # 1 or 2, 0 for no difference
    marks: dict[int, dict[str, int]]  # by reply, 1 and 2


def read_ratings(folder: Path, pairs: list[dict], seed: int, files: list[Path] | None = None) -> Ratings:
    """Returns the ratings in a folder's files, or in these of them, and which files were skipped; one bad file never
    costs the others.

    A file is what the sheet saves, or human_eval.csv filled in: then the file's name is the rater's. Skipped is a file
    that `read_table` cannot read, or of another sheet, with an unknown row or one twice, without any column of choices
    or marks, with a choice that is not 0 to 2, a mark that is not 1 to 5, and a rater's second file. A column that is
    not there is of answers not given. Left out is all of a rater who failed more than EXCUSED_FAILURES of the attention
    checks; one that was not answered is not failed.
    """
    rows: list[SheetRow] = []
    skipped, raters = [], {}
    for file in list_rating_files(folder) if files is None else files:
        try:
            own = _read_file(file, {pair["id"] for pair in pairs}, sheet_id(pairs), seed)
            for rater in {row.rater for row in own}:
                if rater in raters:
                    raise ValueError(f"{raters[rater]} is by {rater!r} too: keep one, or rename the rater")
            raters |= dict.fromkeys((row.rater for row in own), file.name)
            rows += own
        except ValueError as error:
            skipped.append(f"{file.name}: {error}")
    attention = _check_attention(rows, seed)
    left_out = {own["rater"] for own in attention if own["left_out"]}
    used = [row for row in rows if row.rater not in left_out]
    return Ratings(*_by_model(used, {pair["id"] for pair in pairs}, seed), attention, skipped)


def _read_file(file: Path, known: set[str], sheet: str, seed: int) -> list[SheetRow]:
    """Returns a file's rows. Raises ValueError, without the file's name, when it is to be skipped."""
    table, rows, rated = read_table(file, ("id",)), [], set()
    known = known | {check.pair["id"] for check in attention_checks(seed)}
    columns = [*ANSWER_FIELDS, *(f"{scale}_{place}" for scale in QUESTIONS["earlier_scales"] for place in (1, 2))]
    if not set(columns) & set(table[0]):
        raise ValueError("it has no column of answers: expected choice, relevance_1 and so on, as the sheet has them")
    for row in table:
        rater, of_sheet = row.get("rater") or file.stem, restore_id(row.get("sheet") or sheet, [sheet])
        row_id = restore_id(row["id"], known)
        if of_sheet != sheet or row_id not in known:
            raise ValueError(
                f"it rates row {row_id[:40]!r} of sheet {of_sheet[:40]!r}: this run's sheet is {sheet}. Its replies "
                f"have changed, or it is another run's"
            )
        if (rater, row_id) in rated:
            raise ValueError(f"it rates row {row_id} twice")
        rated.add((rater, row_id))
        try:
            given = {p: {scale: read_mark(row.get(f"{scale}_{p}", "")) for scale in ALL_SCALES} for p in (1, 2)}
            choice = read_choice(row.get("choice", ""))
        except ValueError as error:
            raise ValueError(f"row {row_id}: {error}") from error
        marks = {place: {scale: mark for scale, mark in own.items() if mark} for place, own in given.items()}
        rows.append(SheetRow(rater, row_id, choice, marks))
    return rows


def _check_attention(rows: list[SheetRow], seed: int) -> list[dict]:
    """Returns the raters who failed an attention check, as `Ratings.attention`."""
    answers = {check.pair["id"]: check.answer for check in attention_checks(seed)}
    passed: dict[str, list[bool]] = {}
    for row in rows:
        if row.id in answers and row.choice is not None:
            passed.setdefault(row.rater, []).append(row.choice == answers[row.id])
    counts = {rater: (own.count(False), len(own)) for rater, own in passed.items()}
    return [
        {"rater": rater, "failed": failed, "checks": checks, "left_out": failed > EXCUSED_FAILURES}
        for rater, (failed, checks) in sorted(counts.items())
        if failed
    ]


def _by_model(rows: list[SheetRow], known: set[str], seed: int) -> tuple[list[dict], list[dict]]:
    """Returns marks and choices by model, as `Ratings` has them, of rows that are no attention checks."""
    marks, choices = [], []
    for row in [row for row in rows if row.id in known]:
        tuned = 1 if tuned_is_first(row.id, seed) else 2
        for place in (1, 2):
            if row.marks[place]:
                side = "tuned" if place == tuned else "base"
                marks.append({"rater": row.rater, "id": row.id, "side": side, **row.marks[place]})
        if row.choice is not None:
            share = 0.5 if row.choice == 0 else float(row.choice == tuned)
            choices.append({"rater": row.rater, "id": row.id, "tuned": share})
    return marks, choices


def summarise_ratings(ratings: list[dict], draws: int, seed: int, sample: SheetSample | None = None) -> dict:
    """Returns {"raters", "pairs", "scales": {scale: …}} of marks as those of `read_ratings`, weighted back from
    `sample`, the sheet's rows, to all rows of the evaluation.

    A scale has what `_summarise_scale` returns, `p` with Benjamini and Hochberg's correction for the scales.
    """
    from scipy.stats import false_discovery_control

    raters = sorted({rating["rater"] for rating in ratings})
    summaries = {scale: _summarise_scale(ratings, raters, scale, draws, seed, sample) for scale in ALL_SCALES}
    scales = {scale: summary for scale, summary in summaries.items() if summary}
    tested = [summary for summary in scales.values() if summary["p"] is not None]
    for summary, p in zip(tested, false_discovery_control([summary["p"] for summary in tested]) if tested else []):
        summary["p"] = float(p)
    return {"raters": raters, "pairs": len({rating["id"] for rating in ratings}), "scales": scales}


def _summarise_scale(
    ratings: list[dict], raters: list[str], scale: str, draws: int, seed: int, sample: SheetSample | None
) -> dict:
    """Returns `base`, `tuned` and `delta` (means over rows of the raters' means, 1 to 5), `low` and `high` (95 %
    bootstrap over rows, of delta), `p` (Wilcoxon's signed-rank test over rows, two-sided, or, since that has no
    weights, a permutation test of rows that weigh differently; None where every difference is 0), `alpha`
    (Krippendorff's, ordinal, over all replies that several raters saw; None for one rater or where all marks are equal)
    and `n`, the rows with both replies marked; {} without any."""
    from scipy import stats

    marks = {}  # (id, side): {rater: mark}
    for rating in ratings:
        if scale in rating:
            marks.setdefault((rating["id"], rating["side"]), {})[rating["rater"]] = rating[scale]
    rows = [row for row, side in marks if side == "base" and (row, "tuned") in marks]
    if not rows:
        return {}
    sides = [[numpy.mean([*marks[row, side].values()]) for row in rows] for side in ("base", "tuned")]
    base, tuned = map(numpy.array, sides)
    delta, weights = tuned - base, sample.weights(rows) if sample else None
    low = high = delta.mean()
    if weights is not None:
        low, high = weighted_interval(delta, weights, draws, 95.0, seed)
    elif len(rows) > 1:  # scipy refuses a single row: its interval is the value itself
        seeded: Any = {"random_state": numpy.random.default_rng(seed)}  # scipy before 1.15 does not know it as `rng`
        bootstrap = stats.bootstrap([delta], numpy.mean, n_resamples=draws, method="percentile", **seeded)
        low, high = bootstrap.confidence_interval
    p = None
    if delta.any() and weights is not None:
        first, second = ((own * weights)[:, None] for own in (base, tuned))
        p = permutation_p(lambda base, tuned: (tuned - base)[:, 0], first, second, seed)
    elif delta.any():
        test: Any = stats.wilcoxon(delta)
        p = float(test.pvalue)
    return {
        "base": float(numpy.average(base, weights=weights)),
        "tuned": float(numpy.average(tuned, weights=weights)),
        "delta": float(numpy.average(delta, weights=weights)),
        "low": float(low),
        "high": float(high),
        "p": p,
        "alpha": _alpha([*marks.values()], raters, "ordinal"),
        "n": len(rows),
    }


def _alpha(units: list[dict[str, float]], raters: list[str], level: Literal["nominal", "ordinal"]) -> float | None:
    """Returns Krippendorff's alpha of what raters gave to units, {rater: value} each; None where no two rated the
    same unit, and where all values are equal."""
    import krippendorff

    units = [given for given in units if len(given) > 1]  # the others say nothing of agreement
    if len({value for given in units for value in given.values()}) < 2:
        return None
    table = [[given.get(rater, math.nan) for given in units] for rater in raters]
    alpha = float(krippendorff.alpha(table, level_of_measurement=level))
    return None if math.isnan(alpha) else alpha


def summarise_choices(choices: list[dict], groups: Mapping[str, str], sample: SheetSample | None = None) -> dict:
    """Returns what choices, as those of `read_ratings`, come to: `tuned`, `base` and `same` (how often each was
    chosen), `win` (share of the tuned reply, of "no difference" a half, as the mean over rows of the raters' mean),
    `low` and `high` (its exact 95 % interval over groups of rows), `alpha` (Krippendorff's, nominal), `pairs` and
    `raters` (how many); {} without any.

    `groups` has the group of a row by its id; a row that is not there is its own. `win` and its interval are weighted
    back from `sample`, the sheet's rows, to all rows of the evaluation.
    """
    if not choices:
        return {}
    units: dict[str, dict[str, float]] = {}  # id: {rater: share of the tuned reply}
    for choice in choices:
        units.setdefault(choice["id"], {})[choice["rater"]] = choice["tuned"]
    wins = numpy.array([numpy.mean([*given.values()]) for given in units.values()])
    weights = sample.weights([*units]) if sample else None
    win, low, high = weighted_share(wins, [groups.get(row, row) for row in units], 95.0, weights)
    shares = [choice["tuned"] for choice in choices]
    counts = {"tuned": sum(share > 0.5 for share in shares), "base": sum(share < 0.5 for share in shares)}
    return {
        **counts,
        "same": len(shares) - sum(counts.values()),
        "win": win,
        "low": low,
        "high": high,
        "alpha": _alpha([*units.values()], sorted({choice["rater"] for choice in choices}), "nominal"),
        "pairs": len(units),
        "raters": len({choice["rater"] for choice in choices}),
    }


def read_run_ratings(folder: Path, base: list[dict], tuned: list[dict], seed: int) -> Ratings | None:
    """Returns the ratings in ratings/ of a run's evaluate/; None without any file.

    `base` and `tuned` are the contents of its base.jsonl and tuned.jsonl, `seed` the evaluation's.
    """
    if not list_rating_files(folder / "ratings"):
        return None
    try:
        return read_ratings(folder / "ratings", _pairs_of(folder, SHEET, base, tuned, seed), seed)
    except ValueError as error:
        return Ratings([], [], [], [f"all of them, since human_eval.csv is gone: {error}"])


def _pairs_of(folder: Path, sheet: str, base: list[dict], tuned: list[dict], seed: int) -> list[dict[str, str]]:
    """Returns the blind pairs of a sheet's rows, in its order. Raises ValueError where it cannot be read."""
    asked, sample = {row["id"] for row in read_table(folder / sheet, SHOWN_FIELDS)}, read_sample(folder, sheet)
    rows = {both[0]["id"]: both for both in zip(base, tuned)}
    order = rows if sample is None else sample.strata  # sheets of earlier versions have the order of the rows
    return [blind_pair(*rows[row], seed) for row in order if row in asked and row in rows]


def read_both_ratings(
    folder: Path, base: list[dict], tuned: list[dict], preferred: list[dict], seed: int
) -> tuple[Ratings | None, Ratings | None]:
    """Returns the ratings of base and tuned replies, and those of tuned and preferred ones, None where no file has any.

    The sheet of the first was given out before there was a preferred model. A file goes by its sheet's id, else by the
    replies in it, else to the newer sheet.
    """
    files, pairs = list_rating_files(folder / "ratings"), []
    for sheet, sides in ((TUNED_SHEET, (base, tuned)), (SHEET, (tuned, preferred))):
        try:
            pairs.append(_pairs_of(folder, sheet, *sides, seed))
        except ValueError:
            pairs.append([])  # no such sheet
    earlier = [file for file in files if _is_of(file, *pairs)]
    newer = [file for file in files if file not in earlier]
    read = [read_ratings(folder / "ratings", own, seed, of) for own, of in zip(pairs, (earlier, newer))]
    return read[0] if earlier else None, read[1] if newer else None


def _is_of(file: Path, pairs: list[dict], others: list[dict]) -> bool:
    """Returns whether a rater's file is of a sheet with these pairs rather than of one with others."""
    try:
        table = read_table(file, ("id",))
    except ValueError:
        return False
    if named := {row["sheet"] for row in table if row.get("sheet")}:
        known = sheet_id(pairs)
        return all(restore_id(name, [known]) == known for name in named)

    def same_replies(own: list[dict]) -> int:
        shown = {pair["id"]: pair["reply_1"].split() for pair in own}
        return sum(row.get("reply_1", "").split() == shown[row["id"]] for row in table if row["id"] in shown)

    return same_replies(pairs) > same_replies(others)


def summarise_run_ratings(
    ratings: Ratings, groups: Mapping[str, str], draws: int, seed: int, sample: SheetSample | None = None
) -> dict:
    """Returns `summarise_ratings` with `choices` (see `summarise_choices`), `attention`, `skipped` and `sample`, as
    `SheetSample.describe` returns it.

    Raters and pairs are those of marks and choices together.
    """
    both = [*ratings.marks, *ratings.choices]
    return {
        **summarise_ratings(ratings.marks, draws, seed, sample),
        **{"raters": sorted({own["rater"] for own in both}), "pairs": len({own["id"] for own in both})},
        "choices": summarise_choices(ratings.choices, groups, sample),
        "attention": ratings.attention,
        "skipped": ratings.skipped,
        "sample": sample.describe() if sample else {},
    }
