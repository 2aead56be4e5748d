"""The embedded corpus: the shapes and the dirt of the real one, and at least one row for every fate."""

import itertools
from collections import Counter

import pytest

from helpers.data.clean import DROPS, RULES, canonicalise_topics, clean_table
from helpers.data.load import load_table
from helpers.data.rows import data_rows
from helpers.language.bengali import bengali_share, normalise, split_words
from helpers.models.chat import encode_row

LONG_ROWS = 125  # Part A, long counselling rows, comes first; then Part B, the dialogues
FATES = {  # rule: the rows (from 1) that were written for it
    "list cell": [381],
    "missing side": [208, 288, 323],
    "too short": [259, 277, 313],
    "question is the answer": [154, 226, 304],
    "roles swapped": [155, 156, 227, 305, 306],
    "url": [36, 44, 125, 295],
    "signature": [12, 22, 70, 87],
    "foreign crisis number": [40, 67, 121, 212, 255],
    "not Bengali": [27, 47, 199, 200, 310],
    "exact duplicate": [96, 373, 374],
}


@pytest.fixture(scope="module")
def embedded():
    return load_table("embedded")[0]


@pytest.fixture(scope="module")
def corpus(embedded):
    return clean_table(embedded)


@pytest.fixture(scope="module")
def normal(embedded):
    """The rows as written, but in the suite's one normal form."""
    texts = embedded[["topic", "title", "question", "answer"]].map(normalise)
    return texts.assign(topic=canonicalise_topics(texts.topic)[0])


@pytest.fixture(scope="module")
def dialogues(normal):
    """The runs of adjacent rows of one topic in Part B."""
    rows = normal.iloc[LONG_ROWS:]
    return [turns for _, turns in rows.groupby((rows.topic != rows.topic.shift()).cumsum())]


def test_it_is_read_as_rows_of_four_columns(embedded):
    source = load_table("embedded")[1]
    assert source.format == "qa"
    assert source.rows == len(embedded)
    assert not source.published


def test_it_has_a_laptops_size(corpus):
    assert 300 <= len(corpus.kept) <= 360
    assert corpus.kept.topic.nunique() >= 12


def test_the_long_rows_come_first(normal):
    before, after = normal.answer[:LONG_ROWS].str.len(), normal.answer[LONG_ROWS:].str.len()
    assert before.median() > 2 * after.median()
    assert after.max() < before.max() > 600
    assert after[after > 0].min() < 40


def test_one_question_has_several_answers(normal):
    answers = normal[normal.question != ""].groupby("question").size()
    assert (answers >= 2).sum() >= 50


def test_some_topics_are_lists(normal):
    assert normal.topic[:LONG_ROWS].str.contains(", ").sum() >= 15
    assert not normal.topic[LONG_ROWS:].str.contains(",").any()


def test_a_long_rows_title_belongs_to_another_row(normal):
    shares = share_title_words(normal)
    assert shares[:LONG_ROWS].mean() < 0.3
    assert shares[LONG_ROWS:].mean() == 1


def share_title_words(rows):
    """Returns of each titled row whether all words of its title are its question's."""
    rows = rows[rows.title != ""]
    pairs = zip(rows.title.map(split_words), rows.question.map(split_words))
    return rows.title.where([set(title) <= set(question) for title, question in pairs]).notna().reindex(rows.index)


def test_every_turn_has_a_title_of_its_own(dialogues):
    titles = [list(turns.title) for turns in dialogues]
    assert all(len(set(names) - {""}) == len([name for name in names if name]) for names in titles)
    assert max(len(name.split()) for names in titles for name in names) == 4
    assert sum(not name for names in titles for name in names) >= 5, "no question without a word for a title"


def test_dialogues_have_mostly_two_turns_and_at_most_four(dialogues):
    turns = Counter(len([text for text in dialogue.answer if len(text) > 5]) for dialogue in dialogues)
    assert turns.most_common(1)[0][0] == 2
    assert {1, 2, 3, 4} == set(turns) - {0}


def test_swapped_dialogues_begin_with_their_own_answer(dialogues):
    swapped = [d for d in dialogues if split_words(d.question.iloc[0]) == split_words(d.answer.iloc[0])]
    assert [len(dialogue) for dialogue in swapped] == [3, 2, 3]
    assert {bool(dialogue.title.iloc[0]) for dialogue in swapped} == {True, False}


def test_openings_are_told_twice_in_other_dialogues(corpus):
    """Compares every question with every other, as neither the grouping nor its check does."""
    rows = corpus.kept[corpus.kept.number > LONG_ROWS]
    words = {row.number: set(split_words(row.question)) for row in rows.itertuples()}
    pairs = itertools.combinations([number for number in words if len(words[number]) >= 5], 2)
    far = [b - a for a, b in pairs if len(words[a] & words[b]) >= 0.8 * len(words[a] | words[b])]
    assert len(far) == 6
    assert min(far) > 50


def test_rows_are_written_in_the_ways_of_the_real_corpus(embedded):
    text = "\n".join(embedded.question + "\n" + embedded.answer)
    for mark in (
        '<p class="MsoNormal">',
        "।\n ",
        "&nbsp ;",
        "Â",
        " < ",
        "\u09df",
        "\u09af\u09bc",
        "র\u200d্যা",
        "\u200c",
    ):
        assert mark in text, f"no row has {mark!r}"
    assert any("।" in answer and ". " in answer for answer in embedded.answer), "no row mixes full stops"


def test_every_rule_has_a_row_at_work(corpus):
    idle = [step.rule for step in corpus.funnel if not step.changed + step.dropped]
    assert [step.rule for step in corpus.funnel] == RULES
    assert not idle, f"the demo's funnel shows nothing of {idle}"


@pytest.mark.parametrize("rule", DROPS)
def test_each_row_meets_the_fate_it_was_written_for(corpus, rule):
    assert list(corpus.dropped.number[corpus.dropped.rule == rule]) == FATES[rule]


def test_one_row_is_too_long_to_train_on(tokenizer, corpus):
    rows = data_rows(corpus.kept.assign(group=""), "", "embedded")
    lengths = sorted(len(encode_row(tokenizer, row)["input_ids"]) for row in rows)
    assert lengths[-1] > 1024 > 2 * lengths[-2]


def test_a_misspelt_topic_is_put_to_its_own(embedded, corpus):
    assert {"একাকীত্ব", "আনন্ধ"} <= set(embedded.topic)
    assert not {"একাকীত্ব", "আনন্ধ"} & set(corpus.kept.topic)


def test_no_answer_is_kept_twice(corpus):
    answers = corpus.kept.answer
    assert answers.is_unique, answers[answers.duplicated()].iloc[0]


def test_what_is_kept_is_bengali(corpus):
    shares = (corpus.kept.question + corpus.kept.answer).map(bengali_share)
    assert shares.min() > 0.75
    assert (shares < 0.95).sum() <= 3, "rows with English words inside"


def test_its_answers_are_not_filled_from_a_template(corpus):
    words = corpus.kept.answer.map(split_words)
    openings = Counter(tuple(answer[:4]) for answer in words)
    assert openings.most_common(1)[0][1] <= 3, f"many answers begin alike: {openings.most_common(1)}"
    fives = Counter()
    for answer in words:
        fives.update({tuple(answer[n : n + 5]) for n in range(len(answer) - 4)})
    assert fives.most_common(1)[0][1] <= 4, f"the same five words in many answers: {fives.most_common(1)}"
