"""Dialogues, as the order of a file's rows shows them: adjacent rows of one topic, and whether the order shows any."""

import math
from typing import NamedTuple

import pandas

from helpers.data.leaks import OWN_TITLES
from helpers.language.bengali import split_words

LONGEST_DIALOGUE = 4  # rows, in the corpus
NEIGHBOURS = 6  # dialogues of one topic in a row: by chance once in 32⁵ = 34 million, with the corpus's 32 topics
RECURRING = 5  # runs per topic from which the typical run is a dialogue, not a topic's block in a sorted table
FEWEST = 50  # rows from which a shuffled table can be told
STANDARD_ERRORS = 3  # above chance, from which neighbours share their topic because they are turns


class Order(NamedTuple):
    """What the order of the rows shows."""

    same_topic: float  # share of the adjacent rows with a topic that have the same one
    by_chance: float  # that share in a shuffled table
    longest: int  # rows of a run that can be dialogues; 1 where the order shows none
    longer: int  # rows in longer runs of one topic
    foreign: int = 0  # rows that are kept apart from the one before of their topic: both have titles of other rows

    def describe(self) -> str:
        """Returns what was seen, and what follows from it."""
        shares = (
            f"{self.same_topic:.1%} of adjacent rows share their topic; in a shuffled table {self.by_chance:.1%} do"
        )
        lost = "Turns of one dialogue cannot be grouped, and rows after a question that is its own answer are kept."
        if not self.same_topic:
            return "No two adjacent rows share a topic: there are no dialogues to group."
        if self.longest == 1:
            return f"{shares}: the order shows no dialogues. {lost} Equal and near-duplicate texts still are grouped."
        sentence = f"{shares}: adjacent rows of one topic are grouped as dialogues"
        if self.same_topic <= self.by_chance:
            sentence = f"{shares}, but fewer than {FEWEST} rows cannot tell{sentence[len(shares) :]}"
        longer = f"{self.longer:,} rows in runs of over {self.longest}, as a sorted table has them"
        foreign = f"{self.foreign:,} rows next to one of their topic, both under titles in other words"
        excepted = " and for ".join([longer] * (self.longer > 0) + [foreign] * (self.foreign > 0))
        sentence = f"{sentence}, but for {excepted}." if excepted else f"{sentence}."
        return f"{sentence} {lost}" if self.longer else sentence


def number_dialogues(table: pandas.DataFrame) -> tuple[pandas.Series, Order]:
    """Returns a number for each row, which the turns of a dialogue share, and what the order shows.

    A dialogue is a run of adjacent rows of one topic, whatever their titles; two neighbouring dialogues of one topic
    count as one. To be called with every row of the file, before any is dropped. A run of over `Order.longest` rows is
    part of a sorted table: its rows stay single, as all rows do where neighbours share their topic no more often than
    chance has it (fewer than FEWEST rows of several topics cannot tell). `longest` is NEIGHBOURS times
    LONGEST_DIALOGUE, or times the median run where that is longer and each topic has RECURRING runs; LONGEST_DIALOGUE
    alone where topics do not recur so often and most rows stand in longer runs, as in a small sorted table. Rows under
    titles of other rows are counselling, not dialogues: see `mark_foreign_titles`.
    """
    same = (table.topic == table.topic.shift()) & (table.topic != "")
    foreign = mark_foreign_titles(table)
    parted = same & foreign & foreign.shift(fill_value=False)
    runs = (~same | parted).cumsum()
    sizes = runs.map(runs.value_counts())
    same_topic, by_chance, shuffled = _compare_with_chance(table.topic, same)
    longest = 1 if shuffled else _longest_run(table.topic, runs)
    single = pandas.Series(range(-len(table), 0), index=table.index)
    longer, apart = (0, 0) if shuffled else (int(sizes[sizes > longest].count()), int(parted.sum()))
    order = Order(same_topic, by_chance, longest, longer, apart)
    return runs.where(sizes <= longest, single), order


def mark_foreign_titles(table: pandas.DataFrame) -> pandas.Series:
    """Returns which rows have a title in other words than their question's, in a file where nearly all have not.

    In the corpus a turn's title is words of its question, and the counselling rows' titles are those of other rows.
    """
    words = zip(table.title.map(split_words), table.question.map(split_words))
    foreign = pandas.Series(
        [not set(title) <= set(question) for title, question in words], index=table.index, dtype=bool
    )
    return foreign & (foreign[table.title != ""].mean() <= 1 - OWN_TITLES)


def _compare_with_chance(topics: pandas.Series, same: pandas.Series) -> tuple[float, float, bool]:
    """Returns how often adjacent rows share a topic, how often by chance, and whether the rows are shuffled."""
    counts = topics.loc[topics != ""].value_counts()
    rows = int(counts.sum())
    if rows < 2:
        return 0.0, 0.0, False
    pairs = max(1, int(((topics != "") & (topics.shift(fill_value="") != "")).sum()))
    by_chance = float((counts * (counts - 1)).sum()) / (rows * (rows - 1))
    same_topic = float(same.sum()) / pairs
    margin = STANDARD_ERRORS * math.sqrt(by_chance * (1 - by_chance) / pairs)
    shuffled = (by_chance == 1 and rows == len(topics)) or (rows >= FEWEST and same_topic <= by_chance + margin)
    return same_topic, by_chance, shuffled


def _longest_run(topics: pandas.Series, runs: pandas.Series) -> int:
    """Returns the rows of the longest run that can be dialogues: at least LONGEST_DIALOGUE."""
    named = runs.loc[topics != ""]
    lengths = named.value_counts()
    if len(lengths) and len(lengths) >= RECURRING * topics.loc[topics != ""].nunique():
        return NEIGHBOURS * max(LONGEST_DIALOGUE, int(lengths.median()))
    is_sorted = named.map(lengths).median() > LONGEST_DIALOGUE  # the run of most rows is no dialogue
    return LONGEST_DIALOGUE if is_sorted else NEIGHBOURS * LONGEST_DIALOGUE


def number_conversations(table: pandas.DataFrame, openings: frozenset[str] = frozenset()) -> pandas.Series:
    """Returns a number for each kept row, which the turns of one conversation share; needs `dialogue` and `part`.

    A conversation has at most LONGEST_DIALOGUE turns. It ends where a row was dropped, before a row whose title or
    question is the one before's (a second answer is no next turn), and before an opening that is told again elsewhere
    (ids in `openings`). What is still longer is several dialogues without a border to see: it is cut in twos, what
    most dialogues have, and one three.
    """
    before, words = table.shift(), table.question.map(split_words).map(tuple)
    follows = (table.dialogue == before.dialogue) & (table.part == before.part) & (table.number == before.number + 1)
    again = ((table.title == before.title) & (table.title != "")) | (words == words.shift()) | table.id.isin(openings)
    runs = (~follows | again).cumsum()
    turns = runs.map(runs.value_counts())
    piece = (runs.groupby(runs).cumcount() // 2).clip(upper=turns // 2 - 1).where(turns > LONGEST_DIALOGUE, 0)
    return (piece.diff().ne(0) | runs.diff().ne(0)).cumsum()
