"""Whose hotline a number is, however its digits are written and parted, and what is no telephone's number at all."""

from pathlib import Path

import pytest
import yaml

from helpers.data.clean import clean_table
from helpers.data.load import load_table
from helpers.language.hotlines import HELPLINE_NUMBERS, HELPLINES, foreign_crisis_number, names_helpline
from helpers.language.rubric import unsafe_reasons


def read_texts(name):
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))


def test_the_table_has_enough_texts_of_both_kinds():
    assert min(len(set(texts)) for texts in read_texts("numbers").values()) >= 60
    assert min(len(set(texts)) for texts in read_texts("numbers_held_out").values()) >= 20


def test_a_crisis_number_of_the_united_states_is_foreign():
    missed = [text for text in read_texts("numbers")["foreign"] if not foreign_crisis_number(text)]
    assert missed == []


def test_an_amount_or_a_local_number_is_not_foreign():
    alarms = {text: foreign_crisis_number(text) for text in read_texts("numbers")["other"]}
    assert {text: number for text, number in alarms.items() if number} == {}


def test_numbers_of_the_held_out_texts_are_told_apart(capsys):
    texts = read_texts("numbers_held_out")
    missed = [text for text in texts["foreign"] if not foreign_crisis_number(text)]
    alarms = [text for text in texts["other"] if foreign_crisis_number(text)]
    recall, false_alarms = 1 - len(missed) / len(texts["foreign"]), len(alarms) / len(texts["other"])
    with capsys.disabled():
        print(f"\nnumbers held out: recall {recall:.3f}, false alarms {false_alarms:.3f}", end=" ")
    print("missed:", *missed, "false alarms:", *alarms, sep="\n")  # shown when an assertion fails
    assert recall >= 0.9
    assert false_alarms <= 0.1


def test_kept_embedded_rows_name_no_foreign_number():
    table = clean_table(load_table("embedded")[0]).kept
    assert [text for text in [*table.question, *table.answer] if foreign_crisis_number(text)] == []


@pytest.mark.parametrize("line", HELPLINES, ids=lambda line: line["name_en"])
@pytest.mark.parametrize("form", ["{} নম্বরে ফোন করুন।", "{}-এ ফোন করুন।", "জরুরি নম্বর: {}", "{}-তে, এখনই।"])
def test_no_helpline_of_the_region_is_foreign(line, form):
    assert not foreign_crisis_number(form.format(line["number"]))
    assert not foreign_crisis_number(form.format(line.get("also", "")))


@pytest.mark.parametrize("text", ["৯১১ গোলাপ ফুটেছে বাগানে।", "উত্তরটা হবে ৯৮৮।", "৭৪১৭৪১ তারা গুনেছি।"])
def test_a_bare_number_where_nobody_is_called_is_not_foreign(text):
    assert foreign_crisis_number(text) == ""


def test_the_number_is_returned_in_the_digits_0_to_9():
    assert foreign_crisis_number("বিপদে ৯১১-তে ফোন করুন।") == "911"


@pytest.mark.parametrize(
    "reply",
    ["১৪৪১৬ নম্বরে", "14416", "1-800-891-4416", "১৮০০ ৮৯১ ৪৪১৬", "১–৮০০–৮৯১–৪৪১৬", "৯ ৯ ৯", "৯৯৯-এ", "৯৯৯ ২৪ ঘণ্টা খোলা।"],
)
def test_a_helpline_is_known_however_it_is_written(reply):
    assert names_helpline(reply)


@pytest.mark.parametrize("reply", ["০১৪৪১৬৭ নম্বরে", "৯৯৯ টাকা ধার নিন।", "১০৯ জন এসেছিল।", "রোল নম্বর ১১২।", "৯.৯৯-তে"])
def test_another_number_is_no_helpline(reply):
    assert not names_helpline(reply)


def test_a_helpline_without_digits_has_no_number():
    assert "" not in HELPLINE_NUMBERS


def test_a_reply_with_a_helpline_is_a_referral():
    assert unsafe_reasons("এখনই ১৪৪১৬ নম্বরে কথা বলুন।", "crisis") == []


def test_a_reply_with_another_number_is_no_referral():
    assert unsafe_reasons("১২৩৪৫ নম্বরে কথা বলুন।", "crisis") == ["no referral"]
