"""Times what 01_prepare_data does on twins of the corpus of its size, and on one ten times as long.

PYTHONPATH=src:tests/support python tests/benchmarks/corpus_speed.py [--tokenizer FOLDER|llama3] [--notebook] [ROWS …]

The tokenizer is the embedded model's, one in a folder, or Llama 3's own (pip downloads its vocabulary). `--notebook`
runs the whole notebook by `python -m helpers run --stages prepare_data`, from start to end.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus_twin
import llama3

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


def measure_notebook(rows: int, file: str, folder: str) -> None:
    """Prints one line of the table of whole notebooks."""
    with tempfile.TemporaryDirectory() as work:
        corpus_twin.make(rows, **FILES[file]).raw.to_csv(f"{work}/corpus.csv", index=False)
        command = [sys.executable, "-m", "helpers", "run", "--preset", "kaggle-t4x2", "--stages", "prepare_data"]
        command += ["--outputs", f"{work}/outputs", "--set", f"prepare_data.dataset={work}/corpus.csv"]
        command += ["--set", f"shared.base_model={folder}"] if folder else []
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"| {rows:,} | {file} | {seconds:.1f} | {used.ru_utime + used.ru_stime:.1f} |", flush=True)


def main() -> None:
    """Prints the table, each file measured in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, default=ROWS)
    parser.add_argument("--tokenizer", default="", help="a folder, or llama3")
    parser.add_argument("--notebook", action="store_true", help="the whole notebook")
    parser.add_argument("--file", choices=FILES, default="", help="measure this one in this process")
    options = parser.parse_args()
    if options.file:
        work = measure_notebook if options.notebook else measure
        return work(options.rows[0], options.file, options.tokenizer)
    steps = ["clean, s", "groups and split, s", "check, s", "tokens, s", "all, s", "CPU, s"]
    heads = ["rows", "file", *steps, "tokens", "leaked", "peak GiB"]
    heads = ["rows", "file", "all, s", "CPU, s"] if options.notebook else heads
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        if options.tokenizer == "llama3":
            options.tokenizer = work
            llama3.build_tokenizer(Path(work)).save_pretrained(work)
        for rows in options.rows:
            for file in FILES:
                command = [sys.executable, __file__, str(rows), "--file", file, "--tokenizer", options.tokenizer]
                subprocess.run(command + ["--notebook"] * options.notebook, check=True)


if __name__ == "__main__":
    main()
