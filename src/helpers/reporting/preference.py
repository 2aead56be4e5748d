"""What a page says of the preferred model, against the tuned one: from the same functions as those of a tuned model."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from helpers.evaluation.comparison import Comparison
from helpers.evaluation.drift import Drift
from helpers.evaluation.preferred import pair_metrics, reach_anew
from helpers.evaluation.raters import Ratings
from helpers.evaluation.verdict import PEOPLE, VERSION, DriftThresholds, PreferredVerdict, Verdict, join_people
from helpers.reporting.decision import gate_rows
from helpers.reporting.people import describe_choices, describe_ratings, rating_tables
from helpers.reporting.results import Results
from helpers.reporting.tables import LABELS, build_table, rating_rows, score_verdict
from helpers.reporting.words import Words
from helpers.runs.files import file_sha256
from helpers.runs.stages import PREFERRED

FACTS = ("accuracy", "margin")  # of the trainer, on held-out preferences


@dataclass(frozen=True, kw_only=True)
class PairResults(Results):
    """The results of a run with its preferred model as the tuned one and its tuned model as the base, without the rows
    whose ratings were trained on."""

    whole: Results

    @cached_property
    def rated(self) -> Ratings | None:
        """The ratings of the sheet with tuned and preferred replies."""
        return self.whole.both_rated[1]


def pair_results(results: Results) -> PairResults | None:
    """Returns the results of the preferred model against the tuned one; None where they were not compared."""
    evaluation = pair_metrics(results.metrics.get("evaluate", {}))
    if not evaluation or not results.preferred:
        return None
    used = set(results.prefer.get("used_test_ids", []))
    rows = {"base": results.tuned, "tuned": results.preferred, "preferred": []}
    lines = {row: line for row, line in results.row_scores.items() if row not in used}
    own: dict[str, Any] = {field.name: getattr(results, field.name) for field in fields(Results)}
    own |= {name: [row for row in side if row["id"] not in used] for name, side in rows.items()}
    own |= {"metrics": {**results.metrics, "evaluate": evaluation}}
    own |= {"row_scores": {row: _shift_columns(line) for row, line in lines.items()}}
    return PairResults(**own, whole=results)


def _shift_columns(line: dict[str, str]) -> dict[str, str]:
    """Returns a line of scores.csv with the tuned model's columns as the base's, and the preferred one's as the tuned
    one's."""
    kept = {name: cell for name, cell in line.items() if not name.startswith(("base_", "tuned_", "preferred_"))}
    for side, name in (("tuned_", "base_"), ("preferred_", "tuned_")):
        kept |= {name + key.removeprefix(side): cell for key, cell in line.items() if key.startswith(side)}
    return kept


def judge_preferred(pair: PairResults) -> Verdict:
    """Returns the verdict on the preferred model, joined with what people chose; one of another version is reached
    anew from the scores."""
    metrics = pair.whole.metrics["evaluate"]
    verdict = PreferredVerdict(**metrics["preferred_verdict"])
    if verdict.version != VERSION:
        verdict = reach_anew(metrics, verdict.thresholds)
    joined = join_people(verdict, pair.ratings.get("choices", {}))
    names = {PEOPLE: "people_preferred"}  # which reply they chose
    checks = [check.model_copy(update={"name": names.get(check.name, check.name)}) for check in joined.checks]
    return joined.model_copy(update={"checks": checks})


def preferred_rows(evaluation: dict[str, Any], spec: str = "scores of three") -> list[dict[str, str]]:
    """Returns the scores of all three models in evaluate/metrics.json as rows of text, with preferred − tuned and the
    verdict on it; [] where there is no preferred model.

    The tuned model's are of the same rows as the preferred one's, the base model's of all.
    """
    if not (metrics := pair_metrics(evaluation)):
        return []
    pair, rows = Comparison(**metrics), []
    for name in [name for name in LABELS if name in pair.tuned and name in evaluation["base"]]:
        (label, digits), verdict = LABELS[name], score_verdict(pair, name)
        scores = {"base": evaluation["base"][name], "tuned": pair.base[name], "preferred": pair.tuned[name]}
        rows.append({"label": label, "digits": digits, "verdict": verdict, "delta": pair.delta[name], **scores})
    return build_table(spec, rows)


def preference_content(results: Results, words: Words) -> dict[str, Any]:
    """Returns what the page's section on the preferred model shows; {} without one."""
    evaluation, pair = results.metrics.get("evaluate", {}), pair_results(results)
    if pair is None:
        return {}
    facts, verdict = evaluation["preference"], judge_preferred(pair)
    drift = Drift(**facts["drift"]) if "drift" in facts else None
    choices = describe_choices(pair.ratings.get("choices", {}), words, "prefer.chosen")
    outcome = "stale" if is_stale(results) else verdict.verdict
    return {
        "decision": words.say(f"prefer.{outcome}"),
        "look": {"do not ship": "worse", "ship": "better"}.get(outcome, ""),
        "trained": [] if outcome == "stale" else describe_training(results.prefer, words),
        "rows": describe_rows(facts, words),
        "drift": describe_drift(drift, evaluation, words) if drift else [],
        "choices": choices,
        "unread": pair.ratings.get("skipped", []),
        "opinions": describe_ratings(pair, words),
        "trust": rating_tables(pair),
        "thresholds": changed_limits(verdict, words),
        "tables": {
            "scores": preferred_rows(evaluation),
            "gates": gate_rows(verdict, words),
            "drift": drift_rows(drift) if drift else [],
            "people": rating_rows(pair.ratings, "ratings of the preferred"),
            "judge": rating_rows(pair.metrics["evaluate"].get("judge", {}), "ratings of the preferred"),
        },
    }


