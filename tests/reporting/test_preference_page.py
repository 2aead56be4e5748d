"""The page of a run with a preferred model: three models, its own verdict, and nothing of it on any other page."""

import shutil

import pandas
import pytest
from page_text import PageText, unknown_numbers
from preferred_runs import FACTS, evaluate_three

from helpers.evaluation.drift import Drift
from helpers.evaluation.rating_files import read_table
from helpers.evaluation.sheet import SHOWN_FIELDS
from helpers.preference.power import describe_power, least_accuracy
from helpers.reporting.preference import (
    describe_drift,
    describe_few,
    describe_training,
    judge_preferred,
    pair_results,
    preference_content,
    preference_facts,
    preferred_rows,
)
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.words import LANGUAGES, Words
from helpers.runs.files import read_json, read_jsonl, write_csv, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.stages import PREFERRED


@pytest.fixture(scope="module")
def three(copied, tmp_path_factory):
    """Returns a run with a preferred model, which a person has rated in both sheets."""
    run = copied(tmp_path_factory.mktemp("three"))
    shutil.rmtree(run / "evaluate/ratings", ignore_errors=True)
    earlier = read_table(run / "evaluate/human_eval.csv", SHOWN_FIELDS)
    evaluate_three(run, left_out=3)
    known = {row["id"] for row in read_jsonl(run / "evaluate/base.jsonl")}  # the others are attention checks
    newer = read_table(run / "evaluate/human_eval.csv", SHOWN_FIELDS)
    for name, rows in (("earlier", earlier[3:9]), ("newer", newer[:8])):
        chosen = [row | {"choice": place % 3 * (row["id"] in known)} for place, row in enumerate(rows)]
        write_csv(run / f"evaluate/ratings/{name}.csv", pandas.DataFrame(chosen))
    return run


@pytest.fixture(scope="module", params=LANGUAGES)
def page(request, three):
    """Returns the page in a language, and that language's words."""
    write_json(three / "report/metrics.json", write_report(three, 4, request.param))
    return PageText(three / "report/index.html"), Words(request.param)


def test_every_number_on_a_page_of_three_is_in_a_file(page, three):
    assert unknown_numbers(page[0], three.folder) == []


def test_the_page_says_what_was_left_out_and_why(page):
    text, words = page[0].text, page[1]
    assert words.say("prefer.title") in text
    assert words.say("prefer.left_out", rows=3) in text
    assert words.say("prefer.do not ship") in text


def test_the_page_says_how_few_preferences_there_are(page):
    text, words = page[0].text, page[1]
    assert words.say("prefer.few", prompts=30, held_out=8, shows=words.share(least_accuracy(8)), needed=388) in text
    assert words.say("prefer.source", name=words.name("ratings"), kept=24, read=30) in text


@pytest.mark.parametrize(("held_out", "key"), [(5, "too_few"), (6, "few"), (97, None)])
def test_what_so_few_can_show_is_said(held_out, key):
    power, words = describe_power(5 * held_out, held_out, 0.2), Words("en")
    facts = {"shows": words.share(power["least_accuracy"]), "needed": 485}
    expected = [words.say(f"prefer.{key}", prompts=5 * held_out, held_out=held_out, **facts)] if key else []
    assert describe_few(power, words) == expected


def test_by_kto_replies_are_measured():
    (sentence,) = describe_training(FACTS | {"method": "kto", "sources": {}, "power": {}}, Words("en"))[1:]
    assert sentence.startswith("Of the held-out replies (8) it puts 62.5 % on the right side")


@pytest.mark.parametrize(("ratio", "key"), [(-0.3, "kl_below_zero"), (0.3, "kl_greedy")])
def test_a_mean_below_zero_is_no_distance(three, ratio, key):
    facts, words = read_json(three / "evaluate/metrics.json")["preference"]["drift"], Words("en")
    facts["replies"]["per_token"]["value"] = ratio
    assert describe_drift(Drift(**facts), {}, words)[-1] == words.say(f"prefer.{key}")


@pytest.mark.parametrize("change", ["trained again", "removed"])
def test_no_verdict_stands_for_another_preferred_model(three, tmp_path, change):
    run, words = Run(tmp_path / "changed"), Words("en")
    shutil.copytree(three.folder, run.folder)
    if change == "removed":
        shutil.rmtree(run / "prefer")
    else:
        write_jsonl(run / PREFERRED[1], [{"weights": "others"}])
        record = read_json(run / "run.json")
        record["stages"]["evaluate"]["inputs"][PREFERRED[1]] = "0" * 64
        write_json(run / "run.json", record)
    content = preference_content(read_results(run), words)
    assert (content["decision"], content["trained"]) == (words.say("prefer.stale"), [])
    assert preference_facts(read_results(run)) == {}


def test_the_page_shows_three_replies_to_a_question(page):
    shown = page[1].say("page.preferred")
    assert page[0].lines.count(shown) >= 7, "once per question and in the tables"


def test_each_sheet_counts_for_its_own_pair(three):
    results = read_results(three)
    pair = pair_results(results)
    known = {row["id"] for row in results.base}  # the others are attention checks
    rated = [read_table(three / f"evaluate/ratings/{name}.csv", ["id"]) for name in ("earlier", "newer")]
    counts = [len(known & {row["id"] for row in rows}) for rows in rated]
    assert [results.ratings["pairs"], pair.ratings["pairs"]] == counts
    assert (results.unread, pair.ratings["skipped"]) == ([], [])


def test_the_page_says_which_scores_track_the_second_sheet(page, three):
    pair = pair_results(read_results(three))
    assert pair.meta_evaluations["people"].pairs == len({own["id"] for own in pair.rated.choices})
    html = (three / "report/index.html").read_text("utf-8")
    section = html.partition(f"<h2>{page[1].say('prefer.title')}</h2>")[2].partition("<h2>")[0]
    assert f"<h3>{page[1].say('page.trust')}</h3>" in section


def test_the_table_of_three_has_each_models_own_score(three):
    evaluation = read_json(three / "evaluate/metrics.json")
    row = next(row for row in preferred_rows(evaluation) if row["score"] == "chrF++")
    sides = (evaluation["base"], evaluation["preference"]["tuned"], evaluation["preferred"])
    assert [row["base"], row["tuned"], row["preferred"]] == [f"{own['chrf']['value']:.2f}" for own in sides]


def test_the_report_keeps_both_verdicts(page, three):
    facts = read_json(three / "report/metrics.json")
    assert facts["preferred_verdict"] == judge_preferred(pair_results(read_results(three))).verdict
    assert facts["verdict"]


def test_a_run_of_two_models_says_nothing_of_a_third(shown):
    page, words = PageText(shown("en") / "report/index.html"), Words("en")
    assert pair_results(read_results(shown("en"))) is None
    assert words.say("prefer.title") not in page.text
    assert words.say("page.preferred") not in page.lines
    assert "preferred_verdict" not in read_json(shown("en") / "report/metrics.json")
