"""Base against tuned: bootstrap intervals, floors, breakdowns."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
from pydantic import BaseModel

from helpers.evaluation.metrics import AIMS, PRIMARY, SHARES, draw_floor, rubric_scores, score_values
from helpers.evaluation.resampling import (
    SIGNIFICANT,
    adjust_holm,
    detectable_effect,
    draw_counts,
    percentile_ranks,
    permutation_p,
    row_correlation,
    share_difference,
    share_interval,
    sum_by_group,
)
from helpers.language.bengali import split_words

MOST_GROUPS = 12  # groups of a breakdown that are shown by themselves
FLOOR_SPREADS = 1.96  # standard deviations of its shuffles by which a score must lie above its floor

Sums = dict[str, numpy.ndarray]  # of one model, as `score_sums` returns them


class Score(BaseModel, frozen=True):
    """One score of a model, or the difference of two models, as it is written to metrics.json.

    The last four are not there in runs of earlier versions.
    """

    value: float
    low: float  # of the 95 % interval
    high: float
    floor: float | None  # mean of what words alone score: see `floor_sums`; None where that says nothing
    better: str  # "higher", "lower", "near 1" or "neither"
    n: int  # rows
    groups: int | None = None  # that the rows belong to, which the interval is of
    floor_spread: float | None = None  # standard deviation of the floor
    p: float | None = None  # of a difference, by permutation within groups, corrected for the number of scores
    detectable: float | None = None  # the smallest difference that so many groups could have shown

    @property
    def is_at_floor(self) -> bool:
        """Whether it is no higher than words alone would bring it."""
        if self.floor is None:
            return False
        return self.low <= self.floor or self.value <= self.floor + FLOOR_SPREADS * (self.floor_spread or 0.0)

    @property
    def change(self) -> str:
        """Of a difference of two models "better", "worse" or "no clear difference": by its corrected p-value, in runs
        of earlier versions by its interval.

        "–" for a score of these that is best near 1, of which the difference alone says nothing, and for one without a
        better direction.
        """
        clear = self.p < SIGNIFICANT if self.p is not None else not self.low <= 0 <= self.high
        if not clear or not math.isfinite(self.value):
            return "no clear difference"
        if self.better in ("near 1", "neither"):
            return "–"
        return "better" if (self.value > 0) == (self.better == "higher") else "worse"


class Comparison(BaseModel, frozen=True):
    """The scores of both models by name, as they are written to metrics.json; `delta` is tuned − base.

    Of a score that is best near 1 `delta` is the difference of the distances from 1, which is better lower.
    """

    base: dict[str, Score]
    tuned: dict[str, Score]
    delta: dict[str, Score]


def compare_models(
    base: Sums,
    tuned: Sums,
    floors: dict[str, Sums],
    draws: int,
    seed: int,
    level: float = 95.0,
    groups: Sequence[str] | None = None,
) -> Comparison:
    """Compares two models over the same rows.

    `base` and `tuned` come from `score_sums`, `floors` by model from `floor_sums`; `groups` has an entry per row, None:
    each row is its own. The intervals, of `level` %, are of the bootstrap over groups (Efron 1979; Davison and Hinkley
    1997, §3.8), with the same draws for both models, so that `delta` is a paired comparison; of shares they are exact.
    A difference has a p-value by permutation within groups: of the primary scores corrected for their number (Holm),
    of the others for theirs, and none below the larger of the primary ones' (serial gatekeeping), so that the chance
    of any false one stays that of a single test. That of unsafe replies alone is not corrected.
    """
    # By hand: scipy.stats.bootstrap draws anew for every score and resamples rows. Here one draw of counts serves all
    # scores of both models, as a product with their sums.
    rows = len(next(iter(base.values())))
    groups = groups or [str(row) for row in range(rows)]
    number = len(set(groups))
    resampling = Resampling(groups, draw_counts(number, draws, seed), level, seed)
    names = [name for name in AIMS if name in base]
    compared = {name: compare_score(name, base[name], tuned[name], resampling) for name in names}
    corrected = correct_p_values({name: scores["delta"].p or 0.0 for name, scores in compared.items()})
    for name, scores in compared.items():
        scores["delta"] = scores["delta"].model_copy(update={"p": corrected[name]})
        for side in floors:
            if name in floors[side]:
                mean, spread = draw_floor(name, floors[side][name], seed)
                scores[side] = scores[side].model_copy(update={"floor": mean, "floor_spread": spread})
    return Comparison(**{side: {name: compared[name][side] for name in names} for side in ("base", "tuned", "delta")})


class Resampling(NamedTuple):
    """How rows are resampled for every score."""

    groups: Sequence[str]  # of the rows
    counts: numpy.ndarray  # how often each group is drawn: (draws, groups)
    level: float  # of the intervals, in %
    seed: int


def compare_score(name: str, base: numpy.ndarray, tuned: numpy.ndarray, resampling: Resampling) -> dict[str, Score]:
    """Returns one score of both models ("base", "tuned") and their difference ("delta"), its p-value not corrected.

    `base` and `tuned` are what is summed over rows, (rows, k).
    """
    sums = {side: sum_by_group(own, resampling.groups) for side, own in (("base", base), ("tuned", tuned))}
    number, level = len(sums["base"]), resampling.level
    ranks = percentile_ranks(sum_by_group(numpy.ones(len(base)), resampling.groups), level)
    values: dict[str, Any] = {side: score_values(name, own.sum(axis=0)[None])[0] for side, own in sums.items()}
    drawn: dict[str, Any] = {side: score_values(name, resampling.counts @ own) for side, own in sums.items()}
    for either in (values, drawn):
        either["delta"] = _difference(name, either["base"], either["tuned"])
    bounds: dict[str, tuple[float, float]] = {}
    for side, own in drawn.items():
        low, high = numpy.percentile(own, ranks)
        bounds[side] = float(low), float(high)
    if name in SHARES:
        bounds = {side: share_interval(own[:, 0], own[:, 1], level) for side, own in sums.items()}
        ends = {side: (float(values[side]), *bounds[side]) for side in ("base", "tuned")}
        bounds["delta"] = share_difference(ends["base"], ends["tuned"], row_correlation(base[:, 0], tuned[:, 0]))
    p = permutation_p(
        lambda first, second: _difference(name, score_values(name, first), score_values(name, second)),
        sums["base"],
        sums["tuned"],
        resampling.seed,
    )
    about: dict[str, Any] = {"floor": None, "n": len(base), "groups": number, "better": AIMS[name]}
    facts = {"base": about, "tuned": about, "delta": about | {"p": p}}
    facts["delta"]["detectable"] = detectable_effect(*bounds["delta"], number, level)
    if AIMS[name] == "near 1":
        facts["delta"]["better"] = "lower"
    return {side: Score(value=values[side], low=low, high=high, **facts[side]) for side, (low, high) in bounds.items()}


def _difference(name: str, base: Any, tuned: Any) -> Any:
    """Returns tuned − base, of a score that is best near 1 of the distances from it."""
    return abs(tuned - 1) - abs(base - 1) if AIMS[name] == "near 1" else tuned - base


def correct_p_values(p_values: dict[str, float]) -> dict[str, float]:
    """Returns p-values corrected for their number: see `compare_models`. Without a primary score all are one family.

    That of unsafe replies stays as it is: there a false alarm is better than a change that is missed.
    """
    primary = adjust_holm({name: p for name, p in p_values.items() if name in PRIMARY})
    others = adjust_holm({name: p for name, p in p_values.items() if name not in (*PRIMARY, "unsafe")})
    gate = max(primary.values(), default=0.0)
    return p_values | primary | {name: max(p, gate) for name, p in others.items()}


def breakdown(
    base: Sums,
    tuned: Sums,
    labels: Sequence[str],
    draws: int,
    seed: int,
    floors: dict[str, Sums] | None = None,
    groups: Sequence[str] | None = None,
    least: int = 5,
) -> list[dict]:
    """Returns chrF++ and perplexity of the rows of each label, as metrics.json has them: a `Comparison` with `label`
    and `n`; floors and groups as for `compare_models`.

    `labels` has one entry per row. The MOST_GROUPS labels with the most rows are shown, in that order; the others, and
    those of fewer than `least` rows, together as "other".
    """
    shown = [label for label, rows in Counter(labels).most_common(MOST_GROUPS) if rows >= least]
    labels = [label if label in shown else "other" for label in labels]
    names = [name for name in ("chrf", "perplexity") if name in base]

    def select(sums: Sums, rows: list[int]) -> Sums:
        return {name: sums[name][rows] for name in names if name in sums}

    result = []
    for label in dict.fromkeys([*shown, "other"]):
        if rows := [row for row, own in enumerate(labels) if own == label]:
            own_floors = {side: select(pools, rows) for side, pools in (floors or {}).items()}
            own_groups = [groups[row] for row in rows] if groups else None
            scores = compare_models(select(base, rows), select(tuned, rows), own_floors, draws, seed, groups=own_groups)
            result.append({"label": label or "none given", "n": len(rows), **scores.model_dump()})
    return result


def length_groups(base: Sums, tuned: Sums, references: list[str], **options: Any) -> list[dict]:
    """Returns the `breakdown` by quarters of the references' length, as "1 to 14 words", the shortest first; `options`
    are those of `breakdown`."""
    lengths = [len(split_words(reference)) for reference in references]
    edges = sorted({int(edge) for edge in numpy.quantile(lengths, [0.25, 0.5, 0.75])} | {max(lengths)})
    starts = [min(lengths), *(edge + 1 for edge in edges[:-1])]
    labels = [f"{starts[quarter]} to {edges[quarter]} words" for quarter in numpy.searchsorted(edges, lengths)]
    quarters = breakdown(base, tuned, labels, least=1, **options)
    return sorted(quarters, key=lambda group: int(group["label"].split()[0]))


def category_means(base: list[dict], tuned: list[dict]) -> list[dict]:
    """Returns the means of the `rubric_scores` for each category, base beside tuned."""
    import pandas

    sides = {"base": base, "tuned": tuned}
    tables = [pandas.DataFrame(map(rubric_scores, rows)).add_prefix(f"{side} ") for side, rows in sides.items()]
    categories = pandas.Series([row["category"] for row in base])
    groups = pandas.concat(tables, axis=1).groupby(categories, sort=False)
    return [{"category": category, "n": len(rows), **rows.mean().to_dict()} for category, rows in groups]
