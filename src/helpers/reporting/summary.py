"""The verdict on a run and its summary in plain words, computed from the run's files."""

from dataclasses import dataclass

from helpers.evaluation.comparison import Comparison, Score
from helpers.evaluation.metrics import PRIMARY
from helpers.evaluation.verdict import Thresholds, Verdict, judge_floor
from helpers.language.rubric import CRISIS
from helpers.reporting.decision import describe_check, describe_decision, describe_people, judge_run, read_verdict
from helpers.reporting.results import Results
from helpers.reporting.tables import LABELS, score_verdict
from helpers.reporting.words import Words

REPLY_FAULTS = {  # score: the clause of a fault, and that of none
    "not_bengali": ("not_bengali", "bengali"),
    "hit_cap": ("cut", "ends"),
    "echo": ("echoes", ""),
}
FEWEST_ROWS = 2  # of one row the interval is the value itself


@dataclass(frozen=True)
class Summary:
    """What a page says first."""

    kind: str  # how it compares with the base model, a key of words_en.yaml
    verdict: str  # the same in a sentence
    warning: str  # of unsafe replies; "" where none was counted
    sentences: tuple[str, ...]  # in plain words
    numbers: tuple[str, ...] = ()  # sentences with the terms of the tables
    decision: str = ""  # the verdict of all gates, in a sentence; "" before the evaluation
    reasons: tuple[str, ...] = ()  # for it, in plain words; what `warning` says is not repeated
    outcome: str = ""  # "ship", "do not ship" or "cannot tell yet"
    people: str = ""  # what people chose, as far as they were asked, and what it does to the verdict

    @property
    def look(self) -> str:
        """Returns the colour class of the verdict."""
        if self.warning or self.outcome == "do not ship" or self.kind in ("worse", "floor_worse"):
            return "worse"
        return "better" if self.outcome == "ship" else ""


@dataclass(frozen=True)
class UnsafeShare:
    """The share of unsafe replies of both models over some prompts."""

    tuned: float
    base: float | None  # None where the base model was not measured
    rows: int
    category: str  # of fixed prompts; "" for the held-out rows

    def facts(self, words: Words) -> dict[str, str | int]:
        """Returns what a sentence says of it: both models' counts, and of how many."""
        base = words.say("page.not_measured") if self.base is None else self.base * self.rows
        count = base if isinstance(base, str) else words.say("summary.count", count=round(base))
        return {"unsafe": round(self.tuned * self.rows), "rows": self.rows, "base": count}

    def where(self, words: Words) -> str:
        """Returns the tuned model's count with where it is."""
        facts = self.facts(words)
        if self.category:
            return words.say("summary.of_category", category=words.of("category", self.category), **facts)
        return words.say("summary.of_rows", **facts)


def summarise_run(results: Results, words: Words) -> Summary:
    """Returns the verdict and the summary of a run in a page's language, from whatever files it has."""
    evaluation = results.metrics.get("evaluate", {})
    scores = results.scores
    if scores is None:
        kind = run_verdict(None)
        return Summary(kind, words.say(f"verdict.{kind}"), "", ())
    computed, judged = read_verdict(evaluation), judge_run(results)
    floor = floor_state(scores, judged.thresholds)
    kind = run_verdict(scores, floor)
    is_refused = kind in ("better", "likelier") and judged.people is not None and judged.people.outcome == "failed"
    verdict = words.say(f"verdict.{kind}{'_scores' if is_refused else ''}", rows=evaluation.get("n", 0))
    shares = unsafe_shares(results)
    replies = _describe_replies(scores, computed, evaluation.get("max_new_tokens", 0), words)
    sentences = [replies, *_describe_safety(results, shares, words)]
    plain = tuple(filter(None, [*sentences, _describe_people(results, words)]))
    numbers, warning, warned = _describe_scores(scores, kind, words), _warn_of_unsafe(shares, words), _warned(shares)
    is_said = warned is not None and warned.category == CRISIS
    reasons = [describe_check(check, words) for check in judged.reasons if not (is_said and check.gate == CRISIS)]
    people = describe_people(judged, computed, results.ratings, words)
    first = describe_decision(judged, words), tuple(reasons), judged.verdict, people
    return Summary(kind, verdict, warning, plain, tuple(numbers), *first)


def run_verdict(scores: Comparison | None, floor: str = "") -> str:
    """Returns the key of a run's verdict: "not above the floor" outranks everything that was compared.

    `floor` is what `floor_state` returns.
    """
    if scores is None or not scores.tuned:
        return "none"
    if max(score.n for score in scores.tuned.values()) < FEWEST_ROWS:
        return "few"
    names = [name for name in (_likelihood(scores), "chrf") if name in scores.base and name in scores.tuned]
    verdicts = {name: scores.delta[name].change for name in names}
    if floor:
        return f"{floor}_worse" if "worse" in verdicts.values() else floor
    if not names:
        return "no_base"
    if "worse" in verdicts.values():
        return "mixed" if "better" in verdicts.values() else "worse"
    if "better" not in verdicts.values():
        return "same"
    if "chrf" not in verdicts:
        return "better_plain"
    return "better" if verdicts["chrf"] == "better" else "likelier"


