"""Named rules that repair or drop a row, and the funnel of what each took."""

import difflib
import functools
import hashlib
import html
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy
import pandas
import regex

from helpers.data.dialogues import Order, number_dialogues
from helpers.data.excerpts import URL, excerpt_change, excerpt_row
from helpers.data.sampling import shuffle_key
from helpers.data.turns import CHANGED, DROPPED, EMPTY_TURN, has_empty_turn
from helpers.language.bengali import bengali_share, normalise, split_words
from helpers.language.hotlines import foreign_crisis_number
from helpers.language.signatures import is_signed

MIN_CHARACTERS = 6  # a side with fewer says nothing
NEGATING = ("অ", "অন", "না", "নি", "নির", "নির্", "নিঃ", "বে", "দুঃ", "দুর", "দুর্")  # before a word: its opposite
SIDES = ["question", "answer"]

_ENTITY = regex.compile(r"&\s?(?:amp\s?;\s?)?(#?[A-Za-z0-9]{2,8})\s?;")  # also one that was escaped twice
_MOJIBAKE = regex.compile(r"[\u0080-\u009f\u00a6-\u00ff\u0152-\u0178\u2020-\u203a\u20ac]")  # UTF-8 read as Latin
_LOST_BYTE = regex.compile(
    r"â€(?=(্)|[\s।॥,.;:!?)\]\u0980-\u09ff]|$)"
)  # the last of ” or of a joiner; most tools drop it
_LEFTOVER = regex.compile(r"[ÂÃ]+(?=\s|$)|(?<=\s)[ÂÃ]+")
_TAG = regex.compile(
    r"</?\s?(?:br|p|div|span|b|i|u|em|strong|a|font|h[1-6]|[uo]l|li|table|tbody|thead|tr|t[dh])\b[^<>]*>",
    regex.IGNORECASE,
)
_STRAY = regex.compile(r"[<>](?!\s*\p{N})|(?<!\p{N}\s*)[<>]")  # what tags leave; between two numbers it compares them
_LIST = regex.compile(r"(?:array\()?[\[{]\s*[\[{]*\s*(['\"]).*\1.*[\]})]", regex.DOTALL)  # a list or object, as text


class FunnelStep(NamedTuple):
    """What one rule did."""

    rule: str
    rows_in: int
    changed: int = 0
    dropped: int = 0
    examples: tuple[str, ...] = ()  # at most three

    def as_json(self) -> dict[str, Any]:
        """Returns the step as metrics.json has it; `share` is that of the rows in that were changed or dropped."""
        facts = {"rule": self.rule, "rows_in": self.rows_in, "changed": self.changed, "dropped": self.dropped}
        share = (self.changed + self.dropped) / self.rows_in if self.rows_in else 0.0
        return {**facts, "rows_out": self.rows_in - self.dropped, "share": share}


class MergedTopic(NamedTuple):
    """A rare spelling of a topic that was merged into the common one."""

    spelling: str
    topic: str
    rows: int  # of the file

    def as_json(self) -> dict[str, Any]:
        """Returns it as metrics.json has it."""
        return {"from": self.spelling, "to": self.topic, "rows": self.rows}


class Corpus(NamedTuple):
    """The rows that are kept and those that were dropped, in the file's order, and what each rule did.

    Both tables have the columns of `unify_columns`, `id` (of the content, so that row order does not change it) and
    `dialogue` (of `number_dialogues`, in the whole file); `dropped` also has `rule`, and `group` for rows that had one.
    """

    kept: pandas.DataFrame
    dropped: pandas.DataFrame
    funnel: list[FunnelStep]
    order: Order
    merged_topics: tuple[MergedTopic, ...] = ()  # the most rows first

    def describe_merged_topics(self) -> str:
        """Returns how many rare spellings of topics were merged, and of how many rows."""
        if not self.merged_topics:
            return "No topic is a rare spelling of another one."
        rows = sum(merged.rows for merged in self.merged_topics)
        spellings = f"{len(self.merged_topics):,} rare spelling{'s' * (len(self.merged_topics) != 1)}"
        return f"{spellings} merged ({rows:,} row{'s' * (rows != 1)})."

    def drop(self, rule: str, ids: Iterable[str]) -> "Corpus":
        """Returns the corpus with the kept rows of these ids dropped by a rule, which is the funnel's next step."""
        hit = self.kept.id.isin(set(ids))
        columns = dict.fromkeys([*self.dropped.columns, *self.kept.columns.intersection(["group"])])
        gone = self.kept[hit].assign(rule=rule).reindex(columns=list(columns))
        dropped = pandas.concat([self.dropped, gone], ignore_index=True)
        step = FunnelStep(rule, len(self.kept), dropped=len(gone))
        kept = self.kept.loc[~hit].reset_index(drop=True)
        return self._replace(kept=kept, dropped=dropped, funnel=[*self.funnel, step])


