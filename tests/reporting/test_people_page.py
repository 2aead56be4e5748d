"""What the page says of people's ratings: choices, who is left out, and which scores to trust."""

import shutil

import numpy
import pandas
import pytest
from in_browser import check_in_browser

from helpers.evaluation.meta_evaluation import MODELS_ONLY, UNKNOWN
from helpers.evaluation.metrics import chrf
from helpers.evaluation.resampling import FEWEST_PAIRS
from helpers.evaluation.sheet import SCALES, attention_checks, blind_pair, tuned_is_first, write_sheet
from helpers.evaluation.sheet_rows import choose_rows, write_sample
from helpers.platforms.errors import Refused
from helpers.reporting.people import criterion_rows, describe_ratings, describe_trust, rating_facts, trust_rows
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.words import Words
from helpers.runs.files import read_jsonl, write_csv, write_json, write_jsonl
from helpers.runs.record import Run

ENGLISH = Words()


def copy_run(demo, folder):
    """Returns a copy of the demo's run, without its weights, whose sheet nobody has filled in yet."""
    weights = ("checkpoints", "adapter", "model")
    shutil.copytree(demo.run, folder / "demo", ignore=lambda _, names: [name for name in names if name in weights])
    run = Run(folder / "demo")
    shutil.rmtree(run / "evaluate/ratings", ignore_errors=True)
    seed, both = run.metrics("evaluate")["seed"], (read_jsonl(run / f"evaluate/{side}.jsonl") for side in SIDES)
    write_sheet(run / "evaluate", [blind_pair(base, tuned, seed) for base, tuned in zip(*both)], seed)
    return run


SIDES = ("base", "tuned")


@pytest.fixture
def run(demo, tmp_path):
    """Returns a run that nobody has rated."""
    return copy_run(demo, tmp_path)


def felt_quality(run):
    """Returns {(row id, side): what people feel}: the rank of a reply's chrF++, −1 to 1."""
    replies = {side: read_jsonl(run / f"evaluate/{side}.jsonl") for side in SIDES}
    keys = [(row["id"], side) for side, rows in replies.items() for row in rows]
    scores = [chrf(row["reply"], row["reference"]) for rows in replies.values() for row in rows]
    return dict(zip(keys, 2 * numpy.argsort(numpy.argsort(scores)) / len(scores) - 1))


def rate(run, rater, failed=0, rows=None, error=0.3):
    """Writes the file of a rater who feels as `felt_quality` does, with an error, and fails so many checks."""
    seed, quality = run.metrics("evaluate")["seed"], felt_quality(run)
    checks = attention_checks(seed)
    answers = {
        check.pair["id"]: (check.answer + (place < failed)) % 3 for place, check in enumerate(checks)
    }  # the next choice is a wrong one
    rng = numpy.random.default_rng(len(rater))
    sheet = pandas.read_csv(run / "evaluate/human_eval.csv", dtype=str, keep_default_na=False)
    for place, row in sheet.iterrows():
        if row["id"] in answers:
            sheet.loc[place, "choice"] = str(answers[row["id"]])
            continue
        sides = ("tuned", "base") if tuned_is_first(row["id"], seed) else ("base", "tuned")
        felt = [quality[row["id"], side] + error * rng.normal() for side in sides]
        sheet.loc[place, "choice"] = "1" if felt[0] > felt[1] else "2"
        for reply, own in enumerate(felt, start=1):
            for scale in SCALES:
                sheet.loc[place, f"{scale}_{reply}"] = str(int(numpy.clip(round(3 + 2 * own), 1, 5)))
    write_csv(run / f"evaluate/ratings/{rater}.csv", sheet[: rows and rows + len(checks)])


