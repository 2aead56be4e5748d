"""Intervals and tests for scores that are sums over rows, where the rows of one group are not independent.

Near-duplicates and the turns of one dialogue are a group: what holds for one of them tends to hold for the others, so
that resampling rows one by one would promise more certainty than there is.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy

PERMUTATIONS = 2000
NORMAL_95 = 1.959964  # standard errors in half of a 95 % interval
SIGNIFICANT = 0.05  # chance of any false verdict among the scores that are corrected together
FEWEST_PAIRS = 10  # of replies that people have rated, below which nothing is called
POWER = 0.8  # with which the smallest effect that could have been shown would have been shown


def sum_by_group(sums: numpy.ndarray, groups: Sequence[str]) -> numpy.ndarray:
    """Returns the sums (rows, …) added up within each group: (groups, …), in the order of their first rows."""
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    added = numpy.zeros((len(places), *sums.shape[1:]))
    numpy.add.at(added, [places[group] for group in groups], sums)
    return added


def draw_counts(groups: int, draws: int, seed: int) -> numpy.ndarray:
    """Returns how often each group is drawn in each resampling of as many groups: (draws, groups)."""
    return numpy.random.default_rng(seed).multinomial(groups, numpy.full(groups, 1 / groups), size=draws)


def percentile_ranks(sizes: numpy.ndarray, level: float) -> tuple[float, float]:
    """Returns the percentiles of the bootstrap's draws that bound an interval of `level` %, for groups of these sizes.

    They lie further out for few groups, by Student's distribution and the bootstrap's too small variance: the expanded
    percentile interval (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", §4.3), with the degrees of
    freedom of as many groups of equal size (Carter, Schnepel and Steigerwald 2017).
    """
    from scipy.stats import norm, t

    tail, groups = (100 - level) / 200, len(sizes)
    if groups > 1:
        freedom = float(sizes.sum()) ** 2 / float((sizes**2).sum()) - 1
        tail = float(norm.cdf(math.sqrt(groups / (groups - 1)) * t.ppf(tail, max(freedom, 1.0))))
    return 100 * tail, 100 * (1 - tail)


def detectable_effect(low: float, high: float, groups: int, level: float) -> float | None:
    """Returns the smallest difference that so many groups would have shown with a power of POWER, from the interval of
    a difference, which is of `level` %; None for one group."""
    from scipy.stats import t

    if groups < 2:
        return None
    reach = float(t.ppf(0.5 + level / 200, groups - 1))
    return (high - low) / 2 * (1 + float(t.ppf(POWER, groups - 1)) / reach)


def permutation_p(
    difference: Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray],
    base: numpy.ndarray,
    tuned: numpy.ndarray,
    seed: int,
) -> float:
    """Returns the two-sided p-value of a paired difference: how often it is as large when base and tuned are swapped at
    random within each group.

    `base` and `tuned` are sums by group (groups, k); `difference` takes both models' sums over all groups, (draws, k)
    each, and returns the differences (draws,). The observed one counts as a draw (Phipson and Smyth 2010).
    """
    swaps = numpy.random.default_rng(seed).integers(0, 2, (PERMUTATIONS, len(base)))
    moved = swaps @ (tuned - base)
    observed = abs(difference(base.sum(axis=0)[None], tuned.sum(axis=0)[None])[0])
    if not math.isfinite(observed):
        return 1.0  # of what cannot be computed nothing is clear
    permuted = abs(difference(base.sum(axis=0) + moved, tuned.sum(axis=0) - moved))
    as_large = int((permuted >= observed - 1e-9 * max(1.0, observed)).sum())
    return (1 + as_large) / (1 + PERMUTATIONS)


def adjust_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values adjusted so that any of them is below α by chance in at most α of all cases (Holm 1979)."""
    adjusted, highest = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - place)))
        adjusted[name] = highest
    return adjusted


def weighted_interval(
    values: numpy.ndarray, weights: numpy.ndarray, draws: int, level: float, seed: int
) -> tuple[float, float]:
    """Returns the bootstrap interval of a weighted mean of rows (rows,): see `percentile_ranks`, for whose groups the
    rows stand with their weights."""
    if len(values) < 2:
        return float(values[0]), float(values[0])
    drawn = draw_counts(len(values), draws, seed) * weights
    low, high = numpy.percentile(drawn @ values / drawn.sum(axis=1), percentile_ranks(weights, level))
    return float(low), float(high)


def share_interval(
    hits: numpy.ndarray, rows: numpy.ndarray, level: float, weights: numpy.ndarray | None = None
) -> tuple[float, float]:
    """Returns the interval of a share, from its hits and rows by group (groups,).

    Clopper and Pearson's with the effective number of rows (Korn and Graubard 1998): 0 of 33 has an upper bound, and
    rows of one group count for less. Where rows have `weights` (rows,), of mean 1, hits and rows are sums of them: then
    they count for (Σw)²/Σw² at most (Kish 1965), and as many groups as would have equal weights.
    """
    from scipy.stats import beta, t

    groups, total = len(rows), float(rows.sum())
    most, freedom = total, groups - 1.0
    if weights is not None:
        most = float(weights.sum()) ** 2 / float((weights**2).sum())
        freedom = max(1.0, total**2 / float((rows**2).sum()) - 1)
    if groups < 2:
        return 0.0, 1.0
    share, tail = float(hits.sum()) / total, (100 - level) / 200
    variance = groups / (groups - 1) * float(((hits - share * rows) ** 2).sum()) / total**2
    effective = share * (1 - share) / variance if variance > 1e-12 else total
    if total > 1:
        effective *= float(t.ppf(tail, total - 1) / t.ppf(tail, freedom)) ** 2
    effective = min(effective, most)
    count = share * effective
    low = float(beta.ppf(tail, count, effective - count + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, count + 1, effective - count)) if share < 1 else 1.0
    return low, high


def weighted_share(
    hits: numpy.ndarray, groups: Sequence[str], level: float, weights: numpy.ndarray | None = None
) -> tuple[float, float, float]:
    """Returns a share, the mean of hits by row (rows,), with its interval over groups: see `share_interval`."""
    each = numpy.ones(len(hits)) if weights is None else weights
    sums = sum_by_group(numpy.column_stack([hits * each, each]), groups)
    value = float(hits.mean() if weights is None else numpy.average(hits, weights=weights))
    return value, *share_interval(sums[:, 0], sums[:, 1], level, weights)


def share_difference(
    base: tuple[float, float, float], tuned: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Returns the interval of tuned − base of two shares of the same rows, each given as value, low and high.

    Newcombe's square-and-add (1998, method 10, paired by the rows' correlation): 0 of 33 against 0 of 33 is not certain
    to be no difference.
    """
    (p, p_low, p_high), (q, q_low, q_high) = base, tuned

    def width(above: float, below: float) -> float:
        return math.sqrt(max(0.0, above**2 - 2 * correlation * above * below + below**2))

    return q - p - width(q - q_low, p_high - p), q - p + width(q_high - q, p - p_low)


def row_correlation(base: numpy.ndarray, tuned: numpy.ndarray) -> float:
    """Returns the correlation (φ) of two rows of zeros and ones; 0 where one of them is constant."""
    if base.std() == 0 or tuned.std() == 0:
        return 0.0
    return float(numpy.corrcoef(base, tuned)[0, 1])