def _fix_mojibake(text: str) -> str:
    if not _MOJIBAKE.search(text):
        return text
    import ftfy  # a fifth of a second

    text = _LOST_BYTE.sub(lambda match: "â€\x8d" if match[1] else "â€\x9d", text)
    return _LEFTOVER.sub("", ftfy.fix_encoding(text))


def _follows_swap(table: pandas.DataFrame) -> pandas.Series:
    """Returns which rows follow a question that is its own answer in a dialogue: there the roles are swapped."""
    swap = table.rule == "question is the answer"
    return swap.groupby(table.dialogue).cumsum() > swap


REPAIRS: dict[
    str, Callable[[str], str]
] = {  # these change a row; before `normalise`, which drops half of mojibake's bytes
    "entities": lambda text: html.unescape(_ENTITY.sub(r"&\1;", text)),
    "mojibake": _fix_mojibake,
    "markup": lambda text: _STRAY.sub(" ", _TAG.sub(" ", text)),
}
DROPS: dict[str, Callable[[pandas.DataFrame, float], Any]] = {  # in this order; the first hit drops the row
    "list cell": lambda table, _: _texts(table).map(lambda texts: any(map(_LIST.fullmatch, texts))),
    "missing side": lambda table, _: (table.answer == "") | ((table.question == "") & ~table.plain),
    "too short": lambda table, _: _any_side(table, lambda text: len(text) < MIN_CHARACTERS),
    "question is the answer": lambda table, _: (
        ~table.plain & (table.question.map(split_words) == table.answer.map(split_words))
    ),
    "roles swapped": lambda table, _: _follows_swap(table),
    "url": lambda table, _: table[SIDES].map(URL.search).notna().any(axis=1),
    "signature": lambda table, _: _any_answer(table, is_signed),
    "foreign crisis number": lambda table, _: _any_answer(table, foreign_crisis_number),
    "not Bengali": lambda table, least: _any_side(table, lambda text: bengali_share(text) < least),
    "exact duplicate": lambda table, _: table.id.where(table.rule.isna()).duplicated(),
}
RULES = [*REPAIRS, *DROPS]


def _texts(table: pandas.DataFrame) -> pandas.Series:
    """Returns each row's texts: both sides, or every turn of its conversation."""
    if "messages" in table:
        return table.messages.map(lambda turns: [turn["content"] for turn in turns])
    return pandas.Series(list(zip(table.question, table.answer)), index=table.index)


def _any_answer(table: pandas.DataFrame, test: Callable[[str], Any]) -> pandas.Series:
    """Returns which rows have an answer that passes a test; a conversation has one in each turn of the assistant's."""
    if "messages" not in table:
        return table.answer.map(test).astype(bool)
    answers = table.messages.map(lambda turns: [turn["content"] for turn in turns if turn["role"] == "assistant"])
    return answers.map(lambda texts: any(map(test, texts)))


def _any_side(table: pandas.DataFrame, test: Callable[[str], Any]) -> pandas.Series:
    """Returns which rows have a question or an answer, not empty, that passes a test.

    The user's turns of a conversation are one question: a short one is an answer's occasion, and never trained on.
    """

    def test_text(text: str) -> bool:
        return text != "" and bool(test(text))

    return table.question.map(test_text).astype(bool) | _any_answer(table, test_text)


def _find_defects(table: pandas.DataFrame) -> dict[str, pandas.Series]:
    """Returns the conversations that each rule of `helpers.data.turns` applies to; {} for other formats."""
    if "defects" not in table:
        return {}
    rules = {rule: table.defects.map(lambda names, rule=rule: rule in names) for rule in [*CHANGED, *DROPPED]}
    return {**rules, EMPTY_TURN: table.messages.map(has_empty_turn)}


def check_rules(names: Iterable[str]) -> None:
    """Raises ValueError where a name is of no rule that may be skipped."""
    if unknown := [name for name in names if name not in RULES]:
        raise ValueError(f"prepare_data.skip_rules names {unknown[0]!r}: expected one of {', '.join(RULES)}.")


