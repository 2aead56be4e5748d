"""What a message that speaks of self-harm or violence is answered with, before anything a model writes.

The rules and the message stand in care.yaml, with their known limits.
"""

from functools import cache
from pathlib import Path
from typing import Any

import regex
import yaml

from helpers.language.bengali import latin_digits, normalise, split_words
from helpers.language.hotlines import HELPLINES


@cache
def care_data() -> dict[str, Any]:
    """Returns care.yaml: the message by language, and groups of rules."""
    return yaml.safe_load(Path(__file__).with_name("care.yaml").read_text(encoding="utf-8"))


@cache
def _patterns() -> list[tuple[str, regex.Pattern, regex.Pattern]]:
    """Returns (group, any of its rules, any of its exceptions)."""
    groups = care_data()["groups"].items()
    return [(name, _any_rule(group["rules"]), _any_rule(group["unless"])) for name, group in groups]


def _any_rule(rules: list[str]) -> regex.Pattern:
    """Returns rules of care.yaml as one regular expression over words, each with a space after it."""
    words = ([word.replace("~", r"\S*") + " " for word in normalise(rule).split()] for rule in rules)
    patterns = "|".join("".join(rule).replace(".. ", r"(?:\S+ ){0,4}") for rule in words)
    return regex.compile(rf"(?<!\S)(?:{patterns})")


def detect_crisis(message: str) -> str:
    """Returns the group of care.yaml that a message falls into, "" for none."""
    for sentence in regex.split(r"[।॥?!\n.;]+", message):
        words = "".join(f"{word} " for word in split_words(sentence))
        for group, rules, exceptions in _patterns():
            if rules.search(words) and not exceptions.search(words):
                return group
    return ""


def crisis_answer(language: str = "bn") -> str:
    """Returns the fixed message with the helplines, a line each, in Bengali ("bn") or English ("en")."""
    lines = [care_data()["message"][language], ""]
    for line in HELPLINES:
        english = language == "en"
        country, name, hours = (line[key + "_en" * english] for key in ("country", "name", "hours"))
        number = latin_digits(line["number"]) if english else line["number"]
        lines.append(f"{country} · {name}: {number} ({hours})")
    return "\n".join(lines)
