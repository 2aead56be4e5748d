"""Scores that are right for Bengali, as sums over rows.

Every score is a function of sums over rows, so that one resampling of rows serves all of them, and the same
resampling serves base and tuned model (paired).
"""

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy

from helpers.language.bengali import bengali_share, split_words
from helpers.language.rubric import graded_rubric, published_rubric, unsafe_reasons

BETTER = {  # every score, in the order in which they are shown: which direction is better
    **dict.fromkeys(("perplexity", "bits_per_char"), "lower"),
    **dict.fromkeys(
        ("token_accuracy", "chrf", "bleu", "rouge1", "rouge2", "rougeL", "distinct1", "distinct2"), "higher"
    ),
    "length_ratio": "near 1",
    **{"similarity_reference": "higher", "similarity_question": "neither"},  # of helpers.evaluation.meaning
    **dict.fromkeys(("empathy", "graded"), "higher"),
    **dict.fromkeys(("unsafe", "hit_cap", "echo", "not_bengali"), "lower"),
}
PROBE_SCORES = {  # of helpers.evaluation.probes
    **dict.fromkeys(("knowledge_bn", "knowledge_en", "reasoning_bn", "reasoning_en", "grammar_bn"), "higher"),
    **dict.fromkeys(("instructions_bn", "instructions_en"), "higher"),
    **dict.fromkeys(("text_bn", "text_en"), "lower"),
}
AIMS = BETTER | PROBE_SCORES
PRIMARY = ("bits_per_char", "chrf")  # chosen before any result: what the verdict rests on; the others are exploratory
SHARES = (
    *("unsafe", "hit_cap", "echo", "not_bengali"),
    *(name for name in PROBE_SCORES if not name.startswith("text")),
)  # means of zeros and ones
FLOOR_SHUFFLES = 200  # whose mean and spread are a score's floor
FLOOR_REFERENCES = (2, 20)  # of other rows that each reply is scored against for its floor: least and most
FLOOR_PAIRS = 8000  # replies × references of a model that are scored for it, as far as the least allows
ECHO_SHARE = 0.8  # share of a prompt's 4-grams
BENGALI_SHARE = 0.5  # share of letters


@cache
def _rouge() -> Any:
    """Returns rouge_score's scorer over Bengali words; its own tokenizer keeps [a-z0-9] only."""
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=SimpleNamespace(tokenize=split_words))


@cache
def _sacrebleu() -> dict[str, Any]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"chrf": CHRF(word_order=2), "bleu": BLEU(tokenize="intl")}


def rouge(reply: str, reference: str) -> dict[str, float]:
    """Returns ROUGE-1, -2 and -L F1 (0 to 1) of one reply over Bengali words (Lin 2004)."""
    return {name: score.fmeasure for name, score in _rouge().score(reference, reply).items()}


def chrf(reply: str, reference: str) -> float:
    """Returns chrF++ (0 to 100) of one reply (Popović 2017)."""
    return _sacrebleu()["chrf"].sentence_score(reply, [reference]).score


def signatures() -> dict[str, str]:
    """Returns sacreBLEU's signatures of chrF++ and BLEU: what makes a score comparable."""
    for metric in _sacrebleu().values():
        metric.corpus_score(["ক"], [["ক"]])  # the number of references is known after a score
    return {name: str(metric.get_signature()) for name, metric in _sacrebleu().items()}