def clean_table(table: pandas.DataFrame, skip_rules: Iterable[str] = (), min_bengali_share: float = 0.6) -> Corpus:
    """Repairs every text, normalises it once, and drops rows by the RULES but those in `skip_rules`.

    A row is dropped by "not Bengali" when less than `min_bengali_share` (0 to 1) of a side's letters are Bengali.
    Conversations go through the rules of `helpers.data.turns` first, which cannot be skipped.
    Raises ValueError for an unknown rule and when no row is left.
    """
    check_rules(skip_rules)
    table, funnel = _repair_rows(table, [rule for rule in REPAIRS if rule not in skip_rules])
    defects = _find_defects(table)
    funnel += [FunnelStep(rule, len(table), changed=int(defects.pop(rule).sum())) for rule in CHANGED if defects]
    table["topic"], merged_topics = canonicalise_topics(table.topic)
    table["dialogue"], order = number_dialogues(table)
    table["id"] = [make_id(f"{q}\0{a}") for q, a in zip(table.question, table.answer)]  # pandas 2 drops a \0 in a sum
    table["rule"] = None
    for rule in [*defects, *(rule for rule in DROPS if rule not in skip_rules)]:
        left = table.rule.isna()
        hits = left & (defects[rule] if rule in defects else DROPS[rule](table, min_bengali_share))
        examples = tuple(excerpt_row(rule, *row) for row in table.loc[hits, SIDES].head(3).itertuples(index=False))
        step = FunnelStep(rule, int(left.sum()), dropped=int(hits.sum()), examples=examples)
        funnel.append(step)
        table.loc[hits, "rule"] = rule
    kept = table.loc[table.rule.isna()].drop(columns="rule").reset_index(drop=True)
    if kept.empty:
        counts = table.rule.value_counts().to_dict()
        raise ValueError(f"all {len(table)} rows were dropped: {counts}. Nothing is left to train on.")
    return Corpus(kept, table.loc[table.rule.notna()].reset_index(drop=True), funnel, order, merged_topics)


def _repair_rows(table: pandas.DataFrame, rules: list[str]) -> tuple[pandas.DataFrame, list[FunnelStep]]:
    """Returns the table with every text repaired and normalised, and a step for each rule."""
    table, funnel = table.copy(), []
    texts = table[["topic", "title", *SIDES]]
    for rule in rules:
        repaired = texts.map(REPAIRS[rule])
        changed = (repaired[SIDES] != texts[SIDES]).any(axis=1)
        pairs = zip(*(table.loc[changed, SIDES].head(3).itertuples(index=False) for table in (texts, repaired)))
        examples = tuple(next(excerpt_change(*sides) for sides in zip(*pair) if len(set(sides)) > 1) for pair in pairs)
        funnel.append(FunnelStep(rule, len(table), changed=int(numpy.sum(changed)), examples=examples))
        texts = repaired
    table[texts.columns] = texts.map(normalise)
    if "messages" in table:
        table["messages"] = [
            [{**turn, "content": repair_text(turn["content"], rules)} for turn in turns] for turns in table.messages
        ]
    return table, funnel


def repair_text(text: str, rules: Iterable[str]) -> str:
    """Returns a text repaired by these of the REPAIRS, and normalised."""
    return normalise(functools.reduce(lambda text, rule: REPAIRS[rule](text), rules, text))


def make_id(content: str) -> str:
    """Returns an id of 12 hexadecimal digits for a content."""
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def canonicalise_topics(topics: pandas.Series) -> tuple[pandas.Series, tuple[MergedTopic, ...]]:
    """Returns the topics with rare spellings (under a tenth of the nearest one's rows) put to the one they vary, and
    which were.

    A negating prefix (অবিশ্বাস, distrust, of বিশ্বাস, trust) makes another topic, not another spelling.
    """
    counts = topics.value_counts().to_dict()
    names = {}
    for topic in counts if len(counts) < 2000 else []:
        common = [other for other in list(counts)[:200] if counts[other] >= 10 * counts[topic] and topic]
        common = [other for other in common if not _are_opposites(topic, other)]
        if close := difflib.get_close_matches(topic, common, n=1, cutoff=0.8):
            names[topic] = close[0]
    merged = tuple(MergedTopic(spelling, topic, counts[spelling]) for spelling, topic in names.items())
    return topics.map(lambda topic: names.get(topic, topic)), merged


def _are_opposites(first: str, second: str) -> bool:
    """Returns whether one topic is the other with a negating prefix; a letter written twice is none."""
    short, long = sorted((first, second), key=len)
    return any(long == prefix + short and not short.startswith(prefix) for prefix in NEGATING)


def example_fates(table: pandas.DataFrame, corpus: Corpus, seed: int) -> list[dict[str, Any]]:
    """Returns three rows of the raw table with what became of them: a dropped, a changed and a kept one by seed."""
    raw, kept = table.set_index("number"), corpus.kept.set_index("number")
    repaired = kept.answer != raw.answer[kept.index].map(normalise)  # another normal form would not be seen
    dropped = {number: f"dropped: {rule}" for number, rule in zip(corpus.dropped.number, corpus.dropped.rule)}
    fates = (dropped, kept.answer[repaired].to_dict(), dict.fromkeys(kept.index[~repaired], "kept as it is"))
    first, second, third = (sorted(fate.items(), key=lambda item: shuffle_key(seed, str(item[0]))) for fate in fates)
    return [
        {"row": number, "raw question": raw.question[number], "raw answer": raw.answer[number], "became": became}
        for number, became in [*first[:1], *second[:1], *third][:3]
    ]
