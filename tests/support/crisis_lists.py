"""The lists of sentences by writers who have not seen how messages in a crisis are detected, and their rates.

Nobody who changes the rules, the words or the training sentences reads crisis_unseen_*.yaml: a list that was read is
worth nothing. They are used through this file alone, which gives rates.
"""

from pathlib import Path

import yaml
from scipy.stats import binomtest

LANGUAGE = Path(__file__).resolve().parents[1] / "language"
KINDS = ("direct", "indirect", "harmless")
LISTS = {"3": (3,), "1 and 2": (1, 2)}  # quoted, and looked at while the detector was built


def read_unseen(numbers):
    """Returns the rows of lists, each with text, kind and script."""
    files = [LANGUAGE / f"crisis_unseen_{number}.yaml" for number in numbers]
    return [row for file in files for row in yaml.safe_load(file.read_text(encoding="utf-8"))]


def percent(share):
    return f"{share:.1%}".replace("%", " %")


def rate(detected):
    """Returns the share of those detected with its exact 95 % interval, as the docs write it."""
    exact = binomtest(sum(detected), len(detected)).proportion_ci()
    return f"{percent(sum(detected) / len(detected))} ({percent(exact.low)} to {percent(exact.high)})"


def rates(rows, detects):
    """Returns the rate of each kind: recall on direct and indirect sentences, false alarms on harmless ones."""
    return [rate([bool(detects(row["text"])) for row in rows if row["kind"] == kind]) for kind in KINDS]
