"""Rows that belong together: the same question, one dialogue, near-duplicates."""

import itertools
from collections.abc import Hashable, Iterable
from statistics import fmean
from typing import Any

import pandas

from helpers.language.bengali import split_words

LONGEST_DIALOGUE = 12, 0.01  # rows, and share of all rows; a longer run of one topic is a sorted table
NEAR_WORDS = {"question": 5, "answer": 8}  # distinct words from which two texts can be near-duplicates
PERMUTATIONS = 64

Pairs = list[tuple[str, str]]  # ids of rows that must stay together


def dialogue_runs(table: pandas.DataFrame, titled: bool = True) -> list[int]:
    """Returns a number for each row: adjacent rows of one topic and one title share it, as the turns of one dialogue.

    Without `titled`, only rows that have no title. A run longer than LONGEST_DIALOGUE is a sorted table: its rows stay
    single.
    """
    same = (table.topic == table.topic.shift()) & (table.topic != "") & (table.title == table.title.shift())
    runs = (~(same if titled else same & (table.title == ""))).cumsum()
    longest = max(LONGEST_DIALOGUE[0], LONGEST_DIALOGUE[1] * len(table))
    sizes = runs.map(runs.value_counts())
    return list(runs.where(sizes <= longest, -pandas.Series(range(1, len(table) + 1), index=table.index)))


def link_rows(table: pandas.DataFrame, near_duplicate: float = 0.0) -> dict[str, Pairs]:
    """Returns the pairs of row ids that must stay together, by reason.

    The same question (by its words), turns of one dialogue, near-duplicate questions and near-duplicate answers
    (Jaccard similarity of their words of at least `near_duplicate`, 0 = not looked for).
    Raises ValueError for a similarity below 0.5 or above 1.
    """
    if near_duplicate and not 0.5 <= near_duplicate <= 1:
        raise ValueError(f"near_duplicate is {near_duplicate}: expected 0 (not looked for), or 0.5 to 1.")
    questions = [tuple(split_words(question)) or None for question in table.question]
    links = {
        "same question": pair_equal(questions, table.id),
        "one dialogue": pair_equal(dialogue_runs(table), table.id),
    }
    for side in NEAR_WORDS if near_duplicate else []:
        sets = word_sets(table, side)
        links[f"near-duplicate {side}"] = pair_equal(sets, table.id) + _pair_similar(sets, table.id, near_duplicate)
    return links


def pair_equal(keys: Iterable[Hashable], ids: Iterable[str]) -> Pairs:
    """Returns each id paired with the first id of the same key; ids whose key is None stay alone."""
    first: dict[Hashable, str] = {}
    pairs = [(first.setdefault(key, row_id), row_id) for key, row_id in zip(keys, ids) if key is not None]
    return [pair for pair in pairs if pair[0] != pair[1]]


def word_sets(table: pandas.DataFrame, side: str) -> list[frozenset[str] | None]:
    """Returns the distinct words of each row's question or answer; None for too few to be a near-duplicate."""
    sets = (frozenset(split_words(value)) for value in table[side])
    return [words if len(words) >= NEAR_WORDS[side] else None for words in sets]


def _pair_similar(sets: list[frozenset[str] | None], ids: Iterable[str], threshold: float) -> Pairs:
    """Returns pairs of ids whose word sets differ, with a Jaccard similarity of at least the threshold.

    Candidates come from MinHash LSH (datasketch; Broder 1997) at a lower threshold, so that few are missed; each is
    verified.
    """
    from datasketch import MinHash, MinHashLSH

    pairs, id_of = [], {words: row_id for words, row_id in zip(sets, ids) if words}
    hashes = MinHash.bulk([[word.encode() for word in words] for words in id_of], num_perm=PERMUTATIONS)
    index = MinHashLSH(threshold=max(0.1, threshold - 0.2), num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    for words, minhash in zip(id_of, hashes):
        candidates: Any = index.query(minhash)
        pairs += [(id_of[other], id_of[words]) for other in candidates if jaccard(words, other) >= threshold]
        index.insert(words, minhash)
    return pairs


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Returns the share of words in both of the words in either."""
    return len(a & b) / len(a | b)


def group_rows(table: pandas.DataFrame, links: dict[str, Pairs]) -> list[str]:
    """Returns each row's group: the connected rows, named after their smallest id. Pairs of other rows are ignored."""
    import networkx

    ids = set(table.id)
    graph = networkx.Graph(pair for pair in itertools.chain(*links.values()) if ids.issuperset(pair))
    group_of = {}
    for rows in networkx.connected_components(graph):
        group_of |= dict.fromkeys(rows, min(rows))
    return [group_of.get(row_id, row_id) for row_id in table.id]


def measure_title_agreement(table: pandas.DataFrame, seed: int) -> dict[str, float]:
    """Returns how often (0 to 1) a title shares a word with its own question, and with another row's.

    Where both are alike, titles (and topics) belong to other rows and must not be trained on. Empty for fewer than 20
    titles.
    """
    titled = table[table.title != ""]
    if len(titled) < 20:
        return {}
    words = [set(split_words(title)) for title in titled.title]

    def agreement(questions: pandas.Series) -> float:
        return fmean(not title.isdisjoint(split_words(question)) for title, question in zip(words, questions))

    shuffled = titled.question.sample(frac=1, random_state=seed)
    return {"their own": agreement(titled.question), "another row's": agreement(shuffled)}
