"""Train, val and test by whole groups."""

from collections import Counter
from typing import NamedTuple

from helpers.data.clean import Corpus
from helpers.data.group import Pairs, group_rows
from helpers.data.leaks import LeakCheck, describe_leaks, find_leaks
from helpers.data.sampling import shuffle_key
from helpers.language.bengali import split_words

PARTS = ("train", "val", "test")
LARGE = 0.25  # of the smallest part: a larger group would be most of what val or test says


def split_corpus(corpus: Corpus, links: dict[str, Pairs], shares: tuple[float, float], seed: int) -> Corpus:
    """Gives the kept rows `group` and `part`.

    `links` come from `link_rows`, `shares` (0 to 1) are train's and val's. A data set that brings its own split keeps
    it, but for rows whose question (or plain text) stands, word for word, in an earlier part: those are dropped.
    """
    kept = corpus.kept
    if not (kept.published != "").all():
        group = group_rows(kept, links)
        return corpus._replace(kept=kept.assign(group=group, part=split_groups(group, *shares, seed)))
    kept = kept.sort_values("published", key=lambda parts: parts.map(PARTS.index))
    texts = kept.question.where(kept.question != "", kept.answer).map(split_words).map(tuple)
    repeated = kept.groupby(texts).published.transform("first") != kept.published
    corpus = corpus.drop("in an earlier part too", kept.id[repeated])
    return corpus._replace(kept=corpus.kept.assign(group=group_rows(corpus.kept, links), part=corpus.kept.published))


def split_groups(group_of_row: list[str], train_share: float, val_share: float, seed: int) -> list[str]:
    """Returns "train", "val" or "test" for each row: whole groups in seeded order, each to the part that lacks most.

    Groups larger than LARGE of the smallest part go to train, while it has room.
    Raises ValueError for shares that leave a part without rows.
    """
    shares = {"train": train_share, "val": val_share, "test": 1 - train_share - val_share}
    if min(shares.values()) <= 1e-9:
        message = f"train_share {train_share} and val_share {val_share} leave no test part: their sum must be < 1."
        raise ValueError(message)
    sizes, rows = Counter(group_of_row), len(group_of_row)
    if len(sizes) < 3:
        problem = f"{rows} rows form {len(sizes)} groups: train, val and test need at least 3"
        hint = "adjacent rows of one topic, equal and near-duplicate texts are one group"
        raise ValueError(f"{problem} ({hint}). Add rows or topics, or raise prepare_data.near_duplicate.")
    return fill_parts(group_of_row, shares, seed)


def fill_parts(group_of_row: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """Returns the part of each row, as `split_groups` does; `shares` (0 to 1) are the parts', train's among them."""
    sizes, rows = Counter(group_of_row), len(group_of_row)
    large = LARGE * min(shares.values()) * rows
    order = sorted(sizes, key=lambda group: (sizes[group] <= large, shuffle_key(seed, group)))
    parts, filled = {}, Counter()
    for left, group in zip(range(len(order), 0, -1), order):
        empty = [part for part in shares if not filled[part]]  # no part stays empty
        room = shares["train"] * rows - filled["train"]
        if large < sizes[group] <= room and left > len(empty):
            parts[group] = "train"
        else:
            parts[group] = max(empty or shares, key=lambda part: shares[part] * rows - filled[part])
        filled[parts[group]] += sizes[group]
    return [parts[group] for group in group_of_row]


class SplitCheck(NamedTuple):
    """What a search for twins on two sides of a split came to."""

    grouped: LeakCheck  # of the split as it is
    row_wise: LeakCheck  # of a split row by row, to compare with
    sentences: str

    def as_json(self) -> dict[str, float | str]:
        """Returns what data/metrics.json keeps of it."""
        return {"leak": self.grouped.share, "row_wise_leak": self.row_wise.share, "leak_check": self.sentences}


def check_split(corpus: Corpus, near_duplicate: float, shares: tuple[float, float], seed: int) -> SplitCheck:
    """Looks for held-out rows with a twin in another part, in the corpus's split and in one row by row.

    Raises ValueError where the split has one, unless the data set brought its own.
    """
    kept, (_, _, longest, longer, foreign) = corpus.kept, corpus.order
    splits = {"grouped": kept.part, "row_wise": split_groups(list(kept.id), *shares, seed)}
    leaks = find_leaks(kept, corpus.dropped, splits, near_duplicate, longest)
    if leaks["grouped"].leaked and not (kept.published != "").all():
        raise ValueError(f"the split leaks: {leaks['grouped'].reasons}")
    sentences = describe_leaks(leaks["grouped"], leaks["row_wise"], near_duplicate, longest, longer, foreign)
    return SplitCheck(**leaks, sentences=sentences)
