"""Rules of Bengali text: one normal form, words that keep their vowel signs, sentences that end in a danda."""

import hashlib
import unicodedata

import regex

JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner: shape a conjunct, change no word
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_CONTROL = regex.compile(r"[[\p{Cc}\p{Cf}]--[\n\t\u200c\u200d]]", regex.VERSION1)  # bidi marks and BOM too
_BREAK = regex.compile(r"\r\n|[\r\u2028\u2029]")
_BLANKS = regex.compile(r"[^\S\n]+")
_DIGITS = {ord("০") + digit: str(digit) for digit in range(10)}
_INDIAN = r"1?[\s-]*800[\s-]*(?:891[\s-]*4416|599[\s-]*0019)"  # toll-free, in the same form: Tele MANAS, Kiran
_FOREIGN_CRISIS = regex.compile(  # numbers of the United States
    rf"(?<![\d-])(?!{_INDIAN})"
    r"(?:911|988|741\s?-?\s?741|1?[\s-]*\(?8(?:00|33|44|55|66|77|88)\)?[\s-]*\d{3}[\s-]*\d{4})(?![\d-])"
)
_LINES = regex.compile(r" ?\n[ \n]*\n ?| ?\n ?")


def normalise(text: str) -> str:
    """Returns the text in the one form the suite uses; idempotent.

    NFC (which writes U+09DC, U+09DD and U+09DF as letter + nukta), no control or bidi characters, single spaces,
    at most one blank line in a row, no space at either end.
    """
    text = unicodedata.normalize("NFC", _BREAK.sub("\n", text))
    text = _BLANKS.sub(" ", _CONTROL.sub("", text))
    return _LINES.sub(lambda gap: "\n\n" if gap.group().count("\n") > 1 else "\n", text).strip()


def words(text: str) -> list[str]:
    """Returns the words: runs of letters, marks and digits of the NFC text, Latin in lower case, joiners removed.

    Python's own \\w splits Bengali at its vowel signs, and rouge_score's default keeps [a-z0-9] only.
    """
    text = unicodedata.normalize("NFC", text).translate({ord(joiner): None for joiner in JOINERS})
    return _WORD.findall(text.lower())


def latin_digits(text: str) -> str:
    """Returns the text with 0 to 9 for Bengali digits."""
    return text.translate(_DIGITS)


def foreign_crisis_number(text: str) -> str:
    """Returns the first crisis number of the United States in a text, in either kind of digits, "" without one."""
    found = _FOREIGN_CRISIS.search(latin_digits(text))
    return found.group().strip() if found else ""


def bengali_share(text: str) -> float:
    """Returns the share of letters that are Bengali, 0 to 1; 0 for a text without letters."""
    letters = regex.findall(r"\p{L}", text)
    return sum("\u0980" <= letter <= "\u09ff" for letter in letters) / len(letters) if letters else 0.0


def shuffle_key(seed: int, name: str) -> bytes:
    """Returns a sort key that puts names into an order decided by the seed and each name, not by where they stood."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
