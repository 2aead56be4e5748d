"""Grouping: which rows belong together, and which only look like it."""

import itertools
import random

import networkx
import numpy
import pandas
import pytest
from tables import cleaned, embedded_table

from helpers.data.clean import clean_table
from helpers.data.group import SKETCH, _sketch, group_rows, link_rows, measure_title_agreement, pair_equal
from helpers.data.leaks import NEAR_WORDS
from helpers.data.load import unify_columns
from helpers.language.bengali import split_words


def group(kept, near_duplicate=0.8):
    return group_rows(kept, link_rows(kept, near_duplicate))


def test_the_same_question_is_one_group():
    titled = {"Question-Title": "শিরোনাম"}
    kept = cleaned(
        {**titled, "Topics": "ক", "Questions": "প্রথম প্রশ্ন কী?", "Answers": "উত্তর এক এখানে"},
        {**titled, "Topics": "খ", "Questions": "প্রথম প্রশ্ন কী।", "Answers": "উত্তর দুই এখানে"},
        {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 2


def test_the_turns_of_a_dialogue_are_one_group():
    kept = cleaned(
        {"Topics": "গ", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {"Topics": "গ", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 2


def test_near_duplicates_are_one_group_unless_they_are_short():
    words = "আজ সকাল থেকে মনটা খুব ভারী হয়ে আছে কিছুতেই কাজে মন বসছে না"
    kept = cleaned(
        {"Topics": "ক", "Questions": words, "Answers": "উত্তর এক এখানে"},
        {"Topics": "খ", "Questions": words.replace("খুব", "ভীষণ"), "Answers": "উত্তর দুই এখানে"},
        {"Topics": "গ", "Questions": "কেমন আছেন আপনি", "Answers": words},
        {"Topics": "ঘ", "Questions": "আপনি আছেন কেমন ভাই", "Answers": words + " একদম"},
        {"Topics": "ঙ", "Questions": "কেমন আছেন আপনি আজ", "Answers": "অন্য কিছু বলি"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3
    assert len(set(group(kept, 0.0))) == 5, "near-duplicates were joined although none were looked for"


def test_pairs_of_dropped_rows_are_ignored():
    kept = cleaned({"Answers": "উত্তর এক এখানে"}, {"Answers": "উত্তর দুই এখানে"}).kept
    first, second = kept.id
    assert group_rows(kept, {"a test": [(first, "gone"), ("gone", second)]}) == [first, second]


def test_titles_of_other_rows_do_not_fit_their_own(twin):
    kept = twin.corpus.kept
    agreement = measure_title_agreement(kept[twin.truth.part[kept.number].to_numpy() == "A"], 0)
    assert agreement["their own"] < agreement["another row's"] + 0.1


def test_titles_of_the_embedded_corpus_fit_their_own():
    agreement = measure_title_agreement(embedded_table(), 0)
    assert agreement["their own"] > agreement["another row's"] + 0.2


def titled(number):
    """Returns a table of titled rows: half of the titles share a word with their own question, and with no other's."""
    return pandas.DataFrame(
        {
            "title": [f"শিরোনাম শব্দ{n}" for n in range(number)],
            "question": [f"প্রশ্ন শব্দ{n if n % 2 else -n - 1}" for n in range(number)],
        }
    )


def test_titles_that_share_a_word_with_a_question_are_counted():
    agreement = measure_title_agreement(titled(40), 0)
    assert agreement["their own"] == 0.5
    assert agreement["another row's"] <= 0.1, "the questions are not shuffled"


def test_the_questions_beside_other_titles_are_drawn_by_the_seed():
    table = titled(20).assign(question=[f"প্রশ্ন শব্দ{n // 5}" for n in range(20)])
    drawn = [measure_title_agreement(table, seed)["another row's"] for seed in range(9)]
    assert len(set(drawn)) > 1
    assert drawn == [measure_title_agreement(table, seed)["another row's"] for seed in range(9)]


@pytest.mark.parametrize(("titles", "measured"), [(0, False), (19, False), (20, True), (21, True)])
def test_titles_agree_or_not_from_20_on(titles, measured):
    table = pandas.concat([titled(titles), pandas.DataFrame({"title": [""] * 30, "question": ["প্রশ্ন"] * 30})])
    assert bool(measure_title_agreement(table, 0)) is measured


def test_equal_keys_are_paired_with_their_first_row():
    keys, ids = ["a", None, "b", "a", None, "a"], ["1", "2", "3", "4", "5", "6"]
    assert pair_equal(keys, ids) == [("1", "4"), ("1", "6")]


def test_a_group_is_named_after_its_smallest_id():
    table = pandas.DataFrame({"id": ["c", "a", "d", "b"]})
    assert group_rows(table, {"one": [("c", "d")], "other": [("d", "b")]}) == ["b", "a", "b", "b"]


@pytest.mark.parametrize(
    ("common", "apart", "threshold", "joined"),
    [(9, 1, 0.9, True), (18, 2, 0.9, True), (17, 3, 0.9, False), (8, 2, 0.8, True), (7, 3, 0.8, False)]
    + [(10, 10, 0.5, True), (10, 11, 0.5, False), (12, 0, 1.0, True), (12, 1, 1.0, False)],
)
def test_answers_are_joined_from_their_similarity_on(common, apart, threshold, joined):
    """One answer's words are all in the other: the similarity is common / (common + apart), at a bound exactly."""
    words = [f"শব্দ{letter}" for letter in "কখগঘচছজঝটঠডঢতথদধপফবভমযর"]
    kept = cleaned(
        {"Topics": "ক", "Questions": "প্রথম প্রশ্ন কী", "Answers": " ".join(words[:common])},
        {"Topics": "খ", "Questions": "অন্য কথা বলি", "Answers": " ".join(reversed(words[: common + apart]))},
    ).kept
    assert bool(link_rows(kept, threshold)["near-duplicate answer"]) is joined


@pytest.mark.parametrize(("words", "joined"), [(7, False), (8, True), (9, True)])
def test_short_answers_are_no_near_duplicates(words, joined):
    answer = " ".join(f"শব্দ{letter}" for letter in "কখগঘচছজঝট"[:words])
    kept = cleaned(
        {"Topics": "ক", "Questions": "প্রথম প্রশ্ন কী", "Answers": answer},
        {"Topics": "খ", "Questions": "অন্য কথা বলি", "Answers": f"{answer}।"},
    ).kept
    assert bool(link_rows(kept, 1.0)["near-duplicate answer"]) is joined


@pytest.mark.parametrize(("thanks", "joined"), [("অনেক ধন্যবাদ আপনাকে ভাই", False), ("অনেক ধন্যবাদ আপনাকে প্রিয় ভাই", True)])
def test_a_later_turn_joins_conversations_from_five_words_on(thanks, joined):
    conversations = [
        [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, turns)]
        for turns in (
            ("মন ভালো নেই আজ", "বলুন কী হয়েছে", thanks, "ভালো থাকবেন"),
            ("রাতে ঘুম হয় না", "কত দিন ধরে", thanks, "ভালো থাকবেন তবে"),
        )
    ]
    kept = clean_table(unify_columns(pandas.DataFrame({"messages": conversations}), "auto", "a test")[0]).kept
    groups = group(kept, 0.0)
    assert (groups[0] == groups[1]) is joined


def test_the_sketches_have_a_bit_for_each_word():
    sets = [frozenset("কখগ"), frozenset("কখ"), frozenset()]
    sketches = _sketch(sets)
    assert sketches.shape == (3, SKETCH)
    bits = [[int(number) for number in row] for row in sketches]
    counts = [sum(number.bit_count() for number in row) for row in bits]
    assert counts == [3, 2, 0]
    assert all(small & large == small for small, large in zip(bits[1], bits[0])), "a word has another bit in each set"


def test_words_are_spread_over_all_bits_of_a_sketch():
    """Words that share bits cost time alone, so nothing else would notice."""
    sketches = _sketch([frozenset(f"শব্দ{n}" for n in range(20_000))])
    assert int(numpy.bitwise_count(sketches).sum()) == 64 * SKETCH


def connect(pairs, ids):
    """Returns the connected ids, as a set of sets."""
    graph = networkx.Graph(pairs)
    graph.add_nodes_from(ids)
    return {frozenset(rows) for rows in networkx.connected_components(graph)}


@pytest.mark.parametrize("threshold", [0.5, 0.65, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("words", [12, 40, 400], ids=lambda words: f"{words} words")
def test_near_duplicates_are_those_that_comparing_all_finds(threshold, words):
    rng = random.Random(words)
    vocabulary = [f"শব্দ{first}{second}" for first in "কখগঘচছজঝটঠডঢতথদধপফবভ" for second in "কখগঘচছজঝটঠডঢতথদধপফবভ"][
        :words
    ]
    texts = [rng.sample(vocabulary, rng.randrange(3, min(words, 150))) for _ in range(60)]
    texts += [[word for word in text if rng.random() < rng.choice([0.7, 0.9])] + vocabulary[:1] for text in texts * 2]
    kept = cleaned(*({"Topics": f"বিষয় {n}", "Answers": " ".join(text)} for n, text in enumerate(texts))).kept
    sets = {row.id: set(split_words(row.answer)) for row in kept.itertuples()}
    near = [
        (a, b)
        for a, b in itertools.combinations(
            [row_id for row_id, words in sets.items() if len(words) >= NEAR_WORDS["answer"]], 2
        )
        if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold
    ]
    links = link_rows(kept, threshold)["near-duplicate answer"]
    assert connect(links, kept.id) == connect(near, kept.id)
    assert len(connect(near, kept.id)) < len(kept) or threshold == 1


def test_conversations_with_one_opening_are_one_group():
    def messages(*turns):
        return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, turns)]

    conversations = [
        messages("মন ভালো নেই আজ", "বলুন কী হয়েছে", "ধন্যবাদ", "ভালো থাকবেন"),
        messages("মন ভালো নেই আজ।", "কী হলো আবার"),
        messages("রাতে ঘুম হয় না", "কত দিন ধরে", "ধন্যবাদ", "ভালো থাকবেন তবে"),
    ]
    kept = clean_table(unify_columns(pandas.DataFrame({"messages": conversations}), "auto", "a test")[0]).kept
    groups = group(kept)
    assert groups[0] == groups[1] != groups[2]


def test_plain_texts_of_the_same_words_are_one_group():
    texts = pandas.DataFrame({"text": ["আমি ভালো আছি।", "আমি ভালো আছি", "আমি ভালো নেই আজ"]})
    groups = group(clean_table(unify_columns(texts, "auto", "a test")[0]).kept)
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize("near_duplicate", [0.3, 1.1])
def test_a_similarity_that_is_none_is_refused(near_duplicate):
    with pytest.raises(ValueError, match=f"near_duplicate is {near_duplicate}: expected 0 "):
        link_rows(cleaned({}).kept, near_duplicate)


def test_near_duplicates_are_looked_for_when_asked_alone():
    assert link_rows(cleaned({}).kept).keys() == {"same question", "one dialogue"}
