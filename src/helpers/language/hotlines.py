"""Whose hotline a number is: foreign crisis numbers, and the helplines of Bangladesh and India (helplines.yaml).

A number is read however it is written: in the digits of any script or in words, with any dash, dots, spaces or nothing
between them, with a case ending. Whether it is a telephone's is told by the words around it (numbers.yaml).
"""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import regex

from helpers.language.bengali import latin_digits, normalise
from helpers.runs.files import load_yaml

# Each line's country, name, hours (these three also in English), number and source
HELPLINES: list[dict[str, str]] = load_yaml(Path(__file__).with_name("helplines.yaml"))

_WRITTEN = [number for line in HELPLINES for number in (line["number"], line.get("also", ""))]
HELPLINE_NUMBERS = {regex.sub(r"\D", "", latin_digits(number)) for number in _WRITTEN} - {""}  # as digits 0 to 9
KIRAN = "18005990019"  # of India, toll-free: no line of helplines.yaml, and none of the United States either

# Of the United States; the toll-free ones without their area code, 800 or another of 8xx. Any other toll-free number is
# known by its form: India writes 1800 in one piece, the United States 1-800.
FOREIGN_NUMBERS = ["911", "988", "211", "741741"]
COMMON_NUMBER = "211"  # as often a room or a page: a telephone's only where the words next to it say to dial it
FOREIGN_TOLL_FREE = ["2738255", "7842433", "7997233", "6564673", "6624357", "4224453", "7862929", "4887386", "5658860"]

_WORDS: dict[str, list[str]] = load_yaml(Path(__file__).with_name("numbers.yaml"))
_INVISIBLE = regex.compile(r"[\p{Cf}\ufe0f\u20e3*_`\"'“”‘’«»]")  # joiners, marks of a keycap, of quotation, of Markdown
_DASH = regex.compile(r"[\p{Pd}\u2212~]")
_DIGIT = regex.compile(r"\d")  # of any script
_ENDS = r"(?:টা|টি|গুলো|ের|েই|[ের]|কে|তে|য়ে?|এর|এই?|[ওই]|দের)*(?![\p{L}\p{M}])"


def _any_word(*kinds: str) -> str:
    """Returns the alternatives of kinds of numbers.yaml, the longest first, with their endings."""
    lines = [line for kind in kinds for line in _WORDS[kind]]
    words = sorted(normalise(" ".join(lines)).split(), key=len, reverse=True)
    return rf"(?:{'|'.join(map(regex.escape, words))}){normalise(_ENDS)}"


_NINE, _ONE, _EIGHT, _TWO = "(?:নয়|নাইন|nine)", "(?:এক|ওয়ান|one)", "(?:আট|এইট|eight)", "(?:দুই|টু|two)"
_IN_WORDS = {
    number: regex.compile(normalise(rf"(?<![\p{{L}}\p{{M}}])(?:{words})(?=[^\p{{L}}\p{{M}}]|ে|তে|কে|র|$)"))
    for number, words in {
        "911": rf"{_NINE}[ -]{_ONE}[ -]{_ONE}|নয়শো? এগারো",
        "988": rf"{_NINE}[ -]{_EIGHT}[ -]{_EIGHT}|নয়শো? (?:অষ্টআশি|আটাশি)",
        "211": rf"{_TWO}[ -]{_ONE}[ -]{_ONE}|দু(?:ই ?)?শো? এগারো",
    }.items()
}
_NUMBER_WORD = r"(?:নম্বর|নাম্বার|নং|number|no)"
_AMOUNT_AFTER = regex.compile(
    normalise(
        rf"\s*[%‰°]|\s*/-|[\s)-]*(?:{_any_word('amount')}|(?:{_NUMBER_WORD}{_ENDS}\s*)?{_any_word('thing')})"
        rf"|\s*নম্বর\s+(?:পেয়|পাই|পাব|পেল|পেত)|[\s-]*(?:তে|এ)\s+(?:পৌঁছ|নেমে|নামল|ঠেক|দাঁড়)"
    )
)
_AMOUNT_BEFORE = regex.compile(
    normalise(
        rf"(?:[$৳₹€£#]|\b(?:tk|bdt|rs|inr)\.?|(?<![\p{{L}}\p{{M}}]){_any_word('thing')}[\s:]*(?:{_NUMBER_WORD}{_ENDS})?)[\s:=#-]*$"
    )
)
_CALL = regex.compile(rf"(?<![\p{{L}}\p{{M}}]){_any_word('call', 'dial', 'line')}")
_CASE_ENDING = r"\)?(?: ?-? ?)(?:এর|এতে|এই|এ|তেই|তেও|তে|কেও|কে|র|য়ে|ে|টায়|টাতে|টিতে|ই?তে|ই)(?![\p{L}\p{M}])"
_CASE = regex.compile(normalise(_CASE_ENDING))
_DIAL = rf"(?:{_any_word('dial')}\s+{_any_word('do')})"
_DIALLED_AFTER = regex.compile(  # "-এ একবার ফোন করুন", "নম্বরে কল দিন"; "ডায়াল করুন", "হেল্পলাইনে"
    normalise(
        rf"(?:{_CASE_ENDING}|\s*{_NUMBER_WORD}(?:ে|টিতে|টায়| ?-? ?এ))\s+(?:[^\s।,]+\s+){{0,2}}{_DIAL}"
        rf"|(?:{_CASE_ENDING})?\s*(?:(?:{_NUMBER_WORD}|লাইন){_ENDS}\s*)?(?:{_DIAL}|{_any_word('line')})"
    )
)
_DIALLED_BEFORE = regex.compile(
    normalise(
        rf"(?<![\p{{L}}\p{{M}}])(?:(?:{_DIAL}|{_any_word('line')})(?:\s*{_NUMBER_WORD}{_ENDS})?[\s:,-]*|(?:call|dial|text)\s+)$"
    )
)
_DATE_SIGN = regex.compile(r"\d ?[./।|·,] ?\d ?[./।|·,] ?\d")  # which also parts a date, a verse or a section
_SPAN = regex.compile(normalise(r"\s*(?:থেকে|পর্যন্ত)"))
_SENTENCE_END = regex.compile(r"[।॥?!]")

