"""The chat page's thumbs, from the table Feedback of outputs/experiments.db."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from helpers.data.turns import Turns, read_cell
from helpers.platforms.errors import describe_error
from helpers.preference.items import Dropped, Preference, read_prompt, reply_key
from helpers.runs.record import Run


def read_thumbs(run: Run, system: Turns) -> tuple[list[Preference], list[Dropped]]:
    """Returns the thumbs of outputs/experiments.db, and those that cannot be used.

    A thumb counts whichever model of the run wrote the reply; so does one on a reply of another run with the same base
    model. What the person would rather have read makes a pair of it.
    """
    models, items, dropped = {run.name: _base_model(run)}, [], []
    for thumb in _query_thumbs(run.outputs / "experiments.db"):
        name = thumb["run"]
        models.setdefault(name, _base_model(Run(run.outputs / name)))
        prompt, reply, broken = _read_conversation(thumb["conversation"], system)
        rewritten, liked = str(thumb.get("rewritten") or "").strip(), bool(thumb["liked"])
        sides = {"chosen": reply if liked else "", "rejected": "" if liked else reply}
        if rewritten and reply_key(rewritten) != reply_key(reply):
            sides = {"chosen": rewritten, "rejected": reply}
        voter = str(thumb.get("person") or f"thumb {thumb['id']}")
        off_policy = name != run.name or thumb["side"] == "base" or bool(sides["chosen"] and sides["rejected"])
        shared: dict[str, Any] = {"voters": frozenset([voter]), "off_policy": off_policy}
        item = Preference("thumbs", str(thumb["id"]), prompt, **sides, **shared)
        if models[name] != models[run.name]:
            broken = broken or "reply of another base model"
        items += [item] * (not broken)
        dropped += [Dropped(broken, item)] * bool(broken)
    return items, dropped


def _read_conversation(text: str, system: Turns) -> tuple[Turns, str, str]:
    """Returns the turns before the reply, the reply, and why they are none, "" where they are."""
    *before, last = read_cell(text) or [{}]
    if last.get("role") != "assistant":
        return [], text, "no conversation"
    prompt, broken = read_prompt(before, system)
    return prompt, str(last.get("content") or ""), broken


def _base_model(run: Run) -> str:
    """Returns a run's base model, "" where its folder is gone."""
    try:
        return str(run.training_config()["base_model"])
    except (OSError, ValueError, KeyError):
        return ""


def _query_thumbs(database: Path) -> list[dict[str, Any]]:
    """Returns the rows of the table Feedback, which is only read: an earlier version's has fewer columns.

    Raises FileNotFoundError without the database, ValueError where it cannot be read or holds no thumb.
    """
    hint = "give thumbs on the chat page (python -m helpers chat), or take 'thumbs' out of prefer.dataset"
    if not database.is_file():
        raise FileNotFoundError(f"prefer.dataset names 'thumbs', and {database} is not there: {hint}.")
    address = f"{database.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, timeout=60, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM Feedback ORDER BY id")]
    except sqlite3.Error as error:
        if "no such table" not in str(error):
            locked = "is locked" in str(error)  # by a transaction that another program has not ended
            mend = "close the other program that writes to it, or wait for it" if locked else "take it from a copy"
            raise ValueError(f"{database} cannot be read ({describe_error(error)}): {mend}.") from error
        rows = []
    if not rows:
        raise ValueError(f"prefer.dataset names 'thumbs', and {database} holds none: {hint}.")
    return rows
