"""Rows chosen for people where the replies differ: which, and estimates that stay unbiased, by simulation."""

import numpy
import pytest

from helpers.evaluation.meta_evaluation import evaluate_scores, tabulate_ratings
from helpers.evaluation.raters import read_run_ratings, summarise_choices, summarise_ratings
from helpers.evaluation.resampling import share_interval, weighted_interval
from helpers.evaluation.sheet import blind_pair, sheet_id, tuned_is_first, write_sheet
from helpers.evaluation.sheet_rows import (
    SHEET,
    SheetSample,
    choose_rows,
    rank_differences,
    read_sample,
    sample_file,
    write_sample,
)
from helpers.platforms.errors import Refused

ROWS = 400
IDS = [f"r{number}" for number in range(ROWS)]
RNG = numpy.random.default_rng(0)
DIFFERENCES = {"chrf": RNG.normal(0, 1, ROWS), "graded": RNG.normal(0, 1, ROWS)}
INTEREST = rank_differences(DIFFERENCES)
# Where the replies differ most, people prefer the tuned reply far more often
LIKES = numpy.where(numpy.quantile(INTEREST, 0.9) < INTEREST, 0.9, 0.4)


def choose(number=50, choice="active", seed=0):
    return choose_rows(IDS, DIFFERENCES, number, choice, seed)


def rate(sample, rng, rows=None):
    """Returns one rater's choices of the first rows of a sheet."""
    chances = dict(zip(IDS, LIKES))
    return [{"rater": "a", "id": row, "tuned": float(rng.random() < chances[row])} for row in [*sample.strata][:rows]]


def test_half_of_a_sheet_are_the_rows_that_differ_most():
    sample = choose(50)
    chosen = {row for row, stratum in sample.strata.items() if stratum == "differs"}
    assert chosen == {IDS[place] for place in numpy.argsort(-INTEREST)[:25]}
    assert len(sample.strata) == 50


def test_the_others_are_drawn_from_all_the_rest():
    drawn = [row for seed in range(200) for row, stratum in choose(50, seed=seed).strata.items() if stratum == "random"]
    assert len({*drawn}) == ROWS - 25, "a row is never drawn"
    counts = numpy.unique(drawn, return_counts=True)[1]
    assert abs(counts - 200 * 25 / 375).max() < 5 * (200 * 25 / 375) ** 0.5


def test_the_two_kinds_of_rows_alternate():
    assert [*choose(51).strata.values()] == ["random", "differs"] * 25 + ["random"]


def test_scores_that_disagree_come_before_those_that_agree():
    agree, disagree = rank_differences({"a": numpy.array([2.0, 2, 0.1]), "b": numpy.array([2.0, -2, 0.1])})[:2]
    assert disagree > agree


def test_what_differs_little_is_not_chosen_for_its_signs():
    ranks = rank_differences({"a": numpy.array([3.0, 0.1, 1]), "b": numpy.array([3.0, -0.1, 1])})
    assert ranks.argmax() == 0


def test_one_score_alone_chooses_by_its_difference():
    assert rank_differences({"chrf": numpy.array([0.0, -3, 2, numpy.nan])}).argsort().tolist()[-2:] == [2, 1]


@pytest.mark.parametrize("number", [1, 50])
def test_a_random_sheet_weighs_every_row_the_same(number):
    sample = choose(number, "random" if number > 1 else "active")
    assert {*sample.strata.values()} == {"random"}
    assert sample.weights([*sample.strata]) is None
    assert sample.describe() == {}


def test_a_row_weighs_as_many_as_it_stands_for():
    sample = choose(50)
    weights = dict(zip(sample.strata, sample.weights([*sample.strata])))
    ratios = {row: weights[row] / weights[[*sample.strata][1]] for row in sample.strata}
    assert {round(ratio, 6) for ratio in ratios.values()} == {1.0, 15.0}  # 375 rows by 25
    assert sum(weights.values()) == pytest.approx(50)


def test_whoever_stops_early_is_weighted_by_what_was_rated():
    sample = choose(50)
    first = [*sample.strata][:15]  # 8 at random, 7 chosen
    weights = sample.weights(first)
    assert weights[0] / weights[1] == pytest.approx((375 / 8) / (25 / 7))


def test_a_sample_is_read_as_it_was_written(tmp_path):
    write_sample(tmp_path, choose(50))
    assert read_sample(tmp_path) == choose(50)
    line = (tmp_path / sample_file(SHEET)).read_text("utf-8").splitlines()[1].split(",")
    assert (line[1], line[2], float(line[3])) == ("random", "375", pytest.approx(25 / 375))


