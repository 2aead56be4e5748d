"""Scores that are right for Bengali."""

import json
import math
import random
import subprocess
import sys

import numpy
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from helpers.evaluation import metrics
from helpers.evaluation.meaning import AGAINST as MEANING
from helpers.evaluation.metrics import (
    BETTER,
    distinct,
    draw_floor,
    echoes,
    floor_sums,
    library_metric,
    overlap_sums,
    rouge,
    rubric_scores,
    score_sums,
    score_value,
    signatures,
)

REPLY = "আপনার কষ্টটা আমি বুঝতে পারছি। একা থাকবেন না, আমি পাশে আছি।"
OTHER = "কাল সকালে বাজারে যাব, একটু মাছ আর সবজি কিনতে হবে।"


@pytest.fixture(scope="module")
def texts(embedded_rows):
    """Returns 60 answers of the embedded corpus."""
    return [row["messages"][-1]["content"] for row in embedded_rows[:60]]


def test_identical_bengali_replies_score_one():
    assert rouge(REPLY, REPLY) == {"rouge1": 1, "rouge2": 1, "rougeL": 1}


def test_one_common_english_word_gives_a_low_rouge():
    assert 0 < rouge(f"{REPLY} ok", f"{OTHER} ok")["rouge1"] < 0.25


def english_pairs(number):
    rng = random.Random(0)
    text = "a the rain falls on old roofs and we wait here for 3 buses, don't we? It's 10:30. Yes; no-one knows!"
    words = text.split()
    return [(" ".join(rng.choices(words, k=14)), " ".join(rng.choices(words, k=11))) for _ in range(number)]


def test_on_english_our_rouge_is_rouge_scores():
    library = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for reply, reference in english_pairs(1000):
        expected = {name: score.fmeasure for name, score in library.score(reference, reply).items()}
        assert rouge(reply, reference) == pytest.approx(expected, abs=1e-9)


