"""What a message that speaks of self-harm or violence is answered with, before anything a model writes.

A learned detector decides (detector.py); the rules of care.yaml are among what it reads. The fixed message stands in
care.yaml, with the known limits of all this.
"""

from helpers.language.bengali import latin_digits
from helpers.language.crisis_features import matched_rules, read_yaml
from helpers.language.detector import score, windows
from helpers.language.hotlines import HELPLINES


def detect_crisis(message: str) -> str:
    """Returns what a message speaks of, "" for no crisis: a group of care.yaml, or "learned" where no rule matches."""
    for part in windows(message):
        if score(part) > 0:
            return next(iter(matched_rules(part)[1]), "learned")
    return ""


def crisis_answer(language: str = "bn") -> str:
    """Returns the fixed message with the helplines, a line each, in Bengali ("bn") or English ("en")."""
    lines = [read_yaml("care.yaml")["message"][language], ""]
    for line in HELPLINES:
        english = language == "en"
        country, name, hours = (line[key + "_en" * english] for key in ("country", "name", "hours"))
        number = latin_digits(line["number"]) if english else line["number"]
        lines.append(f"{country} · {name}: {number} ({hours})")
    return "\n".join(lines)
