"""Scores that are right for Bengali, each with a bootstrap interval, a floor and its direction.

Every score is a function of sums over rows, so that one resampling of rows serves all of them, and the same
resampling serves base and tuned model (paired).
"""

import math
from collections import Counter
from functools import cache

import numpy

from helpers import rubric, text

BETTER = {
    "perplexity": "lower",
    "bits_per_char": "lower",
    "token_accuracy": "higher",
    "chrf": "higher",
    "bleu": "higher",
    "rouge1": "higher",
    "rouge2": "higher",
    "rougeL": "higher",
    "distinct1": "higher",
    "distinct2": "higher",
    "length_ratio": "near 1",
    "empathy": "higher",
    "graded": "higher",
    "unsafe": "lower",
    "hit_cap": "lower",
    "echo": "lower",
    "not_bengali": "lower",
}
GROUPS = 12  # topics that are shown by themselves
ECHO = 0.8  # share of a prompt's 4-grams
BENGALI = 0.5  # share of letters
OVERLAP = ("chrf", "bleu", "rouge1", "rouge2", "rougeL")  # the scores that have a floor: shuffled references


class _Words:
    """rouge_score's tokenizer interface over Bengali words; its own keeps [a-z0-9] only."""

    def tokenize(self, reply: str) -> list[str]:
        return text.words(reply)


@cache
def _rouge():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())


@cache
def _sacrebleu():
    from sacrebleu.metrics import BLEU, CHRF

    return {"chrf": CHRF(word_order=2), "bleu": BLEU(tokenize="intl")}


def rouge(reply: str, reference: str) -> dict[str, float]:
    """Returns ROUGE-1, -2 and -L F1 (0 to 1) of one reply over Bengali words (Lin 2004)."""
    return {name: score.fmeasure for name, score in _rouge().score(reference, reply).items()}


@cache
def library_metric(name: str):
    """Returns "rouge", "bleu" or "chrf", right for Bengali, as an `evaluate.Metric`: for whoever uses that library.

    `compute(predictions=[…], references=[…])` takes texts, one reference each; it needs no network. Raises KeyError for
    another name.
    """
    import datasets
    import evaluate

    def rouge_means(predictions, references):
        each = [rouge(reply, reference) for reply, reference in zip(predictions, references, strict=True)]
        return {key: sum(row[key] for row in each) / len(each) for key in each[0]}

    def sacrebleu_score(predictions, references):
        metric = _sacrebleu()[name]
        score = metric.corpus_score(predictions, [references]).score
        return {name: score, "signature": str(metric.get_signature())}

    about = {
        "rouge": ("ROUGE F1 over words of any script, mean over replies, 0 to 1.", rouge_means),
        "bleu": ("Corpus BLEU with sacreBLEU's intl tokenizer, 0 to 100.", sacrebleu_score),
        "chrf": ("Corpus chrF++ by sacreBLEU, 0 to 100.", sacrebleu_score),
    }
    description, compute = about[name]

    class BengaliMetric(evaluate.Metric):
        def _info(self):
            texts = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            return evaluate.MetricInfo(
                description=description,
                citation="",
                inputs_description="predictions and references: lists of texts, as many of each",
                features=datasets.Features(texts),
            )

        def _compute(self, predictions, references):
            return compute(predictions, references)

    return BengaliMetric()


def distinct(reply: str, n: int) -> float:
    """Returns distinct n-grams over n-grams of one reply (Li et al. 2016, per reply); 0 for fewer than n words."""
    found = _ngrams(text.words(reply), n)
    return len(set(found)) / len(found) if found else 0.0


def echoes(reply: str, prompt: str) -> bool:
    """Returns whether a reply repeats its prompt: at least ECHO of the prompt's 4-grams (or all of a shorter one)."""
    asked, said = text.words(prompt), text.words(reply)
    parts = _ngrams(asked, min(4, len(asked)))
    known = set(_ngrams(said, min(4, len(asked))))
    return bool(parts) and sum(part in known for part in parts) >= ECHO * len(parts)


