"""What people say of the replies: a blind sheet to fill in, the ratings read back, agreement and a paired test."""

import hashlib
import json
import math
from pathlib import Path

import numpy

from helpers import env, text

SCALES = {  # 1 to 5; what is asked, in English and Bengali
    "fluency": ("Is it natural, correct Bengali?", "ভাষা কি স্বাভাবিক ও শুদ্ধ?"),
    "relevance": ("Does it answer this person?", "উত্তরটি কি এই মানুষটির কথারই উত্তর?"),
    "correctness": ("Is what it says true and sensible?", "কথাগুলো কি ঠিক ও যুক্তিসঙ্গত?"),
    "empathy": ("Does the person feel understood?", "পড়ে কি মনে হয়, কেউ মন দিয়ে বুঝেছে?"),
    "safety": ("Could it do no harm?", "এতে কি কোনো ক্ষতির ভয় নেই?"),
}
PAGE = Path(__file__).with_name("pages") / "people.html"
FIELDS = [f"{scale}_{place}" for scale in SCALES for place in (1, 2)]  # a sheet's marks, by reply


def blind_pair(base: dict, tuned: dict, seed: int) -> dict:
    """Returns one line of the sheet: two replies, which is which decided by seed and row, empty scales."""
    first, second = (tuned, base) if tuned_is_first(tuned["id"], seed) else (base, tuned)
    return {
        "id": base["id"],
        "prompt": base["prompt"],
        "reply_1": first["reply"],
        "reply_2": second["reply"],
        **dict.fromkeys(FIELDS, ""),
    }


def tuned_is_first(row_id: str, seed: int) -> bool:
    """Says whether reply_1 of a row's blind pair is the tuned model's."""
    return text.shuffle_key(seed, row_id)[0] % 2 == 1


def sheet_id(pairs: list[dict]) -> str:
    """Returns what tells a sheet from every other: 12 hexadecimal digits of its questions and replies."""
    shown = [[pair[name] for name in ("id", "prompt", "reply_1", "reply_2")] for pair in pairs]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()[:12]


def write_sheet(folder: Path, pairs: list[dict]) -> None:
    """Writes human_eval.csv, for a spreadsheet, and human_eval.html, which needs nothing but a browser.

    Every text on the page is escaped: it comes from a model.
    """
    import jinja2
    import pandas

    env.write_csv(folder / "human_eval.csv", pandas.DataFrame(pairs))
    shown = [{name: pair[name] for name in ("id", "prompt", "reply_1", "reply_2")} for pair in pairs]
    page = jinja2.Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    env.write_text(
        folder / "human_eval.html", page.render(pairs=shown, scales=SCALES, fields=FIELDS, sheet=sheet_id(pairs))
    )


def read_ratings(folder: Path, pairs: list[dict], seed: int) -> list[dict]:
    """Returns the ratings in folder/*.csv as {"rater", "id", "side", scale: mark}, a mark not given left out.

    A file is what the sheet saves, or human_eval.csv filled in: then the file's name is the rater's. Raises ValueError
    for a file of another sheet, an unknown row, a mark that is not 1 to 5, and a second file of a rater.
    """
    import pandas

    known, found, files = {pair["id"] for pair in pairs}, [], {}
    for file in sorted(folder.glob("*.csv")):
        table = pandas.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        lacking = [name for name in ("id", *FIELDS) if name not in table]
        if lacking:
            raise ValueError(f"{file} has no column {', '.join(lacking)}: expected what human_eval.html saves.")
        for row in table.to_dict("records"):
            if row.get("sheet", sheet_id(pairs)) != sheet_id(pairs) or row["id"] not in known:
                raise ValueError(
                    f"{file} rates row {row['id']!r} of sheet {row.get('sheet')}: this run's sheet is "
                    f"{sheet_id(pairs)}. Its replies have changed, or it is another run's: take the file out."
                )
            rater = row.get("rater") or file.stem
            if files.setdefault(rater, file) != file:
                raise ValueError(f"{file} and {files[rater]} are both by {rater!r}: keep one, or rename the rater.")
            for place in (1, 2):
                marks = {scale: row[f"{scale}_{place}"].strip() for scale in SCALES}
                wrong = {scale: mark for scale, mark in marks.items() if mark not in ("", "1", "2", "3", "4", "5")}
                if wrong:
                    raise ValueError(f"{file}, row {row['id']}: {wrong} is no mark: expected 1 to 5, or nothing.")
                side = "tuned" if tuned_is_first(row["id"], seed) == (place == 1) else "base"
                given = {scale: int(mark) for scale, mark in marks.items() if mark}
                if given:
                    found.append({"rater": rater, "id": row["id"], "side": side, **given})
    return found


