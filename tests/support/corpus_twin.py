"""A twin of the real corpus: its shapes and its dirt in the project's own words, with the truth of every row known.

Part A is counselling: long rows, a question with several answers, topics (some of them lists) and titles in runs that
belong to other rows. Part B is dialogues of one to four turns in adjacent rows of one topic, each row with a title of
one to four words of its own question. Sentences are put together from fragments of the embedded corpus's.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas
import planted
import regex

from helpers.data.clean import DROPS, REPAIRS, Corpus, clean_table
from helpers.data.load import COLUMNS, load_table, unify_columns
from helpers.language.bengali import split_words

KEPT = "kept"  # the fate of a sound row; any other fate is the rule that must drop it
TOPICS = """আনন্দ দুঃখ রাগ ভয় লজ্জা ঘৃণা বিস্ময় আশা হতাশা গর্ব ঈর্ষা কৃতজ্ঞতা একাকিত্ব অপরাধবোধ উৎকণ্ঠা বিরক্তি
    স্মৃতিকাতরতা প্রস্তুতি ভরসা বিশ্বাসভঙ্গ ক্লান্তি উত্তেজনা আত্মবিশ্বাস বিষাদ মুগ্ধতা সন্তুষ্টি অনুশোচনা আতঙ্ক প্রত্যাশা যত্ন
    বিব্রতবোধ ক্ষোভ""".split()  # 32
COUNSEL = ["পরিবার", "দাম্পত্য", "মানসিক আঘাত, পরিবার", "বিষণ্ণতা", "উদ্বেগ, ঘুম", "সন্তানপালন", "শোক, পরিবার, অর্থকষ্ট"]
PART_A = 0.05  # of the rows
TURNS = {1: 0.12, 2: 0.7, 3: 0.12, 4: 0.06}  # rows of a dialogue, and how often
GENERIC = ["ধন্যবাদ আপনাকে।", "হ্যাঁ, ঠিক বলেছেন।", "আমারও তাই মনে হয়।", "জানি না কী করব।"]  # turns of many dialogues
MIRRORED = 0.015  # of the dialogues: the first question is its answer
DEFECTIVE, BLEMISHED, SOUND, REPEATED, MISSPELT = 0.02, 0.02, 0.01, 0.01, 0.02  # of the rows
HARD = 0.002  # of the rows: a defect in a form that its rule does not know
FAR = 40  # rows between two tellings of one opening, at least


class Twin(NamedTuple):
    """A file and its truth, row by row.

    `truth` has `part` (A or B), `topic` (as it should be spelt), `dialogue` (a number; each row of part A has its own),
    `retells` (the row whose opening this one is in other words, -1: none), `fate` (KEPT or the rule that drops the
    row), `hard` (the defect is written in a way that the rule does not know), `repair` (the rule that changes it, or
    "") and `answer`, before a blemish.
    """

    raw: pandas.DataFrame
    truth: pandas.DataFrame

    def reorder(self, rows: list[int]) -> "Twin":
        """Returns the twin with its rows in another order; `retells` still counts in the first one."""
        return Twin(self.raw.iloc[rows].reset_index(drop=True), self.truth.iloc[rows].reset_index(drop=True))

    def change(self, **columns: str) -> "Twin":
        """Returns the twin with these columns of the file filled with one value."""
        return self._replace(raw=self.raw.assign(**columns))

    def sort_by_topic(self) -> "Twin":
        """Returns the twin as a sorted file; the rows of one topic keep their order."""
        return self.reorder(list(self.raw.Topics.argsort(kind="stable")))

    def shuffle(self) -> "Twin":
        """Returns the twin with its rows in random order."""
        return self.reorder(random.Random(0).sample(range(len(self.raw)), len(self.raw)))

    def table(self) -> pandas.DataFrame:
        """Returns the file as cleaning reads it; `number` counts from 0, as the truth does."""
        return unify_columns(self.raw, "auto", "twin")[0].assign(number=range(len(self.raw)))


def fragments() -> list[str]:
    """Returns the embedded corpus's sound rows in pieces of three and four Bengali words of one clause."""
    pieces = {}
    for row in clean_table(load_table("embedded")[0]).kept.itertuples():
        for clause in regex.split(r"[^\u0980-\u09ff ]+", f"{row.question}\n{row.answer}"):
            words = clause.split()
            pieces |= {" ".join(words[at : at + 4]): None for at in range(0, len(words) - 2, 4)}
    return list(pieces)