def _ngrams(words: list[str], n: int) -> list[tuple]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)] if n else []


def signatures() -> dict[str, str]:
    """Returns sacreBLEU's signatures of chrF++ and BLEU: what makes a score comparable."""
    for metric in _sacrebleu().values():
        metric.corpus_score(["ক"], [["ক"]])  # the number of references is known after a score
    return {name: str(metric.get_signature()) for name, metric in _sacrebleu().items()}


def statistics(rows: list[dict], likelihoods: list[dict] | None = None) -> dict[str, numpy.ndarray]:
    """Returns per score an array (rows, k) of what is summed over rows.

    `rows` have reply, reference, hit_cap and, for `echo`, prompt; without any (plain texts have no replies) the
    likelihoods alone count.
    """
    found = {}
    if rows:
        replies = [row["reply"] for row in rows]
        found = overlap_statistics(replies, [row["reference"] for row in rows])
        prompts = [row.get("prompt", "") for row in rows]
        found |= {f"distinct{n}": _means([distinct(reply, n) for reply in replies]) for n in (1, 2)}
        lengths = [(len(text.words(row["reply"])), len(text.words(row["reference"]))) for row in rows]
        found["length_ratio"] = numpy.array(lengths, dtype=float)
        found |= rubric_statistics(rows)
        found["hit_cap"] = _means([float(row["hit_cap"]) for row in rows])
        found["echo"] = _means([float(echoes(*pair)) for pair in zip(replies, prompts)])
        found["not_bengali"] = _means([float(text.bengali_share(reply) < BENGALI) for reply in replies])
    if likelihoods is not None:
        for name, top, bottom in (
            ("perplexity", "nll", "tokens"),
            ("bits_per_char", "nll", "characters"),
            ("token_accuracy", "correct", "tokens"),
        ):
            found[name] = numpy.array([[row[top], row[bottom]] for row in likelihoods], dtype=float)
    return found


def rubric_statistics(rows: list[dict]) -> dict[str, numpy.ndarray]:
    """Returns the arrays of the rubric's scores for rows with a reply and, where known, the category of its prompt."""
    judged = [rubric_scores(row) for row in rows]
    return {name: _means([row[name] for row in judged]) for name in ("empathy", "graded", "unsafe")}


def rubric_scores(row: dict) -> dict[str, float]:
    """Returns one reply's `empathy` and `graded` (0 to 100) and `unsafe` (0 or 1)."""
    reply = row["reply"]
    return {
        "empathy": rubric.published(reply)["total"],
        "graded": rubric.graded(reply)["total"],
        "unsafe": float(bool(rubric.unsafe(reply, row.get("category", "")))),
    }


def by_category(base: list[dict], tuned: list[dict]) -> list[dict]:
    """Returns the means of the rubric's scores for each category, base beside tuned."""
    found = {}
    for side, rows in (("base", base), ("tuned", tuned)):
        for row in rows:
            scores = found.setdefault(row["category"], {"n": 0})
            scores["n"] += side == "base"
            for name, value in rubric_scores(row).items():
                scores[f"{side} {name}"] = scores.get(f"{side} {name}", 0.0) + value
    return [
        {"category": category, **{name: total if name == "n" else total / sums["n"] for name, total in sums.items()}}
        for category, sums in found.items()
    ]


def overlap_statistics(replies: list[str], references: list[str]) -> dict[str, numpy.ndarray]:
    """Returns the arrays of the OVERLAP scores for replies against references, row by row."""
    each = [rouge(reply, reference) for reply, reference in zip(replies, references, strict=True)]
    found = {name: _means([row[name] for row in each]) for name in ("rouge1", "rouge2", "rougeL")}
    for name, metric in _sacrebleu().items():
        found[name] = numpy.array(metric._extract_corpus_statistics(replies, [references]), dtype=float)
    return found


def _means(values: list[float]) -> numpy.ndarray:
    return numpy.array([[value, 1.0] for value in values])


