"""Bengali text: one normal form, and words that keep their signs."""

import unicodedata
from pathlib import Path

import pytest
import yaml

from helpers.data.load import load_table
from helpers.language.bengali import bengali_share, is_assamese, latin_digits, normalise, split_words

SENTENCES = yaml.safe_load(Path(__file__).with_name("assamese.yaml").read_text(encoding="utf-8"))

SAMPLES = [
    "ব\u09dc গা\u09dd হ\u09df",  # as escapes: an editor writes letter + nukta, which is normalised already
    "র‍্যাব ও রক্তক্ষরণ",  # with a zero-width joiner
    "ক্\u200cষ \u200dএবং  ট্যাব\tও",
    "এক\r\n\r\n\r\n  দুই \r তিন\u2028চার",
    "\ufeffশুরু\x00শেষ\x07",
    "Mixed বাংলা text, ১২৩ and 456।",
    "",
    "   \n ",
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_normalising_twice_is_normalising_once(sample):
    once = normalise(sample)
    assert normalise(once) == once


def test_nukta_letters_have_one_form():
    assert normalise("\u09dc\u09dd\u09df") == "\u09a1\u09bc\u09a2\u09bc\u09af\u09bc"


def test_line_breaks_have_one_form():
    assert normalise(SAMPLES[3]) == "এক\n\nদুই\nতিন\nচার"


def test_control_characters_are_removed():
    assert normalise(SAMPLES[4]) == "শুরুশেষ"


def test_joiners_stay_in_the_text():
    assert normalise("র\u200d্যাব ক্\u200cষ") == "র\u200d্যাব ক্\u200cষ"


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("আমি ভালো নেই।", ["আমি", "ভালো", "নেই"]),
        ("ক্ষত্রিয় শ্রদ্ধা, স্ত্রী!", ["ক্ষত্রিয়", "শ্রদ্ধা", "স্ত্রী"]),
        ("র‍্যাব", ["র্যাব"]),
        ("COVID-১৯ আর covid", ["covid", "১৯", "আর", "covid"]),
        ("।।।", []),
    ],
)
def test_words_are_not_split_at_their_signs(sample, expected):
    assert split_words(sample) == [unicodedata.normalize("NFC", word) for word in expected]


def test_a_decomposed_letter_gives_the_same_word():
    assert split_words("বা\u09dcি") == split_words("বা\u09a1\u09bcি") == ["বা\u09a1\u09bcি"]


def test_the_share_of_bengali_counts_letters_only():
    assert bengali_share("১২৩ আমি! abc") == pytest.approx(2 / 5)


def test_a_text_without_letters_has_no_bengali():
    assert bengali_share("123 ।") == 0


def test_assamese_is_told_from_bengali():
    assert len(SENTENCES["assamese"]) >= 20
    assert [sentence for sentence in SENTENCES["assamese"] if bengali_share(normalise(sentence)) > 0] == []


def test_bengali_that_quotes_assamese_stays_bengali():
    assert len(SENTENCES["bengali"]) >= 20
    assert [sentence for sentence in SENTENCES["bengali"] if is_assamese(normalise(sentence))] == []


def test_no_text_of_the_embedded_corpus_is_assamese():
    table = load_table("embedded")[0]
    assert not any(map(is_assamese, [*table.question, *table.answer]))


def test_bengali_digits_become_latin_ones():
    assert latin_digits("০১২৩৪৫৬৭৮৯ টা 7") == "0123456789 টা 7"
