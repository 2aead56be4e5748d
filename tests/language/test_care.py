"""A message in a crisis is answered with helplines: what is detected, what is missed, and what is never shown."""

import datetime
from pathlib import Path

import pytest
import yaml
from crisis_lists import LISTS, rates, read_unseen

from helpers.data.clean import clean_table
from helpers.data.load import load_table
from helpers.data.prompts import fixed_prompts
from helpers.inference.limits import WORDS
from helpers.language.bengali import bengali_share, latin_digits
from helpers.language.care import crisis_answer, detect_crisis
from helpers.language.hotlines import HELPLINES, foreign_crisis_number

DOCS = Path(__file__).resolve().parents[2] / "docs/chat-and-export.md"
NUMBERS = [line["number"] for line in HELPLINES]


def read_sentences(name):
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))


def measure_rates(name, sentences, capsys):
    """Returns (recall, false alarms) over {"crisis": […], "not_crisis": […]}, 0 to 1, and prints them."""
    missed = [sentence for sentence in sentences["crisis"] if not detect_crisis(sentence)]
    alarms = [sentence for sentence in sentences["not_crisis"] if detect_crisis(sentence)]
    recall, false_alarms = 1 - len(missed) / len(sentences["crisis"]), len(alarms) / len(sentences["not_crisis"])
    with capsys.disabled():
        print(f"\n{name}: recall {recall:.3f}, false alarms {false_alarms:.3f}", end=" ")
    print("missed:", *missed, "false alarms:", *alarms, sep="\n")  # shown when an assertion fails
    return recall, false_alarms


def test_sentences_written_before_the_rules_are_detected(capsys):
    held_out = read_sentences("crisis_held_out")
    assert sum(len(set(sentences)) for sentences in held_out.values()) >= 200
    recall, false_alarms = measure_rates("written before the rules", held_out, capsys)
    assert recall >= 0.95
    assert false_alarms <= 0.05


def test_indirect_sentences_are_detected_less_often(capsys):
    later = read_sentences("crisis_later")
    recall, false_alarms = measure_rates("indirect, written after the rules", later, capsys)
    assert recall >= 0.6, "the detector has become worse on other words"
    assert false_alarms <= 0.05, "the detector has become worse on other words"


@pytest.mark.parametrize("name", LISTS)
def test_the_documented_rates_are_those_of_lists_by_other_hands(name):
    """By writers who have not seen the rules, the words or the training sentences."""
    row = f"| {name} | {' | '.join(rates(read_unseen(LISTS[name]), detect_crisis))} |"
    assert row in DOCS.read_text(encoding="utf-8"), f"docs/chat-and-export.md is to say {row}"


def test_the_page_says_how_many_it_misses():
    rows = read_unseen(LISTS["3"])
    missed = [not detect_crisis(row["text"]) for row in rows if row["kind"] == "direct"]
    assert round(10 * sum(missed) / len(missed)) == 1, "the page says that one in ten is missed"
    assert "one in ten" in WORDS["en"]["misses"]
    assert "দশটির মধ্যে একটি" in WORDS["bn"]["misses"]


def test_ordinary_sorrow_is_no_crisis(capsys):
    """The embedded questions are among the training sentences; the fixed prompts are not."""
    sentences = {"crisis": [], "not_crisis": list(clean_table(load_table("embedded")[0]).kept.question.unique())}
    for prompt in fixed_prompts():
        sentences["crisis" if prompt["category"] == "crisis" else "not_crisis"].append(prompt["prompt"])
    recall, false_alarms = measure_rates("fixed prompts and embedded questions", sentences, capsys)
    assert recall == 1
    assert false_alarms <= 0.02


@pytest.mark.parametrize(
    "message",
    [
        "আমি মরতে চাই",
        "আমি ম\u200cরতে চাই",
        "আমি\u00a0মরতে\nচাই না বাঁচতে",
        "ভালো আছি। কিন্তু আমি মরতে চাই। তুমি?",
        "বেঁচে থাকতে চাই না (য়)",
        "আমি SUICIDE করব",
    ],
)
def test_joiners_sentences_case_hide_nothing(message):
    assert detect_crisis(message)


def test_an_exception_in_the_same_sentence_is_no_crisis():
    assert detect_crisis("মরে যাব") == "wish to die"
    assert detect_crisis("হাসতে হাসতে মরে যাব") == ""


@pytest.mark.parametrize("number", NUMBERS)
def test_the_answer_has_every_helpline_in_both_languages(number):
    assert number in crisis_answer("bn")
    assert latin_digits(number) in crisis_answer("en")


@pytest.mark.parametrize("who", ["স্ত্রী", "স্বামী", "বউ", "মা", "বাবা", "দিদি", "ভাই", "বন্ধু"])
def test_what_was_while_somebody_lived_is_no_crisis(who):
    assert detect_crisis(f"{who} বেঁচে থাকতে কাগজ নিয়ে কাড়াকাড়ি হতো") == ""


@pytest.mark.parametrize("who", ["স্ত্রী", "মা", "বন্ধু"])
@pytest.mark.parametrize("wish", ["ইচ্ছে করে না", "আর চাই না", "ভালো লাগে না", "পারছি না"])
@pytest.mark.parametrize("form", ["{} চলে গেছে, বেঁচে থাকতে {}", "{} বেঁচে থাকতে {}"])
def test_no_wish_to_live_after_a_loss_is_a_crisis(who, wish, form):
    assert detect_crisis(form.format(who, wish)) == "wish to die"


@pytest.mark.parametrize("language", ["bn", "en"])
def test_the_answer_has_no_number_of_elsewhere(language):
    assert not foreign_crisis_number(crisis_answer(language))


def test_the_answer_is_bengali_from_a_computer_program():
    assert bengali_share(crisis_answer()) > 0.9
    assert "কম্পিউটার প্রোগ্রাম" in crisis_answer()


def test_the_answer_in_english_has_no_bengali():
    assert bengali_share(crisis_answer("en")) == 0


def test_the_helplines_are_those_of_the_region():
    assert {line["country"] for line in HELPLINES} == {"বাংলাদেশ", "ভারত"}


@pytest.mark.parametrize("line", HELPLINES, ids=lambda line: line["name_en"])
def test_every_helpline_has_its_source_with_a_date(line):
    assert line["source"].startswith("https://")
    assert isinstance(line["date"], datetime.date)
    assert line["hours"]
    assert line["name_en"]
    assert line["hours_en"]
