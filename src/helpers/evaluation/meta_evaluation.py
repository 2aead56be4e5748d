"""Does a score track people? Every automatic score held against the raters' marks and choices, reply by reply.

A score's values are turned so that higher is better: what tracks people has a positive correlation. Where the sheet's
rows were chosen by their scores, every measure is weighted back to all rows: among replies that differ much, a score
would seem to track people better than it does.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy
from pydantic import BaseModel

from helpers.evaluation.metrics import BETTER, score_sums, score_values
from helpers.evaluation.rank_correlation import draw_spearman
from helpers.evaluation.raters import ALL_SCALES
from helpers.evaluation.resampling import FEWEST_PAIRS, draw_counts, percentile_ranks, sum_by_group, weighted_share
from helpers.evaluation.sheet_rows import SheetSample

USUAL_CEILING = 0.7  # of marks, assumed where it is not known
LEVEL = 95.0  # % of the intervals

Array = numpy.ndarray


class Statistic(BaseModel, frozen=True):
    """How a score agrees with raters, by one measure."""

    value: float
    low: float  # of the 95 % interval
    high: float
    ceiling: float | None  # what a score that knew the raters' common opinion would reach; None: not known
    n: int  # replies, or pairs, that have both
    chance: float = 0.0  # the value of a score that tells nothing

    @property
    def verdict(self) -> str:
        """Returns "yes" where the interval is clear of chance and the value at least half way to the ceiling, "no"
        where the whole interval is less than half way, "cannot tell yet" otherwise."""
        if self.ceiling is None or self.ceiling <= self.chance:
            return UNKNOWN
        half = (self.chance + self.ceiling) / 2
        if self.high < half:
            return "no"
        return "yes" if self.low > self.chance and self.value >= half else UNKNOWN


UNKNOWN = "cannot tell yet"
MODELS_ONLY = "models only"


class Tracking(BaseModel, frozen=True):
    """How one score agrees with raters."""

    scales: dict[str, Statistic]  # Spearman's ρ with the mean mark, over the replies of both models
    within: (
        Statistic | None
    )  # the same with the marks for empathy, among the replies of one model: mean of both models'
    choices: Statistic | None  # share of the choices that the score agrees with
    verdict: str  # "yes", "no", UNKNOWN or MODELS_ONLY


class MetaEvaluation(BaseModel, frozen=True):
    """What raters say of every score."""

    scores: dict[str, Tracking]
    constant: list[str]  # scores that are the same for all these replies, so that nothing can be compared
    raters: int
    pairs: int  # that somebody has rated
    needed: int  # about how many it takes: see `needed_pairs`


class Resamples(NamedTuple):
    """How the rated rows are resampled: all statistics share the draws."""

    counts: Array  # how often each row is drawn, times its weight: (draws, rows)
    ranks: tuple[float, float]  # percentiles that bound an interval
    weights: Array  # of the rows, 1 without any: (rows,)

    def interval(self, drawn: Array) -> tuple[float, float]:
        """Returns the interval of a statistic from its draws (draws,), without those in which it is not defined."""
        low, high = numpy.nanpercentile(drawn, self.ranks)
        return float(low), float(high)


def resample_rows(groups: Sequence[str], draws: int, seed: int, weights: Array | None = None) -> Resamples:
    """Returns the draws of rows by their groups: the rows of one group are drawn together."""
    weights = numpy.ones(len(groups), int) if weights is None else weights
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    counts = draw_counts(len(places), draws, seed)[:, [places[group] for group in groups]]
    return Resamples(counts * weights, percentile_ranks(sum_by_group(weights.astype(float), groups), LEVEL), weights)


def score_by_reply(base: list[dict], tuned: list[dict], written: Mapping[str, Mapping[str, str]]) -> dict[str, Array]:
    """Returns every score's value for each reply, turned so that higher is better: by name (rows, 2), base and tuned;
    nan where it has none.

    `base` and `tuned` are rows as base.jsonl has them, `written` their lines of scores.csv by id: a score with columns
    there, base_NAME and tuned_NAME, is taken from it. Perplexity, bits per character and token accuracy are of the
    reference answer, as each model finds it.
    """
    sides = {}
    for side, rows in (("base", base), ("tuned", tuned)):
        likelihoods = [_read_likelihood(written.get(row["id"], {}), side) for row in rows]
        sums = score_sums(rows, likelihoods if all(likelihoods) else None)
        sides[side] = {name: values_by_row(name, own) for name, own in sums.items()}
        for name in BETTER:
            columns = [written.get(row["id"], {}).get(f"{side}_{name}") for row in rows]
            if rows and None not in columns:
                sides[side][name] = numpy.array([_number(text) for text in columns])
    names = [name for name in BETTER if name in sides["base"] and name in sides["tuned"]]
    return {name: turned(name, numpy.column_stack([sides["base"][name], sides["tuned"][name]])) for name in names}


def _read_likelihood(line: Mapping[str, str], side: str) -> dict[str, float]:
    """Returns a row of `score_sums`' likelihoods from a line of scores.csv; {} where it has none."""
    columns = {"nll": f"{side}_nll", "correct": f"{side}_correct", "tokens": "tokens", "characters": "characters"}
    if not all(line.get(column) for column in columns.values()):
        return {}
    return {name: float(line[column]) for name, column in columns.items()}