def _likelihood(scores: Comparison) -> str:
    """Returns the score by which the reference answers' likelihood is judged."""
    return next((name for name in PRIMARY if name != "chrf" and name in scores.delta), "perplexity")


def is_at_floor(scores: Comparison) -> bool:
    """Returns whether the tuned replies are no closer to their references than to shuffled ones, by chrF++."""
    chrf = scores.tuned.get("chrf")
    return chrf is not None and chrf.is_at_floor


def floor_state(scores: Comparison, thresholds: Thresholds) -> str:
    """Returns "floor" where enough groups of rows show no reply that fits its own question, "floor_open" where so few
    show it that it cannot be told; "" above the floor."""
    if not is_at_floor(scores):
        return ""
    return "floor" if judge_floor(scores.tuned["chrf"], thresholds) == "failed" else "floor_open"


def unsafe_shares(results: Results) -> list[UnsafeShare]:
    """Returns the shares of unsafe replies, the tuned model's largest first."""
    prompts = results.metrics.get("evaluate", {}).get("prompts", {})
    shares = [
        UnsafeShare(row["tuned unsafe"], row["base unsafe"], row["n"], row["category"])
        for row in prompts.get("categories", [])
    ]
    if results.scores and (tuned := results.scores.tuned.get("unsafe")):
        base = results.scores.base.get("unsafe")
        shares.append(UnsafeShare(tuned.value, base.value if base else None, tuned.n, ""))
    return sorted(shares, key=lambda share: (share.tuned, share.rows), reverse=True)


def _warn_of_unsafe(shares: list[UnsafeShare], words: Words) -> str:
    """Returns a line for the tuned model's unsafe replies: those to crisis prompts first; "" without any."""
    share = _warned(shares)
    if share is None:
        return ""
    if share.category == CRISIS:
        return words.say("summary.crisis_unsafe", **share.facts(words))
    return words.say("summary.unsafe", where=share.where(words), base=share.facts(words)["base"])


def _warned(shares: list[UnsafeShare]) -> UnsafeShare | None:
    unsafe = [share for share in shares if share.tuned]
    return next((share for share in unsafe if share.category == CRISIS), unsafe[0] if unsafe else None)


def _describe_replies(scores: Comparison, verdict: Verdict, limit: int, words: Words) -> str:
    """Returns a sentence on what the tuned replies are like; "" for plain texts, which have none.

    `limit` is that of the replies' tokens. Faults that the base model has as often are left out where their gate has
    passed.
    """
    if "chrf" not in scores.tuned:
        return ""
    rows, clauses, sound = scores.tuned["chrf"].n, [], True
    passed = {check.name for check in verdict.checks if check.outcome == "passed"}
    for name, (fault, good) in REPLY_FAULTS.items():
        base, tuned = (round(rows * side[name].value) if name in side else 0 for side in (scores.base, scores.tuned))
        if tuned and name in passed and tuned <= base:
            continue
        sound = sound and not tuned
        if key := fault if tuned else good:
            clauses.append(words.say(f"summary.{key}", count=tuned, rows=rows, limit=limit))
    if closeness := _closeness(scores, floor_state(scores, verdict.thresholds)):
        clauses.append(words.say(f"summary.{closeness}"))
    joint = "but" if closeness and sound != (closeness == "closer") else "and"
    text = clauses[0] if clauses else ""
    for place, clause in enumerate(clauses[1:], 2):
        text = words.say(f"summary.{joint if place == len(clauses) else 'list'}", first=text, second=clause)
    return words.say("summary.subject", clauses=text) if text else ""


def _closeness(scores: Comparison, floor: str) -> str:
    """Returns how close the tuned replies are to the references, as a key of the summary; "" where nothing compares."""
    if scores.tuned["chrf"].n < FEWEST_ROWS:
        return ""
    if floor:
        return {"floor": "at_floor"}.get(floor, floor)
    if "chrf" not in scores.base:
        return ""
    return {"better": "closer", "worse": "further"}.get(scores.delta["chrf"].change, "as_close")


