"""What the pages of a run say, in English or in Bengali: words_en.yaml and words_bn.yaml."""

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from helpers.reporting.tables import LABELS
from helpers.runs.files import load_yaml

LANGUAGES = ("en", "bn")

COPIED = ("commit", "here", "notebook")  # headings of values that a reader may have to type

BENGALI_DIGITS = str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")

SCORES = {label: score for score, (label, _) in LABELS.items()}  # by its English label


class Term(NamedTuple):
    """What a word of a table means."""

    key: str  # part of an id on the page
    name: str
    meaning: str


class _Sentences(string.Formatter):
    """`str.format`, whose numbers stand in a language's own digits; a text stays as it is."""

    def __init__(self, language: str) -> None:
        self.language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        text = format(value, format_spec)
        return text if isinstance(value, str) else in_digits(text, self.language)


def in_digits(text: str, language: str) -> str:
    """Returns a number as text in the language's own digits."""
    return text.translate(BENGALI_DIGITS) if language == "bn" else text


def _show_percent(value: float, sign: str) -> str:
    """Returns 100 times a number to one digit; 0 has no sign."""
    rounded = round(100 * value, 1) or 0.0
    return f"{rounded:{sign if rounded else ''}.1f}".removesuffix(".0")


@cache
def read_texts(language: str) -> dict[str, dict[str, str]]:
    """Returns {section: {key: text}} of a language. Raises ValueError for one that is not there."""
    if language not in LANGUAGES:
        raise ValueError(f"page_language is {language!r}: expected one of {', '.join(LANGUAGES)}.")
    return load_yaml(Path(__file__).parent / f"words_{language}.yaml")


@dataclass
class Words:
    """The words of one page, and which of its terms it has explained already."""

    language: str = "en"
    explained: set[str] = field(default_factory=set)
    runs: frozenset[str] = frozenset()  # names of runs, shown as they are: "other" is a word of tables.yaml too

    def say(self, path: str, **values: Any) -> str:
        """Returns the text of "section.key", its placeholders filled; raises KeyError for one that is not there."""
        section, _, key = path.partition(".")
        return _Sentences(self.language).vformat(read_texts(self.language)[section][key], (), values)

    def of(self, section: str, key: str) -> str:
        """Returns the text of a key that the run's files name; the key itself where it is none of the known ones."""
        return read_texts(self.language)[section].get(key, key)

    def name(self, english: str) -> str:
        """Returns a label or heading of tables.yaml in this language; in English where it has none."""
        if english in self.runs:
            return english
        return read_texts(self.language).get("names", {}).get(english, english)

    def number(self, value: float, digits: int, sign: str = "") -> str:
        """Returns a number to so many digits."""
        return in_digits(f"{value:{sign}.{digits}f}", self.language)

    def share(self, value: float | None, sign: str = "") -> str:
        """Returns a share of 0 to 1, or a relative change, as "75 %", with as many digits as a reader needs.

        None was not measured. A difference of two shares is for `points`.
        """
        if value is None:
            return self.say("page.not_measured")
        small = 1e-9 < abs(100 * value) < 0.1
        shown = f"{100 * value:{sign}.2g}" if small else _show_percent(value, sign)
        return in_digits(f"{shown} %", self.language)

    def points(self, value: float, sign: str = "", unit: bool = True) -> str:
        """Returns a difference of two shares of 0 to 1 as "12.5 percentage points": "%" would be a part of one.

        `unit` is False inside an interval.
        """
        percent = _show_percent(value, sign)
        shown = in_digits(percent, self.language)
        return self.say("unit.point" if percent.lstrip("+-") == "1" else "unit.points", number=shown) if unit else shown

    def hours(self, value: float) -> str:
        """Returns hours that were set, "1 hour" or "2.5 hours"."""
        return self.say("unit.hour" if value == 1 else "unit.hours", number=in_digits(f"{value:g}", self.language))

    def duration(self, hours: float | None) -> str | None:
        """Returns hours in the unit that suits them; 0 is a plan's time that was rounded away."""
        if hours is None:
            return None
        units = (("hours", 1), ("minutes", 60), ("seconds", 3600))
        unit, scale = next((pair for pair in units if hours * pair[1] >= 1), units[-1])
        return self.say(f"time.{unit}", value=hours * scale) if hours else self.say("time.none")

    def cell(self, heading: str, text: str, numbers: bool) -> str:
        """Returns a table's cell as a reader sees it."""
        section = {
            "verdict": "outcome",
            "aim": "aim",
            "status": "status",
            "ended because": "status",
            "category": "category",
        }.get(heading)
        if section:
            return self.of(section, text)
        if text == "not measured":
            return self.say("page.not_measured")
        if length := re.fullmatch(r"(\d+) to (\d+) words", text):
            low, high = map(int, length.groups())
            return self.say("page.word_range", low=low, high=high)
        if heading not in COPIED and re.fullmatch(r"[-+\d][-\d,.:]*(?: ?%)?( [\d:]+ UTC)?", text):
            return in_digits(text, self.language)
        if not numbers or not re.match(r"[-+–\d]", text):
            return self.name(text)
        return in_digits(text.replace(" to ", f" {self.say('page.to')} "), self.language)

    def term(self, english: str) -> Term | None:
        """Returns what a label or heading means; None for a plain word."""
        key = SCORES.get(english, english)
        meaning = read_texts(self.language)["terms"].get(key)
        return Term("".join(c if c.isalnum() else "-" for c in key), self.name(english), meaning) if meaning else None

    def new_terms(self, terms: Iterable[Term | None]) -> list[Term]:
        """Returns the terms that the page has not explained yet, and counts them as explained."""
        new = {term.key: term for term in terms if term and term.key not in self.explained}
        self.explained |= set(new)
        return list(new.values())

    def table_terms(self, rows: list[Mapping[str, str]]) -> list[Term]:
        """Returns the terms of a table, in its first column and its headings, that are not explained yet."""
        return self.new_terms(map(self.term, [*(next(iter(row.values())) for row in rows), *rows[0]]))

    def mark_terms(self, text: str) -> list[tuple[str, Term | None]]:
        """Returns a text in pieces, each with the term that it names there for the first time, or None."""
        marks = {mark.lower(): key for key, mark in read_texts(self.language)["marks"].items()}
        pieces = []
        for piece in re.split(f"({'|'.join(map(re.escape, marks))})", text, flags=re.IGNORECASE):
            term = self.term(marks.pop(piece.lower(), ""))
            pieces.append((piece, term._replace(name=piece) if term else None))
        return pieces