def make(
    rows: int, seed: int = 0, retold: float = 0.06, openings: int = 0, turns: int = 0, vocabulary: int = 0
) -> Twin:
    """Returns a twin of that many rows.

    `retold` is the share of dialogues whose opening is an earlier one's in other words, one of the first `openings`
    where that is set. `turns` are the rows of every dialogue (0: by TURNS), `vocabulary` the distinct words (0: those
    of the embedded corpus).
    """
    rng, pieces = random.Random(seed), fragments()
    if vocabulary:
        pieces = sorted({word for piece in pieces for word in piece.split() if len(word) > 2})[:vocabulary]

    def write(characters: float) -> str:
        sentences = []
        while sum(map(len, sentences)) < characters:
            clause = rng.sample(pieces, rng.choice([2, 3, 3]) * (4 if vocabulary else 1))
            sentences.append(" ".join(clause) + "।")
        return rng.choice([" ", " ", " ", "\n "]).join(sentences)

    table, first_tellings = _write_part_a(rng, write, int(PART_A * rows)), []
    while len(table) < rows:
        dialogue = _write_dialogue(rng, write, turns)
        number, first = len(table), dialogue[0]
        if first["fate"] == KEPT:
            old = rng.sample(first_tellings, min(3, len(first_tellings)))
            old = [place for place in old if number - place > FAR]
            if old and rng.random() < retold:
                first |= {"retells": old[0], "question": _retell(rng, table[old[0]]["question"], pieces)}
            elif not openings or len(first_tellings) < openings:
                first["question"] = first["question"] if len(first["question"].split()) >= 10 else write(90)
                first_tellings.append(number)
        table += [{**row, "dialogue": number} for row in dialogue]
    del table[rows:]
    _plant_defects(rng, table)
    for row in table[int(PART_A * rows) :]:
        row["title"] = _title(rng, row["question"])
        row["spelt"] = _misspell(rng, row["topic"]) if rng.random() < MISSPELT else row["topic"]
    rows_and_truth = pandas.DataFrame(table)
    raw = rows_and_truth[["spelt", "title", "question", "written"]].set_axis(COLUMNS, axis=1)
    return Twin(raw, rows_and_truth[["part", "topic", "dialogue", "retells", "fate", "hard", "repair", "answer"]])


def _row(part: str, topic: str, question: str, answer: str) -> dict[str, Any]:
    row = {"part": part, "topic": topic, "spelt": topic, "question": question, "answer": answer}
    return {**row, "fate": KEPT, "hard": False, "retells": -1, "repair": ""}


def _write_part_a(rng: random.Random, write: Callable[[float], str], rows: int) -> list[dict[str, Any]]:
    """Returns counselling rows in an order of their own, under topics and titles in another."""
    pairs = []
    while len(pairs) < rows:
        question = write(rng.lognormvariate(5.6, 0.5))
        pairs += [(question, write(rng.lognormvariate(6.1, 0.7))) for _ in range(rng.choice([1, 1, 2, 3, 4]))]
    rng.shuffle(pairs)
    table = []
    while len(table) < rows:
        topic, title = rng.choice(COUNSEL), write(25)
        for question, answer in pairs[len(table) : min(rows, len(table) + rng.choice([1, 2, 3, 5]))]:
            table.append({**_row("A", topic, question, answer), "title": title, "dialogue": len(table)})
    return table


def _write_dialogue(rng: random.Random, write: Callable[[float], str], turns: int) -> list[dict[str, Any]]:
    """Returns the rows of a dialogue of part B; in some the roles are swapped, after a question that is its answer."""
    topic = rng.choice(TOPICS)
    dialogue = []
    for turn in range(turns or rng.choices(list(TURNS), TURNS.values())[0]):
        question, answer = write(rng.lognormvariate(4.1, 0.4)), write(rng.lognormvariate(4.2, 0.5))
        question = rng.choice(GENERIC) if turn and rng.random() < 0.03 else question
        dialogue.append(_row("B", topic, question, answer))
    if rng.random() < MIRRORED:
        first, *others = dialogue
        first |= {"answer": first["question"].replace("।", " ।"), "fate": "question is the answer"}
        for row in others:
            row |= {"question": row["answer"], "answer": row["question"], "fate": "roles swapped"}
    return dialogue


def _misspell(rng: random.Random, topic: str) -> str:
    place = rng.randrange(1, len(topic))
    return topic[:place] + topic[place - 1] + topic[place:]


