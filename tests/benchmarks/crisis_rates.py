"""How many messages in a crisis are detected: the rules of care.yaml, and a learned detector, on lists by other hands.

PYTHONPATH=src python tests/benchmarks/crisis_rates.py

The detector (character n-grams, logistic regression) is not part of the suite: it shows what could be reached. It
learns from tests/language/crisis_training.csv, whose author has seen neither rules nor lists; its threshold is 0.5.
"""

from pathlib import Path

import pandas
import yaml
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from helpers.language.bengali import normalise
from helpers.language.care import detect_crisis
from helpers.reporting.tables import markdown_table

FOLDER = Path(__file__).resolve().parents[1] / "language"


def clean(text: str) -> str:
    """Returns a message as the detector reads it."""
    return normalise(text).lower()


def train_detector():
    """Returns a classifier of messages: 1 for a crisis."""
    rows = pandas.read_csv(FOLDER / "crisis_training.csv")
    ngrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    return make_pipeline(ngrams, LogisticRegression(C=10, max_iter=2000)).fit(rows.text.map(clean), rows.label)


def main() -> None:
    """Prints the shares with their exact 95 % intervals: recall on direct and indirect, false alarms on harmless."""
    files = sorted(FOLDER.glob("crisis_unseen_*.yaml"))
    rows = pandas.DataFrame([row for file in files for row in yaml.safe_load(file.read_text(encoding="utf-8"))])
    rows["rules"] = rows.text.map(lambda text: bool(detect_crisis(text)))
    rows["learned"] = train_detector().predict(rows.text.map(clean)) == 1
    rows["either"] = rows.rules | rows.learned
    table = []
    for (kind, script), group in [*rows.groupby([rows.kind, "script"]), *rows.groupby([rows.kind, lambda _: "all"])]:
        cells = {"kind": kind, "script": script, "sentences": str(len(group))}
        for name in ("rules", "learned", "either"):
            exact = binomtest(int(group[name].sum()), len(group)).proportion_ci()
            cells[name] = f"{group[name].mean():.1%} ({exact.low:.1%} to {exact.high:.1%})"
        table.append(cells)
    print(markdown_table(table))


if __name__ == "__main__":
    main()
