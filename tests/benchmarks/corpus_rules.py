"""Counts what the rules of 01_prepare_data do to twins of the corpus, whose every row is known.

PYTHONPATH=src:tests/support python tests/benchmarks/corpus_rules.py [ROWS]    prints the tables of docs/data.md
PYTHONPATH=src:tests/support python tests/benchmarks/corpus_rules.py --write   writes them there (20,000 rows)
"""

import re
import sys
from pathlib import Path
from typing import Any

import corpus_twin
import pandas

from helpers.data.clean import Corpus, clean_table
from helpers.data.dialogues import number_conversations
from helpers.data.group import Pairs, link_rows
from helpers.data.leaks import find_leaks
from helpers.data.split import split_corpus, split_groups
from helpers.reporting.tables import markdown_table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
ROWS, SEEDS, SHARES, NEAR = 20_000, (1, 2, 3), (0.8, 0.1), 0.8


def prepare(twin: corpus_twin.Twin, seed: int) -> tuple[Corpus, dict[str, Pairs]]:
    """Returns a twin cleaned, grouped and split, and its links."""
    corpus = clean_table(twin.table())
    links = link_rows(corpus.kept, NEAR)
    return split_corpus(corpus, links, SHARES, seed), links


def count_rules(prepared: list[tuple[corpus_twin.Twin, Corpus, Any]]) -> list[dict[str, Any]]:
    """Returns a row per rule: how many were planted, caught, missed and taken in error in all twins together."""
    counts = sum(
        pandas.concat([corpus_twin.count_repairs(twin, corpus), corpus_twin.count_fates(twin, corpus)])
        for twin, corpus, _ in prepared
    )
    return [
        {
            "rule": rule,
            "planted": f"{row.planted:,}",
            "caught": f"{row.caught:,}",
            "missed": f"{row.missed:,}",
            "of these in a form that it does not know": f"{row.hard:,}",
            "recall": f"{row.caught / row.planted:.1%}",
            "taken in error": f"{row['in error']:,}",
        }
        for rule, row in counts.iterrows()
    ]


def describe_case(
    name: str, twin: corpus_twin.Twin, corpus: Corpus, links: dict[str, Pairs], seed: int
) -> dict[str, Any]:
    """Returns one row of the table of cases."""
    kept, dropped = corpus.kept, corpus.dropped
    sound = twin.truth.fate == corpus_twin.KEPT
    lost = sound[dropped.number].to_numpy() & (dropped.rule != "exact duplicate").to_numpy()
    swapped = twin.truth.fate == "roles swapped"
    splits = {"by group": kept.part, "by row": split_groups(list(kept.id), *SHARES, seed)}
    leaks = find_leaks(kept, dropped, splits, NEAR, corpus.order.longest)
    dialogues, parted = corpus_twin.count_split_dialogues(twin, kept, kept.part)
    openings = frozenset(row_id for pair in links["near-duplicate question"] for row_id in pair)
    joined = twin.truth.loc[kept.number].groupby(number_conversations(kept, openings).to_numpy()).dialogue
    conversations = joined.agg(["size", "nunique"]).query("size > 1")
    return {
        "file": name,
        "sound rows lost": f"{lost.sum():,} ({lost.sum() / sound.sum():.2%})",
        "swapped rows kept": f"{swapped[kept.number].sum():,} of {swapped.sum():,}",
        "dialogues in two parts": f"{parted:,} of {dialogues:,}",
        "leak": f"{leaks['by group'].share:.1%}",
        "leak, row by row": f"{leaks['by row'].share:.1%}",
        "largest group": f"{kept.group.value_counts().max():,}",
        "conversations, false ones": f"{len(conversations):,}, {(conversations['nunique'] > 1).sum():,}",
    }


def make_tables(rows: int) -> str:
    """Returns both tables as Markdown."""
    twins = [corpus_twin.make(rows, seed) for seed in SEEDS]
    prepared = [(twin, *prepare(twin, seed)) for twin, seed in zip(twins, SEEDS)]
    cases = [describe_case(f"as published, seed {seed}", *case, seed) for case, seed in zip(prepared, SEEDS)]
    first = twins[0]
    others = {
        "without titles": first.change(**{"Question-Title": ""}),
        "sorted by topic": first.sort_by_topic(),
        "sorted by topic, without titles": first.sort_by_topic().change(**{"Question-Title": ""}),
        "shuffled": first.shuffle(),
        "of one topic": first.change(Topics="শোক"),
        "of dialogues of 13 rows": corpus_twin.make(rows, 1, turns=13),
        "of 110 distinct words": corpus_twin.make(rows, 1, vocabulary=110),
        "half of whose dialogues tell three openings": corpus_twin.make(rows, 1, retold=0.5, openings=3),
    }
    cases += [describe_case(name, twin, *prepare(twin, 1), 1) for name, twin in others.items()]
    return "\n\n".join(markdown_table(table) for table in (count_rules(prepared), cases))


def main() -> None:
    """Prints the tables, or writes them into docs/data.md."""
    if sys.argv[1:] == ["--write"]:
        page = DOCS.read_text(encoding="utf-8")
        block = re.compile(r"(<!-- corpus_rules -->\n).*(<!-- end -->)", re.DOTALL)
        DOCS.write_text(
            block.sub(lambda match: f"{match[1]}\n{make_tables(ROWS)}\n\n{match[2]}", page), encoding="utf-8"
        )
    else:
        print(make_tables(int(sys.argv[1]) if sys.argv[1:] else ROWS))


if __name__ == "__main__":
    main()
