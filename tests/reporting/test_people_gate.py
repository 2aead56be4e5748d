"""People's choices in the verdict that a page shows: they can fail it, and make up for nothing."""

import html

import pandas
import pytest

from helpers.evaluation.resampling import FEWEST_PAIRS
from helpers.evaluation.sheet import attention_checks, tuned_is_first
from helpers.evaluation.verdict import Verdict
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.words import LANGUAGES, Words, read_texts
from helpers.runs.files import write_csv, write_json
from helpers.sharing.card import model_card

SHIP, REFUSED = (read_texts("en")["decision"][verdict] for verdict in ("ship", "do not ship"))


def decide(run, outcome):
    """Has the evaluation come to a verdict by checks that all have this outcome."""
    metrics = run.metrics("evaluate")
    checks = [check | {"outcome": outcome} for check in metrics["verdict"]["checks"]]
    verdict = {"passed": "ship", "open": "cannot tell yet"}[outcome]
    metrics["verdict"] |= {"verdict": verdict, "checks": checks}
    write_json(run / "evaluate/metrics.json", metrics)


def choose(run, tuned, rows=None, rater="শালিক"):
    """Writes the file of a rater who passes every check and prefers the tuned reply in this share of the pairs."""
    seed = run.metrics("evaluate")["seed"]
    checks = {check.pair["id"]: check.answer for check in attention_checks(seed)}
    sheet = pandas.read_csv(run / "evaluate/human_eval.csv", dtype=str, keep_default_na=False)
    pairs = [row_id for row_id in sheet["id"] if row_id not in checks][:rows]
    answers = dict(checks)
    for place, row_id in enumerate(pairs):
        is_tuned = int((place + 1) * tuned) > int(place * tuned)
        answers[row_id] = 1 if is_tuned == tuned_is_first(row_id, seed) else 2
    sheet["choice"] = [str(answers.get(row_id, "")) for row_id in sheet["id"]]
    write_csv(run / f"evaluate/ratings/{rater}.csv", sheet)


def summarise(run, language="en"):
    return summarise_run(read_results(run), Words(language))


def show(run, language="en"):
    """Returns the box with the verdict that the page begins with, and what the report's metrics say."""
    facts = write_report(run, 2, language)
    page = html.unescape((run / "report/index.html").read_text("utf-8"))
    return page.partition('<div class="verdict')[2].partition("</div>")[0], facts


def test_people_who_prefer_the_base_model_refuse_it(run):
    decide(run, "passed")
    choose(run, 0.1)
    box, facts = show(run)
    page = html.unescape((run / "report/index.html").read_text("utf-8"))
    assert REFUSED in box
    assert SHIP not in box
    assert box.startswith(" worse"), "it is not marked as bad news"
    assert "people prefer the base model's" in box
    assert facts["verdict"] == "do not ship"
    assert facts["people"]["high"] < 0.5
    assert run.metrics("evaluate")["verdict"]["verdict"] == "ship", "the evaluation's own file was changed"
    assert "without them the verdict is: ship." in box
    row = page.partition("What people prefer")[2].partition("</tr>")[0]
    assert "not surely below 50 %" in row
    assert "failed" in row


def test_the_model_card_does_not_contradict_the_page(run):
    decide(run, "passed")
    choose(run, 0.1)
    config = {"base_model": "embedded", "lora": {"r": 8, "lora_alpha": 16}, "backend": "peft", "learning_rate": 1e-3}
    write_json(run / "train/config.json", {**config, "load_in_4bit": False})
    card = model_card(run)
    assert f"**{REFUSED}**" in card
    assert SHIP not in card


@pytest.mark.parametrize(
    ("tuned", "rows", "sentence"),
    [
        (0.5, None, "People clearly prefer neither model's replies"),
        (0.9, None, "People prefer its replies to the base model's"),
        (0.0, FEWEST_PAIRS - 1, f"Pairs in which people have chosen so far: {FEWEST_PAIRS - 1}."),
    ],
)
@pytest.mark.parametrize("outcome", ["passed", "open"])
def test_every_other_choice_changes_no_verdict(run, tuned, rows, sentence, outcome):
    decide(run, outcome)
    computed = Verdict(**run.metrics("evaluate")["verdict"])
    choose(run, tuned, rows)
    summary = summarise(run)
    assert sentence in summary.people
    assert "People's choices are counted in here" in summary.people
    assert summary.outcome == computed.verdict
    assert "prefer" not in " ".join(summary.reasons)


@pytest.mark.parametrize("language", LANGUAGES)
def test_that_nobody_was_asked_is_one_line(run, language):
    box, facts = show(run, language)
    assert box.count(Words(language).say("asked.not_yet")) == 1
    assert "people" not in facts


def test_a_language_model_is_no_person(run):
    decide(run, "passed")
    choices = {"win": 0.0, "low": 0.0, "high": 0.1, "pairs": 34, "tuned": 0, "base": 34, "same": 0, "alpha": None}
    summary = {"raters": ["m"], "pairs": 34, "scales": {}, "choices": choices, "unread": 0, "same_in_both_orders": 1.0}
    write_json(run / "evaluate/metrics.json", run.metrics("evaluate") | {"judge": summary})
    summary = summarise(run)
    assert summary.outcome == "ship"
    assert summary.people.startswith("People have not been asked yet")


def test_ratings_that_cannot_be_counted_are_told(run):
    write_csv(run / "evaluate/ratings/শালিক.csv", pandas.DataFrame([{"id": "of another run", "choice": "1"}]))
    assert "none of them could be counted" in summarise(run).people


def test_marks_without_choices_are_no_preference(run):
    decide(run, "passed")
    choose(run, 0.5)
    file = run / "evaluate/ratings/শালিক.csv"
    sheet = pandas.read_csv(file, dtype=str, keep_default_na=False)
    write_csv(file, sheet.assign(choice="", empathy_1="1", empathy_2="5"))
    summary = summarise(run)
    assert "have not said which one of a pair they prefer" in summary.people
    assert summary.outcome == "ship"
