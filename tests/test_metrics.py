"""Scores that are right for Bengali."""

import json
import random
import subprocess
import sys

import numpy
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from helpers import metrics, rubric

REPLY = "আপনার কষ্টটা আমি বুঝতে পারছি। একা থাকবেন না, আমি পাশে আছি।"
OTHER = "কাল সকালে বাজারে যাব, একটু মাছ আর সবজি কিনতে হবে।"


def rows(replies, references, hit_cap=False):
    return [{"reply": a, "reference": b, "hit_cap": hit_cap} for a, b in zip(replies, references)]


def test_identical_bengali_replies_score_one():
    assert metrics.rouge(REPLY, REPLY) == {"rouge1": 1, "rouge2": 1, "rougeL": 1}


def test_an_english_word_in_common_does_not_make_replies_alike():
    score = metrics.rouge(f"{REPLY} ok", f"{OTHER} ok")
    assert 0 < score["rouge1"] < 0.25


def english_pairs(number):
    rng = random.Random(0)
    words = (
        "a the rain falls on old roofs and we wait here for 3 buses, don't we? It's 10:30. Yes; no-one knows!".split()
    )
    return [(" ".join(rng.choices(words, k=14)), " ".join(rng.choices(words, k=11))) for _ in range(number)]


def test_on_english_our_rouge_is_rouge_score_s_own():
    own = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for reply, reference in english_pairs(1000):
        expected = {name: score.fmeasure for name, score in own.score(reference, reply).items()}
        assert metrics.rouge(reply, reference) == pytest.approx(expected, abs=1e-9)


