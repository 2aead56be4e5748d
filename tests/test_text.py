"""Bengali text rules."""

import pytest

from helpers import text

SAMPLES = [
    "বড় গাঢ় হয়",  # precomposed U+09DC U+09DD U+09DF
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
    once = text.normalise(sample)
    assert text.normalise(once) == once


def test_nukta_letters_have_one_form():
    assert text.normalise("\u09dc\u09dd\u09df") == "\u09a1\u09bc\u09a2\u09bc\u09af\u09bc"


def test_line_breaks_and_control_characters_are_put_in_order():
    assert text.normalise(SAMPLES[3]) == "এক\n\nদুই\nতিন\nচার"
    assert text.normalise(SAMPLES[4]) == "শুরুশেষ"


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
def test_words_keep_vowel_signs_and_conjuncts(sample, expected):
    import unicodedata

    assert text.words(sample) == [unicodedata.normalize("NFC", word) for word in expected]


def test_composed_and_decomposed_letters_are_the_same_word():
    assert text.words("বাড়ি") == text.words("বা\u09a1\u09bcি")


def test_the_share_of_bengali_counts_letters_only():
    assert text.bengali_share("১২৩ আমি! abc") == pytest.approx(2 / 5)
    assert text.bengali_share("123 ।") == 0


def test_a_shuffle_key_depends_on_the_seed_and_the_name_alone():
    names = [f"row{n}" for n in range(50)]
    assert sorted(names, key=lambda n: text.shuffle_key(1, n)) == sorted(
        names[::-1], key=lambda n: text.shuffle_key(1, n)
    )
    assert sorted(names, key=lambda n: text.shuffle_key(1, n)) != sorted(names, key=lambda n: text.shuffle_key(2, n))
