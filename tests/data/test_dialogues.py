"""Dialogues: which adjacent rows are turns of one, and what the order of a file cannot tell."""

import corpus_twin
import pandas
import pytest
from tables import cleaned, unified_table

from helpers.data.clean import clean_table
from helpers.data.dialogues import number_conversations, number_dialogues


def rows_of(*topics, **columns):
    """Returns rows with these topics and questions of their own."""
    return [{"Topics": topic, "Questions": f"প্রশ্ন নম্বর {n} বলছি", **columns} for n, topic in enumerate(topics)]


def dialogues(*rows):
    """Returns the dialogue of each row, numbered from 0 in the order of the rows."""
    return list(pandas.factorize(number_dialogues(unified_table(*rows))[0])[0])


def conversations(*rows, openings=frozenset()):
    """Returns the number of turns of each conversation of the rows, which are all in one part."""
    kept = cleaned(*rows).kept.assign(part="train")
    return list(number_conversations(kept, openings).value_counts(sort=False))


def test_adjacent_rows_of_one_topic_are_a_dialogue():
    assert dialogues(*rows_of("ক", "ক", "খ", "ক")) == [0, 0, 1, 2]


def test_titles_do_not_part_a_dialogue():
    rows = [
        {**row, "Question-Title": title} for row, title in zip(rows_of("ক", "ক", "ক", "খ"), ["এক", "", "দুই", "তিন"])
    ]
    assert dialogues(*rows) == [0, 0, 0, 1]


def test_rows_without_a_topic_are_no_dialogue():
    assert dialogues(*rows_of("", "", "ক", "ক")) == [0, 1, 2, 2]


def test_a_misspelt_topic_does_not_part_a_dialogue():
    kept = cleaned(*rows_of(*["একাকিত্ব"] * 2, *["আনন্দ", "একাকিত্ব"] * 10, "একাকিত্বব", "একাকিত্ব")).kept
    assert kept.dialogue.iloc[-3:].nunique() == 1


def test_a_dropped_row_does_not_part_its_neighbours():
    first, _, last, other = rows_of(*"কককখ")
    kept = cleaned(first, {"Topics": "ক", "Questions": "কী?"}, last, other).kept
    assert list(pandas.factorize(kept.dialogue)[0]) == [0, 0, 1]


def test_a_dropped_row_of_another_topic_parts_its_neighbours():
    first, _, last, other = rows_of(*"কখকগ")
    kept = cleaned(first, {"Topics": "খ", "Questions": "কী?"}, last, other).kept
    assert kept.dialogue.nunique() == 3, "dialogues were numbered after rows had been dropped"


def test_a_sorted_table_has_no_dialogues():
    numbers, order = number_dialogues(unified_table(*rows_of(*["ক"] * 60, *["খ"] * 60)))
    assert numbers.is_unique
    assert order.longer == 120
    assert "120 rows in runs of over 4, as a sorted table has them" in order.describe()


def test_a_shuffled_table_has_no_dialogues(twin):
    numbers, order = number_dialogues(twin.file.shuffle().table())
    assert numbers.is_unique
    assert order.longest == 1
    assert "the order shows no dialogues. Turns of one dialogue cannot be grouped" in order.describe()
    assert "near-duplicate texts still are grouped" in order.describe()


def test_a_file_of_one_topic_has_no_dialogues(twin):
    assert number_dialogues(twin.file.change(Topics="শোক").table())[0].is_unique


