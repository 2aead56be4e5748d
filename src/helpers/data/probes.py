"""Probes of what a model could do before its training, in Bengali and English (probes.yaml), as rows to be scored.

Knowledge and reasoning are questions with four answers, of which a model is to find the right one the likeliest; they
are not listed, so that none has a place. Grammar is pairs of sentences, of which the right one is to be the likelier.
Text is general prose. Instructions have replies that a rule checks.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from helpers.runs.files import load_yaml

LANGUAGES = ("bn", "en")
CHOICES = ("knowledge", "reasoning")


class Probe(NamedTuple):
    """A text whose likelihood is scored: an answer to a question, or a sentence or paragraph by itself."""

    score: str  # that it counts for, of helpers.evaluation.metrics.PROBE_SCORES
    item: str
    right: bool
    row: dict[str, Any]  # a data row


class Instruction(NamedTuple):
    """A message whose reply a rule checks."""

    item: str
    language: str
    messages: list[dict[str, str]]
    check: dict[str, Any]


@cache
def read_probes() -> dict[str, list[dict[str, Any]]]:
    """Returns probes.yaml: {kind: items}."""
    return load_yaml(Path(__file__).with_suffix(".yaml"))


def select_items(kind: str, most: int) -> list[dict[str, Any]]:
    """Returns the items of a kind, or `most` of them spread over the file; 0: all."""
    items = read_probes()[kind]
    return items[:: max(1, len(items) // most) if most else 1][: most or None]


def scored_probes(system: list[dict[str, str]], most: int = 0) -> list[Probe]:
    """Returns the probes whose likelihood is scored, `most` items of each kind; `system` begins each conversation."""
    probes = []
    for kind in CHOICES:
        for item in select_items(kind, most):
            for language in LANGUAGES:
                question, options = item[language]["question"], item[language]["options"]
                for place, option in enumerate(options):
                    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": option}]
                    row = {"id": f"{item['id']} {language} {place}", "messages": [*system, *turns]}
                    probes.append(Probe(f"{kind}_{language}", item["id"], place == 0, row))
    for item in select_items("text", most):
        for language in LANGUAGES:
            row = {"id": f"{item['id']} {language}", "text": item[language].strip()}
            probes.append(Probe(f"text_{language}", item["id"], True, row))
    for item in select_items("grammar", most):
        for side in ("right", "wrong"):
            row = {"id": f"{item['id']} {side}", "text": item[side]}
            probes.append(Probe("grammar_bn", item["id"], side == "right", row))
    return probes


def instructions(system: list[dict[str, str]], most: int = 0) -> list[Instruction]:
    """Returns the instructions, `most` items of them, in both languages."""
    return [
        Instruction(item["id"], language, [*system, {"role": "user", "content": item[language]}], item["check"])
        for item in select_items("instructions", most)
        for language in LANGUAGES
    ]
