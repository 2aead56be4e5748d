"""Base against tuned: values, intervals, floors, breakdowns."""

import json
import re

import numpy
import pytest

from helpers.evaluation.comparison import (
    Comparison,
    Score,
    breakdown,
    category_means,
    compare_models,
    length_groups,
)
from helpers.evaluation.metrics import (
    SHARES,
    draw_floor,
    floor_sums,
    rubric_sums,
    score_sums,
    score_value,
)

REPLY = "আপনার কষ্টটা আমি বুঝতে পারছি। একা থাকবেন না, আমি পাশে আছি।"
OTHER = "কাল সকালে বাজারে যাব, একটু মাছ আর সবজি কিনতে হবে।"


@pytest.fixture(scope="module")
def texts(embedded_rows):
    """Returns 60 answers of the embedded corpus."""
    return [row["messages"][-1]["content"] for row in embedded_rows[:60]]


def make_rows(replies, references):
    return [{"reply": reply, "reference": reference, "hit_cap": False} for reply, reference in zip(replies, references)]


def test_a_copy_of_the_reference_scores_all(texts):
    sums = score_sums(make_rows(texts, texts))
    scores = compare_models(sums, sums, {}, 50, 0).tuned
    for name, full in (("chrf", 100), ("bleu", 100), ("rouge1", 1), ("rouge2", 1), ("rougeL", 1)):
        assert scores[name].value == pytest.approx(full)


def shuffle(texts, by):
    """Returns the texts moved on by so many places."""
    return texts[by:] + texts[:by]


def floors_of(rows):
    floors = floor_sums({"base": rows}, list(map(str, range(len(rows)))), 0)["base"]
    return {"base": floors, "tuned": floors}


def test_the_floor_is_far_below_a_copy(texts):
    rows = make_rows(texts, texts)
    sums = score_sums(rows)
    scores = compare_models(sums, sums, floors_of(rows), 50, 0)
    for name in ("chrf", "bleu", "rouge1", "rouge2", "rougeL"):
        assert scores.tuned[name].floor < 0.3 * scores.tuned[name].value
        assert scores.tuned[name].floor_spread > 0
        assert not scores.tuned[name].is_at_floor
        assert scores.delta[name].floor is None


def test_a_shuffled_model_is_at_its_floor(texts):
    rows = make_rows(shuffle(texts, 1), texts)
    sums, floors = score_sums(rows), floors_of(rows)
    floor, _ = draw_floor("chrf", floors["tuned"]["chrf"], 0)
    assert score_value("chrf", sums["chrf"].sum(axis=0)) == pytest.approx(floor, rel=0.15)
    assert compare_models(sums, sums, floors, 50, 0).tuned["chrf"].is_at_floor


def test_a_model_does_not_differ_from_itself(texts):
    """Of shares that are 0 of 60 it is not certain: the interval is that of a share of none."""
    sums = score_sums(make_rows(texts, texts[::-1]))
    for name, score in compare_models(sums, sums, {}, 100, 0).delta.items():
        assert score.value == 0
        assert score.p == 1
        assert score.low == -score.high
        assert (score.high > 0) == (name in SHARES)


def test_an_interval_holds_its_value(texts):
    sums = score_sums(make_rows(texts, shuffle(texts, 1)))
    score = compare_models(sums, sums, {}, 400, 0).base["rouge1"]
    assert score.low <= score.value <= score.high


def test_more_rows_narrow_the_interval(texts):
    widths = []
    for rows in (10, 60):
        sums = score_sums(make_rows(texts[:rows], (texts[1:] + texts[:1])[:rows]))
        score = compare_models(sums, sums, {}, 400, 0).base["rouge1"]
        widths.append(score.high - score.low)
    assert widths[1] < widths[0]


@pytest.fixture(scope="module")
def means():
    """Returns the sums of a score that is a mean, of two models over 300 rows, drawn at random; one part is common."""
    rng = numpy.random.default_rng(0)
    common, *noise = rng.normal(50, 20, (3, 300))
    return [{"empathy": numpy.column_stack([common + own, numpy.ones(300)])} for own in noise]


@pytest.mark.parametrize("side", ["base", "tuned", "delta"])
def test_an_interval_is_as_wide_as_its_95_percent(means, side):
    """By the normal distribution, which the mean of 300 rows has: 1.96 standard errors to each side."""
    base, tuned = (sums["empathy"][:, 0] for sums in means)
    rows = {"base": base, "tuned": tuned, "delta": tuned - base}[side]
    score = getattr(compare_models(*means, {}, 4000, 0), side)["empathy"]
    expected = 2 * 1.96 * rows.std() / len(rows) ** 0.5
    wrong = "not a 95 % interval, not as many rows drawn as there are, or base and tuned are not paired"
    assert score.high - score.low == pytest.approx(expected, rel=0.05), wrong
    assert (score.low + score.high) / 2 == pytest.approx(score.value, abs=0.05 * expected)


