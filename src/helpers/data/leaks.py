"""Whether anything stands on two sides of the split, found without the code that grouped the rows.

This file imports nothing of this room (`lint-imports` sees to it): it starts from the rows in the file's order and the
part of each, compares them directly, and reports what it finds.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy
import pandas

from helpers.language.bengali import split_words

SAMPLE = 4000  # held-out rows of a split that is only compared with: half a point of standard error
NEAR_WORDS = {"question": 5, "answer": 8}  # distinct words from which two texts can be near-duplicates
OWN_TITLES = 0.9  # of the titles; in such a file, a title in other words than its question's is another row's

Twins = Iterator[tuple[int, numpy.ndarray]]  # a row's place in the table, and the places of its twins


class LeakCheck(NamedTuple):
    """What was found in one split."""

    held_out: int  # rows of val and test that were looked at
    leaked: int  # those with a twin in another part
    reasons: dict[str, int]  # the same by what makes the twin one; a row may count under several

    @property
    def share(self) -> float:
        """Returns the share of held-out rows that have a twin in another part."""
        return self.leaked / self.held_out if self.held_out else 0.0


def find_leaks(
    kept: pandas.DataFrame, dropped: pandas.DataFrame, splits: Mapping[str, Any], near_duplicate: float, longest: int
) -> dict[str, LeakCheck]:
    """Looks for held-out rows with a twin in another part, in each split {name: part of each kept row}.

    Every held-out row of the first split is looked at, of a split that it is compared with at most SAMPLE. Twins ask
    the same question, are adjacent in the file (but for dropped rows) with one topic, in a run of at most `longest`
    rows, or have near-duplicate questions or answers: Jaccard similarity of their words of at least `near_duplicate`
    (0: not looked for).
    """
    parts = {name: numpy.asarray(part, dtype=str) for name, part in splits.items()}
    looked_at = {
        name: _place_held_out(part, SAMPLE if other else 0) for other, (name, part) in enumerate(parts.items())
    }
    wanted = set().union(*looked_at.values())
    searches = {
        "the same question": _find_same_questions(kept),
        "an adjacent row of the same topic": _find_neighbours(kept, dropped, longest),
    }
    for side, least in NEAR_WORDS.items() if near_duplicate else []:
        searches[f"a near-duplicate {side}"] = find_near_duplicates(list(kept[side]), wanted, near_duplicate, least)
    leaked = {name: {reason: set() for reason in searches} for name in parts}
    for reason, search in searches.items():
        for place, others in search:
            for name, part in parts.items():
                if place in looked_at[name] and (part[others] != part[place]).any():
                    leaked[name][reason].add(place)
    return {
        name: LeakCheck(
            len(looked_at[name]),
            len(set().union(*reasons.values())),
            {reason: len(places) for reason, places in reasons.items()},
        )
        for name, reasons in leaked.items()
    }


def _place_held_out(part: numpy.ndarray, most: int) -> set[int]:
    """Returns the places of val and test rows; of more than `most` (0: all) a part, evenly spread over the file."""
    places = numpy.flatnonzero(part != "train")
    return set(places[:: 1 + len(places) // most if most else 1].tolist())


def describe_leaks(
    check: LeakCheck, row_wise: LeakCheck, near_duplicate: float, longest: int, longer: int, foreign: int = 0
) -> str:
    """Returns what was found, what was looked for, and what was not, in three sentences.

    `longest` as `find_leaks` takes it; `longer` rows stand in longer runs of one topic, `foreign` rows next to one of
    their topic, both under titles in other words than their questions'.
    """
    near = " or ".join(
        f"a near-duplicate {side} ({least} different words or more)" for side, least in NEAR_WORDS.items()
    )
    near += f" by a Jaccard similarity of words of {near_duplicate:g} or more"
    looked = ["the same question, word for word", *([near] if near_duplicate else [])]
    looked += [f"an adjacent row of the same topic, in runs of up to {longest} rows"] if longest > 1 else []
    missed = [] if near_duplicate else ["near-duplicates"]
    missed += ["turns of one dialogue" + " whose rows stand apart in the file" * (longest > 1)]
    missed += [f"adjacent rows in longer runs of one topic ({longer:,} rows)"] if longer else []
    missed += [f"{foreign:,} adjacent rows of one topic under titles in other words"] if foreign else []
    same = row_wise.reasons.get("the same question", 0) / max(1, row_wise.held_out)
    return (
        f"Held-out rows with a twin in another part: {check.leaked:,} of {check.held_out:,} ({check.share:.1%}); split "
        f"row by row it would be {row_wise.share:.1%}{', dialogue turns included' * (longest > 1)}, and {same:.1%} for "
        f"the same question alone. Looked for: {'; '.join(looked)}. Not looked for: "
        f"{'; '.join(missed)}; the same told in other words."
    )


def questions_of(question: str, messages: list[dict[str, str]] | None = None) -> set[tuple[str, ...]]:
    """Returns the words of each question of a row: of a conversation its first, and later ones that are long enough.

    Short later turns (a word of thanks) stand in many conversations and make no twins.
    """
    turns = [turn["content"] for turn in messages or [] if turn["role"] == "user"] or [question]
    words = [tuple(split_words(turn)) for turn in turns]
    later = {turn for turn in words[1:] if len(set(turn)) >= NEAR_WORDS["question"]}
    return {words[0], *later} - {()}


def _find_same_questions(kept: pandas.DataFrame) -> Twins:
    """Yields each row and those that ask the same; a plain text is its own question."""
    asked = list(kept.question.where(~kept.plain, kept.answer))
    conversations = list(kept["messages"]) if "messages" in kept else [None] * len(kept)
    places = defaultdict(list)
    for place, question in enumerate(asked):
        for words in questions_of(question, conversations[place]):
            places[words].append(place)
    for same in places.values():
        for place in same if len(same) > 1 else []:
            yield place, numpy.array(same)


class _FileRow(NamedTuple):
    """A row of the file, kept or dropped."""

    number: int
    topic: str
    foreign: bool  # under another row's title: no turn of a dialogue
    place: int  # among the kept rows, -1 for a dropped one


def _order_rows(kept: pandas.DataFrame, dropped: pandas.DataFrame) -> list[_FileRow]:
    """Returns all rows in the order of the file."""
    rows, titled = [], 0
    for table, places in ((kept, range(len(kept))), (dropped, itertools.repeat(-1))):
        titled += int((table.title != "").sum())
        for number, topic, title, question, place in zip(
            table.number, table.topic, table.title, table.question, places
        ):
            foreign = not set(split_words(title)) <= set(split_words(question))
            rows.append(_FileRow(number, topic, foreign, place))
    if sum(row.foreign for row in rows) > (1 - OWN_TITLES) * titled:
        rows = [row._replace(foreign=False) for row in rows]
    return sorted(rows)


def _find_neighbours(kept: pandas.DataFrame, dropped: pandas.DataFrame, longest: int) -> Twins:
    """Yields each kept row and the next one of its dialogue, both ways, in the order of the file."""
    for topic, block in itertools.groupby(_order_rows(kept, dropped), key=lambda row: row.topic):
        run: list[_FileRow] = []
        for row in [*block, None] if topic else []:
            if row is None or (run and run[-1].foreign and row.foreign):
                places = [turn.place for turn in run if turn.place >= 0] if len(run) <= longest else []
                for first, second in itertools.pairwise(places):
                    yield first, numpy.array([second])
                    yield second, numpy.array([first])
                run = []
            if row is not None:
                run.append(row)


def find_near_duplicates(texts: list[str], wanted: set[int], threshold: float, least: int) -> Twins:
    """Yields each wanted row and those with a Jaccard similarity of at least the threshold: all are compared.

    For one row, the words that it shares with each other row are counted by going through the rows of each of its
    words. Only rows of like size can be similar, so rows stand in the order of their size.
    """
    sets = [(place, set(split_words(text))) for place, text in enumerate(texts)]
    sets = sorted(((place, words) for place, words in sets if len(words) >= least), key=lambda item: len(item[1]))
    places = numpy.array([place for place, _ in sets], dtype=int)
    sizes = numpy.array([len(words) for _, words in sets], dtype=int)
    having = defaultdict(list)
    for row, (_, words) in enumerate(sets):
        for word in words:
            having[word].append(row)
    rows_of = {word: numpy.array(rows) for word, rows in having.items()}
    for row, (place, words) in enumerate(sets):
        if place not in wanted:
            continue
        low = numpy.searchsorted(sizes, threshold * len(words) - 1e-9)
        high = numpy.searchsorted(sizes, len(words) / threshold + 1e-9, side="right")
        lists = [rows[slice(*rows.searchsorted((low, high)))] for rows in map(rows_of.__getitem__, words)]
        shared = numpy.bincount(numpy.concatenate(lists) - low, minlength=high - low)
        similar = shared / (sizes[low:high] + len(words) - shared) >= threshold
        similar[row - low] = False
        if similar.any():
            yield place, places[low:high][similar]


def count_overlap(parts: dict[str, list[dict]]) -> int:
    """Counts the val and test rows with a question (or a plain text) that stands, word for word, in another part.

    Reads the data rows themselves, whatever grouped them.
    """

    def texts(row: dict) -> set[tuple[str, ...]]:
        return questions_of(row.get("text", ""), row.get("messages"))

    texts_of = {part: [texts(row) for row in rows] for part, rows in parts.items()}

    def repeated(part: str) -> int:
        elsewhere = {text for other in texts_of if other != part for row in texts_of[other] for text in row}
        return sum(not elsewhere.isdisjoint(row) for row in texts_of[part])

    return repeated("val") + repeated("test")
