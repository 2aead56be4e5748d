"""The learned detector of messages in a crisis: a linear score over features, from a table of weights.

tools/train_detector.py writes the table, detector.npz, from tests/language/crisis_training.csv. A feature's place in it
is a hash of its text, so that the table has a fixed size and running it needs numpy alone.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy
import regex

from helpers.language.crisis_features import sentence_features

BITS = 17  # of a place in the table
# How much a kind of feature counts before anything is learned, chosen by cross-validation
SHARES = {
    "letters": 1.0,
    "skeleton": 1.0,
    "across": 1.0,
    "words": 1.0,
    "topics": 0.5,
    "word and topic": 1.0,
    "rules": 0.25,
}
WINDOW_WORDS = 16  # a longer sentence is read in parts of so many words, each from the middle of the one before
_ENDS = regex.compile(r"(?<=[।॥?!\n;])|(?<=\.)(?=\s)")


@cache
def weights() -> tuple[numpy.ndarray, float]:
    """Returns (the weight of every place, what is added to a score so that 0 parts a crisis from the rest)."""
    with numpy.load(Path(__file__).with_suffix(".npz")) as stored:
        return stored["weights"].astype(numpy.float32) * stored["unit"], float(stored["offset"])


def places_and_values(sentence: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Returns (places in the table, values) of a sentence's features: of each kind, a vector of length SHARES."""
    places: list[int] = []
    values: list[float] = []
    for kind, features in sentence_features(sentence).items():
        own = sorted({zlib.crc32(f"{kind}|{feature}".encode()) >> (32 - BITS) for feature in features})
        places += own
        values += [SHARES[kind] / max(1, len(own)) ** 0.5] * len(own)
    return numpy.array(places, dtype=numpy.int64), numpy.array(values, dtype=numpy.float32)


def windows(message: str) -> Iterator[str]:
    """Yields the parts of a message that are scored: each sentence, each with the next, a long one in parts."""
    sentences = [sentence.strip() for sentence in _ENDS.split(message)]
    sentences = [part for sentence in sentences if sentence for part in _parts(sentence)]
    yield from sentences
    yield from (f"{sentence} {following}" for sentence, following in zip(sentences, sentences[1:]))


def _parts(sentence: str) -> Iterator[str]:
    words = sentence.split()
    for start in range(0, max(1, len(words) - WINDOW_WORDS // 2), WINDOW_WORDS // 2):
        yield " ".join(words[start : start + WINDOW_WORDS])


def score(sentence: str) -> float:
    """Returns how much a sentence speaks of a crisis: above 0, and the detector says that it does."""
    table, offset = weights()
    places, values = places_and_values(sentence)
    return float(table[places] @ values) + offset