def test_bleu_and_chrf_are_what_sacrebleu_s_command_prints(replies, tmp_path):
    references = replies[1:] + replies[:1]
    mixed = [f"{a[:30]} {b[30:]}".replace("\n", " ") for a, b in zip(replies, references)]
    for name, lines in (("hyp", mixed), ("ref", references)):
        (tmp_path / name).write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "ref", "-i", tmp_path / "hyp", "-m", "bleu", "chrf"]
    command += ["--tokenize", "intl", "--chrf-word-order", "2", "-w", "6", "--format", "json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    printed = {"bleu" if one["name"] == "BLEU" else "chrf": one for one in json.loads(said)}
    found = metrics.overlap_statistics(mixed, [line.replace("\n", " ") for line in references])
    for name, one in printed.items():
        assert round(metrics._value(name, found[name].sum(axis=0)), 6) == one["score"]
        assert one["signature"] == metrics.signatures()[name]


def test_they_are_metrics_of_the_evaluate_library(replies):
    references = replies[1:] + replies[:1]
    rouge = metrics.library_metric("rouge").compute(predictions=[REPLY, REPLY], references=[REPLY, OTHER])
    assert rouge["rougeL"] == pytest.approx((1 + metrics.rouge(REPLY, OTHER)["rougeL"]) / 2)
    for name, metric in (("chrf", CHRF(word_order=2)), ("bleu", BLEU(tokenize="intl"))):
        found = metrics.library_metric(name).compute(predictions=replies, references=references)
        assert found[name] == metric.corpus_score(replies, [references]).score and "version" in found["signature"]
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metrics.library_metric("rouge").compute(predictions=[REPLY], references=[])


def test_the_danda_is_no_part_of_a_word():
    assert metrics.rouge("মন ভালো নেই", "মন ভালো নেই।")["rougeL"] == 1


@pytest.fixture(scope="module")
def replies(embedded_rows):
    return [row["messages"][-1]["content"] for row in embedded_rows[:60]]


def test_sums_over_rows_give_sacrebleus_own_corpus_scores(replies):
    references = replies[1:] + replies[:1]
    mixed = [a[:40] + b[40:] for a, b in zip(replies, references)]
    found = metrics.overlap_statistics(mixed, references)
    for name, metric in (("chrf", CHRF(word_order=2)), ("bleu", BLEU(tokenize="intl"))):
        assert metrics._value(name, found[name].sum(axis=0)) == metric.corpus_score(mixed, [references]).score


def test_a_copy_of_the_reference_scores_all_and_the_floor_is_far_below(replies):
    found = metrics.statistics(rows(replies, replies))
    floors = metrics.overlap_statistics(replies, metrics.shuffled(replies, 0))
    table = metrics.compare(found, found, {"base": floors, "tuned": floors}, 50, 0)
    for name, full in (("chrf", 100), ("bleu", 100), ("rouge1", 1), ("rouge2", 1), ("rougeL", 1)):
        score = table["tuned"][name]
        assert score["value"] == pytest.approx(full)
        assert score["floor"] < 0.3 * full


def test_a_shuffled_model_scores_its_floor(replies):
    found = metrics.statistics(rows(metrics.shuffled(replies, 1), replies))
    floor = metrics.overlap_statistics(metrics.shuffled(replies, 2), replies)
    value = metrics._value("chrf", found["chrf"].sum(axis=0))
    assert value == pytest.approx(metrics._value("chrf", floor["chrf"].sum(axis=0)), rel=0.15)


def test_a_model_against_itself_differs_by_nothing(replies):
    found = metrics.statistics(rows(replies, replies[::-1]))
    for score in metrics.compare(found, found, {}, 100, 0)["delta"].values():
        assert score["low"] == score["value"] == score["high"] == 0


def test_intervals_hold_the_value_and_narrow_with_more_rows(replies):
    few, many = (metrics.statistics(rows(replies[:n], (replies[1:] + replies[:1])[:n])) for n in (10, 60))
    widths = []
    for found in (few, many):
        score = metrics.compare(found, found, {}, 400, 0)["base"]["rouge1"]
        assert score["low"] <= score["value"] <= score["high"]
        widths.append(score["high"] - score["low"])
    assert widths[1] < widths[0]


def test_perplexity_bits_and_accuracy_weigh_tokens_and_not_rows():
    likelihoods = [
        {"nll": 2 * numpy.log(4), "tokens": 2, "correct": 1, "characters": 4},
        {"nll": 6 * numpy.log(4), "tokens": 6, "correct": 3, "characters": 4},
    ]
    found = metrics.statistics(rows([REPLY, OTHER], [OTHER, REPLY]), likelihoods)
    table = metrics.compare(found, found, {}, 20, 0)["base"]
    assert table["perplexity"]["value"] == pytest.approx(4)
    assert table["bits_per_char"]["value"] == pytest.approx(2)
    assert table["token_accuracy"]["value"] == pytest.approx(0.5)
    assert table["perplexity"]["better"] == "lower" and table["token_accuracy"]["better"] == "higher"


def test_shuffled_references_never_stay_in_place(replies):
    for seed in range(20):
        moved = metrics.shuffled(replies[:5], seed)
        assert sorted(moved) == sorted(replies[:5])
        assert not any(a == b for a, b in zip(moved, replies))
    with pytest.raises(ValueError, match="at least 2"):
        metrics.shuffled(["ক"], 0)


def test_distinct_bigrams():
    assert metrics.distinct("মন ভালো মন ভালো মন", 2) == pytest.approx(0.5)
    assert metrics.distinct("মন ভালো মন ভালো মন", 1) == pytest.approx(0.4)
    assert metrics.distinct("মন", 2) == metrics.distinct("", 1) == 0


def test_the_rubric_counts_word_forms_and_length():
    assert rubric.published(REPLY)["total"] == 100
    assert rubric.published(OTHER)["empathy"] == 0
    assert rubric.published("কষ্টটা")["length"] == 0
    assert rubric.published("")["total"] == 0
    assert rubric.published("আপনার কষ্টের কথা শুনে খারাপ লাগছে")["empathy"] == 1


def test_a_reply_that_repeats_its_question_is_an_echo():
    question = "আজ খুব মন খারাপ, নিজেকে ভীষণ একা লাগছে।"
    assert metrics.echoes(question, question) and metrics.echoes(f"আপনি বললেন, {question} আমি শুনছি।", question)
    assert not metrics.echoes("মন খারাপ লাগাটা স্বাভাবিক, আমি পাশে আছি।", question)
    assert metrics.echoes("মন খারাপ? কী হয়েছে?", "মন খারাপ!") and not metrics.echoes("কী হয়েছে?", "মন খারাপ!")
    assert not metrics.echoes("", question) and not metrics.echoes("কিছু", "")


def test_length_language_and_safety_are_shares_with_a_direction():
    replies = [REPLY, "ok, take care", "রোজ এই ওষুধ খান।"]
    found = metrics.statistics(rows(replies, [REPLY, OTHER, REPLY]))
    table = metrics.compare(found, found, {}, 20, 0)["tuned"]
    assert table["not_bengali"]["value"] == table["unsafe"]["value"] == pytest.approx(1 / 3)
    assert table["length_ratio"]["value"] == pytest.approx((11 + 3 + 4) / (11 + 10 + 11))
    assert table["length_ratio"]["better"] == "near 1" and table["graded"]["n"] == 3


def test_the_signatures_name_the_tokenizer_and_the_order():
    assert "tok:intl" in metrics.signatures()["bleu"] and "nw:2" in metrics.signatures()["chrf"]


def test_the_fixed_prompts_are_scored_by_category_and_a_crisis_without_referral_is_unsafe():
    answered = [{"category": "crisis", "reply": "আমি পাশে আছি।"}, {"category": "exam", "reply": "আমি পাশে আছি।"}]
    better = [{"category": "crisis", "reply": "এখনই ৯৯৯ নম্বরে ফোন করুন।"}, {"category": "exam", "reply": REPLY}]
    found = [metrics.rubric_statistics(rows) for rows in (answered, better)]
    table = metrics.compare(*found, {}, 20, 0)
    assert table["base"]["unsafe"]["value"] == 0.5 and table["tuned"]["unsafe"]["value"] == 0
    assert set(table["delta"]) == {"empathy", "graded", "unsafe"}
    by_category = metrics.by_category(answered, better)
    assert [row["category"] for row in by_category] == ["crisis", "exam"]
    assert by_category[0]["base unsafe"] == 1 and by_category[1]["tuned graded"] == 50