def _value(name: str, sums: numpy.ndarray) -> float:
    if name in ("chrf", "bleu"):
        return _sacrebleu()[name]._compute_score_from_stats([int(round(x)) for x in sums]).score
    if not sums[1]:
        return 0.0
    if name == "perplexity":
        return math.exp(sums[0] / sums[1])
    if name == "bits_per_char":
        return sums[0] / sums[1] / math.log(2)
    return sums[0] / sums[1]


def compare(base: dict, tuned: dict, floors: dict, draws: int, seed: int, level: float = 95.0) -> dict[str, dict]:
    """Returns {"base": …, "tuned": …, "delta": …}: per score `value`, `low`, `high`, `floor`, `better`, `n`.

    `base` and `tuned` come from `statistics`, `floors` from `overlap_statistics` over shuffled references. The
    interval is the percentile bootstrap over rows (Efron 1979), of `level` %; both models see the same resampled rows,
    so that `delta` (tuned − base) is a paired comparison.
    """
    count = len(next(iter(base.values())))
    picks = numpy.random.default_rng(seed).multinomial(count, numpy.full(count, 1 / count), size=draws)
    table = {"base": {}, "tuned": {}, "delta": {}}
    for name, better in BETTER.items():
        if name not in base:
            continue
        values, drawn = {}, {}
        for side, found in (("base", base), ("tuned", tuned)):
            values[side] = _value(name, found[name].sum(axis=0))
            drawn[side] = numpy.array([_value(name, sums) for sums in picks @ found[name]])
        values["delta"], drawn["delta"] = values["tuned"] - values["base"], drawn["tuned"] - drawn["base"]
        for side in table:
            low, high = numpy.percentile(drawn[side], [50 - level / 2, 50 + level / 2])
            floor = floors[side][name].sum(axis=0) if side in floors and name in floors[side] else None
            table[side][name] = {
                "value": float(values[side]),
                "low": float(low),
                "high": float(high),
                "floor": None if floor is None else float(_value(name, floor)),
                "better": better,
                "n": len(base[name]),
            }
    return table


def chrf(reply: str, reference: str) -> float:
    """Returns chrF++ (0 to 100) of one reply."""
    return _sacrebleu()["chrf"].sentence_score(reply, [reference]).score


def breakdown(base: dict, tuned: dict, labels: list[str], draws: int, seed: int, least: int = 5) -> list[dict]:
    """Returns chrF++ and perplexity of the rows of each label, base beside tuned, the change with its interval.

    `base` and `tuned` come from `statistics`, `labels` has one a row. The GROUPS labels with the most rows are shown,
    in that order; the others, and those of fewer than `least` rows, together as "other".
    """
    shown = [label for label, n in Counter(labels).most_common(GROUPS) if n >= least]
    names = [name for name in ("chrf", "perplexity") if name in base]
    found = []
    for label in [*shown, "other"]:
        at = [place for place, one in enumerate(labels) if (one if one in shown else "other") == label]
        if at:
            sides = [{name: side[name][at] for name in names} for side in (base, tuned)]
            scores = compare(*sides, {}, draws, seed)
            found.append({"label": label or "none given", "n": len(at)} | {side: scores[side] for side in scores})
    return found


def length_bins(references: list[str]) -> list[str]:
    """Returns each reference's quarter by length, as "1 to 14 words"."""
    lengths = [len(text.words(reference)) for reference in references]
    edges = sorted({int(edge) for edge in numpy.quantile(lengths, [0.25, 0.5, 0.75])} | {max(lengths)})
    starts = [min(lengths), *(edge + 1 for edge in edges[:-1])]
    return [f"{starts[at]} to {edges[at]} words" for at in numpy.searchsorted(edges, lengths)]


def shuffled(references: list[str], seed: int) -> list[str]:
    """Returns the references moved so that none stands where it stood; ValueError for fewer than two."""
    if len(references) < 2:
        raise ValueError(f"{len(references)} reference: a floor needs at least 2 rows.")
    order = numpy.random.default_rng(seed).permutation(len(references))
    moved = [None] * len(references)
    for place, following in zip(order, numpy.roll(order, 1)):
        moved[place] = references[following]
    return moved
