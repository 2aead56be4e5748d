"""What the tuned model has forgotten: the scores of the probes of helpers.data.probes, base against tuned.

A question counts as answered when the right answer is the likeliest one per character (chance: 1 of 4), a pair of
sentences when the right one is (1 of 2). Text is in bits per character.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import regex

from helpers.data.probes import LANGUAGES, Instruction, Probe
from helpers.evaluation.comparison import Comparison, compare_models
from helpers.evaluation.metrics import PROBE_SCORES
from helpers.evaluation.resampling import adjust_holm
from helpers.language.bengali import latin_digits, normalise, split_words

INSTRUCTION_TOKENS = 48  # of a reply to an instruction at most


def follows(reply: str, check: Mapping[str, Any], language: str) -> bool:
    """Returns whether a reply does what an instruction's check asks for. Raises KeyError for an unknown kind."""
    text, kind = normalise(reply).strip(), check["kind"]
    bare = _bare(text)
    if kind == "number":
        numbers = {int(number) for number in regex.findall(r"\d+", latin_digits(text).replace(",", ""))}
        return numbers == {check["value"]}
    counts = {"words": len(split_words(text)), "lines": sum(bool(line.strip()) for line in text.splitlines())}
    if kind in counts:
        return check["least"] <= counts[kind] <= check["most"]
    wanted = check[language]
    return {
        "equals": lambda: bare == _bare(wanted),
        "one_of": lambda: bare in map(_bare, wanted),
        "contains": lambda: _bare(wanted) in bare,
        "starts_with": lambda: bare.startswith(_bare(wanted)),
    }[kind]()


def _bare(text: str) -> str:
    """Returns a text in small letters, without the marks at its ends; a visarga written for a colon is one."""
    return normalise(text).lower().replace("ঃ", ":").strip(" \t\n.।!?\"'“”‘’`*")


def probe_sums(
    probes: Sequence[Probe], likelihoods: Sequence[Mapping[str, float]], asked: Sequence[Instruction], replies: Sequence
) -> dict[str, numpy.ndarray]:
    """Returns per score the sums (items, 2) of one model, from the likelihoods of the probes and the replies to the
    instructions."""
    entries: dict[str, dict[str, list[tuple[bool, float, float]]]] = {}  # score: {item: [(right, nll, characters)]}
    for probe, own in zip(probes, likelihoods, strict=True):
        items = entries.setdefault(probe.score, {})
        items.setdefault(probe.item, []).append((probe.right, own["nll"], own["characters"]))
    sums = {}
    for score, items in entries.items():
        if score.startswith("text"):
            rows = [(nll / math.log(2), characters) for ((_, nll, characters),) in items.values()]
        else:
            rows = [(float(min(texts, key=lambda text: text[1] / text[2])[0]), 1.0) for texts in items.values()]
        sums[score] = numpy.array(rows)
    for language in LANGUAGES:
        pairs = [(own, reply["reply"]) for own, reply in zip(asked, replies, strict=True) if own.language == language]
        if pairs:
            rows = [(float(follows(reply, own.check, language)), 1.0) for own, reply in pairs]
            sums[f"instructions_{language}"] = numpy.array(rows)
    return {score: sums[score] for score in PROBE_SCORES if score in sums}


def compare_probes(sums: Mapping[str, dict[str, numpy.ndarray]], draws: int, seed: int) -> dict[str, Any]:
    """Returns what metrics.json keeps of the probes: a `Comparison` with `n`, the items; {} without any.

    Each score has items of its own number, so that they are resampled apart; the p-values are corrected together.
    """
    compared = {
        name: compare_models({name: sums["base"][name]}, {name: sums["tuned"][name]}, {}, draws, seed)
        for name in sums["base"]
    }
    if not compared:
        return {}
    corrected = adjust_holm({name: own.delta[name].p or 0.0 for name, own in compared.items()})
    sides = {side: {name: getattr(own, side)[name] for name, own in compared.items()} for side in ("base", "tuned")}
    delta = {name: own.delta[name].model_copy(update={"p": corrected[name]}) for name, own in compared.items()}
    items = sum(own.n for own in delta.values())
    return {"n": items, **Comparison(**sides, delta=delta).model_dump()}


def describe_forgotten(probe_scores: Mapping[str, Any]) -> str:
    """Returns in a sentence what the tuned model does clearly worse than the base model, if anything."""
    if not probe_scores:
        return "No probes were asked."
    deltas = Comparison(**{side: probe_scores[side] for side in ("base", "tuned", "delta")}).delta
    worse = [name for name, delta in deltas.items() if delta.change == "worse"]
    shown = ", ".join(name.replace("_bn", " in Bengali").replace("_en", " in English") for name in worse)
    return f"Of {len(deltas)} probes, the tuned model is clearly worse at {len(worse)}{': ' * bool(worse)}{shown}."