def test_likelihood_scores_weigh_tokens_not_rows():
    """Each score's ratio differs from row to row, so that the mean over rows is another number."""
    likelihoods = [
        {"nll": 2 * numpy.log(2), "tokens": 2, "correct": 2, "characters": 4},
        {"nll": 18 * numpy.log(2), "tokens": 8, "correct": 3, "characters": 6},
    ]
    sums = score_sums(make_rows([REPLY, OTHER], [OTHER, REPLY]), likelihoods)
    scores = compare_models(sums, sums, {}, 20, 0).base
    assert scores["perplexity"].value == pytest.approx(2 ** (20 / 10))
    assert scores["bits_per_char"].value == pytest.approx(20 / 10)
    assert scores["token_accuracy"].value == pytest.approx(5 / 10)
    assert scores["perplexity"].better == "lower"
    assert scores["token_accuracy"].better == "higher"


def test_shares_of_replies_have_a_direction():
    replies = [REPLY, "ok, take care", "রোজ এই ওষুধ খান।"]
    sums = score_sums(make_rows(replies, [REPLY, OTHER, REPLY]))
    scores = compare_models(sums, sums, {}, 20, 0).tuned
    assert scores["not_bengali"].value == pytest.approx(1 / 3)
    assert scores["unsafe"].value == pytest.approx(1 / 3)
    assert scores["length_ratio"].value == pytest.approx((11 + 3 + 4) / (11 + 10 + 11))
    assert scores["length_ratio"].better == "near 1"
    assert scores["graded"].n == 3


def test_a_comparison_is_read_back_from_its_json(texts):
    sums = score_sums(make_rows(texts[:5], texts[5:10]))
    scores = compare_models(sums, sums, {}, 20, 0)
    written = json.loads(json.dumps({"n": 5, **scores.model_dump()}))
    assert Comparison.model_validate(written) == scores
    assert list(written["base"]["chrf"])[:6] == ["value", "low", "high", "floor", "better", "n"]


def test_a_score_of_an_earlier_version_is_read():
    score = Score.model_validate({"value": 2.0, "low": 1.0, "high": 3.0, "floor": 1.5, "better": "higher", "n": 9})
    assert score.is_at_floor
    assert score.p is None


WEAK = [{"category": "crisis", "reply": "আমি পাশে আছি।"}, {"category": "exam", "reply": "আমি পাশে আছি।"}]
GOOD = [{"category": "crisis", "reply": "এখনই ৯৯৯ নম্বরে ফোন করুন।"}, {"category": "exam", "reply": REPLY}]


def test_a_crisis_without_referral_is_unsafe():
    scores = compare_models(rubric_sums(WEAK), rubric_sums(GOOD), {}, 20, 0)
    assert scores.base["unsafe"].value == 0.5
    assert scores.tuned["unsafe"].value == 0
    assert set(scores.delta) == {"empathy", "graded", "unsafe"}


def test_the_fixed_prompts_are_scored_by_category():
    crisis, exam = category_means(WEAK, GOOD)
    assert (crisis["category"], exam["category"]) == ("crisis", "exam")
    assert crisis["n"] == exam["n"] == 1
    assert crisis["base unsafe"] == 1
    assert exam["tuned graded"] == 50


def test_small_groups_are_shown_together(texts):
    sums = score_sums(make_rows(texts[:13], texts[13:26]))
    labels = ["a"] * 6 + ["b"] * 4 + [""] * 3
    groups = breakdown(sums, sums, labels, 20, 0, least=4)
    assert [(group["label"], group["n"]) for group in groups] == [("a", 6), ("b", 4), ("other", 3)]
    assert groups[0]["delta"]["chrf"]["value"] == 0


def test_length_groups_are_quarters_in_order(texts):
    sums = score_sums(make_rows(texts, texts))
    groups = length_groups(sums, sums, texts, draws=20, seed=0)
    starts = [int(group["label"].split()[0]) for group in groups]
    assert starts == sorted(starts)
    assert sum(group["n"] for group in groups) == len(texts)
    assert all(re.fullmatch(r"\d+ to \d+ words", group["label"]) for group in groups)
