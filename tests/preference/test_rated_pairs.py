"""The blind ratings as preferences: majorities, and test rows that leave the evaluation for them."""

import pytest
from preferences import COLD, WARM, ask, rate, rate_by_model, write_evaluation

from helpers.preference.ratings import read_rated_pairs
from helpers.runs.files import read_jsonl, write_jsonl


@pytest.fixture
def sheet(run):
    """Returns the blind pairs of the run's evaluation, of all test rows."""
    return write_evaluation(run, read_jsonl(run / "data" / "test.jsonl"))


def preferred(run):
    """Returns the side that each row's raters prefer, in the sheet's order."""
    sides = {item.origin: "tuned" if WARM in item.chosen else "base" for item in read_rated_pairs(run)[0]}
    return [sides.get(row["id"], "") for row in read_jsonl(run / "evaluate" / "tuned.jsonl")]


def test_a_raters_choice_is_a_pair(run, sheet):
    rate(run, sheet, "ক", ["tuned", "base", "base", "same"])
    assert preferred(run)[:5] == ["tuned", "base", "base", "", ""]


def test_a_pair_has_both_replies_to_the_rows_prompt(run, sheet):
    rate(run, sheet, "ক", ["base"])
    item = read_rated_pairs(run)[0][0]
    assert (item.chosen, item.rejected, item.question) == (f"{COLD} (0)", f"{WARM} (0)", sheet[0]["prompt"])


@pytest.mark.parametrize(
    ("choices", "side"),
    [
        (["tuned", "tuned", "base"], "tuned"),
        (["tuned", "base"], ""),
        (["tuned", "same"], ""),
        (["tuned", "same", "tuned"], "tuned"),
        (["base", "base", "same", "tuned"], ""),
        (["same", "same", "base"], ""),
    ],
)
def test_more_than_half_of_the_raters_decide(run, sheet, choices, side):
    for rater, choice in zip("কখগঘ", choices):
        rate(run, sheet, rater, [choice])
    assert preferred(run)[0] == side


def test_a_row_without_a_majority_is_dropped_with_the_reason(run, sheet):
    rate(run, sheet, "ক", ["tuned", "same"])
    assert [(own.item.origin, own.reason) for own in read_rated_pairs(run)[1]] == [
        (sheet[1]["id"], "no majority among raters")
    ]


def test_a_rater_who_fails_the_attention_checks_is_left_out(run, sheet):
    rate(run, sheet, "ক", ["tuned"])
    rate(run, sheet, "খ", ["base", "base"], attentive=False)
    assert preferred(run)[:2] == ["tuned", ""]


def test_those_left_out_are_counted(run, sheet):
    rate(run, sheet, "ক", ["tuned"])
    rate(run, sheet, "খ", ["base"], attentive=False)
    assert read_rated_pairs(run)[2] == {"people": 1, "skipped": [], "left_out": 1}


def test_a_file_that_was_skipped_is_named(run, sheet):
    rate(run, sheet, "ক", ["tuned"])
    (run / "evaluate" / "ratings" / "খ.txt").write_text("x")
    assert read_rated_pairs(run)[2]["skipped"] == ["খ.txt: it is no .csv and no .xlsx: save it as one of them"]


def test_attention_checks_are_no_preferences(run, sheet):
    rate(run, sheet, "ক", ["tuned"])
    assert len(read_rated_pairs(run)[0]) == 1


def test_a_language_model_decides_where_both_orders_agree(run, sheet):
    ids = [pair["id"] for pair in sheet]
    rate_by_model(run, {ids[0]: (1, 1), ids[1]: (0, 0), ids[2]: (1, 0), ids[3]: (1, 0.5), ids[4]: (0.5, 0.5)})
    assert preferred(run)[:5] == ["tuned", "base", "", "", ""]


def test_people_outweigh_a_language_model(run, sheet):
    rate(run, sheet, "ক", ["base", "same"])
    rate_by_model(run, {pair["id"]: (1, 1) for pair in sheet[:3]})
    assert preferred(run)[:3] == ["base", "", "tuned"]


