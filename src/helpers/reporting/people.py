"""What a page says of people's ratings: their choices, attention checks, and which scores to trust."""

from collections.abc import Mapping
from typing import Any

from helpers.evaluation.meta_evaluation import MODELS_ONLY, UNKNOWN, MetaEvaluation
from helpers.evaluation.resampling import FEWEST_PAIRS
from helpers.reporting.results import JUDGE_SCORE, Results
from helpers.reporting.tables import LABELS, build_table
from helpers.reporting.words import Words

RATERS = ("people", "judge")  # whose ratings a page shows, each by itself
VERDICTS = {"yes": "page.trust_yes", MODELS_ONLY: "page.trust_models", UNKNOWN: "page.trust_unknown"}
VERDICTS["no"] = "page.trust_no"  # in the order in which they are shown


def score_label(name: str) -> str:
    """Returns a score's name in the tables."""
    return LABELS[name][0] if name in LABELS else JUDGE_SCORE if name == "judge" else name


def trust_rows(evaluation: MetaEvaluation | None, spec: str = "trust") -> list[dict[str, str]]:
    """Returns a row of text per score: whether it tracks the raters and how closely, the closest first."""
    rows = []
    for name, score in sorted_scores(evaluation):
        measures = {"empathy": score.scales.get("empathy"), "within": score.within, "choices": score.choices}
        known = {measure: statistic for measure, statistic in measures.items() if statistic}
        replies = max(statistic.n for statistic in (*score.scales.values(), score.choices) if statistic)
        rows.append({"label": score_label(name), "verdict": score.verdict, "n": replies, **known})
    return build_table(spec, rows)


def criterion_rows(evaluation: MetaEvaluation | None) -> list[dict[str, str]]:
    """Returns a row of text per score: its correlation with the marks on the scales that `trust_rows`, whose order it
    has, does not show."""
    scores = sorted_scores(evaluation)
    scales = dict.fromkeys(scale for _, score in scores for scale in score.scales if scale != "empathy")
    columns = {"score": "{label}"} | {s: f"{{{s}.value:.2f}} ({{{s}.low:.2f}} to {{{s}.high:.2f}})" for s in scales}
    return build_table(columns, [{"label": score_label(name), **score.scales} for name, score in scores])


def sorted_scores(evaluation: MetaEvaluation | None) -> list[tuple[str, Any]]:
    """Returns the scores by verdict, then by their correlation with the marks for empathy."""
    order = list(VERDICTS)

    def key(item: tuple[str, Any]) -> tuple[int, float]:
        statistic = item[1].scales.get("empathy") or item[1].choices
        return order.index(item[1].verdict), -statistic.value if statistic else 0.0

    return sorted(evaluation.scores.items(), key=key) if evaluation else []


def describe_trust(evaluation: MetaEvaluation | None, words: Words, kind: str = "people") -> list[str]:
    """Returns a sentence for each verdict with the scores that have it, and what is still needed.

    `kind` is one of RATERS: only people's ratings make a score trustworthy.
    """
    if evaluation is None:
        return []
    names: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for name, score in sorted_scores(evaluation):
        names[score.verdict].append(words.name(score_label(name)))
    keys = VERDICTS if kind == "people" else VERDICTS | {"yes": "page.trust_yes_judge"}
    sentences = [words.say(keys[verdict], names="; ".join(own)) for verdict, own in names.items() if own]
    if evaluation.constant:
        constant = "; ".join(words.name(score_label(name)) for name in evaluation.constant)
        sentences.append(words.say("page.trust_constant", names=constant))
    if evaluation.raters < 2:
        sentences.append(words.say("page.trust_one_rater"))
    if names[UNKNOWN]:
        counts = {"pairs": evaluation.pairs, "fewest": FEWEST_PAIRS, "needed": evaluation.needed}
        sentences.append(words.say("page.trust_needed", **counts))
    return sentences


def describe_choices(choices: Mapping[str, Any], words: Words, key: str = "page.chosen") -> str:
    """Returns in sentences what raters chose, "" where they were not asked; `key` is that of the sentences."""
    if not choices:
        return ""
    shares = {name: words.share(choices[name]) for name in ("win", "low", "high")}
    counts = {name: choices[name] for name in ("tuned", "base", "same", "pairs")}
    alpha = words.say("page.not_measured") if choices["alpha"] is None else words.number(choices["alpha"], 2)
    return words.say(key, **shares, **counts, alpha=alpha)


def describe_sample(sample: Mapping[str, int], words: Words) -> str:
    """Returns in a sentence how the rows on the sheet were chosen, "" where all weigh the same."""
    return words.say("page.rows_chosen", **sample) if sample else ""


def describe_attention(attention: list[dict[str, Any]], words: Words) -> list[str]:
    """Returns a sentence for each rater who failed an attention check: whether the ratings count."""
    return [words.say("page.left_out" if own["left_out"] else "page.excused", **own) for own in attention]


def describe_ratings(results: Results, words: Words) -> dict[str, dict[str, Any]]:
    """Returns by rater kind, people and the language model that rates, what the page says of them beside the tables:
    `choices`, `sample`, `attention` and `trust`."""
    summaries = {"people": results.ratings, "judge": results.metrics.get("evaluate", {}).get("judge", {})}
    return {
        kind: {
            "choices": describe_choices(summary.get("choices", {}), words),
            "sample": describe_sample(summary.get("sample", {}), words),
            "attention": describe_attention(summary.get("attention", []), words),
            "trust": describe_trust(results.meta_evaluations.get(kind), words, kind),
        }
        for kind, summary in summaries.items()
    }


def rating_tables(results: Results) -> dict[str, list[dict[str, str]]]:
    """Returns the tables of which scores to trust, as rows of text: by people, and by the language model that rates."""
    people, llm_judge = map(results.meta_evaluations.get, RATERS)
    return {
        "people_trust": trust_rows(people),
        "people_criteria": criterion_rows(people),
        "judge_trust": trust_rows(llm_judge, "trust of a language model"),
        "judge_criteria": criterion_rows(llm_judge),
    }


def rating_facts(results: Results) -> dict[str, Any]:
    """Returns what report/metrics.json keeps of the ratings: `people` with raters, pairs, the share of choices of the
    tuned reply with its interval, and each score's verdict; {} without ratings."""
    evaluation = results.meta_evaluations.get("people")
    if evaluation is None:
        return {}
    tracks = {name: score.verdict for name, score in sorted_scores(evaluation)}
    choices = {name: results.ratings["choices"].get(name) for name in ("win", "low", "high")}
    return {"people": {"raters": evaluation.raters, "pairs": evaluation.pairs, **choices, "tracks": tracks}}
