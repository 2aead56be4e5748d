"""The learned detector: its table belongs to its sentences, every part of a message is read, and it is fast."""

import time

import numpy
import pytest
import train_detector

from helpers.language import detector
from helpers.language.care import detect_crisis
from helpers.language.crisis_features import sentence_features

CRISIS = "আমি মরতে চাই"  # I want to die
HARMLESS = "আজ বিকেলে বাজারে গিয়ে মাছ কিনলাম"  # I bought fish at the market


@pytest.fixture(scope="module")
def examples():
    return train_detector.Examples(train_detector.read_sentences())


def test_the_weights_belong_to_the_training_sentences(examples):
    own = train_detector.fingerprint(examples.matrix, examples.labels)
    assert own == train_detector.stored_fingerprint(), "run python tools/train_detector.py"


def test_training_again_gives_the_same_weights(examples):
    weights, _ = examples.fit(numpy.arange(len(examples.labels)))
    assert abs(weights - detector.weights()[0]).max() <= numpy.abs(weights).max() / 127


def test_no_training_sentence_is_on_an_unseen_list():
    from crisis_lists import LISTS, read_unseen

    unseen = {row["text"].strip() for numbers in LISTS.values() for row in read_unseen(numbers)}
    shared = unseen & set(train_detector.read_sentences().text)
    assert len(shared) <= len(unseen) // 100, "the lists say nothing about sentences that were learned"


def test_the_table_fits_into_a_space():
    assert train_detector.WEIGHTS.stat().st_size < 200 * 1024


def test_a_message_takes_under_five_milliseconds():
    messages = [f"{CRISIS}, {word} আর পারছি না" for word in "কখগঘঙচছজঝঞ"]
    began = time.process_time()
    for message in messages:
        detect_crisis(message)
    assert (time.process_time() - began) / len(messages) < 0.005


@pytest.mark.parametrize("place", [0, 10, 30])
@pytest.mark.parametrize("end", ["। ", "\n", "? "])
def test_a_sentence_in_a_long_message_is_detected(place, end):
    sentences = [HARMLESS] * 30
    sentences.insert(place, CRISIS)
    assert detect_crisis(end.join(sentences))


def test_a_message_without_stops_is_read_in_parts():
    plain = f"আমি আর বাঁচতে চাই না {CRISIS}"  # I do not want to live any more, I want to die
    assert detect_crisis(" ".join([HARMLESS] * 20 + [plain] + [HARMLESS] * 20))
    longest = max(len(part.split()) for part in detector.windows(" ".join([HARMLESS] * 40)))
    assert longest <= 2 * detector.WINDOW_WORDS


@pytest.mark.parametrize("message", ["", " ", "।", "🙂", "\u200d"])
def test_a_message_without_words_is_no_crisis(message):
    assert detect_crisis(message) == ""


def test_both_scripts_have_the_same_features():
    assert sentence_features("মরতে চাইনা") == sentence_features("morte chai na")
