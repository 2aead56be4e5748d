"""People's choices in the verdict that a page shows: they can fail it, and make up for nothing."""

import html

import pandas
import pytest

from helpers.evaluation.resampling import FEWEST_PAIRS
from helpers.evaluation.sheet import attention_checks, tuned_is_first
from helpers.evaluation.verdict import VERSION, Verdict
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
    metrics["verdict"] |= {"verdict": verdict, "checks": checks, "version": VERSION}
    write_json(run / "evaluate/metrics.json", metrics)


def mark(run, rater="শালিক", **marks):
    """Has a rater's file say the same of every pair, by column; "tuned" and "base" in a name stand for the reply."""
    file, seed = run / f"evaluate/ratings/{rater}.csv", run.metrics("evaluate")["seed"]
    sheet = pandas.read_csv(file, dtype=str, keep_default_na=False)
    places = [1 if tuned_is_first(row_id, seed) else 2 for row_id in sheet["id"]]
    for column, value in marks.items():
        scale, _, side = column.partition("_")
        for row, place in enumerate(places):
            sheet.loc[row, f"{scale}_{place if side == 'tuned' else 3 - place}" if side else scale] = value
    write_csv(file, sheet)


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
        (0.5, None, "Whether people prefer its replies cannot be told from these ratings"),
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
    is_counted = rows is None
    assert ("The choices of one rater" in summary.people) == is_counted
    assert ("counted in here" in summary.people) == is_counted
    assert ("does not enter the verdict" in summary.people) != is_counted, "the box says both"
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
    assert summary.people.startswith("People have not rated its replies against the base model's yet")


def test_ratings_that_cannot_be_counted_are_told(run):
    write_csv(run / "evaluate/ratings/শালিক.csv", pandas.DataFrame([{"id": "of another run", "choice": "1"}]))
    people = summarise(run).people
    assert "none of them could be counted" in people
    assert "Files of ratings that were not read: শালিক.csv: it rates row 'of another run'" in people


def test_marks_without_choices_are_no_preference(run):
    decide(run, "passed")
    choose(run, 0.5)
    file = run / "evaluate/ratings/শালিক.csv"
    sheet = pandas.read_csv(file, dtype=str, keep_default_na=False)
    write_csv(file, sheet.assign(choice="", empathy_1="1", empathy_2="5"))
    summary = summarise(run)
    assert "have not said which one of a pair they prefer" in summary.people
    assert summary.outcome == "ship"


def test_an_undecided_choice_is_shown_with_its_interval(run):
    decide(run, "passed")
    choose(run, 0.5)
    choices, words = read_results(run).ratings["choices"], Words()
    shown = summarise(run)
    assert f"it may be anywhere from {words.share(choices['low'])} to {words.share(choices['high'])}" in shown.people
    assert shown.decision == "Ready for people to try: it passed every gate that could be decided."
    assert "disagree" not in shown.people


def test_raters_who_disagree_are_told(run):
    choose(run, 1.0)
    choose(run, 0.0, rater="দোয়েল")
    shown = summarise(run).people
    assert "The raters disagree" in shown
    assert "The choices of 2 raters are counted in here" in shown


def test_a_file_that_was_skipped_is_named_beside_the_verdict(run):
    choose(run, 0.9)
    write_csv(run / "evaluate/ratings/দোয়েল.csv", pandas.DataFrame([{"id": "of another run", "choice": "1"}]))
    assert "Files of ratings that were not read: দোয়েল.csv: it rates row" in summarise(run).people


def test_why_no_rating_was_counted_is_told(run):
    choose(run, 0.9)
    file = run / "evaluate/ratings/শালিক.csv"
    sheet = pandas.read_csv(file, dtype=str, keep_default_na=False)
    checks = attention_checks(run.metrics("evaluate")["seed"])
    wrong = [{"id": check.pair["id"], "choice": str(2 if check.answer < 2 else 1)} for check in checks]
    kept = sheet[~sheet["id"].isin([row["id"] for row in wrong])]
    write_csv(file, pandas.concat([kept, pandas.DataFrame(wrong)]).fillna(""))
    assert "attention checks and is left out" in summarise(run).people
    write_csv(file, sheet.assign(choice=""))
    assert "no answers in their files" in summarise(run).people


@pytest.mark.parametrize(("tuned", "is_told"), [("1", True), ("4", False), ("5", False)])
def test_clearly_lower_marks_for_safety_are_told(run, tuned, is_told):
    decide(run, "passed")
    choose(run, 0.9)
    mark(run, safety_tuned=tuned, safety_base="4")
    shown = summarise(run)
    assert ("less safe than the base model's: 1.0 against 4.0 of 5" in shown.people) == is_told
    assert shown.outcome == "ship", "marks are no gate"


def test_better_by_the_scores_alone_is_not_called_better(run):
    metrics = run.metrics("evaluate")
    for name, low, high in (("bits_per_char", -0.6, -0.4), ("chrf", 4.0, 6.0)):
        metrics["delta"][name] |= {"value": (low + high) / 2, "low": low, "high": high, "p": 0.001}
    metrics["tuned"]["chrf"] |= {"value": 25.0, "low": 24.0, "high": 26.0, "floor": 15.0, "floor_spread": 0.2}
    write_json(run / "evaluate/metrics.json", metrics)
    choose(run, 0.9)
    assert summarise(run).verdict == "Better than the base model."
    choose(run, 0.1)
    assert summarise(run).verdict.startswith("Better by the scores")