def test_a_run_of_an_earlier_version_has_no_sample(tmp_path):
    assert read_sample(tmp_path) is None


def test_a_damaged_sample_is_named(tmp_path):
    (tmp_path / sample_file(SHEET)).write_text("id,stratum,rows,probability\nr1,random,many,1\n", encoding="utf-8")
    with pytest.raises(Refused, match=sample_file(SHEET)):
        read_sample(tmp_path)


@pytest.fixture(scope="module")
def simulated():
    """Returns 300 sheets of ratings, rated whole or in part: the true win rate, and each weighted and unweighted."""
    rng, summaries = numpy.random.default_rng(1), []
    for seed in range(300):
        sample = choose(50, seed=seed)
        choices = rate(sample, rng, rows=(50, 20)[seed % 2])  # every other rater stops early
        hits = numpy.array([choice["tuned"] for choice in choices])
        weights = sample.weights([choice["id"] for choice in choices])
        win = (weights * hits).sum() / weights.sum()
        summaries.append((win, *share_interval(weights * hits, weights, 95.0, weights), hits.mean()))
    return LIKES.mean(), numpy.array(summaries)


def test_the_weighted_win_rate_is_unbiased(simulated):
    true, summaries = simulated
    error = summaries[:, 0].std() / len(summaries) ** 0.5
    assert abs(summaries[:, 0].mean() - true) < 3 * error, "the weights do not undo the choice of rows"


def test_the_unweighted_win_rate_is_biased(simulated):
    true, summaries = simulated
    assert summaries[:, 3].mean() - true > 0.15


def test_the_weighted_interval_covers_95_percent(simulated):
    true, summaries = simulated
    covered = ((summaries[:, 1] <= true) & (true <= summaries[:, 2])).mean()
    assert 0.94 < covered <= 0.995  # an exact interval of few rows covers more than 95 %


def test_a_summary_is_weighted(simulated):
    sample = choose(50, seed=3)
    choices = rate(sample, numpy.random.default_rng(2))
    summary = summarise_choices(choices, {}, sample)
    by_stratum = {
        stratum: numpy.mean([choice["tuned"] for choice in choices if sample.strata[choice["id"]] == stratum])
        for stratum in sample.sizes
    }
    assert summary["win"] == pytest.approx((25 * by_stratum["differs"] + 375 * by_stratum["random"]) / 400)
    assert summary["low"] < summary["win"] < summary["high"]
    assert summary["tuned"] + summary["base"] == 50, "what was chosen is counted as it is"


def test_all_of_one_mind_count_for_the_random_half_alone():
    sample = choose(50)
    choices = [{"rater": "a", "id": row, "tuned": 1.0} for row in sample.strata]
    summary = summarise_choices(choices, {}, sample)
    assert 0.025 ** (1 / 25) < summary["low"] < 0.025 ** (1 / 30)


def marks(sample, deltas):
    """Returns marks for empathy of one rater: 3 for the base reply, 3 + delta for the tuned one."""
    values = dict(zip(IDS, deltas))
    return [
        {"rater": "a", "id": row, "side": side, "empathy": 3 + values[row] * (side == "tuned")}
        for row in sample.strata
        for side in ("base", "tuned")
    ]


def test_mean_marks_are_weighted():
    deltas = numpy.where(LIKES > 0.5, 2.0, -1.0)
    sample = choose(50)
    score = summarise_ratings(marks(sample, deltas), 200, 0, sample)["scales"]["empathy"]
    assert score["delta"] == pytest.approx(deltas.mean(), abs=0.4)
    assert score["low"] <= score["delta"] <= score["high"] < 0
    assert score["p"] < 0.05
    unweighted = summarise_ratings(marks(sample, deltas), 200, 0)["scales"]["empathy"]
    assert unweighted["delta"] > 0.3, "the chosen rows alone would say the contrary"


def test_a_weighted_bootstrap_interval_covers_95_percent():
    rng, covered = numpy.random.default_rng(4), 0
    means = numpy.where(LIKES > 0.5, 1.0, -0.5)
    place = {row: number for number, row in enumerate(IDS)}
    for seed in range(200):
        sample = choose(50, seed=seed)
        values = means[[place[row] for row in sample.strata]] + rng.normal(0, 1, 50)
        low, high = weighted_interval(values, sample.weights([*sample.strata]), 400, 95.0, seed)
        covered += low <= means.mean() <= high
    assert 0.92 < covered / 200 < 0.99


