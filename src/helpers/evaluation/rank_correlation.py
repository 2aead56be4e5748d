"""Spearman's rank correlation in every resampling of a bootstrap at once."""

import math

import numpy


def draw_ranks(values: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """Returns the ranks of values (n,) in each resampling, ties sharing their mean rank: (draws, n).

    `counts` (draws, n) says how often each value is drawn, or what it weighs then.
    """
    order = numpy.argsort(values, kind="stable")
    _, first, sizes = numpy.unique(values[order], return_index=True, return_counts=True)
    drawn = numpy.cumsum(counts[:, order], axis=1)
    upto = drawn[:, first + sizes - 1]  # (draws, different values)
    below = numpy.column_stack([numpy.zeros(len(counts)), upto[:, :-1]])
    ranks = numpy.empty((len(counts), len(values)))
    ranks[:, order] = numpy.repeat((below + upto + 1) / 2, sizes, axis=1)
    return ranks


def draw_spearman(first: numpy.ndarray, second: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """Returns Spearman's ρ of two lists of values (n,) in each resampling, (draws,); nan where one is constant."""
    totals = counts.sum(axis=1, keepdims=True)
    centred = []
    for values in (first, second):
        ranks = draw_ranks(values, counts)
        centred.append(ranks - (counts * ranks).sum(axis=1, keepdims=True) / numpy.where(totals > 0, totals, 1))
    covariance = (counts * centred[0] * centred[1]).sum(axis=1)
    variances = [(counts * own**2).sum(axis=1) for own in centred]
    spread = numpy.sqrt(variances[0] * variances[1])
    return numpy.divide(covariance, spread, out=numpy.full(len(counts), math.nan), where=spread > 1e-9)
