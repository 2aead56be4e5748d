"""Where preferences come from: the chat page's thumbs, the ratings of the sheet, files."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from helpers.data.load import SUFFIXES, locate_kaggle_table
from helpers.data.turns import Turns
from helpers.inference.generate import system_messages
from helpers.platforms.errors import suggest_name
from helpers.preference.items import Dropped, Preference
from helpers.preference.ratings import read_rated_pairs
from helpers.preference.tables import read_file
from helpers.preference.thumbs import read_thumbs
from helpers.runs.record import Run

NAMED = ("thumbs", "ratings")  # sources that are no file


class Sources(NamedTuple):
    """What the sources hold, as they have it."""

    items: list[Preference]
    dropped: list[Dropped]
    facts: dict[str, Any]  # of the ratings: how many people, how many left out, which files were skipped


def check_dataset(dataset: list[str]) -> None:
    """Raises ValueError where `prefer.dataset` is no list of sources, each once."""
    files = f"the path of a {', '.join(SUFFIXES)} file, 'kaggle:owner/name'"
    if not isinstance(dataset, list) or not dataset:
        raise ValueError(f"prefer.dataset is {dataset!r}: expected a list, each {files}, 'thumbs' or 'ratings'.")
    for name in dataset:
        if name not in NAMED and not is_on_kaggle(name) and Path(str(name)).suffix.lower() not in SUFFIXES:
            hint = suggest_name(str(name), NAMED)
            raise ValueError(f"prefer.dataset names {name!r}: expected {files} or the name of a source.{hint}")
    if twice := [name for name, count in Counter(dataset).items() if count > 1]:
        raise ValueError(f"prefer.dataset names {twice[0]!r} twice: each vote would count twice. Name it once.")


def is_on_kaggle(name: Any) -> bool:
    """Returns whether a source is a data set on Kaggle, kaggle:owner/name."""
    return bool(re.fullmatch(r"kaggle:[\w.-]+/[\w.-]+", str(name)))


def read_table_of(name: str, system: Turns) -> tuple[list[Preference], list[Dropped]]:
    """Reads a file, or the one table of a data set on Kaggle; raises as `read_file` and `locate_kaggle_table`."""
    return read_file(str(locate_kaggle_table(name.removeprefix("kaggle:"))) if is_on_kaggle(name) else name, system)


def check_sources(run: Run, dataset: list[str]) -> list[Preference]:
    """Reads every source, also of a run that has no rows yet, so that a later stage does not end there; returns all
    that they hold, the unusable too. Raises as the readers do."""
    items: list[Preference] = []
    for name in dataset:
        if name == "thumbs":
            own, dropped = read_thumbs(run, [])
        elif name == "ratings":
            own, dropped, _ = read_rated_pairs(run)
        else:
            own, dropped = read_table_of(name, [])
        items += [*own, *(each.item for each in dropped)]
    return items


def read_sources(run: Run, dataset: list[str]) -> Sources:
    """Reads every source. Raises FileNotFoundError for one that is not there, ValueError for one that cannot be read or
    holds nothing, and for a run of plain texts, which answer nobody."""
    check_dataset(dataset)
    system, items, dropped, facts = _system_turns(run), [], [], {}
    for name in dataset:
        if name == "thumbs":
            own = read_thumbs(run, system)
        elif name == "ratings":
            *own, facts["ratings"] = read_rated_pairs(run)
        else:
            own = read_table_of(name, system)
        items += own[0]
        dropped += own[1]
    return Sources(items, dropped, facts)


def _system_turns(run: Run) -> Turns:
    """Returns the system prompt of the run's rows, [] where they have none."""
    rows = run / "data" / "train.jsonl"
    if not rows.is_file():
        raise FileNotFoundError(f"{rows} is not there: finish 01_prepare_data of run {run.name} first.")
    with open(rows, encoding="utf-8") as file:
        if "messages" not in json.loads(file.readline()):
            problem = f"run {run.name} is trained on plain text, and preferences are of replies"
            raise ValueError(f"{problem}: expected conversations. Take prefer out of the stages.")
    return system_messages(run)