def _number(text: str | None) -> float:
    return float(text) if text else math.nan


def values_by_row(name: str, sums: Array) -> Array:
    """Returns a score of each row by itself, (rows,), from what is summed over rows, (rows, k)."""
    values = score_values(name, sums).astype(float)
    return values if name in ("chrf", "bleu") else numpy.where(sums[:, 1] == 0, math.nan, values)


def turned(name: str, values: Array) -> Array:
    """Returns a score's values turned so that higher is better."""
    if BETTER[name] == "near 1":
        return -abs(values - 1)
    return -values if BETTER[name] == "lower" else values


def draw_correlations(first: Array, second: Array, counts: Array, within: bool) -> Array:
    """Returns Spearman's ρ of values of replies (rows, 2) in each resampling of rows, (draws,), over the replies that
    have both; `within`: the mean of ρ among the base model's and among the tuned model's replies."""
    if within:
        sides = [draw_correlations(first[:, [side]], second[:, [side]], counts, within=False) for side in (0, 1)]
        return (sides[0] + sides[1]) / 2
    known = ~(numpy.isnan(first) | numpy.isnan(second))
    if known.sum() < 2:
        return numpy.full(len(counts), math.nan)
    repeated = numpy.repeat(counts, first.shape[1], axis=1)[:, known.ravel()]
    return draw_spearman(first[known], second[known], repeated)


def mark_ceiling(marks: Array, resamples: Resamples, within: bool = False) -> float | None:
    """Returns the correlation with the raters' mean mark of a score that knew exactly what they have in common.

    It is √R, with the reliability R = k·r / (1 + (k − 1)·r) of a mean of k raters (Spearman 1910, Brown 1910), r the
    mean of Spearman's ρ over all pairs of raters, k the mean number of marks of a reply: correlations with such a mean
    are lower than with the raters' common opinion by that factor (Spearman 1904, "The proof and measurement of
    association between two things"). `marks` are (raters, rows, 2), nan where not given. None for one rater, and where
    the raters' own agreement is not clear of 0.
    """
    drawn = []
    everything = numpy.vstack([resamples.weights[None], resamples.counts])
    for marked, other in itertools.combinations(marks, 2):
        if (~numpy.isnan(marked) & ~numpy.isnan(other)).sum() >= FEWEST_PAIRS:
            drawn.append(draw_correlations(marked, other, everything, within))
    if not drawn:
        return None
    agreement = numpy.mean(drawn, axis=0)
    if math.isnan(agreement[0]) or not resamples.interval(agreement[1:])[0] > 0:
        return None
    given = (~numpy.isnan(marks)).sum(axis=0)
    number, common = float(given[given > 0].mean()), float(agreement[0])
    return math.sqrt(number * common / (1 + (number - 1) * common))


def compare_marks(
    values: Array, means: Array, ceiling: float | None, resamples: Resamples, within: bool = False
) -> Statistic | None:
    """Returns Spearman's ρ of a score with the raters' mean marks, both (rows, 2); None where one is constant."""
    value = float(draw_correlations(values, means, resamples.weights[None], within)[0])
    if math.isnan(value):
        return None
    low, high = resamples.interval(draw_correlations(values, means, resamples.counts, within))
    number = int((~numpy.isnan(values + means)).sum())
    return Statistic(value=value, low=low, high=high, ceiling=ceiling, n=number)


