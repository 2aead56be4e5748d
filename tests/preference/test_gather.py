"""From sources to prefer/pairs.jsonl: the rows, their parts, the counts, and when there are too few."""

import json
import random

import pandas
import pytest
from preferences import COLD, WARM, ask, give_thumb

from helpers.preference.gather import write_preferences
from helpers.reporting.shapes import PreferFacts
from helpers.runs.files import write_jsonl


def test_a_pair_becomes_a_row(gather, pairs):
    row = next(row for row in gather(pairs).rows if row["prompt"][-1]["content"] == pairs[0]["prompt"])
    assert [row["chosen"], row["rejected"], row["source"]] == [*list(pairs[0].values())[1:], "preferences.jsonl"]


def test_a_prompt_begins_with_the_runs_system_turn(gather, pairs):
    assert {row["prompt"][0]["content"] for row in gather(pairs).rows} == {"You are a sympathetic assistant."}


def test_a_labelled_reply_becomes_a_row(gather, pairs, prompts):
    rows = [ask(prompt, WARM, label=True) for prompt in prompts[:10]]
    rows += [ask(prompt, COLD, label=False) for prompt in prompts[:10]]
    labels = {(row["completion"], row["label"]) for row in gather(rows).rows}
    assert labels == {(WARM, True), (COLD, False)}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_changes_nothing(gather, pairs, prompts, seed):
    rows = [*pairs, *pairs[:5], ask(prompts[0], COLD, WARM), ask(prompts[1], WARM, label=True)]
    rows += [ask(row["prompt"].replace("।", "!"), row["chosen"], row["rejected"]) for row in pairs[5:10]]
    rows += [ask(f"{row['prompt']} আজ", row["chosen"], row["rejected"]) for row in pairs[10:15]]
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert gather(shuffled).rows == gather(rows).rows


def test_of_equal_rows_the_first_of_the_file_stays(gather, pairs):
    assert [line["id"] for line in gather([*pairs, pairs[3], pairs[12]]).dropped] == ["row 21", "row 22"]


def test_files_of_one_name_in_two_folders_vote_each(gather, pairs, tmp_path):
    files = [tmp_path / name / "own.jsonl" for name in ("first", "second")]
    for file in files:
        write_jsonl(file, [pairs[0]])
    others = [*pairs[1:], ask(pairs[0]["prompt"], pairs[0]["rejected"], pairs[0]["chosen"])]
    assert gather(others, map(str, files)).facts["conflicts"] == {"outvoted": 1, "tied": 0}


def test_every_row_read_is_kept_or_dropped(gather, pairs, prompts):
    gathered = gather([*pairs, pairs[0], ask(prompts[1], "", COLD), ask(prompts[2], WARM, WARM)])
    assert len(gathered.rows) + len(gathered.dropped) == 23


def test_counts_by_source_add_up(gather, pairs, prompts, run):
    give_thumb(run, prompts[3], WARM, True)
    sources = gather([*pairs, pairs[0]], ["thumbs"]).facts["sources"]
    assert sources == {
        "preferences.jsonl": {"read": 21, "kept": 20, "dropped": 1},
        "thumbs": {"read": 1, "kept": 1, "dropped": 0},
    }


def test_counts_by_part_add_up(gather, pairs):
    facts = gather(pairs).facts
    assert facts["kinds"]["train"]["pairs"] + facts["kinds"]["val"]["pairs"] == facts["pairs"] == 20


def test_a_fifth_is_held_out(gather, pairs):
    assert gather(pairs).facts["val"] == 4


def test_a_prompt_stands_in_one_part_alone(gather, pairs, prompts):
    more = [ask(prompt, f"{WARM} {n}", f"{COLD} {n}") for n in range(3) for prompt in prompts]
    rows = gather([*pairs, *more]).rows
    parts = {(row["prompt"][-1]["content"], row["part"]) for row in rows}
    assert len(parts) == len(prompts) < len(rows)


def test_another_seed_holds_out_other_prompts(gather, pairs):
    held_out = [{row["id"] for row in gather(pairs, seed=seed).rows if row["part"] == "val"} for seed in (1, 2)]
    assert held_out[0] != held_out[1]


def test_what_was_dropped_is_written_with_its_reason(gather, pairs, prompts, run):
    write_preferences(run, gather([*pairs, ask(prompts[0], WARM, WARM)]))
    table = pandas.read_csv(run / "prefer" / "dropped.csv", dtype=str)
    assert table.to_dict("records")[0] | {"text": ""} == {
        "reason": "both replies are the same",
        "source": "preferences.jsonl",
        "id": "row 21",
        "text": "",
    }


def test_rows_are_written_a_line_each(gather, pairs, run):
    gathered = gather(pairs)
    write_preferences(run, gathered)
    lines = (run / "prefer" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == gathered.rows


def test_bengali_is_written_as_it_is(gather, pairs, run):
    write_preferences(run, gather(pairs))
    assert WARM in (run / "prefer" / "pairs.jsonl").read_text(encoding="utf-8")


def test_pairs_that_were_written_are_a_source(gather, pairs, run):
    gathered = gather([*pairs, ask(pairs[0]["prompt"], f"{WARM} আবার", label=True)])
    write_preferences(run, gathered)
    again = gather(sources=[str(run / "prefer" / "pairs.jsonl")])
    assert [row | {"source": ""} for row in again.rows] == [row | {"source": ""} for row in gathered.rows]


def test_too_few_prompts_are_refused(gather, pairs):
    with pytest.raises(ValueError, match="9 different prompts: expected at least 10, and 485 for an effect"):
        gather(pairs[:9])


def test_what_was_dropped_of_too_few_can_be_read(gather, pairs, run):
    with pytest.raises(ValueError, match="both replies are the same 1"):
        gather([*pairs[:9], ask(pairs[9]["prompt"], WARM, WARM)])
    assert (run / "prefer" / "dropped.csv").is_file()


def test_thumbs_of_one_kind_are_refused(gather, prompts):
    with pytest.raises(ValueError, match="20 replies, all of them liked: expected both kinds"):
        gather([ask(prompt, WARM, label=True) for prompt in prompts])


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_without_two_parts_is_refused(gather, pairs, share):
    with pytest.raises(ValueError, match="val_share is .*: expected a share between 0 and 1"):
        gather(pairs, val_share=share)


def test_few_preferences_are_told_from_enough(gather, pairs):
    described = gather(pairs).describe()
    assert "Few: on 4 held-out prompts not even an accuracy of 100% can be told from chance." in described
    assert "485 prompts are needed, 97 of them held out: 465 are missing" in described


def test_nothing_leaves_the_evaluation_without_ratings(gather, pairs):
    assert gather(pairs).facts["used_test_ids"] == []


def test_a_report_reads_the_counts_that_are_gathered(gather, pairs):
    facts = gather(pairs).facts
    PreferFacts.model_validate(facts | {"method": "dpo", "held_out": {"n": facts["val"]}})