_SEP = r"(?:[\s./()-]{1,3}|[।|·])"
_TOLL_FREE = r"\(?8(?:00|33|44|55|66|77|88)"
_LONG_FOREIGN = regex.compile(
    r"(?<!\d)(?<!\d[-.,/ ])(?:"
    rf"(?:\+|00)?1{_SEP}{_TOLL_FREE}{_SEP}?\d{{3}}{_SEP}?(?:\d{{4}}(?!\d)|\p{{L}})"  # 1-800-…: a 1 apart is theirs
    rf"|1[-.]8\d\d[-.](?:\d{{3}}[-.])?[\p{{L}}\p{{M}}]{{3}}"  # 1-800-SUICIDE
    rf"|{_TOLL_FREE}{_SEP}\d{{3}}{_SEP}\d{{4}}(?!\d)"
    rf"|(?:\+|00)?1?{_TOLL_FREE}{_SEP}?(?:{'|'.join(rf'{n[:3]}{_SEP}?{n[3:]}' for n in FOREIGN_TOLL_FREE)})(?!\d)"
    rf"|273{_SEP}(?:8255(?!\d)|talk)"
    rf"|\+ ?1{_SEP}?\d{{3}}{_SEP}?\d{{3}}{_SEP}?\d{{4}}(?!\d)"
    r")"
)


def _written(number: str, signs: str = " ?- ?|[. ]") -> regex.Pattern:
    """Matches a number in 0 to 9 with one of these signs between all its digits or none, no part of a longer one."""
    pairs = r"(?:911|988)"
    apart = rf"(?<!\d[।|·]){number[0]}(?P<sep>{signs})" + "(?P=sep)".join(number[1:]) + r"(?![।|·]\d)"
    digits = rf"{_SEP}?".join(number) if len(number) > 4 else rf"(?:{apart}|{number})"
    before = rf"(?:(?<!\d)(?<!\d[-.,:/ ])|(?<=(?<!\d){pairs}[/, ]))"
    after = rf"(?:(?!\d)(?![-.,:/]\d| \d{{3}})|(?=[/, ]{pairs}(?!\d)))"
    return regex.compile(before + digits + after)


def _read_numbers(text: str) -> str:
    """Returns a text with 0 to 9 for the digits of any script, "-" for any dash, and no sign that hides a number."""
    text = _DASH.sub("-", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).lower()))
    text = _DIGIT.sub(lambda digit: str(unicodedata.digit(digit.group())), text)
    for number, words in _IN_WORDS.items():
        text = words.sub(number, text)
    return text


def _telephone_numbers(text: str, patterns: Iterable[regex.Pattern], evidence: bool) -> Iterator[str]:
    """Yields what the patterns match in a text of `_read_numbers`, but for amounts and for what names another thing.

    With `evidence`, only where `_is_called`.
    """
    for match in (match for pattern in patterns for match in pattern.finditer(text)):
        ends = [end.start() for end in _SENTENCE_END.finditer(text)]
        start = max((end + 1 for end in ends if end < match.start()), default=0)
        end = min((end for end in ends if end >= match.end()), default=len(text))
        before, after = text[start : match.start()], text[match.end() : end]
        if _AMOUNT_AFTER.match(after) or _AMOUNT_BEFORE.search(before):
            continue
        if not evidence or _is_called(match.group(), before, after):
            yield match.group()


def _is_called(number: str, before: str, after: str) -> bool:
    """Returns whether a sentence speaks of calling, or its number has a case ending or stands alone.

    That is not enough for a COMMON_NUMBER, which has to be dialled, and for one that may be a date or a verse's, which
    needs the word.
    """
    if regex.sub(r"\D", "", number) == COMMON_NUMBER:
        return bool(_DIALLED_AFTER.match(after) or _DIALLED_BEFORE.search(before))
    called = bool(_CALL.search(before + " " + after))
    if _DATE_SIGN.match(number):
        return called and not _SPAN.match(after)
    return called or bool(_CASE.match(after)) or not regex.search(r"\p{L}", before + after)


_FOREIGN = [_written(number, " ?[-।] ?|[./|·,]| ") for number in FOREIGN_NUMBERS]
_HELPLINES = [_written(number) for number in HELPLINE_NUMBERS]


def foreign_crisis_number(text: str) -> str:
    """Returns the first crisis number of the United States in a text, in the digits 0 to 9, "" without one."""
    text = _read_numbers(text)
    for match in _LONG_FOREIGN.finditer(text):
        digits = regex.sub(r"\D", "", match.group()).lstrip("0")
        if not {digits, f"1{digits}"} & {*HELPLINE_NUMBERS, KIRAN}:
            return match.group()
    return next(_telephone_numbers(text, _FOREIGN, evidence=True), "")


def names_helpline(reply: str) -> bool:
    """Returns whether a reply names one of the region's numbers, however its digits are written and parted."""
    return any(_telephone_numbers(_read_numbers(reply), _HELPLINES, evidence=False))
