"""The verdict on a run as its page, its model card and the notebook show it: the first line, the reasons, the gates."""

from collections.abc import Mapping
from typing import Any

from helpers.evaluation.resampling import FEWEST_PAIRS, SIGNIFICANT
from helpers.evaluation.verdict import (
    OUTCOMES,
    SHOWN_GATES,
    VERSION,
    Check,
    Thresholds,
    Verdict,
    join_people,
    reach_verdict,
)
from helpers.reporting.results import Results
from helpers.reporting.words import Words

RELATIVE = ("text_bn", "text_en", "length")  # changes as a part of the base model's value
SHARES = ("unsafe", "not_bengali", "hit_cap", "echo", "people", "people_preferred", *RELATIVE)  # in %
POINTS = ("unsafe_rows", "unsafe_prompts", "abilities_bn", "abilities_en")  # differences of two shares
COUNTS = ("crisis", "groups")
CHANGES = (*POINTS, *RELATIVE, "bits_per_char", "bits_kept", "chrf")  # shown with their sign
NEEDED = {  # check: the sentence of what it asks for
    "crisis": "exactly",
    "bits_per_char": "gain",
    "floor": "above",
    "chrf": "loss",
    "distinct2": "least",
    "groups": "enough",
    "people": "preferred",
    **dict.fromkeys(("unsafe_rows", "unsafe_prompts"), "rise"),
    **dict.fromkeys(("unsafe", "not_bengali", "hit_cap", "echo", "text_bn", "text_en"), "most"),
    **dict.fromkeys(("abilities_bn", "abilities_en"), "loss"),
}

OF_PREFERRED = {"bits_kept": "loss", "length": "most", "kl": "most", "people_preferred": "preferred"}  # NEEDED there


def read_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    """Returns the verdict in evaluate/metrics.json.

    One of another version, whose checks are not today's, is reached anew from the scores, by its own thresholds; so is
    one that is not there, by the usual ones.
    """
    if "verdict" not in evaluation:
        return reach_verdict(evaluation, Thresholds())
    stored = Verdict(**evaluation["verdict"])
    return reach_verdict(evaluation, stored.thresholds) if is_outdated(evaluation) else stored


def is_outdated(evaluation: Mapping[str, Any]) -> bool:
    """Returns whether evaluate/metrics.json has a verdict, but one of another version."""
    return "verdict" in evaluation and Verdict(**evaluation["verdict"]).version != VERSION


def judge_run(results: Results) -> Verdict:
    """Returns the verdict that a page shows: that of evaluate/metrics.json, joined with what people chose."""
    return join_people(read_verdict(results.metrics["evaluate"]), results.ratings.get("choices", {}))


def describe_decision(verdict: Verdict, words: Words) -> str:
    """Returns the verdict in a sentence; what people's choices leave open is not called passed."""
    is_open = verdict.verdict == "ship" and verdict.people is not None and verdict.people.outcome == "open"
    return words.say("decision.ship_open" if is_open else f"decision.{verdict.verdict}")


def describe_check(check: Check, words: Words) -> str:
    """Returns what a check has found, in a sentence without technical terms."""
    if not check.n:
        return words.say("check.unmeasured", what=words.say(f"checked.{check.name}"))
    shown = {name: _show(check, getattr(check, name), words) for name in ("value", "base", "low", "high")}
    outcome = "worse" if check.name == "bits_per_char" and (check.low or 0.0) > 0 else check.outcome
    return words.say(f"check.{check.name}_{outcome}", n=check.n, threshold=_show_threshold(check, words), **shown)


def describe_people(verdict: Verdict, computed: Verdict, ratings: Mapping[str, Any], words: Words) -> str:
    """Returns what people say of the replies, as far as they were asked, and what that does to the verdict.

    `computed` is the verdict without them, `ratings` what `summarise_run_ratings` returns. A choice against the tuned
    model is a reason of the verdict, and is not said again.
    """
    if not ratings:
        return words.say("asked.not_yet")
    sentences = _describe_choices(verdict, computed, ratings, words)
    safety = ratings.get("scales", {}).get("safety")
    if safety and safety["delta"] < 0 and (safety["p"] or 0.0) < SIGNIFICANT:
        sentences.append(words.say("asked.unsafe", **{s: words.number(safety[s], 1) for s in ("tuned", "base")}))
    if skipped := ratings.get("skipped"):
        sentences.append(words.say("asked.unread", files="; ".join(line.rstrip(".") for line in skipped)))
    return " ".join(sentences)