def _retell(rng: random.Random, question: str, pieces: list[str]) -> str:
    """Returns a question with one word of ten or more replaced, as slightly different words."""
    words = question.split()
    words[rng.randrange(len(words))] = rng.choice(pieces).split()[0]
    return " ".join(words)


def _title(rng: random.Random, question: str) -> str:
    words = [word for word in regex.findall(r"[\u0980-\u09ff]+", question) if len(word) > 3]
    start = rng.randrange(len(words)) if words else 0
    return " ".join(words[start : start + rng.choice([1, 2, 3, 4])])


def _plant_defects(rng: random.Random, table: list[dict[str, Any]]) -> None:
    """Gives each row the answer as `written`; some rows get a defect, a blemish or a near-miss, some another's text."""
    sources = {row["retells"] for row in table}
    for number, row in enumerate(table):
        row["written"], kind = row["answer"], rng.random()
        if row["fate"] != KEPT or row["retells"] >= 0 or number in sources:
            continue
        before = table[number - FAR] if number >= FAR else row
        if kind < DEFECTIVE:
            row["hard"] = kind < HARD
            forms = planted.HARD if row["hard"] else planted.SINGLE
            row["fate"] = rng.choice(list(forms))
            row["question"], row["written"] = rng.choice(forms[row["fate"]])(row["question"], row["answer"])
        elif kind < DEFECTIVE + BLEMISHED:
            row["repair"] = rng.choice(list(planted.REPAIRED))
            row["written"] = rng.choice(planted.REPAIRED[row["repair"]])(row["answer"])
        elif kind < DEFECTIVE + BLEMISHED + SOUND:
            row["answer"] = row["written"] = f"{rng.choice(planted.SOUND)} {row['answer']}"
        elif kind < DEFECTIVE + BLEMISHED + SOUND + REPEATED and before["fate"] == KEPT and before is not row:
            row |= {side: before[side] for side in ("question", "answer", "written", "repair")} | {
                "fate": "exact duplicate"
            }


def count_fates(twin: Twin, corpus: Corpus) -> pandas.DataFrame:
    """Returns for each rule how many rows it was planted for, and how many it caught, missed, and took in error.

    Caught is a row that its rule dropped, or another one before; `hard` are the missed rows in a form that the rule
    does not know. `count_repairs` counts for the rules that repair.
    """
    fates = pandas.Series(KEPT, index=twin.truth.index)
    fates[corpus.dropped.number] = list(corpus.dropped.rule)
    rules = [step.rule for step in corpus.funnel if step.rule in DROPS]
    rows = []
    for rule in rules:
        planted_rows, hits, kept = twin.truth.fate == rule, fates == rule, fates == KEPT
        counts = {"planted": planted_rows, "caught": planted_rows & ~kept, "missed": planted_rows & kept}
        counts["hard"] = counts["missed"] & twin.truth.hard
        rows.append(
            {name: int(mask.sum()) for name, mask in (counts | {"in error": hits & (twin.truth.fate == KEPT)}).items()}
        )
    return pandas.DataFrame(rows, index=rules)


def count_repairs(twin: Twin, corpus: Corpus) -> pandas.DataFrame:
    """Returns the same for the rules that repair: caught is an answer whose words are those before the blemish."""
    answers = dict(zip(corpus.kept.number, corpus.kept.answer.map(split_words)))
    steps = {step.rule: step.changed for step in corpus.funnel}
    rows = []
    for rule in REPAIRS:
        truth = twin.truth.answer[(twin.truth.repair == rule) & twin.truth.index.isin(list(answers))]
        caught = sum(answers[number] == split_words(answer) for number, answer in truth.items())
        rows.append({"planted": len(truth), "caught": caught, "missed": len(truth) - caught, "hard": 0})
        rows[-1]["in error"] = steps[rule] - (twin.truth.repair == rule).sum()
    return pandas.DataFrame(rows, index=list(REPAIRS))


def count_split_dialogues(twin: Twin, kept: pandas.DataFrame, part: list[str]) -> tuple[int, int]:
    """Returns how many dialogues of two kept rows or more there are, and how many stand in two parts or more."""
    truth = twin.truth.loc[kept.number].assign(place=list(part))
    parts = truth[truth.part == "B"].groupby("dialogue").place.agg(["size", "nunique"])
    return int((parts["size"] > 1).sum()), int((parts["nunique"] > 1).sum())