def test_bleu_and_chrf_are_what_sacrebleus_command_prints(texts, tmp_path):
    references = [text.replace("\n", " ") for text in texts[1:] + texts[:1]]
    mixed = [f"{own[:30]} {other[30:]}".replace("\n", " ") for own, other in zip(texts, texts[1:] + texts[:1])]
    for name, lines in (("replies", mixed), ("references", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "references", "-i", tmp_path / "replies"]
    command += ["-m", "bleu", "chrf", "--tokenize", "intl", "--chrf-word-order", "2", "-w", "6", "--format", "json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    printed = {"bleu" if score["name"] == "BLEU" else "chrf": score for score in json.loads(output)}
    sums = overlap_sums(mixed, references)
    assert set(printed) == {"bleu", "chrf"}
    for name, score in printed.items():
        assert round(score_value(name, sums[name].sum(axis=0)), 6) == score["score"]
        assert score["signature"] == signatures()[name]


def test_sums_over_rows_give_sacrebleus_corpus_scores(texts):
    references = texts[1:] + texts[:1]
    mixed = [own[:40] + other[40:] for own, other in zip(texts, references)]
    sums = overlap_sums(mixed, references)
    for name, metric in (("chrf", CHRF(word_order=2)), ("bleu", BLEU(tokenize="intl"))):
        assert score_value(name, sums[name].sum(axis=0)) == metric.corpus_score(mixed, [references]).score


def test_the_evaluate_librarys_rouge_is_the_mean_of_ours():
    metric = library_metric("rouge")
    scores = metric.compute(predictions=[REPLY, REPLY], references=[REPLY, OTHER])
    assert scores["rougeL"] == pytest.approx((1 + rouge(REPLY, OTHER)["rougeL"]) / 2)
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metric.compute(predictions=[REPLY], references=[])


@pytest.mark.parametrize(("name", "metric"), [("chrf", CHRF(word_order=2)), ("bleu", BLEU(tokenize="intl"))])
def test_the_evaluate_librarys_overlap_is_sacrebleus(texts, name, metric):
    references = texts[1:] + texts[:1]
    scores = library_metric(name).compute(predictions=texts, references=references)
    assert scores[name] == metric.corpus_score(texts, [references]).score
    assert "version" in scores["signature"]


def test_the_danda_is_no_part_of_a_word():
    assert rouge("মন ভালো নেই", "মন ভালো নেই।")["rougeL"] == 1


def test_the_floor_compares_with_another_rows_reference(texts):
    """Replies that copy their own reference score all; with that of another row they hardly score."""
    rows = [{"reply": text, "reference": text} for text in texts]
    floors = floor_sums({"base": rows, "tuned": rows}, list(map(str, range(len(rows)))), 0)
    for side in ("base", "tuned"):
        for name, full in (("chrf", 100), ("bleu", 100), ("rougeL", 1)):
            floor, _ = draw_floor(name, floors[side][name], 0)
            assert floor < 0.3 * full, f"{name}'s floor is a score: are the references shuffled?"


def test_plain_texts_have_no_floor():
    assert floor_sums({"base": [], "tuned": []}, [], 0) == {}


@pytest.mark.parametrize(
    ("reply", "n", "expected"),
    [("মন ভালো মন ভালো মন", 2, 0.5), ("মন ভালো মন ভালো মন", 1, 0.4), ("মন", 2, None), ("", 1, None)],
)
def test_distinct_ngrams(reply, n, expected):
    assert distinct(reply, n) == (expected and pytest.approx(expected))


QUESTION = "আজ খুব মন খারাপ, নিজেকে ভীষণ একা লাগছে।"


@pytest.mark.parametrize(
    ("reply", "question", "expected"),
    [
        (QUESTION, QUESTION, True),
        (f"আপনি বললেন, {QUESTION} আমি শুনছি।", QUESTION, True),
        ("মন খারাপ লাগাটা স্বাভাবিক, আমি পাশে আছি।", QUESTION, False),
        ("মন খারাপ? কী হয়েছে?", "মন খারাপ!", True),
        ("কী হয়েছে?", "মন খারাপ!", False),
        ("", QUESTION, False),
        ("কিছু", "", False),
    ],
)
def test_a_reply_that_repeats_its_question_is_an_echo(reply, question, expected):
    assert echoes(reply, question) is expected


WORDS = "এক দুই তিন চার পাঁচ ছয় সাত আট".split()  # eight words: five 4-grams


@pytest.mark.parametrize(("words", "expected"), [(WORDS[:6], False), (WORDS[:7], True), (WORDS, True)])
def test_an_echo_repeats_four_of_five_4_grams(words, expected):
    assert echoes(" ".join(words), " ".join(WORDS)) is expected


def test_four_words_in_a_row_are_repeated_not_three():
    """A reply that has every word of its prompt, four at a time."""
    fours = [WORDS[start : start + 4] for start in range(5)]
    assert echoes(" আর ".join(" ".join(four) for four in fours), " ".join(WORDS))
    threes = [WORDS[start : start + 3] for start in range(6)]
    assert not echoes(" আর ".join(" ".join(three) for three in threes), " ".join(WORDS))


def test_shares_over_rows_are_of_their_own_score():
    rows = [
        {"reply": "মন মন মন ভালো", "reference": "মন ভালো নেই", "hit_cap": True, "prompt": "মন মন মন ভালো"},
        {"reply": "কেমন আছেন আপনি", "reference": "আপনি আছেন", "hit_cap": False},
    ]
    sums = {name: value.sum(axis=0) for name, value in score_sums(rows).items()}
    shares = {name: score_value(name, sums[name]) for name in ("distinct1", "distinct2", "hit_cap", "echo")}
    assert shares == pytest.approx(
        {"distinct1": (2 / 4 + 1) / 2, "distinct2": (2 / 3 + 1) / 2, "hit_cap": 0.5, "echo": 0.5}
    )
    assert score_value("length_ratio", sums["length_ratio"]) == 7 / 5


@pytest.mark.parametrize(("reply", "share"), [("কখ ab", 0), ("ক ab", 1), ("কখ a", 0)])
def test_half_of_the_letters_make_a_reply_bengali(reply, share):
    sums = score_sums([{"reply": reply, "reference": "মন", "hit_cap": False}])["not_bengali"].sum(axis=0)
    assert score_value("not_bengali", sums) == share


@pytest.mark.parametrize("name", ["perplexity", "length_ratio"])
def test_a_score_over_nothing_is_zero(name):
    assert score_value(name, numpy.array([3.0, 0.0])) == 0


def test_likelihoods_alone_are_scored():
    likelihood = {"nll": 3 * math.log(2), "tokens": 3, "characters": 6, "correct": 2}
    sums = score_sums([], [likelihood])
    values = {name: score_value(name, rows.sum(axis=0)) for name, rows in sums.items()}
    assert values == pytest.approx({"perplexity": 2, "bits_per_char": 0.5, "token_accuracy": 2 / 3})


def test_every_score_says_which_direction_is_better():
    rows = [{"reply": "মন", "reference": "মন", "hit_cap": False}]
    likelihood = {"nll": 1.0, "tokens": 1, "characters": 1, "correct": 1}
    assert score_sums(rows, [likelihood]).keys() == BETTER.keys() - {*MEANING}
    assert {BETTER[name] for name in ("chrf", "bleu", "empathy", "distinct2", "token_accuracy")} == {"higher"}
    assert {BETTER[name] for name in ("perplexity", "unsafe", "echo", "hit_cap", "not_bengali")} == {"lower"}


@pytest.mark.parametrize(("category", "unsafe"), [("crisis", 1.0), ("exam", 0.0)])
def test_a_rows_category_decides_what_is_unsafe(category, unsafe):
    scores = rubric_scores({"reply": "আমি পাশে আছি।", "category": category})
    assert scores.keys() == {"empathy", "graded", "unsafe"}
    assert scores["unsafe"] == unsafe


def test_the_signatures_name_tokenizer_and_word_order():
    assert "tok:intl" in signatures()["bleu"]
    assert "nw:2" in signatures()["chrf"]


def test_the_signatures_need_no_score_before():
    metrics._sacrebleu.cache_clear()
    assert all("nrefs:1|" in signature for signature in signatures().values())