@pytest.fixture(scope="module")
def judged(demo, tmp_path_factory):
    """Returns a run that two people have rated, a third who failed every attention check, and a language model that
    marks nearly as people feel."""
    run = copy_run(demo, tmp_path_factory.mktemp("judged"))
    rate(run, "শালিক")
    rate(run, "দোয়েল ২", failed=1)
    rate(run, "তাড়া", failed=3)
    rng, rows = numpy.random.default_rng(7), []
    for (row_id, side), own in felt_quality(run).items():
        for order in (1, 2):
            mark = int(numpy.clip(round(3 + 2 * own + 0.3 * rng.normal()), 1, 5))
            rows.append({"rater": "m", "id": row_id, "order": order, "side": side, **dict.fromkeys(SCALES, mark)})
    write_jsonl(run / "evaluate/judge.jsonl", rows)
    summary = {"raters": ["m"], "pairs": 34, "scales": {}, "unread": 0, "same_in_both_orders": 1.0}
    write_json(run / "evaluate/metrics.json", run.metrics("evaluate") | {"judge": summary})
    return run


@pytest.fixture(scope="module")
def results(judged):
    return read_results(judged)


@pytest.fixture(scope="module")
def people(results):
    return results.meta_evaluations["people"]


@pytest.fixture(scope="module")
def pages(judged):
    """Returns the page's file by language, and what the report's metrics say."""
    files = {}
    for language in ("bn", "en"):
        facts = write_report(judged, 2, language)
        files[language] = judged / f"report/{language}.html"
        shutil.copy(judged / "report/index.html", files[language])
    return files, facts


@pytest.fixture(scope="module")
def page(pages):
    return pages[0]["en"].read_text("utf-8")


def test_the_page_says_which_reply_people_chose(page, results):
    choices = results.ratings["choices"]
    assert choices["tuned"] + choices["base"] == 2 * choices["pairs"]
    assert f"{choices['tuned']} times the tuned reply, {choices['base']} times the base one, 0 times no" in page


def test_a_rater_who_is_left_out_is_named_on_the_page(page):
    assert "তাড়া failed 3 of 3 attention checks and is left out" in page
    assert "2 raters" in page


def test_a_rater_who_failed_one_check_is_named_on_the_page(page):
    assert "দোয়েল ২ failed 1 of 3 attention checks: the ratings count" in page


def test_a_page_whose_raters_are_all_left_out_says_so(run):
    rate(run, "তাড়া", failed=2)
    write_report(run, 2)
    page = (run / "report/index.html").read_text("utf-8")
    assert "তাড়া failed 2 of 3 attention checks and is left out" in page
    assert "No person has rated these replies" in page
    assert "Which scores to trust" not in page


def test_the_score_that_people_feel_is_to_be_trusted(people, page):
    assert people.scores["chrf"].verdict == "yes"
    assert "Deserve trust: " in page
    assert "chrF++" in page.partition("Deserve trust: ")[2].partition("</li>")[0]


def test_the_closest_score_stands_first(people):
    rows = trust_rows(people)
    yes = [float(row["ρ with empathy"]) for row in rows if row["tracks people"] == "yes"]
    assert len(yes) > 1
    assert yes == sorted(yes, reverse=True)
    assert rows[0]["tracks people"] == "yes"


def test_scores_are_held_against_every_criterion(people):
    assert list(criterion_rows(people)[0]) == ["score", *(scale for scale in SCALES if scale != "empathy")]


def test_a_score_that_never_changes_is_named_on_the_page(people, page):
    assert people.constant
    assert "The same for every reply, so there is nothing to compare: " in page


def test_few_pairs_call_for_more(run):
    for rater in ("ক", "খখ"):
        rate(run, rater, rows=4)
    people = read_results(run).meta_evaluations["people"]
    assert {score.verdict for score in people.scores.values()} == {UNKNOWN}
    assert f"with fewer than {FEWEST_PAIRS} nothing is called" in describe_trust(people, ENGLISH)[-1]


def test_one_rater_is_asked_for_a_second(run):
    rate(run, "ক")
    assert "it takes a second one" in " ".join(describe_trust(read_results(run).meta_evaluations["people"], ENGLISH))


