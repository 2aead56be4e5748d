"""Spelling folded by rules: what is written in Bengali or Latin letters, joined or misspelt, gets the same Latin form.

`fold("মরতে চাই") == fold("morte chai") == fold("mortay cai")`. The form is for comparing, not for reading: aspirates,
nasal vowels, double letters and every o are gone, and the three s are one, so that other words fold together too.
English passes the same rules. There is no list of words.
"""

import unicodedata

import regex

from helpers.language.bengali import split_words

_CONSONANTS = (
    "ক k খ kh গ g ঘ gh ঙ ng চ ch ছ ch জ j ঝ jh ঞ n ট t ঠ th ড d ঢ dh ণ n ত t থ th দ d ধ dh ন n প p ফ ph ব b ভ bh ম m "
    "য j র r ল l শ sh ষ sh স s হ h ৎ t"
)
_VOWELS = "অ o আ a ই i ঈ i উ u ঊ u ঋ ri এ e ঐ oi ও o ঔ ou"
_SIGNS = "া a ি i ী i ু u ূ u ৃ ri ে e ৈ oi ো o ৌ ou"


def _pairs(table: str) -> dict[str, str]:
    return dict(zip(table.split()[::2], table.split()[1::2]))


_LETTERS = _pairs(_CONSONANTS) | _pairs(_VOWELS) | _pairs(_SIGNS) | {"ং": "ng", "়": "", "ঁ": "", "ঃ": "", "্": ""}
_INHERENT = regex.compile(rf"(?<=[{''.join(_pairs(_CONSONANTS))}]\u09bc?)(?![{''.join(_pairs(_SIGNS))}\u09bc\u09cd])")


def _rules(table: list[tuple[str, str]]) -> list[tuple[regex.Pattern, str]]:
    return [(regex.compile(unicodedata.normalize("NFC", pattern)), to) for pattern, to in table]


_BENGALI = _rules(
    [
        (r"আত্?[মন](?=[\u09cd\p{L}])", "আত"),  # আত্মহত্যা, আত্নহত্যা, আতমহত্যা
        (r"ক্ষ", "খ"),
        (r"জ্ঞ", "গ"),
        (r"্য", "্"),  # not heard, or heard as the vowel after it
        (r"(?<=[^ম]্)ব", ""),
        (r"ড়|ঢ়", "র"),
        (r"ওয়", "ও"),
        (r"য়", "y"),
    ]
)
_LATIN = _rules(
    [
        (r"(?<=\ba)tt?[mn](?=[ao]?h)", "t"),  # atmahatya, atnohotta
        (r"ks+h?|k?kh|x", "k"),
        (r"ph|f", "p"),
        (r"v|bh", "b"),
        (r"z", "j"),
        (r"q|ck", "k"),
        (r"(?<=[kgcjtdpbsr])h+", ""),
        (r"n+(?=[cj])", ""),  # banchte
        (r"ng", "n"),
        (r"(?<=[bcdgjklmnprst])y(?=[aeou])|w(?=[aeiou])", ""),  # hatya, khawa
        (r"ee+|y(?=\b)(?<=[^aeo]y)", "i"),
        (r"oo+|ou", "u"),
        (r"(?<=e)y\b", ""),  # korey
        (r"(?<=t)ay\b", "e"),  # mortay
        (r"o", ""),
        (r"(.)\1+", r"\1"),
        (r"\br\b", "ar"),  # "r" for আর
    ]
)
# Negation joined to a verb: চাইনা, পারছিনা, করবোনা, পারিনি
_JOINED = regex.compile(r"\b(\w{2,}[aie]|\w+(?:b|lam|cn|tam))(na|ni|nai|nei)\b")
_APOSTROPHE = regex.compile(r"(?<=\w)['’`](?=\w)")


def _romanise(text: str) -> str:
    """Returns a text with Latin letters for Bengali ones, as they are written, an o for each vowel that is not."""
    for pattern, to in _BENGALI:
        text = pattern.sub(to, text)
    text = _INHERENT.sub("o", text)
    return "".join(_LETTERS.get(letter, letter) for letter in text)


def fold(text: str) -> str:
    """Returns a text's words in their folded form, joined by single blanks."""
    words = " ".join(split_words(_APOSTROPHE.sub("", text)))
    words = _romanise(words)
    for pattern, to in _LATIN:
        words = pattern.sub(to, words)
    return _JOINED.sub(r"\1 \2", words)


def skeleton(folded: str) -> str:
    """Returns a folded text with one sign for all vowels inside a word, and one for c and s: ache, ase, asey."""
    for pattern, to in _SKELETON:
        folded = pattern.sub(to, folded)
    return folded


_SKELETON = _rules([(r"c", "s"), (r"(?<=\w)[aeiuy]+(?=\w)", "a")])