def test_a_language_models_pairs_say_so(run, sheet):
    rate(run, sheet, "ক", ["base"])
    rate_by_model(run, {sheet[1]["id"]: (1, 1)})
    assert [item.source for item in read_rated_pairs(run)[0]] == ["ratings", "llm_judge"]


def test_ratings_before_an_evaluation_are_refused(run):
    with pytest.raises(FileNotFoundError, match="has no evaluate/metrics.json: finish 03_evaluate first"):
        read_rated_pairs(run)


def test_an_evaluation_without_ratings_is_refused(run, sheet):
    with pytest.raises(ValueError, match="no choice between two replies. Put what raters return into .*ratings"):
        read_rated_pairs(run)


def test_ratings_that_cannot_be_read_are_named(run, sheet):
    (run / "evaluate" / "ratings").mkdir()
    (run / "evaluate" / "ratings" / "ক.txt").write_text("x")
    with pytest.raises(ValueError, match="1 files were skipped: ক.txt: it is no .csv"):
        read_rated_pairs(run)


def distinct(run, sheet):
    """Returns the places of the sheet's pairs that stand in a group of their own, the long ones."""
    rows = read_jsonl(run / "data" / "test.jsonl")
    groups = [row["group"] for row in rows]
    return [n for n, row in enumerate(rows) if groups.count(row["group"]) == 1 and len(sheet[n]["prompt"]) > 30]


def rate_rows(run, sheet, places):
    """Has a rater prefer the tuned reply to each of these rows, and "no difference" for the others."""
    rate(run, sheet, "ক", ["tuned" if n in places else "same" for n in range(len(sheet))])


def test_rated_rows_leave_the_evaluation(gather, pairs, run, sheet):
    places = distinct(run, sheet)[:4]
    rate_rows(run, sheet, places)
    facts = gather(pairs, ["ratings"]).facts
    assert facts["sources"]["ratings"]["kept"] == 4
    assert facts["used_test_ids"] == sorted(sheet[place]["id"] for place in places)


def test_rows_that_raters_did_not_decide_stay(gather, pairs, run, sheet):
    rate_rows(run, sheet, [])
    rate_by_model(run, {})
    assert gather(pairs, ["ratings"]).facts["used_test_ids"] == []


def test_all_rows_of_a_rated_rows_group_leave(gather, pairs, run, sheet):
    rows = read_jsonl(run / "data" / "test.jsonl")
    first, second = distinct(run, sheet)[:2]
    rows[second]["group"] = rows[first]["group"]
    write_jsonl(run / "data" / "test.jsonl", rows)
    rate_rows(run, sheet, [first])
    assert gather(pairs, ["ratings"]).facts["used_test_ids"] == sorted([rows[first]["id"], rows[second]["id"]])


def test_half_of_the_evaluated_rows_stay(gather, pairs, run, sheet):
    rate_rows(run, sheet, range(len(sheet)))
    facts = gather(pairs, ["ratings"]).facts
    assert len(facts["used_test_ids"]) <= len(sheet) / 2
    assert facts["dropped"]["left to the evaluation"] >= 1


def test_which_rows_stay_is_decided_by_the_seed(gather, pairs, run, sheet):
    rate_rows(run, sheet, range(len(sheet)))
    used = [gather(pairs, ["ratings"], seed=seed).facts["used_test_ids"] for seed in (1, 2)]
    assert used[0] != used[1]


def test_half_of_few_evaluated_rows_stay(gather, pairs, run):
    rows = read_jsonl(run / "data" / "test.jsonl")
    sheet = write_evaluation(run, rows[:6])
    rate(run, sheet, "ক", ["tuned"] * 6)
    evaluated = {row["id"] for row in rows[:6]}
    assert len(evaluated & set(gather(pairs, ["ratings"]).facts["used_test_ids"])) <= 3


def test_a_thumb_on_a_rated_prompt_does_not_count(gather, pairs, run, sheet):
    place = distinct(run, sheet)[0]
    rate_rows(run, sheet, [place])
    gathered = gather([*pairs, ask(sheet[place]["prompt"], WARM, COLD)], ["ratings"])
    assert gathered.facts["sources"]["preferences.jsonl"]["dropped"] == 1
