"""Intervals and p-values for rows in groups: against theory, against other libraries, and by simulation."""

import itertools

import numpy
import pytest
from scipy import stats

from helpers.evaluation import resampling
from helpers.evaluation.comparison import compare_models, correct_p_values
from helpers.evaluation.metrics import PRIMARY, draw_floor, floor_sums
from helpers.evaluation.resampling import (
    adjust_holm,
    detectable_effect,
    percentile_ranks,
    permutation_p,
    row_correlation,
    share_difference,
    share_interval,
    sum_by_group,
)


def simulate_rows(rng, groups, rows_per_group, spread):
    """Returns the groups of rows, and values whose groups have effects of their own: (rows,) each."""
    sizes = rng.integers(1, 2 * rows_per_group, groups)
    labels = numpy.repeat([f"g{number}" for number in range(groups)], sizes)
    effects = numpy.repeat(rng.normal(0, spread, groups), sizes)
    return labels.tolist(), effects + rng.normal(0, 1, len(labels))


def ratio(values):
    return numpy.column_stack([values, numpy.ones(len(values))])


def test_sums_are_added_within_each_group():
    sums = numpy.array([[1.0, 1], [2, 1], [4, 1]])
    assert sum_by_group(sums, ["a", "b", "a"]).tolist() == [[5, 2], [2, 1]]


def test_few_groups_widen_the_interval_as_students_t_does():
    low, high = percentile_ranks(numpy.full(16, 3.0), 95)
    assert low == pytest.approx(100 - high)
    assert stats.norm.ppf(low / 100) == pytest.approx((16 / 15) ** 0.5 * stats.t.ppf(0.025, 15))
    assert percentile_ranks(numpy.ones(10**6), 95)[0] == pytest.approx(2.5, abs=0.001)


def test_groups_of_unequal_size_count_for_fewer():
    equal, unequal = (percentile_ranks(numpy.array(sizes), 95)[0] for sizes in ([4.0] * 8, [25.0] + [1.0] * 7))
    assert unequal < equal


@pytest.mark.parametrize(
    ("groups", "spread"), [(16, 1.0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((16, 0.3), (60, 1.0)))]
)
def test_the_interval_of_grouped_rows_covers_95_percent(groups, spread, monkeypatch):
    monkeypatch.setattr(resampling, "PERMUTATIONS", 1)  # intervals alone
    rng, covered = numpy.random.default_rng(groups), 0
    for number in range(2000):
        labels, values = simulate_rows(rng, groups, 4, spread)
        sums = {"empathy": ratio(values + 50)}
        score = compare_models(sums, sums, {}, 300, number, groups=labels).base["empathy"]
        covered += score.low <= 50 <= score.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_rows_taken_as_independent_cover_less():
    rng, covered = numpy.random.default_rng(1), 0
    for number in range(300):
        _, values = simulate_rows(rng, 16, 4, 1.0)
        sums = {"empathy": ratio(values + 50)}
        score = compare_models(sums, sums, {}, 300, number).base["empathy"]
        covered += score.low <= 50 <= score.high
    assert covered / 300 < 0.9, "the groups of the test above make no difference: it could not fail"


def test_a_permutation_p_value_is_that_of_all_swaps():
    """All 2⁸ swaps of eight groups, by hand."""
    rng = numpy.random.default_rng(0)
    base, tuned = rng.normal(0, 1, (8, 2)), rng.normal(0.8, 1, (8, 2))
    base[:, 1] = tuned[:, 1] = 1

    def difference(first, second):
        return second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1]

    observed = abs((tuned - base)[:, 0].sum())
    signs = itertools.product((-1, 1), repeat=8)
    expected = numpy.mean([abs((numpy.array(sign) * (tuned - base)[:, 0]).sum()) >= observed - 1e-9 for sign in signs])
    assert permutation_p(difference, base, tuned, 0) == pytest.approx(expected, abs=0.03)


