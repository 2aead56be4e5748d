"""What raters send back, summed up: choices, marks, agreement, intervals."""

import numpy
import pytest

from helpers.evaluation.raters import summarise_choices, summarise_ratings


def rated(marks):
    """Returns ratings of [rater][row] (base, tuned) on one scale."""
    return [
        {"rater": rater, "id": str(row), "side": side, "empathy": mark}
        for rater, rows in marks.items()
        for row, both in enumerate(rows)
        for side, mark in zip(("base", "tuned"), both)
    ]


def summarise(marks, draws=200):
    """Returns the summary of ratings of [rater][row] (base, tuned) on one scale."""
    return summarise_ratings(rated(marks), draws, 0)["scales"]["empathy"]


@pytest.fixture(scope="module")
def random_marks():
    """Returns the marks of two raters for 200 rows, drawn at random."""
    rng = numpy.random.default_rng(0)
    return [[(int(base), int(tuned)) for base, tuned in rng.integers(1, 6, (200, 2))] for _ in "ab"]


def test_equal_raters_agree_fully(random_marks):
    assert summarise({"a": random_marks[0], "b": random_marks[0]})["alpha"] == pytest.approx(1)


def test_random_raters_agree_no_more_than_by_chance(random_marks):
    assert abs(summarise(dict(zip("ab", random_marks)))["alpha"]) < 0.15


def test_random_marks_favour_no_side(random_marks):
    score = summarise(dict(zip("ab", random_marks)))
    assert score["p"] > 0.01
    assert score["low"] < 0 < score["high"]


def test_the_raters_interval_is_as_wide_as_its_95_percent(random_marks):
    delta = numpy.subtract(*numpy.array(random_marks[0]).T[::-1])
    score = summarise({"a": random_marks[0]}, 4000)
    assert score["high"] - score["low"] == pytest.approx(2 * 1.96 * delta.std() / len(delta) ** 0.5, rel=0.05)


def test_one_rater_has_no_agreement():
    assert summarise({"a": [(3, 4)] * 5})["alpha"] is None


def test_equal_replies_have_no_p():
    score = summarise({"a": [(3, 3)] * 5})
    assert score["alpha"] is None
    assert score["p"] is None
    assert score["low"] == score["delta"] == score["high"] == 0


def test_a_worse_tuned_model_gets_a_negative_difference():
    score = summarise({"a": [(5, 2), (4, 1), (5, 1), (4, 2), (5, 3), (4, 1)]})
    assert score["high"] < 0
    assert score["p"] < 0.05


def test_one_rated_row_has_its_value_as_interval():
    score = summarise({"a": [(2, 4)]})
    assert score["low"] == score["delta"] == score["high"] == 2


def test_the_interval_of_the_difference_is_the_same_each_time(random_marks):
    marks = {"a": random_marks[0][:30]}
    score = summarise(marks)
    assert score == summarise(marks)
    assert score["low"] < score["delta"] < score["high"]


def chosen(shares):
    """Returns choices of [rater][row]: 1 the tuned reply, 0 the base one, 0.5 no difference."""
    return [
        {"rater": rater, "id": str(row), "tuned": share}
        for rater, rows in shares.items()
        for row, share in enumerate(rows)
    ]


def test_no_difference_counts_as_half_a_win():
    summary = summarise_choices(chosen({"a": [1, 1, 0.5, 0]}), {})
    assert summary["win"] == 0.625
    assert (summary["tuned"], summary["same"], summary["base"]) == (2, 1, 1)


def test_a_row_weighs_the_same_however_many_chose():
    choices = chosen({"a": [1, 0], "b": [1]})
    assert summarise_choices(choices, {})["win"] == 0.5


def test_the_winner_of_all_rows_may_still_lose_some():
    summary = summarise_choices(chosen({"a": [1] * 10, "b": [1] * 10}), {})
    assert summary["high"] == 1
    assert summary["low"] == pytest.approx(0.025 ** (1 / 10)), "Clopper and Pearson's of ten rows, not of 20 choices"


def test_rows_of_one_group_are_no_independent_choices():
    shares = {"a": [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0]}
    alone = summarise_choices(chosen(shares), {})
    together = summarise_choices(chosen(shares), {str(row): str(row // 3) for row in range(12)})
    assert together["high"] - together["low"] > 1.2 * (alone["high"] - alone["low"])


def test_raters_who_choose_alike_agree():
    rows = [1, 0, 0.5, 1, 0, 1]
    assert summarise_choices(chosen({"a": rows, "b": rows}), {})["alpha"] == pytest.approx(1)


def test_raters_who_choose_at_random_do_not_agree():
    rng = numpy.random.default_rng(0)
    choices = chosen({rater: rng.choice([0, 0.5, 1], 300) for rater in "ab"})
    assert abs(summarise_choices(choices, {})["alpha"]) < 0.15


def test_without_choices_there_is_no_winner():
    assert summarise_choices([], {}) == {}
