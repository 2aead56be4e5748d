"""Rows that belong together: the same question, one dialogue, near-duplicates."""

import itertools
from collections.abc import Hashable, Iterable, Iterator
from statistics import fmean

import numpy
import pandas

from helpers.data.leaks import NEAR_WORDS
from helpers.language.bengali import split_words

SKETCH = 8  # numbers of 64 bits: see `_pair_similar`

Pairs = list[tuple[str, str]]  # ids of rows that must stay together
WordSet = frozenset[str]


def link_rows(table: pandas.DataFrame, near_duplicate: float = 0.0) -> dict[str, Pairs]:
    """Returns pairs of row ids that must stay together, by reason; they connect rows, not each with each.

    The same question (by its words; of a conversation each, but for short later turns), turns of one dialogue (the
    column `dialogue`), near-duplicate questions and near-duplicate answers (Jaccard similarity of their words of at
    least `near_duplicate`, 0 = not looked for).
    Raises ValueError for a similarity below 0.5 or above 1.
    """
    if near_duplicate and not 0.5 <= near_duplicate <= 1:
        raise ValueError(f"near_duplicate is {near_duplicate}: expected 0 (not looked for), or 0.5 to 1.")
    asked, askers = zip(*_list_questions(table))
    links = {"same question": pair_equal(asked, askers), "one dialogue": pair_equal(table.dialogue, table.id)}
    for side, least in NEAR_WORDS.items() if near_duplicate else []:
        sets = [frozenset(split_words(text)) for text in table[side]]
        sets = [words if len(words) >= least else None for words in sets]
        links[f"near-duplicate {side}"] = pair_equal(sets, table.id) + _pair_similar(sets, table.id, near_duplicate)
    return links


def pair_equal(keys: Iterable[Hashable], ids: Iterable[str]) -> Pairs:
    """Returns each id paired with the first id of the same key; ids whose key is None stay alone."""
    first: dict[Hashable, str] = {}
    pairs = [(first.setdefault(key, row_id), row_id) for key, row_id in zip(keys, ids) if key is not None]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _list_questions(table: pandas.DataFrame) -> Iterator[tuple[tuple[str, ...] | None, str]]:
    """Yields the words of every question with its row's id; None for a turn that many conversations have in common."""
    for row in table.to_dict("records"):
        turns = [turn["content"] for turn in row.get("messages", []) if turn["role"] == "user"]
        for number, text in enumerate(turns or [row["answer"] if row["plain"] else row["question"]]):
            words = tuple(split_words(text))
            yield words if number == 0 or len(set(words)) >= NEAR_WORDS["question"] else None, row["id"]


def _pair_similar(sets: list[WordSet | None], ids: Iterable[str], threshold: float) -> Pairs:
    """Returns pairs of ids that connect all word sets with a Jaccard similarity of at least the threshold, exactly.

    Similar sets of n and m words differ in at most (1 - threshold) / (1 + threshold) · (n + m) of them. A sketch has a
    bit per word (words may share one), so sketches differ in no more bits than their sets in words: the sketch of each
    set is compared with those of all sets of like size, first folded to 64 bits, and the few that come near are
    compared by their words, unless they are connected already. Hand-written: the libraries' joins sample (datasketch)
    or compare all by their words (scikit-learn).
    """
    id_of = {words: row_id for words, row_id in zip(sets, ids) if words}
    ordered = sorted(id_of, key=len)
    sizes, sketches = numpy.array([len(words) for words in ordered]), _sketch(ordered)
    folded = numpy.bitwise_or.reduce(sketches, axis=1)
    most = 2 * sizes * (1 - threshold) / (1 + threshold) + 1e-9  # bits that the sketches of similar sets may differ in
    smallest = numpy.searchsorted(sizes, threshold * sizes - 1e-9)
    connected, pairs = numpy.arange(len(ordered)), []  # equal numbers: known to be connected
    for row, words in enumerate(ordered):
        near = numpy.bitwise_count(folded[smallest[row] : row] ^ folded[row]) <= most[row]
        others = smallest[row] + numpy.flatnonzero(near)
        others = others[numpy.bitwise_count(sketches[others] ^ sketches[row]).sum(axis=1) <= most[row]]
        while len(others):
            other, others = others[0], others[1:]
            if len(words & ordered[other]) / len(words | ordered[other]) < threshold:
                continue
            pairs.append((id_of[ordered[other]], id_of[words]))
            connected[row] = connected[other]
            others = others[connected[others] != connected[row]]
    return pairs


def _sketch(sets: list[WordSet]) -> numpy.ndarray:
    """Returns SKETCH numbers of 64 bits for each word set, (sets, SKETCH), with a bit set for each of its words."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(itertools.chain.from_iterable(sets)))}
    bit_of = numpy.random.default_rng(0).integers(64 * SKETCH, size=len(vocabulary), dtype=numpy.uint64)
    bits = bit_of[[vocabulary[word] for word in itertools.chain.from_iterable(sets)]]
    rows = numpy.repeat(numpy.arange(len(sets)), [len(words) for words in sets])
    sketches = numpy.zeros((len(sets), SKETCH), dtype=numpy.uint64)
    numpy.bitwise_or.at(sketches, (rows, bits // 64), numpy.uint64(1) << bits % 64)
    return sketches


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
