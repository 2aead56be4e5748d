"""How many messages in a crisis are detected, on lists by other hands: the rules of care.yaml alone, and the detector.

PYTHONPATH=src:tests/support python tests/benchmarks/crisis_rates.py [LIST …]

By kind and script, with exact 95 % intervals; without LIST (1, 2, 3) all lists. Prints rates and no sentence.
"""

import sys
import time

import pandas
from crisis_lists import rate, read_unseen

from helpers.language.care import detect_crisis
from helpers.language.crisis_features import matched_rules
from helpers.language.detector import windows
from helpers.reporting.tables import markdown_table


def rules_alone(text: str) -> bool:
    """Returns whether a rule of care.yaml matches, in the folded spelling, and no exception of its group."""
    return any(matched_rules(part)[1] for part in windows(text))


def main() -> None:
    """Prints the table, and the time per message."""
    rows = pandas.DataFrame(read_unseen(map(int, sys.argv[1:] or ("1", "2", "3"))))
    began = time.process_time()
    rows["detector"] = rows.text.map(lambda text: bool(detect_crisis(text)))
    milliseconds = 1000 * (time.process_time() - began) / len(rows)
    rows["rules alone"] = rows.text.map(rules_alone)
    rows["either"] = rows.detector | rows["rules alone"]
    table = []
    for (kind, script), group in [*rows.groupby([rows.kind, "script"]), *rows.groupby([rows.kind, lambda _: "all"])]:
        cells = {"kind": kind, "script": script, "sentences": str(len(group))}
        table.append(cells | {name: rate(list(group[name])) for name in ("rules alone", "detector", "either")})
    print(markdown_table(table))
    print(f"{milliseconds:.1f} ms per message of {rows.text.str.len().mean():.0f} characters")


if __name__ == "__main__":
    main()