@pytest.mark.parametrize("topics", [8, 32])
def test_a_small_sorted_table_loses_no_row_to_swapped_roles(topics):
    rows = rows_of(*[f"{letter}{number}" for letter in "কখগঘ" for number in range(topics // 4) for _ in range(20)])
    for row in rows[::20]:
        row["Answers"] = row["Questions"]
    corpus = cleaned(*rows)
    assert set(corpus.dropped.rule) == {"question is the answer"}
    assert f"{topics * 20} rows in runs of over 4, as a sorted table has them" in corpus.order.describe()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("rows", [60, 100, 300])
def test_dialogues_of_a_small_file_are_seen(rows, seed):
    assert number_dialogues(corpus_twin.make(rows, seed).table())[1].longest == 24


@pytest.mark.parametrize("rows", [12, 30, 60])
def test_one_topic_is_not_said_to_show_dialogues(rows):
    numbers, order = number_dialogues(unified_table(*rows_of(*"ক" * rows)))
    assert numbers.is_unique
    assert "the order shows no dialogues" in order.describe()


def test_too_few_rows_to_tell_a_shuffled_table_are_said():
    order = number_dialogues(unified_table(*rows_of(*"ককখগকখগক")))[1]
    assert "but fewer than 50 rows cannot tell: adjacent rows of one topic are grouped" in order.describe()


def test_the_order_of_the_corpus_is_described(twin):
    assert twin.corpus.order.same_topic > 0.5
    order = twin.corpus.order
    assert order.foreign > 0
    assert f"dialogues, but for {order.foreign:,} rows next to one of their topic" in order.describe()


def test_rows_under_titles_of_other_rows_are_counted():
    own = [{"Topics": f"বিষয় {n}", "Questions": f"কথা নম্বর {n}", "Question-Title": "কথা"} for n in range(40)]
    foreign = rows_of("ক", "ক", "ক", **{"Question-Title": "অন্য সারির"})
    assert number_dialogues(unified_table(*own, *foreign))[1].foreign == 2


@pytest.mark.parametrize("turns", [0, 13], ids=["one to four turns", "13 turns"])
@pytest.mark.parametrize("titled", [True, False])
def test_every_dialogue_of_the_twin_is_seen(turns, titled):
    twin = corpus_twin.make(4000, seed=3, turns=turns)
    corpus = clean_table((twin if titled else twin.change(**{"Question-Title": ""})).table())
    rows = pandas.concat([corpus.kept, corpus.dropped]).set_index("number").dialogue
    truth = twin.truth.assign(seen=rows)[twin.truth.part == "B"]
    assert (truth.groupby("dialogue").seen.nunique() == 1).all()


def test_rows_under_titles_of_other_rows_are_no_dialogue(twin):
    counselling = twin.corpus.kept[twin.truth.part[twin.corpus.kept.number].to_numpy() == "A"]
    assert counselling.dialogue.value_counts().le(2).mean() > 0.95
    assert set(counselling.part) == {"train", "val", "test"}, "the counselling rows hang together: one group took them"


def test_titles_are_not_looked_at_where_few_are_of_their_rows():
    kept = cleaned(*rows_of("ক", "ক", "খ", **{"Question-Title": "অন্য সারির"})).kept
    assert kept.dialogue.nunique() == 2


@pytest.mark.parametrize(
    ("rows", "turns"), [(1, [1]), (2, [2]), (3, [3]), (4, [4]), (5, [2, 3]), (6, [2, 2, 2]), (7, [2, 2, 3])]
)
def test_a_run_makes_conversations_of_two_to_four_turns(rows, turns):
    assert conversations(*rows_of(*"ক" * rows, *"খগ" * 8)) == [*turns, *[1] * 16]


def test_a_conversation_ends_where_a_row_was_dropped():
    first, second, _, last, other = rows_of(*"ককককখ")
    assert conversations(first, second, {"Topics": "ক", "Questions": "কী?"}, last, other) == [2, 1, 1]


def test_a_second_answer_is_no_next_turn():
    first, second, third, _, other = rows_of(*"ককককখ")
    again = {**second, "Answers": "আরেকটা উত্তর দিই"}
    assert conversations(first, second, again, third, other) == [2, 2, 1]


def test_rows_of_one_title_are_no_conversation():
    assert conversations(*rows_of(*"ককখ", **{"Question-Title": "একই শিরোনাম"})) == [1, 1, 1]


def test_an_opening_told_again_elsewhere_begins_a_conversation():
    rows = rows_of(*"ককককখ")
    third = cleaned(*rows).kept.id[2]
    assert conversations(*rows, openings=frozenset([third])) == [2, 2, 1]


def test_hardly_a_conversation_of_the_twin_is_a_false_one(twin):
    kept = twin.corpus.kept
    openings = frozenset(row_id for pair in twin.links["near-duplicate question"] for row_id in pair)
    truth = twin.truth.loc[kept.number].assign(joined=number_conversations(kept, openings).to_numpy())
    sizes = truth.groupby("joined").dialogue.agg(["size", "nunique"])
    assert sizes["size"].max() == 4
    assert (sizes["size"] > 1).sum() > 1500
    assert (sizes["nunique"] > 1).sum() < 0.05 * (sizes["size"] > 1).sum()
