"""Times what 01_prepare_data does on a planted file of the corpus's size, and on one ten times as long.

PYTHONPATH=src:tests python tests/benchmarks/corpus_speed.py [ROWS …]
"""

import resource
import subprocess
import sys
import time

import planted

from helpers import chat, corpus, tiny

ROWS = [38_233, 382_330]


def measure(rows: int) -> None:
    """Prints one line of the table for a file of that many rows; run in a process of its own for the peak memory."""
    raw, planted_rows, _ = planted.make(rows)
    tokenizer = tiny.build_tokenizer(list(corpus.load("embedded")[0].answer))
    table, _ = corpus.as_rows(raw, "auto", "planted")
    marks = [time.perf_counter()]
    table["number"] = range(len(table))
    kept, dropped, _ = corpus.clean(table)
    marks.append(time.perf_counter())
    pairs = [pair for found in corpus.links(kept, 0.8).values() for pair in found]
    marks.append(time.perf_counter())
    kept["group"], kept["part"] = corpus.divide(kept, pairs, (0.8, 0.1), 0, 0.8)
    marks.append(time.perf_counter())
    data = [
        row for part in ("train", "val", "test") for row in corpus.data_rows(kept[kept.part == part], "", "planted")
    ]
    tokens = sum(len(chat.encode(tokenizer, row)["input_ids"]) for row in data)
    marks.append(time.perf_counter())
    wanted = {number: rule for rule in corpus.DROPS for number in planted_rows[rule]}
    wrong = sum(wanted.get(number) != rule for number, rule in zip(dropped.number, dropped.rule))
    wrong += len(set(wanted) - set(dropped.number))
    steps = [f"{b - a:.1f}" for a, b in zip(marks, marks[1:])]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cells = [f"{len(raw):,}", *steps, f"{marks[-1] - marks[0]:.1f}", f"{tokens:,}", str(wrong), f"{memory:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints the table, each size measured in its own process."""
    if sys.argv[1:2] == ["--one"]:
        return measure(int(sys.argv[2]))
    print("| rows | clean, s | near-duplicates, s | groups, split, check, s | tokens, s | all, s | tokens | "
          "rows misjudged | peak GiB |\n" + "|---" * 9 + "|", flush=True)  # fmt: skip
    for rows in map(int, sys.argv[1:] or ROWS):
        subprocess.run([sys.executable, __file__, "--one", str(rows)], check=True)


if __name__ == "__main__":
    main()