def choice_ceiling(choices: Array, resamples: Resamples) -> float | None:
    """Returns the share of single choices that a score agrees with which knew the raters' common opinion.

    The signs of two normal variables with correlation r agree with chance 1/2 + asin(r) / π (Sheppard 1899). So the
    agreement of pairs of raters gives the correlation r of their opinions, √r that of one of them with the common one
    (as in `mark_ceiling`), and 1/2 + asin(√r) / π the share. `choices` are (raters, rows): 1 tuned, −1 base, nan for no
    difference or none. None where fewer than FEWEST_PAIRS have two choices, and where the raters' agreement is not
    clear of chance.
    """
    given = (~numpy.isnan(choices)).sum(axis=0)
    seen = given > 1
    if seen.sum() < FEWEST_PAIRS:
        return None
    totals = numpy.nansum(choices[:, seen], axis=0)
    products = (totals**2 - given[seen]) / (given[seen] * (given[seen] - 1))  # mean over pairs of raters, by row
    counts = resamples.counts[:, seen]
    totals = counts.sum(axis=1)
    drawn = (counts * products).sum(axis=1) / numpy.where(totals > 0, totals, 1)
    if not resamples.interval(drawn)[0] > 0:
        return None
    common = math.sin(math.pi / 2 * float(numpy.average(products, weights=resamples.weights[seen])))
    return 0.5 + math.asin(math.sqrt(common)) / math.pi


def compare_choices(
    values: Array, choices: Array, ceiling: float | None, groups: Sequence[str], weights: Array | None = None
) -> Statistic | None:
    """Returns the share of choices of one reply which the score makes too, where it is the same for both a half; mean
    over rows of the mean over raters, with an exact interval over groups. "No difference" is left out; None where
    nothing is left, and where the score is the same for both replies of every pair.

    `values` are (rows, 2), `choices` as for `choice_ceiling`, `weights` (rows,).
    """
    lead = numpy.sign(values[:, 1] - values[:, 0])
    known = ~numpy.isnan(choices).all(axis=0) & ~numpy.isnan(lead)
    if not lead[known].any():
        return None
    hits = (1 + lead[known] * numpy.nanmean(choices[:, known], axis=0)) / 2
    own_groups = [group for group, is_known in zip(groups, known) if is_known]
    own = None if weights is None else weights[known] / weights[known].mean()
    value, low, high = weighted_share(hits, own_groups, LEVEL, own)
    return Statistic(value=value, low=low, high=high, ceiling=ceiling, n=len(hits), chance=0.5)


def needed_pairs(ceiling: float | None) -> int:
    """Returns about how many rated pairs show a correlation of half the ceiling (USUAL_CEILING, where it is not known)
    to be above 0, with a power of 80 % at an interval of 95 %.

    From Fisher's z, whose variance is 1.06 / (n − 3) for Spearman's ρ (Fieller, Hartley and Pearson 1957); a pair has
    two replies.
    """
    spread = math.atanh(min((ceiling or USUAL_CEILING) / 2, 0.99))
    replies = 3 + 1.06 * ((1.96 + 0.84) / spread) ** 2
    return max(FEWEST_PAIRS, math.ceil(replies / 2))


class RaterTables(NamedTuple):
    """What raters gave to the rows that somebody has rated; nan where nothing was given."""

    ids: list[str]  # of the rows
    groups: list[str]  # of the rows
    marks: dict[str, Array]  # by scale: (raters, rows, 2), base and tuned
    choices: Array  # (raters, rows): 1 tuned, −1 base; nan for "no difference" too


def tabulate_ratings(
    ids: Iterable[str], marks: list[dict], choices: list[dict], groups: Mapping[str, str]
) -> RaterTables:
    """Returns ratings, as `read_ratings` has them, as tables over those of the rows `ids` that somebody has rated."""
    given = [*marks, *choices]
    rated, raters = {own["id"] for own in given}, sorted({own["rater"] for own in given})
    rows = [row for row in ids if row in rated]
    at = {row: place for place, row in enumerate(rows)}
    who = {rater: place for place, rater in enumerate(raters)}
    scales = dict.fromkeys(scale for own in marks for scale in own if scale in ALL_SCALES)
    tables = {scale: numpy.full((len(raters), len(rows), 2), math.nan) for scale in scales}
    for own in marks:
        for scale in scales:
            if scale in own and own["id"] in at:
                tables[scale][who[own["rater"]], at[own["id"]], int(own["side"] == "tuned")] = own[scale]
    chosen = numpy.full((len(raters), len(rows)), math.nan)
    for own in choices:
        if own["tuned"] != 0.5 and own["id"] in at:
            chosen[who[own["rater"]], at[own["id"]]] = 2 * own["tuned"] - 1
    return RaterTables(rows, [groups.get(row, row) for row in rows], tables, chosen)