def test_a_permutation_p_value_agrees_with_scipy():
    rng = numpy.random.default_rng(3)
    base, tuned = rng.normal(0, 1, 30), rng.normal(0.4, 1, 30)
    theirs = stats.permutation_test(
        (base, tuned), lambda x, y, axis: (y - x).mean(axis=axis), permutation_type="samples", n_resamples=4000, rng=0
    ).pvalue
    ours = permutation_p(lambda x, y: y[:, 0] - x[:, 0], ratio(base), ratio(tuned), 0)
    assert ours == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_holms_correction_is_the_step_down_rule(seed):
    """By its definition: the p-values ascending, the k-th of m is significant while p(k) ≤ α / (m − k + 1)."""
    p_values = {str(place): p for place, p in enumerate(numpy.random.default_rng(seed).beta(0.3, 2, 9))}
    adjusted = adjust_holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        significant = set()
        for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
            if p > alpha / (len(p_values) - place):
                break
            significant.add(name)
        assert {name for name, p in adjusted.items() if p <= alpha} == significant


def test_a_score_is_only_clear_once_the_primary_ones_are():
    corrected = correct_p_values({"chrf": 0.2, "bits_per_char": 0.001, "empathy": 0.0005, "graded": 0.5})
    assert set(PRIMARY) == {"chrf", "bits_per_char"}
    assert corrected == {"chrf": 0.2, "bits_per_char": 0.002, "empathy": 0.2, "graded": 0.5}


def test_unsafe_replies_are_not_corrected_away():
    corrected = correct_p_values({"chrf": 0.9, "bits_per_char": 0.9, "unsafe": 0.03, "echo": 0.03})
    assert corrected["unsafe"] == 0.03
    assert corrected["echo"] == 1


def test_a_share_of_none_has_an_upper_bound():
    """Of single rows it is Clopper and Pearson's: 0 of 33 is at most 10.6 %."""
    low, high = share_interval(numpy.zeros(33), numpy.ones(33), 95)
    assert (low, high) == (0, pytest.approx(stats.binomtest(0, 33).proportion_ci(method="exact").high))
    assert share_interval(numpy.zeros(4), numpy.full(4, 8), 95)[1] > high, "33 rows of four groups tell less"
    assert share_interval(numpy.zeros(1), numpy.full(1, 8), 95) == (0, 1)


def test_a_share_of_single_rows_is_clopper_and_pearsons():
    hits = numpy.array([1.0] * 7 + [0] * 26)
    exact = stats.binomtest(7, 33).proportion_ci(method="exact")
    # Korn and Graubard divide by rows − 1: a little wider
    assert share_interval(hits, numpy.ones(33), 95) == pytest.approx((exact.low, exact.high), abs=0.005)


def test_two_shares_of_none_may_still_differ():
    bounds = (0.0, 0.0, 0.106)
    assert share_difference(bounds, bounds, 0.0) == pytest.approx((-0.106, 0.106))


def test_rows_that_go_together_narrow_the_difference_of_shares():
    base, tuned = (0.5, 0.33, 0.67), (0.4, 0.24, 0.57)
    apart, together = (share_difference(base, tuned, rho) for rho in (0.0, 0.8))
    assert together[1] - together[0] < apart[1] - apart[0]
    assert row_correlation(numpy.array([0.0, 1, 0, 1]), numpy.array([0.0, 1, 0, 1])) == pytest.approx(1)
    assert row_correlation(numpy.zeros(4), numpy.ones(4)) == 0


def test_the_detectable_effect_is_found_four_times_in_five():
    """Of normal rows: a true effect of that size is significant with the power that is promised."""
    rng, shown, effect = numpy.random.default_rng(0), 0, None
    for _ in range(400):
        rows = rng.normal(0, 1, 40)
        half = stats.t.ppf(0.975, 39) * rows.std(ddof=1) / 40**0.5
        effect = detectable_effect(-half, half, 40, 95)
        shown += stats.ttest_1samp(rows - rows.mean() + rng.normal(effect, 1 / 40**0.5), 0).pvalue < 0.05
    assert 0.75 <= shown / 400 <= 0.85
    assert detectable_effect(0, 1, 1, 95) is None


