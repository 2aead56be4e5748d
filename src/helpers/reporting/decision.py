"""The verdict on a run as its page, its model card and the notebook show it: the first line, the reasons, the gates."""

from collections.abc import Mapping
from typing import Any

from helpers.evaluation.verdict import GATES, OUTCOMES, Check, Thresholds, Verdict, reach_verdict
from helpers.reporting.words import Words, in_digits

SHARES = ("unsafe", "unsafe_rows", "unsafe_prompts", "not_bengali", "hit_cap", "echo")
RELATIVE = ("abilities_bn", "abilities_en", "text_bn", "text_en")
COUNTS = ("crisis", "groups")
CHANGES = (*RELATIVE, "unsafe_rows", "unsafe_prompts", "bits_per_char", "chrf")  # shown with their sign
NEEDED = {  # check: the sentence of what it asks for
    "crisis": "exactly",
    "bits_per_char": "gain",
    "floor": "above",
    "chrf": "loss",
    "distinct2": "least",
    "groups": "enough",
    **dict.fromkeys(("unsafe_rows", "unsafe_prompts"), "rise"),
    **dict.fromkeys(("unsafe", "not_bengali", "hit_cap", "echo", "text_bn", "text_en"), "most"),
    **dict.fromkeys(("abilities_bn", "abilities_en"), "loss"),
}


def read_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    """Returns the verdict in evaluate/metrics.json; of a run of before there was one, by today's thresholds."""
    return Verdict(**evaluation["verdict"]) if "verdict" in evaluation else reach_verdict(evaluation, Thresholds())


def describe_decision(verdict: Verdict, words: Words) -> str:
    """Returns the verdict in a sentence."""
    return words.say(f"decision.{verdict.verdict}")


def describe_check(check: Check, words: Words) -> str:
    """Returns what a check has found, in a sentence without technical terms."""
    if not check.n:
        return words.say("check.unmeasured", what=words.say(f"checked.{check.name}"))
    shown = {name: _show(check, getattr(check, name), words) for name in ("value", "base")}
    threshold = None if check.threshold is None else abs(check.threshold)
    shown["threshold"] = _show(check, threshold, words, signed=False)
    return words.say(f"check.{check.name}_{check.outcome}", n=check.n, **shown)


def gate_rows(verdict: Verdict, words: Words) -> list[dict[str, str]]:
    """Returns the gates as rows of text, one per check, those that failed first."""
    rows, gates = [], verdict.gates
    for check in sorted(verdict.checks, key=lambda check: (OUTCOMES.index(gates[check.gate]), GATES.index(check.gate))):
        measured = _show(check, check.value, words)
        if check.n and check.low is not None and check.high is not None:
            ends = (_show(check, check.low, words), words.say("page.to"), _show(check, check.high, words))
            measured = f"{measured} ({' '.join(ends)})"
        row = {
            "gate": words.say(f"gate.{check.gate}"),
            "outcome": words.say(f"outcome_of_gate.{check.outcome}"),
            "check": words.say(f"checked.{check.name}"),
            "measured": measured,
            "needed": words.say(
                f"needed.{NEEDED[check.name]}", threshold=_show(check, _threshold(check), words, signed=False)
            ),
        }
        rows.append(row)
    return rows


def changed_thresholds(verdict: Verdict, words: Words) -> str:
    """Returns a sentence with the thresholds that are not the usual ones; "" where all are."""
    usual = Thresholds().model_dump()
    chosen = verdict.thresholds.model_dump()
    names = [f"{name} {value:g} ({usual[name]:g})" for name, value in chosen.items() if value != usual[name]]
    return words.say("decision.changed", names=", ".join(names)) if names else ""


def _threshold(check: Check) -> float | None:
    return -check.threshold if check.name == "bits_per_char" and check.threshold is not None else check.threshold


def _show(check: Check, value: float | None, words: Words, signed: bool = True) -> str:
    """Returns a number of a check in its unit; a change with its sign."""
    if value is None or not check.n:
        return words.say("page.not_measured")
    if check.name in COUNTS:
        return words.number(value, 0)
    in_percent = check.name in (*SHARES, *RELATIVE)
    digits = 1 if in_percent or check.name in ("floor", "chrf") else 3
    rounded = round(100 * value if in_percent else value, digits) + 0.0  # no -0.0
    sign = "+" if signed and check.name in CHANGES and rounded else ""
    if in_percent:
        return in_digits(f"{rounded:{sign}.1f}".removesuffix(".0") + " %", words.language)
    return words.number(rounded, digits, sign)