@cache
def library_metric(name: str) -> Any:
    """Returns "rouge", "bleu" or "chrf", right for Bengali, as an `evaluate.Metric`: for whoever uses that library.

    `compute(predictions=[…], references=[…])` takes texts, one reference each; it needs no network. Raises KeyError for
    another name.
    """
    import datasets
    import evaluate

    descriptions = {
        "rouge": "ROUGE F1 over words of any script, mean over replies, 0 to 1.",
        "bleu": "Corpus BLEU with sacreBLEU's intl tokenizer, 0 to 100.",
        "chrf": "Corpus chrF++ by sacreBLEU, 0 to 100.",
    }
    about: dict[str, Any] = {"description": descriptions[name], "citation": "", "inputs_description": "lists of texts"}

    class BengaliMetric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            texts = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            return evaluate.MetricInfo(features=datasets.Features(texts), **about)

        def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, Any]:
            if name == "rouge":
                scores = [rouge(*pair) for pair in zip(predictions, references, strict=True)]
                return {key: sum(score[key] for score in scores) / len(scores) for key in scores[0]}
            metric = _sacrebleu()[name]
            score = metric.corpus_score(predictions, [references]).score
            return {name: score, "signature": str(metric.get_signature())}

    return BengaliMetric()


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)] if n else []


def distinct(reply: str, n: int) -> float | None:
    """Returns distinct n-grams over n-grams of one reply (Li et al. 2016, per reply); None for fewer than n words, of
    which it says nothing."""
    ngrams = _ngrams(split_words(reply), n)
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def echoes(reply: str, prompt: str) -> bool:
    """Returns whether a reply repeats its prompt: at least ECHO_SHARE of its 4-grams (or all of a shorter one)."""
    asked = split_words(prompt)
    n = min(4, len(asked))
    parts, repeated = _ngrams(asked, n), set(_ngrams(split_words(reply), n))
    return bool(parts) and sum(part in repeated for part in parts) >= ECHO_SHARE * len(parts)


def floor_sums(replies: dict[str, list[dict]], groups: Sequence[str], seed: int) -> dict[str, dict[str, numpy.ndarray]]:
    """Returns by model and score the sums (rows, m, k) of what a floor is drawn from: each reply against the references
    of m rows of other groups, and for the rubric's scores m replies of as many words, drawn from all references.

    `groups` has an entry per row. {} without replies, and where all rows are of one group.
    """
    references = [row["reference"] for row in replies["base"]]
    if len(set(groups)) < 2 or not references:
        return {}
    rng = numpy.random.default_rng(seed)
    others = pick_others(groups, rng)
    number = others.shape[1]
    vocabulary = [word for reference in references for word in split_words(reference)]

    def random_reply(reply: str) -> dict[str, str]:
        return {"reply": " ".join(rng.choice(vocabulary, len(split_words(reply)))) if vocabulary else ""}

    floors = {}
    for side, own in replies.items():
        flat = [(row["reply"], references[other]) for row, chosen in zip(own, others) for other in chosen]
        sums = overlap_sums([reply for reply, _ in flat], [reference for _, reference in flat])
        rubric = rubric_sums([random_reply(row["reply"]) for row in own for _ in range(number)])
        sums |= {name: rubric[name] for name in ("empathy", "graded")}
        floors[side] = {name: values.reshape(len(own), number, -1) for name, values in sums.items()}
    return floors