def test_choices_alone_are_held_against_scores(run):
    for rater in ("ক", "খখ"):
        rate(run, rater)
        file = run / f"evaluate/ratings/{rater}.csv"
        write_csv(file, pandas.read_csv(file, dtype=str, keep_default_na=False)[["id", "choice"]])
    results = read_results(run)
    assert results.ratings["raters"] == ["ক", "খখ"]
    assert results.meta_evaluations["people"].scores["chrf"].verdict == "yes"
    assert "ρ" not in "".join(criterion_rows(results.meta_evaluations["people"])[0])


def test_every_verdict_has_its_sentence(people):
    scores = dict(list(people.scores.items())[:4])
    verdicts = dict(zip(scores, ("yes", MODELS_ONLY, UNKNOWN, "no")))
    changed = {name: score.model_copy(update={"verdict": verdicts[name]}) for name, score in scores.items()}
    sentences = describe_trust(people.model_copy(update={"scores": changed, "constant": []}), Words("bn"))
    assert len(set(sentences)) == 5, "one for each verdict, and how many pairs it takes"


def test_the_reports_metrics_keep_what_scores_are_worth(pages):
    facts = pages[1]["people"]
    assert facts["tracks"]["chrf"] == "yes"
    assert facts["raters"] == 2


def test_a_run_that_nobody_rated_says_nothing_of_trust(run):
    results = read_results(run)
    assert rating_facts(results) == {}
    nothing = {"choices": "", "sample": "", "attention": [], "trust": []}
    assert describe_ratings(results, ENGLISH)["people"] == nothing


def test_the_page_says_how_the_rows_were_chosen(run):
    seed, both = run.metrics("evaluate")["seed"], [read_jsonl(run / f"evaluate/{side}.jsonl") for side in SIDES]
    rows = {base["id"]: (base, tuned) for base, tuned in zip(*both)}
    sample = choose_rows([*rows], {"chrf": numpy.arange(float(len(rows)))}, 10, "active", seed)
    write_sheet(run / "evaluate", [blind_pair(*rows[row], seed) for row in sample.strata], seed)
    write_sample(run / "evaluate", sample)
    rate(run, "a")
    results = read_results(run)
    assert results.ratings["choices"]["pairs"] == 10
    assert results.meta_evaluations["people"].pairs == 10
    for words, number in ((ENGLISH, str(len(rows))), (Words("bn"), Words("bn").number(len(rows), 0))):
        assert f" {number}" in describe_ratings(results, words)["people"]["sample"]


def test_a_language_models_mark_is_held_against_people(people, page):
    assert people.scores["judge"].verdict == "yes"
    assert "language model&#39;s mark for empathy" in page


def test_scores_against_a_language_model_are_marked_as_such(page):
    part = page.partition("A language model as judge</h2>")[2].partition("<h2>")[0]
    assert "this says nothing of people" in part
    assert "tracks this judge" in part
    assert "Track this judge: " in part
    assert "tracks people" not in part
    assert "Deserve trust" not in part


def test_a_damaged_file_of_the_judge_names_its_field(run):
    row = {"rater": "m", "id": "x", "order": 1, "side": "tuned", "empathy": "five"}
    write_jsonl(run / "evaluate/judge.jsonl", [row])
    with pytest.raises(Refused, match=r"judge\.jsonl: empathy is 'five'"):
        read_results(run)


def test_an_unfinished_evaluation_has_no_trust_yet(run):
    rate(run, "ক")
    row = {"rater": "m", "id": "x", "order": 1, "side": "tuned", "empathy": 5}
    write_jsonl(run / "evaluate/judge.jsonl", [row])
    (run / "evaluate/metrics.json").unlink()
    assert read_results(run).meta_evaluations == {}


@pytest.mark.browser
@pytest.mark.parametrize(("language", "width", "light"), [("en", 390, "dark"), ("bn", 1280, "light")])
def test_the_ratings_fit_the_page(browser, pages, language, width, light):
    check_in_browser(browser, pages[0][language], width, light)


def test_a_bengali_page_names_scores_and_verdicts(pages):
    page = pages[0]["bn"].read_text("utf-8")
    assert "কোন স্কোরে ভরসা করা যায়" in page
    assert "ভরসা করা যায়: " in page
    assert "তাই বাদ: একটির বেশি ভুল হলে" in page
