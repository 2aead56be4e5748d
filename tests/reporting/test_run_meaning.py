"""Similarity of meaning and public benchmarks on the page, in the comparison, and in runs without them."""

import functools
import shutil

import numpy
import pytest
from page_text import PageText, unknown_numbers

from helpers.evaluation.comparison import Comparison, Score, compare_models
from helpers.evaluation.metrics import AIMS
from helpers.language.rubric import VERSION
from helpers.reporting.comparison import shared_scores, write_comparison
from helpers.reporting.figures_scores import directed_scores
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.tables import benchmark_rows, score_verdict
from helpers.reporting.words import LANGUAGES, Words
from helpers.runs.files import write_json
from helpers.runs.record import Run

SCORES = ("similarity_reference", "similarity_question")
FACTS = {"encoder": "owner/small", "pooling": "mean", "device": "cpu", "max_tokens": 512, "texts": 1200, "cut": 7}
ROW = {"task": "belebele_ben_Beng", "metric": "acc", "better": "higher", "n": 900, "shots": 3, "version": 0.0}
ROW |= {"lm_eval": "0.4.13", "base": 0.3011, "tuned": 0.2722, "delta": -0.0289}
ROW |= {"base_stderr": 0.0153, "tuned_stderr": 0.0149, "delta_stderr": 0.0214}
BENCHMARKS = {"limit": 900, "tasks": [ROW], "skipped": [{"task": "xcopa_bn", "why": "KeyError: not registered"}]}


@pytest.fixture(scope="module")
def similarities():
    """Returns the comparison of two models whose similarities differ by far, each with its floor."""
    rng = numpy.random.default_rng(0)
    values = {side: rng.normal(mean, 0.02, (40, 2)) for side, mean in (("base", 0.5), ("tuned", 0.8))}
    sums = {
        side: dict(zip(SCORES, (numpy.column_stack([v, numpy.ones(40)]) for v in own.T)))
        for side, own in values.items()
    }
    pools = {name: numpy.stack([rng.normal(0.3, 0.02, (40, 5)), numpy.ones((40, 5))], axis=-1) for name in SCORES}
    return compare_models(**sums, floors={"base": pools, "tuned": pools}, draws=100, seed=0)


def measure(run, similarities):
    """Writes an evaluation with both into a run, and returns that."""
    metrics = run.metrics("evaluate")
    for side, own in similarities.model_dump().items():
        metrics[side] |= own
    write_json(run / "evaluate/metrics.json", metrics | {"meaning": FACTS, "benchmarks": BENCHMARKS})
    return run


@pytest.fixture
def measured(run, similarities):
    return measure(run, similarities)


def read_page(run, language="en"):
    write_report(run, 2, language)
    return PageText(run / "report/index.html")


@pytest.fixture(scope="module")
def measured_page(copied, similarities, tmp_path_factory):
    """Returns a function that gives such a run's folder and its page in a language, written once."""

    @functools.cache
    def call(language):
        run = measure(copied(tmp_path_factory.mktemp(language)), similarities)
        return run.folder, read_page(run, language)

    return call


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_what_both_scores_measure(measured_page, language):
    (_, page), words = measured_page(language), Words(language)
    for label in ("similarity to the reference", "similarity to the question"):
        assert words.name(label) in page.text
    assert words.say("page.meaning", **FACTS) in page.text
    assert words.of("aim", "neither") in page.text


