"""Times what 01_prepare_data does on a planted file of the corpus's size, and on one ten times as long.

PYTHONPATH=src:tests python tests/benchmarks/corpus_speed.py [ROWS …]
"""

import resource
import subprocess
import sys
import time

import planted

from helpers.data.clean import DROPS, clean_table
from helpers.data.group import link_rows
from helpers.data.load import load_table, unify_columns
from helpers.data.rows import make_parts
from helpers.data.split import split_corpus
from helpers.models.chat import encode_row
from helpers.models.embedded import build_tokenizer

ROWS = [38_233, 382_330]


def measure(rows: int) -> None:
    """Prints one line of the table for a file of that many rows; run in a process of its own for the peak memory."""
    raw, defects, _ = planted.make(rows)
    tokenizer = build_tokenizer(list(load_table("embedded")[0].answer))
    table = unify_columns(raw, "auto", "planted")[0].assign(number=range(len(raw)))
    marks = [time.perf_counter()]
    corpus = clean_table(table)
    marks.append(time.perf_counter())
    links = link_rows(corpus.kept, 0.8)
    marks.append(time.perf_counter())
    corpus, _ = split_corpus(corpus, links, (0.8, 0.1), 0, 0.8)
    marks.append(time.perf_counter())
    parts = make_parts(corpus.kept, "", "planted")
    tokens = sum(len(encode_row(tokenizer, row)["input_ids"]) for part in parts.values() for row in part)
    marks.append(time.perf_counter())
    wanted = {number: rule for rule in DROPS for number in defects[rule]}
    dropped = dict(zip(corpus.dropped.number, corpus.dropped.rule))
    misjudged = sum(wanted.get(number) != dropped.get(number) for number in {*wanted, *dropped})
    steps = [f"{end - start:.1f}" for start, end in zip(marks, marks[1:])]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cells = [f"{len(raw):,}", *steps, f"{marks[-1] - marks[0]:.1f}", f"{tokens:,}", str(misjudged), f"{memory:.2f}"]
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
