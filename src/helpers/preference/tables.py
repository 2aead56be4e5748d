"""Preferences from a .csv, .jsonl or .parquet file, in TRL's names: pairs and labelled replies, row by row."""

import unicodedata
from pathlib import Path
from typing import Any

import pandas

from helpers.data.load import SUFFIXES, read_table
from helpers.data.turns import Turns, read_cell, read_turns
from helpers.language.bengali import latin_digits
from helpers.preference.items import Dropped, Preference, read_prompt
from helpers.runs.files import expand_home

PAIR, LABELLED = ("prompt", "chosen", "rejected"), ("prompt", "completion", "label")  # columns, by exact name
LIKED = "true 1 1.0 yes like liked good up 👍 হ্যাঁ হাঁ জি ভালো ভাল পছন্দ ঠিক সত্য"
DISLIKED = "false 0 0.0 -1 no dislike disliked bad down 👎 না খারাপ মন্দ অপছন্দ ভুল মিথ্যা"
LABELS = {
    unicodedata.normalize("NFC", word): liked
    for words, liked in ((LIKED, True), (DISLIKED, False))
    for word in words.split()
}
UNKNOWN_LABEL = "unknown label"


def read_file(dataset: str, system: Turns) -> tuple[list[Preference], list[Dropped]]:
    """Returns the preferences of a file, and its rows that are none; `system` begins a prompt that is a text.

    Raises FileNotFoundError for a file that is not there, and ValueError for one that `helpers.data.load` cannot read,
    with other columns, without a row, or without any label that is known.
    """
    path = Path(expand_home(dataset))
    _check_file(path, dataset)
    table = read_table(path).rename(columns=lambda column: str(column).strip())
    _check_columns(list(table.columns), path.name)
    if table.empty:
        raise ValueError(f"{path.name!r} has the right columns and no row.")
    items, dropped = [], []
    for number, row in enumerate(table.to_dict("records"), start=1):
        reason, item = _read_row({str(name): cell for name, cell in row.items()}, path, number, system)
        items += [item] * (not reason)
        dropped += [Dropped(reason, item)] * bool(reason)
    if not items and any(own.reason == UNKNOWN_LABEL for own in dropped):
        label = next(str(cell) for cell in table["label"] if not _is_empty(cell))
        raise ValueError(f"{path.name!r}: no label is known, the first is {label[:40]!r}. {_expected_labels()}")
    return items, dropped


def _check_file(path: Path, dataset: str) -> None:
    if not path.is_file():
        expected = f"'thumbs', 'ratings', or the path of a {', '.join(SUFFIXES)} file"
        raise FileNotFoundError(
            f"prefer.dataset names {dataset!r}: no such file in {Path.cwd()}. Expected {expected}: check the path."
        )
    if not path.stat().st_size:
        raise ValueError(f"{path.name!r} is empty (0 bytes): expected a table with {_expected_columns()}.")


def _expected_columns() -> str:
    return f"the columns {', '.join(PAIR)}, or {', '.join(LABELLED)}"


def _expected_labels() -> str:
    return f"Expected for a liked reply one of {LIKED}; for a disliked one, {DISLIKED}."


def _check_columns(columns: list[str], name: str) -> None:
    """Raises ValueError where the columns of neither kind are all there, or one of them stands twice."""
    if not any(set(needed) <= set(columns) for needed in (PAIR, LABELLED)):
        nearest = max((PAIR, LABELLED), key=lambda needed: len(set(needed) & set(columns)))
        missing = ", ".join(column for column in nearest if column not in columns)
        hint = f"Add or rename {missing}" if set(nearest) & set(columns) else "Rename its columns"
        raise ValueError(f"{name!r} has the columns {columns}. Expected, by exact name, {_expected_columns()}. {hint}.")
    for column in {*PAIR, *LABELLED}:
        if columns.count(column) > 1:
            raise ValueError(f"{name!r} has the column {column!r} twice: rename or remove one.")


def _read_row(row: dict[str, Any], path: Path, number: int, system: Turns) -> tuple[str, Preference]:
    """Returns why a row is no preference, "" where it is one, and the preference as far as it goes."""
    (prompt, broken), name, origin = _read_prompt(row.get("prompt"), system), path.name, f"row {number}"
    shared: dict[str, Any] = {"prompt": prompt, "off_policy": True, "voters": frozenset([f"{path} {origin}"])}
    replies, problems = zip(*(_read_reply(row.get(name), prompt) for name in ("chosen", "rejected", "completion")))
    (chosen, rejected, completion), broken = replies, broken or next(filter(None, problems), "")
    liked = read_label(row.get("label"))
    if chosen and rejected:
        return broken, Preference(name, origin, chosen=chosen, rejected=rejected, **shared)
    side = "rejected" if liked is False else "chosen"
    item = Preference(name, origin, **{side: completion or chosen or rejected}, **shared)
    return broken or ("missing side" if not completion else UNKNOWN_LABEL if liked is None else ""), item


def _read_prompt(cell: Any, system: Turns) -> tuple[Turns, str]:
    """Returns a cell's turns, and why it has none that can be used, "" where it has: a list of messages, also as its
    text in a .csv file, or a text that a person asks."""
    if _is_empty(cell):
        return [], "missing side"
    is_text = isinstance(cell, str)
    turns = [] if is_text and not cell.lstrip().startswith("[") else read_cell(cell)
    if not turns and not is_text:
        return [], "no conversation"
    return read_prompt(turns or [{"role": "user", "content": cell}], system)


def _read_reply(cell: Any, prompt: Turns) -> tuple[str, str]:
    """Returns a reply and why it is none, "" where it is one: a text, or the last of a list of messages, before which
    nothing stands but the prompt, as TRL has it; in a .csv file as its text."""
    if _is_empty(cell):
        return "", ""
    is_text = isinstance(cell, str)
    turns, _ = read_turns(cell) if not is_text or cell.lstrip().startswith("[") else ([], [])
    if not turns:
        return str(cell), "" if is_text else "no conversation"
    *before, last = turns
    asked, shown = ([turn["content"] for turn in own if turn["role"] != "system"] for own in (prompt, before))
    is_reply = last["role"] == "assistant" and shown in ([], asked)
    return last["content"], "" if is_reply else "no conversation"


def _is_empty(cell: Any) -> bool:
    """Returns whether a cell holds nothing: None, NaN, no text, no turns."""
    if isinstance(cell, str):
        return not cell.strip()
    return bool(pandas.isna(cell)) if pandas.api.types.is_scalar(cell) else not len(cell)


def read_label(cell: Any) -> bool | None:
    """Returns whether a label says liked; None for one that is not known."""
    return LABELS.get(unicodedata.normalize("NFC", latin_digits(str(cell))).strip(" \t\n.।!\ufe0f").lower().lstrip("+"))
