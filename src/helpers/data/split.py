"""Train, val and test by whole groups, and the independent check that nothing stands on two sides."""

import itertools
import math
from collections import Counter, defaultdict
from statistics import fmean

import pandas

from helpers.data.clean import Corpus
from helpers.data.group import NEAR_WORDS, Pairs, group_rows, jaccard, pair_equal, word_sets
from helpers.data.sampling import shuffle_key
from helpers.language.bengali import split_words

PARTS = ("train", "val", "test")
SHARED = 2  # rare words that two near-duplicates are known to share: see `_join_similar`


def split_corpus(
    corpus: Corpus, links: dict[str, Pairs], shares: tuple[float, float], seed: int, near_duplicate: float
) -> tuple[Corpus, dict[str, float]]:
    """Gives the kept rows `group` and `part`; returns the corpus and the `leak` of this split and of one row by row.

    `links` come from `link_rows`, `shares` (0 to 1) are train's and val's. A data set that brings its own split keeps
    it, but for rows whose question (or plain text) stands, word for word, in an earlier part: those are dropped.
    """
    kept = corpus.kept
    if (kept.published != "").all():
        kept = kept.sort_values("published", key=lambda parts: parts.map(PARTS.index))
        texts = kept.question.where(kept.question != "", kept.answer).map(split_words).map(tuple)
        repeated = kept.groupby(texts).published.transform("first") != kept.published
        corpus = corpus.drop("in an earlier part too", kept.id[repeated])
        group, part = group_rows(corpus.kept, links), list(corpus.kept.published)
    else:
        group, part = group_and_split(kept, links, shares, seed, near_duplicate)
    by_row = split_groups(list(corpus.kept.id), *shares, seed)
    leaks = {"leak": measure_leak(group, part), "row_wise_leak": measure_leak(group, by_row)}
    return corpus._replace(kept=corpus.kept.assign(group=group, part=part)), leaks


def split_groups(group_of_row: list[str], train_share: float, val_share: float, seed: int) -> list[str]:
    """Returns "train", "val" or "test" for each row: whole groups in seeded order, each to the part that lacks most.

    Raises ValueError for shares that leave a part without rows.
    """
    shares = {"train": train_share, "val": val_share, "test": 1 - train_share - val_share}
    if min(shares.values()) <= 1e-9:
        message = f"train_share {train_share} and val_share {val_share} leave no test part: their sum must be < 1."
        raise ValueError(message)
    sizes = Counter(group_of_row)
    if len(sizes) < 3:
        raise ValueError(f"{len(group_of_row)} rows form {len(sizes)} groups: train, val and test need at least 3.")
    order = sorted(sizes, key=lambda group: shuffle_key(seed, group))
    parts = dict(zip(order, shares))  # one group each, so that no part is empty
    filled = Counter({part: sizes[group] for group, part in parts.items()})
    for group in order[len(shares) :]:
        parts[group] = max(shares, key=lambda part: shares[part] * len(group_of_row) - filled[part])
        filled[parts[group]] += sizes[group]
    return [parts[group] for group in group_of_row]


def group_and_split(
    table: pandas.DataFrame, links: dict[str, Pairs], shares: tuple[float, float], seed: int, near_duplicate: float
) -> tuple[list[str], list[str]]:
    """Groups and splits until the independent check finds nothing across: returns (group, part) of each row.

    LSH misses a pair now and then; `find_crossing_pairs` does not, so a pair that it finds is joined and the split made
    again. `links` come from `link_rows`, `shares` are train's and val's.
    """
    missed: Pairs = []
    while True:
        group = group_rows(table, {**links, "missed": missed})
        part = split_groups(group, *shares, seed)
        crossing = find_crossing_pairs(table, part, near_duplicate)
        if not crossing:
            return group, part
        missed += crossing


def measure_leak(group: list[str], part: list[str]) -> float:
    """Returns the share of held-out rows that have a row of their group in train; 0 for a split by group."""
    trained = {g for g, p in zip(group, part) if p == "train"}
    return fmean(g in trained for g, p in zip(group, part) if p != "train")


def find_crossing_pairs(table: pandas.DataFrame, part: list[str], near_duplicate: float) -> Pairs:
    """Returns pairs of ids in different parts that have the same question or near-duplicate questions or answers.

    Its join is another one than that of `link_rows`: exact, nothing is sampled.
    """
    pairs = pair_equal([tuple(split_words(question)) if question else None for question in table.question], table.id)
    for side in NEAR_WORDS if near_duplicate else []:
        sets = word_sets(table, side)
        pairs += pair_equal(sets, table.id) + _join_similar(dict(zip(sets, table.id)), near_duplicate)
    part_of = dict(zip(table.id, part))
    return [(a, b) for a, b in pairs if part_of[a] != part_of[b]]


def _join_similar(id_of: dict[frozenset[str] | None, str], threshold: float) -> Pairs:
    """Returns pairs of ids whose word sets differ, with a Jaccard similarity of at least the threshold.

    Two sets that share at least t·n of the larger one's n words share SHARED words among the n − ⌈t·n⌉ + SHARED rarest
    of each (prefix filtering, Wang et al. 2012), so only sets with such words in common are compared. Hand-written,
    because the libraries' joins either sample (datasketch) or compare everything with everything (scikit-learn).
    """
    pairs = []
    sets = sorted(filter(None, id_of), key=len)
    frequency = Counter(itertools.chain.from_iterable(sets))
    index = defaultdict(list)  # SHARED rare words: the word sets that have them, smaller ones first
    for words in sets:
        shared = threshold * len(words)  # words that a near-duplicate shares
        by_rarity = sorted(words, key=lambda word: (frequency[word], word))
        rare = sorted(by_rarity[: len(words) - math.ceil(shared) + SHARED])
        similar = [index[key] for key in itertools.combinations(rare, SHARED)]
        candidates = {other for others in similar for other in others if len(other) >= shared}
        pairs += [(id_of[other], id_of[words]) for other in candidates if jaccard(words, other) >= threshold]
        for others in similar:
            others.append(words)
    return pairs


def count_overlap(parts: dict[str, list[dict]]) -> int:
    """Counts the val and test rows with a text (a user's turn, or a plain text) that stands, word for word, elsewhere.

    Reads the data rows themselves, whatever grouped them.
    """

    def texts(row: dict) -> set[tuple[str, ...]]:
        questions = [turn["content"] for turn in row.get("messages", []) if turn["role"] == "user"]
        return {tuple(split_words(text)) for text in questions or [row["text"]]} - {()}

    texts_of = {part: [texts(row) for row in rows] for part, rows in parts.items()}

    def repeated(part: str) -> int:
        elsewhere = {text for other in texts_of if other != part for row in texts_of[other] for text in row}
        return sum(not elsewhere.isdisjoint(row) for row in texts_of[part])

    return repeated("val") + repeated("test")
