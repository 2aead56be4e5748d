"""The lengths of a data set's rows in tokens: of the run's own data, or as published."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from helpers.models.families import find_rate
from helpers.runs.damage import reading
from helpers.runs.files import load_yaml
from helpers.runs.record import Run

CORPORA = load_yaml(Path(__file__).with_name("corpora.yaml"))


class PlannedRows(NamedTuple):
    """The rows that a plan is made for."""

    train: list[int]  # their tokens, in random order
    val: int
    test: int
    source: str  # where the lengths are from


def spread_lengths(quantiles: list[tuple[float, float]], number: int) -> list[int]:
    """Returns `number` lengths with these quantiles, [(share of rows, tokens)], log-linear in between, ascending."""
    shares, tokens = zip(*quantiles, strict=True)
    places = (numpy.arange(number) + 0.5) / number
    return numpy.exp(numpy.interp(places, shares, numpy.log(tokens))).round().astype(int).tolist()


def find_corpus(dataset: str) -> dict[str, Any]:
    """Returns what is known about a data set. Raises ValueError when nothing is."""
    known = next((corpus for corpus in CORPORA if re.search(corpus["name"], dataset, re.IGNORECASE)), None)
    if known is None:
        raise ValueError(f"nothing is known about {dataset!r} yet: run stage prepare_data first.")
    return known


def scale_lengths(dataset: str, rate: float, rate_from: str = "") -> tuple[list[int], str]:
    """Returns the known lengths of a data set's rows by a tokenizer with so many tokens per character of Bengali, and
    where they are from; 0: by the tokenizer that they are known in. `rate_from` says where a rate that was not measured
    is from. Raises ValueError where nothing is known."""
    known = find_corpus(dataset)
    lengths, source = spread_lengths(known["quantiles"], known["rows"]), known["source"]
    known_rate, template = known.get("tokens_per_character", 0), known.get("template", 0)
    if not known_rate:
        return lengths, f"{source}, the same for every tokenizer"
    if not rate or rate == known_rate:
        return lengths, source
    share = rate / known_rate
    scaled = [round(template + max(0, length - template) * share) for length in lengths]
    return scaled, f"{source}, at {known_rate} tokens per character; {describe_scale(rate, rate_from)}"


def describe_scale(rate: float, rate_from: str) -> str:
    """Returns in words that tokens were scaled by a model's own rate: see `scale_lengths`."""
    return f"scaled by this model's, {f'{rate:g}: {rate_from}' if rate_from else 'on the embedded corpus'}"


def row_lengths(data: dict[str, Any], run: Run) -> tuple[list[int], str]:
    """Returns the tokens of every row of the data set, ascending, and where they are from: the run's own data, else
    what is known about the data set, for the tokenizer of a base model of a known name. `data` are the settings of
    prepare_data. Raises ValueError when nothing is known, and Refused for a damaged file.
    """
    if run.has_metrics("prepare_data"):
        with reading(run / "data" / "metrics.json"):
            metrics = run.metrics("prepare_data")
            if metrics["dataset"] == data["dataset"]:
                lengths = spread_lengths(metrics["tokens"]["quantiles"], metrics["rows_out"])
                return lengths, str(run / "data" / "metrics.json")
    lengths, source = scale_lengths(data["dataset"], *find_rate(data["base_model"]))
    return keep_lengths(lengths, data), source


def keep_lengths(lengths: list[int], data: dict[str, Any]) -> list[int]:
    """Returns those of ascending lengths that the settings of prepare_data keep: no longer than max_length, at most
    max_rows of them."""
    lengths = [tokens for tokens in lengths if tokens <= data["max_length"]]
    if data["max_rows"] and data["max_rows"] < len(lengths):
        lengths = [lengths[place * len(lengths) // data["max_rows"]] for place in range(data["max_rows"])]
    return lengths
