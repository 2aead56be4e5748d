"""The split: whole groups, nothing on two sides, and a check that does not trust what grouped the rows."""

import itertools
import random
from collections import Counter

import pandas
import pytest
from tables import cleaned, unified_table

from helpers.data.clean import clean_table
from helpers.data.group import NEAR_WORDS, jaccard, link_rows
from helpers.data.rows import data_rows
from helpers.data.sampling import sample_rows
from helpers.data.split import (
    count_overlap,
    find_crossing_pairs,
    group_and_split,
    measure_leak,
    split_corpus,
    split_groups,
)
from helpers.language.bengali import split_words

SHARES = (0.8, 0.1)


def count_crossing(kept, part, side, threshold=0.8):
    """Counts near-duplicates across parts by comparing everything with everything."""
    sets = [(frozenset(split_words(value)), where) for value, where in zip(kept[side], part)]
    sets = [(words, where) for words, where in sets if len(words) >= NEAR_WORDS[side]]
    return sum(
        jaccard(a, b) >= threshold
        for (a, here), (b, there) in itertools.combinations(sets, 2)
        if here != there and min(len(a), len(b)) >= threshold * max(len(a), len(b))
    )


@pytest.fixture(scope="module")
def kept(planted_file):
    return planted_file.corpus.kept.iloc[:2000].reset_index(drop=True)


@pytest.fixture(scope="module")
def grouped(kept):
    """Returns (group, part) of each row."""
    return group_and_split(kept, link_rows(kept, 0.8), SHARES, 1, 0.8)


def test_no_group_stands_in_two_parts(grouped):
    parts = pandas.DataFrame(zip(*grouped), columns=["group", "part"]).groupby("group").part.nunique()
    assert parts.max() == 1, f"group {parts.idxmax()} stands in {parts.max()} parts"


@pytest.mark.parametrize("side", NEAR_WORDS)
def test_no_near_duplicate_crosses_the_split(kept, grouped, side):
    assert count_crossing(kept, grouped[1], side) == 0


def test_a_split_by_row_leaks(kept, grouped):
    by_row = split_groups(list(kept.id), *SHARES, 1)
    assert sum(count_crossing(kept, by_row, side) for side in NEAR_WORDS), "the planted file has no near-duplicates"
    assert find_crossing_pairs(kept, by_row, 0.8)
    assert measure_leak(grouped[0], by_row) > 0.5


def test_a_split_by_group_does_not_leak(grouped):
    assert measure_leak(*grouped) == 0


def test_planted_near_duplicates_are_in_one_group(kept, grouped, planted_file):
    group_of = dict(zip(kept.number, grouped[0]))
    pairs = [pair for pair in planted_file.near if set(pair) <= set(group_of)]
    together = [group_of[a] == group_of[b] for a, b in pairs]
    print(f"planted near-duplicates in one group: {sum(together)} of {len(together)}")
    assert pairs, "no planted pair was kept: plant more rows"


def test_what_lsh_misses_is_joined_by_the_check(kept):
    blind = link_rows(kept, 0.0)  # as if every near-duplicate had been missed
    _, part = group_and_split(kept, blind, SHARES, 1, 0.8)
    assert find_crossing_pairs(kept, part, 0.8) == []


def test_the_order_of_the_rows_changes_nothing():
    rows = [
        {"Topics": f"বিষয় {n}", "Questions": f"প্রশ্ন নম্বর {n % 50} এখানে", "Answers": f"উত্তর নম্বর {n} এখানে"}
        for n in range(120)
    ]
    ids = []
    for order in (rows, random.Random(3).sample(rows, len(rows))):
        kept = cleaned(*order).kept
        kept["group"], kept["part"] = group_and_split(kept, link_rows(kept, 0.8), SHARES, 5, 0.8)
        kept = sample_rows(kept, 60, 5)
        ids.append([(row["id"], row["group"]) for row in data_rows(kept[kept.part == "train"], "", "x")])
    assert ids[0] == ids[1] != []


def test_groups_stay_whole():
    groups = [f"g{n % 90}" for n in range(300)]
    assert len(set(zip(groups, split_groups(groups, *SHARES, 7)))) == 90


def test_the_parts_have_their_shares():
    counts = Counter(split_groups([f"g{n % 90}" for n in range(300)], *SHARES, 7))
    assert abs(counts["train"] - 240) <= 4
    assert abs(counts["val"] - 30) <= 4


def test_the_split_depends_on_the_seed_alone():
    groups = [f"g{n % 90}" for n in range(300)]
    parts = split_groups(groups, *SHARES, 7)
    assert parts == split_groups(groups, *SHARES, 7)
    assert parts != split_groups(groups, *SHARES, 8)


@pytest.mark.parametrize(
    ("shares", "rows", "message"), [((0.9, 0.1), 9, "leave no test part"), (SHARES, 2, "at least 3")]
)
def test_a_split_that_cannot_be_is_refused(shares, rows, message):
    with pytest.raises(ValueError, match=message):
        split_groups([f"g{n}" for n in range(rows)], *shares, 0)


def test_a_published_split_is_kept_but_for_repeated_rows():
    rows = [{"Questions": f"প্রশ্ন নম্বর {n} এখানে", "Answers": f"উত্তর নম্বর {n} এখানে"} for n in range(6)]
    again = {**rows[0], "Answers": "অন্য একটা উত্তর এখানে"}
    table = unified_table(*rows, again).assign(published=["train"] * 4 + ["val", "test", "test"])
    corpus = clean_table(table)
    corpus, leaks = split_corpus(corpus, link_rows(corpus.kept), SHARES, 1, 0.0)
    assert list(corpus.kept.part) == ["train"] * 4 + ["val", "test"]
    assert list(corpus.dropped.number) == [7]
    assert corpus.funnel[-1].as_json()["rows_out"] == 6
    assert corpus.funnel[-1].rule == "in an earlier part too"
    assert set(leaks) == {"leak", "row_wise_leak"}


def test_overlap_counts_questions_of_another_part(embedded_rows):
    first, second, third = embedded_rows[:3]
    assert count_overlap({"train": [first], "val": [second], "test": [third]}) == 0
    assert count_overlap({"train": [first, second], "val": [second], "test": [third, first]}) == 2


def test_overlap_counts_plain_texts_too(embedded_rows):
    plain = {"id": "x", "group": "x", "source": "x", "text": "একই লেখা"}
    assert count_overlap({"train": [plain], "val": [embedded_rows[0]], "test": [plain]}) == 1
