"""What a message that speaks of self-harm or violence is met with, before anything a model writes.

The rules, the message and the helplines stand in care.yaml, with their sources, dates and known limits.
"""

from functools import cache
from pathlib import Path

import regex
import yaml

from helpers import text


@cache
def data() -> dict:
    """Returns care.yaml: message, helplines, groups of rules."""
    return yaml.safe_load(Path(__file__).with_name("care.yaml").read_text(encoding="utf-8"))


@cache
def _patterns() -> list[tuple[str, regex.Pattern, regex.Pattern | None]]:
    """Returns (group, any of its rules, any of its exceptions)."""
    return [
        (name, _any(group["rules"]), _any(group["unless"]) if group.get("unless") else None)
        for name, group in data()["groups"].items()
    ]


def _any(rules: list[str]) -> regex.Pattern:
    return regex.compile("|".join(map(_rule, rules)))


def _rule(rule: str) -> str:
    """Returns a rule of care.yaml as a regular expression over words, each with a blank after it."""
    parts = []
    for part in text.normalise(rule).split(" "):
        parts.append(r"(?:\S+ ){0,4}" if part == ".." else part.replace("~", r"\S*") + " ")
    return r"(?<!\S)(?:" + "".join(parts) + ")"


def crisis(message: str) -> str:
    """Returns the group of care.yaml that a message falls into, "" for none."""
    for sentence in regex.split(r"[।॥?!\n.;]+", message):
        words = "".join(f"{word} " for word in text.words(sentence))
        for name, rules, unless in _patterns():
            if rules.search(words) and not (unless and unless.search(words)):
                return name
    return ""


def answer(language: str = "bn") -> str:
    """Returns the fixed message with the helplines, a line each, in Bengali ("bn") or English ("en")."""
    lines = [data()["message"][language], ""]
    for line in data()["helplines"]:
        country = {"বাংলাদেশ": "Bangladesh", "ভারত": "India"}[line["country"]] if language == "en" else line["country"]
        name, hours = (line["name_en"], line["hours_en"]) if language == "en" else (line["name"], line["hours"])
        number = text.latin_digits(line["number"]) if language == "en" else line["number"]
        lines.append(f"{country} · {name}: {number} ({hours})")
    return "\n".join(lines)


def numbers() -> set[str]:
    """Returns the helplines' numbers, other ones of the same line included, as digits 0 to 9."""
    written = [number for line in data()["helplines"] for number in (line["number"], line.get("also", ""))]
    found = {regex.sub(r"\D", "", text.latin_digits(number)) for number in written}
    return {number for number in found if number}


def rates(messages: dict[str, list[str]]) -> dict:
    """Returns {"recall", "false_alarms", "missed", "wrongly_found"} over {"crisis": […], "not_crisis": […]}."""
    missed = [one for one in messages["crisis"] if not crisis(one)]
    wrong = [one for one in messages["not_crisis"] if crisis(one)]
    return {
        "recall": 1 - len(missed) / len(messages["crisis"]),
        "false_alarms": len(wrong) / len(messages["not_crisis"]),
        "missed": missed,
        "wrongly_found": wrong,
    }
