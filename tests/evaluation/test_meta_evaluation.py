"""Which scores track people: raters whose latent correlation with a score is known are recovered."""

import math

import numpy
import pytest
from scipy import stats

from helpers.evaluation.meta_evaluation import (
    MODELS_ONLY,
    UNKNOWN,
    Statistic,
    choice_ceiling,
    compare_choices,
    evaluate_scores,
    mark_ceiling,
    mark_values,
    needed_pairs,
    overall_verdict,
    resample_rows,
    score_by_reply,
    tabulate_ratings,
)
from helpers.evaluation.metrics import chrf
from helpers.evaluation.rank_correlation import draw_ranks, draw_spearman

KNOWN = {"close": 0.8, "loose": 0.4, "none": 0.0}  # latent correlation of each score with what raters have in common
EXPECTED = {name: 6 / math.pi * math.asin(rho / 2) for name, rho in KNOWN.items()}  # as Spearman's, of a normal one
ERROR = 0.7  # standard deviation of a rater's own error, of the latent quality's
THRESHOLDS = [-1.2, -0.4, 0.4, 1.2]  # of the marks 1 to 5


def make_raters(seed, rows=50, raters=3, error=ERROR, lead=0.0):
    """Returns scores by name (rows, 2), the rows' ids, and what raters say: `lead` is the tuned model's in quality."""
    rng = numpy.random.default_rng(seed)
    quality = rng.normal(size=(rows, 2)) + [0, lead]
    noise = {name: rng.normal(size=(rows, 2)) for name in KNOWN}
    values = {name: rho * quality + math.sqrt(1 - rho**2) * noise[name] for name, rho in KNOWN.items()}
    ids, marks, choices = [f"r{row}" for row in range(rows)], [], []
    for rater in map(str, range(raters)):
        felt = quality + error * rng.normal(size=(rows, 2))
        for row, both in zip(ids, felt):
            given = zip(("base", "tuned"), numpy.digitize(both, THRESHOLDS) + 1)
            marks += [{"rater": rater, "id": row, "side": side, "empathy": int(mark)} for side, mark in given]
            lead_felt = both[1] - both[0]
            share = 0.5 if abs(lead_felt) < 0.3 else float(lead_felt > 0)
            choices.append({"rater": rater, "id": row, "tuned": share})
    return values, ids, marks, choices


def evaluate(seed, draws=400, groups=None, **options):
    values, ids, marks, choices = make_raters(seed, **options)
    return evaluate_scores(values, ids, tabulate_ratings(ids, marks, choices, groups or {}), draws, seed)


@pytest.fixture(scope="module")
def many():
    """Returns the evaluation of 6,000 rows: what the others estimate."""
    return evaluate(0, draws=20, rows=6000)


@pytest.fixture(scope="module")
def repeated():
    """Returns the evaluations of forty times fifty rows."""
    return [evaluate(seed) for seed in range(1, 41)]


@pytest.mark.parametrize("name", KNOWN)
def test_the_latent_correlation_is_recovered(many, name):
    statistic = many.scores[name].scales["empathy"]
    assert statistic.value / statistic.ceiling == pytest.approx(EXPECTED[name], abs=0.03)


@pytest.mark.parametrize("name", KNOWN)
def test_intervals_of_marks_hold_the_true_correlation(many, repeated, name):
    truth = many.scores[name].scales["empathy"].value
    own = [evaluation.scores[name].scales["empathy"] for evaluation in repeated]
    held = sum(statistic.low <= truth <= statistic.high for statistic in own)
    assert held >= 34, f"{held} of 40 intervals of 95 %"


@pytest.mark.parametrize("name", KNOWN)
def test_intervals_of_choices_hold_the_true_share(many, repeated, name):
    truth = many.scores[name].choices.value
    own = [evaluation.scores[name].choices for evaluation in repeated]
    held = sum(statistic.low <= truth <= statistic.high for statistic in own)
    assert held >= 34, f"{held} of 40 intervals of 95 %"


@pytest.mark.parametrize("name", KNOWN)
def test_intervals_are_no_wider_than_they_need(repeated, name):
    own = [evaluation.scores[name].scales["empathy"] for evaluation in repeated]
    spread = numpy.std([statistic.value for statistic in own])
    width = numpy.mean([statistic.high - statistic.low for statistic in own])
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.35)


def test_a_close_score_tracks_people(repeated):
    assert sum(evaluation.scores["close"].verdict == "yes" for evaluation in repeated) >= 38


def test_a_score_that_knows_nothing_does_not_track_people(repeated):
    assert sum(evaluation.scores["none"].verdict == "no" for evaluation in repeated) >= 36
    assert all(evaluation.scores["none"].verdict != "yes" for evaluation in repeated)


def test_a_loose_score_is_not_called_close(many):
    assert many.scores["loose"].verdict == "no", "it is less than half way to the ceiling"


