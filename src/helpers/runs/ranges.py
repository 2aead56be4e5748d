"""What a setting's value may be besides its type: within its range (ranges.yaml), plain, and no secret."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.platforms.errors import Refused
from helpers.platforms.scrub import holds_secret, is_secret_field
from helpers.runs.files import load_yaml

RANGES: dict[str, dict[str, dict]] = load_yaml(Path(__file__).with_suffix(".yaml"))
LARGEST = 2**53  # from which on JSON's readers round whole numbers
STORE = "put it into the environment, or into Kaggle's or Colab's Secrets"


def find_range(stage: str, name: str) -> dict[str, Any]:
    """Returns the range of a setting such as "learning_rate" or "lora.r", {} without one."""
    return RANGES.get(stage, {}).get(name) or RANGES["every stage"].get(name, {})


def is_within(value: Any, limits: dict[str, Any]) -> bool:
    """Returns whether a value of the right type is within its range; None, which leaves it to a library, is."""
    checks = {
        "from": lambda limit: value >= limit,
        "above": lambda limit: value > limit,
        "to": lambda limit: value <= limit,
        "below": lambda limit: value < limit,
        "one_of": lambda choices: value in choices,
        "some_of": lambda choices: all(item in choices for item in value),
        "filled": lambda _: bool(value.strip()),
        "texts": lambda _: all(map(_is_text, value)),
    }
    return value is None or all(checks[kind](limit) for kind, limit in limits.items())


def _is_text(value: Any) -> bool:
    """Returns whether a value is a text that is not blank, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_text, value))
    return isinstance(value, str) and bool(value.strip())


def describe_range(limits: dict[str, Any]) -> str:
    """Returns a range in words, as what follows "expected"."""
    words = {
        "from": "{:,} or more",
        "above": "more than {:,}",
        "to": "at most {:,}",
        "below": "less than {:,}",
        "filled": "a text that is not empty",
        "texts": "a list of texts, none of them empty",
    }
    for kind, word in (("one_of", "one"), ("some_of", "some")):
        if kind in limits:
            return f"{word} of {', '.join(repr(choice) for choice in limits[kind] if choice is not False)}"
    return " and ".join(words[kind].format(limit) for kind, limit in limits.items())


def check_plain(path: str, value: Any) -> None:
    """Checks that a setting can be kept as JSON, is finite, and holds no secret, down to the items of lists and dicts.

    Raises Refused for a secret, without showing it, and ValueError for the rest.
    """
    for name, leaf in _leaves(path, value):
        if isinstance(leaf, str):
            _check_text(name, leaf)
        elif isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(f"{name} is {leaf}: expected a finite number.")
        elif isinstance(leaf, int) and abs(leaf) > LARGEST:
            raise ValueError(f"{name} is a number of {leaf.bit_length()} bits: expected at most 15 digits.")
        elif not isinstance(leaf, int | float | None):
            raise ValueError(f"{name} is {leaf!r} ({type(leaf).__name__}): expected text, a number, true or false.")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, value) of everything in a value that is neither a list nor a dict."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{path} has the key {key!r} ({type(key).__name__}): expected a text.")
            yield from _leaves(f"{path}.{key}", part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(path, part)
    else:
        yield path, value


def _check_text(path: str, text: str) -> None:
    field = path.rpartition(".")[2]
    if path.endswith("llm_judge.secret"):
        if text and (holds_secret(text) or not text.isidentifier() or not text.isascii()):
            raise Refused(
                f"{path} takes the name of a secret, such as JUDGE_TOKEN, not the secret: {STORE} under that name."
            )
    elif text and is_secret_field(field):
        raise Refused(f"{path} takes no secret, since settings are kept in run.json: {STORE}.")
    elif holds_secret(text):
        way = "the password into ~/.pgpass or PGPASSWORD" if "://" in text else "it into the environment"
        raise Refused(f"{path} holds a secret, and settings are kept in run.json: put {way}, and leave it out here.")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text):
        raise ValueError(f"{path} is {text!r}: expected text in UTF-8 without null characters.")