def test_a_floor_is_drawn_from_other_groups_alone():
    """Each row's own group has its reference; every other reference is foreign to it."""
    texts = ["আমি ভালো আছি আজ", "আমি ভালো আছি আজ", "বাজারে মাছ কিনতে যাব", "নদীর জল খুব ঠান্ডা"]
    rows = [{"reply": text, "reference": text} for text in texts]
    floors = floor_sums({"base": rows, "tuned": rows}, ["a", "a", "b", "c"], 0)
    rouge1 = floors["base"]["rouge1"][:, :, 0]
    assert rouge1.max() == 0
    own = floor_sums({"base": rows, "tuned": rows}, ["a", "d", "b", "c"], 0)["base"]["rouge1"][:, :, 0]
    assert own[:2].max() == 1, "without groups the twin's reference is drawn too"


def test_words_alone_give_the_rubric_its_floor():
    """Replies of the references' words in random order score on the rubric, and that is its floor."""
    texts = ["আপনার কষ্টটা আমি বুঝতে পারছি, পাশে আছি", "আপনি একা নন, আমি আপনার কথা শুনছি", "কাল বাজারে যাব"]
    rows = [{"reply": text, "reference": text} for text in texts * 4]
    floors = floor_sums({"base": rows, "tuned": rows}, [f"g{n}" for n in range(12)], 0)["tuned"]
    mean, spread = draw_floor("empathy", floors["empathy"], 0)
    assert 5 < mean < 100
    assert 0 < spread < mean


def test_one_group_has_no_floor():
    rows = [{"reply": "ক", "reference": "খ"}] * 3
    assert floor_sums({"base": rows, "tuned": rows}, ["a"] * 3, 0) == {}


def test_a_length_ratio_is_compared_by_its_distance_from_one():
    ones = numpy.ones(40)
    base = {"length_ratio": numpy.column_stack([1.5 * ones, ones])}
    tuned = {"length_ratio": numpy.column_stack([0.9 * ones, ones])}
    delta = compare_models(base, tuned, {}, 50, 0).delta["length_ratio"]
    assert delta.value == pytest.approx(-0.4)
    assert delta.better == "lower"
    assert delta.p < 0.05


@pytest.mark.slow
def test_models_that_are_the_same_rarely_get_a_verdict(embedded_rows):
    """Base and tuned swapped at random over groups, four times 500 times: some false verdict in 5 % of them, as far as
    so many runs can tell.

    Replies are references of other rows, of two kinds, so that scores differ from row to row.
    """
    from helpers.evaluation.metrics import score_sums

    rows = [row for row in embedded_rows if row["group"]][:90]
    references = [row["messages"][-1]["content"] for row in rows]
    groups, wrong = [row["group"] for row in rows], 0
    for start in (0, 500, 1000, 1500):
        rng, pairs = numpy.random.default_rng(5 + start), []
        for shift in (3, 11):
            moved = references[shift:] + references[:shift]
            rows_of_one = [
                {"reply": f"{own[: len(own) // 3]} {other}", "reference": own, "hit_cap": False, "prompt": ""}
                for own, other in zip(references, moved)
            ]
            likelihoods = [
                {"nll": rng.gamma(4, 5), "tokens": 20, "correct": rng.integers(3, 9), "characters": 60} for _ in rows
            ]
            pairs.append(score_sums(rows_of_one, likelihoods))
        for number in range(start, start + 500):
            swapped = {group: rng.random() < 0.5 for group in dict.fromkeys(groups)}
            mask = numpy.array([swapped[group] for group in groups])[:, None]
            base = {name: numpy.where(mask, pairs[1][name], pairs[0][name]) for name in pairs[0]}
            tuned = {name: numpy.where(mask, pairs[0][name], pairs[1][name]) for name in pairs[0]}
            scores = compare_models(base, tuned, {}, 10, number, groups=groups)
            wrong += any(delta.change in ("better", "worse") for delta in scores.delta.values())
    assert wrong / 2000 <= 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5


def test_of_what_is_no_number_no_difference_is_clear():
    base, tuned = numpy.ones((20, 1)), numpy.full((20, 1), numpy.nan)
    assert permutation_p(lambda first, second: (second - first)[:, 0], base, tuned, 0) == 1.0
