"""The split: whole groups, nothing on two sides."""

import itertools
import random
from collections import Counter

import corpus_twin
import pytest
from tables import cleaned, unified_table

from helpers.data.clean import clean_table
from helpers.data.group import link_rows
from helpers.data.leaks import NEAR_WORDS, count_overlap, find_leaks
from helpers.data.rows import data_rows, make_parts
from helpers.data.sampling import sample_rows
from helpers.data.split import split_corpus, split_groups
from helpers.language.bengali import split_words

SHARES = (0.8, 0.1)


def count_crossing(kept, part, side, threshold=0.8):
    """Counts near-duplicates across parts by comparing all rows with all rows of like size."""
    sets = [(frozenset(split_words(text)), where) for text, where in zip(kept[side], part)]
    sets = sorted((item for item in sets if len(item[0]) >= NEAR_WORDS[side]), key=lambda item: len(item[0]))
    crossing = 0
    for place, (words, here) in enumerate(sets):
        for others, there in itertools.islice(sets, place + 1, None):
            if len(others) * threshold > len(words):
                break
            crossing += here != there and len(words & others) >= threshold * len(words | others)
    return crossing


@pytest.fixture(scope="module")
def kept(twin):
    return twin.corpus.kept.iloc[:2500]


def test_no_group_stands_in_two_parts(twin):
    parts = twin.corpus.kept.groupby("group").part.nunique()
    assert parts.max() == 1, f"group {parts.idxmax()} stands in {parts.max()} parts"


@pytest.mark.parametrize("side", NEAR_WORDS)
def test_no_near_duplicate_crosses_the_split(kept, side):
    assert count_crossing(kept, kept.part, side) == 0


def test_a_split_by_row_parts_near_duplicates(kept):
    assert count_crossing(kept, split_groups(list(kept.id), *SHARES, 1), "question") > 0


def test_no_dialogue_stands_in_two_parts(twin):
    kept = twin.corpus.kept
    whole, parted = corpus_twin.count_split_dialogues(twin.file, kept, kept.part)
    assert whole > 2000
    assert parted == 0


def test_a_split_by_row_parts_dialogues(twin):
    kept = twin.corpus.kept
    whole, parted = corpus_twin.count_split_dialogues(twin.file, kept, split_groups(list(kept.id), *SHARES, 1))
    assert parted > 0.3 * whole


def test_openings_told_again_are_in_one_group(twin):
    group_of = dict(zip(twin.corpus.kept.number, twin.corpus.kept.group))
    pairs = [(number, first) for number, first in twin.truth.retells.items() if {number, first} <= set(group_of)]
    assert len(pairs) > 100, "few are told again: plant more"
    assert all(group_of[number] == group_of[first] for number, first in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_thousand_rows_are_split_without_a_leak(seed):
    twin = corpus_twin.make(20_000, seed)
    corpus = clean_table(twin.table())
    corpus = split_corpus(corpus, link_rows(corpus.kept, 0.8), SHARES, seed)
    kept = corpus.kept
    assert corpus_twin.count_split_dialogues(twin, kept, kept.part)[1] == 0
    assert [count_crossing(kept, kept.part, side) for side in NEAR_WORDS] == [0, 0]
    assert count_overlap(make_parts(kept, "", "twin")) == 0
    assert find_leaks(kept, corpus.dropped, {"": kept.part}, 0.8, corpus.order.longest)[""].leaked == 0
    fates = corpus_twin.count_fates(twin, corpus)
    assert not kept.duplicated(["question", "answer"]).any()
    known = fates.drop("exact duplicate")  # the copy of a row that another rule dropped is kept
    assert known.missed.sum() == known.hard.sum()
    assert fates["in error"].sum() < 0.01 * len(kept), "sound rows were lost"


def test_the_order_of_the_rows_changes_nothing():
    rows = [
        {"Topics": f"বিষয় {n}", "Questions": f"প্রশ্ন নম্বর {n % 50} এখানে", "Answers": f"উত্তর নম্বর {n} এখানে"}
        for n in range(120)
    ]
    ids = []
    for order in (rows, random.Random(3).sample(rows, len(rows))):
        corpus = cleaned(*order)
        kept = sample_rows(split_corpus(corpus, link_rows(corpus.kept, 0.8), SHARES, 5).kept, 60, 5)
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
    corpus = split_corpus(corpus, link_rows(corpus.kept), SHARES, 1)
    assert list(corpus.kept.part) == ["train"] * 4 + ["val", "test"]
    assert list(corpus.dropped.number) == [7]
    assert corpus.funnel[-1].as_json()["rows_out"] == 6
    assert corpus.funnel[-1].rule == "in an earlier part too"


def test_groups_that_would_be_most_of_a_part_go_to_train():
    groups = ["large"] * 30 + ["other"] * 20 + [f"g{n // 2}" for n in range(50)]
    assert {part for seed in range(50) for part in split_groups(groups, *SHARES, seed)[:50]} == {"train"}


def test_groups_that_are_all_large_fill_every_part():
    assert set(split_groups([f"g{n % 3}" for n in range(90)], *SHARES, 0)) == {"train", "val", "test"}
