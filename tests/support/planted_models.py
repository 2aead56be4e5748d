"""Models with a known fault, planted as what they answer: likelihoods, replies, and answers to prompts and probes.

The rows are the embedded corpus; everything after the answers (scores, floors, intervals, verdict) is the suite's own.
A model's reply is the reference with some of its words replaced by words of other rows: the fewer, the better.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy

from helpers.data.clean import clean_table
from helpers.data.group import group_rows, link_rows
from helpers.data.load import load_table
from helpers.data.probes import instructions, scored_probes
from helpers.data.prompts import fixed_prompts
from helpers.evaluation import metrics as scoring
from helpers.evaluation import resampling
from helpers.evaluation.answers import Answers, EvaluationSettings
from helpers.evaluation.evaluate import (
    Evaluated,
    HeldOut,
    compare_forgetting,
    compare_prompts,
    compare_replies,
    floor_sums,
    join_replies,
    score_sums,
)
from helpers.evaluation.verdict import Thresholds, reach_verdict
from helpers.language.bengali import split_words
from helpers.runs.settings import default_settings

BITS = 0.8  # per character, of the base model
HOTLINE = "এখনই ৯৮৮ নম্বরে ফোন করুন।"
REFERRAL = "আপনি একা নন। এখনই ৯৯৯ নম্বরে ফোন করুন, কিংবা কাছের কাউকে পাশে ডাকুন।"
CALM = "আপনার কথা শুনলাম। আপনার কষ্টটা বুঝতে পারছি।"


@dataclass(frozen=True)
class Planted:
    """A tuned model; the base model is one too, with its own values."""

    kept: float = 0.35  # share of the reference's words in a reply
    bits: float = BITS
    known: float = 0.7  # share of questions, pairs and instructions that it gets right, in Bengali
    known_en: float = 0.7
    text: float = 1.0  # bits per character of general texts, over the base model's
    echoes: bool = False
    hotline: float = 0.0  # share of replies that name a foreign hotline
    shorter: float = 1.0  # share of a reply's sentences that is left


BASE = Planted()
BETTER = Planted(kept=0.55, bits=0.7)
MODELS = {
    "truly better": BETTER,
    "only shorter": Planted(shorter=0.5),
    "copies the question": Planted(bits=0.7, echoes=True),
    "damaged in Bengali": Planted(kept=0.55, bits=0.7, known=0.45, text=1.25),
    "forgot English": Planted(kept=0.55, bits=0.7, known_en=0.45),
    "names foreign hotlines": Planted(kept=0.55, bits=0.7, hotline=0.2),
}


@cache
def corpus_rows():
    """Returns the rows of the embedded corpus as evaluated rows, each with its group."""
    table = clean_table(load_table("embedded")[0]).kept
    groups = group_rows(table, link_rows(table, 0.8))
    return [
        {
            "id": row["id"],
            "topic": row["topic"],
            "group": group,
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ],
        }
        for row, group in zip(table.to_dict("records"), groups)
    ]


def write_replies(rows, model, rng):
    """Returns a model's reply to each row."""
    # an array: rng.choice would make one of a list at each draw, a third of a planted evaluation's time
    vocabulary = numpy.array([word for row in rows for word in split_words(row["messages"][1]["content"])])
    replies = []
    for row in rows:
        question, reference = (turn["content"] for turn in row["messages"])
        sentences = [sentence for sentence in reference.split("।") if sentence.strip()]
        sentences = sentences[: max(1, round(model.shorter * len(sentences)))]
        words = [[w if rng.random() < model.kept else rng.choice(vocabulary) for w in s.split()] for s in sentences]
        text = question if model.echoes else "".join(f"{' '.join(sentence)}। " for sentence in words)
        replies.append(f"{text} {HOTLINE}" if rng.random() < model.hotline else text.strip())
    return [as_reply(reply) for reply in replies]


def as_reply(text):
    """Returns a reply that ended by itself, as the generation returns it."""
    return {"reply": text, "new_tokens": len(text), "hit_cap": False, "seconds": 0.0}


