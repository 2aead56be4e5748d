"""The table builder: rows of text from a spec of columns, and what stands for a value that is not there."""

import pytest

from helpers.evaluation.comparison import Comparison, Score
from helpers.reporting.tables import (
    build_facts,
    build_table,
    differing_settings,
    list_values,
    score_verdict,
)


def test_a_cell_is_its_template_filled_in():
    rows = build_table({"loss": "{loss:.2f}", "who": "{run[name]}"}, [{"loss": 1.234, "run": {"name": "a"}}])
    assert rows == [{"loss": "1.23", "who": "a"}]


@pytest.mark.parametrize("row", [{}, {"loss": None}, {"loss": "–"}])
def test_a_value_that_is_not_there_reads_as_a_dash(row):
    assert build_table({"loss": "{loss:.2f}"}, [row]) == [{"loss": "–"}]


def test_facts_have_a_column_per_run():
    first = build_facts("trainings", {"a": {"train_loss": 2.0}, "b": {"train_loss": None}})[0]
    assert first == {"what": "training loss", "a": "2.0000", "b": "not measured"}


def test_values_are_listed_without_the_lists_inside_them():
    values = {"hours": 0.0425068, "tokens": {"mean": 186.279, "quantiles": [1, 2]}, "peak": None, "dropped": {}}
    shown = {row["what"]: row["value"] for row in list_values(values)}
    assert shown == {"hours": "0.042507", "tokens": "mean 186.28", "peak": "not measured", "dropped": "none"}


def test_settings_are_compared_key_by_key():
    first = {"train": {"lr": 1, "sft": {"optim": "sgd", "seed": 1}, "outputs": "a"}}
    other = {"train": {"lr": 1, "sft": {"optim": "adam", "seed": 1}, "outputs": "b"}, "tune": {"eta": 3}}
    assert differing_settings({"a": first, "b": other}, skipped=("outputs",)) == [
        {"setting": "train.sft.optim", "a": "sgd", "b": "adam"},
        {"setting": "tune.eta", "a": "–", "b": "3"},
    ]


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (-1, 1, "higher", "no clear difference"),
        (1, 2, "higher", "better"),
        (1, 2, "lower", "worse"),
        (-2, -1, "lower", "better"),
        (1, 2, "near 1", "–"),
    ],
)
def test_a_difference_has_a_verdict(low, high, better, verdict):
    delta = Score(value=(low + high) / 2, low=low, high=high, floor=None, better=better, n=9)
    assert delta.change == verdict


@pytest.mark.parametrize(("chrf", "expected"), [(0.001, "better"), (0.4, "exploratory")])
def test_an_exploratory_score_waits_for_the_primary_ones(chrf, expected):
    def score(name, value, p=None):
        better = "lower" if name in ("bits_per_char", "unsafe") else "higher"
        return {"value": value, "low": value - 1, "high": value + 1, "floor": None, "better": better, "n": 9, "p": p}

    p_values = {"bits_per_char": 0.01, "chrf": chrf, "rougeL": max(0.01, chrf), "unsafe": 0.01}
    sides = {side: {name: score(name, 5.0) for name in p_values} for side in ("base", "tuned")}
    scores = Comparison(**sides, delta={name: score(name, 3.0, p) for name, p in p_values.items()})
    assert score_verdict(scores, "rougeL") == expected
    assert score_verdict(scores, "unsafe") == "worse", "safety waits for nothing"
    assert score_verdict(scores, "bits_per_char") == "worse"
