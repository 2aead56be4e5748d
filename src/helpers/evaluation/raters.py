"""What people say of the replies: a blind sheet to fill in, the ratings read back, agreement and a paired test."""

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import yaml

from helpers.data.sampling import shuffle_key
from helpers.evaluation.rating_files import list_rating_files, read_mark, read_table
from helpers.runs.files import write_csv, write_text

QUESTIONS = yaml.safe_load(Path(__file__).with_name("raters.yaml").read_text(encoding="utf-8"))
SCALES: dict[str, list[str]] = QUESTIONS["scales"]
FONT = Path(__file__).parents[1] / "reporting" / "fonts" / "NotoSansBengali-Regular.ttf"  # as on the other pages
SHEET_TEMPLATE = Path(__file__).with_name("sheet.html")
SHOWN_FIELDS = ("id", "prompt", "reply_1", "reply_2")
MARK_FIELDS = [f"{scale}_{place}" for scale in SCALES for place in (1, 2)]  # a sheet's marks, by reply


def blind_pair(base: dict, tuned: dict, seed: int) -> dict[str, str]:
    """Returns one line of the sheet: two replies, which is which decided by seed and row, empty scales."""
    first, second = (tuned, base) if tuned_is_first(tuned["id"], seed) else (base, tuned)
    shown = zip(SHOWN_FIELDS, (base["id"], base["prompt"], first["reply"], second["reply"]))
    return {**dict(shown), **dict.fromkeys(MARK_FIELDS, "")}


def tuned_is_first(row_id: str, seed: int) -> bool:
    """Returns whether reply_1 of a row's blind pair is the tuned model's."""
    return shuffle_key(seed, row_id)[0] % 2 == 1


def sheet_id(pairs: list[dict]) -> str:
    """Returns what tells a sheet from every other: 12 hexadecimal digits of its questions and replies."""
    shown = [[pair[name] for name in SHOWN_FIELDS] for pair in pairs]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()[:12]


def write_sheet(folder: Path, pairs: list[dict]) -> None:
    """Writes human_eval.csv, for a spreadsheet, and human_eval.html, which needs nothing but a browser.

    Every text on the page is escaped: it comes from a model.
    """
    import jinja2
    import pandas

    write_csv(folder / "human_eval.csv", pandas.DataFrame(pairs))
    page = jinja2.Environment(autoescape=True).from_string(SHEET_TEMPLATE.read_text(encoding="utf-8"))
    font = base64.b64encode(FONT.read_bytes()).decode()
    html = page.render(pairs=pairs, scales=SCALES, fields=MARK_FIELDS, sheet=sheet_id(pairs), font=font)
    write_text(folder / "human_eval.html", html)


class Ratings(NamedTuple):
    """What raters have sent back."""

    marks: list[dict]  # {"rater", "id", "side", scale: mark}, a mark not given left out
    skipped: list[str]  # a line for each file that was not read: its name, and why


def read_ratings(folder: Path, pairs: list[dict], seed: int) -> Ratings:
    """Returns the ratings in a folder's files, and which files were skipped; one bad file never costs the others.

    A file is what the sheet saves, or human_eval.csv filled in: then the file's name is the rater's. Skipped is a file
    that `read_table` cannot read, or of another sheet, with an unknown row or one twice, with a mark that is not 1 to
    5, and a rater's second file.
    """
    marks, skipped, raters = [], [], {}
    for file in list_rating_files(folder):
        try:
            own = _read_file(file, {pair["id"] for pair in pairs}, sheet_id(pairs), seed)
            for rater in {rating["rater"] for rating in own}:
                if rater in raters:
                    raise ValueError(f"{raters[rater]} is by {rater!r} too: keep one, or rename the rater")
            raters |= dict.fromkeys((rating["rater"] for rating in own), file.name)
            marks += own
        except ValueError as error:
            skipped.append(f"{file.name}: {error}")
    return Ratings(marks, skipped)


def _read_file(file: Path, known: set[str], sheet: str, seed: int) -> list[dict]:
    """Returns a file's ratings. Raises ValueError, without the file's name, when it is to be skipped."""
    ratings, rated = [], set()
    for row in read_table(file, ("id", *MARK_FIELDS)):
        rater, row_id, of_sheet = row.get("rater") or file.stem, row["id"], row.get("sheet") or sheet
        if of_sheet != sheet or row_id not in known:
            raise ValueError(
                f"it rates row {row_id[:40]!r} of sheet {of_sheet[:40]!r}: this run's sheet is {sheet}. Its replies "
                f"have changed, or it is another run's"
            )
        if (rater, row_id) in rated:
            raise ValueError(f"it rates row {row_id} twice")
        rated.add((rater, row_id))
        for place in (1, 2):
            try:
                given = {scale: read_mark(row[f"{scale}_{place}"]) for scale in SCALES}
            except ValueError as error:
                raise ValueError(f"row {row_id}: {error}") from error
            side = "tuned" if tuned_is_first(row_id, seed) == (place == 1) else "base"
            if given := {scale: mark for scale, mark in given.items() if mark}:
                ratings.append({"rater": rater, "id": row_id, "side": side, **given})
    return ratings


