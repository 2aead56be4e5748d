"""Data rows as the later stages read them."""

import itertools
from typing import Any

import pandas

from helpers.data.clean import Corpus, make_id
from helpers.data.dialogues import number_conversations
from helpers.data.group import Pairs
from helpers.data.sampling import sample_rows
from helpers.data.split import PARTS

Row = dict[str, Any]
Parts = dict[str, list[Row]]  # train, val, test: data rows


def _messages(row: Row) -> list[dict[str, str]]:
    """Returns the messages of a table's row, which has a question and an answer at least."""
    pair = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return row.get("messages", pair)


def join_dialogues(table: pandas.DataFrame, links: dict[str, Pairs]) -> pandas.DataFrame:
    """Returns the table with the turns of each dialogue joined into one conversation; needs `group` and `part`.

    `links` come from `link_rows`: an opening that is told again elsewhere begins a conversation.
    """
    openings = frozenset(itertools.chain.from_iterable(links.get("near-duplicate question", [])))
    numbers, joined = number_conversations(table, openings), []
    for _, turns in itertools.groupby(zip(numbers, table.to_dict("records")), key=lambda turn: turn[0]):
        rows = [row for _, row in turns]
        row = {**rows[0], "messages": [message for row in rows for message in _messages(row)]}
        if len(rows) > 1:
            row |= {side: "\n\n".join(turn[side] for turn in rows) for side in ("question", "answer")}
            row["id"] = make_id("".join(turn["id"] for turn in rows))
        joined.append(row)
    return pandas.DataFrame(joined)


def pick_rows(corpus: Corpus, max_rows: int, seed: int) -> Corpus:
    """Returns the corpus with all but `max_rows` sampled rows (0: all) dropped, by the rule "not sampled"."""
    if not max_rows:
        return corpus
    return corpus.drop("not sampled", {*corpus.kept.id} - {*sample_rows(corpus.kept, max_rows, seed).id})


def data_rows(table: pandas.DataFrame, system_prompt: str, source: str) -> list[Row]:
    """Turns the table (with `id` and `group`) into data rows, sorted by id.

    A row: {"id", "group", "source", "topic", "messages": [{"role", "content"}, …]}, the system prompt first unless the
    row brings its own; for plain text {"id", "group", "source", "text"}.
    """
    rows = []
    for row in table.to_dict("records"):
        shared = {"id": row["id"], "group": row["group"], "source": source}
        if row["plain"]:
            rows.append({**shared, "text": row["answer"]})
            continue
        messages = _messages(row)
        if system_prompt and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system_prompt}, *messages]
        rows.append({**shared, "topic": row["topic"], "messages": messages})
    return sorted(rows, key=lambda row: row["id"])


def make_parts(table: pandas.DataFrame, system_prompt: str, dataset: str) -> Parts:
    """Returns the data rows of train, val and test, with the last part of the data set's name as their source.

    Raises ValueError when a part has no rows.
    """
    source = dataset.split("/")[-1]
    parts = {part: data_rows(table.loc[table.part == part], system_prompt, source) for part in PARTS}
    if empty := [part for part, rows in parts.items() if not rows]:
        raise ValueError(f"no row of {empty} is left: raise shared.max_length (tokens) or prepare_data.max_rows.")
    return parts
