"""The embedded corpus: the shapes of the real one, and nothing that the rules would touch."""

from collections import Counter

import pytest

from helpers.data.clean import clean_table
from helpers.data.load import load_table
from helpers.language.bengali import bengali_share, split_words


@pytest.fixture(scope="module")
def embedded():
    return load_table("embedded")[0]


def test_it_is_read_as_rows_of_four_columns(embedded):
    source = load_table("embedded")[1]
    assert source.format == "qa"
    assert source.rows == len(embedded)
    assert not source.published


def test_it_has_the_real_corpus_shapes(embedded):
    assert len(embedded) >= 300
    assert embedded.topic.nunique() >= 12
    assert (embedded.groupby("question").size() >= 2).sum() >= 50, "too few questions with several answers"
    assert (embedded.title == "").sum() >= 120, "too few rows that are turns of a dialogue"
    assert embedded.answer.str.len().min() < 40
    assert embedded.answer.str.len().max() > 600


def test_no_answer_stands_twice(embedded):
    assert embedded.answer.is_unique, embedded.answer[embedded.answer.duplicated()].iloc[0]


def test_it_is_bengali(embedded):
    assert (embedded.question + embedded.answer).map(bengali_share).min() > 0.95


def test_no_rule_touches_it(embedded):
    corpus = clean_table(embedded)
    assert corpus.dropped.empty, corpus.dropped[["number", "rule"]]
    assert not any(step.changed or step.dropped for step in corpus.funnel)


def test_its_answers_are_not_filled_from_a_template(embedded):
    words = clean_table(embedded).kept.answer.map(split_words)
    openings = Counter(tuple(answer[:4]) for answer in words)
    assert openings.most_common(1)[0][1] <= 3, f"many answers begin alike: {openings.most_common(1)}"
    fives = Counter()
    for answer in words:
        fives.update({tuple(answer[n : n + 5]) for n in range(len(answer) - 4)})
    assert fives.most_common(1)[0][1] <= 4, f"the same five words in many answers: {fives.most_common(1)}"
