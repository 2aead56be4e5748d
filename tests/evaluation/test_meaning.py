"""Similarity of meaning: base against tuned, its floor, and the reasons for which it is skipped."""

import numpy
import pytest
from encoders import TEXTS, make_encoder

from helpers.evaluation import meaning as module
from helpers.evaluation.comparison import compare_models
from helpers.evaluation.encoder import embed_texts, load_encoder
from helpers.evaluation.meaning import Meaning, measure_meaning
from helpers.evaluation.metrics import BETTER, PRIMARY

SCORES = ["similarity_reference", "similarity_question"]
GROUPS = [f"g{place // 2}" for place in range(len(TEXTS))]  # two rows each


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def make_rows(replies):
    """Returns rows whose references are TEXTS and whose questions the same, the last one first."""
    questions = [f"প্রশ্ন: {text}" for text in reversed(TEXTS)]
    return [dict(reply=r, reference=t, prompt=q) for r, t, q in zip(replies, TEXTS, questions, strict=True)]


@pytest.fixture(scope="module")
def replies():
    """Returns a base model that repeats the question and a tuned one that says the reference."""
    asked = [row["prompt"] for row in make_rows(TEXTS)]
    return {"base": make_rows(asked), "tuned": make_rows(TEXTS)}


@pytest.fixture(scope="module")
def measured(name, replies):
    return measure_meaning(name, replies, GROUPS, 1)


def test_the_reference_itself_scores_one(measured):
    assert measured.sums["tuned"]["similarity_reference"][:, 0] == pytest.approx(numpy.ones(len(TEXTS)))
    assert measured.sums["base"]["similarity_reference"][:, 0].max() < 0.9999


def test_a_reply_that_copies_the_question_scores_one_against_it(measured):
    assert measured.sums["base"]["similarity_question"][:, 0] == pytest.approx(numpy.ones(len(TEXTS)))


def test_each_value_is_the_cosine_of_its_own_row(name, replies, measured):
    encoder = load_encoder(name, "cpu")
    row = replies["base"][2]
    reply, reference = embed_texts(encoder, [row["reply"], row["reference"]])[0]
    assert measured.columns()["base_similarity_reference"][2] == pytest.approx(reply @ reference)


def test_the_floor_is_of_rows_of_other_groups(name, replies, measured):
    encoder = load_encoder(name, "cpu")
    vectors = embed_texts(encoder, TEXTS)[0]
    for row, pool in enumerate(measured.floors["tuned"]["similarity_reference"]):
        others = [vectors[row] @ vectors[other] for other in range(len(TEXTS)) if GROUPS[other] != GROUPS[row]]
        for value, weight in pool:
            assert weight == 1
            assert min(abs(value - other) for other in others) < 1e-6, "it is the cosine with a row of its own group"


def test_both_scores_are_compared_as_every_other_is(measured):
    options = {"floors": measured.floors, "draws": 200, "seed": 1, "groups": GROUPS}
    scores = compare_models(**measured.sums, **options)
    assert list(scores.tuned) == SCORES
    reference = scores.tuned["similarity_reference"]
    assert reference.value == pytest.approx(1)
    assert reference.floor < reference.low
    assert (reference.n, reference.groups) == (6, 3)
    assert scores.delta["similarity_reference"].low > 0
    assert scores.delta["similarity_reference"].p is not None


def test_neither_score_decides_the_verdict():
    assert not set(SCORES) & set(PRIMARY)
    assert BETTER["similarity_question"] == "neither", "a copied question scores highest"


def test_every_different_text_is_embedded_once(name, replies, monkeypatch):
    asked = []

    def embed(encoder, texts):
        asked.extend(texts)
        return embed_texts(encoder, texts)

    monkeypatch.setattr(module, "embed_texts", embed)
    facts = measure_meaning(name, replies, GROUPS, 1).facts
    assert len(asked) == len(set(asked)) == facts["texts"] == 12


def test_what_was_cut_is_said(name, replies):
    longer = [row | {"prompt": " ".join(TEXTS)} for row in replies["tuned"]]
    measured = measure_meaning(name, {"base": longer, "tuned": longer}, GROUPS, 1)
    assert measured.facts["cut"] == 1
    assert measured.describe().endswith("on cpu: 1 of 7 different texts are cut at 64 tokens.")


def test_rows_of_one_group_have_no_floor(name, replies):
    measured = measure_meaning(name, replies, ["g"] * 6, 1)
    assert measured.floors == {}
    assert measured.sums


def test_no_encoder_measures_nothing(replies, monkeypatch):
    monkeypatch.setattr(module, "load_encoder", lambda *_: pytest.fail("an encoder was loaded"))
    assert measure_meaning("", replies, GROUPS, 1) == Meaning()
    assert "not asked for" in Meaning().describe()


def test_plain_texts_are_skipped(name):
    measured = measure_meaning(name, {"base": [], "tuned": []}, ["a", "b"], 1)
    assert measured.describe() == "Similarity of meaning is skipped: plain texts have no replies."


def test_an_encoder_that_is_not_cached_is_skipped_offline(replies):
    measured = measure_meaning("nobody/no-such-encoder", replies, GROUPS, 1)
    assert (measured.sums, measured.floors) == ({}, {})
    assert measured.facts["encoder"] == "nobody/no-such-encoder"
    assert "LocalEntryNotFoundError" in measured.facts["skipped"]


def test_a_model_that_is_no_encoder_is_skipped(base, replies):
    assert "is a language model" in measure_meaning(str(base), replies, GROUPS, 1).facts["skipped"]


def test_a_reason_shows_no_secret(replies, monkeypatch):
    token = "hf" + "_" + "a1" * 17

    def fail(*_):
        raise RuntimeError(f"401 for {token}")

    monkeypatch.setattr(module, "load_encoder", fail)
    skipped = measure_meaning("owner/gated", replies, GROUPS, 1).facts["skipped"]
    assert skipped.startswith("RuntimeError: 401 for ")
    assert token not in skipped