def _describe_choices(verdict: Verdict, computed: Verdict, ratings: Mapping[str, Any], words: Words) -> list[str]:
    """Returns what people chose and what that does to the verdict, or why there is no choice, in sentences."""
    if (check := verdict.people) is None:
        if ratings["raters"]:
            return [words.say("asked.marks_alone")]
        left_out = [words.say("page.left_out", **own) for own in ratings["attention"] if own["left_out"]]
        why = left_out or ([] if ratings["skipped"] else [words.say("asked.no_answers")])
        return [words.say("asked.none_counted"), *why[:1]]
    if check.n < FEWEST_PAIRS:
        return [words.say("asked.few", pairs=check.n, fewest=FEWEST_PAIRS)]
    choices = ratings["choices"]
    sentences = [] if check.outcome == "failed" else [describe_check(check, words)]
    if choices["alpha"] is not None and choices["alpha"] < 0:
        sentences.append(words.say("asked.disagree"))
    joined = "joined_one" if choices["raters"] == 1 else "joined"
    facts = {"raters": choices["raters"], "verdict": words.say(f"decided.{computed.verdict}")}
    return [*sentences, words.say(f"asked.{joined}", **facts)]


def gate_rows(verdict: Verdict, words: Words) -> list[dict[str, str]]:
    """Returns the gates as rows of text, one per check, those that failed first."""
    rows, gates = [], verdict.gates
    order = {gate: (OUTCOMES.index(outcome), SHOWN_GATES.index(gate)) for gate, outcome in gates.items()}
    for check in sorted(verdict.checks, key=lambda check: order[check.gate]):
        measured = _show(check, check.value, words)
        if check.n and check.low is not None and check.high is not None:
            low, high = (_show(check, end, words, unit=False) for end in (check.low, check.high))
            measured = f"{measured} ({low} {words.say('page.to')} {high})"
        row = {
            "gate": words.say(f"gate.{check.gate}"),
            "outcome": words.say(f"outcome_of_gate.{check.outcome}"),
            "check": words.say(f"{'prefer.checked_' if check.name in OF_PREFERRED else 'checked.'}{check.name}"),
            "measured": measured,
            "needed": words.say(
                f"needed.{(NEEDED | OF_PREFERRED)[check.name]}", threshold=_show_threshold(check, words)
            ),
        }
        rows.append(row)
    return rows


def changed_thresholds(verdict: Verdict, words: Words) -> list[tuple[str, str]]:
    """Returns the thresholds that are not the usual ones: each in words with both values, and its key in
    `evaluate.gates`."""
    usual = Thresholds().model_dump()
    changed = {key: value for key, value in verdict.thresholds.model_dump().items() if value != usual[key]}
    return [
        (words.say(f"threshold.{key}", value=_show_as(key, value, words), usual=_show_as(key, usual[key], words)), key)
        for key, value in changed.items()
    ]


def _show_as(key: str, value: float, words: Words) -> str:
    """Returns a threshold in its unit."""
    if key == "faults":
        return words.share(value)
    if key in ("unsafe", "lost"):  # in % or percentage points, by what they bound: the words say which
        return words.points(value, unit=False)
    return words.number(value, 0 if key == "groups" else 3)


def _show_threshold(check: Check, words: Words) -> str:
    """Returns by how much a check's value may be away from 0."""
    return _show(check, None if check.threshold is None else abs(check.threshold), words, signed=False)


def _show(check: Check, value: float | None, words: Words, signed: bool = True, unit: bool = True) -> str:
    """Returns a number of a check in its unit; a change with its sign."""
    if value is None or not check.n:
        return words.say("page.not_measured")
    if check.name in COUNTS:
        return words.number(value, 0)
    sign = "+" if signed and check.name in CHANGES else ""
    if check.name in SHARES:
        return words.share(value, sign)
    if check.name in POINTS:
        return words.points(value, sign, unit)
    rounded = round(value, digits := 1 if check.name in ("floor", "chrf") else 3) or 0.0  # no -0.0
    return words.number(rounded, digits, sign if rounded else "")
