"""The words of the pages: English and Bengali say the same, and no number stands in the wrong unit or digits."""

import re
import string
from pathlib import Path

import pytest

from helpers.data.prompts import PROMPTS
from helpers.evaluation.raters import ALL_SCALES
from helpers.reporting import words as module
from helpers.reporting.figures import draw_loss, load_pyplot
from helpers.reporting.tables import LABELS, SPECS
from helpers.reporting.words import LANGUAGES, Words, read_texts

ENGLISH, BENGALI = (read_texts(language) for language in LANGUAGES)
TABLES = ("scores", "seeds", "breakdown", "categories", "ratings", "trust", "cleaning", "stages", "sessions")


def placeholders(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_both_languages_have_the_same_keys():
    assert {*BENGALI} - {*ENGLISH} == {"names"}
    assert {*ENGLISH["marks"]} <= {*ENGLISH["terms"]}
    for section, texts in ENGLISH.items():
        assert list(texts) == list(BENGALI[section]), section


@pytest.mark.parametrize("section", ENGLISH)
def test_no_placeholder_is_missing_in_bengali(section):
    for key, text in ENGLISH[section].items():
        assert placeholders(text) == placeholders(BENGALI[section][key]), f"{section}.{key}"


def test_every_label_and_heading_has_a_bengali_name():
    headings = [heading for table in TABLES for heading in SPECS[table]]
    labels = [label for label, _ in LABELS.values()]
    headings += ["gate", "outcome", "check", "measured", "needed"]
    missing = {*headings, *labels, *SPECS["plan"], *SPECS["metrics"].values(), *ALL_SCALES} - {*BENGALI["names"]}
    assert missing == set()


def test_every_score_is_explained():
    assert {*LABELS} - {*ENGLISH["terms"]} == set()


def test_every_category_of_prompts_has_a_name():
    assert {*PROMPTS["prompts"]} == {*ENGLISH["category"]}


def test_every_text_of_the_pages_is_used():
    folder = Path(module.__file__).parent
    used = "".join(p.read_text("utf-8") for p in (*folder.glob("*.py"), *folder.glob("pages/*.html")))
    names = {
        "question",
        "reference",
        "base",
        "tuned",
        "lost",
        "gained",
        "people",
        "judge",
        "promise_kept",
        "promise_broken",
        "promise_unknown",
    }  # put together in a template
    unused = [key for key in ENGLISH["page"] if f"page.{key}" not in used and key not in names]
    assert unused == []


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="page_language is 'hi': expected one of en, bn"):
        Words("hi").say("page.scores")


@pytest.mark.parametrize(
    ("hours", "english", "bengali"),
    [
        (0.0, "under 2 seconds", "২ সেকেন্ডেরও কম"),
        (0.0025, "9.0 seconds", "৯.০ সেকেন্ড"),
        (0.0108, "38.9 seconds", "৩৮.৯ সেকেন্ড"),
        (0.05, "3.0 minutes", "৩.০ মিনিট"),
        (5.204, "5.20 hours", "৫.২০ ঘণ্টা"),
        (None, None, None),
    ],
)
def test_hours_are_shown_in_the_unit_that_suits_them(hours, english, bengali):
    assert [Words(language).duration(hours) for language in LANGUAGES] == [english, bengali]


@pytest.mark.parametrize(
    ("hours", "english", "bengali"),
    [(1.0, "1 hour", "১ ঘণ্টা"), (0.6, "0.6 hours", "০.৬ ঘণ্টা"), (9.0, "9 hours", "৯ ঘণ্টা")],
)
def test_promised_hours_are_shown_as_they_were_set(hours, english, bengali):
    assert [Words(language).hours(hours) for language in LANGUAGES] == [english, bengali]


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.75, "75 %"), (1 / 3, "33.3 %"), (0.0004, "0.04 %")]
)
def test_a_share_never_rounds_to_nothing(share, shown):
    assert Words().share(share) == shown


@pytest.mark.parametrize(
    ("value", "english", "bengali"),
    [
        (0.125, "+12.5 percentage points", "+১২.৫ শতাংশ বিন্দু"),
        (-0.01, "-1 percentage point", "-১ শতাংশ বিন্দু"),
        (-1e-9, "0 percentage points", "০ শতাংশ বিন্দু"),
    ],
)
def test_a_difference_of_shares_is_in_percentage_points(value, english, bengali):
    assert [Words(language).points(value, "+") for language in LANGUAGES] == [english, bengali]


def test_a_bengali_page_has_bengali_digits():
    words = Words("bn")
    assert "৩৪টি" in words.say("verdict.few", rows=34)
    assert words.cell("95 % interval", "-1.5 to +2.0", True) == "-১.৫ থেকে +২.০"
    assert words.cell("group", "1 to 14 words", False) == "১ থেকে ১৪ শব্দ"
    assert words.cell("commit", "4e37c0e", False) == "4e37c0e"


def test_a_term_in_a_sentence_is_marked_once():
    pieces = Words().mark_terms("Perplexity fell; the floor, perplexity again.")
    assert [(piece, term.key) for piece, term in pieces if term] == [("Perplexity", "perplexity"), ("floor", "floor")]
    assert "".join(piece for piece, _ in pieces) == "Perplexity fell; the floor, perplexity again."


def test_a_term_is_explained_where_it_stands_first():
    words, rows = Words(), [{"score": "chrF++", "floor": "1.0"}]
    assert [term.key for term in words.table_terms(rows)] == ["chrf", "floor"]
    assert words.table_terms(rows) == []


def test_a_plot_of_a_bengali_page_is_labelled_in_bengali():
    log = [{"step": step, "loss": 3.0, "eval_loss": 2.5, "learning_rate": 0.1} for step in (1, 2)]
    figure = draw_loss(log, [], Words("bn"))
    above, below = figure.axes
    for text in (*(line.get_label() for line in above.lines), above.get_ylabel(), below.get_xlabel()):
        assert not re.search("[a-zA-Z]", text), text
    load_pyplot().close(figure)


def test_no_bengali_text_is_left_in_english():
    for section in ("verdict", "summary", "plot", "page", "compare"):
        latin = [key for key, text in BENGALI[section].items() if not re.search("[\u0980-\u09fe]", text)]
        assert [key for key in latin if key not in ("list", "cpu")] == [], section