def score_rows(rows, model, rng, difficulty):
    """Returns the likelihood of each row's reference; `difficulty` is what makes a row hard for both models."""
    scored = []
    for row, hard in zip(rows, difficulty):
        characters = len(row["messages"][1]["content"])
        nll = characters * math.log(2) * max(0.05, model.bits + hard + rng.normal(0, 0.04))
        scored.append({"nll": nll, "tokens": characters // 3, "characters": characters, "correct": characters // 9})
    return scored


def score_probe(probe, model, rng, answered):
    """Returns the likelihood of a probe; `answered` tells whether an item is answered, given the share that is."""
    if probe.score.startswith("text"):
        relative = model.text if probe.score == "text_bn" else 1.0
        return {"nll": 300 * math.log(2) * relative * rng.normal(1, 0.01), "characters": 200}
    share = model.known_en if probe.score.endswith("_en") else model.known
    likely = probe.right == answered((probe.score, probe.item), share)
    return {"nll": (10.0 if likely else 30.0) + rng.random(), "characters": 10}


def follow(instruction, done):
    """Returns a reply that follows an instruction, or one that does not."""
    check = instruction.check
    if not done:
        return "\n".join(["এটি অন্য কিছু 7 8"] * 40)
    if check["kind"] == "number":
        return str(check["value"])
    if check["kind"] in ("words", "lines"):
        return (" " if check["kind"] == "words" else "\n").join(["কথা"] * check["least"])
    wanted = check[instruction.language]
    return wanted[0] if isinstance(wanted, list) else wanted


def answer_all(rows, prompts, model, seed, latent, difficulty):
    """Returns all that a model answers."""
    rng = numpy.random.default_rng(seed)
    probes, asked = scored_probes([]), instructions([])

    decided = {}

    def answered(item, share):
        """Returns whether the model knows an item; most are as hard for one model as for the other."""
        hard = latent.setdefault(item, rng.random())
        if item not in decided:
            decided[item] = (hard if rng.random() < 0.9 else rng.random()) < share
        return decided[item]

    safe = [REFERRAL if prompt["category"] == "crisis" else CALM for prompt in prompts]
    spoken = [f"{HOTLINE} {CALM}" if rng.random() < 2 * model.hotline else own for own in safe]
    shares = {"bn": model.known, "en": model.known_en}
    return Answers(
        likelihood=score_rows(rows, model, rng, difficulty),
        replies=write_replies(rows, model, rng),
        prompts=[as_reply(text) for text in spoken],
        probes=[score_probe(probe, model, rng, answered) for probe in probes],
        instructions=[as_reply(follow(own, answered(own[:2], shares[own.language]))) for own in asked],
    )


def evaluate_planted(run, tuned, seed, rows=0, draws=300):
    """Returns the content of metrics.json, without the verdict, of a planted model against BASE, over the corpus or its
    first rows."""
    settings = EvaluationSettings(**default_settings("evaluate") | {"bootstrap_draws": draws, "seed": seed})
    rows, prompts, latent = corpus_rows()[: rows or None], fixed_prompts(), {}
    difficulty = numpy.random.default_rng(seed).normal(0, 0.1, len(rows))
    answers = {
        side: answer_all(rows, prompts, model, 2 * seed + place, latent, difficulty)
        for place, (side, model) in enumerate((("base", BASE), ("tuned", tuned)))
    }
    replies = join_replies(rows, answers)
    sums = {side: score_sums(replies[side], own.likelihood) for side, own in answers.items()}
    evaluated = Evaluated(
        HeldOut(rows, prompts), answers, replies, sums, floor_sums(replies, [row["group"] for row in rows], seed)
    )
    return {
        "n": len(rows),
        **compare_replies(evaluated, settings).model_dump(),
        "prompts": compare_prompts(run, evaluated, settings),
        "probes": compare_forgetting(evaluated, settings),
    }


def judge_planted(run, tuned, seed, **options):
    """Returns the verdict on a planted model."""
    return reach_verdict(evaluate_planted(run, tuned, seed, **options), Thresholds())


def score_fewer(monkeypatch):
    """Draws floors and p-values from fewer samples, which are most of the time; a p-value can still be small enough."""
    monkeypatch.setattr(scoring, "FLOOR_PAIRS", 400)
    monkeypatch.setattr(resampling, "PERMUTATIONS", 600)
