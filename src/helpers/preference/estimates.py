"""Intervals of what is measured on held-out preferences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy

from helpers.evaluation.resampling import draw_counts, percentile_ranks, share_interval, sum_by_group

DRAWS = 2000
Fractions = list[tuple[int, numpy.ndarray, numpy.ndarray]]  # sign, and each row's numerator and denominator


def estimate_share(hits: numpy.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Returns `value`, `low` and `high` of the share of hits (rows,), each 0 to 1: see `share_interval`."""
    rows = numpy.stack([hits, numpy.ones(len(hits))], axis=1).astype(float)
    own = sum_by_group(rows, groups)
    low, high = share_interval(own[:, 0], own[:, 1], 95)
    return {"value": float(hits.mean()), "low": low, "high": high}


def estimate_fractions(fractions: Fractions, groups: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns `value` of a sum of fractions, each Σ numerator / Σ denominator over the rows, with `low` and `high` of
    its 95 % bootstrap interval over groups (see `percentile_ranks`); None where a fraction has no rows."""
    columns = [column for _, *both in fractions for column in both]
    sums = sum_by_group(numpy.stack(columns, axis=1).astype(float), groups)
    signs = numpy.array([sign for sign, *_ in fractions])

    def total(parts: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return (parts[..., ::2] / parts[..., 1::2]) @ signs

    drawn = total(draw_counts(len(sums), DRAWS, seed) @ sums)
    sizes = sum_by_group(numpy.ones(len(groups)), groups)
    drawn = drawn if numpy.isfinite(drawn).any() else numpy.full(1, math.nan)
    low, high = numpy.nanpercentile(drawn, percentile_ranks(sizes, 95))
    values = {"value": total(sums.sum(axis=0)), "low": low, "high": high}
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