@pytest.mark.parametrize("raters", [2, 3, 6])
def test_the_ceiling_is_what_the_common_opinion_would_reach(raters):
    rng = numpy.random.default_rng(1)
    common = rng.normal(size=(6000, 2))
    marks = common + ERROR * rng.normal(size=(raters, 6000, 2))
    ceiling = mark_ceiling(marks, resample_rows([str(row) for row in range(6000)], 20, 0))
    reached = stats.spearmanr(common.ravel(), marks.mean(axis=0).ravel()).statistic
    assert ceiling == pytest.approx(reached, abs=0.01)


@pytest.mark.parametrize("error", [0.4, 0.7, 1.5])
def test_the_choices_ceiling_is_what_the_common_opinion_reaches(error):
    _, ids, marks, choices = make_raters(0, rows=6000, error=error)
    quality = numpy.random.default_rng(0).normal(size=(6000, 2))  # the same draws as the raters' own
    ratings = tabulate_ratings(ids, marks, choices, {})
    reached = compare_choices(quality, ratings.choices, None, ratings.groups).value
    ceiling = choice_ceiling(ratings.choices, resample_rows(ids, 20, 0))
    assert ceiling == pytest.approx(reached, abs=0.02)


def test_one_rater_alone_has_no_ceiling():
    evaluation = evaluate(1, raters=1)
    assert evaluation.scores["close"].scales["empathy"].ceiling is None
    assert {score.verdict for score in evaluation.scores.values()} == {UNKNOWN}


def test_raters_who_do_not_agree_have_no_ceiling():
    evaluation = evaluate(1, error=1000.0)
    assert evaluation.scores["close"].scales["empathy"].ceiling is None
    assert evaluation.scores["close"].choices.ceiling is None


def test_fewer_than_ten_pairs_call_nothing():
    assert {score.verdict for score in evaluate(1, rows=9).scores.values()} == {UNKNOWN}


def test_a_closer_ceiling_needs_fewer_pairs():
    assert needed_pairs(0.9) < needed_pairs(0.6) < needed_pairs(0.3)


def test_as_many_pairs_as_needed_show_half_the_ceiling():
    needed, clear = needed_pairs(0.7), 0
    rng = numpy.random.default_rng(0)
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.366], [0.366, 1]], 2 * needed).T  # Spearman's ρ of 0.35
        clear += stats.spearmanr(x, y).pvalue < 0.05
    assert clear / 400 == pytest.approx(0.8, abs=0.06)


def test_a_score_of_the_models_alone_is_named_as_such():
    values, ids, marks, choices = make_raters(3, rows=60, lead=3.0)
    side = numpy.tile([0.0, 1.0], (60, 1)) + 0.1 * numpy.random.default_rng(0).normal(size=(60, 2))
    ratings = tabulate_ratings(ids, marks, choices, {})
    evaluation = evaluate_scores({"side": side, "close": values["close"]}, ids, ratings, 400, 0)
    assert evaluation.scores["side"].scales["empathy"].verdict == "yes"
    assert evaluation.scores["side"].verdict == MODELS_ONLY
    assert evaluation.scores["close"].verdict == "yes"


def test_rows_of_one_group_widen_the_interval():
    values, ids, marks, choices = make_raters(4, rows=20)
    repeat = 4  # every row four times: no more is known than from the twenty
    copies = [f"{row} {copy}" for row in ids for copy in range(repeat)]
    more = [
        [{**own, "id": f"{own['id']} {copy}"} for own in given for copy in range(repeat)] for given in (marks, choices)
    ]
    widths = {}
    for kind, groups in (("rows", {}), ("groups", {copy: copy.split()[0] for copy in copies})):
        table = tabulate_ratings(copies, *more, groups)
        scores = {"loose": numpy.repeat(values["loose"], repeat, axis=0)}
        own = evaluate_scores(scores, copies, table, 400, 0).scores["loose"]
        widths[kind] = [own.scales["empathy"].high - own.scales["empathy"].low, own.choices.high - own.choices.low]
    assert widths["groups"][0] > 1.6 * widths["rows"][0]
    assert widths["groups"][1] > 1.6 * widths["rows"][1]


def test_a_constant_score_has_nothing_to_compare():
    _, ids, marks, choices = make_raters(1)
    ratings = tabulate_ratings(ids, marks, choices, {})
    evaluation = evaluate_scores({"same": numpy.zeros((50, 2))}, ids, ratings, 50, 0)
    assert evaluation.scores == {}
    assert evaluation.constant == ["same"]


def test_marks_that_were_not_given_are_left_out():
    values, ids, marks, choices = make_raters(2)
    few = [mark for place, mark in enumerate(marks) if place % 5]
    table = tabulate_ratings([*ids, "not rated"], few, choices[:60], {})
    assert table.ids == ids
    scores = {name: numpy.vstack([own, [[9, 9]]]) for name, own in values.items()}
    evaluation = evaluate_scores(scores, [*ids, "not rated"], table, 100, 0)
    assert evaluation.scores["close"].scales["empathy"].value > 0.5