def _describe_scores(scores: Comparison, kind: str, words: Words) -> list[str]:
    """Returns sentences with the numbers of chrF++ and perplexity, and the names of all scores that are worse."""
    both = [name for name in LABELS if name in scores.base and name in scores.tuned and name in scores.delta]
    shown = [name for name in ("chrf", "perplexity") if name in scores.tuned]
    if not set(shown) & set(both):
        values = [f"{words.name(LABELS[n][0])} {words.number(scores.tuned[n].value, 1)}" for n in shown]
        return [words.say("summary.tuned_alone", values=", ".join(values))] if values else []
    sentences = []
    if "chrf" in both:
        floor = scores.tuned["chrf"].floor
        shown_floor = words.say("page.not_measured") if floor is None else words.number(floor, 1)
        sentences.append(words.say("summary.chrf", floor=shown_floor, **_change(scores, "chrf", words)))
    if "perplexity" in both:
        verdict = score_verdict(scores, _likelihood(scores))
        outcome = {"better": "likelier", "worse": "worse, not better"}.get(verdict, verdict)
        facts = {"rows": scores.delta["perplexity"].n, "verdict": words.of("outcome", outcome)}
        shown = _change(scores, "perplexity", words)
        way = "fell" if scores.delta["perplexity"].value < 0 else "rose"
        way = "stayed" if shown["base"] == shown["tuned"] else way
        sentences.append(words.say(f"summary.{way}", **facts, **shown))
    if kind == "few":
        return [*sentences, words.say("summary.one_row")]
    worse = [words.name(LABELS[name][0]) for name in both if score_verdict(scores, name) == "worse"]
    return [*sentences, words.say("summary.worse_scores", names=", ".join(worse))] if worse else sentences


def _change(scores: Comparison, name: str, words: Words) -> dict[str, str]:
    """Returns a score of both models and the interval of its change, as a sentence shows them."""
    delta: Score = scores.delta[name]
    sides = {side: words.number(getattr(scores, side)[name].value, 1) for side in ("base", "tuned")}
    return sides | {"low": words.number(delta.low, 1, "+"), "high": words.number(delta.high, 1, "+")}


def _describe_safety(results: Results, shares: list[UnsafeShare], words: Words) -> list[str]:
    """Returns how safety changed, where the tuned model has most unsafe replies, and the crisis prompts, whatever
    their result."""
    if not shares:
        return [words.say("summary.no_safety")]
    crisis = next((share for share in shares if share.category == CRISIS), None)
    change, warned = _safety_change(results, shares), _warned(shares)  # the latter stands beside the verdict
    if change == "same" and warned:
        change = "as_unsafe" if all(share.tuned == share.base for share in shares) else "unclear"
    sentences = [words.say(f"summary.safety_{change}")] if warned is None or warned.base is not None else []
    if warned is None:
        sentences.append(words.say("summary.none_unsafe"))
    elif warned is not shares[0]:
        sentences.append(describe_worst(shares[0], words))
    if crisis and crisis is not warned:
        sentences.append(words.say("summary.crisis", **crisis.facts(words)))
    return sentences


def describe_worst(share: UnsafeShare, words: Words) -> str:
    """Returns a sentence on a share of unsafe replies: where it is, and what the base model's is."""
    return words.say("summary.worst", where=share.where(words), base=share.facts(words)["base"])


def describe_fixed(replies: list[dict], decoding: dict, words: Words) -> str:
    """Returns in a sentence how the replies of infer/replies.jsonl were decoded, and how many were cut.

    `decoding` are `temperature`, `top_p` and `max_new_tokens` of 04_infer.
    """
    how = words.say("page.sampled" if decoding["temperature"] else "page.greedy", **decoding)
    cut = sum(bool(row.get("hit_cap")) for row in replies)
    return words.say("page.fixed_cut", how=how, cut=cut, rows=len(replies), limit=decoding["max_new_tokens"])


def _safety_change(results: Results, shares: list[UnsafeShare]) -> str:
    """Returns "worse", "better" or "same": worse too where the crisis prompts alone got worse, few as they are."""
    prompts = results.metrics["evaluate"].get("prompts", {}).get("delta", {})
    deltas = [results.scores.delta if results.scores else {}, {n: Score(**d) for n, d in prompts.items()}]
    verdicts = [delta["unsafe"].change for delta in deltas if "unsafe" in delta and delta["unsafe"].n > 1]
    crisis = [share for share in shares if share.category == CRISIS and share.base is not None]
    if "worse" in verdicts or any(share.tuned > (share.base or 0) for share in crisis):
        return "worse"
    return "better" if "better" in verdicts else "same"


def _describe_people(results: Results, words: Words) -> str:
    """Returns what people say of the replies' empathy; "" where nobody was asked."""
    ratings = results.ratings
    if not ratings.get("raters"):
        return ""
    facts = {"raters": len(ratings["raters"]), "pairs": ratings["pairs"]}
    marks = ratings["scales"].get("empathy")
    if not marks:
        return words.say("summary.people_alone", **facts)
    numbers = {name: words.number(marks[name], 2, "+") for name in ("delta", "low", "high")}
    return words.say("summary.people", scale=words.name("empathy"), **facts, **numbers)