def is_stale(results: Results) -> bool:
    """Returns whether another preferred model was evaluated than prefer/ has now, or prefer/ has none any more."""
    adapter = PREFERRED[1]
    evaluated, now = results.run.stage("evaluate").inputs.get(adapter), file_sha256(results.run / adapter)
    return not results.prefer or bool(evaluated and now and evaluated != now)


def preference_facts(results: Results) -> dict[str, Any]:
    """Returns what report/metrics.json keeps of the preferred model: the verdict with people counted in, and what those
    chose; {} without one, and where another was evaluated."""
    if (pair := pair_results(results)) is None or is_stale(results):
        return {}
    choices = pair.ratings.get("choices")
    return {"preferred_verdict": judge_preferred(pair).verdict, **({"preferred_people": choices} if choices else {})}


def describe_rows(facts: dict[str, Any], words: Words) -> str:
    """Returns on how many held-out rows the two models were compared, and how many were left out and why."""
    left_out = f" {words.say('prefer.left_out', rows=facts['left_out'])}" if facts["left_out"] else ""
    return words.say("prefer.compared", rows=facts["n"]) + left_out


def describe_training(prefer: dict[str, Any], words: Words) -> list[str]:
    """Returns what prefer/metrics.json says of the preferences and how well they were followed, in sentences."""
    sentences = []
    if method := prefer.get("method"):
        sentences.append(words.say("prefer.method", method=method.upper()))
    if isinstance(sources := prefer.get("sources"), dict) and sources:
        parts = [
            words.say("prefer.source", name=words.name(name), kept=own["kept"], read=own["read"])
            for name, own in sources.items()
            if isinstance(own, dict) and all(isinstance(own.get(key), int) for key in ("kept", "read"))
        ]
        sentences.append(words.say("prefer.sources", sources=", ".join(parts)))
    sentences += describe_few(prefer.get("power", {}), words)
    held_out = prefer.get("held_out", {})
    for name in FACTS if isinstance(held_out.get("n"), int) else ():
        measured = held_out.get(name)
        if isinstance(measured, dict) and all(isinstance(measured.get(key), float) for key in ("value", "low", "high")):
            show = words.share if name == "accuracy" else lambda value: words.number(value, 3, "+")
            shown = {key: show(measured[key]) for key in ("value", "low", "high")}
            kind = "_replies" if name == "accuracy" and method == "kto" else ""  # each of a pair's two is measured
            sentences.append(words.say(f"prefer.{name}{kind}", n=held_out["n"], **shown))
    return sentences


def describe_few(power: dict[str, Any], words: Words) -> list[str]:
    """Returns in a sentence what too few preferences can show; none where they are enough, or were not counted."""
    facts = {key: power.get(key) for key in ("prompts", "held_out", "needed")}
    if not power.get("missing") or not all(isinstance(value, int) for value in facts.values()):
        return []
    shows = power.get("least_accuracy")
    return [words.say("prefer.few" if shows else "prefer.too_few", shows=words.share(shows), **facts)]


def describe_drift(drift: Drift, evaluation: dict[str, Any], words: Words) -> list[str]:
    """Returns how the replies' length has changed, and how far the model is from the tuned one, in sentences."""
    change, kl = drift.characters.change, drift.replies
    clear = "same" if change.low <= 0 <= change.high else "longer" if change.value > 0 else "shorter"
    length = {
        key: words.share(abs(getattr(change, key)) if key == "value" else getattr(change, key), sign)
        for key, sign in (("value", ""), ("low", "+"), ("high", "+"))
    }
    ends = {key: words.number(getattr(kl.per_token, key), 3) for key in ("value", "low", "high")}
    sampled = "sampled" if str(evaluation.get("decoding", "")).startswith("sampled") else "greedy"
    sampled = "below_zero" if kl.per_token.value < 0 else sampled
    return [
        words.say(f"prefer.{clear}", **length),
        words.say("prefer.kl", text=words.number(kl.per_text.value, 2), **ends),
        words.say(f"prefer.kl_{sampled}"),
    ]


def drift_rows(drift: Drift) -> list[dict[str, str]]:
    """Returns length and divergence as rows of text."""
    lengths = {"characters per reply": drift.characters, "tokens per reply": drift.tokens}
    rows = [
        {"what": what, "tuned": f"{own.tuned:.1f}", "preferred": f"{own.preferred:.1f}", **_percent(own.change)}
        for what, own in lengths.items()
    ]
    for what, own in (("own replies", drift.replies), ("reference answers", drift.references)):
        for unit, estimate in (("nats per reply", own.per_text), ("nats per token", own.per_token)):
            shown = {key: f"{getattr(estimate, key):+.3f}" for key in ("value", "low", "high")}
            rows.append({"what": f"log-likelihood ratio, {what}, {unit}", **shown})
    return build_table("drift", rows)


def _percent(change: Any) -> dict[str, str]:
    return {key: f"{100 * getattr(change, key):+.1f} %" for key in ("value", "low", "high")}


def changed_limits(verdict: Verdict, words: Words) -> list[str]:
    """Returns the preferred model's own thresholds that are not the usual ones, in words."""
    usual, own = DriftThresholds(), verdict.thresholds
    shown = {"longer": words.share, "kl": lambda value: words.number(value, 3)}
    return [
        words.say(f"prefer.limit_{key}", value=show(getattr(own, key)), usual=show(getattr(usual, key)))
        for key, show in shown.items()
        if getattr(own, key) != getattr(usual, key)
    ]
