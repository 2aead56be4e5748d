"""The model card is made of the run's own files."""

import pytest
import yaml

from helpers.evaluation.comparison import Comparison
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.tables import score_rows
from helpers.reporting.words import Words
from helpers.sharing.card import model_card


@pytest.fixture(scope="module")
def card(run):
    return model_card(run)


@pytest.fixture(scope="module")
def scores(run):
    return Comparison(**run.metrics("evaluate"))


def test_the_front_matter_names_no_base_that_is_not_on_the_hub(card):
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "peft"
    assert head["language"] == ["bn"]
    assert "base_model" not in head


def test_the_card_has_the_scores_with_their_intervals(card, scores):
    for row in score_rows(scores):
        assert row["95 % interval"] in card
        assert row["verdict"] in card


def test_the_card_has_the_summary_of_the_report(card, run):
    summary = summarise_run(read_results(run), Words())
    for sentence in (summary.verdict, summary.warning, *summary.sentences):
        assert sentence in card


def test_the_card_names_its_limits(card):
    assert "no therapist" in card
    assert "the pipeline, not the quality" in card


def test_a_card_without_evaluation_says_not_measured(run):
    (run / "evaluate/metrics.json").rename(run / "evaluate/away.json")
    try:
        assert "## Scores\n\nNot measured." in model_card(run)
    finally:
        (run / "evaluate/away.json").rename(run / "evaluate/metrics.json")
