"""Whose hotline a number is: foreign crisis numbers, and the helplines of Bangladesh and India (helplines.yaml)."""

from pathlib import Path

import regex
import yaml

from helpers.language.bengali import latin_digits

# Each line's country, name, hours (these three also in English), number and source
HELPLINES: list[dict[str, str]] = yaml.safe_load(Path(__file__).with_name("helplines.yaml").read_text(encoding="utf-8"))

_WRITTEN = [number for line in HELPLINES for number in (line["number"], line.get("also", ""))]
HELPLINE_NUMBERS = {regex.sub(r"\D", "", latin_digits(number)) for number in _WRITTEN} - {""}  # as digits 0 to 9

_INDIAN = r"1?[\s-]*800[\s-]*(?:891[\s-]*4416|599[\s-]*0019)"  # Tele MANAS and Kiran: toll-free, in the same form
_FOREIGN_CRISIS = regex.compile(  # numbers of the United States
    rf"(?<![\d-])(?!{_INDIAN})"
    r"(?:911|988|741\s?-?\s?741|1?[\s-]*\(?8(?:00|33|44|55|66|77|88)\)?[\s-]*\d{3}[\s-]*\d{4})(?![\d-])"
)


def foreign_crisis_number(text: str) -> str:
    """Returns the first crisis number of the United States in a text, in either kind of digits, "" without one."""
    match = _FOREIGN_CRISIS.search(latin_digits(text))
    return match.group().strip() if match else ""


def names_helpline(reply: str) -> bool:
    """Returns whether a reply names one of the region's numbers, however its digits are written and parted."""
    numbers = regex.findall(r"\d[\d\s-]*\d", latin_digits(reply))
    return any(regex.sub(r"\D", "", number) in HELPLINE_NUMBERS for number in numbers)
