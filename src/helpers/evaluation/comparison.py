"""Base against tuned: bootstrap intervals, floors, breakdowns."""

from collections import Counter

import numpy
from pydantic import BaseModel

from helpers.evaluation.metrics import BETTER, rubric_scores, score_value
from helpers.language.bengali import split_words

MOST_GROUPS = 12  # groups of a breakdown that are shown by themselves

Sums = dict[str, numpy.ndarray]  # of one model, as `score_sums` returns them


class Score(BaseModel, frozen=True):
    """One score of a model, or the difference of two models, as it is written to metrics.json."""

    value: float
    low: float  # of the 95 % interval
    high: float
    floor: float | None  # what shuffled references score; None where that says nothing
    better: str  # "higher", "lower" or "near 1"
    n: int  # rows


class Comparison(BaseModel, frozen=True):
    """The scores of both models by name, as they are written to metrics.json; `delta` is tuned − base."""

    base: dict[str, Score]
    tuned: dict[str, Score]
    delta: dict[str, Score]


def compare_models(
    base: Sums, tuned: Sums, floors: dict[str, Sums], draws: int, seed: int, level: float = 95.0
) -> Comparison:
    """Compares two models over the same rows.

    `base` and `tuned` come from `score_sums`, `floors` by model from `overlap_sums` over shuffled references. The
    interval is the percentile bootstrap over rows (Efron 1979), of `level` %; both models see the same resampled rows,
    so that `delta` is a paired comparison.
    """
    rows = len(next(iter(base.values())))
    # By hand: scipy.stats.bootstrap draws anew for every score and resamples rows. Here one draw of row counts serves
    # all scores of both models, as a product with their sums.
    counts = numpy.random.default_rng(seed).multinomial(rows, numpy.full(rows, 1 / rows), size=draws)  # (draws, rows)
    scores: dict[str, dict[str, Score]] = {"base": {}, "tuned": {}, "delta": {}}
    for name in (name for name in BETTER if name in base):
        values, drawn = {}, {}
        for side, sums in (("base", base[name]), ("tuned", tuned[name])):
            values[side] = score_value(name, sums.sum(axis=0))
            drawn[side] = numpy.array([score_value(name, draw) for draw in counts @ sums])
        values["delta"], drawn["delta"] = values["tuned"] - values["base"], drawn["tuned"] - drawn["base"]
        for side in scores:
            low, high = numpy.percentile(drawn[side], [50 - level / 2, 50 + level / 2])
            floor = score_value(name, floors[side][name].sum(axis=0)) if name in floors.get(side, {}) else None
            scores[side][name] = Score(value=values[side], low=low, high=high, floor=floor, better=BETTER[name], n=rows)
    return Comparison(**scores)


def breakdown(base: Sums, tuned: Sums, labels: list[str], draws: int, seed: int, least: int = 5) -> list[dict]:
    """Returns chrF++ and perplexity of the rows of each label, as metrics.json has them: a `Comparison` with `label`
    and `n`.

    `labels` has one entry per row. The MOST_GROUPS labels with the most rows are shown, in that order; the others, and
    those of fewer than `least` rows, together as "other".
    """
    shown = [label for label, rows in Counter(labels).most_common(MOST_GROUPS) if rows >= least]
    labels = [label if label in shown else "other" for label in labels]
    names = [name for name in ("chrf", "perplexity") if name in base]
    groups = []
    for label in dict.fromkeys([*shown, "other"]):
        if rows := [row for row, own in enumerate(labels) if own == label]:
            group_base, group_tuned = ({name: sums[name][rows] for name in names} for sums in (base, tuned))
            scores = compare_models(group_base, group_tuned, {}, draws, seed)
            groups.append({"label": label or "none given", "n": len(rows), **scores.model_dump()})
    return groups


def length_groups(base: Sums, tuned: Sums, references: list[str], draws: int, seed: int) -> list[dict]:
    """Returns the `breakdown` by quarters of the references' length, as "1 to 14 words", the shortest first."""
    lengths = [len(split_words(reference)) for reference in references]
    edges = sorted({int(edge) for edge in numpy.quantile(lengths, [0.25, 0.5, 0.75])} | {max(lengths)})
    starts = [min(lengths), *(edge + 1 for edge in edges[:-1])]
    labels = [f"{starts[quarter]} to {edges[quarter]} words" for quarter in numpy.searchsorted(edges, lengths)]
    groups = breakdown(base, tuned, labels, draws, seed, least=1)
    return sorted(groups, key=lambda group: int(group["label"].split()[0]))


def category_means(base: list[dict], tuned: list[dict]) -> list[dict]:
    """Returns the means of the `rubric_scores` for each category, base beside tuned."""
    import pandas

    sides = {"base": base, "tuned": tuned}
    tables = [pandas.DataFrame(map(rubric_scores, rows)).add_prefix(f"{side} ") for side, rows in sides.items()]
    categories = pandas.Series([row["category"] for row in base])
    groups = pandas.concat(tables, axis=1).groupby(categories, sort=False)
    return [{"category": category, "n": len(rows), **rows.mean().to_dict()} for category, rows in groups]