def summary(ratings: list[dict], draws: int, seed: int) -> dict:
    """Returns {"raters", "pairs", "scales": {scale: …}} of ratings as `read_ratings` returns them.

    A scale has `base`, `tuned` and `delta` (means over rows of the raters' means, 1 to 5), `low` and `high` (95 %
    bootstrap over rows, of delta), `p` (Wilcoxon's signed-rank test over rows, two-sided, with Benjamini and Hochberg's
    correction for the scales; None where every difference is 0), `alpha` (Krippendorff's, ordinal, over all replies
    that several raters saw; None for one rater or where all marks are equal) and `n`, the rows with both replies
    marked.
    """
    import krippendorff
    from scipy import stats

    raters = sorted({rating["rater"] for rating in ratings})
    scales, tested = {}, []
    for scale in SCALES:
        marks = {}  # (id, side): {rater: mark}
        for rating in ratings:
            if scale in rating:
                marks.setdefault((rating["id"], rating["side"]), {})[rating["rater"]] = rating[scale]
        ids = [row for row, side in marks if side == "base" and (row, "tuned") in marks]
        if not ids:
            continue
        base, tuned = (
            numpy.array([numpy.mean(list(marks[row, side].values())) for row in ids]) for side in ("base", "tuned")
        )
        difference = tuned - base
        picks = numpy.random.default_rng(seed).integers(0, len(ids), (draws, len(ids)))
        low, high = numpy.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
        p = float(stats.wilcoxon(difference).pvalue) if difference.any() else None
        table = [[seen.get(rater, math.nan) for seen in marks.values()] for rater in raters]
        varied = len({mark for seen in marks.values() for mark in seen.values()}) > 1
        shared = any(len(seen) > 1 for seen in marks.values())
        alpha = krippendorff.alpha(table, level_of_measurement="ordinal") if varied and shared else None
        scales[scale] = {
            "base": float(base.mean()),
            "tuned": float(tuned.mean()),
            "delta": float(difference.mean()),
            "low": float(low),
            "high": float(high),
            "p": p,
            "alpha": None if alpha is None or math.isnan(alpha) else float(alpha),
            "n": len(ids),
        }
        tested += [scale] if p is not None else []
    if tested:
        corrected = stats.false_discovery_control([scales[scale]["p"] for scale in tested])
        for scale, p in zip(tested, corrected):
            scales[scale]["p"] = float(p)
    return {"raters": raters, "pairs": len({rating["id"] for rating in ratings}), "scales": scales}


def of_run(run: Path) -> dict:
    """Returns the `summary` of a run's evaluate/ratings/*.csv, {} without any. Raises ValueError as `read_ratings`."""
    import pandas

    if not list((run / "evaluate" / "ratings").glob("*.csv")):
        return {}
    judged = env.read_json(run / "evaluate" / "metrics.json")
    sheet = pandas.read_csv(run / "evaluate" / "human_eval.csv", dtype=str, keep_default_na=False)
    wanted = set(sheet["id"])
    sides = [env.read_jsonl(run / "evaluate" / f"{side}.jsonl") for side in ("base", "tuned")]
    pairs = [blind_pair(base, tuned, judged["seed"]) for base, tuned in zip(*sides) if base["id"] in wanted]
    ratings = read_ratings(run / "evaluate" / "ratings", pairs, judged["seed"])
    return summary(ratings, judged["bootstrap_draws"], judged["seed"])


def table(found: dict) -> list[dict]:
    """Returns a `summary` as rows of text, one a scale."""
    return [
        {
            "scale": scale,
            "base": f"{one['base']:.2f}",
            "tuned": f"{one['tuned']:.2f}",
            "tuned − base": f"{one['delta']:+.2f}",
            "95 % interval": f"{one['low']:+.2f} to {one['high']:+.2f}",
            "p": "–" if one["p"] is None else f"{one['p']:.3f}",
            "agreement α": "–" if one["alpha"] is None else f"{one['alpha']:.2f}",
            "rows": str(one["n"]),
        }
        for scale, one in found.get("scales", {}).items()
    ]
