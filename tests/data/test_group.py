"""Grouping: which rows belong together, and which only look like it."""

import itertools
import random

import networkx
import pandas
import pytest
from tables import cleaned, embedded_table

from helpers.data.clean import clean_table
from helpers.data.group import group_rows, link_rows, measure_title_agreement
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


def test_without_titles_there_is_no_agreement(twin):
    kept = twin.corpus.kept
    assert not measure_title_agreement(kept[kept.title == ""], 0)


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