def pick_others(groups: Sequence[str], rng: numpy.random.Generator) -> numpy.ndarray:
    """Returns m rows of other groups for each row, at random: (rows, m). `groups` has an entry per row, and two or
    more different ones."""
    least, most = FLOOR_REFERENCES
    number = max(least, min(most, FLOOR_PAIRS // len(groups)))
    labels, rows = numpy.array(groups), numpy.arange(len(groups))
    return numpy.array([rng.choice(rows[labels != group], number) for group in groups])


def draw_floor(name: str, pools: numpy.ndarray, seed: int) -> tuple[float, float]:
    """Returns mean and standard deviation of a score over FLOOR_SHUFFLES draws of one entry per row from `pools`, as
    `floor_sums` returns them (rows, m, k)."""
    rows, number, _ = pools.shape
    chosen = numpy.random.default_rng(seed).integers(0, number, (FLOOR_SHUFFLES, rows))
    drawn = score_values(name, numpy.stack([pools[numpy.arange(rows), places].sum(axis=0) for places in chosen]))
    return float(drawn.mean()), float(drawn.std())


def _ratios(top: Sequence[float | None], bottom: Sequence[float] | None = None) -> numpy.ndarray:
    """Returns the array (rows, 2) of a score that is a sum over a sum; without `bottom` it is a mean over the rows
    that have a value."""
    weights = [float(value is not None) for value in top] if bottom is None else bottom
    return numpy.column_stack([[value or 0.0 for value in top], weights]).astype(float)


def score_sums(rows: list[dict], likelihoods: list[dict] | None = None) -> dict[str, numpy.ndarray]:
    """Returns per score an array (rows, k) of what is summed over rows.

    `rows` have reply, reference, hit_cap and, for `echo`, prompt; without any (plain texts have no replies) the
    likelihoods alone count.
    """
    sums = {}
    if rows:
        replies, references = [row["reply"] for row in rows], [row["reference"] for row in rows]
        words = [[len(split_words(text)) for text in texts] for texts in (replies, references)]
        sums = overlap_sums(replies, references) | rubric_sums(rows)
        sums |= {f"distinct{n}": _ratios([distinct(reply, n) for reply in replies]) for n in (1, 2)}
        sums |= {
            "length_ratio": _ratios(*words),
            "hit_cap": _ratios([row["hit_cap"] for row in rows]),
            "echo": _ratios([echoes(row["reply"], row.get("prompt", "")) for row in rows]),
            "not_bengali": _ratios([bengali_share(reply) < BENGALI_SHARE for reply in replies]),
        }
    if likelihoods is not None:
        names = ("nll", "tokens", "characters", "correct")
        nll, tokens, characters, correct = ([row[name] for row in likelihoods] for name in names)
        sums |= {
            "perplexity": _ratios(nll, tokens),
            "bits_per_char": _ratios(nll, characters),
            "token_accuracy": _ratios(correct, tokens),
        }
    return sums


def rubric_scores(row: dict) -> dict[str, float]:
    """Returns `empathy` and `graded` (0 to 100) and `unsafe` (0 or 1) of a row with a reply and, where known, the
    category of its prompt."""
    reply = row["reply"]
    return {
        "empathy": published_rubric(reply)["total"],
        "graded": graded_rubric(reply)["total"],
        "unsafe": float(bool(unsafe_reasons(reply, row.get("category", "")))),
    }


def rubric_sums(rows: list[dict]) -> dict[str, numpy.ndarray]:
    """Returns the arrays (rows, 2) of the `rubric_scores` of rows."""
    scores = [rubric_scores(row) for row in rows]
    return {name: _ratios([score[name] for score in scores]) for name in ("empathy", "graded", "unsafe")}


def overlap_sums(replies: list[str], references: list[str]) -> dict[str, numpy.ndarray]:
    """Returns the arrays (rows, k) of chrF++, BLEU and ROUGE of replies against references: the scores with a floor."""
    scores = [rouge(*pair) for pair in zip(replies, references, strict=True)]
    sums = {name: _ratios([score[name] for score in scores]) for name in ("rouge1", "rouge2", "rougeL")}
    counts = {name: metric._extract_corpus_statistics(replies, [references]) for name, metric in _sacrebleu().items()}
    return sums | {name: numpy.array(rows, dtype=float) for name, rows in counts.items()}


def score_value(name: str, sums: numpy.ndarray) -> float:
    """Returns a score from its arrays' sum over rows (k,)."""
    return float(score_values(name, sums[None])[0])


def score_values(name: str, sums: numpy.ndarray) -> numpy.ndarray:
    """Returns a score for each of several sums over rows, (draws, k): (draws,)."""
    if name in ("chrf", "bleu"):
        counts = numpy.rint(sums).astype(int).tolist()
        return numpy.array([_sacrebleu()[name]._compute_score_from_stats(draw).score for draw in counts])
    totals = sums[:, 1]
    ratios = numpy.divide(sums[:, 0], totals, out=numpy.zeros(len(sums)), where=totals != 0)
    if name == "perplexity":
        return numpy.where(totals != 0, numpy.exp(ratios), 0.0)  # nats per token
    return ratios / math.log(2) if name == "bits_per_char" else ratios