def test_nobody_has_rated_anything():
    assert evaluate_scores({}, ["r0"], tabulate_ratings(["r0"], [], [], {}), 10, 0) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "ceiling", "verdict"),
    [
        (0.5, 0.2, 0.7, 0.8, "yes"),
        (0.3, 0.1, 0.5, 0.8, UNKNOWN),
        (0.1, -0.1, 0.39, 0.8, "no"),
        (0.5, -0.1, 0.9, 0.8, UNKNOWN),
        (-0.5, -0.7, -0.2, 0.8, "no"),
        (0.5, 0.2, 0.7, None, UNKNOWN),
    ],
)
def test_a_verdict_needs_chance_and_half_the_ceiling(value, low, high, ceiling, verdict):
    assert Statistic(value=value, low=low, high=high, ceiling=ceiling, n=50).verdict == verdict


def test_marks_against_choices_is_no_verdict():
    yes = Statistic(value=0.5, low=0.2, high=0.7, ceiling=0.8, n=50)
    no = Statistic(value=0.5, low=0.45, high=0.6, ceiling=0.9, n=50, chance=0.5)
    assert overall_verdict(yes, None, None) == "yes"
    assert overall_verdict(None, None, no) == "no"
    assert overall_verdict(yes, None, no) == UNKNOWN


def test_ranks_of_a_resampling_are_those_of_its_values():
    rng = numpy.random.default_rng(0)
    values, counts = rng.integers(0, 6, 30).astype(float), rng.multinomial(30, [1 / 30] * 30, 5)
    for own, ranks in zip(counts, draw_ranks(values, counts)):
        drawn = numpy.repeat(values, own)
        assert numpy.repeat(ranks, own) == pytest.approx(stats.rankdata(drawn))


def test_the_correlation_of_a_resampling_is_scipys():
    rng = numpy.random.default_rng(1)
    first, second = rng.normal(size=40), rng.integers(1, 6, 40).astype(float)
    counts = rng.multinomial(40, [1 / 40] * 40, 5)
    expected = [stats.spearmanr(numpy.repeat(first, own), numpy.repeat(second, own)).statistic for own in counts]
    assert draw_spearman(first, second, counts) == pytest.approx(expected)


def test_a_constant_has_no_correlation():
    assert math.isnan(draw_spearman(numpy.ones(4), numpy.arange(4.0), numpy.ones((1, 4), int))[0])


ROWS = [{"id": f"r{n}", "prompt": "কষ্ট", "reference": "আপনার কষ্টটা বুঝতে পারছি।", "hit_cap": False} for n in range(2)]
REPLIES = {"base": ["ঠিক আছে।", ""], "tuned": ["আপনার কষ্টটা বুঝতে পারছি।", "হৃদয় ভার? বলুন।"]}
WRITTEN = {
    f"r{n}": {"tokens": "10", "characters": "20", "base_nll": "30", "tuned_nll": "20", "base_correct": "1"}
    | {"tuned_correct": "2", "base_chrf": "1.5", "tuned_chrf": ""}
    for n in range(2)
}


@pytest.fixture
def values():
    sides = {side: [{**row, "reply": reply} for row, reply in zip(ROWS, replies)] for side, replies in REPLIES.items()}
    return score_by_reply(sides["base"], sides["tuned"], WRITTEN)


def test_scores_are_turned_so_that_higher_is_better(values):
    assert values["bits_per_char"][0] == pytest.approx([-30 / 20 / math.log(2), -1 / math.log(2)])
    assert values["length_ratio"][0] == pytest.approx([-0.5, 0])
    assert values["rougeL"][0] == pytest.approx([0, 1])


def test_a_score_of_the_file_is_taken_from_there(values):
    assert list(values["chrf"][:, 0]) == [1.5, 1.5]
    assert numpy.isnan(values["chrf"][:, 1]).all(), "an empty cell is no score"


def test_a_score_that_is_not_in_the_file_is_computed():
    row = {**ROWS[0], "reply": "কষ্ট"}
    assert score_by_reply([row], [row], {})["chrf"][0] == pytest.approx([chrf("কষ্ট", row["reference"])] * 2)
    assert "perplexity" not in score_by_reply([row], [row], {})


def test_an_empty_reply_has_no_share_of_distinct_words(values):
    assert math.isnan(values["distinct1"][1, 0])
    assert values["distinct1"][1, 1] == 1


def test_a_language_models_mark_is_a_score_of_its_own():
    marks = [{"rater": f"m {order}", "id": "r1", "side": "tuned", "empathy": 3 + order} for order in (1, 2)]
    values = mark_values(["r0", "r1"], tabulate_ratings(["r0", "r1"], marks, [], {}))["judge"]
    assert values[1, 1] == 4.5
    assert numpy.isnan(values).sum() == 3