def test_the_page_says_what_the_similarity_does_not_mean(measured_page):
    text = measured_page("en")[1].text
    assert "It measures the topic rather than empathy, and a reply that copies the question scores high" in text
    assert "Of 1,200 different texts 7 were cut at 512 tokens." in text
    assert "neither higher nor lower is better" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_of_them_is_in_a_file(measured_page, language):
    folder, page = measured_page(language)
    assert unknown_numbers(page, folder) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_what_makes_a_benchmark_comparable(measured_page, language):
    (_, page), words = measured_page(language), Words(language)
    assert words.say("page.benchmarks_about", version="0.4.13") in page.text
    assert words.say("page.benchmarks_limit", limit=900) in page.text
    assert words.cell("tuned − base", "-0.0289", True) in page.text
    assert "belebele_ben_Beng" in page.text
    assert "xcopa_bn: KeyError: not registered." in page.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_why_both_were_skipped(run, language):
    facts = {"encoder": "owner/gated", "skipped": "GatedRepoError: 403"}
    skipped = {"limit": 0, "tasks": [], "skipped": BENCHMARKS["skipped"]}
    write_json(run / "evaluate/metrics.json", run.metrics("evaluate") | {"meaning": facts, "benchmarks": skipped})
    page, words = read_page(run, language), Words(language)
    assert words.say("page.meaning_skipped", **facts) in page.text
    assert f"{words.say('page.benchmarks_skipped')} xcopa_bn: KeyError: not registered." in page.text


def test_a_run_without_them_says_nothing_of_them(run):
    metrics = run.metrics("evaluate")
    without = {name: value for name, value in metrics.items() if name not in ("meaning", "benchmarks")}
    write_json(run / "evaluate/metrics.json", without)
    text = read_page(run).text
    assert "Similarity of meaning" not in text
    assert "Public benchmarks" not in text
    assert benchmark_rows({}) == []


def test_a_score_without_direction_is_neither_better_nor_worse(similarities):
    assert score_verdict(similarities, "similarity_reference") == "better"
    assert score_verdict(similarities, "similarity_question") == "–"
    assert directed_scores(similarities) == ["similarity_reference"]


def test_a_similarity_at_its_floor_is_not_better(similarities):
    floor = {"floor": 0.9, "floor_spread": 0.01}
    tuned = similarities.tuned | {SCORES[0]: similarities.tuned[SCORES[0]].model_copy(update=floor)}
    assert score_verdict(similarities.model_copy(update={"tuned": tuned}), SCORES[0]) == "at the floor"


def test_a_similarity_waits_for_the_primary_scores(similarities):
    """It is exploratory: as long as chrF++ shows nothing, it gets no verdict."""
    score = Score(value=0.1, low=-1, high=1, floor=None, better="higher", n=40, p=0.8)
    sides = {side: getattr(similarities, side) | {"chrf": score} for side in ("base", "tuned", "delta")}
    assert {score_verdict(Comparison(**sides), name) for name in SCORES} == {"exploratory"}


def test_every_direction_has_words():
    for language in LANGUAGES:
        assert {Words(language).of("aim", aim) for aim in set(AIMS.values())}.isdisjoint({"neither"})


def test_similarities_of_two_encoders_are_not_set_side_by_side(measured):
    other = Run(measured.outputs / "other")
    shutil.copytree(measured, other)
    same = shared_scores([read_results(measured), read_results(other)])
    assert all({*SCORES} <= {*own} for own in same)
    write_json(other / "evaluate/metrics.json", other.metrics("evaluate") | {"meaning": FACTS | {"encoder": "x/y"}})
    apart = shared_scores([read_results(measured), read_results(other)])
    assert all({*SCORES}.isdisjoint(own) for own in apart)
    page = PageText(write_comparison([measured, other], measured.outputs / "comparison.html", "en"))
    assert "similarity to the reference" not in page.text


def test_unsafe_shares_of_two_rubrics_stand_apart(measured):
    other = Run(measured.outputs / "other")
    shutil.copytree(measured, other)
    for version, shown in ((VERSION, True), (VERSION - 1, False)):
        for run, own in ((measured, VERSION), (other, version)):
            write_json(run / "evaluate/metrics.json", run.metrics("evaluate") | {"rubric_version": own})
        scores = shared_scores([read_results(measured), read_results(other)])
        assert all(("unsafe" in own) == shown for own in scores)
        assert all("graded" in own for own in scores)
