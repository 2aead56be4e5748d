"""Trains the detector of messages in a crisis, and writes its weights.

python tools/train_detector.py              cross-validates, trains, and writes src/helpers/language/detector.npz
python tools/train_detector.py --check      says whether the weights belong to the sentences and features, exit 1 if not

The sentences, tests/language/crisis_training.csv, are written for this project, the embedded corpus's questions among
them. The threshold is chosen by cross-validation, in groups of sentences that are spelled alike: FALSE_ALARMS of the
harmless ones bring up the helplines.
"""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pandas
from scipy import sparse
from sklearn.model_selection import GroupKFold
from sklearn.svm import LinearSVC

from helpers.language.detector import BITS, places_and_values, windows
from helpers.language.folding import fold

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = ROOT / "tests/language/crisis_training.csv"
WEIGHTS = ROOT / "src/helpers/language/detector.npz"
C = 3.0  # of the linear support vector machine
RARE = 2  # a feature of fewer sentences is not learned
FALSE_ALARMS = 0.12  # on the training sentences, whose harmless ones are written to be hard
FOLDS, ALIKE = 5, 0.5  # sentences that share half of their runs of four letters are one group


def read_sentences() -> pandas.DataFrame:
    """Returns the training sentences: text, label (1 for a crisis), writer."""
    return pandas.read_csv(SENTENCES)


def feature_matrix(texts: list[str]) -> sparse.csr_matrix:
    """Returns the features (sentences, places) of sentences."""
    rows = [places_and_values(text) for text in texts]
    ends = numpy.cumsum([0, *(len(places) for places, _ in rows)])
    places, values = (numpy.concatenate(parts) for parts in zip(*rows))
    return sparse.csr_matrix((values, places, ends), shape=(len(texts), 1 << BITS))


class Examples:
    """What is learned from, and what is scored, of the training sentences.

    A message's score is that of its highest window. All windows of a harmless one are harmless, and each is learned
    from; one in a crisis is learned from as a whole, for nobody has said which of its sentences speaks of it.
    """

    def __init__(self, table: pandas.DataFrame) -> None:
        self.labels = table.label.to_numpy()
        rows = []  # (message, its window or the whole of it, learned from, scored)
        for place, (text, label) in enumerate(zip(table.text, self.labels)):
            parts = list(windows(text))
            whole = bool(label) and len(parts) > 1
            rows += [(place, part, not whole, True) for part in parts] + [(place, text, True, False)] * whole
        self.owner, self.learned, self.scored = (numpy.array([row[place] for row in rows]) for place in (0, 2, 3))
        self.matrix = feature_matrix([row[1] for row in rows])

    def fit(self, messages: numpy.ndarray) -> tuple[numpy.ndarray, float]:
        """Returns `fit` of some messages, given by their places."""
        rows = numpy.flatnonzero(self.learned & numpy.isin(self.owner, messages))
        return fit(self.matrix[rows], self.labels[self.owner[rows]])

    def scores(self, weights: numpy.ndarray, intercept: float) -> numpy.ndarray:
        """Returns the score of every message."""
        best = numpy.full(len(self.labels), -numpy.inf)
        scores = self.matrix @ weights + intercept
        numpy.maximum.at(best, self.owner[self.scored], scores[self.scored])
        return best

    def cross_validate(self, groups: numpy.ndarray) -> numpy.ndarray:
        """Returns each message's score by a model that has seen none of its group."""
        scores = numpy.zeros(len(self.labels))
        for train, test in GroupKFold(FOLDS, shuffle=True, random_state=0).split(self.labels, groups=groups):
            scores[test] = self.scores(*self.fit(train))[test]
        return scores


def fingerprint(matrix: sparse.csr_matrix, labels: numpy.ndarray) -> str:
    """Returns a hash of what is learned from: the features and the labels."""
    content = (matrix.indices.astype("<i4"), matrix.data.astype("<f4").round(4), labels.astype("<i4"))
    return hashlib.sha256(b"".join(part.tobytes() for part in content)).hexdigest()


def group_alike(texts: list[str]) -> numpy.ndarray:
    """Returns a group number per sentence: those spelled alike have the same, through others too."""
    runs = [sorted({key[i : i + 4] for i in range(max(1, len(key) - 3))}) for key in map(fold, texts)]
    holders: dict[str, list[int]] = {}
    group = list(range(len(texts)))

    def first(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    for place, own in enumerate(runs):
        for other, shared in Counter(other for run in own for other in holders.get(run, ())).items():
            if shared >= ALIKE * (len(own) + len(runs[other]) - shared):
                group[first(place)] = first(other)
        for run in own:
            holders.setdefault(run, []).append(place)
    return numpy.array([first(place) for place in range(len(texts))])


def fit(matrix: sparse.csr_matrix, labels: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    """Returns (the weights of features as they are, the intercept).

    Learns from features scaled by how rare they are; the scale then goes into the weights.
    """
    present: Any = matrix > 0
    counts = numpy.asarray(present.sum(axis=0)).ravel()
    scale = numpy.where(counts >= RARE, numpy.log((len(labels) + 1) / (counts + 1)) ** 0.5, 0)
    scaled = sparse.csr_matrix(matrix.multiply(scale))
    unit = numpy.sqrt(scaled.multiply(scaled).sum(axis=1).mean())  # so that C means the same for any features
    model = LinearSVC(C=C, max_iter=5000, random_state=0).fit(scaled / unit, labels)
    return model.coef_.ravel() * scale / unit, float(numpy.ravel(model.intercept_)[0])


def stored_fingerprint() -> str:
    """Returns the fingerprint of what the stored weights were learned from."""
    with numpy.load(WEIGHTS) as stored:
        return str(stored["fingerprint"])


def report_rates(table: pandas.DataFrame, labels: numpy.ndarray, scores: numpy.ndarray) -> float:
    """Returns the threshold, and prints the cross-validated rates at it: of all sentences, and by who wrote them."""
    threshold = float(numpy.quantile(scores[labels == 0], 1 - FALSE_ALARMS))
    for writer in ("all", *table.writer.unique()):
        alarms = [
            scores[(labels == label) & ((table.writer == writer) | (writer == "all"))] > threshold for label in (1, 0)
        ]
        print(f"{writer}: " + ", ".join(f"{alarm.mean():.3f} of {len(alarm)}" for alarm in alarms if len(alarm)))
    return threshold


def main() -> int:
    """Trains and writes, or checks; prints the cross-validated rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    table = read_sentences()
    examples = Examples(table)
    own = fingerprint(examples.matrix, examples.labels)
    if check:
        same = own == stored_fingerprint()
        print("the weights belong to the sentences" if same else "run python tools/train_detector.py: they differ")
        return int(not same)
    threshold = report_rates(table, examples.labels, examples.cross_validate(group_alike(list(table.text))))
    weights, intercept = examples.fit(numpy.arange(len(table)))
    unit = numpy.abs(weights).max() / 127
    numpy.savez_compressed(
        WEIGHTS,
        weights=numpy.round(weights / unit).astype(numpy.int8),
        unit=numpy.float32(unit),
        offset=numpy.float32(intercept - threshold),
        fingerprint=own,
    )
    print(f"{WEIGHTS.relative_to(ROOT)}: {WEIGHTS.stat().st_size / 1024:.0f} KiB, threshold {threshold:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
