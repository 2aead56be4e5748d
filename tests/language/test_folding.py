"""Spelling that is folded: what is the same in both scripts, joined or misspelt, gets one form."""

import pytest

from helpers.language.folding import fold, skeleton


@pytest.mark.parametrize(
    "spellings",
    [
        "মরতে চাই|morte chai|mortay cai|MORTE  CHAI|ম\u200cরতে চাই",
        "চাইনা|চাই না|chaina|chai na|cai na|চাাাই না",
        "পারছিনা|পারছি না|parchina|parchi na",
        "করিনি|করি নি|korini|kori ni",
        "বাঁচতে|বাচতে|bachte|banchte|bacte",
        "আত্মহত্যা|আত্নহত্যা|আত্মহত্তা|attohotta|attohottya",
        "খেয়ে ফেলবো|খেয়ে ফেলব|kheye felbo|kheye phelbo",
        "ভালো লাগে না|bhalo lagena|valo lage na",
        "পৃথিবী|prithibi|prithivi",
        "শ্বাস|shash|swas",
        "আর|ar|r",
        "don't|dont|don’t",
    ],
)
def test_one_word_has_one_form(spellings):
    assert len({fold(spelling) for spelling in spellings.split("|")}) == 1


@pytest.mark.parametrize("pair", ["বাঁচতে|মরতে", "চাই|চাই না", "খেয়েছি|খাইনি", "die|live", "ঠিকানা|ঠিক"])
def test_other_words_stay_apart(pair):
    first, second = pair.split("|")
    assert fold(first) != fold(second)


@pytest.mark.parametrize("text", ["কীভাবে মরব? ক্ষমা করো, বড় কষ্ট।", "ami ar bachte chaina", "I can't sleep"])
def test_what_is_folded_is_plain_latin(text):
    assert fold(text).replace(" ", "").isalpha()
    assert fold(text).isascii()


def test_a_skeleton_holds_dialects_together():
    assert skeleton(fold("করছে")) == skeleton(fold("korse"))
    assert skeleton(fold("আছে")) == skeleton(fold("ase"))


def test_danda_and_emoji_are_no_letters():
    assert fold("।॥ 🙂") == ""