def test_a_single_weighted_row_is_its_own_interval():
    assert weighted_interval(numpy.array([2.0]), numpy.array([1.0]), 100, 95.0, 0) == (2.0, 2.0)


def test_equal_weights_change_no_interval():
    hits, rows = numpy.array([1.0, 0, 2, 1]), numpy.array([1.0, 1, 2, 1])
    assert share_interval(hits[:2], rows[:2], 95, numpy.ones(2)) == share_interval(hits[:2], rows[:2], 95)


def correlate(sample, score, opinion, sheet):
    """Returns a score's correlation with marks, over a sheet's rows, weighted back where the sample is given."""
    place = {row: number for number, row in enumerate(IDS)}
    both = numpy.column_stack([numpy.zeros(ROWS), score])
    given = [
        {"rater": "a", "id": row, "side": side, "empathy": opinion[place[row], number]}
        for row in sheet.strata
        for number, side in enumerate(("base", "tuned"))
    ]
    evaluation = evaluate_scores({"chrf": both}, IDS, tabulate_ratings(IDS, given, [], {}), 100, 0, sample)
    return evaluation.scores["chrf"].scales["empathy"].value


def test_a_score_tracks_people_no_better_for_the_choice_of_rows():
    rng = numpy.random.default_rng(5)
    score = rng.normal(0, 1, ROWS)
    opinion = numpy.column_stack([rng.normal(0, 1, ROWS), score + rng.normal(0, 2, ROWS)])
    everything = SheetSample(dict.fromkeys(IDS, "all"), {"all": ROWS})
    true = correlate(None, score, opinion, everything)
    errors = []
    for seed in range(40):
        sheet = choose_rows(IDS, {"chrf": score}, 160, "active", seed)
        errors.append([correlate(used, score, opinion, sheet) - true for used in (sheet, None)])
    weighted, unweighted = abs(numpy.mean(errors, axis=0))
    assert weighted < 0.02
    assert unweighted > 0.05, "the chosen rows alone have the same correlation: the test shows nothing"


@pytest.fixture
def folder(tmp_path):
    """Returns an evaluate/ with twelve rows and a sheet of six that a rater has filled in, and its rows."""
    base = [{"id": f"{number:012x}", "prompt": "মন?", "reply": f"ক {number}"} for number in range(12)]
    tuned = [row | {"reply": f"খ {row['id']}"} for row in base]
    ids = [row["id"] for row in base]
    sample = choose_rows(ids, {"chrf": numpy.arange(12.0)}, 6, "active", 7)
    rows = dict(zip(ids, zip(base, tuned)))
    write_sheet(tmp_path, [blind_pair(*rows[row], 7) for row in sample.strata], 7)
    write_sample(tmp_path, sample)
    (tmp_path / "ratings").mkdir()
    lines = [f"{row},{1 if tuned_is_first(row, 7) else 2}" for row in sample.strata]
    (tmp_path / "ratings/a.csv").write_text("\n".join(["id,choice", *lines]), encoding="utf-8")
    return tmp_path, base, tuned


def test_ratings_of_a_chosen_sheet_are_read(folder):
    ratings = read_run_ratings(*folder, 7)
    assert ratings.skipped == []
    assert len(ratings.choices) == 6
    assert {choice["tuned"] for choice in ratings.choices} == {1.0}


def test_a_sheet_is_known_by_its_own_order(folder):
    """A file that the page saved names its sheet, whose id is of the pairs in their order."""
    path, base, tuned = folder
    rows = {both[0]["id"]: both for both in zip(base, tuned)}
    sheet = sheet_id([blind_pair(*rows[row], 7) for row in read_sample(path).strata])
    lines = (path / "ratings/a.csv").read_text("utf-8").splitlines()
    (path / "ratings/a.csv").write_text("\n".join(["sheet," + lines[0], *(f"{sheet},{line}" for line in lines[1:])]))
    assert sheet in (path / "human_eval.html").read_text("utf-8")
    assert read_run_ratings(path, base, tuned, 7).skipped == []


def test_a_sheet_of_an_earlier_version_has_the_order_of_the_rows(folder):
    path, base, tuned = folder
    (path / sample_file(SHEET)).unlink()
    write_sheet(path, [blind_pair(*both, 7) for both in zip(base[:6], tuned[:6])], 7)
    lines = [f"{row['id']},0" for row in base[:6]]
    (path / "ratings/a.csv").write_text("\n".join(["id,choice", *lines]), encoding="utf-8")
    assert len(read_run_ratings(path, base, tuned, 7).choices) == 6