def summarise_ratings(ratings: list[dict], draws: int, seed: int) -> dict:
    """Returns {"raters", "pairs", "scales": {scale: …}} of ratings as those of `read_ratings`.

    A scale has what `_summarise_scale` returns, `p` with Benjamini and Hochberg's correction for the scales.
    """
    from scipy.stats import false_discovery_control

    raters = sorted({rating["rater"] for rating in ratings})
    scales = {scale: summary for scale in SCALES if (summary := _summarise_scale(ratings, raters, scale, draws, seed))}
    tested = [summary for summary in scales.values() if summary["p"] is not None]
    for summary, p in zip(tested, false_discovery_control([summary["p"] for summary in tested]) if tested else []):
        summary["p"] = float(p)
    return {"raters": raters, "pairs": len({rating["id"] for rating in ratings}), "scales": scales}


def _summarise_scale(ratings: list[dict], raters: list[str], scale: str, draws: int, seed: int) -> dict:
    """Returns `base`, `tuned` and `delta` (means over rows of the raters' means, 1 to 5), `low` and `high` (95 %
    bootstrap over rows, of delta), `p` (Wilcoxon's signed-rank test over rows, two-sided; None where every difference
    is 0), `alpha` (Krippendorff's, ordinal, over all replies that several raters saw; None for one rater or where all
    marks are equal) and `n`, the rows with both replies marked; {} without any."""
    import krippendorff
    from scipy import stats

    marks = {}  # (id, side): {rater: mark}
    for rating in ratings:
        if scale in rating:
            marks.setdefault((rating["id"], rating["side"]), {})[rating["rater"]] = rating[scale]
    rows = [row for row, side in marks if side == "base" and (row, "tuned") in marks]
    if not rows:
        return {}
    base, tuned = ([numpy.mean([*marks[row, side].values()]) for row in rows] for side in ("base", "tuned"))
    delta = numpy.subtract(tuned, base)
    low = high = delta.mean()
    if len(rows) > 1:  # scipy refuses a single row: its interval is the value itself
        seeded: Any = {"random_state": numpy.random.default_rng(seed)}  # scipy before 1.15 does not know it as `rng`
        bootstrap = stats.bootstrap([delta], numpy.mean, n_resamples=draws, method="percentile", **seeded)
        low, high = bootstrap.confidence_interval
    varied = len({mark for given in marks.values() for mark in given.values()}) > 1
    alpha = math.nan
    if varied and any(len(given) > 1 for given in marks.values()):
        table = [[given.get(rater, math.nan) for given in marks.values()] for rater in raters]
        alpha = float(krippendorff.alpha(table, level_of_measurement="ordinal"))
    test: Any = stats.wilcoxon(delta) if delta.any() else None
    return {
        "base": float(numpy.mean(base)),
        "tuned": float(numpy.mean(tuned)),
        "delta": float(delta.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(test.pvalue) if test else None,
        "alpha": None if math.isnan(alpha) else alpha,
        "n": len(rows),
    }


def run_ratings(folder: Path, base: list[dict], tuned: list[dict], metrics: dict[str, Any]) -> dict:
    """Returns `summarise_ratings` of the files in ratings/ of a run's evaluate/, with `skipped`: a line for each file
    that was not read; {} without any file.

    `base`, `tuned` and `metrics` are the contents of its base.jsonl, tuned.jsonl and metrics.json.
    """
    if not list_rating_files(folder / "ratings"):
        return {}
    draws, seed = metrics["bootstrap_draws"], metrics["seed"]
    try:
        asked = {row["id"] for row in read_table(folder / "human_eval.csv", SHOWN_FIELDS)}
    except ValueError as error:
        return summarise_ratings([], draws, seed) | {"skipped": [f"all of them, since human_eval.csv is gone: {error}"]}
    pairs = [blind_pair(*both, seed) for both in zip(base, tuned) if both[0]["id"] in asked]
    ratings = read_ratings(folder / "ratings", pairs, seed)
    return summarise_ratings(ratings.marks, draws, seed) | {"skipped": ratings.skipped}
