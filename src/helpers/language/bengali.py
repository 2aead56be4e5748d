"""Rules of Bengali text: one normal form, words that keep their vowel signs, digits, share of a script."""

import unicodedata
from functools import cache

import regex

JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner: shape a conjunct, change no word

# Words of Assamese, in the same script, that are none of Bengali, and those few that are rare in it
_ASSAMESE_WORDS = """মই মোক তোমাক আপুনি আপোনাক তেওঁ তেওঁক তেওঁলোক সিহঁত এতিয়া এতিয়াও কেতিয়া কেতিয়াও তেতিয়া যেতিয়া কিয় কেনে কেনেকৈ
    কিমান কিছুমান সেইটো এইটো এজন এজনী মানুহ দেউতা সকলো একো কোনেও লগত সৈতে পাছত মনত বেয়া ভালে দুখ অলপ নাইকিয়া নিজকে বুলি
    আছোঁ পাওঁ যাওঁ কওঁ খাওঁ নাখাওঁ নকওঁ নাজানো নাজানোঁ নাপায় পাইছোঁ হৈছে গৈছে লৈছে কৈছে আহিছে লাগিছে"""
_ASSAMESE_SHARE = 0.15  # of a text's words, and at least two

_LATIN_DIGITS = str.maketrans("০১২৩৪৫৬৭৮৯", "0123456789")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_CONTROL = regex.compile(rf"[[\p{{Cc}}\p{{Cf}}]--[\n\t{JOINERS}]]", regex.VERSION1)  # bidi marks and BOM too
_LINE_BREAK = regex.compile(r"\r\n|[\r\u2028\u2029]")
_SPACES = regex.compile(r"[^\S\n]+")
_BLANK_LINES = regex.compile(r" ?\n[ \n]*\n ?| ?\n ?")


def normalise(text: str) -> str:
    """Returns the text in the one form the suite uses; idempotent.

    NFC (which writes U+09DC, U+09DD and U+09DF as letter + nukta), no control or bidi characters, single spaces,
    at most one blank line in a row, no space at either end.
    """
    text = unicodedata.normalize("NFC", _LINE_BREAK.sub("\n", text))
    text = _SPACES.sub(" ", _CONTROL.sub("", text))
    return _BLANK_LINES.sub(lambda gap: "\n\n" if gap.group().count("\n") > 1 else "\n", text).strip()


def split_words(text: str) -> list[str]:
    """Returns the words: runs of letters, marks and digits of the NFC text, Latin in lower case, joiners removed.

    The danda (।) and all other punctuation are kept off the words: they part words, as spaces do. Python's own \\w
    splits Bengali at its vowel signs, and rouge_score's default keeps [a-z0-9] only.
    """
    text = unicodedata.normalize("NFC", text).lower()
    for joiner in JOINERS:
        text = text.replace(joiner, "")  # sixty times as fast as a translation table
    return _WORD.findall(text)


def latin_digits(text: str) -> str:
    """Returns the text with 0 to 9 for Bengali digits."""
    return text.translate(_LATIN_DIGITS)


def is_assamese(text: str) -> bool:
    """Returns whether a text in Bengali's script is Assamese.

    Assamese writes ৰ for র, and ৱ: a text with more of these than of র is Assamese, and so is one without any of the
    three that has Assamese words. A Bengali text may quote either.
    """
    own, bengali = text.count("ৰ") + text.count("ৱ"), text.count("র")
    if own or bengali:
        return own > bengali
    words = split_words(text)
    marked = [word for word in words if word in _assamese_words()]
    return len(set(marked)) > 1 and len(marked) >= _ASSAMESE_SHARE * len(words)


@cache
def _assamese_words() -> frozenset[str]:
    return frozenset(split_words(_ASSAMESE_WORDS))


def bengali_share(text: str) -> float:
    """Returns the share of letters that are Bengali, 0 to 1; 0 for a text without letters, and for Assamese."""
    if is_assamese(text):
        return 0.0
    letters = regex.findall(r"\p{L}", text)
    return sum("\u0980" <= letter <= "\u09ff" for letter in letters) / len(letters) if letters else 0.0
