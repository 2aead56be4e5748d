"""A conversation as a data set brings it: its turns, and what becomes of one that cannot be trained on as it is.

A data row begins with at most one system turn, then every assistant turn follows a user's, and the last turn is the
assistant's: it is the reference of the evaluation. Two turns of the user in a row are kept as they are.

The rules and what each takes: docs/data.md.
"""

import ast
import json
from collections.abc import Iterable
from typing import Any

import pandas

from helpers.language.bengali import normalise

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TOOL_ROLES = {"tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython"}
CHANGED = ["empty system turn", "turns after the last answer"]  # rules, as in the table above
DROPPED = ["no conversation", "unknown role", "tool turn", "misplaced system turn", "answer without a question"]
EMPTY_TURN = "empty turn"  # the last of the rules: a text is known to be empty only after it was repaired

Turns = list[dict[str, str]]  # [{"role", "content"}, …]


def read_turns(value: Any) -> tuple[Turns, list[str]]:
    """Returns the turns of one cell, in OpenAI's or ShareGPT's names, and the rules of CHANGED and DROPPED that apply.

    A cell may be a list or its text, as JSON or as Python writes it. The roles of a conversation that is dropped stay
    as they are.
    """
    raw = read_cell(value)
    if not raw:
        return [], ["no conversation"]
    turns, rules = [], []
    for turn in raw:
        written = str(turn.get("role", turn.get("from")))
        role = ROLES.get(written.lower(), written)
        content = turn.get("content", turn.get("value"))
        turns.append({"role": role, "content": "" if _is_null(content) else str(content)})
        if written.lower() in TOOL_ROLES or not _is_null(turn.get("tool_calls")):
            rules.append("tool turn")
        elif role not in ROLES.values():
            rules.append("unknown role")
    if rules:
        return turns, rules
    if turns[0]["role"] == "system" and not normalise(turns[0]["content"]):
        turns, rules = turns[1:], ["empty system turn"]
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if answers and answers[-1] < len(turns) - 1:
        turns = turns[: answers[-1] + 1]
        rules.append("turns after the last answer")
    if any(turn["role"] == "system" for turn in turns[1:]):
        rules.append("misplaced system turn")
    if any(place == 0 or turns[place - 1]["role"] != "user" for place in answers):
        rules.append("answer without a question")
    return turns, rules


def has_empty_turn(turns: Turns) -> bool:
    """Returns whether a turn says nothing."""
    return not all(turn["content"] for turn in turns)


def read_cell(value: Any) -> list[dict[str, Any]]:
    """Returns a cell's turns as they are written; [] where it holds none."""
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    raw = list(value) if isinstance(value, Iterable) and not isinstance(value, str | dict) else []
    return raw if all(isinstance(turn, dict) for turn in raw) else []


def _is_null(value: Any) -> bool:
    """Returns whether a cell holds nothing: None, NaN or an empty list."""
    return bool(pandas.isna(value)) if pandas.api.types.is_scalar(value) else not len(value)
