"""Times what 01_prepare_data does on twins of the corpus of its size, and on one ten times as long.

PYTHONPATH=src:tests/support python tests/benchmarks/corpus_speed.py [--tokenizer FOLDER] [ROWS …]

The tokenizer is the embedded model's, or one in a folder, such as that of a Llama.
"""

import argparse
import resource
import subprocess
import sys
import time

import corpus_twin

from helpers.data.clean import clean_table
from helpers.data.group import link_rows
from helpers.data.leaks import count_overlap, find_leaks
from helpers.data.load import load_table
from helpers.data.rows import make_parts
from helpers.data.split import split_corpus, split_groups
from helpers.models.chat import encode_rows
from helpers.models.embedded import build_tokenizer
from helpers.models.loading import load_tokenizer

ROWS = [38_233, 382_330]
FILES = {
    "as published": {},
    "110 distinct words": {"vocabulary": 110},
    "a third near-duplicates of three": {"retold": 0.6, "openings": 3},
}


def measure(rows: int, file: str, folder: str) -> None:
    """Prints one line of the table for a file of that many rows; run in a process of its own for the peak memory."""
    table = corpus_twin.make(rows, **FILES[file]).table()
    tokenizer = load_tokenizer(folder) if folder else build_tokenizer(list(load_table("embedded")[0].answer))
    marks, cpu = [time.perf_counter()], time.process_time()
    corpus = clean_table(table)
    marks.append(time.perf_counter())
    corpus = split_corpus(corpus, link_rows(corpus.kept, 0.8), (0.8, 0.1), 0)
    marks.append(time.perf_counter())
    splits = {"": corpus.kept.part, "row by row": split_groups(list(corpus.kept.id), 0.8, 0.1, 0)}
    leaks = find_leaks(corpus.kept, corpus.dropped, splits, 0.8, corpus.order.longest)
    marks.append(time.perf_counter())
    parts = make_parts(corpus.kept, "You are a sympathetic and helpful assistant.", "twin")
    tokens = sum(len(example["input_ids"]) for part in parts.values() for example in encode_rows(tokenizer, part))
    overlap = count_overlap(parts)
    marks.append(time.perf_counter())
    steps = [f"{end - start:.1f}" for start, end in zip(marks, marks[1:])]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cells = [f"{rows:,}", file, *steps, f"{marks[-1] - marks[0]:.1f}", f"{time.process_time() - cpu:.1f}"]
    cells += [f"{tokens:,}", str(overlap + leaks[""].leaked), f"{memory:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints the table, each file measured in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=ROWS)
    parser.add_argument("--tokenizer", default="", help="a folder")
    parser.add_argument("--file", choices=FILES, default="", help="measure this one in this process")
    options = parser.parse_args()
    if options.file:
        return measure(options.rows[0], options.file, options.tokenizer)
    steps = ["clean, s", "groups and split, s", "check, s", "tokens, s", "all, s", "CPU, s"]
    heads = ["rows", "file", *steps, "tokens", "leaked", "peak GiB"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for rows in options.rows:
        for file in FILES:
            command = [sys.executable, __file__, str(rows), "--file", file, "--tokenizer", options.tokenizer]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