def mean_marks(table: Array) -> Array:
    """Returns the raters' mean marks (rows, 2) of a table (raters, rows, 2); nan where nobody marked."""
    given = (~numpy.isnan(table)).sum(axis=0)
    return numpy.divide(numpy.nansum(table, axis=0), given, out=numpy.full(given.shape, math.nan), where=given > 0)


def mark_values(ids: Sequence[str], ratings: RaterTables) -> dict[str, Array]:
    """Returns a language model's mean marks for empathy as a score `judge` of its own: (rows, 2) of the rows `ids`,
    nan where it did not mark; {} where it marked none."""
    if "empathy" not in ratings.marks:
        return {}
    means = dict(zip(ratings.ids, mean_marks(ratings.marks["empathy"])))
    return {"judge": numpy.array([means.get(row, (math.nan, math.nan)) for row in ids])}


def evaluate_scores(
    values: Mapping[str, Array],
    ids: Sequence[str],
    ratings: RaterTables,
    draws: int,
    seed: int,
    sample: SheetSample | None = None,
) -> MetaEvaluation | None:
    """Holds scores against raters; None where nobody has rated any of the rows.

    `values` are as `score_by_reply` returns them, `ids` their rows, `sample` how those on the sheet were chosen.
    """
    if not ratings.ids:
        return None
    weights = sample.weights(ratings.ids) if sample else None
    resamples = resample_rows(ratings.groups, draws, seed, weights)
    means = {scale: mean_marks(table) for scale, table in ratings.marks.items()}
    ceilings = {scale: mark_ceiling(table, resamples) for scale, table in ratings.marks.items()}
    empathy = ratings.marks.get("empathy")
    inner = None if empathy is None else mark_ceiling(empathy, resamples, within=True)
    limit = choice_ceiling(ratings.choices, resamples)
    place_of = {row: place for place, row in enumerate(ids)}
    places = [place_of[row] for row in ratings.ids]

    def track(own: Array) -> Tracking:
        each = {scale: compare_marks(own, mean, ceilings[scale], resamples) for scale, mean in means.items()}
        scales = {scale: statistic for scale, statistic in each.items() if statistic}
        within = None if empathy is None else compare_marks(own, means["empathy"], inner, resamples, within=True)
        agreed = compare_choices(own, ratings.choices, limit, ratings.groups, weights)
        few = len(ratings.ids) < FEWEST_PAIRS
        verdict = UNKNOWN if few else overall_verdict(scales.get("empathy"), within, agreed)
        return Tracking(scales=scales, within=within, choices=agreed, verdict=verdict)

    scores = {name: track(own[places]) for name, own in values.items()}
    compared = {name: own for name, own in scores.items() if own.scales or own.choices}
    return MetaEvaluation(
        scores=compared,
        constant=[name for name in scores if name not in compared],
        raters=len(ratings.choices),
        pairs=len(ratings.ids),
        needed=needed_pairs(ceilings.get("empathy")),
    )


def overall_verdict(empathy: Statistic | None, within: Statistic | None, choices: Statistic | None) -> str:
    """Returns whether a score tracks raters: "yes" where the marks for empathy or the choices say so and neither says
    no, "no" the other way round, and UNKNOWN.

    MODELS_ONLY instead of "yes", where among the replies of one model the correlation is not clear of 0 and less than
    half its ceiling: such a score tells which model is better, not which reply.
    """
    verdicts = {statistic.verdict for statistic in (empathy, choices) if statistic}
    if "yes" not in verdicts or "no" in verdicts:
        return "no" if "no" in verdicts and "yes" not in verdicts else UNKNOWN
    unclear = within is not None and within.low <= 0 and within.value < (within.ceiling or USUAL_CEILING) / 2
    return MODELS_ONLY if unclear else "yes"
