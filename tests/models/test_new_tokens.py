"""A vocabulary with Bengali tokens learned from rows: it reads what the plain one reads, in fewer tokens."""

import pytest
from benchmarks.new_tokens import Corpus, Vocabulary

from helpers.data.load import load_table
from helpers.data.rows import data_rows
from helpers.models.chat import IGNORED, answers_of
from helpers.models.embedded import build_tokenizer

NUMBER = 40
PLANTED = "ঙৎ" * 8  # no word, and in no row but one that is held out


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """The plain vocabulary and one with NUMBER tokens, of 60 rows to train on and 20 that are held out."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(["A tokenizer of English knows no Bengali word."]).save_pretrained(folder)
    table = load_table("embedded")[0].iloc[:80].assign(id=[*map(str, range(80))], group="")
    rows = [row for row in data_rows(table, "", "embedded") if answers_of(row)]
    corpus = Corpus([], rows[:60], [], [*rows[60:], {"id": "planted", "text": f"{PLANTED} " * 200}])
    return corpus, Vocabulary(0, str(folder), corpus), Vocabulary(NUMBER, str(folder), corpus)


def test_new_tokens_are_of_the_training_rows_alone(vocabularies):
    corpus, _, larger = vocabularies
    text = str(corpus.train)
    assert len(larger.tokens) == NUMBER
    assert [token for token in larger.tokens if token not in text] == []
    assert all(len(pieces) > 1 for pieces in larger.pieces)


def test_a_new_token_stands_for_the_text_of_its_pieces(vocabularies):
    _, plain, larger = vocabularies
    texts = [plain.tokenizer.decode(pieces) for pieces in larger.pieces]
    assert texts == larger.tokens


def test_held_out_answers_stay_the_same_in_fewer_tokens(vocabularies):
    corpus, plain, larger = vocabularies
    for row, long, short in zip(corpus.test[:-1], plain.parts["test"], larger.parts["test"]):
        assert len(short["input_ids"]) < len(long["input_ids"])
        for vocabulary, example in ((plain, long), (larger, short)):
            text = vocabulary.tokenizer.decode([label for label in example["labels"] if label != IGNORED])
            assert answers_of(row)[0].strip() in text
