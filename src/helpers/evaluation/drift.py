"""How far the preferred model has moved from the tuned one: the length of its replies, and the divergence.

The Kullback-Leibler divergence KL(preferred ‖ tuned) is the mean of log p_preferred(y) − log p_tuned(y) over texts y
that the preferred model writes (the estimator k1 of Schulman 2020, "Approximating KL Divergence"; per reply and per
token). It is unbiased for replies that are sampled at temperature 1; greedy replies are the likeliest ones, and give
the mean over those. Over the reference answers, which neither model wrote, the same mean is no divergence: it says
whether they have become likelier.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from pydantic import BaseModel

from helpers.evaluation.resampling import draw_counts, percentile_ranks, sum_by_group


class Estimate(BaseModel, frozen=True):
    """A number with its 95 % interval, of the bootstrap over groups of rows."""

    value: float
    low: float
    high: float
    n: int  # rows


class LengthDrift(BaseModel, frozen=True):
    """The mean length of both models' replies, and the relative change: 0.1 is a tenth longer."""

    tuned: float
    preferred: float
    change: Estimate


class Divergence(BaseModel, frozen=True):
    """Log-likelihoods of the same texts, preferred − tuned, in nats."""

    per_text: Estimate
    per_token: Estimate


class Drift(BaseModel, frozen=True):
    """How the preferred model differs from the tuned one, as it is written to metrics.json."""

    characters: LengthDrift  # of a reply
    tokens: LengthDrift
    replies: Divergence  # over the preferred model's own replies: KL(preferred ‖ tuned)
    references: Divergence  # over the reference answers of the held-out rows


def measure_drift(
    replies: dict[str, list[dict]],
    own: dict[str, list[dict]],
    references: dict[str, list[dict]],
    groups: Sequence[str],
    draws: int,
    seed: int,
) -> Drift | None:
    """Returns the drift over held-out rows, None without replies; each dict has an entry per row for "tuned" and for
    "preferred".

    `own` are both models' likelihoods of the preferred model's replies, `references` those of the reference answers, as
    `score_likelihood` returns them.
    """
    if not replies["preferred"] or not own["preferred"]:
        return None
    resample = _resampler(groups, draws, seed)

    def length(measure: Callable[[dict], float]) -> LengthDrift:
        pairs = zip(replies["tuned"], replies["preferred"], strict=True)
        sums = numpy.array([[measure(tuned), measure(preferred)] for tuned, preferred in pairs], float)
        means = sums.mean(axis=0)
        change = resample(sums[:, 1] - sums[:, 0], sums[:, 0])
        return LengthDrift(tuned=float(means[0]), preferred=float(means[1]), change=change)

    def divergence(likelihoods: dict[str, list[dict]]) -> Divergence:
        pairs = zip(likelihoods["tuned"], likelihoods["preferred"], strict=True)
        ratios = numpy.array([tuned["nll"] - preferred["nll"] for tuned, preferred in pairs])
        tokens = numpy.array([row["tokens"] for row in likelihoods["preferred"]], float)
        return Divergence(per_text=resample(ratios, numpy.ones(len(ratios))), per_token=resample(ratios, tokens))

    lengths = {"characters": length(lambda row: len(row["reply"])), "tokens": length(lambda row: row["new_tokens"])}
    return Drift(**lengths, replies=divergence(own), references=divergence(references))


def _resampler(groups: Sequence[str], draws: int, seed: int) -> Callable[[Any, Any], Estimate]:
    """Returns a function that gives the ratio of two sums over rows, with the interval of the same draws each time."""
    counts = draw_counts(len(set(groups)), draws, seed)
    ranks = percentile_ranks(sum_by_group(numpy.ones(len(groups)), groups), 95.0)

    def estimate(top: numpy.ndarray, bottom: numpy.ndarray) -> Estimate:
        sums = sum_by_group(numpy.column_stack([top, bottom]), groups)
        drawn = counts @ sums  # (draws, 2)
        low, high = numpy.percentile(_ratio(drawn[:, 0], drawn[:, 1]), ranks)
        value = float(_ratio(*sums.sum(axis=0)[:, None])[0])
        return Estimate(value=value, low=float(low), high=float(high), n=len(top))

    return estimate


def _ratio(top: numpy.ndarray, bottom: numpy.ndarray) -> numpy.ndarray:
    return numpy.divide(top, bottom, out=numpy.zeros(len(top)), where=bottom != 0)
