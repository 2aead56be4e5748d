"""What a cleaning rule took, as a reader sees it: an excerpt around the place, whole letters, nothing invisible."""

import bisect
import itertools
import os
from collections.abc import Callable

import regex

from helpers.language.hotlines import foreign_crisis_number

BEFORE, AFTER = 25, 50  # letters, with all their signs, that an excerpt shows of a text

URL = regex.compile(r"https?\s?:\s?//|\bwww\s?\.|\b[\w-]+\.(?:com|org|net|edu|gov|info)\b", regex.IGNORECASE)
_INVISIBLE = regex.compile(r"[[\p{C}\p{Z}]--[ \n\u200c\u200d]]", regex.VERSION1)
_UNSEEN = regex.compile(r"[\u200c\u200d]| (?= |$)|(?<=^|\n) ")


def excerpt(text: str, place: int = 0) -> str:
    """Returns what stands around a place of a text, cut between letters; what is invisible is written out."""
    letters = regex.findall(r"\X", text)
    ends = list(itertools.accumulate(map(len, letters)))  # of each letter, in the text
    index = min(bisect.bisect_right(ends, place), len(letters) - 1)
    first, last = max(0, index - BEFORE), index + AFTER
    shown = _INVISIBLE.sub(lambda match: f"[U+{ord(match[0]):04X}]", "".join(letters[first:last]))
    return f"{'…' * (first > 0)}{shown}{'…' * (last < len(letters))}"


def excerpt_change(before: str, after: str) -> str:
    """Returns the first place where two texts differ, before and after; joiners and spaces are seen where they do."""
    place = len(os.path.commonprefix([before, after]))
    shown = [excerpt(text, place) for text in (before, after)]
    if len({_UNSEEN.sub("", text) for text in shown}) == 1:
        shown = [_UNSEEN.sub(lambda match: "␣" if match[0] == " " else f"[U+{ord(match[0]):04X}]", s) for s in shown]
    return f"{shown[0]} → {shown[1] or '(nothing)'}"


def _find_number(text: str) -> int:
    words = regex.finditer(r"\S+", text)  # the first with which the text so far names a number
    return next((word.start() for word in words if foreign_crisis_number(text[: word.end()])), 0)


_PLACES: dict[str, Callable[[str], int]] = {  # rule: where in an answer it found something
    "signature": lambda answer: max(0, len(answer) - 1),
    "foreign crisis number": _find_number,
}


def excerpt_row(rule: str, question: str, answer: str) -> str:
    """Returns the part of a dropped row that its rule found, or the beginnings of both sides."""
    if rule == "url":
        return next((excerpt(text, match.start()) for text in (question, answer) if (match := URL.search(text))), "")
    if rule == "question is the answer":
        return f"{excerpt(question)} (on both sides)"
    if rule in _PLACES:
        return excerpt(answer, _PLACES[rule](answer))
    return f"{excerpt(question) or '(empty)'} → {excerpt(answer) or '(empty)'}"
